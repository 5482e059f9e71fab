"""The record of a run on disk, written while a job works, read by the runner and the analysis. Loads no torch."""
