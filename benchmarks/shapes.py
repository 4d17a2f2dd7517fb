"""The batches that are measured: shapes, and laws for the lengths in them."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

import framealign

CLASSES = 4

# IEMOCAP's 5531 turns of four classes: 6.99 hours, so a mean of 4.55 s; median 3.58 s; from 0.58 to 34.14 s.
# Of a log-normal law the median is exp(mu), and the mean exp(mu + sigma^2 / 2); its 95th percentile, 11.2 s, is the
# corpus's (11.1 s). wav2vec 2.0, HuBERT and WavLM give 50 frames per second.
IEMOCAP_MEAN, IEMOCAP_MEDIAN, IEMOCAP_SHORTEST, IEMOCAP_LONGEST = 4.55, 3.58, 0.58, 34.14
FRAMES_PER_SECOND = 50


class Shape(NamedTuple):
    """`valid` is the share of real frames; None draws lengths as IEMOCAP has them, and `time` is their longest."""

    name: str
    batch: int
    time: int | None
    dim: int
    valid: float | None = 0.65


GROUPS = {
    "shapes": [
        Shape("small", 8, 150, 768),
        Shape("narrow", 32, 500, 64),
        Shape("base", 32, 500, 768),
        Shape("iemocap", 32, None, 768, None),
        Shape("large", 128, 1500, 1024),
    ],
    "frames": [Shape(f"time-{time}", 32, time, 768) for time in (16, 31, 63, 125, 250, 500, 1000, 2000)],
    "padding": [Shape(f"valid-{valid}", 32, 500, 768, valid) for valid in (0.2, 0.4, 0.6, 0.8, 1.0)],
    "quick": [Shape("quick", 4, 40, 16), Shape("quick-iemocap", 4, None, 16, None)],
}


class Batch(NamedTuple):
    frames: Tensor  # (batch, time, dim); padding holds values like any other, as a backbone leaves them there
    mask: Tensor
    lengths: Tensor
    labels: Tensor
    anchor: Tensor  # (batch, dim)
    weight: Tensor  # (classes, dim)
    bias: Tensor


def make_batch(shape: Shape, device: torch.device, dtype: torch.dtype = torch.float32) -> Batch:
    """The same numbers in every process on a device; tensors that a head learns or passes on require gradients."""
    host = torch.Generator().manual_seed(0)
    generator = host if device.type == "cpu" else torch.Generator(device).manual_seed(0)
    lengths = iemocap_lengths(shape.batch, host) if shape.valid is None else ragged_lengths(shape, host)
    time = int(lengths.max())

    def normal(*size: int, scale: float = 1.0) -> Tensor:
        return (torch.randn(*size, generator=generator, device=device) * scale).to(dtype).requires_grad_()

    return Batch(
        frames=normal(shape.batch, time, shape.dim),
        mask=framealign.lengths_to_mask(lengths, time).to(device),
        lengths=lengths.to(device),
        labels=torch.randint(CLASSES, (shape.batch,), generator=host).to(device),
        anchor=normal(shape.batch, shape.dim),
        weight=normal(CLASSES, shape.dim, scale=shape.dim**-0.5),
        bias=normal(CLASSES),
    )


def ragged_lengths(shape: Shape, generator: torch.Generator) -> Tensor:
    """Lengths up to `time`, in random order: the mean of u^p over [0, 1] is 1 / (p + 1)."""
    assert shape.time is not None
    assert shape.valid is not None
    ranks = (torch.randperm(shape.batch, generator=generator) + 1) / shape.batch
    return (shape.time * ranks ** (1 / shape.valid - 1)).round().long().clamp_min(1)


def iemocap_lengths(batch: int, generator: torch.Generator, draws: int = 1001) -> Tensor:
    """Of many random batches the one with the median share of real frames."""
    sigma = math.sqrt(2 * math.log(IEMOCAP_MEAN / IEMOCAP_MEDIAN))
    seconds = IEMOCAP_MEDIAN * (sigma * torch.randn(draws, batch, generator=generator)).exp()
    lengths = (seconds.clamp(IEMOCAP_SHORTEST, IEMOCAP_LONGEST) * FRAMES_PER_SECOND).long()
    valid = lengths.double().mean(dim=1) / lengths.amax(dim=1)
    return lengths[valid.argsort()[draws // 2]]
