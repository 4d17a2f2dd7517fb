"""MFCC statistics of any usable waveform, and an SVM whose probabilities agree with its predictions."""

import warnings

import numpy as np
import pytest
import torch

from recipe.data.audio import SAMPLE_RATE, SHORTEST
from recipe.training.classical import C_GRID, fit_svm, mfcc_statistics
from recipe.training.scores import score
from sounds import tone

FEATURES = 5 * 2 * (20 + 1)  # statistics of static and delta, of coefficients and energy


def blobs(seed, num_classes, per_class=30, spread=1.5):
    """Classes that overlap, in four dimensions."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(num_classes), per_class)
    centres = 2 * np.eye(num_classes, 4)
    return centres[labels] + spread * generator.normal(size=(len(labels), 4)), labels


# ---- features


@pytest.mark.parametrize("samples", [SHORTEST, SHORTEST + 1, 559, 560, 4000, 16_000])
def test_any_length_gives_the_same_finite_features(samples):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics = mfcc_statistics(torch.randn(samples))
    assert statistics.shape == (FEATURES,)
    assert statistics.dtype == np.float32
    assert np.isfinite(statistics).all()


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_silence_and_direct_current_are_finite(level):
    assert np.isfinite(mfcc_statistics(torch.full((8000,), level))).all()


def test_one_frame_does_not_vary():
    mean, deviation, *percentiles = mfcc_statistics(torch.randn(SHORTEST)).reshape(5, -1)
    assert (deviation == 0).all()
    for percentile in percentiles:
        np.testing.assert_array_equal(percentile, mean)
    np.testing.assert_allclose(mean[21:], 0, atol=1e-5)  # nor has it deltas


def test_statistics_of_the_energy_are_those_of_the_waveform():
    """Quiet, then ten times as loud, which is 2 ln 10 in the logarithm of the energy."""
    noise = torch.randn(SAMPLE_RATE)
    quiet, loud = 0.01 * noise[: SAMPLE_RATE // 2], 0.1 * noise[SAMPLE_RATE // 2 :]
    energy = mfcc_statistics(torch.cat([quiet, loud])).reshape(5, 2, 21)[:, 0, 20]
    mean, deviation, low, middle, high = energy
    assert low == pytest.approx(np.log(1e-4), abs=0.3)
    assert high == pytest.approx(np.log(1e-2), abs=0.3)
    assert low < middle < high
    assert mean == pytest.approx((low + high) / 2, abs=0.3)
    assert deviation == pytest.approx(np.log(10), abs=0.2)


def test_features_are_deterministic_and_leave_the_waveform():
    waveform = torch.randn(8000)
    before = waveform.clone()
    np.testing.assert_array_equal(mfcc_statistics(waveform), mfcc_statistics(waveform))
    assert torch.equal(waveform, before)


@pytest.mark.parametrize("shape", [(SHORTEST - 1,), (1, 8000), (0,)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`waveform` must have shape \(samples,\) with at least 400 samples"):
        mfcc_statistics(torch.zeros(shape))


# ---- the machine


@pytest.mark.parametrize(
    "sounds",
    [
        pytest.param([(300, 0.3), (600, 0.3), (1200, 0.3)], id="pitch"),
        pytest.param([(440, 0.03), (440, 0.1), (440, 0.3)], id="loudness"),
    ],
)
def test_sounds_that_tell_the_classes_apart_are_recognised(sounds):
    dice = np.random.default_rng(0)

    def sound(hertz, gain):
        return torch.from_numpy(tone(hertz, 0.4, gain=gain, noise=0.1 * gain, dice=dice))

    def side(count):
        features = [mfcc_statistics(sound(hertz, gain)) for hertz, gain in sounds for _ in range(count)]
        return np.stack(features), np.repeat(np.arange(len(sounds)), count)

    fitted = fit_svm(*side(40), *side(10))
    features, labels = side(20)
    # loudness is in few of the features, among many that vary by chance
    assert fitted.validation_ua > 0.85
    assert score(labels, fitted.predict(features), len(sounds)).ua > 0.85


@pytest.mark.parametrize("num_classes", [2, 3, 4])
def test_the_largest_probability_is_the_prediction(num_classes):
    fitted = fit_svm(*blobs(0, num_classes), *blobs(1, num_classes))
    features = np.random.default_rng(2).uniform(-4, 6, size=(5000, 4))  # far from the data too, where votes are equal
    probabilities = fitted.probabilities(features)
    assert probabilities.shape == (5000, num_classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert (probabilities > 0).all()
    assert (probabilities.argmax(axis=1) == fitted.predict(features)).all()


def test_c_is_the_best_on_the_validation_speakers():
    train, validation = blobs(0, 4), blobs(1, 4)
    fitted = fit_svm(*train, *validation)
    uas = {c: score(validation[1], fitted.pipeline.set_params(svc__C=c).fit(*train).predict(validation[0]), 4).ua
           for c in C_GRID}  # fmt: skip
    assert len(set(uas.values())) > 1
    assert fitted.validation_ua == max(uas.values()) == uas[fitted.c]


def test_who_validates_decides_c():
    """A training set with wrong labels: who validates on these wants a large C, who validates on the truth a small."""
    features, truth = blobs(0, 2, per_class=60, spread=0.7)
    noisy = np.where(np.random.default_rng(4).random(len(truth)) < 0.25, 1 - truth, truth)
    by_noise = fit_svm(features, noisy, features, noisy)
    by_truth = fit_svm(features, noisy, *blobs(5, 2, spread=0.7))
    assert by_noise.c > by_truth.c


def test_of_equals_the_smaller_c_is_taken():
    features, labels = blobs(0, 3, spread=0.05)
    fitted = fit_svm(features, labels, features, labels)
    assert fitted.validation_ua == 1.0
    assert fitted.c == min(C_GRID)


def test_a_rare_class_is_not_given_up():
    features, labels = blobs(0, 2, per_class=100)
    kept = (labels == 0) | (np.arange(len(labels)) % 10 == 0)
    fitted = fit_svm(features[kept], labels[kept], *blobs(1, 2))
    test_features, test_labels = blobs(2, 2, per_class=200)
    assert min(score(test_labels, fitted.predict(test_features), 2).recalls) > 0.5


def test_the_same_data_give_the_same_machine():
    first, second = (fit_svm(*blobs(0, 3), *blobs(1, 3)) for _ in range(2))
    features, _ = blobs(2, 3)
    np.testing.assert_array_equal(first.probabilities(features), second.probabilities(features))
    assert (first.c, first.validation_ua) == (second.c, second.validation_ua)


def test_scale_of_a_feature_does_not_matter():
    scale = np.array([1e-3, 1.0, 1e3, 1e6])
    (train_x, train_y), (validation_x, validation_y), (features, _) = (blobs(seed, 3) for seed in range(3))
    plain = fit_svm(train_x, train_y, validation_x, validation_y)
    scaled = fit_svm(train_x * scale, train_y, validation_x * scale, validation_y)
    np.testing.assert_allclose(scaled.probabilities(features * scale), plain.probabilities(features), rtol=1e-5)


@pytest.mark.parametrize(("train", "validation"), [([0, 0, 2, 2], [0, 2, 2, 0]), ([0, 0, 1, 1], [0, 1, 2, 0])])
def test_a_class_without_training_is_refused(train, validation):
    with pytest.raises(ValueError, match="`train_y` must hold every class from 0 on"):
        fit_svm(np.eye(4), train, np.eye(4), validation)
