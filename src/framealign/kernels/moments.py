"""Weighted mean and variance over time, both from one read of the frames.

Centred first: the mean of squares less the square of the mean loses every digit where the mean is large.
"""

from typing import Any

import torch
from torch import Tensor

from framealign._precision import compute_dtype, without_autocast
from framealign._state import can_be_read, differentiate
from framealign.kernels.groups import Batch
from framealign.layout import Layout
from framealign.masking import fill_padding, zero_padding


def weighted_moments(frames: Tensor, weights: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """`sum_t a_t z_t` and `sum_t a_t (z_t - mean)^2` (batch, dim), of weights of sum 1 that are 0 on padding."""
    with without_autocast(frames):
        weights = weights.to(compute_dtype(frames, weights))
        if can_be_read(weights):
            mean, variance = _WeightedMoments.apply(frames, weights, layout)
            return mean, variance
        return moments_by_definition(zero_padding(frames, layout.mask), weights, layout)


def moments_by_definition(frames: Tensor, weights: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """Of frames that are 0 on padding, in operations that PyTorch differentiates in every way."""
    frames, weights = frames.to(weights.dtype), weights[..., None]
    mean = layout.sum(weights * frames)
    return mean, layout.sum(weights * (frames - layout.spread(mean)).square())


class _WeightedMoments(torch.autograd.Function):
    """The variance has no slope in the mean: around the mean it is smallest."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        batch = Batch(frames, layout.mask, layout.cu_seqlens, weights.dtype)
        mean, variance = (weights.new_zeros(batch.size, frames.shape[-1]) for _ in range(2))
        for group in batch.groups_to_sum():
            share = batch.take(weights, group)[:, None]
            middle = batch.sum(share, group)
            mean[group.utterances] = middle.squeeze(1)
            squares = group._replace(frames=(group.frames - middle).square_())
            variance[group.utterances] = batch.sum(share, squares).squeeze(1)
        ctx.save_for_backward(frames, weights, mean)
        ctx.layout = layout
        return mean, variance

    @staticmethod
    def backward(ctx: Any, g_mean: Tensor, g_variance: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(g_mean):
            return _WeightedMoments._differentiate(ctx, g_mean, g_variance)

    @staticmethod
    def _differentiate(ctx: Any, g_mean: Tensor, g_variance: Tensor) -> tuple[Tensor | None, ...]:
        frames, weights, mean = ctx.saved_tensors
        layout: Layout = ctx.layout
        if torch.is_grad_enabled():  # someone wants second derivatives
            real, shares = zero_padding(frames, layout.mask), zero_padding(weights, layout.mask)
            moments = moments_by_definition(real, shares, layout)
            return *differentiate(ctx, moments, (frames, weights), (g_mean, g_variance)), None
        batch = Batch(frames, layout.mask, layout.cu_seqlens, weights.dtype)
        g_frames = frames.new_empty(frames.shape) if ctx.needs_input_grad[0] else None
        g_weights = batch.per_frame() if ctx.needs_input_grad[1] else None
        for group in batch.groups():
            to_mean, to_variance, middle = (tensor[group.utterances][:, None] for tensor in (g_mean, g_variance, mean))
            if g_weights is not None:
                squares = (group.frames - middle).square_()
                gain = to_mean.bmm(group.frames.transpose(1, 2)) + to_variance.bmm(squares.transpose(1, 2))
                batch.put(g_weights, group, gain.squeeze(1))
            if g_frames is not None:
                slope = (group.frames - middle).mul_(2 * to_variance).add_(to_mean)
                batch.put_frames(g_frames, group, slope.mul_(batch.take(weights, group)[..., None]))
        if g_frames is not None:
            batch.clear_padding(g_frames)
        return g_frames, None if g_weights is None else fill_padding(g_weights, layout.mask, 0.0), None
