"""One report in three forms: report.json holds every number, report.html and report.md are rendered from it alone."""
