"""`frame_stats` in Triton: what the kernels can hold, and their launches."""

# mypy: disable-error-code="no-untyped-call,import-not-found,import-untyped"

from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor

from framealign.kernels.interface import Found, Gradients, Needs, Outputs, Request, Saved
from framealign.kernels.launches import Launch, block_of, launches
from framealign.kernels.triton_kernels import backward_kernel, center_kernel, combine_kernel, forward_kernel, sum_kernel

MAX_DIM = 8192
MAX_COLUMNS = 12
_MAX_REGISTERS = 45056  # of a backward program: a vector for each column, and 4 more
# Products are fused with sums, as all that was measured had it; from Triton 3.10 on that has to be asked for
_COMPILED: dict[str, Any] = {"enable_fp_fusion": True}


def why_not(frames: Tensor, columns: Tensor) -> str | None:
    """Why the kernels cannot hold these shapes; None where they can."""
    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):  # loops that carry a tuple
        return f"Triton is {triton.__version__}, and the kernels need 3.3."
    dim, count = frames.shape[-1], columns.shape[1]
    if not 1 <= dim <= MAX_DIM:
        return f"frames have {dim} dimensions, and the kernels hold 1 to {MAX_DIM}."
    if count > MAX_COLUMNS:
        return f"there are {count} columns, and the kernels hold at most {MAX_COLUMNS}."
    if (count + 4) * block_of(dim) > _MAX_REGISTERS:
        limit = _MAX_REGISTERS // block_of(dim) - 4
        return f"there are {count} columns of {dim} dimensions, and at this size the kernels hold at most {limit}."
    return None


class _Grid(NamedTuple):
    """Which program takes which frames: by arithmetic in a padded batch, by tables on the device in a packed one."""

    batch: int
    time: int
    chunks: int
    programs: int
    segments: Tensor | None  # (programs,), the utterance of each program; `batch` where there is nothing to take
    offsets: Tensor | None  # (batch + 1,), the first program of each utterance


