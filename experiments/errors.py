"""Errors meant for people: one clear sentence with the value, the place and the valid choices."""

OUT_OF_MEMORY = (  # texts of torch's RuntimeErrors: on the CPU, and on a GPU outside torch's own allocator
    "DefaultCPUAllocator: can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether there was too little memory, on the GPU or in this process. Does not import torch."""
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in OUT_OF_MEMORY)


class DivergedError(RuntimeError):
    """Training diverged, so that no further step makes sense: this arm ends, the other arms continue."""

    @classmethod
    def if_too_many(cls, arm: str, num_skipped: int, max_skipped: int) -> None:
        """Raise it if more optimizer steps than allowed had no finite gradient."""
        if num_skipped > max_skipped:
            raise cls(
                f"arm {arm}: {num_skipped} optimizer steps had no finite gradient, and "
                f"arm.max_skipped_steps={max_skipped}; a lower arm.learning_rate is the usual remedy"
            )


class InputError(ValueError):
    """The user's input cannot be used: a path, a file's content, a combination of settings."""
