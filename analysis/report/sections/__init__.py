"""The sections of the report, one module each: what it is, and the tables that HTML and Markdown both print."""
