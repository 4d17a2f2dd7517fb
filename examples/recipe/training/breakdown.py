"""Telling what broke by what PyTorch says: most of it comes as a RuntimeError."""

import torch

# Of a CPU; the primitive is what oneDNN has no memory for
_NO_MEMORY = ("can't allocate memory", "not enough memory", "std::bad_alloc", "could not create a primitive")
_NO_PEER = (
    "closed by peer",
    "reset by peer",
    "Broken pipe",
    "remote process exited",
    "Timed out waiting",
)  # gloo, NCCL


def out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _says(error, _NO_MEMORY)


def process_lost(error: BaseException) -> bool:
    """Of several that train together."""
    return isinstance(error, torch.distributed.DistError) or _says(error, _NO_PEER)


def _says(error: BaseException, words: tuple[str, ...]) -> bool:
    return any(some in str(error) for some in words)
