"""Faults, each provoked for real: what was finished is kept, the message says what to do, the next start goes on.

And what it ends with is, to the byte, what an undisturbed run ends with.
"""

import errno
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import iemocap_two_stage
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open

from recipe.errors import RecipeError
from recipe.features.batches import UtteranceFeatures
from recipe.training.random_state import random_state, set_random_state
from recipe.training.tensor_files import DamagedError, read_tensors, write_tensors
from trees import write_iemocap_of_tones

EXAMPLES, SOURCE = (Path(__file__).parents[2] / name for name in ("examples", "src"))
OUTCOME = ("results.json", "predictions.csv", "folds.json")


def options(iemocap, output):
    return [
        *("--data", iemocap, "--output", output, "--folds", "1", "--cache", iemocap.parent / "cache"),
        *("--backbone", "tiny", "--stage1.epochs", "2", "--stage2.epochs", "2", "--systems", "cls-eal-fual"),
    ]


def start(*arguments, before=""):
    """The script in a process of its own, in which the Python code `before` runs first."""
    code = f"import runpy, sys\n{before}\nsys.argv = sys.argv[1:]\nrunpy.run_path(sys.argv[0], run_name='__main__')"
    script = [str(EXAMPLES / "iemocap_two_stage.py"), *map(str, arguments)]
    return subprocess.Popen(
        [sys.executable, "-c", code, *script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{SOURCE}:{EXAMPLES}", "OMP_NUM_THREADS": "1"},
        # a shell starts background jobs with SIGINT ignored, and children inherit that: as from a terminal instead
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def ended(process, timeout=240):
    """Its exit status and what it printed, without a traceback among it."""
    out, err = process.communicate(timeout=timeout)
    assert "Traceback" not in err, err
    return process.returncode, out, err


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A folder with a corpus, the cache of its features, and a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_iemocap_of_tones(folder / "IEMOCAP_full_release")
    assert ended(start(*options(folder / "IEMOCAP_full_release", folder / "whole")))[0] == 0
    return folder


@pytest.fixture
def iemocap(undisturbed, tmp_path):
    """A copy of that corpus, with the cache beside it."""
    shutil.copytree(undisturbed / "cache", tmp_path / "cache")
    return shutil.copytree(undisturbed / "IEMOCAP_full_release", tmp_path / "IEMOCAP_full_release")


@pytest.fixture
def whole(undisturbed, tmp_path):
    """A copy of that run."""
    return shutil.copytree(undisturbed / "whole", tmp_path / "whole")


def assert_ends_as(whole, output, iemocap, run):
    printed = run(iemocap_two_stage.main, *options(iemocap, output))
    for name in OUTCOME:
        assert (output / name).read_bytes() == (whole / name).read_bytes(), name
    return printed


# ---- Ctrl-C and SIGTERM

# sends itself a signal after a number of optimiser steps, as a user or a scheduler would, in the middle of an epoch
AFTER_STEPS = """
import os
from torch.optim import AdamW
step, count = AdamW.step, 0
def counted(self, *arguments, **named):
    global count
    found = step(self, *arguments, **named)
    count += 1
    if count == {steps}:
        for _ in range({times}):
            os.kill(os.getpid(), {signal})
    return found
AdamW.step = counted
"""


@pytest.mark.parametrize(
    ("number", "steps", "where"), [(signal.SIGINT, 2, "step 3 of epoch 1"), (signal.SIGTERM, 10, "epoch 2")]
)
def test_a_run_that_is_asked_to_stop_ends_its_step_and_goes_on_there(
    iemocap, tmp_path, run, whole, number, steps, where
):
    """80 training utterances are 5 steps an epoch: in the middle of the first, and in the last step of the second."""
    before = AFTER_STEPS.format(steps=steps, signal=int(number), times=1)
    output = tmp_path / "run"
    status, _, err = ended(start(*options(iemocap, output), before=before))
    assert status == 128 + number
    assert "finishing this step; the same again stops at once" in err
    assert (
        err.splitlines()[-1] == f"interrupted: seed 0, fold 1, stage 1, after {where}; the same command goes on there"
    )
    assert list(output.glob("trainings/*/stage-1/checkpoint.safetensors"))
    assert_ends_as(whole, output, iemocap, run)


def test_a_second_signal_stops_at_once(iemocap, tmp_path, run, whole):
    output = tmp_path / "run"
    before = AFTER_STEPS.format(steps=6, signal=int(signal.SIGINT), times=2)
    status, _, err = ended(start(*options(iemocap, output), before=before))
    assert status == 130
    assert err.splitlines()[-1] == "interrupted"
    assert_ends_as(whole, output, iemocap, run)


def test_a_job_in_the_background_goes_on_to_ignore_ctrl_c(iemocap, tmp_path, whole):
    before = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    before += AFTER_STEPS.format(steps=2, signal=int(signal.SIGINT), times=3)
    status, _, _ = ended(start(*options(iemocap, tmp_path / "run"), before=before))
    assert status == 0
    assert (tmp_path / "run" / "results.json").read_bytes() == (whole / "results.json").read_bytes()


def test_random_states_come_back():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    np.random.standard_normal()  # noqa: NPY002  one of a pair, of which the second is kept
    state = random_state(torch.device("cpu"))
    drawn = [(torch.rand(3).tolist(), np.random.standard_normal(3).tolist()) for _ in range(2)]  # noqa: NPY002
    set_random_state(state, torch.device("cpu"))
    again = [(torch.rand(3).tolist(), np.random.standard_normal(3).tolist()) for _ in range(2)]  # noqa: NPY002
    assert drawn == again
    assert drawn[0] != drawn[1]


# ---- disks

# The kernel then refuses to let any file grow beyond that, whoever writes it, as a full disk would
SMALL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))"


