"""Code of the docs that takes what a training left: Python blocks below a comment that names this file; a notebook."""

import re
from itertools import product
from pathlib import Path

import iemocap_two_stage
import matplotlib.pyplot as plt
import numpy as np
import pytest
import soundfile
import torch

from notebooks import run_notebook
from recipe.data.corpora.emodb import LABELS, SPEAKER_GROUPS
from recipe.data.corpus import FOUR_CLASSES
from sounds import SAMPLE_RATE, tone
from trained import CLASSES, write_trained

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"<!-- run by tests/recipe/test_documented_code\.py -->\n```python\n(.*?)```", re.S)


def run_block(page: str) -> dict:
    (code,) = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    names: dict = {}
    exec(compile(code, page, "exec"), names)
    return names


def test_a_model_is_asked_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_trained(Path("runs/emodb-model/model"))
    soundfile.write("speech.wav", tone(300, 1.0), SAMPLE_RATE)
    answer = run_block("using_a_model.md")["answer"]
    assert answer.label in CLASSES
    assert len(answer.frame_probabilities) == len(answer.attention)


def test_outputs_of_a_training_are_read(iemocap, run):
    options = (
        "--backbone",
        "tiny",
        "--stage1.epochs",
        1,
        "--stage2.epochs",
        1,
        "--systems",
        "cls-eal-fual",
        "--folds",
        1,
    )
    run(iemocap_two_stage.main, "--data", iemocap, *options, "--output", "runs/iemocap-demo-tiny")
    found = run_block("recipe/files.md")
    assert len(found["attention"]) == len(found["found"]["probabilities"])
    assert all(torch.isclose(weights.sum(), torch.tensor(1.0)) for weights in found["attention"])


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_emotion_over_time_runs(tmp_path, monkeypatch):
    """Of models that were not trained and a corpus of tones, in EmoDB's layout."""
    plt.switch_backend("agg")
    dice = np.random.default_rng(0)
    wav = tmp_path / "emodb" / "wav"
    wav.mkdir(parents=True)
    letters = [letter for letter, label in LABELS.items() if label in FOUR_CLASSES]
    for [speaker], letter, version in product(SPEAKER_GROUPS, letters, "ab"):
        sound = tone(300 * (1 + letters.index(letter)), dice.uniform(0.3, 0.6), noise=0.01, dice=dice)
        soundfile.write(wav / f"{speaker}a01{letter}{version}.wav", sound, SAMPLE_RATE)
    for system in ("attentive-pooling", "attentive-pooling-eal-fual-weights-2"):
        folder = tmp_path / "run" / "trainings" / "seed-0-fold-1" / system / "model"
        write_trained(folder, pooling="attentive, one vector", classes=FOUR_CLASSES)
    monkeypatch.setenv("FRAMEALIGN_DATA", str(tmp_path))
    monkeypatch.setenv("FRAMEALIGN_RUN", str(tmp_path / "run"))
    names = run_notebook("emotion_over_time.ipynb")
    plt.close("all")
    assert len(names["spliced"]) == 2 * 2 * 3  # two of each emotion, in both orders
    for wrong in names["eder"].values():
        assert wrong.shape == (12,)
        assert ((wrong >= 0) & (wrong <= 1)).all()
