"""The benchmarks run: every variant agrees with the hand-written code, and the tables and the figure come out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", ["bench_losses.py", "bench_poolings.py"])
def test_every_variant_agrees_in_a_quick_run_and_the_table_comes_out(script: str, tmp_path: Path) -> None:
    """It ends with an error where a variant's value or gradient is not the hand-written one's."""
    run = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--quick", "--out", tmp_path / "quick.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    again = subprocess.run(
        [sys.executable, BENCHMARKS / "tables.py", tmp_path / "quick.json"], capture_output=True, text=True, check=True
    )
    assert "| quick (4, 40, 16) |" in again.stdout
    assert "hand-written / ours" in again.stdout


ROWS = ("cnn-trained", "cnn-frozen", "by-length", "bf16", "stage-2")


@pytest.fixture(scope="module")
def recipe_results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, str]:
    """Of bench_recipe.py on four utterances, and what tables.py prints of them."""
    path = tmp_path_factory.mktemp("recipe") / "quick.json"
    run = subprocess.run(
        [
            *(sys.executable, BENCHMARKS / "bench_recipe.py", "--backbone", "tiny", "--out", path, "--rounds", "1"),
            *("--utterances", "4", "--batch-size", "2", "--rows", *ROWS),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    again = subprocess.run([sys.executable, BENCHMARKS / "tables.py", path], capture_output=True, text=True, check=True)
    assert again.stdout == run.stdout
    return json.loads(path.read_text()), run.stdout


def test_the_recipe_and_the_usual_script_train_on_the_same_utterances(recipe_results: tuple[dict, str]) -> None:
    results, _ = recipe_results
    rows = {row["key"]: row for row in results["rows"]}
    assert tuple(rows) == ROWS
    for row in rows.values():
        assert sorted(index for batch in row["batches"] for index in batch) == [0, 1, 2, 3]
        assert all(len(batch) == 2 for batch in row["batches"])
        assert len(row["seconds"]) == len(row["peak_bytes"]) == 1
        assert row["real"] == results["sample"]["real"]["random" if row["key"].startswith("cnn") else "by length"]
    assert rows["cnn-trained"]["batches"] == rows["cnn-frozen"]["batches"]
    # utterances are numbered by their length
    assert {frozenset(batch) for batch in rows["bf16"]["batches"]} == {frozenset({0, 1}), frozenset({2, 3})}


def test_no_batch_of_the_recipe_exceeds_the_frame_budget(recipe_results: tuple[dict, str]) -> None:
    results, _ = recipe_results
    budget = results["settings"]["frame_budget"]
    assert results["whole"]["largest_batch"] <= budget
    alone, step = results["longest"]
    assert alone["batches"] == [[1, 1706]]
    assert step["batches"][-1][1] == alone["frames"] == 1706
    for found in (alone, step):
        assert found["exceeds_bytes"] == 0
        assert all(count * frames <= budget for count, frames in found["batches"])


def test_table_3_is_computed_from_the_epochs_of_the_recipe(recipe_results: tuple[dict, str]) -> None:
    results, text = recipe_results
    table3 = results["table3"]
    assert (table3["usual_epochs"], table3["our_epochs"]) == (6 * (3 + 3), 3 + 6 * 3)
    seconds = {row["key"]: row["seconds"][0] / 4 for row in results["rows"]}
    trained = 4 * 5531
    assert table3["hours"]["usual, CNN trained"] == pytest.approx(36 * trained * seconds["cnn-trained"] / 3600)
    assert table3["hours"]["ours"] - table3["features_hours"] == pytest.approx(
        (3 * seconds["bf16"] + 18 * seconds["stage-2"]) * trained / 3600
    )
    assert "**computed**" in text
    assert "| the usual script, CNN trained |" in text


def test_lengths_are_those_of_the_label_files_or_of_a_curve_like_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of the label files where they are, else a curve that has the corpus's mean and tail."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
    from utterances import corpus_seconds

    seconds, source = corpus_seconds(None)
    assert "stand-in" in source
    assert len(seconds) == 5531
    assert sum(seconds) / 5531 == pytest.approx(4.55, abs=0.02)
    for limit, share in {6: 0.234, 7.5: 0.144, 10: 0.067, 15: 0.014}.items():
        assert sum(length > limit for length in seconds) / 5531 == pytest.approx(share, abs=0.003)

    labels = tmp_path / "Session1" / "dialog" / "EmoEvaluation" / "Ses01F_impro01.txt"
    labels.parent.mkdir(parents=True)
    labels.write_text(
        "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"
        "[6.5000 - 8.2500]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]\n"
        "[9.0000 - 9.5000]\tSes01F_impro01_F001\texc\t[2.5000, 2.5000, 2.5000]\n"
        "[10.0000 - 19.0000]\tSes01F_impro01_F002\tfru\t[2.5000, 2.5000, 2.5000]\n"
    )
    seconds, source = corpus_seconds(tmp_path)
    assert seconds == [0.5, 1.75]
    assert "stand-in" not in source


def test_bf16_and_random_batches_are_trained_and_scored_apart(data_root: Path, tmp_path: Path) -> None:
    run = subprocess.run(
        [
            *(sys.executable, BENCHMARKS / "recipe_scores.py", "--data", data_root / "emodb", "--backbone", "tiny"),
            *("--epochs", "1", "--folds", "1", "--seeds", "0", "1", "--out", tmp_path / "scores.json"),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    variants = json.loads((tmp_path / "scores.json").read_text())["variants"]
    assert list(variants) == ["float32, by length", "bf16, by length", "float32, random batches"]
    losses = set()
    for trainings in variants.values():
        assert [(training["seed"], training["fold"]) for training in trainings] == [(0, 1), (1, 1)]
        assert all(0 <= training["ua"] <= 1 for training in trainings)
        losses |= {training["loss"] for training in trainings}
    assert len(losses) == 6  # no variant trains as another does
    assert "| bf16, by length |" in run.stdout
