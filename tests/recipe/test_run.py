"""The whole recipe, through the scripts' own command lines, with the `tiny` backbone on a handful of clips."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cross_dataset
import iemocap_two_stage
import numpy as np
import pytest
import soundfile
import yaml
from safetensors.torch import load_file

from recipe.data import demo
from recipe.errors import RecipeError
from recipe.hardware import check_processes
from recipe.reporting.figures import style
from recipe.training.scores import score
from sounds import SAMPLE_RATE, tone

EXAMPLES, SOURCE = (Path(__file__).parents[2] / name for name in ("examples", "src"))
SYSTEMS = ["stage 1", "CLS pooling", "CLS + EAL + FUAL"]
FAST = ("--backbone", "tiny", "--stage1.epochs", 1, "--stage2.epochs", 1, "--systems", "cls-pooling", "cls-eal-fual")


def test_every_output_of_the_two_stages(iemocap, tmp_path, run):
    output = tmp_path / "run"
    bad = next(iemocap.glob("Session3/sentences/wav/*/*_F000.wav"))
    bad.write_bytes(bad.read_bytes()[:1000])  # truncated
    arguments = ("--data", iemocap, *FAST, "--stage1.epochs", 2, "--output", output, "--seeds", 0, 1)
    printed = run(iemocap_two_stage.main, *arguments)
    assert "stand-in" not in printed
    assert re.search(r"^  CLS \+ EAL \+ FUAL +UA +\d+\.\d%   WA +\d+\.\d%   epoch 1 of 1$", printed, re.M)
    assert re.search(r"points on CLS pooling, [a-z ]+ \(p, Holm \d\.\d\d\)$", printed, re.M)
    assert re.search(r"^figures, beside it: scores.png, .*, timeline_splice.png$", printed, re.M)
    assert "next: Other margins and weights of the losses" in printed
    assert f"skipped: {bad}: is truncated" in printed
    assert "seed 1, fold 5, 10 test utterances:" in printed
    assert "mean ± standard deviation over folds and seeds, 30 of 30 trainings" in printed

    results = json.loads((output / "results.json").read_text())
    assert results["finished"] == results["planned"] == 30
    assert results["utterances"] == 99
    assert [s["file"] for s in results["skipped"]] == [str(bad)]
    assert results["classes"] == ["angry", "happy", "neutral", "sad"]
    expected = [(seed, fold, system) for seed in (0, 1) for fold in range(1, 6) for system in SYSTEMS]
    assert [(t["seed"], t["fold"], t["system"]) for t in results["trainings"]] == expected
    with (output / "predictions.csv").open() as file:
        predictions = list(csv.DictReader(file))
    folds = json.loads((output / "folds.json").read_text())
    for training in results["trainings"]:
        stage1, proposed = (training["system"] == name for name in (SYSTEMS[0], SYSTEMS[2]))
        assert len(training["epochs"]) == (2 if stage1 else 1)
        assert training["best_epoch"] <= len(training["epochs"])
        terms = {name: training["epochs"][-1][name] for name in ("loss", "cross_entropy", "eal", "fual")}
        if proposed:
            assert terms["eal"] > 0
            total = terms["cross_entropy"] + 0.05 * terms["eal"] + 0.05 * terms["fual"]
            assert terms["loss"] == pytest.approx(total, rel=1e-5)
        else:
            assert terms["eal"] == terms["fual"] == 0
        # The scores are those of the predictions, and the predictions those of the fold's test utterances
        own = [
            r
            for r in predictions
            if (int(r["seed"]), int(r["fold"]), r["system"]) == (training["seed"], training["fold"], training["system"])
        ]
        assert [r["utterance"] for r in own] == folds[training["fold"] - 1]["test"]["utterances"]
        assert {r["speaker"] for r in own} == {f"Ses0{training['fold']}F"}
        codes = {name: index for index, name in enumerate(results["classes"])}
        scores = score([codes[r["label"]] for r in own], [codes[r["prediction"]] for r in own], 4)
        assert scores.ua == pytest.approx(training["ua"])
        assert scores.wa == pytest.approx(training["wa"])
        assert scores.confusion == training["confusion"]
        for row in own:
            probabilities = {name: float(row[f"p_{name}"]) for name in results["classes"]}
            assert max(probabilities, key=probabilities.get) == row["prediction"]
            assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    for system, summary in results["summary"].items():
        uas = [t["ua"] for t in results["trainings"] if t["system"] == system]
        assert summary["ua_mean"] == pytest.approx(np.mean(uas))
        assert np.sum(summary["pooled"]["confusion"]) == 2 * 49  # 50 test utterances less the truncated one
        assert summary["ua_interval"][0] <= summary["pooled"]["ua"] <= summary["ua_interval"][1]
    (comparison,) = results["comparisons"]
    by_name = {name: [t["ua"] for t in results["trainings"] if t["system"] == name] for name in SYSTEMS}
    assert comparison["difference"] == pytest.approx(np.mean(by_name[SYSTEMS[2]]) - np.mean(by_name[SYSTEMS[1]]))
    assert comparison["trainings"] == 10

    for side in ("validation", "test"):
        assert list(results["over_time"][side]) == SYSTEMS
        for measures in results["over_time"][side].values():
            parts = [measures[name] for name in ("missed", "false_alarm", "confused")]
            assert measures["eder"] == pytest.approx(sum(parts))
            assert 0 <= measures["frames_right"] <= 1

    versions = json.loads((output / "run.json").read_text())["versions"]
    assert {"framealign", "torch", "transformers"} <= set(versions)
    report = (output / "report.md").read_text()
    assert "1 file was skipped" in report
    assert "## Emotion over time" in report
    assert "5 in all, drawn with replacement; the models are taken as they are (10 trainings of each" in report
    assert "is truncated" in report
    assert "10.3390/fi17110509" in report  # the published numbers, with their sources
    assert report.rstrip().endswith("- What every table and figure means: `docs/recipe/report.md`")
    for figure in ("scores", "confusion_matrix", "training_curves", "tsne", "timeline", "timeline_splice"):
        assert (output / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
        assert f"]({figure}.png)" in report
    assert list(output.glob("trainings/*/stage-1/events.*"))  # TensorBoard's
    leftovers = [path for path in output.rglob("*") if "partial" in path.name or path.name.startswith("checkpoint")]
    assert leftovers == []


def test_the_demo_goes_by_its_own_name_and_ends_with_what_comes_next(iemocap, tmp_path, run, monkeypatch):
    monkeypatch.setattr(demo, "make_demo_corpus", lambda root: iemocap)
    titles = []
    monkeypatch.setattr(style, "wrapped", lambda text, *_: titles.append(text) or text)
    printed = run(iemocap_two_stage.main, *FAST, "--folds", 1)
    report = (tmp_path / "runs" / "iemocap-demo-tiny" / "report.md").read_text()
    results, steps = report.split("## What next")
    assert results.startswith("# Two-stage training on synthetic speech (not IEMOCAP)\n\n**A stand-in.**")
    assert "10.3390" not in report  # nothing of the paper's stands beside it
    assert "IEMOCAP" not in results.replace("(not IEMOCAP)", "")
    assert "mean and standard deviation" not in "".join(titles)  # of one training
    of_figures = [title for title in titles if "\n" in title or title.startswith("Ses01F")]
    assert len([title for title in of_figures if "synthetic speech (not IEMOCAP)" in title]) == 6
    for step in (
        "python examples/iemocap_two_stage.py\n",
        "python examples/cross_dataset.py --corpus manifest --data my.csv",
        "python examples/iemocap_two_stage.py --data PATH/TO/IEMOCAP_full_release",
    ):
        assert step in steps.replace("`", "")
        assert step in printed[printed.index("\nreport: ") :]
    assert "a complete IEMOCAP" not in printed  # how much of it there is


def test_a_finished_run_is_only_reported_again(iemocap, tmp_path, run):
    arguments = ("--data", iemocap, *FAST, "--folds", 2)
    run(iemocap_two_stage.main, *arguments)
    output = tmp_path / "runs" / "iemocap-tiny"  # the default, by corpus and backbone
    before = {path: path.stat().st_mtime_ns for path in output.glob("trainings/**/*") if path.is_file()}
    results = (output / "results.json").read_bytes()
    printed = run(iemocap_two_stage.main, *arguments)
    assert "3 of 3 trainings are finished" in printed
    assert {path: path.stat().st_mtime_ns for path in output.glob("trainings/**/*") if path.is_file()} == before
    assert (output / "results.json").read_bytes() == results


def test_more_seeds_and_systems_go_on_from_what_there_is(iemocap, tmp_path, run):
    """Whichever way a run came to have its trainings, they are the same."""
    arguments = ("--data", iemocap, *FAST[:-3], "--folds", 2, "--output")
    run(iemocap_two_stage.main, *arguments, "grown", "--systems", "cls-pooling")
    weights = tmp_path / "grown" / "trainings" / "seed-0-fold-2" / "stage-1" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    run(iemocap_two_stage.main, *arguments, "grown", "--systems", "cls-pooling", "cls-fual", "--seeds", 0, 54321)
    assert weights.stat().st_mtime_ns == before
    run(iemocap_two_stage.main, *arguments, "whole", "--systems", "cls-fual", "cls-pooling", "--seeds", 0, 54321)
    grown, whole = ((tmp_path / name / "results.json").read_bytes() for name in ("grown", "whole"))
    assert grown == whole
    assert json.loads(whole)["finished"] == 6


def test_a_run_can_be_repeated_from_its_own_folder(iemocap, tmp_path, run):
    output = tmp_path / "first"
    arguments = ("--data", iemocap.relative_to(tmp_path), *FAST, "--folds", 2, "--margin", 0.6, "--output", "first")
    run(iemocap_two_stage.main, *arguments)
    config = yaml.safe_load((output / "config.yaml").read_text())
    assert config["margin"] == 0.6
    assert config["stage1"]["epochs"] == 1
    run(iemocap_two_stage.main, "--config", output / "config.yaml", "--output", "second")
    assert (output / "results.json").read_bytes() == (tmp_path / "second" / "results.json").read_bytes()


def test_every_system_trains_and_leaves_its_record(iemocap, tmp_path, run):
    output = tmp_path / "run"
    arguments = ("--data", iemocap, "--backbone", "tiny", "--stage1.epochs", 1, "--stage2.epochs", 1, "--folds", 1)
    run(iemocap_two_stage.main, *arguments, "--systems", "all", "--output", output)
    results = json.loads((output / "results.json").read_text())
    assert results["finished"] == 13
    statistics = next(t for t in results["trainings"] if t["system"] == "statistics pooling")
    assert "frame_agreement" not in statistics["diagnostics"]  # its classifier is too wide for frames
    classical = next(t for t in results["trainings"] if t["system"] == "MFCC statistics, SVM")
    assert classical["epochs"] == []
    assert classical["ua"] == 1.0  # tones are no difficulty for it
    separated = next(t for t in results["trainings"] if t["system"].endswith("+ separation"))
    proposed = next(t for t in results["trainings"] if t["system"] == "CLS + EAL + FUAL")
    assert separated["epochs"][0]["eal"] > proposed["epochs"][0]["eal"]


def test_training_utterances_alone_are_heard_at_other_speeds(iemocap, tmp_path, run):
    found = {}
    for share in (0, 0.1):
        output = tmp_path / f"run-{share}"
        arguments = ("--data", iemocap, *FAST, "--folds", 1, "--output", output, "--cache", tmp_path / f"cache-{share}")
        run(iemocap_two_stage.main, *arguments, "--speed_perturbation", share)
        folder = output / "trainings" / "seed-0-fold-1" / "stage-1"
        loss = json.loads((folder / "result.json").read_text())["epochs"][0]["loss"]
        cached = [load_file(path) for path in (tmp_path / f"cache-{share}").glob("*/*.safetensors")]
        lengths = load_file(folder / "outputs.safetensors")["lengths"]
        found[share] = loss, sum(map(len, cached)), lengths.tolist()
    (loss, cached, lengths), (other_loss, more, same) = found.values()
    assert other_loss != loss
    assert more == cached + 2 * 100  # utterances; splices have their own speed
    assert same == lengths  # of the test utterances


def test_dry_run_trains_nothing(iemocap, tmp_path, run):
    output = tmp_path / "run"
    printed = run(iemocap_two_stage.main, "--data", iemocap, "--dry_run", "--output", output)
    assert "dry run: nothing was trained" in printed
    assert "Ses05F" in printed
    assert [path.name for path in output.iterdir()] == ["folds.json"]
    assert len(json.loads((output / "folds.json").read_text())) == 5


def ravdess_excerpt(data_root, root):
    """RAVDESS in its own layout: an actor of three of the six groups, with real speech."""
    source = data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac"
    for actor in ("01", "04", "08"):
        (root / f"Actor_{actor}").mkdir(parents=True)
        for path in sorted((source / f"Actor_{actor}").glob("03-01-*-01-01-01-*.flac")):
            (root / f"Actor_{actor}" / path.name).symlink_to(path)
    return root


def test_other_corpora_train_in_their_own_layouts(tmp_path, data_root, run):
    root = ravdess_excerpt(data_root, tmp_path / "Audio_Speech_Actors_01-24")
    run(cross_dataset.main, "--corpus", "ravdess", "--data", root, *FAST, "--output", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert len(results["trainings"]) == 9
    assert len(results["classes"]) == 8


def test_training_on_one_corpus_and_testing_on_another(iemocap, tmp_path, data_root, run):
    root = ravdess_excerpt(data_root, tmp_path / "Audio_Speech_Actors_01-24")
    target = ("--corpus", "ravdess", "--data", root, "--classes", "four")
    source = ("--train_corpus", "iemocap", "--train_data", iemocap)
    run(cross_dataset.main, *target, *source, *FAST)
    output = tmp_path / "runs" / "iemocap-ravdess-four-tiny"
    (fold,) = json.loads((output / "folds.json").read_text())
    assert len(fold["test"]["utterances"]) == 12  # every one of the four classes
    assert all(name.startswith("RAVDESS/") for name in fold["test"]["utterances"])
    assert fold["validation"]["speakers"] == ["IEMOCAP/Ses05F", "IEMOCAP/Ses05M"]
    assert json.loads((output / "results.json").read_text())["corpus"] == "IEMOCAP to RAVDESS"


def test_a_corpus_by_manifest_trains_as_any_other(iemocap, tmp_path, run):
    names = {"ang": "cross", "sad": "low"}
    rows = ["path,label,speaker"]
    for path in sorted(iemocap.glob("*/sentences/wav/*/*.wav")):
        if int(path.stem[-3:]) in (0, 1, 8, 9):
            category = "ang" if int(path.stem[-3:]) < 2 else "sad"
            rows.append(f"{path.relative_to(tmp_path)},{names[category]},{path.stem[:5]}{path.stem[-4]}")
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    run(cross_dataset.main, "--corpus", "manifest", "--data", "mine.csv", *FAST, "--folds", 1, 2)
    results = json.loads((tmp_path / "runs" / "mine-tiny" / "results.json").read_text())
    assert results["classes"] == ["cross", "low"]
    assert results["finished"] == 6


def test_a_manifest_with_other_folds_is_another_experiment(iemocap, tmp_path, run):
    paths = sorted(iemocap.glob("*/sentences/wav/*/*.wav"))
    rows = [
        (p, "ang" if int(p.stem[-3:]) < 2 else "sad", p.stem[:5]) for p in paths if int(p.stem[-3:]) in (0, 1, 8, 9)
    ]

    def write(folds):
        lines = [f"{p},{label},{speaker},{folds[int(speaker[4]) - 1]}" for p, label, speaker in rows]
        (tmp_path / "mine.csv").write_text("\n".join(["path,label,speaker,fold", *lines]))

    arguments = ("--corpus", "manifest", "--data", "mine.csv", *FAST, "--folds", 1)
    write("12345")
    run(cross_dataset.main, *arguments)
    write("12354")
    with pytest.raises(RecipeError, match="holds a run with other folds"):
        run(cross_dataset.main, *arguments)


def test_processes_that_do_not_know_of_each_other_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RecipeError, match="2 processes were started, and 1 found each other"):
        check_processes(SimpleNamespace(num_processes=1))


def test_a_backbone_that_cannot_be_loaded_ends_before_the_corpus_is_looked_at(run):
    with pytest.raises(RecipeError, match="backbone /no/such/model: there is no such folder"):
        run(iemocap_two_stage.main, "--data", "nowhere", "--backbone", "/no/such/model")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere"], "nowhere"),
        (["--data", "IEMOCAP_full_release", "--folds", "7"], "--folds 7: there are folds 1, 2, 3, 4, 5"),
        (["--data", "IEMOCAP_full_release", "--output", "done"], "done: holds the results of another program"),
        (["--stage1.epochs", "0"], r"--stage1.epochs 0: must be at least 1"),
        (["--stage1.epochs", "many"], 'Parser key "stage1.epochs"'),
        (["--batch_size", "0"], "--batch_size 0: must be at least 1"),
        (["--margin", "1.5"], "--margin 1.5: a margin between cosines lies between -1 and 1"),
        (["--speed_perturbation", "10"], "--speed_perturbation 10.*: is a share of the speed, at most 0.5"),
        (["--warmup", "3"], "--warmup 3.*: is a share of the steps, at most 1"),
        (["--data", "IEMOCAP_full_release", "--num_heads", "5"], "--num_heads 5: must divide 96"),
        (["--seeds=-1"], "--seeds -1: must be at least 0"),
        (["--seeds", "1", "1"], "--seeds: 1 is given twice"),
        (["--systems", "best"], "--systems best: there are paper, all, attentive-pooling"),
        (["--data", "IEMOCAP_full_release", "--frame_budget", "10"], "frame_budget 10: .* alone has"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--colour", "red"], "(?i)unrecognized arguments: --colour red$"),
        (["--epochs", "3"], r"--epochs 3; did you mean --stage1.epochs or --stage2.epochs\?"),
        (["--batch-sise=8"], r"--batch_sise=8; did you mean --batch_size\?"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_read(iemocap, tmp_path, run, arguments, message):
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "results.json").write_text("{}")
    with pytest.raises(RecipeError, match=message) as error:
        run(iemocap_two_stage.main, "--backbone", "tiny", *arguments)
    assert "\n" not in str(error.value)
    assert (tmp_path / "done" / "results.json").read_text() == "{}"
    assert not list(tmp_path.glob("runs/iemocap*"))  # no empty folder is left behind


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--seeds", "1", "--folds", "1", "2"], None),  # more of the same experiment
        (["--margin", "0.4"], "settings.margin 0.8 and not 0.4"),
        (["--stage2.epochs", "2"], "settings.stage2.epochs 1 and not 2"),
        ([], "other audio, labels or speakers"),
    ],
)
def test_a_folder_holds_one_setup(iemocap, run, change, message):
    arguments = ("--data", iemocap, *FAST, "--folds", 2)
    run(iemocap_two_stage.main, *arguments)
    if message is None:
        run(iemocap_two_stage.main, *arguments, *change)
        return
    if not change:  # a file that was damaged since
        next(iemocap.glob("Session1/sentences/wav/*/*_F000.wav")).unlink()
    with pytest.raises(RecipeError, match=message):
        run(iemocap_two_stage.main, *arguments, *change)


@pytest.mark.parametrize("script", ["iemocap_two_stage", "ablation", "cross_dataset", "loss_weights"])
def test_help_says_what_every_option_is_and_its_default(script):
    printed = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{script}.py"), "--help"], capture_output=True, text=True, check=True
    ).stdout
    assert "<class" not in printed
    assert "Hyperparameters; these defaults are those of wav2vec 2.0" in printed
    options = " ".join(printed[printed.index("options:") :].split())
    described = re.findall(r"--([a-z_0-9.]+) (?:[A-Z_{][^ ]* )?(.*?)(?= --[a-z]|$)", options)
    assert len(described) > 30
    for name, text in described:
        if name not in ("stage1", "stage2"):  # a file of their options, by jsonargparse
            assert len(text) > 10, name
    assert re.search(r"--stage2.epochs STAGE2.EPOCHS passes over the training utterances .default: 10\)", options)


def test_options_may_be_spelt_with_dashes(iemocap, tmp_path, run):
    printed = run(
        *(iemocap_two_stage.main, "--data", iemocap, "--dry-run", "--output", tmp_path / "a-b_c"),
        *("--batch-size=4", "--stage1.head-rate", "1e-2"),
    )
    assert "dry run: nothing was trained" in printed
    assert (tmp_path / "a-b_c").is_dir()  # values are left as they are


@pytest.mark.parametrize(("given", "policy"), [(None, "PASSIVE"), ("active", "ACTIVE")])
def test_threads_wait_without_work_unless_told_otherwise(tmp_path, given, policy):
    """Two runs beside each other would otherwise take the cores from each other."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environment |= {"OMP_DISPLAY_ENV": "true"} | ({"OMP_WAIT_POLICY": given} if given else {})
    script = [sys.executable, EXAMPLES / "cross_dataset.py", "--corpus", "emodb", "--data", "nowhere", "--dry_run"]
    found = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert f"OMP_WAIT_POLICY = '{policy}'" in found.stderr


