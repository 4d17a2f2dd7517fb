"""Weighted variance over time, in a second read of the frames.

Centred first: the mean of squares less the square of the mean loses every digit where the mean is large.
"""

from typing import Any

import torch
from torch import Tensor

from framealign._state import can_be_read, differentiate
from framealign.kernels.groups import Batch
from framealign.layout import Layout
from framealign.masking import without_autocast


def weighted_variance(frames: Tensor, weights: Tensor, mean: Tensor, layout: Layout) -> Tensor:
    """`sum_t a_t (z_t - mean)^2` (batch, dim) of weights of sum 1, 0 on padding, and the mean by these weights."""
    with without_autocast(frames):
        if can_be_read(weights):
            variance: Tensor = _WeightedVariance.apply(frames, weights, mean.detach(), layout)
            return variance
        return _plain(frames, weights, mean, layout)


class _WeightedVariance(torch.autograd.Function):
    """A variance has no slope in the mean: around the mean it is smallest."""

    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor, mean: Tensor, layout: Layout) -> Tensor:
        ctx.save_for_backward(frames, weights, mean)
        ctx.layout = layout
        batch = Batch(frames, layout.mask, layout.cu_seqlens, mean.dtype)
        variance = torch.zeros_like(mean)
        for group in batch.groups():
            squares = (group.frames - mean[group.utterances][:, None]).square_()
            variance[group.utterances] = batch.take(weights, group)[:, None].bmm(squares).squeeze(1)
        return variance

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        with without_autocast(gradient):
            return _WeightedVariance._differentiate(ctx, gradient)

    @staticmethod
    def _differentiate(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, weights, mean = ctx.saved_tensors
        layout: Layout = ctx.layout
        if torch.is_grad_enabled():  # someone wants second derivatives
            real_mean = layout.sum(weights[..., None] * layout.zero_padding(frames))
            variance = _plain(frames, weights, real_mean, layout)
            return *differentiate(ctx, [variance], (frames, weights), [gradient]), None, None
        batch = Batch(frames, layout.mask, layout.cu_seqlens, mean.dtype)
        g_frames = frames.new_empty(frames.shape) if ctx.needs_input_grad[0] else None
        g_weights = batch.per_frame() if ctx.needs_input_grad[1] else None
        for group in batch.groups():
            centred = group.frames - mean[group.utterances][:, None]
            share, slope = batch.take(weights, group), gradient[group.utterances][:, None]
            if g_weights is not None:
                batch.put(g_weights, group, slope.bmm(centred.square().transpose(1, 2)).squeeze(1))
            if g_frames is not None:
                batch.put_frames(g_frames, group, centred.mul_(slope).mul_(2 * share[..., None]))
        if g_frames is not None:
            batch.zero_padding(g_frames)
        return g_frames, None if g_weights is None else batch.fill_padding(g_weights), None, None


def _plain(frames: Tensor, weights: Tensor, mean: Tensor, layout: Layout) -> Tensor:
    centred = layout.zero_padding(frames).to(mean.dtype) - layout.spread(mean)
    return layout.sum(weights[..., None] * centred.square())
