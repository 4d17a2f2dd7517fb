"""Between a padded batch and its real frames in a row."""

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign._checks import check_cu_seqlens, check_frames, check_tensor
from framealign.masking import frame_counts, lengths_to_mask


def pack(frames: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Put the real frames of a padded batch in a row.

    The number of real frames decides the shape of the result, so this waits for the device.

    Args:
        frames: A padded batch.
        mask: True at real frames, in any pattern; None means that every frame is real.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool
        - returns: packed frames (frames, dim), and `cu_seqlens` (batch + 1,) int32, the cumulative lengths
          in the convention of flash-attention

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch
        >>> from framealign.functional import pack
        >>> packed, cu_seqlens = pack(torch.tensor([[[1.0], [0.0]], [[2.0], [3.0]]]),
        ...                           torch.tensor([[True, False], [True, True]]))
        >>> packed.squeeze(1), cu_seqlens
        (tensor([1., 2., 3.]), tensor([0, 1, 3], dtype=torch.int32))
    """
    check_frames(frames, mask)
    counts = frame_counts(frames, mask)
    ends = counts.cumsum(0).to(torch.int32)
    packed = frames.flatten(0, 1) if mask is None else frames[mask]
    return packed, torch.cat([ends.new_zeros(1), ends])


def unpack(packed: Tensor, cu_seqlens: Tensor, max_length: int | None = None) -> tuple[Tensor, Tensor]:
    """Lay packed frames out as a padded batch: the inverse of [`pack`][framealign.functional.pack].

    Args:
        packed: All real frames in a row.
        cu_seqlens: Cumulative lengths, from 0 to the number of frames.
        max_length: Columns of the padded batch; longer utterances lose their last frames. None takes the
            longest length, which waits for the device.

    Shape:
        - packed: (frames, dim)
        - cu_seqlens: (batch + 1,), integer
        - returns: frames (batch, max_length, dim), zero on padding, and mask (batch, max_length), bool

    Raises:
        TypeError: `cu_seqlens` is not integer.
        ValueError: A tensor does not have the shape above, or their devices differ.

    Example:
        >>> import torch
        >>> from framealign.functional import unpack
        >>> frames, mask = unpack(torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([0, 1, 3]))
        >>> frames.squeeze(2)
        tensor([[1., 0.],
                [2., 3.]])
    """
    check_tensor("packed", packed, "frames, dim")
    check_cu_seqlens(cu_seqlens, packed, "packed")
    mask = lengths_to_mask(cu_seqlens.diff(), max_length)
    rows = cu_seqlens[:-1, None] + torch.arange(mask.shape[1], device=mask.device)
    # Padding reads one more row, of zeros, so that there is a row to read even where nothing is packed
    return F.pad(packed, (0, 0, 0, 1))[rows.masked_fill(~mask, packed.shape[0])], mask
