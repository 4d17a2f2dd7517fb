"""examples/integrations/s3prl_downstream.py, with s3prl as espnet-s3prl packs it."""

import pytest
import torch
from torch.nn.utils.rnn import pad_sequence

pytest.importorskip("s3prl")

from s3prl.downstream.model import AttentivePoolingModule
from s3prl.nn import S3PRLUpstream
from s3prl.nn.pooling import MeanPooling

from framealign import conv_lengths
from s3prl_downstream import STEP, WINDOW, SpeechEmotionModel


def test_it_trains_and_tests(tones, tmp_path, run):
    last = run("s3prl_downstream.py", tones, "--epochs", 2, "--out", tmp_path)
    assert last.startswith("UA ")
    assert last.endswith("(test speakers; chance 0.500)")


def test_an_utterance_alone_equals_itself_in_a_batch(waveforms):
    model = SpeechEmotionModel(2).eval()
    samples, labels = torch.tensor([len(waveform) for waveform in waveforms]), torch.tensor([0, 1, 0])
    with torch.no_grad():
        batch = model(pad_sequence(waveforms, batch_first=True), samples, labels).logits
        for row, waveform in enumerate(waveforms):
            alone = model(waveform[None], samples[row : row + 1], labels[row : row + 1]).logits
            torch.testing.assert_close(batch[row : row + 1], alone)


# ---- What s3prl's own parts do


def test_their_lengths_count_frames_that_are_none(waveforms):
    """Of zeros in a batch, and of the last frame said again in the longest and alone."""
    upstream, samples = S3PRLUpstream("fbank").eval(), torch.tensor([len(waveform) for waveform in waveforms])
    (frames,), (lengths,) = upstream(pad_sequence(waveforms, batch_first=True), samples)
    real = conv_lengths(samples, WINDOW, STEP)
    assert real.tolist() == [98, 54, 29]
    assert lengths.tolist() == [100, 57, 32]
    assert not frames[1, 54:57].any()
    assert torch.equal(frames[0, 98:], frames[0, 97:98].expand(2, -1))

    # its mean over the utterance is 0: what is left to their pooling are those frames, and in a batch nothing
    pooling = MeanPooling(frames.shape[2])
    (alone,), (length,) = upstream(waveforms[1][None], samples[1:2])
    assert pooling(frames[1:2], real[1:2]).abs().max() < 1e-5
    assert pooling(frames[1:2], lengths[1:2]).abs().max() < 1e-5
    assert pooling(alone, length).abs().max() > 0.05


def test_their_attention_adds_its_mask():
    """One more on the logit of real frames: of 200 frames alike, 150 of them padding, those get half of the weight."""
    mask = torch.arange(200)[None] < 50
    pooling = AttentivePoolingModule(8)
    torch.nn.init.zeros_(pooling.W.weight)
    _, weights = pooling(torch.ones(1, 200, 8), mask)
    assert weights[~mask].sum().item() == pytest.approx(0.52, abs=0.01)
