"""Intervals and tests against brute force, closed forms, and their promised error rates."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from recipe.reporting.significance import FLIPS, difference_interval, holm, interval, paired_test, smallest_p
from recipe.training.scores import score


def predict(generator, labels, recall, seeds, num_classes):
    """Each seed is right with probability `recall`, else names another class."""
    right = generator.random((seeds, len(labels))) < recall
    wrong = (labels + generator.integers(1, num_classes, size=right.shape)) % num_classes
    return np.where(right, labels, wrong)


@pytest.fixture
def uneven():
    """Three classes of 120, 40 and 15 utterances, classified by three seeds."""
    generator = np.random.default_rng(3)
    labels = generator.permutation(np.repeat([0, 1, 2], [120, 40, 15]))
    return labels, predict(generator, labels, np.array([0.9, 0.5, 0.7])[labels], seeds=3, num_classes=3)


def brute_force(labels, statistic, rounds=3000):
    """Percentiles of `statistic`, a function of utterances' indices, that are redrawn within their classes."""
    generator = np.random.default_rng(11)
    of_class = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    draws = [np.concatenate([generator.choice(own, len(own)) for own in of_class]) for _ in range(rounds)]
    return np.quantile([statistic(draw) for draw in draws], [0.025, 0.975])


def mean_recall(labels, predictions):
    """UA, averaged over seeds; written anew, so that it cannot share a mistake."""
    return np.mean([[(seed[labels == c] == c).mean() for c in np.unique(labels)] for seed in predictions])


def exact_p(differences):
    """All 2**n patterns of signs."""
    means = [np.dot(signs, differences) for signs in product([-1, 1], repeat=len(differences))]
    return np.mean(np.abs(means) >= abs(np.sum(differences)) - 1e-12)


# ---- intervals of one system


def test_interval_of_ua_is_brute_force(uneven):
    labels, predictions = uneven
    expected = brute_force(labels, lambda drawn: mean_recall(labels[drawn], predictions[:, drawn]))
    np.testing.assert_allclose(interval(labels, predictions, 3), expected, atol=0.004)


def test_interval_of_wa_is_brute_force(uneven):
    labels, predictions = uneven
    expected = brute_force(labels, lambda drawn: (predictions[:, drawn] == labels[drawn]).mean())
    np.testing.assert_allclose(interval(labels, predictions, 3, "wa"), expected, atol=0.004)


def test_interval_of_wa_with_one_seed_is_binomial():
    labels = np.repeat([0, 1], [100, 300])
    wrong = np.isin(np.arange(400), [*range(20), *range(100, 160)])  # recall 0.8 in both classes
    expected = binom.ppf([0.025, 0.975], 400, 0.8) / 400
    np.testing.assert_allclose(interval(labels, [np.where(wrong, 1 - labels, labels)], 2, "wa"), expected, atol=1 / 400)


@pytest.mark.parametrize("field", ["ua", "wa"])
def test_interval_is_around_the_score(uneven, field):
    labels, predictions = uneven
    point = np.mean([getattr(score(labels, seed, 3), field) for seed in predictions])
    low, high = interval(labels, predictions, 3, field)
    assert low < point < high
    assert (low + high) / 2 == pytest.approx(point, abs=0.01)


def test_seeds_of_an_utterance_are_drawn_together(uneven):
    """Ten copies of a seed are no more evidence than one."""
    labels, predictions = uneven
    once, ten_times = (interval(labels, np.repeat(predictions[:1], seeds, axis=0), 3) for seeds in (1, 10))
    assert once == pytest.approx(ten_times, abs=1e-12)


def test_interval_covers_the_true_ua():
    generator = np.random.default_rng(5)
    labels = np.repeat(np.arange(4), [30, 60, 60, 120])
    recalls = np.array([0.4, 0.6, 0.7, 0.8])
    covered = 0
    for _ in range(400):
        # utterances differ in difficulty, so that seeds agree more than chance would
        difficulty = generator.beta(3 * recalls[labels], 3 * (1 - recalls[labels]))
        low, high = interval(labels, predict(generator, labels, difficulty, 3, 4), 4, resamples=1000)
        covered += low <= recalls.mean() <= high
    assert 0.92 <= covered / 400 <= 0.98


def test_a_class_without_utterances_does_not_count(uneven):
    labels, predictions = uneven
    assert interval(labels, predictions, 5) == interval(labels, predictions, 3)
    assert interval(labels + 1, predictions + 1, 4, "wa") == interval(labels, predictions, 3, "wa")


def test_perfect_predictions_leave_no_width(uneven):
    labels, _ = uneven
    assert interval(labels, [labels], 3) == (1.0, 1.0)


def test_intervals_do_not_depend_on_the_order_or_the_call(uneven):
    labels, predictions = uneven
    order = np.random.default_rng(0).permutation(len(labels))
    first = interval(labels, predictions, 3)
    assert interval(labels, predictions, 3) == first
    assert interval(labels[order], predictions[::-1, order], 3) == first
    assert interval(labels, predictions, 3, seed=1) != first
    pair = difference_interval(labels, predictions, predictions[:1], 3)
    assert difference_interval(labels[order], predictions[:, order], predictions[:1, order], 3) == pair


# ---- intervals of a difference


def test_difference_interval_is_brute_force(uneven):
    labels, predictions = uneven
    others = predict(np.random.default_rng(8), labels, 0.6, seeds=2, num_classes=3)
    expected = brute_force(
        labels,
        lambda drawn: mean_recall(labels[drawn], predictions[:, drawn]) - mean_recall(labels[drawn], others[:, drawn]),
    )
    np.testing.assert_allclose(difference_interval(labels, predictions, others, 3), expected, atol=0.005)


