"""Emotion over time: what the counts of all speakers say of a system, and how sure that is with other speakers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from recipe.data.splices import NEUTRAL
from recipe.reporting.significance import CONFIDENCE, RESAMPLES, Interval
from recipe.training.over_time import OverTime
from recipe.training.result import Result


@dataclass(frozen=True)
class Tally:
    """The counts of each speaker as arrays, all seeds and folds together."""

    speakers: list[str]
    single: np.ndarray  # (speakers, classes, classes) frames, true and predicted
    spliced: np.ndarray  # likewise
    seconds: np.ndarray  # (speakers,)
    switches: np.ndarray
    change_error: np.ndarray  # sum over splices
    splices: np.ndarray
    silent_attention: np.ndarray  # sum over utterances
    silent_time: np.ndarray

    def weighted(self, weights: np.ndarray) -> "Tally":
        """Each speaker as often as `weights` says, (resamples, speakers): arrays begin with the resamples then."""
        names = [name for name in vars(self) if name != "speakers"]
        return Tally(self.speakers, **{name: np.tensordot(weights, getattr(self, name), 1) for name in names})


def tally(results: Sequence[Result], side: str = "test") -> Tally | None:
    """Of one system's trainings; None where there is nothing of frames."""
    by_speaker: dict[str, list[OverTime]] = {}
    for result in results:
        for speaker, counts in result.over_time.get(side, {}).items():
            by_speaker.setdefault(speaker, []).append(counts)
    if not by_speaker:
        return None
    every = [by_speaker[speaker] for speaker in sorted(by_speaker)]

    def sums(of: Callable[[OverTime], object]) -> np.ndarray:
        return np.array([np.sum([of(counts) for counts in own], axis=0) for own in every], dtype=float)

    return Tally(
        sorted(by_speaker),
        sums(lambda c: c.single),
        sums(lambda c: c.spliced),
        sums(lambda c: c.seconds),
        sums(lambda c: c.switches),
        sums(lambda c: sum(c.change_errors)),
        sums(lambda c: len(c.change_errors)),
        sums(lambda c: sum(c.silent_attention)),
        sums(lambda c: sum(c.silent_time)),
    )


def frames_right(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Of the corpus's own utterances, each of one emotion: the share of frames with its class."""
    return _share(np.trace(counts.single, axis1=-2, axis2=-1), counts.single.sum((-2, -1)))


def frame_ua(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Of splices: the mean recall of the classes that they have, over frames."""
    recalls = _share(np.diagonal(counts.spliced, axis1=-2, axis2=-1), counts.spliced.sum(-1))
    return np.nanmean(recalls, axis=-1)


def missed(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Share of the time of splices in which emotion is taken for neutral."""
    neutral = classes.index(NEUTRAL)
    column = counts.spliced[..., neutral].sum(-1) - counts.spliced[..., neutral, neutral]
    return _share(column, counts.spliced.sum((-2, -1)))


def false_alarm(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Share in which neutral speech is taken for emotional."""
    neutral = classes.index(NEUTRAL)
    row = counts.spliced[..., neutral, :].sum(-1) - counts.spliced[..., neutral, neutral]
    return _share(row, counts.spliced.sum((-2, -1)))


def eder(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Emotion diarization error rate: the share of the time of splices that is missed, false alarm or confused."""
    return 1 - _share(np.trace(counts.spliced, axis1=-2, axis2=-1), counts.spliced.sum((-2, -1)))


def confused(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Share in which one emotion is taken for another."""
    return eder(counts, classes) - missed(counts, classes) - false_alarm(counts, classes)


def change_error(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Seconds between the change and where the frames' probabilities put it, mean over splices."""
    return _share(counts.change_error, counts.splices)


def switches(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Changes of class a second, in splices."""
    return _share(counts.switches, counts.seconds)


def attention_to_silence(counts: Tally, classes: Sequence[str]) -> np.ndarray:
    """Attention on a silent frame, in relation to one of all frames: 1 where it does not look at what it hears."""
    return _share(counts.silent_attention, counts.silent_time)


MEASURES: Mapping[str, Callable[[Tally, Sequence[str]], np.ndarray]] = {
    function.__name__: function
    for function in (
        frames_right,
        eder,
        missed,
        false_alarm,
        confused,
        frame_ua,
        change_error,
        switches,
        attention_to_silence,
    )
}


def measured(counts: Tally, classes: Sequence[str]) -> dict[str, float]:
    """All of them, over all speakers; those that the corpus allows."""
    every = counts.weighted(np.ones((1, len(counts.speakers))))
    with np.errstate(invalid="ignore"):
        found = {name: float(measure(every, classes)[0]) for name, measure in MEASURES.items()}
    return {name: value for name, value in found.items() if not np.isnan(value)}


def intervals(
    counts: Tally, classes: Sequence[str], baseline: Tally | None = None, seed: int = 0
) -> dict[str, Interval]:
    """95 % bootstrap percentile intervals over speakers; of the differences to a baseline, where there is one.

    Speakers are drawn with replacement, each with all that was measured on them, the same ones for both systems. One
    speaker has none.
    """
    if baseline is not None and baseline.speakers != counts.speakers:
        raise ValueError(
            f"`baseline` must have the speakers of `counts`, {counts.speakers}, got {baseline.speakers}; "
            "compare trainings on the same folds."
        )
    if (number := len(counts.speakers)) < 2:
        return {}
    weights = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), RESAMPLES)
    drawn, others = counts.weighted(weights), None if baseline is None else baseline.weighted(weights)
    tails = (1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2
    found = {}
    with np.errstate(invalid="ignore"):
        for name in measured(counts, classes):
            values = MEASURES[name](drawn, classes)
            if others is not None:
                values = values - MEASURES[name](others, classes)
            found[name] = Interval(*(float(bound) for bound in np.nanquantile(values, tails)))
    return found


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """nan where there is nothing to share."""
    return np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole > 0)
