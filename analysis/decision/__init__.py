"""What to do with an arm: the gates it must clear, the one to choose, and the headline that says so."""
