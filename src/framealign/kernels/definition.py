"""The definition of `frame_stats`, in operations that PyTorch differentiates in every way.

It is what the other paths must equal, and the path of second derivatives, forward mode, the transforms of
`torch.func` and export. It copies the frames to write over padding, and keeps several copies for backward.
"""

import torch
from torch import Tensor

from framealign.kernels.interface import Outputs, Request
from framealign.layout import Layout, Packed
from framealign.masking import zero_padding


def definition(request: Request, layout: Layout) -> Outputs:
    """`layout` is that of the request's frames."""
    frames, columns, logits, _, _, attend, norms, _ = request
    nothing = frames.new_empty(0)
    frames = zero_padding(frames.to(columns.dtype), layout.mask)
    dots = _dots(frames, columns, layout)
    lengths = norm(frames) if norms else nothing
    if not attend:
        return dots, lengths, nothing, nothing
    weights = layout.softmax(dots[..., -1] if logits is None else logits)
    return dots, lengths, weights, layout.sum(weights[..., None] * frames)


def norm(vectors: Tensor) -> Tensor:
    """Euclidean norm; 0 with gradient 0 at a zero vector."""
    squares = vectors.square().sum(dim=-1)
    zero = squares == 0  # no root is taken there: its derivatives, vector_norm's second one too, are not finite
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _dots(frames: Tensor, columns: Tensor, layout: Layout) -> Tensor:
    if not isinstance(layout, Packed):
        return torch.einsum("btd,bkd->btk", frames, columns)
    if torch.compiler.is_compiling():  # the number of columns may be a symbol; and a compiler fuses this
        return (frames[:, None] * layout.spread(columns)).sum(dim=-1)
    # Column by column: all of them at once would stand beside each frame, in K times its memory
    dots = [(frames * layout.spread(column)).sum(dim=-1) for column in columns.unbind(dim=1)]
    return torch.stack(dots, dim=-1) if dots else frames.new_zeros(frames.shape[0], 0)
