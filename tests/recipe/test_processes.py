"""Several processes train as one does: gloo, on the CPU."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"


def launch(processes, *arguments, cwd, status=0):
    """Start a script as a launcher does; several processes find each other by a port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}
    if processes == 1:
        environments = [common]
    else:
        world = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environments = [{**common, **world, "RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    running = [
        subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=environment,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in environments
    ]
    results = [process.communicate(timeout=300) for process in running]
    statuses = status if isinstance(status, list) else [status] * processes
    for process, expected, (_, stderr) in zip(running, statuses, results, strict=True):
        assert process.returncode == expected, stderr
    return [
        stdout if process.returncode == 0 else stderr
        for process, (stdout, stderr) in zip(running, results, strict=True)
    ]


@pytest.mark.parametrize(
    ("system", "indices"),
    [
        ("cls-eal-fual", range(12)),
        ("cls-eal-fual", range(7)),  # four and three
        ("attentive-pooling", [5]),  # one and none
    ],
    ids=["even", "uneven", "one utterance"],
)
def test_a_step_of_two_processes_is_that_of_one(tmp_path, system, indices):
    script = HERE / "step_gradients.py"
    launch(1, script, tmp_path / "one", system, 10_000, *indices, cwd=tmp_path)
    # a budget of two or three utterances: several passes in each process too
    launch(2, script, tmp_path / "two", system, 80, *indices, cwd=tmp_path)
    one, two = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert one.keys() == two.keys()
    assert one["loss"] > 0.1
    learned = [name for name in one if name.startswith(("backbone", "pooling", "classifier"))]
    assert sum(one[name].abs().max() > 1e-4 for name in learned) > len(learned) / 2  # not all zero
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5)


def test_an_experiment_of_two_processes_is_whole(iemocap, tmp_path):
    arguments = [
        *(EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--backbone", "tiny", "--folds", 1),
        *("--stage1.epochs", 2, "--stage2.epochs", 1, "--systems", "cls-eal-fual", "--output"),
    ]
    launch(1, *arguments, "one", cwd=tmp_path)
    outputs = launch(2, *arguments, "two", cwd=tmp_path)
    assert "2 processes" in outputs[0]
    assert outputs[1] == "" or "framealign: the two stages" in outputs[1]  # the others are silent from then on
    assert "report" not in outputs[1]
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["finished"] == two["finished"] == 2
    for ours, theirs in zip(two["trainings"], one["trainings"], strict=True):
        for a, b in zip(ours["epochs"], theirs["epochs"], strict=True):
            assert a["loss"] == pytest.approx(b["loss"], abs=0.05)  # dropout draws differ between processes


# One of two processes is asked to stop, in the middle of an epoch, as where a scheduler tells them one after the other
STOPPED = """
import os, runpy, signal, sys
from torch.optim import AdamW
step, count = AdamW.step, 0
def counted(self, *arguments, **named):
    global count
    count += 1
    if count == 2 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), {signal})
    return step(self, *arguments, **named)
AdamW.step = counted
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_processes_stop_at_the_same_step_and_go_on_there(iemocap, tmp_path):
    arguments = [
        *(EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--backbone", "tiny", "--folds", 1),
        *("--stage1.epochs", 2, "--stage2.epochs", 1, "--systems", "cls-eal-fual", "--output"),
    ]
    launch(2, *arguments, "whole", cwd=tmp_path)
    launch(2, "-c", STOPPED.format(signal="signal.SIGTERM"), *arguments, "stopped", cwd=tmp_path, status=143)
    assert list((tmp_path / "stopped").glob("trainings/*/stage-1/checkpoint.safetensors"))
    launch(2, *arguments, "stopped", cwd=tmp_path)
    whole, stopped = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "stopped"))
    assert stopped["trainings"] == whole["trainings"]


def test_a_process_that_is_killed_ends_the_others_in_one_line_and_the_same_command_goes_on(iemocap, tmp_path):
    arguments = [
        *(EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--backbone", "tiny", "--folds", 1),
        *("--stage1.epochs", 1, "--stage2.epochs", 1, "--systems", "cls-eal-fual", "--output", "run"),
    ]
    printed, _ = launch(2, "-c", STOPPED.format(signal="signal.SIGKILL"), *arguments, cwd=tmp_path, status=[2, -9])
    assert "Traceback" not in printed
    assert "error: seed 0, fold 1, stage 1: another process was lost (" in printed
    launch(2, *arguments, cwd=tmp_path)
    assert json.loads((tmp_path / "run" / "results.json").read_text())["finished"] == 2
