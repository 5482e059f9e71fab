"""Errors meant for people: one clear sentence with the value, the place and the valid choices."""


class DivergedError(RuntimeError):
    """Training went where no further step makes sense: the arm ends, and its siblings go on."""

    @classmethod
    def if_too_many(cls, arm: str, num_skipped: int, max_skipped: int) -> None:
        """Raise it where more optimizer steps than allowed had no finite gradient."""
        if num_skipped > max_skipped:
            raise cls(
                f"arm {arm}: {num_skipped} optimizer steps had no finite gradient, and "
                f"arm.max_skipped_steps={max_skipped}; a lower arm.learning_rate is the usual remedy"
            )


class InputError(ValueError):
    """What the user gave cannot be used: a path, a file's content, a combination of settings."""
