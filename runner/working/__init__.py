"""What every job needs around its work: a folder of its own, signs of life, and the report as a job like others."""
