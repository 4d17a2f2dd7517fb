"""A batch of frames, read a few utterances at a time.

A group is small enough to stay in the cache while several operations read it. On the CPU the mask and the
cumulative lengths lie in host memory, and are read: what stands in the padding is not. On another device all
utterances are one group, and no value is read.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from framealign.kernels.sums import sum_over_time
from framealign.segments import Segment, copy_real, segments_of_cu_seqlens, segments_of_mask

_GROUP_BYTES = 4 * 2**20  # of a group's frames; measured with 16 MiB of last-level cache for each core
_WORTH_TRIMMING = 0.5  # share of real frames below which a copy without the padding pays


class Group(NamedTuple):
    """Some utterances, cut to the longest of them."""

    frames: Tensor  # (group, time, dim), compute dtype
    mask: Tensor | None  # (group, time)
    utterances: slice | Tensor  # their indices: a slice where the frames are rows of the batch
    segments: list[Segment] | None  # where trimmed frames were copied from


class Batch:
    """Frames in either layout, and the per-frame tensors beside them."""

    in_one_group: bool
    frames: Tensor
    mask: Tensor | None
    cu_seqlens: Tensor | None
    dtype: torch.dtype
    size: int

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
        """Sums over time (group, sums, dim), with weights (group, sums, time) that are 0 on padding."""
        return sum_over_time(weights, group.frames, None if self.segments is None else group.mask)

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
        """Write what the group holds of the frames; of a trimmed group, `clear_padding` writes the rest."""
        if group.segments is None:
            values[group.utterances] = part
            return
        for row, segment in self._rows(part, group):
            self._real(values, segment).copy_(row)

    def written(self, values: Tensor, rows: Tensor) -> Tensor:
        """Frames that were all written as combinations of rows, on padding with factors of 0.

        That is 0 there, unless 0 * inf stood in it. On a device nobody looks.
        """
        if self.segments is not None and not bool(rows.isfinite().all()):
            self.clear_padding(values)
        return values

    def clear_padding(self, values: Tensor) -> None:
        """Write zeros over the padding of frames. On a device nothing is known of it, and nothing done."""
        if self.cu_seqlens is None:
            for segment in self.segments or ():
                segment.clear(values[segment.utterance])

    def per_frame(self, *trailing: int) -> Tensor:
        leading = self.frames.shape[:-1]
        return self.frames.new_zeros(*leading, *trailing, dtype=self.dtype)

    def _read_segments(self) -> list[Segment]:
        if self.cu_seqlens is not None:
            return segments_of_cu_seqlens(self.cu_seqlens, len(self.frames))
        time = self.frames.shape[1]
        if self.mask is None or time == 0:
            return [Segment(i, 0, time, None) for i in range(self.size)]
        return segments_of_mask(self.mask)

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
                copy_real(source, self.segments[place], into=frames)
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
                segment.clear(whole)
            yield group

    def _rows(self, part: Tensor, group: Group) -> Iterator[tuple[Tensor, Segment]]:
        """The rows of each utterance of a copied group that are not behind its end."""
        assert group.segments is not None
        for row, segment in zip(part, group.segments, strict=True):
            yield row[: segment.stop - segment.start], segment

    def _real(self, values: Tensor, segment: Segment) -> Tensor:
        values = values if self.cu_seqlens is not None else values[segment.utterance]
        return values[segment.start : segment.stop]
