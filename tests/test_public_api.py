"""What `import framealign` gives, what it costs, and that names, signatures and docstrings are as published."""

import difflib
import doctest
import subprocess
import sys
from collections.abc import Callable

import pytest

import framealign
from public_api import FILE, MODULES, lines

# Modules have no example, and a NamedTuple is shown by what returns it
WITHOUT_EXAMPLE = {"Diagnostics", "FrameStats", "Objective", "Pooled", "diagnostics", "functional"}
PUBLIC = [getattr(module, name) for module in MODULES for name in module.__all__ if name not in WITHOUT_EXAMPLE]


def test_the_public_api_is_the_published_one() -> None:
    published = FILE.read_text(encoding="utf-8").splitlines()
    difference = list(difflib.unified_diff(published, lines(), "published", "now", lineterm="", n=0))
    if difference:
        pytest.fail("\n".join([*difference, "where it is meant: python tests/public_api.py"]), pytrace=False)


@pytest.mark.parametrize("thing", PUBLIC, ids=lambda thing: thing.__name__)
def test_docstrings_have_an_example(thing: Callable[..., object]) -> None:
    assert "Example:" in thing.__doc__
    assert doctest.DocTestParser().get_examples(thing.__doc__)


def test_the_version_has_three_parts() -> None:
    assert framealign.__version__.count(".") == 2


def test_importing_brings_in_torch_and_einops_alone() -> None:
    """In a fresh interpreter; how long it took is printed, for `pytest -s`, and never asserted."""
    script = """
import sys, time
import torch
before, start = set(sys.modules), time.perf_counter()
import framealign
took = time.perf_counter() - start
print(sorted({name.partition(".")[0] for name in set(sys.modules) - before}), file=sys.stderr)
print(f"import framealign: {took:.3f} s over import torch")
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    print(result.stdout)
    new = set(eval(result.stderr.strip().splitlines()[-1])) - set(sys.stdlib_module_names)
    assert new <= {"framealign", "einops", "torch"}  # and so not triton
