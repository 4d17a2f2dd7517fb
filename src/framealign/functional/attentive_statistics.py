"""Weighted mean and standard deviation over time."""

import torch
from torch import Tensor

from framealign._checks import check_floating, check_like, check_per_frame
from framealign.kernels.frame_stats import frame_stats
from framealign.kernels.variance import weighted_variance
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
    layout = layout_of(frames, None, cu_seqlens)
    with without_autocast(frames):
        dtype = compute_dtype(frames, weights)
        values, weights = frames.to(dtype), weights.to(dtype)
        mean = layout.sum(weights[..., None] * values)
        variance = layout.sum(weights[..., None] * (values - layout.spread(mean)).square())
    return mean_and_deviation(mean, variance).to(frames.dtype)


def pool_statistics(
    frames: Tensor, layout: Layout, *, logits: Tensor | None = None, query: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The statistics of frames weighted by a softmax, in the frames' dtype, and the weights."""
    stats = frame_stats(frames, query, layout, logits=logits, attend=True, backend="eager")
    assert stats.pooled is not None
    assert stats.weights is not None
    variance = weighted_variance(frames, stats.weights, stats.pooled, layout)
    return mean_and_deviation(stats.pooled, variance).to(frames.dtype), stats.weights


def mean_and_deviation(mean: Tensor, variance: Tensor) -> Tensor:
    constant = variance == 0
    deviation = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
    return torch.cat([mean, deviation], dim=1)