def test_a_system_does_not_differ_from_itself(uneven):
    labels, predictions = uneven
    assert difference_interval(labels, predictions, predictions, 3) == (0.0, 0.0)


def test_pairing_narrows_the_interval(uneven):
    """Two systems that fail at mostly the same utterances differ by little, and by little uncertainty."""
    labels, predictions = uneven
    better = predictions.copy()
    better[:, :20] = labels[:20]
    low, high = difference_interval(labels, better, predictions, 3)
    alone = interval(labels, predictions, 3)
    assert 0 < low < high
    assert high - low < (alone.high - alone.low) / 2


# ---- the test over trainings


@pytest.mark.parametrize("trainings", [2, 5, 9, 12])
def test_p_is_that_of_all_patterns_of_signs(trainings):
    differences = np.random.default_rng(trainings).normal(0.3, 1.0, trainings)
    assert paired_test(differences) == exact_p(differences)


def test_random_signs_come_near_the_exact_p():
    differences = np.random.default_rng(2).normal(0.4, 1.0, 18)
    signs = 1 - 2 * (np.arange(2**18)[:, None] >> np.arange(18) & 1)  # 262 144 patterns, more than are drawn
    exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
    assert 0.01 < exact < 0.5
    assert paired_test(differences) == pytest.approx(exact, abs=0.005)


def test_p_is_that_counted_by_hand():
    assert paired_test([1.0, 2.0, 3.0]) == 2 / 8  # the only ones as far from 0: +++ and ---
    assert paired_test([1.0, 2.0, -3.0]) == 1.0
    # the floating sum of these is not 0, and other signs come nearer to it
    assert paired_test(np.array([-9, -9, -6, 0, 2, 4, 4, 6, 8]) / 100) == 1.0
    assert paired_test([0.02, 0.0, 0.02, 0.0]) == 0.5


@pytest.mark.parametrize("trainings", [1, 2, 5, 6, 10])
def test_agreement_of_all_trainings_gives_the_smallest_p(trainings):
    agreeing = np.linspace(0.001, 0.02, trainings)
    assert paired_test(agreeing) == paired_test(-agreeing) == smallest_p(trainings) == 2 / 2**trainings


def test_one_seed_on_five_folds_proves_nothing():
    assert smallest_p(5) == 0.0625


@pytest.mark.parametrize("trainings", [1, 5, 25])
def test_no_difference_is_p_one(trainings):
    assert paired_test(np.zeros(trainings)) == 1.0


def test_p_is_never_zero():
    assert paired_test(np.ones(40)) == 1 / (FLIPS + 1)


def test_false_alarms_are_as_rare_as_promised():
    generator = np.random.default_rng(13)
    # trainings that are unequally noisy: the test needs symmetric noise, not the normal distribution
    noise = generator.standard_t(3, size=(1500, 8)) * np.linspace(0.5, 2.0, 8)
    p_values = np.array([paired_test(differences) for differences in noise])
    # by more than twice the standard error of a share of 1500
    for level, tolerance in [(0.05, 0.0115), (0.2, 0.025), (0.5, 0.03)]:
        assert (p_values <= level).mean() == pytest.approx(level, abs=tolerance)
    assert (p_values <= 0.05).mean() <= 0.06


def test_a_clear_effect_is_found():
    generator = np.random.default_rng(17)
    assert all(paired_test(generator.normal(0.015, 0.01, 15)) < 0.05 for _ in range(20))


@pytest.mark.parametrize("trainings", [10, 25])
def test_p_does_not_depend_on_the_order_sign_or_scale(trainings):
    generator = np.random.default_rng(19)
    differences = generator.normal(0.1, 0.4, trainings)
    first = paired_test(differences)
    assert paired_test(differences) == first
    assert paired_test(generator.permutation(differences)) == first
    assert paired_test(-differences) == first
    assert paired_test(100 * differences) == first


# ---- many comparisons


def test_holm_is_that_computed_by_hand():
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1; the last may not fall below the one before
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([0.3]).tolist() == [0.3]
    assert holm([0.9, 0.8]).tolist() == [1.0, 1.0]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_holm_raises_p_and_keeps_the_order(p_values):
    raw, adjusted = np.array(p_values), holm(p_values)
    assert (adjusted >= raw).all()
    assert (adjusted <= 1).all()
    assert (adjusted <= np.minimum(1, raw * len(raw))).all()  # never stricter than Bonferroni
    assert (np.diff(adjusted[raw.argsort(kind="stable")]) >= 0).all()
    assert (adjusted[::-1] == holm(p_values[::-1])).all()


# ---- messages


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([0, 1], [[0, 1, 1]], 2), r"`predictions` .* = \(1 or more, 2\) .*got \(1, 3\)"),
        (lambda: interval([0, 1], [0, 1], 2), r"`predictions` must have shape \(seeds, utterances\)"),
        (lambda: interval([0, 2], [[0, 1]], 2), r"`labels` must be from 0 to num_classes - 1 = 1, got 0 to 2"),
        (lambda: interval([], [[]], 2), r"`labels` must have shape \(utterances,\)"),
        (lambda: interval([0, 1], [[0, 1]], 2, "uar"), r"`score` must be .*'uar'"),
        (lambda: difference_interval([0, 1], [[0, 1]], [[0]], 2), "`predictions_b`"),
        (lambda: paired_test([0.1, float("nan")]), "`differences` must be finite .*leave out"),
        (lambda: paired_test([[0.1, 0.2]]), "`differences`"),
        (lambda: paired_test([]), "`differences`"),
        (lambda: smallest_p(0), "`trainings` must be at least 1, got 0"),
        (lambda: holm([0.5, 1.5]), "`p_values` .* from 0 to 1"),
        (lambda: holm([float("nan")]), "`p_values`"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
