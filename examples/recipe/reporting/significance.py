"""Whether one system is better than another, when each was trained over several folds and seeds.

Two questions are kept apart. How much would the scores of these trained models move with other utterances of the
same speakers? The intervals say. Would the system win again, trained again? `paired_test` says. Neither speaks of
other speakers, unless the test is given one difference for each fold.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import permutation_test

RESAMPLES = 10_000
FLIPS = 99_999  # up to 16 trainings have no more sign patterns than this, and the test is exact
CONFIDENCE = 0.95


class Interval(NamedTuple):
    low: float
    high: float


def interval(
    labels: ArrayLike,
    predictions: ArrayLike,
    num_classes: int,
    score: Literal["ua", "wa"] = "ua",
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % bootstrap percentile interval of UA or WA, each the mean over seeds, on the test sets of all folds together.

    An utterance is drawn together with the predictions of all its seeds, and each class keeps its number of
    utterances, so that none vanishes. The models and speakers are taken as they are: with other speakers, or trained
    again, scores move by more. A class that is always recognised, or never, adds no width.

    Args:
        labels: (utterances,) class indices.
        predictions: (seeds, utterances) class indices.
        num_classes: Number of classes; one without utterances has no recall and does not count.
        score: "ua", the mean recall of the classes, or "wa", the accuracy.
    """
    labels = checked_labels(labels, num_classes)
    recalls = resampled_recalls(labels, hits(labels, predictions, "predictions"), num_classes, resamples, seed)
    counts = np.bincount(labels)
    if score == "ua":
        return percentiles(recalls.mean(axis=1))
    if score == "wa":
        return percentiles(recalls @ counts[counts > 0] / len(labels))
    raise ValueError(f'`score` must be "ua" or "wa", got {score!r}.')


def difference_interval(
    labels: ArrayLike,
    predictions_a: ArrayLike,
    predictions_b: ArrayLike,
    num_classes: int,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """95 % bootstrap percentile interval of UA of system a minus UA of system b, on the same resamples.

    As `interval`; the systems may have different numbers of seeds.
    """
    labels = checked_labels(labels, num_classes)
    gains = hits(labels, predictions_a, "predictions_a") - hits(labels, predictions_b, "predictions_b")
    return percentiles(resampled_recalls(labels, gains, num_classes, resamples, seed).mean(axis=1))


def paired_test(differences: ArrayLike, *, seed: int = 0) -> float:
    """Two-sided p of a sign-flip test: how often chance signs give a mean at least as far from 0.

    The unit is the training, not the utterance. The utterances that one trained model classifies share the noise of
    its training, so a test over utterances would call that noise a difference between the systems.

    A training is one (fold, seed), and in each the two systems must be exchangeable under the null hypothesis: apart
    from the noise of training they do equally well on every fold, and no model serves in two trainings. So a small p
    says that the system would win again on these folds. Where a system suits some speakers and not others, the seeds
    of a fold agree for that reason: to speak of other speakers give one difference for each fold, its mean over seeds.

    Args:
        differences: (trainings,) UA of the system minus UA of its baseline, in each training.
        seed: Of the random signs; up to 16 trainings all patterns of signs are tried instead.
    """
    differences = np.asarray(differences, dtype=float)
    if differences.ndim != 1 or differences.size == 0 or not np.isfinite(differences).all():
        raise ValueError(
            f"`differences` must be finite numbers of shape (trainings,), at least one, got {differences}; "
            "leave out trainings that did not finish."
        )
    largest = np.abs(differences).max()
    if largest == 0 or len(differences) == 1:
        return 1.0
    # Whole numbers add up to the same in any order, where rounding errors would break ties; and sorted ones always
    # meet the same random signs
    whole = np.round(differences / largest * 2**40)
    whole = whole[np.lexsort((whole, np.abs(whole)))]
    test = permutation_test(
        (whole,),
        lambda flipped, axis: np.abs(flipped.sum(axis=axis)),
        permutation_type="samples",  # which flips signs where there is one sample
        alternative="greater",
        vectorized=True,
        n_resamples=FLIPS,
        batch=10_000,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def smallest_p(trainings: int) -> float:
    """The smallest p that so many trainings can give: all agree. Five give 0.0625, so at 0.05 they can prove nothing.

    Where `paired_test` draws its signs it gives no less than 1e-5.
    """
    if trainings < 1:
        raise ValueError(f"`trainings` must be at least 1, got {trainings}.")
    return 2.0 / 2**trainings


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p values adjusted for their number, in the given order.

    Of all that are then at most 0.05, the chance that any is a false alarm is at most 5 %.

    Source:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure", 1979
    """
    p_values = np.asarray(p_values, dtype=float)
    if p_values.ndim != 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"`p_values` must be a list of numbers from 0 to 1, got {p_values}.")
    order = p_values.argsort(kind="stable")
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1)).clip(max=1.0)
    return adjusted


def checked_labels(labels: ArrayLike, num_classes: int) -> np.ndarray:
    labels = np.asarray(labels)
    if labels.ndim != 1 or labels.size == 0:
        raise ValueError(f"`labels` must have shape (utterances,), at least one, got {labels.shape}.")
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            f"`labels` must be from 0 to num_classes - 1 = {num_classes - 1}, got {labels.min()} to {labels.max()}."
        )
    return labels


def hits(labels: np.ndarray, predictions: ArrayLike, name: str) -> np.ndarray:
    """(utterances,): by what share of the seeds each utterance is recognised.

    UA and WA are linear in it, so their means over seeds need nothing else of the predictions.
    """
    predictions = np.asarray(predictions)
    if predictions.ndim != 2 or len(predictions) == 0 or predictions.shape[1] != len(labels):
        raise ValueError(
            f"`{name}` must have shape (seeds, utterances) = (1 or more, {len(labels)}) to match `labels`, "
            f"got {predictions.shape}."
        )
    return (predictions == labels).mean(axis=0)


def resampled_recalls(
    labels: np.ndarray, values: np.ndarray, num_classes: int, resamples: int, seed: int
) -> np.ndarray:
    """(resamples, classes that have utterances): each class's mean of `values`, its utterances drawn with replacement.

    `values` are few and distinct, the shares of a few seeds: to draw how often each comes is to draw utterances, and
    needs no index for each utterance.
    """
    generator = np.random.default_rng(seed)
    recalls = []
    for label in range(num_classes):
        own = values[labels == label]
        if len(own):
            distinct, counts = np.unique(own, return_counts=True)
            drawn = generator.multinomial(len(own), counts / len(own), size=resamples)
            recalls.append(drawn @ distinct / len(own))
    return np.stack(recalls, axis=1)


def percentiles(statistics: np.ndarray) -> Interval:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(statistics, [tail, 1 - tail])
    return Interval(float(low), float(high))
