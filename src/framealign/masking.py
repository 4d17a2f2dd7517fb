"""The one place where masks are read.

A mask is (batch, time) bool, True at real frames, in any pattern; None means that every frame is real.
Padding is *written* over, never multiplied by zero: 0 * nan is nan.
"""

from typing import Any

import torch
from torch import Tensor

from framealign._checks import check_floating, check_mask
from framealign._precision import compute_dtype
from framealign._state import can_be_read
from framealign.lengths import Lengths, as_lengths
from framealign.segments import copy_real, segments_of_mask

_WORTH_READING = 2**18  # bytes of frames from which a copy of the real ones is faster than a masked one


def lengths_to_mask(lengths: Lengths, max_length: int | None = None) -> Tensor:
    """Turn numbers of real frames into a mask.

    Args:
        lengths: Numbers of real **frames**, in a tensor, list or array; of samples see `conv_lengths`, of shares of
            the longest `relative_lengths`, of an attention mask `attention_mask_lengths`.
        max_length: Number of columns of the mask. Longer lengths saturate. None takes the longest length,
            which reads it from the device: the one host read in this library. Pass
            `max_length=frames.shape[1]` in a training step.

    Shape:
        - lengths: (batch,), integer
        - returns: (batch, max_length), bool, True at real frames

    Raises:
        TypeError: `lengths` are not integers, or `max_length` is not one.
        ValueError: `lengths` is not one-dimensional, or `max_length` is negative.

    Example:
        >>> import torch
        >>> from framealign import lengths_to_mask
        >>> lengths_to_mask(torch.tensor([1, 3]), max_length=4)
        tensor([[ True, False, False, False],
                [ True,  True,  True, False]])
    """
    lengths = as_lengths(lengths)
    if max_length is None:
        max_length = int(lengths.max()) if lengths.numel() else 0
        max_length = max(max_length, 0)
    elif isinstance(max_length, bool) or not isinstance(max_length, (int, torch.SymInt)):
        raise TypeError(f"`max_length` must be an integer, got {type(max_length).__name__}.")
    elif max_length < 0:
        raise ValueError(f"`max_length` must be at least 0, got {max_length}.")
    return torch.arange(max_length, device=lengths.device) < lengths[:, None]


def zero_padding(frames: Tensor, mask: Tensor | None) -> Tensor:
    """Write zeros over the padding; the gradient there is exactly zero.

    Args:
        frames: One value or vector for each frame.
        mask: True at real frames; None means that every frame is real.

    Shape:
        - frames and result: (batch, time, ...)
        - mask: (batch, time), bool

    Raises:
        TypeError: `mask` is not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch
        >>> from framealign.functional import zero_padding
        >>> zero_padding(torch.tensor([[1.0, torch.nan]]), torch.tensor([[True, False]]))
        tensor([[1., 0.]])
    """
    check_mask(mask, frames, "frames")
    if mask is not None and frames.ndim == 3 and can_be_read(mask) and frames.nbytes > _WORTH_READING:
        if mask.all():
            return frames
        zeroed: Tensor = _RealFrames.apply(frames, mask)
        return zeroed
    return fill_padding(frames, mask, 0.0)


class _RealFrames(torch.autograd.Function):
    """A copy with zeros over the padding, where the mask can be read; linear, and so its own gradient."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        copy = frames.new_empty(frames.shape)
        copy_real(frames, segments_of_mask(mask), into=copy)
        return copy

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return _RealFrames.apply(gradient, mask), None


def fill_padding(values: Tensor, mask: Tensor | None, value: float) -> Tensor:
    """Write one value over the padding of a per-frame tensor."""
    if mask is None:
        return values
    return values.masked_fill(~mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)), value)


def masked_softmax(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Softmax over the real frames of each utterance.

    $$a_t = \frac{\exp e_t}{\sum_{s\ \mathrm{real}} \exp e_s}$$

    The weights are exactly 0 on padding, and all 0 for an utterance without real frames. They are computed
    and returned in float32 at least: weights rounded to half precision no longer sum to 1.

    Args:
        logits: The scores of the frames, before the softmax.
        mask: True at real frames; None means that every frame is real.

    Shape:
        - logits: (batch, time), floating point
        - mask: (batch, time), bool
        - returns: (batch, time), float32 at least

    Raises:
        TypeError: `logits` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch
        >>> from framealign.functional import masked_softmax
        >>> masked_softmax(torch.zeros(1, 3), torch.tensor([[True, True, False]]))
        tensor([[0.5000, 0.5000, 0.0000]])
    """
    check_floating("logits", logits, "batch, time")
    check_mask(mask, logits, "logits")
    logits = logits.to(compute_dtype(logits))
    if mask is None:
        return logits.softmax(dim=1)
    # -inf gives padding no share, however low the real logits; a row of nothing but -inf would be nan,
    # so rows without a real frame keep finite logits and lose all of their weight afterwards.
    logits = logits.masked_fill(~mask, -torch.inf).masked_fill(~mask.any(dim=1, keepdim=True), 0.0)
    return logits.softmax(dim=1).masked_fill(~mask, 0.0)


def frame_counts(frames: Tensor, mask: Tensor | None) -> Tensor:
    """Numbers of real frames, (batch,) int64."""
    if mask is None:
        return torch.full(frames.shape[:1], frames.shape[1], device=frames.device, dtype=torch.int64)
    return mask.sum(dim=1)