def test_an_error_ends_a_script_in_one_line(tmp_path):
    script = [sys.executable, EXAMPLES / "cross_dataset.py", "--corpus", "emodb", "--data", "nowhere", "--dry_run"]
    found = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path)
    assert found.returncode == 2
    assert found.stderr.startswith("error: ")
    assert len(found.stderr.splitlines()) == 1


def started(*arguments, cwd, **environment):
    """As from a terminal; its exit status, and what it printed as bytes."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("LANG", "LC_ALL", "DISPLAY")}
    return subprocess.run(
        [sys.executable, EXAMPLES / "cross_dataset.py", *map(str, arguments)],
        capture_output=True,
        cwd=cwd,
        env={**inherited, "PYTHONPATH": str(SOURCE), **environment},
    )


@pytest.fixture
def manifest(tmp_path):
    """Twelve tones of three speakers in a folder called home; one of the classes has a name that not all can write."""
    home = tmp_path / "home"
    home.mkdir()
    rows = ["path,label,speaker"]
    for number in range(12):
        soundfile.write(home / f"{number}.wav", tone(200 + 50 * number, 0.4), SAMPLE_RATE)
        rows.append(f"{number}.wav,{('froh', 'müde')[number % 2]},{number // 4}")
    (home / "my.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return home / "my.csv"


@pytest.mark.parametrize("how", ["options", "config", "backbone"])
def test_a_tilde_is_the_home_folder_wherever_a_path_is_given(manifest, tmp_path, how):
    """bash leaves it alone behind a =, and nobody else looks at it in a file of options."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "c.yaml").write_text("data: ~/my.csv\noutput: ~/out\ncache: ~/cache\n")
    paths = ["--data=~/my.csv", "--output=~/out", "--cache=~/cache"] if how != "config" else ["--config", "c.yaml"]
    backbone = "~/no-model" if how == "backbone" else "tiny"
    found = started(
        "--corpus=manifest", *paths, *FAST, "--folds=1", f"--backbone={backbone}", cwd=work, HOME=str(manifest.parent)
    )
    assert [path.name for path in work.iterdir()] == ["c.yaml"]
    if how == "backbone":
        assert f"{manifest.parent}/no-model" in found.stderr.decode()
    else:
        assert found.returncode == 0, found.stderr
        assert (manifest.parent / "out" / "report.md").exists()
        assert (manifest.parent / "cache").is_dir()


