"""examples/integrations/plain_pytorch_before.py and _after.py: one loop, without framealign and with it."""

import ast
import difflib
from pathlib import Path

import pytest
import torch
from transformers import AutoFeatureExtractor

import plain_pytorch_after
import plain_pytorch_before

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("when", ["before", "after"])
def test_it_trains_and_tests(tones, encoder, tmp_path, run, when):
    last = run(f"plain_pytorch_{when}.py", tones, "--backbone", encoder, "--epochs", 2, "--out", tmp_path)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")


@pytest.mark.parametrize("script", [plain_pytorch_before, plain_pytorch_after], ids=["before", "after"])
def test_an_utterance_alone_equals_itself_in_a_batch_after_and_not_before(encoder, waveforms, script):
    model = script.SpeechEmotionModel(str(encoder), 2).eval()
    prepare = AutoFeatureExtractor.from_pretrained(encoder, return_attention_mask=script is plain_pytorch_after)

    def logits_of(waveforms):
        arrays = [waveform.numpy() for waveform in waveforms]
        inputs = prepare(arrays, sampling_rate=16_000, padding=True, return_tensors="pt")
        return model(dict(inputs), torch.zeros(len(waveforms), dtype=torch.long))[1]

    with torch.no_grad():
        batch, alone = logits_of(waveforms)[2], logits_of(waveforms[2:])[0]
    change = ((batch - alone).norm() / alone.norm()).item()
    print(f"{change:.0e}")
    assert change < 1e-5 if script is plain_pytorch_after else change > 0.1


def test_it_trains_in_float32(half_encoder):
    model = plain_pytorch_after.SpeechEmotionModel(str(half_encoder), 2)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_readme_shows_the_difference_of_the_two():
    def code_of(script):
        """What follows the docstring."""
        source = Path(script.__file__).read_text()
        return source.splitlines()[ast.parse(source).body[0].end_lineno :]

    lines = list(difflib.unified_diff(code_of(plain_pytorch_before), code_of(plain_pytorch_after), lineterm="", n=0))
    shown = "\n".join("..." if line.startswith("@@") else line for line in lines[3:])
    assert f"```diff\n{shown}\n```" in (ROOT / "README.md").read_text()
