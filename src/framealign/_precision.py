"""The precision that is computed in: float32 at least, also under autocast."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def compute_dtype(*tensors: Tensor) -> torch.dtype:
    """The widest dtype among the tensors, float32 at least (`.float()` would demote float64)."""
    dtype = torch.float32
    for tensor in tensors:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return dtype


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Inside, autocast does not send matrix products back to half precision."""
    device = tensor.device.type
    if device == "meta":  # knows no autocast, and so needs no shelter from it
        return nullcontext()
    if not torch.compiler.is_compiling() and not torch.is_autocast_enabled(device):
        return nullcontext()  # in a small batch, entering autocast takes as long as a product
    return torch.autocast(device, enabled=False)
