"""report.json -> the tables that HTML and Markdown both print, one module a section of the report."""
