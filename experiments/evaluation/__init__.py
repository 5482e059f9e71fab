"""Everything after training that needs a model or a scorer; the results are ledger rows."""
