"""Killed at any moment, the same command goes on, and ends as if nothing had been."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import iemocap_two_stage
import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a file's name by /proc")
EXAMPLES = Path(__file__).parents[2] / "examples"

# Runs the script until it writes a file of the given name for the given time, then dies as by kill -9: with that file
# half written under its temporary name, and not renamed
KILLED = """
import os, runpy, signal, sys

name, count = sys.argv[1], int(sys.argv[2])
fsync = os.fsync

def dying_fsync(file):
    global count
    file = file if isinstance(file, int) else file.fileno()
    count -= name in os.path.basename(os.readlink(f"/proc/self/fd/{file}"))
    if count == 0:
        os.truncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(file)

os.fsync = dying_fsync
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MOMENTS = [
    ("safetensors", 1),  # features
    ("setup.json", 1),
    ("checkpoint", 1),  # the first epoch of stage 1
    ("checkpoint", 2),  # and, from its second on, the first of stage 2
    ("outputs", 1),
    ("splices", 1),
    ("result.json", 1),
    ("results.json", 1),
]


def command(iemocap, output):
    options = ["--backbone", "tiny", "--stage1.epochs", "2", "--stage2.epochs", "2", "--systems", "cls-eal-fual"]
    return [
        *(str(EXAMPLES / "iemocap_two_stage.py"), "--data", str(iemocap), "--output", str(output), "--folds", "1"),
        *(*options, "--cache", str(output.parent / f"cache-{output.name}")),
    ]


def start(*arguments, cwd):
    environment = {"PYTHONPATH": str(EXAMPLES), "OMP_NUM_THREADS": "1", "PATH": ""}
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )


def test_a_run_killed_again_and_again_ends_the_same(iemocap, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(*command(iemocap, whole), cwd=tmp_path).returncode == 0
    for name, count in MOMENTS:
        found = start("-c", KILLED, name, str(count), *command(iemocap, killed), cwd=tmp_path)
        assert found.returncode == -9, found.stderr
        assert list(tmp_path.rglob("*.partial"))
    found = start(*command(iemocap, killed), cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    for file in ("results.json", "predictions.csv", "folds.json"):
        assert (killed / file).read_bytes() == (whole / file).read_bytes()
    assert json.loads((killed / "results.json").read_text())["finished"] == 2


def test_a_damaged_checkpoint_costs_its_training_only(iemocap, tmp_path, run):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert start("-c", KILLED, "checkpoint", "2", *command(iemocap, killed), cwd=tmp_path).returncode == -9
    (checkpoint,) = killed.glob("trainings/*/stage-1/checkpoint.safetensors")
    run(iemocap_two_stage.main, *command(iemocap, whole)[1:])
    content = checkpoint.read_bytes()
    for damaged in (content[:-1], b"\0" * 100, b"cos\nsystem\n(S'touch evil'\ntR."):
        output = tmp_path / "run"
        shutil.copytree(killed, output)
        (output / checkpoint.relative_to(killed)).write_bytes(damaged)
        printed = run(iemocap_two_stage.main, *command(iemocap, output)[1:])
        assert "not a whole checkpoint" in printed
        assert (output / "results.json").read_bytes() == (whole / "results.json").read_bytes()
        shutil.rmtree(output)
    assert not (tmp_path / "evil").exists()
