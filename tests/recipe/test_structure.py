"""The recipe's rooms: data, features, training, reporting; and that imports run in that direction only."""

from pathlib import Path

import pytest

from imports import arrows_back, assert_no_circle, imports_of

IMPORTS = imports_of(Path(__file__).parents[2] / "examples" / "recipe")
FLOORS = (
    ("errors",),
    ("files", "progress_bar"),
    ("settings",),
    ("data",),
    ("features",),
    ("training",),
    ("reporting",),
    ("models",),
    ("inference",),
    ("command_line",),
    ("hardware", "output_folder"),
    ("experiment",),
    ("ablation", "loss_weights", "one_model"),
)


def test_imports_run_from_data_over_features_and_training_to_reporting():
    assert arrows_back(IMPORTS, FLOORS) == set()


def test_no_two_files_need_each_other():
    assert_no_circle(IMPORTS)


@pytest.mark.parametrize("folder", ["data.corpora", "features.backbones"])
def test_corpora_and_backbones_are_found_and_never_imported_by_name(folder):
    own = {name for name in IMPORTS if name.startswith(f"{folder}.")}
    assert own
    assert {name for name, others in IMPORTS.items() if own & others} <= own
