"""docs/recipe/files.md names every file and field that a run leaves, and none that there is not."""

import csv
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import iemocap_two_stage
import pytest
from safetensors.torch import load_file

PAGE = (Path(__file__).parents[2] / "docs" / "recipe" / "files.md").read_text(encoding="utf-8")


def table(after):
    """The first column of the first table below a line, and what else its rows say."""
    rows = re.search(rf"^{re.escape(after)}.*?\n\n((?:\|[^\n]*\n)+)", PAGE, re.M | re.S).group(1).splitlines()[2:]
    return [row.strip("|").split("|", 1) for row in rows]


def names(after):
    return {name for first, _ in table(after) for name in quoted(first)}


def quoted(text):
    return re.findall(r"`([^`]+)`", text)


def sentence(start):
    """What is in backquotes from these words to the end of their paragraph."""
    return set(quoted(re.search(rf"^{re.escape(start)}.*?\n\n", PAGE + "\n", re.M | re.S).group(0)))


@pytest.fixture
def output(iemocap, run, tmp_path):
    systems = ("--systems", "mfcc-statistics-svm", "statistics-pooling", "cls-pooling", "cls-eal-fual")
    epochs = ("--stage1.epochs", 1, "--stage2.epochs", 1)
    options = ("--backbone", "tiny", *epochs, *systems, "--save_models", "--output", tmp_path / "run")
    run(iemocap_two_stage.main, "--data", iemocap, *options)
    return tmp_path / "run"


def test_it_names_what_a_run_leaves(output):
    everywhere = names("In `--output`:")
    assert {path.name for path in output.iterdir()} - {"trainings"} <= everywhere
    patterns = [name.rstrip("/").replace("...", "*") for name in names("`trainings/seed-0-fold-1/cls-eal-fual/`")]
    left = {path.name for path in output.glob("trainings/*/*/*")}
    assert left == {name for name in left if any(fnmatch(name, pattern) for pattern in patterns)}
    unused = [pattern for pattern in patterns if not any(fnmatch(name, pattern) for name in left)]
    assert unused == ["checkpoint.safetensors"]  # while it trains

    tensors = load_file(output / "trainings/seed-0-fold-1/cls-eal-fual/outputs.safetensors")
    assert tensors.keys() == names("The tensors of `outputs.safetensors`")

    results = json.loads((output / "results.json").read_text())
    assert results.keys() == names("## results.json")
    assert_fields(results, "summary", "comparisons", "over_time")
    for training in results["trainings"]:
        assert training.keys() == names("An entry of `trainings`:")
    (proposed,) = [t for t in results["trainings"] if (t["system"], t["fold"]) == ("CLS + EAL + FUAL", 1)]
    told = sentence("A record of `epochs`") - {"epochs", "null"}
    assert {key for epoch in proposed["epochs"] for key in epoch} == told

    header = next(csv.reader((output / "predictions.csv").open()))
    assert {name for name in header if not name.startswith("p_")} == sentence("`utterance`, `speaker`") - {"p_angry"}
    folds = json.loads((output / "folds.json").read_text())
    assert {*folds[0], *folds[0]["train"]} == sentence("A list with one entry for each fold")
    assert json.loads((output / "run.json").read_text()).keys() == sentence("`command`, `seconds`")


def assert_fields(results, *fields):
    """Those of the entries of a field, which its row tells."""
    rows = {name: rest for first, rest in table("## results.json") for name in quoted(first)}
    for field in fields:
        found = results[field]
        entry = found[0] if isinstance(found, list) else found if field == "over_time" else next(iter(found.values()))
        assert set(quoted(rows[field])) == set(entry), field
