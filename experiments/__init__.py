"""The science: what one arm does. Knows nothing of Hydra, engines or trackers."""
