"""Numbers that are none any more: the training stops there, says of which utterances, and writes no score."""

import json
import math

import cross_dataset
import pytest
import soundfile
import torch
from accelerate import Accelerator

from recipe.errors import RecipeError
from recipe.training.divergence import DivergedError, Watch, check_outputs
from sounds import SAMPLE_RATE, tone

NAMES = ("loss", "cross_entropy")


def watch():
    return Watch(NAMES, Accelerator(cpu=True))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", range(3))
def test_a_step_that_is_not_finite_is_told_with_its_utterances(value, place):
    values = [0.5, 0.25, 2.0]
    values[place] = value
    what = ["loss", "cross-entropy", "norm of the gradient"][place]
    with pytest.raises(DivergedError, match=rf"in step 7, {what} is {value}; its utterances: a, b$"):
        watch().see(7, ["a", "b"], torch.tensor(values[:2]), torch.tensor(values[2]))


def test_finite_steps_pass_however_large():
    watch().see(1, ["a"], torch.tensor([1e38, -1e38]), torch.tensor(1e38))


def test_a_gradient_that_overflows_in_float16_training_is_the_scalers_business():
    found = watch()
    found.accelerator.scaler = torch.amp.GradScaler("cpu")
    found.see(1, ["a"], torch.ones(2), torch.tensor(math.inf))
    with pytest.raises(DivergedError, match="loss is nan"):
        found.see(2, ["a"], torch.tensor([math.nan, 0.0]), torch.tensor(1.0))
    found.accelerator.scaler = None


def test_many_utterances_are_counted():
    with pytest.raises(DivergedError, match=r"u31 and 8 more$"):
        watch().see(1, [f"u{i}" for i in range(40)], torch.full((2,), math.nan), torch.tensor(1.0))


def test_outputs_that_are_not_finite_are_told_by_utterance():
    probabilities = torch.full((3, 2), 0.5)
    check_outputs(probabilities, ["a", "b", "c"])
    probabilities[1, 0] = math.nan
    with pytest.raises(DivergedError, match=r"not finite for 1 of 3 utterances: b$"):
        check_outputs(probabilities, ["a", "b", "c"])


@pytest.fixture
def options(tmp_path):
    rows = ["path,label,speaker"]
    for number in range(12):
        soundfile.write(tmp_path / f"{number}.wav", tone(200 + 50 * number, 0.4), SAMPLE_RATE)
        rows.append(f"{number}.wav,{'ab'[number % 2]},{number // 4}")
    (tmp_path / "my.csv").write_text("\n".join(rows) + "\n")
    return [
        *("--corpus", "manifest", "--data", tmp_path / "my.csv", "--backbone", "tiny", "--output", tmp_path / "run"),
        *("--folds", "1", "--systems", "cls-pooling", "cls-eal-fual", "--stage1.epochs", "2", "--stage2.epochs", "2"),
    ]


def test_a_diverging_stage_2_keeps_what_was_finished_and_leaves_no_score(options, tmp_path, run):
    rates = [f"--stage2.{part}_rate=1e30" for part in ("backbone", "attention", "head")]
    with pytest.raises(RecipeError, match=r"seed 0, fold 1, CLS pooling: diverged: .* Lower .*--stage2\.") as caught:
        run(cross_dataset.main, *options, *rates, "--clip_norm", "1e30")
    assert "\n" not in str(caught.value)
    results = json.loads((tmp_path / "run" / "results.json").read_text(), parse_constant=pytest.fail)  # no NaN in it
    assert [t["system"] for t in results["trainings"]] == ["stage 1"]
    assert "**Incomplete.**" in (tmp_path / "run" / "report.md").read_text()


def test_a_diverging_stage_1_leaves_no_results_at_all(options, tmp_path, run):
    with pytest.raises(RecipeError, match=r"stage 1: diverged"):
        run(cross_dataset.main, *options, "--stage1.backbone_rate=1e30", "--stage1.head_rate=1e30", "--clip_norm=1e30")
    assert not list((tmp_path / "run").rglob("result*.json"))
    assert not list((tmp_path / "run").rglob("*.safetensors"))


def test_the_utterance_whose_features_are_nan_is_named(options, tmp_path, run, monkeypatch):
    from recipe.features.batches import UtteranceFeatures

    padded = UtteranceFeatures.padded

    def with_nan(self, indices):
        found = padded(self, indices)
        found.features[[self.ids[index] == "8" for index in indices]] = math.nan
        return found

    monkeypatch.setattr(UtteranceFeatures, "padded", with_nan)
    with pytest.raises(RecipeError, match=r"in step 1, loss is nan.* its utterances: .*\b8\b"):
        run(cross_dataset.main, *options)
