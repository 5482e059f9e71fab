"""Estimates with their intervals: the bootstrap, the models fitted to votes and curves, and how many units suffice."""
