"""The corpus that is spoken on the spot: IEMOCAP's layout, the same each time, neither trivial nor hopeless."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import espeakng_loader
import numpy as np
import pytest
import soundfile
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import recipe.data.demo as demo
from recipe.data.audio import read_waveform
from recipe.data.corpora.iemocap import read_iemocap
from recipe.data.espeak import Espeak
from recipe.data.folds import session_folds
from recipe.errors import RecipeError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return demo.make_demo_corpus(tmp_path_factory.mktemp("made") / "below" / "demo", progress=False)


@pytest.fixture(scope="module")
def corpus(root):
    return read_iemocap(root)


def test_iemocap_parser_reads_it(corpus):
    assert corpus.skipped == []
    assert Counter((u.speaker, u.label) for u in corpus.utterances) == {
        (speaker, label): 11 for speaker in demo.VOICES for label in ("angry", "happy", "neutral", "sad")
    }
    assert len(session_folds(corpus)) == 5


def test_it_has_the_quirks_of_the_layout(root, corpus):
    labels = [
        line.split("\t")[2]
        for path in root.glob("Session?/dialog/EmoEvaluation/*.txt")
        for line in path.read_text().splitlines()
        if line.startswith("[")
    ]
    assert set(labels) == {"ang", "exc", "fru", "hap", "neu", "sad", "xxx"}
    assert len(labels) == len(list(root.glob("Session?/sentences/wav/*/*.wav"))) == 480
    speakers_of_dialogues = {}
    for utterance in corpus.utterances:
        speakers_of_dialogues.setdefault(utterance.path.parent.name, set()).add(utterance.speaker[-1])
    assert all(speakers == {"F", "M"} for speakers in speakers_of_dialogues.values())
    assert {name[5] for name in speakers_of_dialogues} == {"F", "M"}
    lines = (root / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt").read_text().splitlines()
    assert lines[:2] == ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
    order = [line.split("\t")[1][-4] for line in lines if line.startswith("[")]
    assert order == sorted(order)  # the woman's turns, then the man's


def test_audio_is_what_iemocap_has(corpus):
    for utterance in corpus.utterances:
        info = soundfile.info(utterance.path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        assert 1 < info.duration < 4


def test_it_says_what_it_is(root):
    assert "synthetic speech" in (root / "README.txt").read_text()


def test_unseen_voices_are_neither_trivial_nor_hopeless(corpus):
    """A linear probe on the long-term spectrum, which models see whatever the level, and one on the level alone."""
    spectra, levels = {}, {}
    for utterance in corpus.utterances:
        samples = read_waveform(utterance.path).numpy()
        levels[utterance.id] = [np.log(samples.std())]
        frames = np.lib.stride_tricks.sliding_window_view(samples / samples.std(), 512)[::256] * np.hanning(512)
        power = np.abs(np.fft.rfft(frames))[:, :256].reshape(len(frames), 32, 8).sum(axis=2)
        spectra[utterance.id] = [*np.log(power + 1e-2).mean(axis=0), *np.log(power + 1e-2).std(axis=0)]

    def recall_on_unseen_voices(features):
        recalls = []
        for fold in session_folds(corpus):
            probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
            probe.fit([features[u.id] for u in fold.train], [u.label for u in fold.train])
            predicted = probe.predict([features[u.id] for u in fold.test])
            recalls.append(balanced_accuracy_score([u.label for u in fold.test], predicted))
        return np.mean(recalls)

    assert 0.6 < recall_on_unseen_voices(spectra) < 0.95
    assert recall_on_unseen_voices(levels) < 0.55


def test_a_complete_corpus_is_used_again(root, monkeypatch):
    monkeypatch.setattr(demo, "speak_in_fresh_process", lambda root, progress: pytest.fail("spoken once more"))
    assert demo.make_demo_corpus(root) == root


def test_an_interrupted_run_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(root, progress):
        (root / "Session1").mkdir(parents=True)
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "speak_in_fresh_process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.make_demo_corpus(tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_the_way_is_kept(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(
        RecipeError, match=r"not the demo corpus in its present edition; delete it or name another place"
    ):
        demo.make_demo_corpus(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_missing_synthesiser_is_told_with_the_remedy(tmp_path, monkeypatch):
    (tmp_path / "espeakng_loader.py").write_text("raise ImportError")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(RecipeError, match=r"is not installed; pip install espeakng-loader$"):
        demo.make_demo_corpus(tmp_path / "demo", progress=False)
    assert not (tmp_path / "demo").exists()


def test_an_unknown_voice_is_told_with_the_remedy():
    with pytest.raises(RecipeError, match=r"espeak-ng has no voice nowhere\+m3; pip install espeakng-loader --upgrade"):
        Espeak().speak("Hello.", "nowhere+m3", rate=160, pitch=50, pitch_range=50, volume=100)


def test_voices_sound_the_same_in_every_process():
    program = (
        "import sys, zlib; from recipe.data.espeak import Espeak; espeak = Espeak()\n"
        "for voice in sys.argv[1:]:\n"
        "    for text in ('You told me.', 'It rains.'):\n"
        "        speech = espeak.speak(text, voice, rate=160, pitch=50, pitch_range=50, volume=100)\n"
        "        print(voice, zlib.crc32(speech.tobytes()))"
    )
    voices = [voice for voice, _ in demo.VOICES.values()]
    examples = Path(demo.__file__).parents[2]
    command = [sys.executable, "-c", program, *voices]
    said = [subprocess.run(command, cwd=examples, capture_output=True, text=True, check=True).stdout for _ in range(3)]
    assert said[0] == said[1] == said[2]
    variants = Path(espeakng_loader.get_data_path()) / "voices" / "!v"
    # breath is noise that differs between processes, though not between each two; and espeak-ng would take the plain
    # voice, without a word, for a variant that it lacks
    for voice in voices:
        assert "breath" not in (variants / voice.split("+")[1]).read_text()
