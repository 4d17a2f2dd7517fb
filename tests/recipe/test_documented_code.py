"""The Python blocks of the docs that take what a training left: below a comment that names this file."""

import re
from pathlib import Path

import iemocap_two_stage
import soundfile
import torch

from sounds import SAMPLE_RATE, tone
from trained import CLASSES, write_trained

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"<!-- run by tests/recipe/test_documented_code\.py -->\n```python\n(.*?)```", re.S)


def run_block(page: str) -> dict:
    (code,) = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    names: dict = {}
    exec(compile(code, page, "exec"), names)
    return names


def test_a_model_is_asked_from_python(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_trained(Path("runs/emodb-model/model"))
    soundfile.write("speech.wav", tone(300, 1.0), SAMPLE_RATE)
    answer = run_block("using_a_model.md")["answer"]
    assert answer.label in CLASSES
    assert len(answer.frame_probabilities) == len(answer.attention)


def test_outputs_of_a_training_are_read(iemocap, run):
    options = (
        "--backbone",
        "tiny",
        "--stage1.epochs",
        1,
        "--stage2.epochs",
        1,
        "--systems",
        "cls-eal-fual",
        "--folds",
        1,
    )
    run(iemocap_two_stage.main, "--data", iemocap, *options, "--output", "runs/iemocap-demo-tiny")
    found = run_block("recipe/files.md")
    assert len(found["attention"]) == len(found["found"]["probabilities"])
    assert all(torch.isclose(weights.sum(), torch.tensor(1.0)) for weights in found["attention"])
