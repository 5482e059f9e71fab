"""Everything that needs a model or a scorer after training; the results are ledger rows."""
