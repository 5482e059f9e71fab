"""Built once, addressed by the hash of what they depend on, shared by all arms and later sweeps."""
