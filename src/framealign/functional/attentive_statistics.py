"""Weighted mean and standard deviation over time."""

import torch
from torch import Tensor

from framealign._checks import check_floating, check_like, check_per_frame
from framealign.layout import Layout, layout_of
from framealign.masking import compute_dtype, without_autocast


def weighted_statistics(frames: Tensor, weights: Tensor, *, cu_seqlens: Tensor | None = None) -> Tensor:
    r"""The weighted mean and population standard deviation, side by side.

    $$\mu = \sum_t a_t h_t, \qquad \sigma = \sqrt{\sum_t a_t (h_t - \mu)^2}, \qquad u = [\mu; \sigma]$$

    The variance is centred first: $\sum a h^2 - \mu^2$ loses every digit where the mean is large. Where the
    variance is 0, as for a single frame, the standard deviation is 0 with gradient 0.

    Args:
        frames: The frame embeddings, zero on padding.
        weights: Non-negative, summing to 1 over the real frames of an utterance, 0 on padding.
        cu_seqlens: Cumulative lengths of packed frames; then `frames` is (frames, dim) and `weights` (frames,).

    Shape:
        - frames: (batch, time, dim), floating point
        - weights: (batch, time), floating point
        - returns: (batch, 2 * dim), dtype of `frames`

    Raises:
        TypeError: A tensor is not floating point.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch
        >>> from framealign.functional import weighted_statistics
        >>> weighted_statistics(torch.tensor([[[1.0], [3.0]]]), torch.tensor([[0.5, 0.5]]))
        tensor([[2., 1.]])
    """
    check_per_frame("frames", frames, "dim", None, cu_seqlens)
    dims = "batch, time" if cu_seqlens is None else "frames"
    check_floating("weights", weights, dims)
    check_like("weights", weights, dims, frames.shape[:-1], frames, "frames")
    return statistics(frames, weights, layout_of(frames, None, cu_seqlens))


def statistics(frames: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    """Frames and weights are 0 on padding."""
    with without_autocast(frames):
        dtype = compute_dtype(frames, weights)
        values, weights = frames.to(dtype), weights.to(dtype)[..., None]
        mean = layout.sum(weights * values)
        variance = layout.sum(weights * (values - layout.spread(mean)).square())
        constant = variance == 0
        deviation = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
        return torch.cat([mean, deviation], dim=1).to(frames.dtype)
