"""What the public functions require of their arguments, and what they say when it is not so.

Checks read types, shapes, dtypes and devices only, never a tensor's values: a read of a value would
make the host wait for the device, and would break `torch.compile(fullgraph=True)`.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)
Backend = Literal["auto", "eager", "triton"]


def check_floating(name: str, tensor: Tensor, dims: str) -> None:
    """`tensor` is a real floating point tensor with the comma-separated `dims`."""
    check_tensor(name, tensor, dims)
    if not tensor.is_floating_point():
        raise TypeError(f"`{name}` must be floating point, got {tensor.dtype}; use `{name}.float()`.")


def check_tensor(name: str, tensor: Tensor, dims: str) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"`{name}` must be a tensor of shape ({dims}), got {type(tensor).__name__}.")
    if tensor.ndim != dims.count(",") + 1:
        raise ValueError(f"`{name}` must have shape ({dims}), got {tuple(tensor.shape)}.")


def check_frames(
    frames: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None = None, *, dim: int | None = None
) -> None:
    """What every pooling and loss takes; `dim` is the width that a module was built for."""
    check_per_frame("frames", frames, "dim", mask, cu_seqlens)
    if dim is not None and frames.shape[-1] != dim:
        turned = frames.ndim == 3 and frames.shape[1] == dim
        raise ValueError(
            f"`frames` must have dim {dim}, the `dim` of this module, got {tuple(frames.shape)}"
            + ("; of frames (batch, dim, time) use `frames.transpose(1, 2)`." if turned else ".")
        )


def check_per_frame(name: str, values: Tensor, dims: str, mask: Tensor | None, cu_seqlens: Tensor | None) -> None:
    """`values` are floating point, (batch, time, dims) with an optional mask, or (frames, dims) with cu_seqlens."""
    if cu_seqlens is None:
        check_floating(name, values, f"batch, time, {dims}")
        check_mask(mask, values, name)
        return
    if mask is not None:
        raise ValueError(
            "`mask` and `cu_seqlens` exclude each other, since packed frames have no padding, got both; "
            "use `mask` with padded frames, `cu_seqlens` with packed ones."
        )
    check_floating(name, values, f"frames, {dims}")
    check_cu_seqlens(cu_seqlens, values, name)


def check_mask(mask: Tensor | None, like: Tensor, like_name: str) -> None:
    """`mask` is None, or (batch, time) bool on the device of `like`, whose first two axes it matches."""
    if mask is None:
        return
    if not isinstance(mask, Tensor):
        raise TypeError(f"`mask` must be a bool tensor of shape (batch, time) or None, got {type(mask).__name__}.")
    if mask.dtype != torch.bool:
        raise TypeError(
            f"`mask` must be bool, True at real frames, got {mask.dtype}; "
            "use `attention_mask.bool()` or `lengths_to_mask(...)`."
        )
    hint = ""
    if mask.ndim == 2 and mask.shape[0] == like.shape[0] and mask.shape[1] != like.shape[1]:
        if like.ndim == 3 and mask.shape[1] == like.shape[2]:
            hint = f"; if `{like_name}` are (batch, dim, time), use `{like_name}.transpose(1, 2)`"
        elif mask.shape[1] >= 2 * like.shape[1]:
            hint = "; of a mask of samples, `attention_mask_lengths` and `conv_lengths` make one of frames"
    check_like("mask", mask, "batch, time", like.shape[:2], like, like_name, hint)


def check_like(
    name: str, tensor: Tensor, dims: str, expected: Sequence[int], like: Tensor, like_name: str, hint: str = ""
) -> None:
    """`tensor` has the shape that goes with `like`, and lies on its device; `hint` follows a wrong shape."""
    expected = tuple(expected)
    if tensor.ndim != len(expected) or any(got != want for got, want in zip(tensor.shape, expected, strict=True)):
        raise ValueError(
            f"`{name}` must have shape ({dims}) = {expected} to match `{like_name}`, got {tuple(tensor.shape)}{hint}."
        )
    if tensor.device != like.device:
        raise ValueError(
            f"`{name}` must be on the device of `{like_name}`, {like.device}, got {tensor.device}; "
            f"use `{name}.to({like_name}.device)`."
        )


def check_scalars(name: str, values: Tensor, like: Tensor, like_name: str, cu_seqlens: Tensor | None) -> None:
    """`values` are one floating point number for each frame of `like`, which passed `check_per_frame`."""
    dims = "batch, time" if cu_seqlens is None else "frames"
    check_floating(name, values, dims)
    check_like(name, values, dims, like.shape[:-1], like, like_name)


def check_labels(labels: Tensor, batch: int, like: Tensor, like_name: str) -> None:
    check_tensor("labels", labels, "batch")
    if labels.dtype not in INTEGERS:
        raise TypeError(f"`labels` must be integer class indices, got {labels.dtype}.")
    check_like("labels", labels, "batch", (batch,), like, like_name)


def check_cu_seqlens(cu_seqlens: Tensor, like: Tensor, like_name: str) -> None:
    check_tensor("cu_seqlens", cu_seqlens, "batch + 1")
    if cu_seqlens.dtype not in INTEGERS:
        raise TypeError(f"`cu_seqlens` must be integer cumulative lengths, got {cu_seqlens.dtype}.")
    if cu_seqlens.shape[0] == 0:
        raise ValueError("`cu_seqlens` must have shape (batch + 1), so at least the 0 it begins with, got (0,).")
    if cu_seqlens.device != like.device:
        raise ValueError(
            f"`cu_seqlens` must be on the device of `{like_name}`, {like.device}, got {cu_seqlens.device}; "
            f"use `cu_seqlens.to({like_name}.device)`."
        )


def check_number(name: str, value: float, low: float, high: float = math.inf, *, open_low: bool = False) -> None:
    """`value` is a finite number in [low, high], or in (low, high] with `open_low`."""
    # A tuple: the compiler of torch 2.6 cannot trace `int | float`
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"`{name}` must be a number, got {type(value).__name__}.")
    # Comparisons alone, which nan fails: `math.isfinite` would break the graph of `torch.compile(dynamic=True)`,
    # to which a module's numbers are symbols
    if not low <= value <= high or value == math.inf or (open_low and value == low):
        interval = f"{'(' if open_low else '['}{low}, {high}{']' if math.isfinite(high) else ')'}"
        raise ValueError(f"`{name}` must be a finite number in {interval}, got {value}.")


def check_integer(name: str, value: int, low: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"`{name}` must be an integer, got {type(value).__name__}.")
    if value < low:
        raise ValueError(f"`{name}` must be at least {low}, got {value}.")


def check_choice(name: str, value: str | None, choices: Sequence[str | None]) -> None:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, got {value!r}.")


def check_backend(backend: str, without_kernel: str | None = None) -> None:
    """`without_kernel` says why there is nothing that Triton could run."""
    check_choice("backend", backend, ("auto", "eager", "triton"))
    if backend == "triton" and without_kernel is not None:
        raise RuntimeError(f'`backend="triton"` cannot run: {without_kernel}; use "auto" or "eager".')
