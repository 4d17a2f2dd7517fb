"""benchmarks/whisper_step.py runs, and says how much faster the recipe's step is than the usual one."""

import re
import subprocess
import sys
from pathlib import Path

import soundfile

from families import save
from recipe.data.audio import SAMPLE_RATE
from sounds import tone

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "whisper_step.py"


def test_both_steps_run_and_are_compared(tmp_path):
    save("whisper", tmp_path / "whisper")
    for actor in range(1, 4):
        folder = tmp_path / "ravdess" / f"Actor_{actor:02d}"
        folder.mkdir(parents=True)
        for emotion in range(1, 9):
            sound = tone(200 + 50 * emotion, 0.3 + 0.02 * emotion)
            soundfile.write(folder / f"03-01-{emotion:02d}-01-01-01-{actor:02d}.wav", sound, SAMPLE_RATE)
    command = [sys.executable, SCRIPT, "--data", tmp_path / "ravdess", "--backbone", tmp_path / "whisper"]
    done = subprocess.run([*command, "--rounds", "1", "--steps", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^\| (.+) \| ([\d.]+) \| ([\d.]+)x \|$", done.stdout, re.M)
    assert [name.split(":")[0] for name, _, _ in rows] == [
        "usual",
        "own length, the whole encoder, stage 1",
        "the recipe, stage 1",
        "the recipe, stage 2",
    ]
    assert rows[0][2] == "1.0"
    assert all(float(rate) > 0 for _, rate, _ in rows)
