"""Which path a call of `frame_stats` takes: the operator, or the definition."""

import torch
from torch import Tensor

from framealign._checks import Backend
from framealign._precision import compute_dtype, without_autocast
from framealign._state import is_exporting, is_transforming, needs_every_derivative
from framealign.kernels.definition import definition
from framealign.kernels.interface import FrameStats, Request
from framealign.kernels.operator import operator
from framealign.layout import Layout


def frame_stats_core(
    frames: Tensor,
    columns: Tensor | None,
    layout: Layout,
    *,
    logits: Tensor | None = None,
    attend: bool = False,
    norms: bool = False,
    backend: Backend = "auto",
) -> FrameStats:
    """See [`framealign.functional.frame_stats`][]; arguments are not checked."""
    if columns is None:
        columns = frames.new_empty(layout.batch, 0, frames.shape[-1])
    with without_autocast(frames):
        dtype = compute_dtype(frames, columns)
        columns, logits = columns.to(dtype), None if logits is None else logits.to(dtype)
        request = Request(frames, columns, logits, layout.mask, layout.cu_seqlens, attend, norms, backend)
        outputs = definition(request, layout) if _needs_definition(frames, backend) else operator(*request)
    dots, lengths, weights, pooled = outputs
    return FrameStats(dots, lengths if norms else None, weights if attend else None, pooled if attend else None)


def _needs_definition(frames: Tensor, backend: Backend) -> bool:
    if backend == "triton":
        return False
    if frames.device.type == "meta":
        return True
    if torch.compiler.is_compiling():
        # An exported program should run where this library is not, and PyTorch transforms no operator with a gradient
        return is_exporting() or is_transforming()
    return needs_every_derivative()
