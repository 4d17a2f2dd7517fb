"""Emotion over time: counts and measures are those of a stopwatch, and intervals move with the speakers."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.data.audio import SAMPLE_RATE
from recipe.data.corpus import Utterance
from recipe.data.splices import FADE, Splice
from recipe.reporting.over_time import intervals, measured, tally
from recipe.training.over_time import FLOOR, OverTime, calm_as_neutral, change_point, over_time, silence
from recipe.training.predict import Predictions

CLASSES = ("angry", "happy", "neutral", "sad")


def predictions(of_each, classes=4):
    """Of frames that are sure of the classes in `of_each`, with even attention."""
    lengths = [len(predicted) for predicted in of_each]
    flat = torch.tensor([index for predicted in of_each for index in predicted], dtype=torch.long)
    return Predictions(
        probabilities=torch.zeros(len(of_each), classes),
        vectors=torch.zeros(len(of_each), 1),
        lengths=torch.tensor(lengths),
        weights=torch.cat([torch.full((length,), 1 / length) for length in lengths]),
        frame_probabilities=torch.eye(len(CLASSES))[flat][:, :classes],
        diagnostics={},
    )


def splice(labels, seconds, speaker="anna"):
    """Of two utterances that last so long, after the fade."""
    speech = [slice(0, round(s * SAMPLE_RATE) + FADE // 2) for s in seconds]
    first, second = (Utterance(f"{speaker}-{i}-{label}", None, label, speaker) for i, label in enumerate(labels))
    return Splice(first, second, *speech)


def stopwatch(splice, predicted):
    """EDER's parts of one splice, millisecond by millisecond."""
    total = {"missed": 0, "false_alarm": 0, "confused": 0, "right": 0}
    ticks = round(1000 * splice.seconds)
    for tick in range(ticks):
        time = (tick + 0.5) / 1000
        truth = splice.first.label if time < splice.change else splice.second.label
        said = CLASSES[predicted[min(int(time / splice.seconds * len(predicted)), len(predicted) - 1)]]
        if said == truth:
            total["right"] += 1
        elif said == "neutral":
            total["missed"] += 1
        elif truth == "neutral":
            total["false_alarm"] += 1
        else:
            total["confused"] += 1
    return {name: count / ticks for name, count in total.items()}


@given(
    st.lists(st.integers(0, 3), min_size=100, max_size=100),
    st.sampled_from(["angry", "happy", "sad"]),
    st.booleans(),
    st.integers(10, 90),
)
def test_eder_is_what_a_stopwatch_says(predicted, emotion, neutral_first, change):
    labels = ("neutral", emotion) if neutral_first else (emotion, "neutral")
    spliced = splice(labels, (change / 100, (100 - change) / 100))
    own = [spliced.first]
    counts = over_time(own, predictions([[0]]), [spliced], predictions([predicted]), CLASSES)
    found = measured(tally([result(counts)]), CLASSES)
    expected = stopwatch(spliced, predicted)
    for name in ("missed", "false_alarm", "confused"):
        assert found[name] == pytest.approx(expected[name], abs=0.011)  # a frame is 10 ms here
    assert found["eder"] == pytest.approx(1 - expected["right"], abs=0.011)
    assert found["eder"] == pytest.approx(found["missed"] + found["false_alarm"] + found["confused"])
    switches = sum(one != other for one, other in itertools.pairwise(predicted))
    assert found["switches"] == pytest.approx(switches / spliced.seconds)


def result(counts, side="test"):
    return SimpleNamespace(over_time={side: counts})


def test_a_perfect_model_has_no_errors_and_the_truth_s_switches():
    spliced = [splice(labels, (1, 1)) for labels in (("neutral", "sad"), ("happy", "neutral"))]
    said = [[2] * 50 + [3] * 50, [1] * 50 + [2] * 50]
    single = Utterance("x", None, "angry", "anna")
    found = measured(
        tally([result(over_time([single], predictions([[0, 0, 0]]), spliced, predictions(said), CLASSES))]), CLASSES
    )
    assert found == pytest.approx(
        {
            "frames_right": 1,
            "eder": 0,
            "missed": 0,
            "false_alarm": 0,
            "confused": 0,
            "frame_ua": 1,
            "change_error": 0,
            "switches": 0.5,
        }
    )


def test_calm_is_no_emotion_in_a_splice_and_a_class_of_its_own_in_an_utterance():
    classes = ("angry", "calm", "neutral", "sad")
    single, spliced = Utterance("x", None, "neutral", "anna"), splice(("neutral", "sad"), (1, 1))
    said = predictions([[1, 2] * 25 + [1] * 10 + [3] * 40])
    found = measured(tally([result(over_time([single], predictions([[1, 1, 2]]), [spliced], said, classes))]), classes)
    assert found["frames_right"] == pytest.approx(1 / 3)
    assert found["false_alarm"] == 0
    assert (found["eder"], found["missed"]) == pytest.approx((0.1, 0.1))  # calm in the sad half
    assert found["switches"] == pytest.approx(0.5)  # from calm to neutral is none
    assert found["change_error"] == pytest.approx(0.2)


