"""Compare two runs of one sweep by two versions of the program: the same numbers, renamed ones by a table."""
