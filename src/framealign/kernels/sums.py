"""Sums over the real frames: what the padding holds is looked for in the result alone."""

import math

from torch import Tensor

from framealign.masking import fill_padding


def sum_over_time(weights: Tensor, frames: Tensor, mask: Tensor | None) -> Tensor:
    """(batch, sums, dim), with weights (batch, sums, time) that are 0 on padding.

    0 * nan is nan: where a sum is not finite, it is taken again with zeros over the padding. Junk that is finite
    changes no bit, since 0 times it adds nothing.
    """
    sums = weights.bmm(frames)
    if mask is None or is_finite(sums):
        return sums
    return weights.bmm(fill_padding(frames, mask, 0.0))


def is_finite(values: Tensor) -> bool:
    """In one operator: a sum is finite only where all of its terms are. Where these are huge, it is doubted in vain."""
    return math.isfinite(values.sum().item())