@pytest.mark.parametrize(
    "content",
    [
        "stage1:\n  class_path: subprocess.Popen\n  init_args:\n    args: [touch, ran]\n",
        "!!python/object/apply:os.mkdir [ran]\n",
        "data: !!python/object/apply:os.mkdir [ran]\n",
    ],
)
def test_a_file_of_options_names_no_class_to_be_made(tmp_path, content):
    (tmp_path / "c.yaml").write_text(content)
    found = started("--corpus=emodb", "--config", "c.yaml", cwd=tmp_path)
    assert found.returncode == 2
    assert not (tmp_path / "ran").exists()


def test_a_home_folder_of_nobody_is_refused(tmp_path):
    found = started("--corpus=emodb", "--data=~nobody-of-this-name/x", cwd=tmp_path)
    assert found.returncode == 2
    assert b"no home folder is known by that name" in found.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_terminal_that_lacks_letters_gets_others(manifest, tmp_path, encoding):
    """Bars, plus-minus signs, names of classes and files."""
    output = tmp_path / "ergebnisse für müde"
    arguments = ["--corpus=manifest", "--data", manifest, "--backbone=tiny", "--output", output, *FAST, "--folds=1"]
    found = started(*arguments, cwd=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert found.returncode == 0, found.stderr
    printed = found.stdout.decode(encoding)
    assert ("müde" in printed) == (encoding != "ascii")
    assert r"m\xfcde" in printed or encoding != "ascii"
    assert "müde" in (output / "report.md").read_text(encoding="utf-8")


def test_a_folder_for_results_whose_name_is_no_text_is_refused(manifest, tmp_path):
    arguments = ["--corpus=manifest", "--data", manifest, "--output", tmp_path / os.fsdecode(b"\xe4\xff")]
    found = started(*arguments, cwd=tmp_path)
    assert found.returncode == 2
    assert b"\\udce4\\udcff: is no text in utf-8; name another folder." in found.stderr


@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg"])
def test_figures_need_no_backend_that_a_notebook_or_a_shell_left(manifest, tmp_path, backend):
    arguments = [
        "--corpus=manifest",
        "--data",
        manifest,
        "--backbone=tiny",
        "--output",
        tmp_path / "run",
        *FAST,
        "--folds=1",
    ]
    found = started(*arguments, cwd=tmp_path, MPLBACKEND=backend)
    assert found.returncode == 0, found.stderr
    assert list((tmp_path / "run").glob("*.png"))


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_reports_what_it_had_finished(iemocap, tmp_path, ending):
    output = tmp_path / "run"
    script = [sys.executable, EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--output", output]
    process = subprocess.Popen(
        [*script, *map(str, FAST), "--stage2.epochs", "2000"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and children inherit that: as from a terminal instead
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("trainings/*/cls-pooling/checkpoint*")) and time.monotonic() < deadline:
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.1)
    process.send_signal(ending)
    stdout, stderr = process.communicate(timeout=60)

    results = json.loads((output / "results.json").read_text())
    assert [(t["fold"], t["system"]) for t in results["trainings"]] == [(1, "stage 1")]
    assert len((output / "predictions.csv").read_text().splitlines()) == 1 + 10
    assert "Traceback" not in stderr
    assert process.returncode == 128 + ending
    assert stderr.splitlines()[-1].startswith("interrupted")
    assert "1 of 15 trainings" in stdout
    assert "**Incomplete.** The run ended after 1 of 15 trainings" in (output / "report.md").read_text()
