"""What a model says of a recording, put together from what it says of the recording's windows."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from recipe.data.audio import AudioError
from recipe.inference.windows import FRAME, Window


@dataclass(frozen=True)
class Answer:
    """What a model says of a recording, as a whole and frame by frame."""

    classes: tuple[str, ...]
    probabilities: np.ndarray  # (classes,)
    seconds: float
    attention: np.ndarray  # (frames,), of sum 1
    frame_probabilities: np.ndarray  # (frames, classes); no classes where a pooling's frames have none
    envelope: np.ndarray  # (steps of 20 ms, 2), the lowest and the highest sample

    @property
    def label(self) -> str:
        return self.classes[int(self.probabilities.argmax())]

    @property
    def by_class(self) -> dict[str, float]:
        return dict(zip(self.classes, self.probabilities.tolist(), strict=True))


@dataclass
class Recording:
    """One that is being heard."""

    windows: int = 0
    whole: bool = False  # no window will come any more
    error: AudioError | None = None
    heard: dict[int, "Heard"] = field(default_factory=dict)  # by the window's number

    @property
    def finished(self) -> bool:
        return self.error is not None or (self.whole and len(self.heard) == self.windows)

    def answer(self, classes: tuple[str, ...]) -> Answer | AudioError:
        if self.error is not None:
            return self.error
        parts = [self.heard[number] for number in range(self.windows)]
        seconds = np.array([part.seconds for part in parts])
        frames = sum(len(part.attention) for part in parts)
        return Answer(
            classes,
            probabilities=seconds / seconds.sum() @ np.stack([part.probabilities for part in parts]),
            seconds=float(seconds.sum()),
            attention=np.concatenate([part.attention * (len(part.attention) / frames) for part in parts]),
            frame_probabilities=np.concatenate([part.frame_probabilities for part in parts]),
            envelope=np.concatenate([part.envelope for part in parts]),
        )


@dataclass(frozen=True)
class Heard:
    """What a model says of one window: of all of it, and of the frames that are its own."""

    seconds: float  # of its own
    probabilities: np.ndarray
    attention: np.ndarray  # of sum 1
    frame_probabilities: np.ndarray
    envelope: np.ndarray

    @classmethod
    def of(cls, window: Window, output: Mapping[str, Tensor]) -> "Heard":
        attention = output["weights"][window.own].numpy()
        return cls(
            window.seconds,
            output["probabilities"].numpy(),
            attention / attention.sum(),
            output["frame_probabilities"][window.own].numpy(),
            envelope(window.own_waveform.numpy()),
        )


def envelope(samples: np.ndarray) -> np.ndarray:
    """The lowest and the highest sample of every 20 ms; those of the last may be fewer."""
    padded = np.pad(samples, (0, -len(samples) % FRAME), mode="edge").reshape(-1, FRAME)
    return np.stack([padded.min(axis=1), padded.max(axis=1)], axis=1)
