"""The operator that PyTorch knows: eager on the CPU, Triton on CUDA where it can.

Which one, is seen when it runs, not when it is traced.
"""

import importlib.util
from itertools import islice
from typing import Any

import torch
from torch import Tensor, library

from framealign._precision import without_autocast
from framealign._state import differentiate
from framealign.kernels import eager, packed
from framealign.kernels.definition import definition
from framealign.kernels.interface import Gradients, Needs, Outputs, Request, Saved
from framealign.layout import layout_of

_HAS_TRITON = importlib.util.find_spec("triton") is not None  # looked up once, not at each call; imports nothing


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


def _implementation(call: Request | Saved) -> Any:
    reason = "" if call.backend == "eager" else why_not_triton(call.frames, call.columns)
    if reason is None:
        from framealign.kernels import triton_frame_stats

        return triton_frame_stats
    if call.backend == "triton":
        raise RuntimeError(f'`backend="triton"` cannot run: {reason} Use "auto" or "eager".')
    return eager if call.cu_seqlens is None or call.frames.device.type == "cpu" else packed


@library.custom_op(
    "framealign::frame_stats",
    mutates_args=(),
    schema="(Tensor frames, Tensor columns, Tensor? logits, Tensor? mask, Tensor? cu_seqlens, bool attend, bool norms, "
    "str backend) -> (Tensor, Tensor, Tensor, Tensor)",
)
def operator(*arguments: Any) -> Outputs:
    """Of the fields of a `Request`."""
    request = Request(*arguments)
    outputs: Outputs = _implementation(request).forward(request)
    return outputs


@operator.register_fake
def _(*arguments: Any) -> Outputs:
    frames, columns, _, _, _, attend, norms, _ = Request(*arguments)
    per_frame = frames.shape[:-1]
    return (
        columns.new_empty(*per_frame, columns.shape[1]),
        columns.new_empty(per_frame if norms else 0),
        columns.new_empty(per_frame if attend else 0),
        columns.new_empty((columns.shape[0], frames.shape[-1]) if attend else 0),
    )


@library.custom_op(
    "framealign::frame_stats_backward",
    mutates_args=(),
    schema="(Tensor frames, Tensor columns, Tensor norms, Tensor weights, Tensor pooled, Tensor? mask, "
    "Tensor? cu_seqlens, bool attend, bool has_logits, str backend, "
    "Tensor g_dots, Tensor g_norms, Tensor g_weights, Tensor g_pooled, "
    "bool needs_frames, bool needs_columns, bool needs_logits) -> (Tensor, Tensor, Tensor)",
)
def backward_operator(*arguments: Any) -> tuple[Tensor, ...]:
    """Of the fields of `Saved`, `Gradients` and `Needs`; empty where not needed: an operator cannot return None."""
    saved, gradients, needs = _backward_call(arguments)
    if saved.norms.shape != saved.frames.shape[:-1]:
        gradients = gradients._replace(norms=None)
    if not saved.attend:
        gradients = gradients._replace(weights=None, pooled=None)
    found = _implementation(saved).backward(saved, gradients, needs)
    return tuple(saved.columns.new_empty(0) if gradient is None else gradient for gradient in found)


@backward_operator.register_fake
def _(*arguments: Any) -> tuple[Tensor, ...]:
    saved, _, needs = _backward_call(arguments)
    return (
        saved.frames.new_empty(saved.frames.shape if needs.frames else 0),
        saved.columns.new_empty(saved.columns.shape if needs.columns else 0),
        saved.columns.new_empty(saved.frames.shape[:-1] if needs.logits else 0),
    )


def _backward_call(arguments: tuple[Any, ...]) -> tuple[Saved, Gradients, Needs]:
    values = iter(arguments)
    kinds: tuple[Any, ...] = Saved, Gradients, Needs
    saved, gradients, needs = (kind(*islice(values, len(kind._fields))) for kind in kinds)
    return saved, gradients, needs


def _save(ctx: Any, inputs: tuple[Any, ...], output: Outputs) -> None:
    *tensors, attend, norms, backend = inputs
    ctx.save_for_backward(*tensors, *output[1:])
    ctx.options = attend, norms, backend


def _differentiate(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
    *tensors, lengths, weights, pooled = ctx.saved_tensors
    request = Request(*tensors, *ctx.options)
    frames, columns, logits, mask, cu_seqlens, attend, _, backend = request
    needs = Needs(*islice(ctx.needs_input_grad, len(Needs._fields)))
    with without_autocast(frames):
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():  # someone wants second derivatives
            outputs = definition(request, layout_of(frames, mask, cu_seqlens))
            found = differentiate(ctx, outputs, (frames, columns, logits), gradients)
        else:
            has_logits = logits is not None
            saved = Saved(frames, columns, lengths, weights, pooled, mask, cu_seqlens, attend, has_logits, backend)
            found = backward_operator(*saved, *gradients, *needs)
    of_inputs = [gradient if needed else None for gradient, needed in zip(found, needs, strict=True)]
    return (*of_inputs, *(None for _ in request[len(needs) :]))


operator.register_autograd(_differentiate, setup_context=_save)
