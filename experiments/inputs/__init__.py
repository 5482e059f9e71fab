"""Base models, texts and prompts: loaded, hashed, split once."""