def test_calm_and_neutral_together_may_be_likelier_than_an_emotion():
    said = np.array([[0.4, 0.3, 0.3, 0.0]])
    classes = ("angry", "calm", "neutral", "sad")
    assert calm_as_neutral(said, classes) == pytest.approx(np.array([[0.4, 0, 0.6, 0]]))
    assert calm_as_neutral(said, CLASSES) is said  # a corpus without calm
    assert said[0, 1] == 0.3  # what it was given is left as it is


def test_frame_ua_weighs_classes_and_not_frames():
    """Neutral speech is half of all; who says nothing else has the recall of one class of two."""
    found = over_time(
        [Utterance("x", None, "angry", "anna")],
        predictions([[2, 2, 0, 0]]),
        [splice(("neutral", "sad"), (3, 1))],
        predictions([[2] * 200]),
        CLASSES,
    )
    values = measured(tally([result(found)]), CLASSES)
    assert values["frame_ua"] == pytest.approx(0.5)
    assert values["eder"] == values["missed"] == pytest.approx(0.25)
    assert values["frames_right"] == pytest.approx(0.5)


@given(st.integers(2, 12), st.integers(2, 4), st.integers(0, 2**31))
def test_the_change_is_where_two_classes_explain_the_frames_best(frames, classes, seed):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(classes), frames)
    scores = np.log(np.maximum(probabilities, FLOOR))
    best = max(
        (scores[:t, a].sum() + scores[t:, b].sum(), t)
        for t in range(1, frames)
        for a, b in itertools.permutations(range(classes), 2)
    )
    found = change_point(probabilities)
    pairs = itertools.permutations(range(classes), 2)
    assert max(scores[:found, a].sum() + scores[found:, b].sum() for a, b in pairs) == pytest.approx(best[0])


def test_one_sure_and_wrong_frame_does_not_move_the_change():
    probabilities = np.full((100, 2), 0.1)
    probabilities[:50, 0] = probabilities[50:, 1] = 0.9
    probabilities[80] = 1.0, 0.0
    assert change_point(probabilities) == 50
    assert change_point(probabilities[:1]) == 0  # a frame has no change


def test_attention_on_silence_is_1_where_attention_is_even_and_0_where_it_is_not_on_silence():
    utterance = Utterance("x", None, "angry", "anna", speech=(0.5, 1.5))
    assert silence(utterance.speech, 100).sum() == 50
    for weights, expected in ((torch.full((100,), 0.01), 1.0), (None, 0.0)):
        said = predictions([[0] * 100])
        if weights is None:
            weights = torch.zeros(100)
            weights[50] = 1.0
        said = Predictions(**{**vars(said), "weights": weights})
        counts = over_time([utterance], said, [splice(("neutral", "sad"), (1, 1))], predictions([[0]]), CLASSES)
        assert measured(tally([result(counts)]), CLASSES)["attention_to_silence"] == pytest.approx(expected)


def test_a_model_without_frame_predictions_or_a_corpus_without_splices_has_nothing():
    utterance, spliced = Utterance("x", None, "angry", "anna"), splice(("neutral", "sad"), (1, 1))
    wide = predictions([[0]], classes=0)
    assert over_time([utterance], wide, [spliced], wide, CLASSES) == {}
    assert over_time([utterance], predictions([[0]]), [], predictions([[0]]), CLASSES) == {}
    assert tally([result({})]) is None


def speaker(right, wrong):
    table = np.zeros((4, 4), int)
    table[3, 3], table[3, 2] = right, wrong
    return OverTime(table.tolist(), table.tolist(), seconds=1.0, switches=1, change_errors=[0.5])


def test_folds_and_seeds_add_up_by_speaker():
    one, other = result({"a": speaker(3, 1)}), result({"a": speaker(1, 3), "b": speaker(4, 0)})
    counts = tally([one, other])
    assert counts.speakers == ["a", "b"]
    assert counts.single[0].sum() == 8
    assert measured(counts, CLASSES)["eder"] == pytest.approx(4 / 12)


def test_intervals_hold_the_value_and_shrink_with_more_speakers():
    shares = (20, 40, 60, 80)
    few = tally([result({str(share): speaker(share, 100 - share) for share in shares})])
    alike = {f"{share}-{copy}": speaker(share, 100 - share) for share in shares for copy in range(10)}
    many = tally([result(alike)])
    for counts in (many, few):
        low, high = intervals(counts, CLASSES)["eder"]
        assert low < measured(counts, CLASSES)["eder"] < high
    width, narrow = (np.diff(intervals(counts, CLASSES)["eder"])[0] for counts in (few, many))
    assert narrow == pytest.approx(width / 10**0.5, rel=0.15)  # ten times the speakers
    assert intervals(tally([result({"a": speaker(1, 1)})]), CLASSES) == {}  # one speaker says nothing of others


def test_a_difference_that_every_speaker_shows_is_sure_whatever_speakers_differ_by():
    shares = range(10, 90, 10)
    one = tally([result({str(s): speaker(s, 100 - s) for s in shares})])
    better = tally([result({str(s): speaker(s + 5, 95 - s) for s in shares})])
    low, high = intervals(better, CLASSES, one)["eder"]
    assert low == pytest.approx(-0.05)
    assert high == pytest.approx(-0.05)
    low, high = intervals(better, CLASSES)["eder"]
    assert high - low > 0.2
    with pytest.raises(ValueError, match="must have the speakers of `counts`"):
        intervals(better, CLASSES, tally([result({"z": speaker(1, 1)})]))
