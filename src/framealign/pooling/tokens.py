"""What the encoder reads: the frames, and before those of each utterance its CLS."""

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign.layout import Layout, Packed, Padded, can_be_read

_WORTH_PACKING = 0.9  # share of real frames below which leaving out the padding pays for the copies


class PaddedTokens:
    """The CLS is the first column."""

    def __init__(self, frames: Tensor, layout: Padded, cls: Tensor | None) -> None:
        values, mask = layout.zero_padding(frames), layout.mask
        self._frames, self._first = layout, 0
        if cls is not None:
            values, self._first = torch.cat([cls.expand(layout.batch, 1, -1), values], dim=1), 1
            mask = None if mask is None else F.pad(mask, (1, 0), value=True)
        elif mask is not None:
            # An utterance without frames attends to its (zero) padding: a softmax over nothing is nan
            mask = mask | ~mask.any(dim=1, keepdim=True)
        self.values, self.layout = values, Padded(values, mask)

    def frames(self, values: Tensor) -> Tensor:
        return self._frames.zero_padding(values[:, self._first :])

    def cls(self, values: Tensor) -> Tensor:
        return values[:, 0].masked_fill(self._frames.counts[:, None] == 0, 0.0)


class PackedTokens:
    """The CLS is the row before the first frame of its utterance."""

    def __init__(self, frames: Tensor, layout: Packed, cls: Tensor | None) -> None:
        self._counts = layout.counts
        self.values, self.layout = frames, layout
        self._rows_of_frames = self._rows_of_cls = None
        if cls is None:
            return
        cu_seqlens, ordinal = layout.cu_seqlens, torch.arange(layout.batch + 1, device=frames.device)
        self._rows_of_cls = (cu_seqlens + ordinal)[:-1]
        self._rows_of_frames = torch.arange(len(frames), device=frames.device) + layout.utterance + 1
        source = torch.empty(len(frames) + layout.batch, dtype=torch.int64, device=frames.device)
        source[self._rows_of_cls] = ordinal[:-1]
        source[self._rows_of_frames] = torch.arange(len(frames), device=frames.device) + layout.batch
        self.values = torch.cat([cls.expand(layout.batch, -1), frames]).index_select(0, source)
        self.layout = Packed(self.values, cu_seqlens + ordinal)

    def frames(self, values: Tensor) -> Tensor:
        return values if self._rows_of_frames is None else values.index_select(0, self._rows_of_frames)

    def cls(self, values: Tensor) -> Tensor:
        assert self._rows_of_cls is not None
        return values.index_select(0, self._rows_of_cls).masked_fill(self._counts[:, None] == 0, 0.0)


class UnpaddedTokens(PackedTokens):
    """The real frames of a padded batch, packed on the way in and padded on the way out."""

    def __init__(self, frames: Tensor, layout: Padded, cls: Tensor | None) -> None:
        assert layout.mask is not None
        self._shape, self._real = frames.shape, layout.mask.flatten().nonzero().squeeze(1)
        packed = frames.flatten(0, 1).index_select(0, self._real)
        super().__init__(packed, Packed(packed, F.pad(layout.counts.cumsum(0), (1, 0))), cls)

    def frames(self, values: Tensor) -> Tensor:
        values = super().frames(values)
        padded = values.new_zeros(self._shape[0] * self._shape[1], self._shape[2])
        return padded.index_copy(0, self._real, values).view(self._shape)


Tokens = PaddedTokens | PackedTokens


def tokens_of(frames: Tensor, layout: Layout, cls: Tensor | None) -> Tokens:
    if isinstance(layout, Packed):
        return PackedTokens(frames, layout, cls)
    if _padding_is_worth_leaving_out(layout):
        return UnpaddedTokens(frames, layout, cls)
    return PaddedTokens(frames, layout, cls)


def _padding_is_worth_leaving_out(layout: Padded) -> bool:
    mask = layout.mask
    return mask is not None and can_be_read(mask) and bool(mask.sum() < _WORTH_PACKING * mask.numel())
