"""The part of benchmarks/gpu.py that trains: it runs on a CPU, and where no package reads audio."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

# A machine with nothing that reads or speaks audio, and no command lines
WITHOUT = """
import json, sys

for name in ("soundfile", "resemblyzer", "webrtcvad", "espeakng_loader", "jsonargparse"):
    sys.modules[name] = None  # an import of it fails
sys.path[:0] = sys.argv[1:]

import torch

torch.set_num_threads(1)
from on_gpu import recipe
from on_gpu.options import Options

saved = []
recipe.measure(Options(torch.device("cpu"), tiny=True, seconds=75), lambda results: saved.append(json.dumps(results)))
print(json.dumps([len(saved), json.loads(saved[-1])]))
"""


@pytest.fixture(scope="module")
def part():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path, str(BENCHMARKS)])
        from on_gpu import recipe

        yield recipe


@pytest.fixture(scope="module")
def rehearsal():
    """How often it saved, and what at last."""
    paths = [str(BENCHMARKS), str(BENCHMARKS.parent / "src")]
    run = subprocess.run([sys.executable, "-c", WITHOUT, *paths], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


def test_a_rehearsal_measures_every_row(part, rehearsal):
    saves, results = rehearsal
    assert [row["key"] for row in results["rows"]] == [row.key for row in part.all_rows()]
    assert saves >= len(results["rows"])  # whatever ends it, what was measured is there
    for row in results["rows"]:
        assert row["error"] is None
        assert row["seconds"][0] > 0
        assert 0 < row["frames"][0] <= row["padded"][0]
        assert not row["peak_bytes"]
        assert row["busy"] is None


def test_the_tables_have_every_row(part, rehearsal):
    _, results = rehearsal
    text = part.table(results)
    for row in results["rows"]:
        assert f"| {row['name']} | " in text
    assert "not measured on a CPU" in text
    assert "times the usual script, float32" in text


def test_no_time_left_is_said(part, monkeypatch):
    AcceleratorState._reset_state(reset_partial_state=True)
    monkeypatch.setattr(part, "UNTIL", dict.fromkeys(part.UNTIL, -1.0))
    saved = []
    part.measure(part.Options(torch.device("cpu"), tiny=True, seconds=1), lambda results: saved.append(results))
    AcceleratorState._reset_state(reset_partial_state=True)
    rows = {row["key"]: row for row in saved[-1]["rows"]}
    assert len(rows["stage-1-16000"]["seconds"]) == 1  # each group's first, whatever the time
    assert not rows["stage-1-3200"]["seconds"]
    assert "no time left" in part.table(saved[-1])
    assert "times the usual script, bf16" in part.table(saved[-1])


def test_what_a_gpu_would_have_found_is_shown(part, rehearsal):
    _, results = rehearsal
    results = json.loads(json.dumps(results)) | {"gpu": True}
    row = next(row for row in results["rows"] if row["key"] == "stage-1-16000")
    row["busy"] = {"kernels": 0.9, "window": 1.2, "seconds": 1.0}
    row["peak_bytes"] = [7_000_000_000]
    results["rows"][-1] |= {"seconds": [], "error": "out of memory"}
    results["longest"] = [{"group": "stage 1", "frame_budget": 3200, "peak_bytes": 5_000_000_000, "padded": 0}]
    results["waits"] = {"stage 1": ["training/epoch.py:1, 1 times"], "stage 2": []}
    text = part.table(results)
    assert "| 90% (75%) | 7.0 |" in text
    assert "out of memory" in text
    assert "stage 1, budget 3200: 5.0 GB" in text
    assert "of stage 1 the host waits for the GPU: training/epoch.py:1, 1 times." in text
    assert "of stage 2 the host waits for the GPU: nowhere." in text


def test_the_time_that_kernels_cover(part):
    events = [
        {"ph": "X", "cat": "kernel", "ts": 0, "dur": 10},
        {"ph": "X", "cat": "kernel", "ts": 5, "dur": 10},  # beside the first, on another stream
        {"ph": "X", "cat": "kernel", "ts": 6, "dur": 2},
        {"ph": "X", "cat": "gpu_memcpy", "ts": 20, "dur": 5},
        {"ph": "X", "cat": "cuda_runtime", "ts": 0, "dur": 100},
        {"ph": "M", "name": "process_name"},
    ]
    assert part.covered(part.spans(events, "kernel")) == pytest.approx(15e-6)
    assert part.covered(part.spans(events, "kernel", "gpu_memcpy")) == pytest.approx(20e-6)
    assert part.covered([]) == 0
