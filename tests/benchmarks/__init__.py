"""How fast and how large, against the trainers that people would use instead. `make bench` runs all of it."""
