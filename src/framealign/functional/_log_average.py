"""The logarithm of a weighted average of predictions, from their logits."""

import math

import torch
from torch import Tensor

from framealign.layout import Layout


def log_average(logits: Tensor, weights: Tensor, layout: Layout) -> Tensor:
    r"""`log sum_t a_t softmax(logits_t)` for each utterance, from logits (..., classes) and weights `a_t`.

    Finite however far apart the logits are, and with the right gradient for a weight of exactly 0, which
    the obvious `logsumexp(log a + log p)` turns into nan. The sum is taken relative to the largest `a_t p_t`,
    so it is at least 1 and at most the number of frames.
    """
    tiny = torch.finfo(weights.dtype).tiny
    log_predictions = logits.log_softmax(dim=-1)
    heavy = weights.detach().masked_fill(weights < tiny, 0.0)  # the reciprocal of less is infinite
    largest = layout.amax(log_predictions.detach() + heavy.log()[..., None])
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    # Only a frame of weight 0 can lie beyond: d log(sum a p) / d a = p / sum a p, as large as the dtype can hold it
    shares = (log_predictions - layout.spread(largest)).clamp_max(-math.log(tiny)).exp()
    average = layout.sum(weights[..., None] * shares)
    # An utterance without frames sums to 0, and a log of that would carry nan through the backward pass
    return average.masked_fill(average == 0, 1.0).log() + largest
