"""Judges of pairs of responses: a chat endpoint, and a reward model with weights of its own."""
