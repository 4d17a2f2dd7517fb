"""UA and WA as the field uses the terms: UA is the mean of the classes' recalls, WA the accuracy."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from sklearn.metrics import confusion_matrix


@dataclass(frozen=True)
class Scores:
    ua: float
    wa: float
    recalls: list[float]
    confusion: list[list[int]]  # rows are true classes, columns predicted ones

    def named(self, classes: Sequence[str]) -> dict:
        """As plain data, recalls by the names of the classes."""
        return {**asdict(self), "recalls": dict(zip(classes, self.recalls, strict=True))}


def score(labels: Sequence[int], predictions: Sequence[int], num_classes: int) -> Scores:
    return from_confusion(confusion_matrix(labels, predictions, labels=range(num_classes)))


def pooled(scores: Sequence[Scores]) -> Scores:
    """Of the utterances of all together."""
    return from_confusion(np.sum([one.confusion for one in scores], axis=0))


def from_confusion(confusion: np.ndarray) -> Scores:
    counts = confusion.sum(axis=1)
    recalls = confusion.diagonal()[counts > 0] / counts[counts > 0]  # a class without utterances has no recall
    every = np.full(len(counts), np.nan)
    every[counts > 0] = recalls
    return Scores(
        ua=float(recalls.mean()),
        wa=float(confusion.trace() / confusion.sum()),
        recalls=every.tolist(),
        confusion=confusion.tolist(),
    )
