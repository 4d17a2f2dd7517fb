"""What PyTorch is doing while this library is called: which path is open depends on it."""

import torch
from torch import Tensor
from torch.autograd import forward_ad


def can_be_read(tensor: Tensor) -> bool:
    """Whether the values are at hand: in host memory, and neither traced nor transformed."""
    return (
        not torch.compiler.is_compiling()
        and type(tensor) is Tensor
        and tensor.device.type == "cpu"
        and not needs_every_derivative()
    )


def needs_every_derivative() -> bool:
    """Inside a transform of `torch.func`, or forward mode: a formula for the gradient alone is not enough."""
    return bool(torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0)


def is_exporting() -> bool:
    return bool(getattr(torch.compiler, "is_exporting", lambda: False)())  # torch 2.6 does not have it
