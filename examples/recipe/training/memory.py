"""Telling an exhausted memory from other errors."""

import torch

# Of a CPU, as a RuntimeError; the primitive is what oneDNN has no memory for
_SAID_BY_PYTORCH = ("can't allocate memory", "not enough memory", "std::bad_alloc", "could not create a primitive")


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in str(error) for words in _SAID_BY_PYTORCH
    )
