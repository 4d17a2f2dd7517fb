"""The logarithm of a weighted average of distributions, from their logarithms."""

import math
from typing import Any

import torch
from torch import Tensor

from framealign._state import differentiate, needs_every_derivative
from framealign.layout import Layout

_MAX_EXPONENT = 80.0  # exp(80) = 5.5e34: a gradient this large says enough, and stays finite in float32


def log_average(log_frames: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    r"""`log sum_t a_t p_t` for each utterance, from `log p_t` (..., classes) and `a_t`.

    Finite however far apart the logits are, and with the right gradient for a weight of exactly 0, which
    the obvious `logsumexp(log a + log p)` turns into nan. The sum is taken relative to the largest `p_t`
    among frames that weigh something, so it can neither overflow nor vanish.
    """
    if torch.compiler.is_compiling() or needs_every_derivative():
        return _plain(log_frames, weights, layout)
    average: Tensor = _LogAverage.apply(log_frames, weights, layout)
    return average


class _LogAverage(torch.autograd.Function):
    """With a gradient of a few operations: one exponential, and nothing kept but the inputs."""

    @staticmethod
    def forward(ctx: Any, log_frames: Tensor, weights: Tensor, layout: Layout) -> Tensor:
        average = _plain(log_frames, weights, layout)
        ctx.save_for_backward(log_frames, weights, average)
        ctx.layout = layout
        return average

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        log_frames, weights, average = ctx.saved_tensors
        layout: Layout = ctx.layout
        if torch.is_grad_enabled():  # someone wants second derivatives
            return *differentiate(ctx, [_plain(log_frames, weights, layout)], (log_frames, weights), [gradient]), None
        # d log(sum a p) / d a = p / sum a p; where that is beyond the dtype, the largest it can hold will do
        limit = -math.log(torch.finfo(weights.dtype).tiny)
        ratios = (log_frames - layout.spread(average)).clamp_max_(limit).exp_().mul_(layout.spread(gradient))
        of_weights = ratios.sum(dim=-1) if ctx.needs_input_grad[1] else None
        return ratios.mul_(weights[..., None]), of_weights, None


def _plain(log_frames: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    heavy = weights.detach() >= torch.finfo(weights.dtype).tiny
    largest = layout.amax(log_frames.detach().masked_fill(~heavy[..., None], -torch.inf))
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    # Only a frame of weight 0 can lie above; it adds nothing to the sum, and its weight still gets a gradient
    shares = (log_frames - layout.spread(largest)).clamp_max(_MAX_EXPONENT).exp()
    average = layout.sum(weights[..., None] * shares)
    # An utterance without frames sums to 0, and a log of that would carry nan through the backward pass
    return average.masked_fill(average == 0, 1.0).log() + largest