def _grid(frames: Tensor, cu_seqlens: Tensor | None, chunk: int) -> _Grid:
    if cu_seqlens is None:
        batch, time = frames.shape[:2]
        chunks = triton.cdiv(time, chunk)
        return _Grid(batch, time, chunks, batch * chunks, None, None)
    batch = cu_seqlens.shape[0] - 1
    programs = triton.cdiv(frames.shape[0], chunk) + batch  # the most that any lengths need; no value is read
    offsets = F.pad(((cu_seqlens.diff() + chunk - 1) // chunk).cumsum(0), (1, 0))
    segments = torch.searchsorted(offsets[1:], torch.arange(programs, device=frames.device), right=True)
    return _Grid(batch, 0, 0, programs, segments, offsets)


def _over_frames(frames: Tensor, grid: _Grid, launch: Launch, columns: Tensor) -> dict[str, Any]:
    """What both kernels over the frames are told of them."""
    strides = frames.stride() if grid.segments is None else (0, *frames.stride())
    return {
        "frames": frames,
        "columns": columns,
        "segments": grid.segments,
        "offsets": grid.offsets,
        "batch": grid.batch,
        "time": grid.time,
        "chunks": grid.chunks,
        "dim": frames.shape[-1],
        **dict(zip(("stride_b", "stride_t", "stride_d"), strides, strict=True)),
        "K": columns.shape[1],
        "CHUNK": launch.chunk,
        "BLOCK_T": launch.block_t,
        "BLOCK_D": launch.block_d,
        "HOLD": launch.hold,
        "STAGES": launch.stages,
        "num_warps": launch.num_warps,
        **_COMPILED,
    }


def forward(request: Request) -> Outputs:
    """All float32."""
    frames, columns, logits, mask, cu_seqlens, attend, norms, _ = request
    dim, count = frames.shape[-1], columns.shape[1]
    launch = launches(dim, frames.itemsize, count, attend).forward
    columns = columns.contiguous()  # those of one query for all utterances come expanded
    logits, mask, cu_seqlens = _contiguous(logits), _contiguous(mask), _contiguous(cu_seqlens)
    with _device_of(frames):
        grid = _grid(frames, cu_seqlens, launch.chunk)
        dots = _empty(frames, *frames.shape[:-1], count)
        lengths = _empty(frames, *frames.shape[:-1]) if norms else _empty(frames, 0)
        weights = _empty(frames, *frames.shape[:-1]) if attend else _empty(frames, 0)
        pooled = _empty(frames, grid.batch, dim) if attend else _empty(frames, 0)
        maxima, totals, parts = (_empty(frames, grid.programs, *size) for size in ((), (), (dim,))) if attend else _NONE
        forward_kernel[(grid.programs,)](
            **_over_frames(frames, grid, launch, columns),
            logits=logits,
            mask=mask,
            cu_seqlens=cu_seqlens,
            dots=dots,
            norms=lengths if norms else None,
            maxima=maxima,
            totals=totals,
            pooled=parts,
        )
        if attend:
            blocks = triton.cdiv(dim, 256)
            combine_kernel[(grid.batch * blocks,)](
                maxima, totals, parts,
                dots[..., -1] if logits is None else logits, count if logits is None else 1,
                mask, cu_seqlens, grid.offsets, weights, pooled,
                grid.time, grid.chunks, dim, blocks,
                BLOCK_P=16, BLOCK_D=256, BLOCK_T=512, **_COMPILED,
            )  # fmt: skip
    return dots, lengths, weights, pooled


def backward(saved: Saved, gradients: Gradients, needs: Needs) -> Found:
    """The gradient of logits is made on the way in any case."""
    frames, columns, norms, weights, pooled, mask, cu_seqlens, attend, has_logits, _ = saved
    dim, count = frames.shape[-1], columns.shape[1]
    launch = launches(dim, frames.itemsize, count, attend).backward
    g_dots, g_norms, g_weights, g_pooled = map(_contiguous, gradients)
    columns, mask, cu_seqlens = columns.contiguous(), _contiguous(mask), _contiguous(cu_seqlens)
    with _device_of(frames):
        grid = _grid(frames, cu_seqlens, launch.chunk)
        center = None
        if attend and not (g_weights is None and g_pooled is None):
            center = _empty(frames, grid.batch)
            center_kernel[(grid.batch,)](
                g_weights, g_pooled, weights, pooled, mask, cu_seqlens, center, grid.time, dim,
                BLOCK_T=512, BLOCK_D=512, **_COMPILED,
            )  # fmt: skip
        g_frames = torch.empty(frames.shape, dtype=frames.dtype, device=frames.device) if needs.frames else None
        g_logits = torch.zeros_like(weights) if has_logits else None
        g_columns = _empty(frames, grid.batch, count, dim) if needs.columns else None
        parts = _empty(frames, grid.programs, count, dim) if needs.columns else None
        filled = torch.empty(grid.programs, dtype=torch.int32, device=frames.device) if needs.columns else None
        backward_kernel[(grid.programs,)](
            **_over_frames(frames, grid, launch, columns),
            g_dots=g_dots,
            g_norms=g_norms,
            g_weights=g_weights,
            g_pooled=g_pooled if attend else None,
            center=center,
            norms=norms,
            weights=weights,
            mask=mask,
            cu_seqlens=cu_seqlens,
            g_frames=g_frames,
            g_columns=parts,
            filled=filled,
            g_logits=g_logits,
        )
        if needs.columns:
            blocks = triton.cdiv(count * dim, 256)
            sum_kernel[(grid.batch * blocks,)](
                parts, filled, grid.offsets, g_columns, grid.chunks, count * dim, blocks,
                BLOCK_P=16, BLOCK=256, **_COMPILED,
            )  # fmt: skip
    return g_frames, g_columns, g_logits if needs.logits else None


_NONE = (None, None, None)


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _empty(like: Tensor, *size: int) -> Tensor:
    return torch.empty(size, dtype=torch.float32, device=like.device)


def _device_of(frames: Tensor) -> AbstractContextManager[object]:
    """Triton launches on the current device, whatever that of its arguments."""
    return torch.cuda.device_of(frames)
