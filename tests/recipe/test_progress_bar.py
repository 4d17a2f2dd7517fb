"""Bars: redrawn on a terminal, and lines in a file."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

from recipe import progress_bar as bars
from recipe.progress_bar import progress_bar
from recipe.training.progress import Progress

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when the test says so."""
    now = [0.0]
    monkeypatch.setattr(bars.time, "monotonic", lambda: now[0])
    return now


def test_a_file_gets_a_line_a_minute_and_the_last(clock, capsys):
    for _ in progress_bar(range(300), desc="reading audio", unit="file"):
        clock[0] += 1
    printed = capsys.readouterr().err
    assert "\r" not in printed
    lines = printed.splitlines()
    assert len(lines) <= 5 + 1
    assert all(line.startswith("reading audio: ") for line in lines)
    assert "100% 300/300 [" in lines[-1]


def test_a_file_is_told_of_the_epoch_once_a_minute(clock, capsys):
    with Progress(200, 0, disable=False) as progress:
        progress.begin("seed 0, fold 1, CLS pooling")
        for epoch in range(1, 101):
            progress.step(2)
            progress.epoch({"epoch": epoch, "loss": 1.25, "validation_ua": 0.8636}, 100)
            clock[0] += 3
        progress.say("UA of the fold")
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) <= 5 + 1
    assert lines[-1].startswith("seed 0, fold 1, CLS pooling, epoch 100/100: 100% 200/200 [")
    assert lines[-1].endswith("loss 1.250, validation UA 86.4%]")
    assert printed.out == "UA of the fold\n"


def test_a_terminal_sees_a_bar_that_redraws_itself(monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", terminal)
    list(progress_bar(range(3), desc="reading audio", unit="file"))
    assert "\rreading audio: 100%|" in terminal.getvalue()


def test_one_that_is_off_says_nothing(capsys):
    list(progress_bar(range(3), unit="file", disable=True))
    assert capsys.readouterr().err == ""


def test_a_scripts_log_holds_lines(iemocap, tmp_path):
    script = [sys.executable, EXAMPLES / "iemocap_two_stage.py", "--data", iemocap, "--dry_run"]
    found = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=True)
    (line,) = found.stderr.splitlines()
    assert line.startswith("reading audio: 100% 100/100 [")
    assert "\r" not in found.stderr


def test_every_bar_of_the_recipe_is_one_of_these():
    using = [path.name for path in (EXAMPLES / "recipe").rglob("*.py") if "tqdm" in path.read_text()]
    assert using == ["progress_bar.py"]
