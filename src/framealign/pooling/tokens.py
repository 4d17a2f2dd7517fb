"""What the encoder reads: the frames, and before those of each utterance its CLS."""

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign.layout import Layout, Packed, Padded
from framealign.masking import zero_padding
from framealign.pooling.unpadded import Unpadded, unpad


class PaddedTokens:
    """The CLS is the first column."""

    values: Tensor
    layout: Padded

    def __init__(self, frames: Tensor, layout: Padded, cls: Tensor | None) -> None:
        values, mask = zero_padding(frames, layout.mask), layout.mask
        self._frames, self._first = layout, 0
        if cls is not None:
            values, self._first = torch.cat([cls.expand(layout.batch, 1, -1), values], dim=1), 1
            mask = None if mask is None else F.pad(mask, (1, 0), value=True)
        elif mask is not None:
            # An utterance without frames attends to its (zero) padding: a softmax over nothing is nan
            mask = mask | ~mask.any(dim=1, keepdim=True)
        self.values, self.layout = values, Padded(values, mask)

    def frames(self, values: Tensor) -> Tensor:
        return zero_padding(values[:, self._first :], self._frames.mask)

    def cls(self, values: Tensor) -> Tensor:
        return values[:, 0].masked_fill(self._frames.counts[:, None] == 0, 0.0)


class PackedTokens:
    """The CLS is the row before the first frame of its utterance."""

    values: Tensor
    layout: Packed

    def __init__(self, frames: Tensor, layout: Packed, cls: Tensor | None) -> None:
        self._counts = layout.counts
        self.values, self.layout = frames, layout
        self._rows_of_frames = self._rows_of_cls = None
        if cls is None:
            return
        cu_seqlens, ordinal = layout.cu_seqlens, torch.arange(layout.batch + 1, device=frames.device)
        self._rows_of_cls = (cu_seqlens + ordinal)[:-1]
        self._rows_of_frames = torch.arange(frames.shape[0], device=frames.device) + layout.utterance + 1
        source = torch.empty(frames.shape[0] + layout.batch, dtype=torch.int64, device=frames.device)
        source[self._rows_of_cls] = ordinal[:-1]
        source[self._rows_of_frames] = torch.arange(frames.shape[0], device=frames.device) + layout.batch
        self.values = torch.cat([cls.expand(layout.batch, -1), frames]).index_select(0, source)
        self.layout = Packed(self.values, cu_seqlens + ordinal)

    def frames(self, values: Tensor) -> Tensor:
        return values if self._rows_of_frames is None else values.index_select(0, self._rows_of_frames)

    def cls(self, values: Tensor) -> Tensor:
        assert self._rows_of_cls is not None
        return values.index_select(0, self._rows_of_cls).masked_fill(self._counts[:, None] == 0, 0.0)


class UnpaddedTokens(PackedTokens):
    """Packed tokens of a padded batch, whose frames are padded again on the way out."""

    def __init__(self, unpadded: Unpadded, cls: Tensor | None) -> None:
        super().__init__(unpadded.frames, unpadded.layout, cls)
        self._pad = unpadded.pad

    def frames(self, values: Tensor) -> Tensor:
        return self._pad(super().frames(values))


Tokens = PaddedTokens | PackedTokens


def tokens_of(frames: Tensor, layout: Layout, cls: Tensor | None) -> Tokens:
    if isinstance(layout, Packed):
        return PackedTokens(frames, layout, cls)
    unpadded = unpad(frames, layout)
    return PaddedTokens(frames, layout, cls) if unpadded is None else UnpaddedTokens(unpadded, cls)
