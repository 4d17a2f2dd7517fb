"""The library's layers: imports point down, from the losses to what is done to a mask."""

from pathlib import Path

import framealign
from imports import arrows_back, assert_no_circle, imports_of

IMPORTS = imports_of(Path(framealign.__file__).parent)
FLOORS = (
    ("_checks", "_state", "_precision", "_plain_linear", "segments"),
    ("lengths",),
    ("masking",),
    ("layout",),
    ("kernels",),
    ("functional",),
    ("pooling",),
    ("losses", "diagnostics", "wav2vec2"),
)


def test_imports_point_down() -> None:
    assert arrows_back(IMPORTS, FLOORS) == set()


def test_no_two_files_of_the_library_need_each_other() -> None:
    assert_no_circle(IMPORTS)
