"""The two ways a batch of utterances lies in memory, behind one interface.

Padded: one row of the batch for each utterance, and a mask. Packed: all real frames in a row, and cumulative
lengths. What a loss or a pooling does to frames, it writes once, in terms of these few operations.
"""

import torch
from torch import Tensor

from framealign._checks import check_floating, check_frames, check_mask
from framealign._precision import compute_dtype
from framealign._state import can_be_read
from framealign.masking import fill_padding, frame_counts, masked_softmax, zero_padding


class Padded:
    """Per-frame tensors are (batch, time, ...), per-utterance tensors (batch, ...).

    `counts` (batch,) are the numbers of real frames.
    """

    cu_seqlens = None

    mask: Tensor | None
    batch: int
    frame_shape: torch.Size

    def __init__(self, like: Tensor, mask: Tensor | None) -> None:
        self.mask, self.batch, self.frame_shape = mask, like.shape[0], like.shape[:2]
        self._counts = frame_counts(like, None) if mask is None else None

    @property
    def counts(self) -> Tensor:
        if self._counts is None:  # not counted before someone asks
            assert self.mask is not None
            self._counts = frame_counts(self.mask, self.mask)
        return self._counts

    def spread(self, values: Tensor) -> Tensor:
        """Per-utterance values, ready to meet per-frame ones."""
        return values[:, None]

    def sum(self, values: Tensor) -> Tensor:
        """Sum over each utterance's frames of values that are 0 on padding."""
        return values.sum(dim=1)

    def weighted_sum(self, weights: Tensor, values: Tensor) -> Tensor:
        """Sum of vectors (batch, time, dim) that are finite on padding, with weights that are 0 there."""
        return weights[:, None].bmm(values).squeeze(1)

    def amax(self, values: Tensor) -> Tensor:
        """Maximum over each utterance's frames of values that are -inf on padding; -inf over no frames."""
        if values.shape[1] == 0:  # torch knows no maximum of nothing
            return values.new_full((self.batch, *values.shape[2:]), -torch.inf)
        return values.amax(dim=1)

    def softmax(self, logits: Tensor) -> Tensor:
        return masked_softmax(logits, self.mask)

    def equal_weights(self, dtype: torch.dtype) -> Tensor:
        """1 / (number of real frames), and 0 on padding."""
        if self.mask is None:
            return self.counts.clamp_min(1).to(dtype).reciprocal()[:, None].repeat(1, self.frame_shape[1])
        real = self.mask.to(dtype)
        return real / real.sum(dim=1, keepdim=True).clamp_min(1)


class Packed:
    """Per-frame tensors are (frames, ...), per-utterance tensors (batch, ...).

    `counts` (batch,) are the numbers of frames, `utterance` (frames,) the index of the one each frame belongs to.
    """

    mask = None

    cu_seqlens: Tensor
    batch: int
    frame_shape: torch.Size
    counts: Tensor
    utterance: Tensor

    def __init__(self, like: Tensor, cu_seqlens: Tensor) -> None:
        self.cu_seqlens, self.batch, self.frame_shape = cu_seqlens, cu_seqlens.shape[0] - 1, like.shape[:1]
        self.counts = cu_seqlens.diff().long()
        # Not among `cu_seqlens[1:]`: the compiler of torch 2.11 searches a slice from the start of what it was cut
        # from (pytorch#161609), and the last frames would belong to an utterance that is not there
        ends = self.counts.cumsum(0)
        rows = torch.arange(like.shape[0], device=cu_seqlens.device, dtype=ends.dtype)
        self.utterance = torch.bucketize(rows, ends, right=True)

    def lengths_on_host(self) -> list[int] | None:
        """Numbers of frames, where they can be read without waiting for a device."""
        return self.counts.tolist() if can_be_read(self.cu_seqlens) else None

    def spread(self, values: Tensor) -> Tensor:
        """Per-utterance values, one row for each frame."""
        return values.index_select(0, self.utterance)

    def sum(self, values: Tensor) -> Tensor:
        """Sum over each utterance's frames."""
        return values.new_zeros(self.batch, *values.shape[1:]).index_add(0, self.utterance, values)

    def weighted_sum(self, weights: Tensor, values: Tensor) -> Tensor:
        """Sum of each utterance's vectors (frames, dim), by their weights."""
        return self.sum(weights[:, None] * values)

    def amax(self, values: Tensor) -> Tensor:
        """Maximum over each utterance's frames; -inf over no frames."""
        lowest = values.new_full((self.batch, *values.shape[1:]), -torch.inf)
        index = self.utterance.reshape(-1, *(1,) * (values.ndim - 1)).expand_as(values)
        return lowest.scatter_reduce(0, index, values, "amax")

    def softmax(self, logits: Tensor) -> Tensor:
        logits = logits.to(compute_dtype(logits))
        exponentials = (logits - self.spread(self.amax(logits.detach()))).exp()
        return exponentials / self.spread(self.sum(exponentials))

    def equal_weights(self, dtype: torch.dtype) -> Tensor:
        """1 / (number of frames)."""
        return self.spread(self.counts.clamp_min(1).to(dtype).reciprocal())


Layout = Padded | Packed


def layout_of(like: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None) -> Layout:
    """The layout of a per-frame tensor."""
    return Padded(like, mask) if cu_seqlens is None else Packed(like, cu_seqlens)


def checked_layout(frames: Tensor, mask: Tensor | None, cu_seqlens: Tensor | None, *, dim: int | None = None) -> Layout:
    """The layout of frames, once they have passed `check_frames`."""
    check_frames(frames, mask, cu_seqlens, dim=dim)
    return layout_of(frames, mask, cu_seqlens)


def masked_mean(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the real frames of each utterance; 0 for an utterance without any.

    Args:
        values: One value or vector for each frame.
        mask: True at real frames; None means that every frame is real.

    Shape:
        - values: (batch, time) or (batch, time, dim), floating point
        - mask: (batch, time), bool
        - returns: (batch,) or (batch, dim), float32 at least

    Raises:
        TypeError: `values` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch
        >>> from framealign.functional import masked_mean
        >>> masked_mean(torch.tensor([[1.0, 3.0, 100.0]]), torch.tensor([[True, True, False]]))
        tensor([2.])
    """
    check_floating(
        "values", values, "batch, time" if isinstance(values, Tensor) and values.ndim == 2 else "batch, time, dim"
    )
    check_mask(mask, values, "values")
    return mean(values, Padded(values, mask))


def mean(values: Tensor, layout: Layout) -> Tensor:
    """Mean over each utterance's real frames; 0 for an utterance without any. float32 at least."""
    total = layout.sum(zero_padding(values, layout.mask).to(compute_dtype(values)))
    count = layout.counts.clamp_min(1).to(total.dtype)
    return total / count.reshape(-1, *(1,) * (total.ndim - 1))


def log_sum_exp(logits: Tensor, layout: Layout) -> Tensor:
    """Over each utterance's real frames; 0 for an utterance without any."""
    empty = layout.counts == 0
    logits = fill_padding(logits, layout.mask, -torch.inf)
    largest = layout.amax(logits.detach()).masked_fill(empty, 0.0)
    return layout.sum((logits - layout.spread(largest)).exp()).masked_fill(empty, 1.0).log() + largest
