"""How strong the losses should be: chosen on validation speakers by right frames, and never by test."""

import json
from types import SimpleNamespace

import loss_weights
import pytest

from recipe.errors import RecipeError
from recipe.loss_weights import chosen
from recipe.settings import Settings
from recipe.training.over_time import OverTime
from recipe.training.systems import CLS, System, paper_systems, variants, weighted_systems

FAST = ("--backbone", "tiny", "--stage1.epochs", 1, "--stage2.epochs", 1, "--folds", 1)


def test_weights_and_variants_are_trained_beside_the_main_experiment(iemocap, tmp_path, run):
    printed = run(loss_weights.main, "--data", iemocap, *FAST, "--weights", 0.05, 2, "--variants")
    output = tmp_path / "runs" / "iemocap-tiny"
    found = json.loads((output / "loss_weights.json").read_text())
    names = [training["system"] for training in found["trainings"]]
    assert names[:11] == [
        "stage 1",
        "CLS pooling",
        "attentive pooling",
        "CLS + EAL",
        "CLS + EAL, margin 0.8, weight 2",
        "CLS + FUAL",
        "CLS + FUAL, weight 2",
        "CLS + EAL + FUAL",
        "CLS + EAL + FUAL, margin 0.8, weights 2 and 2",
        "attentive pooling + EAL + FUAL, weights 0.05",
        "attentive pooling + EAL + FUAL, weights 2",
    ]
    assert len(names) == 11 + 7
    assert set(found["over_time"]["validation"]) == set(found["over_time"]["test"]) == set(names)
    report = (output / "loss_weights.md").read_text()
    assert "Chosen on validation: **CLS + " in report
    assert "minus CLS pooling: UA" in printed
    assert "; cosine attention | " in report
    assert "18 of 18" in run(loss_weights.main, "--config", output / "loss_weights-config.yaml")


def test_the_papers_weight_is_the_papers_systems():
    settings = Settings()
    paper = {system.name: system for system in paper_systems(settings)}
    *of_cls, attentive = weighted_systems([settings.eal_weight], settings)
    for system in of_cls:
        assert system == paper[system.name]
    assert attentive.baseline in paper
    systems = weighted_systems([0.05, 0.5, 2, 5], settings)
    assert len({system.slug for system in systems}) == 16
    proposed = systems[8]
    for system in variants(proposed, settings):
        changed = {name for name, value in vars(system).items() if value != vars(proposed)[name]}
        assert len(changed) == 2  # its name, and one choice


def results(table):
    """`table`: for each system UA on validation, and the share of wrong frames on validation and on test."""

    def counts(wrong):
        confusion = [[100 - wrong, wrong], [wrong, 100 - wrong]]
        return {"anna": OverTime(confusion, confusion, seconds=1.0, change_errors=[0.0])}

    def of(system):
        ua, validation, test = table[system.name]
        over_time = {"validation": counts(validation), "test": counts(test)}
        return [SimpleNamespace(epochs=[{"validation_ua": 0.1}, {"validation_ua": ua}], over_time=over_time)]

    return SimpleNamespace(of=of, corpus=SimpleNamespace(classes=("angry", "neutral")))


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((0.90, 20, 50), (0.90, 30, 10), "one"),  # test would say other
        ((0.90, 30, 10), (0.95, 20, 50), "other"),
        ((0.70, 10, 10), (0.90, 30, 30), "other"),  # right frames at the cost of utterances
        ((0.895, 10, 10), (0.90, 30, 30), "one"),  # half a point is no cost
        ((0.70, 10, 10), (0.60, 20, 20), "one"),  # where all cost, the least wrong
    ],
)
def test_the_choice_is_of_right_frames_on_validation_that_cost_no_utterances(one, other, expected):
    found = results({CLS: (0.90, 40, 40), "one": one, "other": other})
    assert chosen(found, [System("one"), System("other")]).name == expected


def test_bad_weights_are_refused(run):
    with pytest.raises(RecipeError, match="--weights -1: must be at least 0"):
        run(loss_weights.main, "--weights=-1")
