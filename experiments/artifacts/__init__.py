"""Artifacts: built once, addressed by the hash of their inputs, and shared by all arms and later sweeps."""
