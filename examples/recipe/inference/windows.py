"""A recording of any length as windows that a model can take, each with a little of what is around it."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from recipe.data.audio import SAMPLE_RATE

FRAME = SAMPLE_RATE // 50  # samples from one frame to the next


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


def windows(blocks: Iterator[Tensor], whole: float, length: float) -> Iterator[Window]:
    """One for a recording of up to `whole` seconds; a longer one in windows of `length`, of which few are held at once.

    Half of a window is its own, and a quarter at each inner edge is context, which the window beside answers.
    """
    around = round(length * 50 / 4)  # in frames
    size = 4 * around
    held, number, start, limit = torch.empty(0), 0, 0, round(whole * 50)
    for block in blocks:
        held = torch.cat([held, block])
        while len(held) > limit * FRAME:
            yield Window(number, held[: size * FRAME], slice(start, size - around))
            held, number, start, limit = held[(size - 2 * around) * FRAME :], number + 1, around, size
    yield Window(number, held, slice(start, None))
