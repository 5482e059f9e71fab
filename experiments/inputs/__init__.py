"""Base models, tokens and files of rows: loaded and hashed."""
