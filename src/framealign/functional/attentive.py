"""Attentive pooling: a weighted sum of frames, the weights a softmax over the real ones."""

import torch
from torch import Tensor

from framealign._checks import check_floating, check_frames, check_like
from framealign.masking import compute_dtype, masked_softmax, without_autocast, zero_padding


def attentive_pooling(frames: Tensor, logits: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    r"""Pool frames by a softmax over the logits of the real ones.

    $$a_t = \mathrm{softmax}_t(e_t), \qquad u = \sum_t a_t h_t$$

    Args:
        frames: The frame embeddings $h_t$.
        logits: The frames' scores $e_t$.
        mask: True at real frames; None means that every frame is real.

    Shape:
        - frames: (batch, time, dim), floating point
        - logits: (batch, time), floating point
        - mask: (batch, time), bool
        - returns: utterance (batch, dim) in the dtype of `frames`, and weights (batch, time) in float32 at least

    Raises:
        TypeError: A tensor is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Source:
        Equation 1 of Byun and Lee 2025, after Okabe et al. 2018.

    Example:
        >>> import torch
        >>> from framealign.functional import attentive_pooling
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> utterance, weights = attentive_pooling(frames, torch.zeros(1, 3), mask)
        >>> utterance, weights
        (tensor([[2.]]), tensor([[0.5000, 0.5000, 0.0000]]))
    """
    check_frames(frames, mask)
    check_floating("logits", logits, "batch, time")
    check_like("logits", logits, "batch, time", frames, "frames")
    weights = masked_softmax(logits, mask)
    return weighted_sum(zero_padding(frames, mask), weights), weights


def weighted_sum(frames: Tensor, weights: Tensor) -> Tensor:
    """`sum_t a_t h_t`, accumulated in the weights' precision and returned in the frames' own."""
    with without_autocast(frames):
        dtype = compute_dtype(frames, weights)
        return torch.einsum("btd,bt->bd", frames.to(dtype), weights.to(dtype)).to(frames.dtype)