@pytest.mark.parametrize(
    ("limit", "file"),
    [
        (3_000, "safetensors"),  # features
        (200_000, "checkpoint.safetensors"),
    ],
)
def test_a_full_disk_is_told_in_one_line_with_the_file(iemocap, tmp_path, run, whole, limit, file):
    shutil.rmtree(iemocap.parent / "cache")
    output = tmp_path / "run"
    status, out, err = ended(start(*options(iemocap, output), before=SMALL.format(limit=limit)))
    if status == 0:  # nothing was as large
        pytest.fail(f"no file grew beyond {limit} bytes: {out}")
    assert status == 2
    *_, last = err.splitlines()
    assert f"{file}: cannot be written (" in last
    assert "the same command goes on" in last
    assert not list(tmp_path.rglob("*.partial"))
    assert_ends_as(whole, output, iemocap, run)


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="finds a file's name by /proc")
@pytest.mark.parametrize("name", ["outputs.safetensors", "result.json", "results.json", "report.md", ".png"])
def test_a_disk_that_is_full_when_a_file_is_finished_loses_nothing(iemocap, tmp_path, run, whole, monkeypatch, name):
    fsync = os.fsync

    def full(file):
        if name in Path(os.readlink(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")).name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(file)

    output = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(RecipeError, match=rf"{name}: cannot be written \(No space left on device\)\. Make room"):
            run(iemocap_two_stage.main, *options(iemocap, output))
    assert not list(output.rglob("*.partial"))
    assert_ends_as(whole, output, iemocap, run)
    assert {path.name for path in output.glob("*.png")} == {path.name for path in whole.glob("*.png")}


def test_a_folder_that_cannot_be_made_is_told(iemocap, tmp_path, run):
    (tmp_path / "file").write_text("no folder")
    for name, option in (("--output", "--output"), ("--cache", "--cache")):
        with pytest.raises(RecipeError, match=rf"{name} .*file/x: cannot be .*; name another folder"):
            run(iemocap_two_stage.main, *options(iemocap, tmp_path / "run"), option, tmp_path / "file" / "x")


def test_a_disk_mounted_read_only_is_told(iemocap, tmp_path, run, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(30, os.strerror(30), str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(RecipeError, match=r"cannot be (made|written) \(Read-only file system\); name another folder"):
        run(iemocap_two_stage.main, *options(iemocap, tmp_path / "run"))


# ---- flipped bits


def flip(path, place):
    """One bit, at that share of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 4
    path.write_bytes(content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1), st.integers(0, 7))
def test_tensors_come_back_as_they_were_written_or_not_at_all(tmp_path, place, bit):
    """Of every bit of the file: header, names, numbers, metadata."""
    path = tmp_path / "some.safetensors"
    tensors = {
        "a": torch.arange(6.0).reshape(2, 3),
        "b": torch.tensor([1, -2], dtype=torch.int8),
        "none": torch.empty(0, 4),
    }
    write_tensors(path, tensors, {"said": "so"})
    found, metadata = read_tensors(path)
    assert metadata == {"said": "so"}
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1 << bit
    path.write_bytes(content)
    with pytest.raises(DamagedError):
        read_tensors(path)


FLIPS = [
    "trainings/*/stage-1/result.json",
    "trainings/*/stage-1/outputs.safetensors",
    "trainings/*/cls-eal-fual*/result.json",
    "trainings/*/cls-eal-fual*/outputs.safetensors",
    "trainings/*/cls-eal-fual*/splices.safetensors",
]


@pytest.mark.parametrize("pattern", FLIPS)
def test_a_flipped_bit_in_what_is_finished_is_told_and_mended(iemocap, tmp_path, run, whole, pattern):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    (file,) = output.glob(pattern)
    flip(file, 0.5)
    printed = assert_ends_as(whole, output, iemocap, run)
    assert f"note: {file.parent}: not as it was written (" in printed
    assert "this training is made again" in printed
    assert file.read_bytes() == next(whole.glob(pattern)).read_bytes()


def test_stage_2_does_not_start_from_weights_with_a_flipped_bit(iemocap, tmp_path, run, whole):
    output = tmp_path / "run"
    shutil.copytree(whole, output)
    (weights,) = output.glob("trainings/*/stage-1/model.safetensors")
    shutil.rmtree(next(output.glob("trainings/*/cls-eal-fual*")))
    flip(weights, 0.5)
    printed = assert_ends_as(whole, output, iemocap, run)
    assert f"note: {weights}: not as it was written (" in printed
    assert weights.read_bytes() == next(whole.glob("trainings/*/stage-1/model.safetensors")).read_bytes()


def test_a_flipped_bit_in_a_checkpoint_is_told(iemocap, tmp_path, run, whole):
    output = tmp_path / "run"
    before = AFTER_STEPS.format(steps=6, signal=int(signal.SIGINT), times=1)
    assert ended(start(*options(iemocap, output), before=before))[0] == 130
    (checkpoint,) = output.glob("trainings/*/stage-1/checkpoint.safetensors")
    flip(checkpoint, 0.5)
    printed = assert_ends_as(whole, output, iemocap, run)
    assert f"note: {checkpoint}: not a whole checkpoint (" in printed


def test_a_damaged_setup_is_refused_with_its_name(iemocap, tmp_path, run, whole):
    (whole / "setup.json").write_text("{")
    with pytest.raises(RecipeError, match=r"setup\.json: is damaged; remove it"):
        run(iemocap_two_stage.main, *options(iemocap, whole))


# ---- memory


def test_a_batch_that_memory_is_too_small_for_says_which_setting_helps(iemocap, tmp_path, run, whole):
    """The limit is the kernel's: what one pass asks for beyond it is refused."""
    output = tmp_path / "run"
    before = """
import resource
from recipe.training.epoch import EpochTrainer
train = EpochTrainer.train
def limited(self, *arguments, **named):
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**20, -1))
    return train(self, *arguments, **named)
EpochTrainer.train = limited
"""
    status, _, err = ended(start(*options(iemocap, output), before=before))
    assert status == 2
    last = err.splitlines()[-1]
    assert last.startswith("error: seed 0, fold 1, stage 1: out of memory (")
    assert "--frame_budget 3200 is what is computed at once; less takes less, down to " in last
    assert "goes on from what is finished" in last
    assert_ends_as(whole, output, iemocap, run)


def test_another_frame_budget_goes_on_in_the_same_folder(iemocap, tmp_path, run, whole):
    printed = run(iemocap_two_stage.main, *options(iemocap, whole), "--frame_budget", "1600")
    assert "2 of 2 trainings are finished" in printed


def test_other_errors_of_pytorch_stay_what_they_are(iemocap, tmp_path, run, monkeypatch):
    def wrong(*_):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(UtteranceFeatures, "padded", wrong)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(iemocap_two_stage.main, *options(iemocap, tmp_path / "run"))


# ---- files that vanish


def test_a_corpus_that_vanishes_while_it_trains_costs_nothing(iemocap, tmp_path, run, whole, monkeypatch):
    """All that is needed of it was read before."""
    train = UtteranceFeatures.drawn

    def vanish(self, *arguments):
        shutil.rmtree(iemocap, ignore_errors=True)
        return train(self, *arguments)

    monkeypatch.setattr(UtteranceFeatures, "drawn", vanish)
    run(iemocap_two_stage.main, *options(iemocap, tmp_path / "run"), "--save_models")
    assert not iemocap.exists()
    for name in OUTCOME:
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


def test_a_file_that_vanishes_between_features_and_training_is_named(iemocap, tmp_path, run, monkeypatch):
    import recipe.experiment as experiment

    cached = experiment.cached_features

    def then_vanish(corpus, *arguments):
        found = cached(corpus, *arguments)
        shutil.rmtree(iemocap)
        return found

    monkeypatch.setattr(experiment, "cached_features", then_vanish)
    with pytest.raises(RecipeError, match=r"Ses0\w+\.wav: does not exist; check the path"):
        run(iemocap_two_stage.main, *options(iemocap, tmp_path / "run"))


def test_the_cache_may_be_emptied_while_it_is_used(iemocap, tmp_path, run, whole, monkeypatch):
    train = UtteranceFeatures.drawn

    def vanish(self, *arguments):
        shutil.rmtree(iemocap.parent / "cache", ignore_errors=True)
        return train(self, *arguments)

    monkeypatch.setattr(UtteranceFeatures, "drawn", vanish)
    assert_ends_as(whole, tmp_path / "run", iemocap, run)


def test_results_hold_their_own_checksum(whole):
    (file,) = whole.glob("trainings/*/stage-1/result.json")
    assert len(json.loads(file.read_text())["digest"]) == 32
    with safe_open(file.parent / "outputs.safetensors", framework="pt") as outputs:
        assert len(outputs.metadata()["digest"]) == 32
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY  # of this process, untouched
