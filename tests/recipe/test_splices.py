"""Splices: the change is where it is said to be, silence is gone, and nobody else's voice is in them."""

from collections import Counter

import numpy as np
import pytest
import soundfile
import torch

from recipe.data.audio import SAMPLE_RATE, read_waveform
from recipe.data.corpora import read_corpus
from recipe.data.corpus import Utterance
from recipe.data.splices import EACH, FADE, Splice, speech_of, splices, within

SILENCE = torch.zeros(SAMPLE_RATE // 2)


def hum(pitch, seconds):
    return 0.3 * torch.sin(2 * torch.pi * pitch * torch.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE)


def recorded(folder, name, sound):
    path = folder / f"{name}.wav"
    soundfile.write(path, torch.cat([SILENCE, sound, SILENCE]).numpy(), SAMPLE_RATE, subtype="FLOAT")
    return path


def utterances(labels, speaker="anna"):
    return [Utterance(f"{speaker}-{i}-{label}", None, label, speaker) for i, label in enumerate(labels)]


def everything(utterance):
    return slice(0, SAMPLE_RATE)


def test_a_splice_is_silent_speech_cut_off_and_the_change_in_between(tmp_path):
    first = Utterance("a", recorded(tmp_path, "a", hum(200, 1.0)), "neutral", "anna")
    second = Utterance("b", recorded(tmp_path, "b", hum(700, 0.6)), "angry", "anna")
    (splice, reverse) = splices([first, second], lambda u: speech_of(read_waveform(u.path)))
    assert (splice.first, splice.second) == (reverse.second, reverse.first) == (first, second)
    assert splice.label == reverse.label == "angry"
    found = splice.waveform()
    assert len(found) / SAMPLE_RATE == pytest.approx(splice.seconds)
    assert splice.seconds == pytest.approx(1.6, abs=0.08)
    assert splice.change == pytest.approx(1.0, abs=0.04)
    # before the change there is the one tone, and behind it the other
    change = round(splice.change * SAMPLE_RATE)
    for part, pitch in ((found[: change - FADE], 200), (found[change + FADE :], 700)):
        spectrum = np.abs(np.fft.rfft(part.numpy() * np.hanning(len(part))))
        assert np.argmax(spectrum) * SAMPLE_RATE / len(part) == pytest.approx(pitch, abs=5)
    assert found.abs().max() <= 0.3 * 2**0.5  # nothing is added up at the seam but what fades


def test_each_frame_has_the_class_that_is_spoken_at_its_middle():
    neutral, angry = utterances(["neutral", "angry"])
    splice = Splice(neutral, angry, slice(0, SAMPLE_RATE + FADE // 2), slice(0, SAMPLE_RATE + FADE // 2))
    assert splice.change == pytest.approx(1.0)
    assert splice.seconds == pytest.approx(2.0)
    assert splice.truth(4) == ["neutral", "neutral", "angry", "angry"]
    assert splice.truth(3) == ["neutral", "angry", "angry"]  # the middle of the second is the change itself
    assert Counter(splice.truth(100)) == {"neutral": 50, "angry": 50}


def test_every_emotion_of_every_speaker_is_spliced_in_both_orders():
    of_anna = utterances(["neutral"] * 2 + ["angry"] * 9 + ["sad"] * 2 + ["calm"] * 3)
    found = splices([*of_anna, *utterances(["neutral", "happy"], "bert")], everything)
    assert len({splice.id for splice in found}) == len(found)
    assert all(splice.first.speaker == splice.second.speaker == splice.speaker for splice in found)
    assert all([splice.first.label, splice.second.label].count("neutral") == 1 for splice in found)
    counts = Counter((splice.speaker, splice.label, splice.first.label == "neutral") for splice in found)
    both = (True, False)
    assert counts == {
        **{("anna", "angry", order): EACH for order in both},
        **{("anna", "sad", order): 2 for order in both},
        **{("bert", "happy", order): 1 for order in both},
    }
    neutral = Counter(
        splice.first.id for splice in found if splice.speaker == "anna" and splice.first.label == "neutral"
    )
    assert sorted(neutral.values()) == [3, 3]  # the neutral ones are used in turn
    assert {s.second.id for s in found if s.second.label == "angry"} == {f"anna-{i}-angry" for i in (2, 4, 6, 8)}


@pytest.mark.parametrize("labels", [["angry", "sad"], ["neutral", "neutral"], ["neutral", "calm"], []])
def test_without_both_kinds_there_is_nothing_to_splice(labels):
    assert splices(utterances(labels), everything) == []


def test_a_side_of_a_fold_has_the_splices_of_its_own_utterances_alone():
    one, other = utterances(["neutral", "angry"]), utterances(["neutral", "angry"], "bert")
    found = splices([*one, *other], everything)
    assert within(found, one) == found[:2]
    assert within(found, [one[0], other[1]]) == []


@pytest.mark.parametrize("sound", [hum(100, 0.02), hum(100, 3)])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_speech_is_found_between_silence(sound, noise):
    waveform = torch.cat([SILENCE, sound, SILENCE]) + noise * torch.randn(2 * len(SILENCE) + len(sound))
    found = speech_of(waveform)
    assert abs(found.start - len(SILENCE)) <= 400
    assert abs(found.stop - len(SILENCE) - len(sound)) <= 400


@pytest.mark.parametrize("samples", [400, 401, 560, 16_000])
def test_what_is_loud_from_end_to_end_is_kept(samples):
    found = speech_of(torch.randn(samples))
    assert found.start == 0
    assert samples - 160 < found.stop <= samples


def test_speech_is_found_where_phoneticians_found_it(data_root):
    """EmoDB's phone labels were set by hand."""
    corpus = read_corpus("emodb", data_root / "emodb", "four")
    differences = []
    for utterance in corpus.utterances:
        if utterance.speech is not None:
            found = speech_of(read_waveform(utterance.path))
            differences.append(
                [found.start / SAMPLE_RATE - utterance.speech[0], found.stop / SAMPLE_RATE - utterance.speech[1]]
            )
    assert len(differences) > 330
    assert np.abs(np.median(differences, axis=0)).max() < 0.04
    assert np.quantile(np.abs(differences), 0.9) < 0.15  # a breath is speech to one and not to the other
