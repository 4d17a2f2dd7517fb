"""A recording of any length as windows that a model can take, each with a little of what is around it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.data.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50  # samples from one frame to the next
LONGEST = 30.0  # seconds of a window: as much as Whisper's positions reach
CONTEXT = 2.5  # seconds at each inner edge that are heard, and answered by the window beside


@dataclass(frozen=True)
class Window:
    """Some of a recording: `own` of its frames are answered by it, the others are context."""

    number: int
    waveform: Tensor
    own: slice

    @property
    def seconds(self) -> float:
        return len(self.own_waveform) / SAMPLE_RATE

    @property
    def own_waveform(self) -> Tensor:
        stop = None if self.own.stop is None else self.own.stop * FRAME
        return self.waveform[self.own.start * FRAME : stop]


def windows(blocks: Iterator[Tensor], longest: float = LONGEST, context: float = CONTEXT) -> Iterator[Window]:
    """One for a recording that is no longer than `longest` seconds; else as many as it takes, of which few are held."""
    size, around = round(longest * 50), round(context * 50)  # in frames
    held, number, start = torch.empty(0), 0, 0
    for block in blocks:
        held = torch.cat([held, block])
        while len(held) > size * FRAME:
            yield Window(number, held[: size * FRAME], slice(start, size - around))
            held, number, start = held[(size - 2 * around) * FRAME :], number + 1, around
    yield Window(number, held, slice(start, None))
