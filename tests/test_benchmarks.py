"""The benchmarks run: every variant agrees with the hand-written code, and the tables and the figure come out."""

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.mark.parametrize("script", ["bench_losses.py", "bench_poolings.py"])
def test_a_quick_run(script: str, tmp_path: Path) -> None:
    """It ends with an error where a variant's value or gradient is not the hand-written one's."""
    run = subprocess.run(
        [sys.executable, BENCHMARKS / script, "--quick", "--out", tmp_path / "quick.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    again = subprocess.run(
        [sys.executable, BENCHMARKS / "report.py", tmp_path / "quick.json"], capture_output=True, text=True, check=True
    )
    assert "| quick (4, 40, 16) |" in again.stdout
    assert "hand-written / ours" in again.stdout
