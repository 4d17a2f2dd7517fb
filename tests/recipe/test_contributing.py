"""A corpus is one file and a backbone is one file: those that CONTRIBUTING.md shows, taken from its text, are used."""

import json
import re
from itertools import product
from pathlib import Path

import cross_dataset
import numpy as np
import pytest
import soundfile
import yaml

from recipe.data import corpora
from recipe.features import backbones
from sounds import SAMPLE_RATE, tone

GUIDE = Path(__file__).parents[2] / "CONTRIBUTING.md"
SPEAKERS, EMOTIONS = ("anna", "bert", "carl", "dora", "emil", "fine"), ("angry", "happy", "neutral", "sad")


@pytest.fixture
def added(tmp_path, monkeypatch):
    """The files of the guide, as if they lay in the folders that it names."""
    blocks = re.findall(r"```python\n# (examples/\S+)\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    folders = {"corpora": corpora, "backbones": backbones}
    assert len(blocks) == len(folders)
    for name, text in blocks:
        path = tmp_path / "added" / name
        path.parent.mkdir(parents=True)
        path.write_text(text)
        package = folders.pop(path.parent.name)
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(path.parent)])
    assert folders == {}


@pytest.fixture
def studio(tmp_path):
    root, dice = tmp_path / "Studio", np.random.default_rng(0)
    root.mkdir()
    for speaker, (number, emotion), take in product(SPEAKERS, enumerate(EMOTIONS), range(2)):
        sound = tone(200 * (number + 1), 0.4, gain=0.1, noise=0.01, dice=dice)
        soundfile.write(root / f"{speaker}_{emotion}_{take:02d}.wav", sound, SAMPLE_RATE)
    return root


def test_the_corpus_and_the_backbone_of_the_guide_train_at_once(added, studio, tmp_path, run):
    output = tmp_path / "out"
    arguments = ("--corpus", "studio", "--backbone", "logmel", "--systems", "cls-eal-fual", "--output", output)
    printed = run(cross_dataset.main, *arguments, "--data", studio)
    assert "corpus Studio: 48 utterances" in printed
    assert "note:" not in printed  # a complete copy
    results = json.loads((output / "results.json").read_text())
    assert results["finished"] == results["planned"] == 6
    folds = json.loads((output / "folds.json").read_text())
    assert [fold["test"]["speakers"] for fold in folds] == [["anna", "bert"], ["carl", "dora"], ["emil", "fine"]]
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert (config["stage1"]["epochs"], config["stage2"]["epochs"]) == (3, 2)
    assert "trained on nothing before" in (output / "report.md").read_text()


def test_a_folder_that_is_not_the_corpus_is_refused_as_any_is(added, tmp_path, run):
    (tmp_path / "Studio").mkdir()
    with pytest.raises(Exception, match="Studio is empty; give the directory of Studio"):
        run(cross_dataset.main, "--corpus", "studio", "--backbone", "logmel", "--data", tmp_path / "Studio")
