"""examples/integrations/speechbrain_brain.py, with SpeechBrain."""

import pytest
import torch

pytest.importorskip("speechbrain")

from speechbrain.dataio.batch import PaddedBatch
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from speechbrain.nnet.pooling import AttentionPooling, StatisticsPooling

from csv_corpus import read_csv
from framealign import conv_lengths
from speechbrain_brain import build, dataset_of, load_encoder


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


def test_it_trains_and_tests(tones, encoder, tmp_path, run):
    last = run("speechbrain_brain.py", tones, "--backbone", encoder, "--epochs", 2, "--out", tmp_path)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1  # the best epoch


def test_it_trains_in_float32(half_encoder, tmp_path):
    assert {parameter.dtype for parameter in load_encoder(str(half_encoder), tmp_path).parameters()} == {torch.float32}


def test_an_utterance_alone_equals_itself_in_a_batch(tones, encoder, tmp_path):
    brain = build(load_encoder(str(encoder), tmp_path), 2, tmp_path)
    brain.modules.eval()
    utterances = dataset_of(read_csv(tones).train)
    items = [utterances[number] for number in range(4)]
    assert len({len(item["waveform"]) for item in items}) == 4
    with torch.no_grad():
        pooled, mask = brain.compute_forward(PaddedBatch(items), None)
        for row, item in enumerate(items):
            alone, whole = brain.compute_forward(PaddedBatch([item]), None)
            assert whole.all()
            assert whole.sum() == mask[row].sum()
            torch.testing.assert_close(pooled.utterance[row], alone.utterance[0])


# ---- What SpeechBrain's own parts do


@pytest.fixture
def batch(waveforms):
    """Zero-padded waveforms, and SpeechBrain's shares of the longest."""
    padded = torch.nn.utils.rnn.pad_sequence(waveforms, batch_first=True)
    return padded, torch.tensor([len(waveform) / padded.shape[1] for waveform in waveforms])


def test_their_recipe_changes_with_padding(encoder, tmp_path, waveforms, batch):
    """Encoder and pooling of their recipe for IEMOCAP."""
    theirs = Wav2Vec2(str(encoder), str(tmp_path), output_norm=True).eval()
    pooling = StatisticsPooling(return_std=False)
    with torch.no_grad():
        padded = pooling(theirs(*batch), batch[1])[2]
        alone = pooling(theirs(waveforms[2][None], torch.ones(1)), torch.ones(1))[0]
    print(f"{distance(padded, alone):.0%}")
    assert distance(padded, alone) > 0.1


def test_their_pooling_counts_a_frame_of_padding_and_adds_noise():
    samples = torch.tensor([16_000, 6_479])
    real = conv_lengths(samples, (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2))
    assert real.tolist() == [49, 19]
    frames = torch.ones(2, 49, 8)
    frames[1, 19:] = 101.0  # padding
    pooling = StatisticsPooling(return_std=False).eval()
    first, second = (pooling(frames, samples / 16_000) for _ in range(2))
    torch.testing.assert_close(first[1], torch.full((1, 8), 6.0), rtol=0, atol=1e-3)  # of 19 ones and a 101
    assert 0 < (first - second).abs().max() < 1e-3


def test_their_attention_takes_no_mask():
    pooling = AttentionPooling(8)
    torch.nn.init.zeros_(pooling.attn_pooling_w.weight)  # every frame weighs the same
    frames = torch.nn.functional.pad(torch.ones(1, 10, 8), (0, 0, 0, 30))
    torch.testing.assert_close(pooling(frames), torch.full((1, 8), 0.25))
