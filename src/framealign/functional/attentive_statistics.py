"""Weighted mean and standard deviation over time."""

import torch
from torch import Tensor

from framealign._checks import check_per_frame, check_scalars
from framealign._precision import compute_dtype, without_autocast
from framealign.kernels.frame_stats import frame_stats_core
from framealign.kernels.moments import moments_by_definition, weighted_moments
from framealign.layout import Layout, layout_of


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
    check_scalars("weights", weights, frames, "frames", cu_seqlens)
    with without_autocast(frames):
        weights = weights.to(compute_dtype(frames, weights))
        moments = moments_by_definition(frames, weights, layout_of(frames, None, cu_seqlens))
    return mean_and_deviation(*moments).to(frames.dtype)


def weighted_statistics_core(
    frames: Tensor, layout: Layout, *, logits: Tensor | None = None, query: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The statistics in the frames' dtype, and the weights: by logits, by products with a query, or equal ones."""
    if query is not None:
        logits = frame_stats_core(frames, query, layout, backend="eager").dots[..., 0]
    weights = layout.equal_weights(compute_dtype(frames)) if logits is None else layout.softmax(logits)
    return mean_and_deviation(*weighted_moments(frames, weights, layout)).to(frames.dtype), weights


def mean_and_deviation(mean: Tensor, variance: Tensor) -> Tensor:
    constant = variance == 0
    deviation = variance.masked_fill(constant, 1.0).sqrt().masked_fill(constant, 0.0)
    return torch.cat([mean, deviation], dim=1)
