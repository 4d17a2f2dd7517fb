"""Numbers of real frames, from what other frameworks say of padding; `lengths_to_mask` makes a mask of them."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from framealign._checks import INTEGERS, check_integer, check_tensor
from framealign._state import can_be_read


class Array(Protocol):
    """NumPy's, or another's that NumPy would take."""

    def __array__(self) -> Any: ...


Lengths = Tensor | Sequence[int] | Array


def conv_lengths(
    lengths: Lengths,
    kernel: int | Sequence[int],
    stride: int | Sequence[int],
    padding: int | Sequence[int] = 0,
) -> Tensor:
    r"""How many frames a stack of convolutions makes of so many samples.

    Layer by layer, $n \leftarrow \lfloor (n + 2p - k) / s \rfloor + 1$, and 0 where the kernel does not fit, or where
    there is nothing but padding. It is not the number of samples divided by the product of the strides, rounded one
    way or another.

    | encoder | of | kernel | stride | padding |
    | --- | --- | --- | --- | --- |
    | wav2vec 2.0, HuBERT, WavLM, data2vec | samples | `config.conv_kernel` | `config.conv_stride` | 0 |
    | the same, their usual shape | samples | (10, 3, 3, 3, 3, 2, 2) | (5, 2, 2, 2, 2, 2, 2) | 0 |
    | Whisper | steps of the mel spectrum | (3, 3) | (1, 2) | 1 |

    Args:
        lengths: Numbers of real samples, or of whatever the first layer reads; a tensor, list or array.
        kernel: Of each layer, the first one first; a number stands for all layers, or for the only one.
        stride: Likewise.
        padding: Likewise; the zeros that a layer itself puts before *and* after its input.

    Shape:
        - lengths: (batch,), integer
        - returns: (batch,), int64, on the device of `lengths`

    Raises:
        TypeError: `lengths` are not integers, or one of the others is neither an integer nor a sequence of them.
        ValueError: `lengths` are not one-dimensional, a value is out of range, or layers differ in number.

    Example:
        >>> from framealign import conv_lengths
        >>> conv_lengths([399, 400, 719, 720, 16_000], (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
        tensor([ 0,  1,  1,  2, 49])
        >>> conv_lengths([3000, 99], kernel=3, stride=(1, 2), padding=1)
        tensor([1500,   50])
    """
    found = as_lengths(lengths).long()
    for size, step, pad in layers(kernel, stride, padding):
        fitting = (found + (2 * pad - size)).div(step, rounding_mode="floor") + 1
        found = fitting.clamp_min(0).masked_fill(found <= 0, 0)
    return found


def attention_mask_lengths(attention_mask: Tensor) -> Tensor:
    """How many are real, of a Hugging Face `attention_mask` over samples or over steps of a spectrum.

    Padding must come last, which is the default of transformers' feature extractors for speech
    (`padding_side="right"`). Where the mask can be read without waiting for a device, it is looked at.

    Args:
        attention_mask: 1 or True where real, 0 or False at padding.

    Shape:
        - attention_mask: (batch, samples), bool or integer
        - returns: (batch,), int64

    Raises:
        TypeError: `attention_mask` is neither bool nor integer.
        ValueError: It is not two-dimensional, or something real comes after padding.

    Example:
        >>> import torch
        >>> from framealign import attention_mask_lengths
        >>> attention_mask_lengths(torch.tensor([[1, 1, 1], [1, 0, 0]]))
        tensor([3, 1])
    """
    check_tensor("attention_mask", attention_mask, "batch, samples")
    if attention_mask.dtype not in (torch.bool, *INTEGERS):
        raise TypeError(
            f"`attention_mask` must be bool or integer, 1 where real, got {attention_mask.dtype}; of a mask that is "
            "added to attention scores, which has 0 where real, use `attention_mask == 0`."
        )
    real = attention_mask.bool()
    if can_be_read(attention_mask) and bool((real[:, 1:] & ~real[:, :-1]).any()):
        raise ValueError(
            "`attention_mask` must have its padding last, got a row with real samples after padding; use "
            '`padding_side="right"` in the feature extractor.'
        )
    return real.sum(dim=1)


def relative_lengths(lengths: Tensor, longest: int) -> Tensor:
    """How many are real, from SpeechBrain's lengths, which are shares of the longest utterance in the batch.

    They are shares of *samples*. Behind convolutions a share of frames would count frames of padding as real:
    go on with `conv_lengths`. Exact up to four million samples, which are four minutes at 16 kHz; of more, a share in
    float32 may be a sample off.

    Args:
        lengths: Shares in [0, 1], such as `wav_lens`.
        longest: Columns of the padded batch that they are shares of, such as `wavs.shape[1]`.

    Shape:
        - lengths: (batch,), floating point
        - returns: (batch,), int64

    Raises:
        TypeError: `lengths` is not floating point, or `longest` not an integer.
        ValueError: `lengths` is not one-dimensional, or `longest` is negative.

    Example:
        >>> import torch
        >>> from framealign import conv_lengths, relative_lengths
        >>> samples = relative_lengths(torch.tensor([1.0, 0.75]), 16_000)
        >>> samples
        tensor([16000, 12000])
        >>> conv_lengths(samples, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))  # of 49 frames, 0.75 would be 36.75
        tensor([49, 37])
    """
    check_tensor("lengths", lengths, "batch")
    if not lengths.is_floating_point():
        raise TypeError(
            f"`lengths` must be floating point shares of the longest, got {lengths.dtype}; numbers of samples are "
            "lengths already."
        )
    check_integer("longest", longest, 0)
    return (lengths.float() * longest).round().long()


def as_lengths(lengths: Any) -> Tensor:
    """(batch,) integers, whatever holds them."""
    found: Tensor = lengths
    if not isinstance(lengths, Tensor):
        try:
            found = torch.as_tensor(lengths)
        except (TypeError, ValueError, RuntimeError):
            raise TypeError(
                "`lengths` must be integers, in a tensor, list or array of shape (batch), got "
                f"{type(lengths).__name__}."
            ) from None
        if found.numel() == 0 and found.ndim == 1:
            found = found.long()  # an empty list has no integers to tell its dtype by
    check_tensor("lengths", found, "batch")
    if found.dtype not in INTEGERS:
        raise TypeError(
            f"`lengths` must be integer numbers of frames, got {found.dtype}; for lengths relative to the longest use "
            "`relative_lengths`, and `conv_lengths` behind convolutions."
        )
    return found


def layers(
    kernel: int | Sequence[int], stride: int | Sequence[int], padding: int | Sequence[int]
) -> list[tuple[int, int, int]]:
    """Of each convolution its kernel, stride and padding."""
    named = {"kernel": (kernel, 1), "stride": (stride, 1), "padding": (padding, 0)}
    listed: dict[str, list[int]] = {}
    for name, (value, low) in named.items():
        if isinstance(value, str) or not isinstance(value, (int, Sequence)):
            raise TypeError(f"`{name}` must be an integer or a sequence of them, got {type(value).__name__}.")
        listed[name] = list(value) if isinstance(value, Sequence) else [value]
        for number in listed[name]:
            check_integer(name, number, low)
    depth = max(len(of_each) for of_each in listed.values())
    for name, (value, _) in named.items():
        if isinstance(value, Sequence):
            if len(value) != depth:
                raise ValueError(f"`{name}` must have a value for each of the {depth} layers, got {len(value)}.")
        else:
            listed[name] = listed[name] * depth
    return list(zip(*listed.values(), strict=True))
