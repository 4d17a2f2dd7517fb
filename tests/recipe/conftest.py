"""A small corpus in IEMOCAP's layout, and the scripts called as from their command lines."""

import sys

import pytest
from accelerate.state import AcceleratorState

from trees import write_iemocap_of_tones


@pytest.fixture
def iemocap(tmp_path):
    return write_iemocap_of_tones(tmp_path / "IEMOCAP_full_release")


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
