"""`benchmarks/gpu.py` without a GPU: it runs whole, and what fails in it is said and stops nothing else."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
PARTS = ("machine", "tune", "fast", "recipe", "right", "silent")


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPT.parent)])
    return importlib.import_module("gpu")


def test_a_rehearsal_of_everything_is_whole_and_nothing_breaks(tmp_path: Path) -> None:
    # as many minutes as it likes: on a busy machine its two or three are too few, and more rounds it does not take
    found = run("--device", "cpu", "--minutes", 60, "--out", tmp_path)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "its times mean nothing" in found.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(f"{part}.json" for part in PARTS)
    results = {part: json.loads((tmp_path / f"{part}.json").read_text()) for part in PARTS}
    for part, result in results.items():
        assert result["status"] == "whole", part
        assert f"## {part}: " in found.stdout
    assert results["right"]["checks"] > 100
    assert results["right"]["failures"] == []
    assert "0 broken" in found.stdout
    assert {row["op"] for row in results["fast"]["rows"]} == {"EAL", "mean pooling"}
    assert results["fast"]["missing"] == {}
    assert results["silent"]["broken"] == 0
    assert results["tune"]["rows"][0]["times"]
    assert "| EAL | (4, 40, 16) | float32 | forward + backward |" in found.stdout


def test_a_part_that_runs_out_of_time_is_stopped(gpu: Any, tmp_path: Path) -> None:
    """One second is not enough to import torch."""
    arguments = gpu.argparse.Namespace(out=tmp_path, device="cpu")
    reason = gpu.run(gpu.PARTS["right"], 1.0, arguments)
    assert reason == "stopped at its 1 s; what it had found by then is written."
    assert json.loads((tmp_path / "right.json").read_text())["status"] + "." == reason


@pytest.mark.skipif(torch.cuda.is_available(), reason="says why there is no card, and here is one")
def test_without_a_card_each_part_says_why_it_cannot_run(tmp_path: Path) -> None:
    found = run("--out", tmp_path, "--parts", "machine", "right")
    assert found.returncode == 1
    for part in ("machine", "right"):
        assert f"{part}: cannot run: torch finds no CUDA device; `--device cpu` is a rehearsal" in found.stdout


def test_a_missing_package_is_named(gpu: Any) -> None:
    part = gpu.Part("recipe", 1.0, "", ("torch", "no_such_package"))
    assert gpu.why_not(part, "cpu") == "cannot run, since no_such_package cannot be imported."


def test_a_part_that_fails_says_so_in_one_line(gpu: Any, tmp_path: Path) -> None:
    arguments = gpu.argparse.Namespace(out=tmp_path, device="cpu")
    reason = gpu.run(gpu.Part("no_such_part", 1.0, ""), 60.0, arguments)
    assert reason.startswith("failed: ")
    assert len(reason.splitlines()) == 1
    assert json.loads((tmp_path / "no_such_part.json").read_text())["status"].startswith("failed: ")


class TestRight:
    """The checks fail where they should."""

    @pytest.fixture
    def right(self, monkeypatch: pytest.MonkeyPatch) -> Any:
        monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPT.parent)])
        return importlib.import_module("on_gpu.right")

    @pytest.mark.parametrize("layout", ["no mask", "prefix", "holes", "time first", "misaligned", "packed"])
    def test_the_library_passes(self, right: Any, layout: str) -> None:
        found = right.work(["operator", [3, 7, 9], "float32", layout], self.options)
        assert found["checks"] > 20
        assert found["broken"] == found["not_equal_twice"] == []

    @pytest.mark.parametrize("what", ["wrong", "another each time", "reads padding"])
    def test_a_broken_operator_does_not(self, right: Any, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
        correct = right.frame_stats

        def broken(frames: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            stats = correct(frames, *args, **kwargs)
            if "backend" not in kwargs:  # plain PyTorch, which sets the limit
                return stats
            change = {
                "wrong": 1 + 1e-5,
                "another each time": 1 + 1e-6 * torch.rand(()),
                "reads padding": torch.where(frames.isfinite().all(), 1.0, 1 + 1e-6),
            }[what]
            return stats._replace(dots=stats.dots * change)

        monkeypatch.setattr(right, "frame_stats", broken)
        found = right.work(["operator", [3, 7, 9], "float32", "holes"], self.options)
        assert found["not_equal_twice" if what == "another each time" else "broken"]

    @property
    def options(self) -> Any:
        return importlib.import_module("on_gpu.options").Options(torch.device("cpu"), tiny=False, seconds=0.0)


def test_work_is_shared_out_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a card: every task is answered, and one that fails says where and takes no other with it."""
    paths = [SCRIPT.parent, SCRIPT.parents[1] / "src", SCRIPT.parents[1] / "tests"]
    monkeypatch.setattr(sys, "path", [*sys.path, str(SCRIPT.parent)])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, paths)))
    workers, options = importlib.import_module("on_gpu.workers"), importlib.import_module("on_gpu.options")
    monkeypatch.setattr(workers, "worker_count", lambda most: 2)
    tasks = [["operator", [1, 2, 3], "float32", layout] for layout in ("packed", "no mask", "holes")]
    tasks.insert(1, ["operator", [1, 2, 3], "float33", "holes"])
    found: dict[str, Any] = {}
    told = options.Options(torch.device("cpu"), tiny=False, seconds=0.0)
    workers.share_out("right", tasks, told, lambda task, answer: found.update({str(task): answer}))
    assert found.keys() == {str(task) for task in tasks}
    failed = found.pop(str(tasks[1]))
    assert "AttributeError" in failed["error"]
    assert "float33" in failed["error"]
    assert all(answer["checks"] > 0 and answer["broken"] == [] for answer in found.values())
