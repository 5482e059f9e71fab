"""The science: what one arm does. Independent of Hydra, engines and trackers."""
