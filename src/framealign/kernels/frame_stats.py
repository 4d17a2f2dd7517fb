"""Which path a call of `frame_stats` takes, and the operator that PyTorch knows."""

import importlib.util
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, library

from framealign._checks import check_choice
from framealign._state import differentiate, is_exporting, is_transforming, needs_every_derivative
from framealign.kernels import eager, packed, plain
from framealign.layout import Layout, layout_of
from framealign.masking import compute_dtype, without_autocast

Backend = Literal["auto", "eager", "triton"]

_HAS_TRITON = importlib.util.find_spec("triton") is not None  # looked up once, not at each call; imports nothing


def check_backend(backend: str, without_kernel: str | None = None) -> None:
    """`backend` is one of those above; `without_kernel` says why there is nothing that Triton could run."""
    check_choice("backend", backend, ("auto", "eager", "triton"))
    if backend == "triton" and without_kernel is not None:
        raise RuntimeError(f'`backend="triton"` cannot run: {without_kernel}; use "auto" or "eager".')


class FrameStats(NamedTuple):
    """What one read of the frames gives; a part that was not asked for is None.

    Attributes:
        dots: (batch, time, columns), dot product of each frame and each column; 0 on padding.
        norms: (batch, time), length of each frame; 0 on padding.
        weights: (batch, time), softmax of the logits over real frames; 0 on padding.
        pooled: (batch, dim), the sum of the frames so weighted.
    """

    dots: Tensor
    norms: Tensor | None
    weights: Tensor | None
    pooled: Tensor | None


def frame_stats(
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
        if _needs_plain_path(frames, backend):
            outputs = plain.frame_stats(frames, columns, logits, layout, attend, norms)
        else:
            outputs = _operator(frames, columns, logits, layout.mask, layout.cu_seqlens, attend, norms, backend)
    dots, lengths, weights, pooled = outputs
    return FrameStats(dots, lengths if norms else None, weights if attend else None, pooled if attend else None)


def why_not_triton(frames: Tensor, columns: Tensor) -> str | None:
    """Why the Triton kernels cannot take these tensors; None where they can."""
    if frames.device.type != "cuda":
        return f"frames are on {frames.device}, and the kernels run on CUDA."
    if columns.dtype != torch.float32:
        return f"it computes in {columns.dtype}, and the kernels in torch.float32."
    if not _HAS_TRITON:
        return "triton is not installed."
    from framealign.kernels import triton_frame_stats

    return triton_frame_stats.why_not(frames, columns)


def _needs_plain_path(frames: Tensor, backend: Backend) -> bool:
    if backend == "triton":
        return False
    if frames.device.type == "meta":
        return True
    if torch.compiler.is_compiling():
        # An exported program should run where this library is not, and PyTorch transforms no operator with a gradient
        return is_exporting() or is_transforming()
    return needs_every_derivative()


# The operator: eager on the CPU, Triton on CUDA where it can. Which one, is seen when it runs, not when it is traced --


@library.custom_op("framealign::frame_stats", mutates_args=())
def _operator(
    frames: Tensor,
    columns: Tensor,
    logits: Tensor | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    attend: bool,
    norms: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found: tuple[Tensor, Tensor, Tensor, Tensor] = _implementation(backend, frames, columns, cu_seqlens).forward(
        frames, columns, logits, mask, cu_seqlens, attend, norms
    )
    return found


@library.custom_op("framealign::frame_stats_backward", mutates_args=())
def _backward_operator(
    g_dots: Tensor,
    g_norms: Tensor,
    g_weights: Tensor,
    g_pooled: Tensor,
    frames: Tensor,
    columns: Tensor,
    norms: Tensor,
    weights: Tensor,
    pooled: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    attend: bool,
    has_logits: bool,
    needs_frames: bool,
    needs_columns: bool,
    needs_logits: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of frames, columns and logits; empty where not needed, since an operator cannot return None."""
    has_norms = norms.shape == frames.shape[:-1]
    found = _implementation(backend, frames, columns, cu_seqlens).backward(
        g_dots, g_norms if has_norms else None, g_weights if attend else None, g_pooled if attend else None,
        frames, columns, norms, weights, pooled, mask, cu_seqlens,
        attend, has_logits, needs_frames, needs_columns, needs_logits,
    )  # fmt: skip
    g_frames, g_columns, g_logits = (columns.new_empty(0) if gradient is None else gradient for gradient in found)
    return g_frames, g_columns, g_logits


def _implementation(backend: str, frames: Tensor, columns: Tensor, cu_seqlens: Tensor | None) -> Any:
    reason = "" if backend == "eager" else why_not_triton(frames, columns)
    if reason is None:
        from framealign.kernels import triton_frame_stats

        return triton_frame_stats
    if backend == "triton":
        raise RuntimeError(f'`backend="triton"` cannot run: {reason} Use "auto" or "eager".')
    return eager if cu_seqlens is None or frames.device.type == "cpu" else packed


@_operator.register_fake
def _(
    frames: Tensor,
    columns: Tensor,
    logits: Tensor | None,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    attend: bool,
    norms: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    per_frame = frames.shape[:-1]
    return (
        columns.new_empty(*per_frame, columns.shape[1]),
        columns.new_empty(per_frame if norms else 0),
        columns.new_empty(per_frame if attend else 0),
        columns.new_empty((columns.shape[0], frames.shape[-1]) if attend else 0),
    )


@_backward_operator.register_fake
def _(
    g_dots: Tensor,
    g_norms: Tensor,
    g_weights: Tensor,
    g_pooled: Tensor,
    frames: Tensor,
    columns: Tensor,
    norms: Tensor,
    weights: Tensor,
    pooled: Tensor,
    mask: Tensor | None,
    cu_seqlens: Tensor | None,
    attend: bool,
    has_logits: bool,
    needs_frames: bool,
    needs_columns: bool,
    needs_logits: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        frames.new_empty(frames.shape if needs_frames else 0),
        columns.new_empty(columns.shape if needs_columns else 0),
        columns.new_empty(frames.shape[:-1] if needs_logits else 0),
    )


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    frames, columns, logits, mask, cu_seqlens, attend, norms, backend = inputs
    _, lengths, weights, pooled = output
    ctx.save_for_backward(frames, columns, logits, mask, cu_seqlens, lengths, weights, pooled)
    ctx.attend, ctx.norms, ctx.backend = attend, norms, backend


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    frames, columns, logits, mask, cu_seqlens, lengths, weights, pooled = ctx.saved_tensors
    needs = ctx.needs_input_grad
    with without_autocast(frames):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # someone wants second derivatives
            layout = layout_of(frames, mask, cu_seqlens)
            outputs = plain.frame_stats(frames, columns, logits, layout, ctx.attend, ctx.norms)
            found = differentiate(ctx, outputs, (frames, columns, logits), gradients)
        else:
            found = _backward_operator(
                *gradients, frames, columns, lengths, weights, pooled, mask, cu_seqlens,
                ctx.attend, logits is not None, needs[0], needs[1], needs[2], ctx.backend,
            )  # fmt: skip
    of_inputs = [gradient if needed else None for gradient, needed in zip(found, needs, strict=False)]
    return (*of_inputs, None, None, None, None, None)


_operator.register_autograd(_differentiate, setup_context=_save)
