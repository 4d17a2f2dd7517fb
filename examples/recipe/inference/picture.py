"""An answer as a picture: waveform, segments, attention and class probabilities over time."""

import numpy as np
from matplotlib.figure import Figure

from recipe.inference.answer import Answer
from recipe.inference.segments import Segment
from recipe.reporting.figures.timeline import FrameOutputs, timeline_figure

COLUMNS = 1500  # more than a picture shows


def answer_figure(answer: Answer, found: list[Segment], title: str, width: float = 7.5) -> Figure:
    probability = f"{answer.by_class[answer.label]:.0%}"
    low, high = answer.envelope.T
    waveform = np.stack([columns(low, np.minimum), columns(high, np.maximum)], axis=1).ravel()
    counts = columns(np.ones(len(answer.attention)), np.add)
    outputs = FrameOutputs(
        columns(answer.attention, np.add), columns(answer.frame_probabilities, np.add) / counts[:, None]
    )
    return timeline_figure(
        waveform,
        {"": outputs},
        answer.classes,
        f"{title}: {answer.label} ({probability})",
        [(segment.label, segment.end) for segment in found],
        seconds=answer.seconds,
        bar_name="segments",
        width=width,
    )


def columns(values: np.ndarray, join: np.ufunc) -> np.ndarray:
    """At most `COLUMNS` of them, neighbours joined."""
    starts = np.unique(np.linspace(0, len(values), min(len(values), COLUMNS), endpoint=False).astype(int))
    return join.reduceat(values, starts, axis=0)
