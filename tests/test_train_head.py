"""examples/train_head.py, called as from its command line, with a small encoder of random weights and tones."""

import ast
import csv
import runpy
from pathlib import Path

import pytest

from tones import save_encoder, save_tones, write_csv

SCRIPT = Path(__file__).parents[1] / "examples" / "train_head.py"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A CSV of tones, at two rates, and a folder with an encoder."""
    root = tmp_path_factory.mktemp("head")
    save_tones(root)
    save_encoder(root / "encoder", 0)
    return root


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
    write_csv(corpus / "bad.csv", change(rows))
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
