"""How right a model is frame by frame: on speech of one emotion, and on speech whose emotion changes."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from recipe.data.corpus import Utterance
from recipe.data.splices import CALM, NEUTRAL, Splice
from recipe.training.predict import Predictions

FLOOR = 1e-6  # of a probability, so that one sure and wrong frame does not decide where the change is


@dataclass
class OverTime:
    """Counts of one speaker's utterances and splices; those of several speakers add up."""

    single: list[list[int]]  # frames of the corpus's utterances, (true class, predicted class)
    spliced: list[list[int]]  # frames of the splices, likewise
    seconds: float = 0.0  # of the splices
    switches: int = 0  # from one predicted class to another, in the splices
    change_errors: list[float] = field(default_factory=list)  # seconds, of each splice
    silent_attention: list[float] = field(default_factory=list)  # share of each utterance's attention
    silent_time: list[float] = field(default_factory=list)  # share of each utterance's frames


def over_time(
    utterances: Sequence[Utterance],
    of_utterances: Predictions,
    splices: Sequence[Splice],
    of_splices: Predictions,
    classes: Sequence[str],
) -> dict[str, OverTime]:
    """By speaker; empty where the model says nothing of frames, or there is nothing to splice."""
    if not splices or of_splices.frame_probabilities.shape[1] == 0:
        return {}
    none = np.zeros((len(classes), len(classes)), int)
    found: dict[str, OverTime] = defaultdict(lambda: OverTime(none.tolist(), none.tolist()))
    for utterance, weights, probabilities in zip(utterances, *by_utterance(of_utterances), strict=True):
        own = found[utterance.speaker]
        predicted = probabilities.argmax(axis=1)
        own.single = counted(own.single, [classes.index(utterance.label)] * len(predicted), predicted)
        if utterance.speech is not None and (silent := silence(utterance.speech, len(weights))).any():
            own.silent_attention.append(float(weights[silent].sum()))
            own.silent_time.append(float(silent.mean()))
    for splice, _, probabilities in zip(splices, *by_utterance(of_splices), strict=True):
        own = found[splice.speaker]
        probabilities = calm_as_neutral(probabilities, classes)
        predicted = probabilities.argmax(axis=1)
        truth = [classes.index(name) for name in splice.truth(len(predicted))]
        own.spliced = counted(own.spliced, truth, predicted)
        own.seconds += splice.seconds
        own.switches += int((predicted[1:] != predicted[:-1]).sum())
        change = change_point(probabilities) * splice.seconds / len(predicted)
        own.change_errors.append(abs(change - splice.change))
    return dict(found)


def by_utterance(found: Predictions) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Attention and class probabilities over the frames of each."""
    ends = found.lengths.cumsum(0)[:-1].numpy()
    return np.split(found.weights.numpy(), ends), np.split(found.frame_probabilities.numpy(), ends)


def calm_as_neutral(probabilities: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Of splices, whose question is where an emotion begins or ends: neither of the two is one."""
    if not {CALM, NEUTRAL} <= set(classes):
        return probabilities
    merged, calm = probabilities.copy(), classes.index(CALM)
    merged[:, classes.index(NEUTRAL)] += probabilities[:, calm]
    merged[:, calm] = 0
    return merged


def counted(counts: list[list[int]], truth: Sequence[int], predicted: np.ndarray) -> list[list[int]]:
    table = np.array(counts)
    np.add.at(table, (np.asarray(truth), predicted), 1)
    return table.tolist()


def silence(speech: tuple[float, float], frames: int) -> np.ndarray:
    """Which frames lie outside of the speech; a frame is 20 ms."""
    times = 0.02 * (np.arange(frames) + 0.5)
    return (times < speech[0]) | (times > speech[1])


def change_point(probabilities: np.ndarray) -> int:
    """How many frames come before the change: the likeliest place for one class to end and another to begin.

    Frames count as independent: the sum of their log-probabilities is the greatest.
    """
    if len(probabilities) < 2:
        return 0
    scores = np.log(np.maximum(probabilities, FLOOR)).astype(float)
    before = np.cumsum(scores, axis=0)[:-1]  # of frames 0 to t, by class
    after = scores.sum(axis=0) - before
    pairs = before[:, :, None] + after[:, None, :]
    np.einsum("tcc->tc", pairs)[:] = -np.inf  # no change
    return int(pairs.max(axis=(1, 2)).argmax()) + 1
