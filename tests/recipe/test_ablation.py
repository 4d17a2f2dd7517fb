"""Tables 4 and 5, on the stage 1 that the main experiment trained."""

import json
import re
from types import SimpleNamespace

import ablation
import iemocap_two_stage
import numpy as np
import pytest

from recipe.ablation import Grid, grid_scores
from recipe.errors import RecipeError
from recipe.features.backbones.tiny import TinyBackbone
from recipe.training.systems import eal_system, fual_system

FAST = ("--backbone", "tiny", "--stage1.epochs", 1, "--stage2.epochs", 1, "--folds", 1)


def test_both_tables_reuse_what_the_main_experiment_trained(iemocap, tmp_path, run):
    run(iemocap_two_stage.main, "--data", iemocap, *FAST, "--systems", "cls-pooling", "cls-eal")
    output = tmp_path / "runs" / "iemocap-tiny"
    before = {path: path.stat().st_mtime_ns for path in output.glob("trainings/*/*/result.json")}
    assert len(before) == 3
    printed = run(ablation.main, "--data", iemocap, *FAST, "--margins", 0.4, 0.8, "--eal_weights", 0.05, 5)
    assert "3 of 6 trainings are finished" in printed
    assert len(re.findall(r"^  CLS pooling +UA \d+\.\d%$", printed, re.M)) == 1  # each table is printed once
    assert len(re.findall(r"^Table [45]\b", printed, re.M)) == 2
    for path, time in before.items():
        assert path.stat().st_mtime_ns == time
    assert (output / "results.json").exists()  # still the main experiment's

    found = json.loads((output / "ablation.json").read_text())
    systems = [t["system"] for t in found["trainings"]]
    assert systems[:6] == [
        "stage 1",
        "CLS pooling",
        "CLS + EAL, margin 0.4, weight 0.05",
        "CLS + EAL, margin 0.4, weight 5",
        "CLS + EAL",
        "CLS + EAL, margin 0.8, weight 5",
    ]
    assert len(systems) == 6 + 3  # FUAL's weights but 0, which is EAL alone
    terms = {t["system"]: t["epochs"][0] for t in found["trainings"]}
    strong = terms["CLS + EAL, margin 0.8, weight 5"]
    assert strong["loss"] > strong["cross_entropy"] + 4 * strong["eal"]
    assert terms["CLS + EAL, margin 0.4, weight 0.05"]["eal"] < terms["CLS + EAL"]["eal"]
    report = (output / "ablation.md").read_text()
    assert "| 0.4 | 0.05 |" in report
    assert "Table 5" in report
    assert "EAL's margin and weight and FUAL's weight as the tables have them." in report  # and not those of Table 3
    assert "margin 0.8;" not in report
    for figure in ("ablation_eal.png", "ablation_fual.png"):
        assert (output / figure).read_bytes().startswith(b"\x89PNG")
        assert f"]({figure})" in report
    # each script has its own files, and either can be run again from them
    assert "9 of 9" in run(ablation.main, "--config", output / "ablation-config.yaml")
    assert "3 of 3" in run(iemocap_two_stage.main, "--config", output / "config.yaml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--margins", "2"], "--margins 2: a margin between cosines lies between -1 and 1"),
        (["--fual_weights=-1"], "--fual_weights -1: must be at least 0"),
        (["--corpus", "ravdess"], "--corpus ravdess: needs --data"),
    ],
)
def test_bad_arguments_are_refused_in_a_line_that_names_them(run, arguments, message):
    with pytest.raises(RecipeError, match=message):
        run(ablation.main, *arguments)


def test_systems_of_the_settings_are_the_papers():
    settings = TinyBackbone.settings
    assert eal_system(0.8, 0.05, settings).slug == "cls-eal"
    assert fual_system(0.8, 0.05, 0.05, settings).slug == "cls-eal-fual"
    assert fual_system(0.8, 0.05, 0.0, settings) == eal_system(0.8, 0.05, settings)
    others = [
        eal_system(0.4, 0.05, settings),
        eal_system(-0.4, 0.05, settings),
        eal_system(0.8, 0.1, settings),
        fual_system(0.8, 0.05, 0.1, settings),
    ]
    assert len({system.slug for system in others}) == 4


class Told:
    """Results with given scores on validation and test."""

    def __init__(self, validation, test):
        self.validation, self.test = validation, test

    def of(self, system):
        if system.name not in self.test:
            return []
        epochs = [{"validation_ua": 0.1}, {"validation_ua": self.validation[system.name]}]
        return [SimpleNamespace(epochs=epochs, scores=SimpleNamespace(ua=self.test[system.name]))]


def test_the_best_setting_is_chosen_on_validation_and_not_on_test():
    settings = TinyBackbone.settings
    pairs = [(0.4, 0.05), (0.4, 0.1), (0.8, 0.05)]
    grid = Grid([0.4, 0.8], [0.05, 0.1], {pair: eal_system(*pair, settings) for pair in pairs})
    names = [grid.systems[pair].name for pair in pairs]
    results = Told(dict(zip(names, (0.5, 0.7, 0.6), strict=True)), dict(zip(names, (0.9, 0.1, 0.8), strict=True)))
    assert grid.best(results) == [(0.4, 0.1)]
    grid.systems[0.8, 0.1] = eal_system(0.8, 0.1, settings)  # not finished
    means, deviations = grid_scores(results, grid)
    np.testing.assert_equal(means, [[0.9, 0.1], [0.8, np.nan]])
    assert np.isnan(deviations).all()  # of single trainings


def test_settings_that_are_equal_on_validation_are_told(iemocap, tmp_path, run):
    """EAL of weight 0 is no loss at any margin."""
    run(ablation.main, "--data", iemocap, *FAST, "--margins", 0.4, 0.6, "--eal_weights", 0, "--fual_weights", 0)
    report = (tmp_path / "runs" / "iemocap-tiny" / "ablation.md").read_text()
    assert (
        "At EAL's margin 0.4 and weight 0: the best of Table 4 by UA on *validation*, as are margin 0.6 and weight 0, "
        "of which it is the first. Test had no say in it."
    ) in report
