"""A small corpus in IEMOCAP's layout, and the scripts called as from their command lines."""

import sys

import numpy as np
import pytest
import soundfile
from accelerate.state import AcceleratorState

from sounds import SAMPLE_RATE, tone
from trees import write_iemocap

CATEGORIES = ("ang", "hap", "exc", "neu", "sad", "xxx")


@pytest.fixture
def iemocap(tmp_path):
    return write_tones(tmp_path / "IEMOCAP_full_release")


def write_tones(root):
    """Two turns a class for each of the ten speakers, as tones that tell the classes apart."""
    labels = {
        f"Ses0{session}{prefix}_impro01_{sex}{2 * index + repeat:03d}": category
        for session in range(1, 6)
        for prefix, sex in (("F", "F"), ("F", "M"))
        for index, category in enumerate(CATEGORIES)
        for repeat in range(2)
    }
    write_iemocap(root, labels)
    dice = np.random.default_rng(0)
    for path in sorted(root.glob("*/sentences/wav/*/*.wav")):
        category = labels[path.stem]
        seconds = dice.uniform(0.25, 0.56)
        pitch = 150 * (2 + CATEGORIES.index(category))
        soundfile.write(path, tone(pitch, seconds, gain=0.1, noise=0.01, dice=dice), SAMPLE_RATE)
    return root


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Call a script's main as its command line would; the text that it printed."""
    monkeypatch.chdir(tmp_path)

    def call(main, *arguments):
        AcceleratorState._reset_state(reset_partial_state=True)  # else one process keeps its first precision
        monkeypatch.setattr(sys, "argv", ["script.py", *map(str, arguments)])
        main()
        return capsys.readouterr().out

    return call
