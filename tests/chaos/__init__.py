"""Hundreds of seeded interruptions of real sweeps: `python -m tests.chaos`."""
