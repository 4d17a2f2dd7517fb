"""Where the real frames of each utterance are, read in host memory."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor


class Segment(NamedTuple):
    """The real frames of one utterance: rows of `frames[utterance]`, or of packed frames."""

    utterance: int
    start: int
    stop: int
    holes: Tensor | None  # rows of padding between them

    def clear(self, rows: Tensor) -> None:
        """Write zeros over the padding of the utterance's own rows."""
        length = self.stop - self.start
        if length < len(rows):
            rows[length:].zero_()
        if self.holes is not None:
            rows.index_fill_(0, self.holes, 0.0)


def segments_of_mask(mask: Tensor) -> list[Segment]:
    steps = torch.arange(1, mask.shape[1] + 1, dtype=torch.int32)
    stops = (mask * steps).amax(dim=1).tolist()
    counts = mask.sum(dim=1).tolist()
    return [
        Segment(i, 0, stop, None if stop == count else (~mask[i, :stop]).nonzero().squeeze(1))
        for i, (stop, count) in enumerate(zip(stops, counts, strict=True))
    ]


def segments_of_cu_seqlens(cu_seqlens: Tensor, frames: int) -> list[Segment]:
    bounds = cu_seqlens.tolist()
    if bounds[0] != 0 or bounds[-1] != frames or sorted(bounds) != bounds:
        raise ValueError(f"`cu_seqlens` must rise from 0 to {frames}, the number of frames, got {bounds}.")
    return [Segment(i, start, stop, None) for i, (start, stop) in enumerate(pairwise(bounds))]


def copy_real(frames: Tensor, segments: list[Segment], into: Tensor) -> None:
    """Padded frames, with zeros for what stands in their padding, which is not read."""
    for row, source, segment in zip(into, frames, segments, strict=True):
        row[: segment.stop].copy_(source[: segment.stop])
        segment.clear(row)
