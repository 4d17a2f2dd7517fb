"""When which class is heard: the frames of an answer as segments, and the files that other programs read them from."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from recipe.inference.answer import Answer
from recipe.training.over_time import FLOOR

CHANGE = 15.0  # nats that a change of class must earn; docs/using_a_model.md has what others give


class Segment(NamedTuple):
    start: float  # seconds
    end: float
    label: str
    probability: float  # of that class, the mean over the segment's frames


def segments(answer: Answer, change: float = CHANGE) -> list[Segment]:
    r"""The likeliest course of classes, as segments without gaps.

    $$\max_{c_1 \dots c_T} \sum_t \log p_t(c_t) - \lambda \, |\{t : c_t \neq c_{t-1}\}|$$

    Single frames jump several times a second. A segment is as long as it takes to earn `change`, $\lambda$, in
    log-probability over what is around it; sure frames earn it sooner.
    """
    probabilities = answer.frame_probabilities
    if probabilities.size == 0:
        return []
    labels = course(probabilities, change)
    step = answer.seconds / len(labels)
    edges = [0, *(np.flatnonzero(np.diff(labels)) + 1).tolist(), len(labels)]
    return [
        Segment(
            start * step,
            end * step,
            answer.classes[labels[start]],
            float(probabilities[start:end, labels[start]].mean()),
        )
        for start, end in pairwise(edges)
    ]


def course(probabilities: np.ndarray, change: float = CHANGE) -> np.ndarray:
    """The class of each frame, (frames,), in segments; of class probabilities (frames, classes)."""
    return likeliest_course(np.log(np.maximum(probabilities, FLOOR)), change)


def likeliest_course(scores: np.ndarray, change: float) -> np.ndarray:
    """The class of each frame, (frames,), of the course with the highest sum of `scores` (frames, classes): Viterbi."""
    best, came_from = np.zeros(scores.shape[1]), np.empty(scores.shape, np.int32)
    own = np.arange(scores.shape[1])
    for came, of_frame in zip(came_from, scores.astype(float), strict=True):
        leader = best.argmax()
        came[:] = np.where(best >= best[leader] - change, own, leader)
        best = best[came] - change * (came != own) + of_frame
    course = np.empty(len(scores), np.int32)
    label = best.argmax()
    for frame in reversed(range(len(scores))):
        course[frame] = label
        label = came_from[frame, label]
    return course


def attention_of(answer: Answer, found: Sequence[Segment]) -> list[float]:
    """The share of the attention that falls on each segment; of sum 1."""
    starts = [round(segment.start / answer.seconds * len(answer.attention)) for segment in found]
    return np.add.reduceat(answer.attention, starts).tolist()


def as_csv(found: Sequence[Segment]) -> str:
    lines = [f"{start:.3f},{end:.3f},{label},{probability:.4f}" for start, end, label, probability in found]
    return "\n".join(["start,end,class,probability", *lines]) + "\n"


def as_rttm(found: Sequence[Segment], name: str) -> str:
    """NIST's Rich Transcription Time Marked, whose fields are separated by spaces."""
    name = "_".join(name.split())
    return "".join(
        f"SPEAKER {name} 1 {start:.3f} {end - start:.3f} <NA> <NA> {'_'.join(label.split())} {probability:.4f} <NA>\n"
        for start, end, label, probability in found
    )


def as_audacity(found: Sequence[Segment]) -> str:
    """Labels for Audacity's File, Import, Labels."""
    return "".join(f"{start:.6f}\t{end:.6f}\t{label}\n" for start, end, label, _ in found)
