"""examples/integrations/opensmile_features.py, with openSMILE."""

import numpy as np
import pytest
import torch

pytest.importorskip("opensmile")

import opensmile

from opensmile_features import SpeechEmotionModel, collate, descriptors


def test_it_trains_and_tests(tones, tmp_path, run):
    last = run("opensmile_features.py", tones, "--epochs", 2, "--out", tmp_path)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")


def test_an_utterance_alone_equals_itself_in_a_batch(waveforms):
    examples = [(descriptors(waveform), label) for label, waveform in enumerate(waveforms)]
    model = SpeechEmotionModel(torch.cat([frames for frames, _ in examples]), 3).eval()
    with torch.no_grad():
        batch = model(*collate(examples)).logits
        alone = torch.cat([model(*collate([example])).logits for example in examples])
    torch.testing.assert_close(batch, alone)


def test_an_utterance_too_short_for_a_descriptor_has_no_frames(waveforms):
    short = (descriptors(waveforms[0][:500]), 1)
    assert short[0].shape == (0, 25)
    long = (descriptors(waveforms[0]), 0)
    model = SpeechEmotionModel(long[0], 2)
    loss = model(*collate([long, short])).loss
    loss.backward()
    assert loss.isfinite()
    torch.testing.assert_close(loss, model(*collate([long])).loss)


def test_their_functionals_take_padding_for_silence(waveforms):
    """They are of a whole signal, and take no length: of a batch padded to three times its length, a third as loud."""
    smile = opensmile.Smile(opensmile.FeatureSet.eGeMAPSv02, opensmile.FeatureLevel.Functionals)
    signal = waveforms[0].numpy()
    both = [smile.process_signal(each, 16_000) for each in (signal, np.pad(signal, (0, 32_000)))]
    alone, padded = (table["loudness_sma3_amean"].item() for table in both)
    assert padded / alone == pytest.approx(1 / 3, abs=0.02)
