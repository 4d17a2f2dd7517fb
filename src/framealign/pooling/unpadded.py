"""Padding left out of work that is done frame by frame, where the mask can be read."""

import torch.nn.functional as F
from torch import Tensor

from framealign._state import can_be_read
from framealign.layout import Layout, Packed, Padded

_WORTH_PACKING = 0.9  # share of real frames below which leaving out the padding pays for the copies


class Unpadded:
    """The real frames of a padded batch in a row, and the way back."""

    frames: Tensor
    layout: Packed

    def __init__(self, frames: Tensor, mask: Tensor, counts: Tensor) -> None:
        self._shape, self._real = mask.shape, mask.flatten().nonzero().squeeze(1)
        self.frames = frames.flatten(0, 1).index_select(0, self._real)
        self.layout = Packed(self.frames, F.pad(counts.cumsum(0), (1, 0)))

    def pad(self, values: Tensor) -> Tensor:
        """One value or vector for each real frame to (batch, time, ...), 0 on padding."""
        padded = values.new_zeros(self._shape.numel(), *values.shape[1:])
        return padded.index_copy(0, self._real, values).view(*self._shape, *values.shape[1:])


def unpad(frames: Tensor, layout: Layout) -> Unpadded | None:
    """None where the frames are packed already, cannot be told from padding here, or are nearly all real."""
    if not isinstance(layout, Padded) or layout.mask is None or not can_be_read(layout.mask):
        return None
    if layout.counts.sum() >= _WORTH_PACKING * layout.mask.numel():
        return None
    return Unpadded(frames, layout.mask, layout.counts)
