"""examples/train_head.py, called as from its command line, with a small encoder of random weights and tones."""

import ast
import csv
import runpy
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

SCRIPT = Path(__file__).parents[1] / "examples" / "train_head.py"
SPEAKERS, LABELS = ("ann", "ben", "cid", "dot"), ("high", "low")


def save_encoder(folder, seed):
    torch.manual_seed(seed)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A CSV of tones, at two rates, and a folder with an encoder."""
    root, dice = tmp_path_factory.mktemp("head"), np.random.default_rng(0)
    rows = []
    for speaker, (number, label), take in product(SPEAKERS, enumerate(LABELS), range(2)):
        rate = (16_000, 22_050)[take]
        seconds = np.arange(int(rate * dice.uniform(0.2, 0.4))) / rate
        soundfile.write(root / f"{speaker}-{label}-{take}.wav", 0.1 * np.sin(2000 * (number + 1) * seconds), rate)
        rows.append({"path": f"{speaker}-{label}-{take}.wav", "label": label, "speaker": speaker})
    write(root / "all.csv", rows)
    save_encoder(root / "encoder", 0)
    return root


def write(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def train(corpus, monkeypatch, capsys):
    """Runs the script; what it printed."""

    def call(table="all.csv", encoder="encoder"):
        arguments = [corpus / table, "--backbone", corpus / encoder, "--cache", corpus / "cache", "--epochs", 2]
        monkeypatch.setattr("sys.argv", [str(SCRIPT), *map(str, arguments)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return capsys.readouterr().out

    return call


def frames_of(root, encoder="encoder"):
    return {path: path.stat().st_mtime_ns for path in (root / "cache").glob(f"*{encoder}/*")}


def test_the_second_start_reads_its_frames_and_ends_the_same(corpus, train):
    first = train()
    assert "16 utterances of 4 speakers, 2 classes: 8 train, 4 validation, 4 test; 16 dimensions" in first
    assert first.count("(test speakers; epoch ") == 2
    assert "cross-entropy alone: UA " in first
    assert "with EAL (0.05) and FUAL (0.05): UA " in first
    assert "chance: UA 50.0%" in first
    before = frames_of(corpus)
    assert len(before) == 16
    (corpus / "encoder").rename(corpus / "gone")  # nothing is left that could compute frames
    try:
        second = train()
    finally:
        (corpus / "gone").rename(corpus / "encoder")
    assert second == first
    assert frames_of(corpus) == before


def test_another_encoder_has_frames_of_its_own(corpus, train):
    save_encoder(corpus / "other", 1)
    train(encoder="other")
    assert len(frames_of(corpus, "other")) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda rows: [{**row, "speaker": "ann"} for row in rows], "needs 3 speakers", id="one speaker"),
        pytest.param(lambda rows: [{**row, "label": "low"} for row in rows], "and 2 labels, has 4 and 1", id="a label"),
        pytest.param(lambda rows: [{"path": row["path"]} for row in rows], "needs the columns path", id="column"),
        pytest.param(lambda rows: [{**rows[0], "path": "x.wav"}, *rows], "lists x.wav, which is not there", id="file"),
    ],
)
def test_what_cannot_be_trained_on_ends_in_one_line(corpus, train, capsys, change, message):
    rows = list(csv.DictReader((corpus / "all.csv").open()))
    write(corpus / "bad.csv", change(rows))
    with pytest.raises(SystemExit, match="2"):
        train(table="bad.csv")
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_missing_csv_is_named(train, capsys):
    with pytest.raises(SystemExit, match="2"):
        train(table="nowhere.csv")
    assert "nowhere.csv: No such file" in capsys.readouterr().err


def test_it_stands_on_the_library_alone():
    """No module of the recipe, which is an application."""
    names = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.ImportFrom):
            names.add(node.module)
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    assert any(name.startswith("framealign") for name in names)
    assert not any(name.split(".")[0] == "recipe" for name in names)
