"""What a person sees of a sweep that runs: its rows, its progress and its time left."""
