"""Zeros over the padding of many frames, where the mask can be read: real frames are copied, the rest is not read."""

from typing import Any

import torch
from torch import Tensor

from framealign.kernels.groups import Batch


class ZeroPadding(torch.autograd.Function):
    """Frames (batch, time, dim) and a mask, both in host memory; linear, and so its own gradient."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return Batch(frames, mask, None, frames.dtype).without_padding()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return ZeroPadding.apply(gradient, mask), None
