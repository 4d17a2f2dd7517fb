"""The whole recipe, through the scripts' own command line, with the `tiny` backbone on a handful of clips."""

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import cross_dataset
import iemocap_two_stage
import numpy as np
import pytest
import soundfile

from recipe.errors import RecipeError
from recipe.scores import score
from trees import write_iemocap

EXAMPLES = Path(__file__).parents[2] / "examples"
CATEGORIES = ("ang", "hap", "exc", "neu", "sad", "xxx")
SYSTEMS = ("stage 1: attentive pooling, CE", "stage 2: CLS pooling, CE + EAL + FUAL")


@pytest.fixture
def iemocap(tmp_path):
    """Two turns a class for each of the ten speakers, as tones that tell the classes apart."""
    root = tmp_path / "IEMOCAP_full_release"
    labels = {
        f"Ses0{session}{prefix}_impro01_{sex}{2 * index + repeat:03d}": category
        for session in range(1, 6)
        for prefix, sex in (("F", "F"), ("F", "M"))
        for index, category in enumerate(CATEGORIES)
        for repeat in range(2)
    }
    write_iemocap(root, labels)
    dice = np.random.default_rng(0)
    for path in sorted(root.glob("*/sentences/wav/*/*.wav")):
        category = labels[path.stem]
        samples = int(dice.integers(4_000, 9_000))
        pitch = 150 * (2 + CATEGORIES.index(category))
        tone = np.sin(2 * np.pi * pitch * np.arange(samples) / 16_000)
        soundfile.write(path, 0.1 * tone + 0.01 * dice.standard_normal(samples), 16_000)
    return root


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Call a script's main as its command line would; the text that it printed."""
    monkeypatch.chdir(tmp_path)

    def call(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call


def test_every_output_of_the_two_stages(iemocap, tmp_path, run):
    output = tmp_path / "run"
    bad = next(iemocap.glob("Session3/sentences/wav/*/*_F000.wav"))
    bad.write_bytes(bad.read_bytes()[:1000])  # truncated
    arguments = ("--data", iemocap, "--backbone", "tiny", "--epochs", 2, 1)
    printed = run(iemocap_two_stage.main, *arguments, "--output", output)
    assert "stand-in" not in printed
    assert f"skipped: {bad}: is truncated" in printed
    assert "mean ± standard deviation over folds, 10 of 10 trainings" in printed

    results = json.loads((output / "results.json").read_text())
    assert results["finished"] == results["planned"] == 10
    assert results["utterances"] == 99
    assert [s["file"] for s in results["skipped"]] == [str(bad)]
    assert results["classes"] == ["angry", "happy", "neutral", "sad"]
    assert [(f["fold"], f["system"]) for f in results["folds"]] == [(n, s) for n in range(1, 6) for s in SYSTEMS]
    with (output / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    folds = json.loads((output / "folds.json").read_text())
    for fold in results["folds"]:
        assert len(fold["epochs"]) == (2 if fold["system"] == SYSTEMS[0] else 1)
        assert fold["best_epoch"] <= len(fold["epochs"])
        terms = {name: fold["epochs"][-1][name] for name in ("loss", "cross_entropy", "eal", "fual")}
        if fold["system"] == SYSTEMS[0]:
            assert terms["eal"] == terms["fual"] == 0
        else:
            assert terms["eal"] > 0
            expected = terms["cross_entropy"] + 0.05 * terms["eal"] + 0.05 * terms["fual"]
            assert terms["loss"] == pytest.approx(expected, rel=1e-5)
        # The scores are those of the predictions, and the predictions those of the fold's test utterances
        rows = [r for r in predictions if int(r["fold"]) == fold["fold"] and r["system"] == fold["system"]]
        assert [r["utterance"] for r in rows] == folds[fold["fold"] - 1]["test"]["utterances"]
        assert {r["speaker"] for r in rows} == {f"Ses0{fold['fold']}F"}
        codes = {name: index for index, name in enumerate(results["classes"])}
        scores = score([codes[r["label"]] for r in rows], [codes[r["prediction"]] for r in rows], 4)
        assert scores.ua == pytest.approx(fold["ua"])
        assert scores.wa == pytest.approx(fold["wa"])
        assert scores.confusion == fold["confusion"]
        for row in rows:
            probabilities = {name: float(row[f"p_{name}"]) for name in results["classes"]}
            assert max(probabilities, key=probabilities.get) == row["prediction"]
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    for system, summary in results["summary"].items():
        uas = [f["ua"] for f in results["folds"] if f["system"] == system]
        assert summary["ua_mean"] == pytest.approx(np.mean(uas))
        assert np.sum(summary["pooled"]["confusion"]) == 49  # 50 test utterances less the truncated one

    versions = json.loads((output / "run.json").read_text())["versions"]
    assert {"framealign", "torch", "transformers"} <= set(versions)
    report = (output / "report.md").read_text()
    assert "1 file was skipped" in report
    assert "is truncated" in report
    for figure in ("confusion_matrix.png", "tsne.png", "timeline.png"):
        assert (output / figure).read_bytes().startswith(b"\x89PNG")
        assert f"]({figure})" in report


def test_the_same_seed_gives_the_same_results(iemocap, tmp_path, run):
    arguments = ("--data", iemocap, "--backbone", "tiny", "--epochs", 1, 1, "--folds", 2)
    for output in (tmp_path / "first", tmp_path / "second"):
        run(iemocap_two_stage.main, *arguments, "--output", output)
    assert (tmp_path / "first" / "results.json").read_text() == (tmp_path / "second" / "results.json").read_text()


def test_dry_run_trains_nothing(iemocap, tmp_path, run):
    output = tmp_path / "run"
    printed = run(iemocap_two_stage.main, "--data", iemocap, "--dry-run", "--output", output)
    assert "dry run: nothing was trained" in printed
    assert "Ses05F" in printed
    assert [path.name for path in output.iterdir()] == ["folds.json"]
    assert len(json.loads((output / "folds.json").read_text())) == 5


def test_other_corpora(tmp_path, data_root, run):
    """RAVDESS in its own layout: an actor of three of the six groups, with real speech."""
    source = data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac"
    root = tmp_path / "Audio_Speech_Actors_01-24"
    for actor in ("01", "04", "08"):
        (root / f"Actor_{actor}").mkdir(parents=True)
        for path in sorted((source / f"Actor_{actor}").glob("03-01-*-01-01-01-*.flac")):
            (root / f"Actor_{actor}" / path.name).symlink_to(path)
    arguments = ("--corpus", "ravdess", "--data", root, "--backbone", "tiny", "--epochs", 1, 1)
    run(cross_dataset.main, *arguments, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["folds"]) == 6
    assert len(results["classes"]) == 8


def test_a_backbone_that_cannot_be_loaded_ends_before_the_corpus_is_looked_at(run):
    with pytest.raises(RecipeError, match="backbone /no/such/model: there is no such folder"):
        run(iemocap_two_stage.main, "--data", "nowhere", "--backbone", "/no/such/model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "IEMOCAP_full_release", "--folds", "7"], "--folds 7: there are folds 1, 2, 3, 4, 5"),
        (["--data", "IEMOCAP_full_release", "--output", "done"], "done: holds the results of an earlier run"),
        (["--data", "IEMOCAP_full_release", "--epochs", "0", "1"], "--epochs 0 1: each stage needs at least 1"),
    ],
)
def test_bad_arguments(iemocap, tmp_path, run, arguments, message):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "results.json").write_text("{}")
    with pytest.raises(RecipeError, match=message) as error:
        run(iemocap_two_stage.main, "--backbone", "tiny", *arguments)
    assert "\n" not in str(error.value)
    assert (tmp_path / "done" / "results.json").read_text() == "{}"
    assert not (tmp_path / "runs").exists()  # no empty folder is left behind


def test_an_error_ends_a_script_in_one_line(tmp_path):
    script = [sys.executable, EXAMPLES / "cross_dataset.py", "--corpus", "emodb", "--data", "nowhere", "--dry-run"]
    found = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("error: ")
    assert len(found.stderr.splitlines()) == 1


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_what_it_had_finished(iemocap, tmp_path, ending):
    output = tmp_path / "run"
    script = [sys.executable, EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--output", output]
    process = subprocess.Popen(
        [*script, "--backbone", "tiny", "--epochs", "2", "2000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: as from a terminal instead
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (output / "run.json").exists() and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(ending)
    stdout, stderr = process.communicate(timeout=60)

    results = json.loads((output / "results.json").read_text())
    assert [(f["fold"], f["system"]) for f in results["folds"]] == [(1, SYSTEMS[0])]
    assert len((output / "predictions.csv").read_text().splitlines()) == 1 + 10
    assert "Traceback" not in stderr
    if ending != signal.SIGKILL:
        assert process.returncode == 130
        assert stderr.splitlines()[-1] == "interrupted"
        assert "1 of 10 trainings" in stdout
        assert "**Incomplete.** The run ended after 1 of 10 trainings" in (output / "report.md").read_text()
