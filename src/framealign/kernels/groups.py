"""A batch of frames, read a few utterances at a time.

A group is small enough to stay in the cache while several operations read it. On the CPU the mask and the
cumulative lengths lie in host memory, and are read: what stands in the padding is not. On another device all
utterances are one group, and no value is read.
"""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

_GROUP_BYTES = 4 * 2**20  # of a group's frames; measured with 16 MiB of last-level cache for each core
_WORTH_TRIMMING = 0.5  # share of real frames below which a copy without the padding pays


class Segment(NamedTuple):
    """The real frames of one utterance: rows of `frames[utterance]`, or of packed frames."""

    utterance: int
    start: int
    stop: int
    holes: Tensor | None  # rows of padding between them


class Group(NamedTuple):
    """Some utterances, cut to the longest of them."""

    frames: Tensor  # (group, time, dim), compute dtype
    mask: Tensor | None  # (group, time)
    utterances: slice | Tensor  # their indices: a slice where the frames are rows of the batch
    segments: list[Segment] | None  # where trimmed frames were copied from


class Batch:
    """Frames in either layout, and the per-frame tensors beside them."""

    def __init__(
        self, frames: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, dtype: torch.dtype, reads: int = 2
    ) -> None:
        """`reads` is how many operations read a group: to be read once, frames need not fit into the cache."""
        self.in_one_group = frames.device.type != "cpu" or (reads < 2 and dtype == frames.dtype)
        self.frames, self.mask, self.cu_seqlens, self.dtype = frames, mask, cu_seqlens, dtype
        self.size = frames.shape[0] if cu_seqlens is None else cu_seqlens.shape[0] - 1
        self._size_of_all = frames.shape[:-1].numel()

    @cached_property
    def segments(self) -> list[Segment] | None:
        """Where the real frames are; None on a device, where nothing is read."""
        return self._read_segments() if self.frames.device.type == "cpu" else None

    @cached_property
    def trims(self) -> bool:
        """Whether clean groups come without their padding."""
        if self.cu_seqlens is not None or self.segments is None:
            return self.cu_seqlens is not None
        return sum(segment.stop for segment in self.segments) < _WORTH_TRIMMING * self._size_of_all

    @cached_property
    def _is_full(self) -> bool:
        if self.mask is None or self.segments is None:
            return self.mask is None
        real = sum(segment.stop for segment in self.segments)
        return real == self._size_of_all and all(segment.holes is None for segment in self.segments)

    def groups_to_map(self) -> Iterator[Group]:
        """All utterances, for what is done to each frame by itself: they may hold anything on padding."""
        if self.cu_seqlens is not None:
            return self._packed_views()
        if self.frames.nbytes <= _GROUP_BYTES:  # not worth a look at the mask
            return iter([Group(self.frames.to(self.dtype), None, slice(0, self.size), None)])
        return self._views()

    def groups(self, into: Tensor | None = None) -> Iterator[Group]:
        """All utterances, 0 on padding. Where they are copied with their padding, the copy may be made in `into`."""
        if self.trims:
            return self._trimmed_groups()
        return self._views() if self._is_full else self._copies(into)

    def groups_to_sum(self) -> Iterator[Group]:
        """All utterances, for `sum`."""
        if self.segments is None and not self._is_full:
            return self._copies(None)
        return self.groups() if self.cu_seqlens is not None else self._views()

    def sum(self, weights: Tensor, group: Group) -> Tensor:
        """Sums over time (group, sums, dim), with weights (group, sums, time) that are 0 on padding.

        0 * nan is nan: where a sum is not finite, it is taken again with zeros over the padding. Junk that is finite
        changes no bit, since 0 times it adds nothing.
        """
        sums = weights.bmm(group.frames)
        if self.segments is None or group.mask is None or bool(sums.isfinite().all()):
            return sums
        return weights.bmm(group.frames.masked_fill(~group.mask[..., None], 0.0))

    def without_padding(self) -> Tensor:
        """A copy of padded frames with zeros over the padding."""
        frames = self.frames.new_empty(self.frames.shape, dtype=self.dtype)
        for _ in self._copies(frames):
            pass
        return frames

    def take(self, values: Tensor, group: Group) -> Tensor:
        """The group's part of a per-frame tensor; on padding it is anything finite."""
        if self.cu_seqlens is None:
            return values[:, : group.frames.shape[1]][group.utterances]
        taken = values.new_zeros(*group.frames.shape[:2], *values.shape[1:])
        for row, segment in self._rows(taken, group):
            row.copy_(self._real(values, segment))
        return taken

    def put(self, values: Tensor, group: Group, part: Tensor) -> None:
        """Write the group's part into a per-frame tensor; what it holds on padding, too."""
        if self.cu_seqlens is None:
            values[:, : part.shape[1]][group.utterances] = part
            return
        for row, segment in self._rows(part, group):
            self._real(values, segment).copy_(row)

    def put_frames(self, values: Tensor, group: Group, part: Tensor) -> None:
        """Write what the group holds of the frames; of a trimmed group, `zero_padding` writes the rest."""
        if group.segments is None:
            values[group.utterances] = part
            return
        for row, segment in self._rows(part, group):
            self._real(values, segment).copy_(row)

    def fill_padding(self, values: Tensor) -> Tensor:
        """Zeros over the padding of a small per-frame tensor."""
        if self.mask is None or values.numel() == 0:
            return values
        return values.masked_fill(~self.mask.reshape(*self.mask.shape, *(1,) * (values.ndim - 2)), 0.0)

    def written(self, values: Tensor, rows: Tensor) -> Tensor:
        """Frames that were all written as combinations of rows, on padding with factors of 0.

        That is 0 there, unless 0 * inf stood in it. On a device nobody looks.
        """
        if self.segments is not None and not bool(rows.isfinite().all()):
            self.zero_padding(values)
        return values

    def zero_padding(self, values: Tensor) -> None:
        if self.cu_seqlens is not None or self.segments is None:
            return
        for segment in self.segments:
            self._zero_padding_of(values[segment.utterance], segment, segment.stop)

    def per_frame(self, *trailing: int) -> Tensor:
        leading = self.frames.shape[:-1]
        return self.frames.new_zeros(*leading, *trailing, dtype=self.dtype)

    def _read_segments(self) -> list[Segment]:
        if self.cu_seqlens is not None:
            bounds = self.cu_seqlens.tolist()
            if bounds[0] != 0 or bounds[-1] != len(self.frames) or sorted(bounds) != bounds:
                raise ValueError(
                    f"`cu_seqlens` must rise from 0 to {len(self.frames)}, the number of frames, got {bounds}."
                )
            return [Segment(i, start, stop, None) for i, (start, stop) in enumerate(pairwise(bounds))]
        time = self.frames.shape[1]
        if self.mask is None or time == 0:
            return [Segment(i, 0, time, None) for i in range(self.size)]
        steps = torch.arange(1, time + 1, dtype=torch.int32)
        stops = (self.mask * steps).amax(dim=1).tolist()
        counts = self.mask.sum(dim=1).tolist()
        return [
            Segment(i, 0, stop, None if stop == count else (~self.mask[i, :stop]).nonzero().squeeze(1))
            for i, (stop, count) in enumerate(zip(stops, counts, strict=True))
        ]

    def _group_size(self, time: int) -> int:
        """Utterances in a group: at least one for each thread, since `bmm` shares them out."""
        if self.in_one_group:
            return max(1, self.size)
        return max(torch.get_num_threads(), _GROUP_BYTES // max(1, time * self.frames.shape[-1] * self.dtype.itemsize))

    def _places(self) -> Iterator[slice]:
        """Consecutive utterances."""
        step = self._group_size(self.frames.shape[1])
        for first in range(0, self.size, step):
            yield slice(first, min(first + step, self.size))

    def _views(self) -> Iterator[Group]:
        """Consecutive utterances as they lie, cut to the longest of them."""
        for place in self._places():
            time = self.frames.shape[1]
            if self.segments is not None:
                time = max(segment.stop for segment in self.segments[place])
            mask = None if self._is_full or self.mask is None else self.mask[place, :time]
            yield Group(self.frames[place, :time].to(self.dtype), mask, place, None)

    def _packed_views(self) -> Iterator[Group]:
        """One utterance after the other as they lie."""
        assert self.segments is not None
        for segment in self.segments:
            if segment.stop > segment.start:
                frames = self._real(self.frames, segment)[None].to(self.dtype)
                yield Group(frames, None, slice(segment.utterance, segment.utterance + 1), [segment])

    def _copies(self, into: Tensor | None) -> Iterator[Group]:
        """Consecutive utterances, copied with all of their time."""
        assert self.mask is not None
        for place in self._places():
            source = self.frames[place]
            frames = source.new_empty(source.shape, dtype=self.dtype) if into is None else into[place]
            if self.segments is None:
                frames.copy_(source).masked_fill_(~self.mask[place, :, None], 0.0)
            else:
                for row, segment in zip(frames, self.segments[place], strict=True):
                    row[: segment.stop].copy_(self._real(self.frames, segment))
                    self._zero_padding_of(row, segment, segment.stop)
            yield Group(frames, self.mask[place], place, None)

    def _trimmed_groups(self) -> Iterator[Group]:
        """Utterances of similar length, longest first, copied without their padding; all in one buffer."""
        assert self.segments is not None
        left = [segment for segment in self.segments if segment.stop > segment.start]
        left.sort(key=lambda segment: segment.start - segment.stop)
        buffer = self.frames.new_empty(0, dtype=self.dtype)
        while left:
            time = left[0].stop - left[0].start
            size = min(self._group_size(time), len(left))
            members, left = left[:size], left[size:]
            shape = (size, time, self.frames.shape[-1])
            numbers = size * time * shape[2]
            if buffer.numel() < numbers:
                buffer = self.frames.new_empty(numbers, dtype=self.dtype)
            utterances = torch.tensor([segment.utterance for segment in members])
            if self.mask is not None:
                mask = self.mask[:, :time].index_select(0, utterances)
            else:
                lengths = torch.tensor([segment.stop - segment.start for segment in members])
                mask = torch.arange(time) < lengths[:, None]
            group = Group(buffer[:numbers].view(shape), mask, utterances, members)
            for (row, segment), whole in zip(self._rows(group.frames, group), group.frames, strict=True):
                row.copy_(self._real(self.frames, segment))
                self._zero_padding_of(whole, segment, len(row))
            yield group

    def _rows(self, part: Tensor, group: Group) -> Iterator[tuple[Tensor, Segment]]:
        """The rows of each utterance of a copied group that are not behind its end."""
        assert group.segments is not None
        for row, segment in zip(part, group.segments, strict=True):
            yield row[: segment.stop - segment.start], segment

    def _real(self, values: Tensor, segment: Segment) -> Tensor:
        values = values if self.cu_seqlens is not None else values[segment.utterance]
        return values[segment.start : segment.stop]

    def _zero_padding_of(self, row: Tensor, segment: Segment, length: int) -> None:
        if length < len(row):
            row[length:].zero_()
        if segment.holes is not None:
            row.index_fill_(0, segment.holes, 0.0)
