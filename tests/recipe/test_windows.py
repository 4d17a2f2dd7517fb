"""Long recordings: read block by block, and cut into windows."""

import io

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data import audio
from recipe.data.audio import AudioError, blocks, content_of, read_waveform, resampler
from recipe.data.containers import Repaired
from recipe.inference.windows import FRAME, windows
from sounds import SAMPLE_RATE, tone


def read_blocks(path):
    with content_of(path) as stream:
        return list(blocks(path, stream))


RATES = [8000, 11_025, 16_000, 24_414, 44_100, 48_000]


@pytest.mark.parametrize("rate", RATES)
def test_blocks_are_the_file(rate, tmp_path, monkeypatch):
    """Resampled as in one, though each block is by itself."""
    monkeypatch.setattr(audio, "BLOCK", SAMPLE_RATE)
    dice = np.random.default_rng(0)
    path = tmp_path / "a.wav"
    soundfile.write(path, dice.uniform(-0.5, 0.5, (round(4.3 * rate), 2)), rate)
    found = read_blocks(path)
    assert len(found) >= 4
    samples, _ = soundfile.read(path, dtype="float32")
    expected = resampler(rate)(torch.from_numpy(samples.mean(axis=1)))
    torch.testing.assert_close(torch.cat(found), expected, rtol=0, atol=1e-6)


@given(st.lists(st.integers(0, 3000), max_size=12).filter(any), st.sampled_from(RATES))
@settings(deadline=None)
def test_pieces_of_any_length_are_resampled_as_one(lengths, rate):
    dice = np.random.default_rng(0)
    pieces = [dice.uniform(-1, 1, length).astype(np.float32) for length in lengths]
    whole = torch.from_numpy(np.concatenate([np.empty(0, np.float32), *pieces]))
    found = torch.cat(list(audio.resampled(iter(pieces), resampler(rate))))
    torch.testing.assert_close(found, resampler(rate)(whole), rtol=0, atol=1e-6)


def test_a_defect_is_found_in_whichever_block_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", SAMPLE_RATE)
    samples = tone(seconds=3.5)
    samples[-10] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, SAMPLE_RATE, subtype="FLOAT")
    with pytest.raises(AudioError, match="NaN"):
        read_blocks(tmp_path / "nan.wav")
    soundfile.write(tmp_path / "cut.flac", tone(seconds=3.5), SAMPLE_RATE)
    content = (tmp_path / "cut.flac").read_bytes()
    (tmp_path / "cut.flac").write_bytes(content[: len(content) * 2 // 3])
    with pytest.raises(AudioError, match="truncated"):
        read_blocks(tmp_path / "cut.flac")


def test_a_recording_is_silent_only_if_all_of_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "BLOCK", SAMPLE_RATE)
    samples = np.concatenate([np.zeros(3 * SAMPLE_RATE, np.float32), tone()])
    soundfile.write(tmp_path / "late.wav", samples, SAMPLE_RATE)
    assert len(read_waveform(tmp_path / "late.wav")) == 4 * SAMPLE_RATE
    soundfile.write(tmp_path / "none.wav", np.zeros(4 * SAMPLE_RATE), SAMPLE_RATE)
    with pytest.raises(AudioError, match="digitally silent"):
        read_waveform(tmp_path / "none.wav")


def test_a_header_is_repaired_in_any_block_and_not_on_disk(tmp_path, monkeypatch):
    """Of a wav that was written to a pipe, which soundfile reads from the stream as it likes."""
    monkeypatch.setattr(audio, "BLOCK", SAMPLE_RATE)
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(seconds=2.5), SAMPLE_RATE)
    whole, content = read_waveform(path), bytearray(path.read_bytes())
    content[40:44] = b"\xff\xff\xff\xff"
    path.write_bytes(content)
    torch.testing.assert_close(torch.cat(read_blocks(path)), whole, rtol=0, atol=0)
    assert path.read_bytes() == bytes(content)


@given(st.integers(0, 12), st.integers(0, 40), st.integers(0, 40))
def test_repaired_bytes_are_in_their_place_however_they_are_read(place, start, count):
    content = bytes(range(40))
    expected = content[:place] + b"wxyz" + content[place + 4 :]
    stream = Repaired(io.BytesIO(content), place, b"wxyz")
    stream.seek(start)
    assert stream.read(count) == expected[start : start + count]
    assert stream.tell() == min(40, start + count) or start > 40


@given(
    st.integers(1, 90 * FRAME), st.lists(st.integers(1, 40 * FRAME), min_size=1, max_size=6), st.sampled_from([20, 30])
)
@settings(deadline=None)
def test_windows_answer_every_sample_once_with_context_at_inner_edges(length, cuts, whole):
    """Windows of 0.4 s, of blocks of any lengths."""
    waveform = torch.arange(length, dtype=torch.float64)
    places = sorted({min(place, length) for place in np.cumsum(cuts)} | {length})
    blocks_of_it = [waveform[start:stop] for start, stop in zip([0, *places], places, strict=False)]
    found = list(windows(iter(blocks_of_it), whole=whole / 50, length=0.4))
    assert torch.equal(torch.cat([window.own_waveform for window in found]), waveform)
    assert [window.number for window in found] == list(range(len(found)))
    assert (len(found) == 1) == (length <= whole * FRAME)
    for window in found[1:]:
        assert window.own.start == 5
    for window in found[:-1]:
        assert (len(window.waveform), window.own.stop) == (20 * FRAME, 15)
    if len(found) > 1:
        assert 10 * FRAME < len(found[-1].waveform) <= 20 * FRAME  # more than the context: never a scrap
