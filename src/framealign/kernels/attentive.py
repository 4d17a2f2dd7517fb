"""A weighted sum, and attention by a learned vector, over padded frames whose values are at hand.

`frame_stats` gives the same and more behind an operator that a compiler knows. In a small batch the calls are the
time: here they are as few as in code written by hand, and what the padding holds is looked for in the result alone.
"""

from typing import Any

import torch
from torch import Tensor

from framealign._precision import without_autocast
from framealign._state import can_be_read, differentiate
from framealign.kernels.definition import definition
from framealign.kernels.groups import Batch
from framealign.kernels.interface import Request
from framealign.kernels.sums import is_finite, sum_over_time
from framealign.layout import Padded
from framealign.masking import fill_padding, masked_softmax, zero_padding

_WORTH_INDEXING = 8 * 2**20  # bytes of frames from which a list of the real ones is made, and no other is read


def can_take(frames: Tensor, layout: Padded, scores: Tensor | None) -> bool:
    """Whether the functions below can; `scores` are the logits or the query."""
    return (
        can_be_read(frames)
        and (layout.mask is None or type(layout.mask) is Tensor)
        and frames.dtype in (torch.float32, torch.float64)  # others are computed in float32, a few utterances at a time
        and (scores is None or (scores.dtype == frames.dtype and type(scores) in (Tensor, torch.nn.Parameter)))
    )


def weighted_sum(frames: Tensor, weights: Tensor, layout: Padded) -> Tensor:
    """Sum over time (batch, dim), with weights (batch, time) that are 0 on padding."""
    with without_autocast(frames):
        utterance: Tensor = _WeightedSum.apply(frames, weights, layout.mask)
        return utterance


def attend(frames: Tensor, query: Tensor, layout: Padded) -> tuple[Tensor, Tensor]:
    """The sum (batch, dim) weighted by the softmax of products with a query (batch, 1, dim), and the weights."""
    with without_autocast(frames):
        if not torch.is_grad_enabled():
            return _attend(frames, query, layout.mask)
        utterance, weights = _Attention.apply(frames, query, layout.mask)
        return utterance, weights


class _WeightedSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
        ctx.save_for_backward(frames, weights, mask)
        return _sum_of(frames, weights, mask)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        frames, weights, mask = ctx.saved_tensors
        with without_autocast(frames):
            if torch.is_grad_enabled():  # someone wants second derivatives
                layout = Padded(frames, mask)
                utterance = layout.sum(weights[..., None] * zero_padding(frames, mask))
                return *differentiate(ctx, [utterance], (frames, weights), [gradient]), None
            g_frames = g_weights = None
            if ctx.needs_input_grad[0]:
                g_frames = _outer_sum(frames, mask, [(weights, gradient)])
            if ctx.needs_input_grad[1]:
                g_weights = fill_padding(_products(gradient[:, None], frames, mask), mask, 0.0)
            return g_frames, g_weights, None


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, frames: Tensor, query: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        utterance, weights = _attend(frames, query, mask)
        ctx.save_for_backward(frames, query, weights, mask)
        ctx.set_materialize_grads(False)
        return utterance, weights

    @staticmethod
    def backward(ctx: Any, g_utterance: Tensor | None, g_weights: Tensor | None) -> tuple[Tensor | None, ...]:
        frames, query, weights, mask = ctx.saved_tensors
        if g_utterance is None:
            if g_weights is None:
                return None, None, None
            g_utterance = frames.new_zeros(frames.shape[0], frames.shape[2])
        with without_autocast(frames):
            if torch.is_grad_enabled():  # someone wants second derivatives
                outputs = definition(Request(frames, query, attend=True), Padded(frames, mask))
                gradients = [g_utterance, torch.zeros_like(weights) if g_weights is None else g_weights]
                return *differentiate(ctx, [outputs[3], outputs[2]], (frames, query), gradients), None
            gain = _products(g_utterance[:, None], frames, mask)
            gain = fill_padding(gain if g_weights is None else gain + g_weights, mask, 0.0)
            share = weights * gain
            g_logits = torch.addcmul(share, weights, share.sum(dim=1, keepdim=True), value=-1)
            g_frames = g_query = None
            if ctx.needs_input_grad[0]:
                g_frames = _outer_sum(frames, mask, [(weights, g_utterance), (g_logits, query.squeeze(1))])
            if ctx.needs_input_grad[1]:
                g_query = _sum_of(frames, g_logits, mask)[:, None]
            return g_frames, g_query, None


