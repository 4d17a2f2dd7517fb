"""Cosine of frames to vectors, from their dot products and norms."""

import torch
from torch import Tensor

from framealign.kernels.definition import norm
from framealign.kernels.interface import FrameStats
from framealign.layout import Layout


def cosine_to_anchor(stats: FrameStats, anchor: Tensor, layout: Layout) -> Tensor:
    """Cosine of each frame to its utterance's anchor (batch, dim), which is the first column of `stats`.

    Where either vector is zero the cosine is 0 and so is its gradient; `F.cosine_similarity` divides by a
    small constant there instead, which makes the gradient huge.
    """
    assert stats.norms is not None
    return cosine(stats.dots[..., 0], stats.norms, layout.spread(norm(anchor.to(stats.dots.dtype))))


def cosine(dots: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """From the dot product and the two norms.

    Divided by infinity, the dot product with a zero vector is 0 and sends back 0; nan stays nan. One division
    after the other: the product of two norms leaves float32's range before either of them does. A vector whose
    square is no normal number counts as zero: its norm has lost digits, and its gradient would be infinite.
    """
    smallest = torch.finfo(dots.dtype).tiny ** 0.5
    first, second = (norms.masked_fill(norms < smallest, torch.inf) for norms in (first, second))
    return dots / first / second
