"""What docs/promises.md names is there."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", (ROOT / "docs" / "promises.md").read_text("utf-8"))))


@cache
def functions_of(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)}


def test_the_page_names_tests() -> None:
    assert len(NAMED) > 40


@pytest.mark.parametrize(("path", "name"), NAMED, ids=lambda part: part or "all")
def test_every_test_of_the_page_is_one(path: str, name: str) -> None:
    assert (ROOT / path).is_file()
    assert not name or name in functions_of(ROOT / path)


def test_the_tolerances_of_the_page_are_those_of_the_suite() -> None:
    from cases import TOLERANCES

    told = re.findall(
        r"^\| (float\d+|bfloat16) \| (\S+) \| (\S+) \|$", (ROOT / "docs" / "promises.md").read_text(), re.M
    )
    assert {name: (float(rtol), float(atol)) for name, rtol, atol in told} == {
        str(dtype).removeprefix("torch."): (values["rtol"], values["atol"]) for dtype, values in TOLERANCES.items()
    }