def _attend(frames: Tensor, query: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    logits = _products(query, frames, mask)
    if frames.nbytes <= _WORTH_INDEXING:
        # -inf weighs exactly 0, but for an utterance without frames or with a nan: these show in the sum
        weights = (logits if mask is None else torch.where(mask, logits, -torch.inf)).softmax(dim=1)
        utterance = weights[:, None].bmm(frames).squeeze(1)
        if is_finite(utterance):
            return utterance, weights
    weights = masked_softmax(logits, mask)
    return _sum_of(frames, weights, mask), weights


def _sum_of(frames: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """Sums over time, with weights that are 0 on padding."""
    if frames.nbytes > _WORTH_INDEXING and frames.is_contiguous():
        return _sum_by_index(frames, weights, mask)
    return sum_over_time(weights[:, None], frames, mask).squeeze(1)


def _sum_by_index(frames: Tensor, weights: Tensor, mask: Tensor | None) -> Tensor:
    """By the positions of the real frames: a bag of rows of one long table, and each row is read once."""
    batch, time = weights.shape
    if mask is None:
        real, starts = torch.arange(batch * time), torch.arange(0, batch * time, time)
    else:
        counts = mask.sum(dim=1)
        real, starts = mask.flatten().nonzero().squeeze(1), counts.cumsum(0) - counts
    shares = weights.flatten().index_select(0, real)
    return torch.embedding_bag(frames.view(-1, frames.shape[2]), real, starts, False, 0, False, shares)[0]


def _products(vectors: Tensor, frames: Tensor, mask: Tensor | None) -> Tensor:
    """Of each frame and its utterance's vector (batch, 1, dim); on padding it is anything."""
    # The vectors first: with the frames as the first factor some CPUs reach an eighth of the memory's speed
    if frames.nbytes <= _WORTH_INDEXING:
        return vectors.bmm(frames.transpose(1, 2)).squeeze(1)
    products = frames.new_zeros(frames.shape[:2])
    for group in Batch(frames, mask, None, frames.dtype).groups_to_map():
        found = vectors[group.utterances].bmm(group.frames.transpose(1, 2))
        products[group.utterances, : found.shape[2]] = found.squeeze(1)
    return products


def _outer_sum(frames: Tensor, mask: Tensor | None, terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient of frames whose weights (batch, time) and vectors (batch, dim) are these, and 0 on padding."""
    if frames.nbytes <= _WORTH_INDEXING:
        gradient = _outer_products(None, terms)
    else:
        gradient = frames.new_empty(frames.shape)
        for group in Batch(frames, mask, None, frames.dtype).groups_to_map():
            place, time = group.utterances, group.frames.shape[1]
            _outer_products(
                gradient[place, :time], [(weights[place, :time], vectors[place]) for weights, vectors in terms]
            )
            gradient[place, time:].zero_()
    if mask is not None and not all(is_finite(vectors) for _, vectors in terms):
        gradient.masked_fill_(~mask[..., None], 0.0)  # 0 * inf is nan
    return gradient


def _outer_products(out: Tensor | None, terms: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The sum of the outer products of weights (batch, time) and vectors (batch, dim), written into `out`."""
    (weights, vectors), *others = terms
    total = torch.mul(weights.unsqueeze(2), vectors.unsqueeze(1), out=out)
    for weights, vectors in others:
        total.addcmul_(weights.unsqueeze(2), vectors.unsqueeze(1))
    return total
