"""Asking a model about recordings, from Python."""

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.data.audio import AudioError, read_waveform
from recipe.inference import recognizer as module
from recipe.inference.answer import Answer
from recipe.inference.picture import COLUMNS, answer_figure, columns
from recipe.inference.recognizer import Recognizer
from recipe.inference.segments import as_audacity, as_csv, as_rttm, attention_of, likeliest_course, segments
from recipe.inference.windows import Window
from recipe.training.systems import POOLINGS
from sounds import SAMPLE_RATE, tone
from trained import CLASSES, write_trained


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    write_trained(folder)
    return folder


@pytest.fixture(scope="module")
def recognizer(folder):
    return Recognizer(folder)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Of several lengths, rates, channels and formats."""
    root, dice = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    kinds = [
        ("a.wav", 16_000, 1, 1.3),
        ("b.flac", 44_100, 2, 0.4),
        ("c.ogg", 48_000, 1, 2.1),
        ("d.mp3", 22_050, 2, 1.0),
    ]
    for number, (name, rate, channels, seconds) in enumerate(kinds):
        sound = tone(300 * (number + 1), seconds, rate, noise=0.05, dice=dice)
        soundfile.write(root / name, np.stack([sound] * channels, axis=1), rate)
    return [root / name for name, *_ in kinds]


def test_an_answer_is_what_the_model_says(recognizer, folder, recordings):
    model, _ = module.read_model(folder)
    for path in recordings:
        with torch.no_grad():
            frames, mask = model.backbone([read_waveform(path)])
            pooled = model.pooling(frames, mask)
            expected = model.classifier(pooled.utterance).softmax(1)[0], model.classifier(pooled.frames).softmax(2)[0]
        answer = recognizer(path)
        np.testing.assert_allclose(answer.probabilities, expected[0], atol=1e-5)
        np.testing.assert_allclose(answer.frame_probabilities, expected[1], atol=1e-5)
        np.testing.assert_allclose(answer.attention, pooled.weights[0], atol=1e-5)
        assert answer.label == CLASSES[int(expected[0].argmax())]
        assert list(answer.by_class) == list(CLASSES)
        assert answer.seconds == pytest.approx(len(read_waveform(path)) / SAMPLE_RATE)
        assert answer.envelope.max() == read_waveform(path).max()


def test_a_recording_in_a_batch_is_answered_as_alone(recognizer, recordings):
    together = list(recognizer.answers([*recordings, recordings[0].read_bytes()]))
    for path, answer in zip([*recordings, recordings[0]], together, strict=True):
        alone = recognizer(path)
        np.testing.assert_allclose(answer.probabilities, alone.probabilities, atol=1e-5)
        np.testing.assert_allclose(answer.frame_probabilities, alone.frame_probabilities, atol=1e-5)


def test_a_file_that_cannot_be_used_is_an_error_in_its_place(recognizer, recordings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 2)
    bad = tmp_path / "bad.wav"
    bad.write_text("no audio")
    found = list(recognizer.answers([bad, recordings[0], bad, recordings[1], recordings[2], tmp_path / "none.wav"]))
    assert [type(answer) for answer in found] == [AudioError, Answer, AudioError, Answer, Answer, AudioError]
    assert "is not audio" in str(found[0])
    assert "does not exist" in str(found[5])
    with pytest.raises(AudioError, match="is not audio"):
        recognizer(bad)


def test_answers_come_while_later_recordings_are_not_read_yet(recognizer, recordings, monkeypatch):
    monkeypatch.setattr(module, "AHEAD", 2)
    read = []

    def reading():
        for path in recordings:
            read.append(path)
            yield path

    next(recognizer.answers(reading()))
    assert len(read) == 2


def test_a_long_recording_is_heard_in_windows(recognizer, tmp_path, monkeypatch):
    """What each says of its own part, and their mean of the whole: of 4 s, as most utterances were in training."""
    monkeypatch.setattr(module, "AHEAD", 2)
    dice = np.random.default_rng(1)
    sound = np.concatenate([tone(f, 3.5, noise=0.02, dice=dice) for f in (200, 900, 2000, 400)])

    def part(start, stop):
        soundfile.write(tmp_path / "part.wav", sound[start * SAMPLE_RATE : stop * SAMPLE_RATE], SAMPLE_RATE)
        return recognizer(tmp_path / "part.wav")

    answer = part(0, 14)
    assert answer.seconds == pytest.approx(14)
    assert len(answer.attention) == len(answer.frame_probabilities) == 14 * 50 - 1  # the tiny encoder's last one
    assert answer.attention.sum() == pytest.approx(1)
    parts = [part(start, start + 4) for start in range(0, 11, 2)]
    own = [(0, 150), *[(50, 150)] * 4, (50, None)]
    expected = np.concatenate([p.frame_probabilities[start:stop] for p, (start, stop) in zip(parts, own, strict=True)])
    np.testing.assert_allclose(answer.frame_probabilities, expected, atol=1e-5)
    seconds = np.array([3, 2, 2, 2, 2, 3])
    np.testing.assert_allclose(answer.probabilities, seconds / 14 @ [p.probabilities for p in parts], atol=1e-5)
    # one of 10 s, as the longest was in training, is heard whole
    ten = part(0, 10)
    assert np.abs(ten.frame_probabilities[:150] - answer.frame_probabilities[:150]).max() > 1e-3


def test_progress_is_told_in_seconds(recognizer, recordings):
    heard = []
    list(recognizer.answers(recordings, heard.append))
    assert sum(heard) == pytest.approx(1.3 + 0.4 + 2.1 + 1.0, abs=0.1)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_pooling_answers(pooling, recordings, tmp_path):
    write_trained(tmp_path, pooling=pooling)
    recognizer = Recognizer(tmp_path)
    answer = recognizer(recordings[0])
    assert answer.probabilities.sum() == pytest.approx(1)
    assert recognizer.knows_frames == ("statistics" not in pooling)
    assert answer.frame_probabilities.shape[1] == (3 if recognizer.knows_frames else 0)
    assert bool(segments(answer)) == recognizer.knows_frames


def of(labels, probability=0.9, seconds=None):
    """An answer whose frames say these classes."""
    rest = (1 - probability) / (len(CLASSES) - 1)
    frames = np.full((len(labels), len(CLASSES)), rest)
    frames[np.arange(len(labels)), labels] = probability
    seconds = seconds or len(labels) / 50
    flat = np.full(len(labels), 1 / len(labels))
    return Answer(CLASSES, frames.mean(axis=0), seconds, flat, frames, np.zeros((len(labels), 2)))


def test_segments_cover_a_recording_and_outliers_make_none():
    labels = [0] * 100 + [2] * 3 + [0] * 50 + [1] * 80
    found = segments(of(labels))
    assert [(s.label, round(s.start, 2), round(s.end, 2)) for s in found] == [
        ("angry", 0, 3.06),
        ("happy", 3.06, 4.66),
    ]
    assert found[0].probability == pytest.approx((150 * 0.9 + 3 * 0.05) / 153)


def test_the_attention_of_segments_is_that_of_their_frames():
    answer = of([0] * 100 + [1] * 50 + [2] * 80, seconds=4.61)
    answer.attention[:] = np.random.default_rng(0).dirichlet(np.ones(230))
    expected = [answer.attention[own].sum() for own in (slice(100), slice(100, 150), slice(150, None))]
    np.testing.assert_allclose(attention_of(answer, segments(answer)), expected)


@given(st.lists(st.lists(st.floats(-5, 0), min_size=3, max_size=3), min_size=1, max_size=6), st.floats(0, 5))
def test_the_course_is_the_likeliest_of_all(scores, change):
    scores = np.array(scores)

    def worth(course):
        return scores[np.arange(len(course)), course].sum() - change * np.count_nonzero(np.diff(course))

    every = np.stack(np.meshgrid(*[range(3)] * len(scores), indexing="ij"), -1).reshape(-1, len(scores))
    assert worth(likeliest_course(scores, change)) == pytest.approx(max(map(worth, every)))


def test_segments_as_other_programs_read_them():
    found = segments(of([0] * 100 + [1] * 100))
    assert as_csv(found) == ("start,end,class,probability\n0.000,2.000,angry,0.9000\n2.000,4.000,happy,0.9000\n")
    assert as_rttm(found, "my talk").splitlines() == [
        "SPEAKER my_talk 1 0.000 2.000 <NA> <NA> angry 0.9000 <NA>",
        "SPEAKER my_talk 1 2.000 2.000 <NA> <NA> happy 0.9000 <NA>",
    ]
    assert as_audacity(found) == "0.000000\t2.000000\tangry\n2.000000\t4.000000\thappy\n"


@pytest.mark.parametrize("frames", [1, 2, 75, 5000])
def test_a_picture_of_any_length_has_a_number_of_columns_that_can_be_seen(frames):
    answer = of([frame * 2 // frames for frame in range(frames)])
    figure = answer_figure(answer, segments(answer), "a talk")
    bars = [patch for axis in figure.axes for patch in axis.patches]
    assert bars
    assert len(columns(answer.attention, np.add)) == min(frames, COLUMNS)
    assert columns(answer.attention, np.add).sum() == pytest.approx(1)


def test_a_narrow_picture_names_only_the_segments_with_room_for_it():
    answer = of([0] * 300 + [1] * 50 + [0] * 100)

    def named(width):
        figure = answer_figure(answer, segments(answer), "a talk", width)
        assert figure.get_figwidth() == width
        return [text.get_text() for text in figure.axes[0].texts]

    assert named(7.5) == ["angry", "happy", "angry"]
    assert named(3.5) == ["angry", "angry"]


def test_a_window_shorter_than_a_frame_has_its_seconds():
    assert Window(0, torch.zeros(200), slice(0, None)).seconds == pytest.approx(200 / SAMPLE_RATE)
