"""A job's process: its folder, its signs of life, and what it does."""
