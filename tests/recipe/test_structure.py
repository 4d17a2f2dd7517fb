"""The recipe's rooms: data, features, training, reporting; and that imports run in that direction only."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "examples" / "recipe"
# Each may import from those before it, and from itself; those of one line do not know each other
FLOORS = (
    ("errors", "files"),
    ("settings",),
    ("data",),
    ("features",),
    ("training",),
    ("reporting",),
    ("command_line",),
    ("experiment",),
    ("ablation",),
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def module_of(path):
    parts = path.relative_to(RECIPE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module):
    return module.split(".")[1]


MODULES = {module_of(path): path for path in RECIPE.rglob("*.py") if path.parent != RECIPE or path.stem != "__init__"}


def imported(module):
    """The modules of the recipe that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES}


def test_every_file_is_in_a_room():
    assert {room_of(module) for module in MODULES} == set(FLOOR)


def test_imports_run_from_data_over_features_and_training_to_reporting():
    back = {
        f"{module} imports {other}"
        for module in MODULES
        for other in imported(module)
        if FLOOR[room_of(other)] > FLOOR[room_of(module)]
        or (FLOOR[room_of(other)] == FLOOR[room_of(module)] and room_of(other) != room_of(module))
    }
    assert back == set()


def test_no_two_files_need_each_other():
    tuple(TopologicalSorter({module: imported(module) for module in MODULES}).static_order())


@pytest.mark.parametrize("folder", ["data.corpora", "features.backbones"])
def test_corpora_and_backbones_are_found_and_never_imported_by_name(folder):
    own = {module for module in MODULES if module.startswith(f"recipe.{folder}.")}
    assert own
    assert {other for other in MODULES if own & imported(other)} <= own
