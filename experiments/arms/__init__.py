"""The two algorithms as training loops: specification and shared artifacts in, adapters and ledger rows out."""
