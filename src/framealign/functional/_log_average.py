"""The logarithm of a weighted average of predictions, from their logits."""

import math
from typing import Any

import torch
from torch import Tensor

from framealign._state import can_be_read, differentiate, needs_every_derivative
from framealign.layout import Layout

_MAX_EXPONENT = 80.0  # exp(80) = 5.5e34: a gradient this large says enough, and stays finite in float32
_SAFE = 1e-30  # an average above it has lost nothing to float32's smallest numbers, 1e-38


def log_average(logits: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    r"""`log sum_t a_t softmax(logits_t)` for each utterance, from logits (..., classes) and weights `a_t`.

    Finite however far apart the logits are, and with the right gradient for a weight of exactly 0, which
    the obvious `logsumexp(log a + log p)` turns into nan. The sum is taken relative to the largest `p_t`
    among frames that weigh something, so it can neither overflow nor vanish.
    """
    if torch.compiler.is_compiling() or needs_every_derivative():
        return _definition(log_predictions_of(logits), weights, layout)
    average: Tensor = _LogAverage.apply(logits, weights, layout)
    return average


def log_predictions_of(logits: Tensor) -> Tensor:
    """`log_softmax`, with the lowest finite number for -inf, as of logits at the dtype's limit: 0 * -inf is nan."""
    found = logits.log_softmax(dim=-1)
    return found.masked_fill(found == -torch.inf, torch.finfo(found.dtype).min)


class _LogAverage(torch.autograd.Function):
    """With a gradient in a few operations. Where values can be read, and are not extreme, there are no logarithms."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, weights: Tensor, layout: Layout) -> Tensor:
        ctx.layout, ctx.is_safe = layout, False
        if can_be_read(weights):
            predictions = logits.softmax(dim=-1)
            average = layout.weighted_sum(weights, predictions).masked_fill(layout.counts[:, None] == 0, 1.0)
            ctx.is_safe = bool((average > _SAFE).all())
            if ctx.is_safe:
                ctx.save_for_backward(logits, weights, predictions, average)
                return average.log()
        log_predictions = log_predictions_of(logits)
        log_average = _definition(log_predictions, weights, layout)
        ctx.save_for_backward(logits, weights, log_predictions, log_average)
        return log_average

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        logits, weights, predictions, average = ctx.saved_tensors
        layout: Layout = ctx.layout
        if torch.is_grad_enabled():  # someone wants second derivatives
            output = _definition(log_predictions_of(logits), weights, layout)
            return *differentiate(ctx, [output], (logits, weights), [gradient]), None
        # d log(sum a p) / d a = p / sum a p; where that is beyond the dtype, the largest it can hold will do
        if ctx.is_safe:
            ratios = predictions * layout.spread(gradient / average)
        else:
            limit = -math.log(torch.finfo(weights.dtype).tiny)
            ratios = (predictions - layout.spread(average)).clamp_max_(limit).exp_().mul_(layout.spread(gradient))
            predictions = predictions.exp()
        of_weights = ratios.sum(dim=-1)
        # Through the softmax: a (g p / average - p sum_c g p / average)
        of_logits = ratios.addcmul_(predictions, of_weights[..., None], value=-1).mul_(weights[..., None])
        return of_logits, of_weights, None


def _definition(log_predictions: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    heavy = weights.detach() >= torch.finfo(weights.dtype).tiny
    largest = layout.amax(log_predictions.detach().masked_fill(~heavy[..., None], -torch.inf))
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    # Only a frame of weight 0 can lie above; it adds nothing to the sum, and its weight still gets a gradient
    shares = (log_predictions - layout.spread(largest)).clamp_max(_MAX_EXPONENT).exp()
    average = layout.sum(weights[..., None] * shares)
    # An utterance without frames sums to 0, and a log of that would carry nan through the backward pass
    return average.masked_fill(average == 0, 1.0).log() + largest
