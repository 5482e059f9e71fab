"""The sweep under way: which job starts when, with how much memory, and what happens to those that fail."""
