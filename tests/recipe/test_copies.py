"""One recording under two names, in any container: told, and told loudly where it is trained and tested on."""

import cross_dataset
import numpy as np
import pytest
import soundfile

from recipe.data.audio import sound_digest
from recipe.data.copies import tell_copies
from recipe.data.corpus import Corpus, Fold, Utterance
from sounds import SAMPLE_RATE, tone


def in_16_bits(sound):
    """So that every container holds the same samples."""
    return np.round(sound * 2**15) / 2**15


def utterance(name, tmp_path, label="happy"):
    return Utterance(name, tmp_path / f"{name}.wav", label, f"speaker {name}")


@pytest.fixture
def told(tmp_path):
    """What is told of utterances a to f, where `sounds` spells who sounds like whom: a notes, a caveat, or nothing."""

    def tell(sounds, labels="hhhhhh"):
        utterances = [utterance(name, tmp_path, label) for name, label in zip("abcdef", labels, strict=True)]
        corpus = Corpus("test corpus", ("h", "s"), utterances)
        folds = [
            Fold(number, train=utterances[:2], validation=utterances[2:4], test=utterances[4:]) for number in (1, 2)
        ]
        tell_copies(corpus, folds, dict(zip("abcdef", sounds, strict=True)))
        return corpus.notes, corpus.caveats

    return tell


def test_nothing_is_told_of_recordings_that_differ(told):
    assert told("uvwxyz") == ([], [])


def test_copies_on_one_side_are_noted(told, tmp_path):
    (note,), caveats = told("uuwxyz")
    assert note.startswith("1 of 6 utterances hold the same audio as another one")
    assert f"{tmp_path / 'b.wav'} is a copy of {tmp_path / 'a.wav'}" in note
    assert "another label" not in note
    assert caveats == []


def test_copies_with_another_label_are_noted_as_such(told):
    (note,), _ = told("uuwxyz", labels="hshhhh")
    assert "some with another label" in note


@pytest.mark.parametrize(("sounds", "count"), [("uvuxyz", 1), ("uvwxuz", 1), ("uvuxuv", 3)])
def test_copies_of_training_utterances_elsewhere_make_scores_wrong(told, sounds, count):
    notes, (caveat,) = told(sounds)
    assert f"validated or tested on: {count} in fold 1, {count} in fold 2. Scores measure memory" in caveat
    assert notes == []


def test_a_sound_is_the_same_in_another_container_and_on_two_channels(tmp_path):
    sound = in_16_bits(tone(noise=0.01, dice=np.random.default_rng(0)))
    soundfile.write(tmp_path / "a.wav", sound, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "b.flac", sound, SAMPLE_RATE, subtype="PCM_16")
    soundfile.write(tmp_path / "c.wav", np.stack([sound, sound], axis=1), SAMPLE_RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "d.wav", sound[1:], SAMPLE_RATE, subtype="PCM_16")
    a, b, c, d = (sound_digest(tmp_path / name) for name in ("a.wav", "b.flac", "c.wav", "d.wav"))
    assert a == b == c != d


def test_a_dry_run_and_a_run_tell_of_them_and_the_report_does_before_the_scores(tmp_path, run):
    rows = ["path,label,speaker"]
    for number in range(12):
        suffix = "flac" if number >= 8 else "wav"
        sound = in_16_bits(tone(200 + 50 * (number % 8), 0.4))  # speaker 2's are speaker 0's
        soundfile.write(tmp_path / f"{number}.{suffix}", sound, SAMPLE_RATE, subtype="PCM_16")
        rows.append(f"{number}.{suffix},{'ab'[number % 2]},{number // 4}")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    options = ["--corpus", "manifest", "--data", tmp_path / "my.csv", "--backbone", "tiny", "--output", tmp_path / "o"]
    fast = ["--folds", "1", "--systems", "cls-eal-fual", "--stage1.epochs", "1", "--stage2.epochs", "1"]
    printed = [run(cross_dataset.main, *options, *fast, *more) for more in (["--dry_run"], [])]
    for text in printed:
        assert "warning: 4 of 12 utterances hold the same audio as another one" in text
    report = (tmp_path / "o" / "report.md").read_text()
    assert report.index("**Not to be believed.** 4 of 12") < report.index("| system")
