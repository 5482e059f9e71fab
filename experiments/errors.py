"""Errors meant for people: one clear sentence with the value, the place and the valid choices."""


class DivergedError(RuntimeError):
    """Training went where no further step makes sense: the arm ends, and its siblings go on."""


class InputError(ValueError):
    """What the user gave cannot be used: a path, a file's content, a combination of settings."""
