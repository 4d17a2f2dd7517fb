"""Containers of every kind: whole, cut anywhere, of unknown length, lying, and damaged at random."""

import contextlib
import io
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from recipe.data import containers
from recipe.data.audio import AudioError, seconds, waveform
from sounds import SAMPLE_RATE, tone

KINDS = [
    ("WAV", "PCM_16"),
    ("WAV", "PCM_U8"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("WAV", "G721_32"),
    ("WAVEX", "PCM_24"),
    ("RF64", "PCM_16"),
    ("W64", "PCM_16"),
    ("W64", "GSM610"),
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("AU", "PCM_16"),
    ("AU", "G723_24"),
    ("NIST", "PCM_16"),
    ("NIST", "ALAW"),
    ("CAF", "PCM_16"),
    ("CAF", "ALAC_16"),
    ("FLAC", "PCM_16"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("MP3", "MPEG_LAYER_III"),
]
NAMES = [" ".join(kind) for kind in KINDS]


def encoded(kind, subtype, samples=None, **options):
    """A second and a half of noisy tone, so that no codec can make little of it."""
    if samples is None:
        samples = tone(seconds=1.5, noise=0.05, dice=np.random.default_rng(0))
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format=kind, subtype=subtype, **options)
    return file.getvalue()


WHOLE = {f"{kind} {subtype}": encoded(kind, subtype) for kind, subtype in KINDS}


def read(content):
    return waveform(Path("call.wav"), content)


@pytest.mark.parametrize("name", NAMES)
def test_whole_files_are_read_to_their_end(name):
    assert len(read(WHOLE[name])) == pytest.approx(1.5 * SAMPLE_RATE, abs=1200)  # blocks of codecs are padded


@pytest.mark.parametrize("kept", [0.2, 0.6, 0.9, 0.995])
@pytest.mark.parametrize("name", NAMES)
def test_files_cut_anywhere_are_refused(name, kept):
    content = WHOLE[name]
    with pytest.raises(AudioError, match=r"is truncated|its header is damaged"):
        read(content[: int(kept * len(content))])


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25)
@given(data=st.data())
def test_a_cut_is_told_at_every_byte(name, data):
    """Down to the last one, apart from bytes that stand for no sound."""
    content = WHOLE[name]
    kept = data.draw(st.integers(1, len(content) - 1))
    try:
        found = read(content[:kept])
    except AudioError:
        return
    # behind the sound: padding of the last block, the metadata of others
    assert len(found) == len(read(content)), f"{len(found)} samples of {kept} of {len(content)} bytes"


@pytest.mark.parametrize(
    ("kind", "place", "form", "sizes"),
    [
        ("WAV", b"data", "<I", [0, 0x7FFFF000, 0xFFFFFFFF]),
        ("AU", b".snd\0\0\0\x18", ">I", [0xFFFFFFFF]),
        ("AIFF", b"SSND", ">I", [0, 0x7FFFF000, 0xFFFFFFFF]),
    ],
)
def test_containers_of_unknown_length_are_read_to_the_end_of_the_file(kind, place, form, sizes):
    whole = WHOLE[f"{kind} PCM_16"]
    for size in sizes:
        content = bytearray(whole)
        struct.pack_into(form, content, content.index(place) + len(place), size)
        assert len(read(content)) == len(read(whole)), size


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
@pytest.mark.parametrize("names", [[b"LIST"], [b"id3 "], [b"bext", b"iXML"], [b"LIST", b"abcd"]])
@pytest.mark.parametrize("length", [4096, 4095])
def test_chunks_behind_sound_of_unknown_length_are_no_sound(size, names, length):
    noise = np.random.default_rng(0).integers(0, 255, length, dtype=np.uint8).tobytes()
    behind = b"".join(name + struct.pack("<I", length) + noise + bytes(length % 2) for name in names)
    content = bytearray(WHOLE["WAV PCM_16"])
    struct.pack_into("<I", content, content.index(b"data") + 4, size)
    np.testing.assert_array_equal(read(bytes(content) + behind), read(WHOLE["WAV PCM_16"]))


def test_sound_that_spells_the_name_of_a_chunk_is_sound():
    content = bytearray(WHOLE["WAV PCM_16"])
    struct.pack_into("<I", content, content.index(b"data") + 4, 0xFFFFFFFF)
    place = len(content) - 1000
    content[place : place + 8] = b"LIST" + struct.pack("<I", 500)  # behind which no chunk follows
    assert len(read(content)) == 1.5 * SAMPLE_RATE


def test_a_length_of_nothing_with_chunks_behind_it_is_nothing():
    content = WHOLE["WAV PCM_16"]
    head = content[: content.index(b"data") + 4]
    with pytest.raises(AudioError, match="holds no samples"):
        read(head + struct.pack("<I", 0) + b"LIST" + struct.pack("<I", 8) + bytes(8))


def test_a_wav_of_more_than_four_gigabytes_tells_its_length_in_64_bits():
    content = bytearray(WHOLE["RF64 PCM_16"])
    assert content[:4] == b"RF64"
    assert len(read(content)) == 1.5 * SAMPLE_RATE
    struct.pack_into("<Q", content, content.index(b"ds64") + 16, 0)  # and one that was piped does not
    assert len(read(content)) == 1.5 * SAMPLE_RATE


@pytest.mark.parametrize("kind", ["VOC", "PAF", "SVX", "IRCAM", "AVR", "PVF"])
def test_containers_whose_end_is_not_known_are_refused_with_their_name(kind):
    subtype = "PCM_U8" if kind == "VOC" else "PCM_16"
    with pytest.raises(AudioError, match=rf"is a {kind} file, .*convert it to FLAC"):
        read(encoded(kind, subtype))


@pytest.mark.parametrize("rate", [1, 900, 3999, 768_001, 2**31 - 1])
def test_a_rate_at_which_nobody_records_is_refused(rate):
    content = bytearray(WHOLE["WAV PCM_16"])
    struct.pack_into("<I", content, 24, rate)
    with pytest.raises(AudioError, match=rf"sampling rate of {rate} Hz, where 4000 to 768000 are expected"):
        read(content)


@pytest.mark.parametrize("scale", [2**7, 2**15, 2**23, 2**31])
def test_integers_stored_as_floats_are_refused(scale):
    with pytest.raises(AudioError, match="integers stored as floats"):
        read(encoded("WAV", "FLOAT", scale * tone()))


@pytest.mark.parametrize("gain", [1e-4, 1, 8])
def test_floats_may_be_louder_than_full_scale(gain):
    assert read(encoded("WAV", "FLOAT", gain * tone())).abs().max() == pytest.approx(0.3 * gain, rel=1e-3)


def test_blocks_are_of_bounded_size_whatever_the_number_of_channels():
    content = encoded("WAV", "FLOAT", np.zeros((2000, 1000), np.float32) + tone(seconds=0.125)[:, None])
    tracemalloc.start()
    read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_in_bounded_memory(name, data):
    """Bytes overwritten, taken out, put in, most often in the header: sound of finite samples, or an AudioError."""
    content = bytearray(WHOLE[name][: data.draw(st.sampled_from([len(WHOLE[name]), 4000, 300, 60]))])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, min(len(content), data.draw(st.sampled_from([64, 4000])))))
        some = data.draw(st.binary(max_size=8))
        content[place : place + data.draw(st.integers(0, 8))] = some
    tracemalloc.start()
    with contextlib.suppress(AudioError):
        assert read(bytes(content)).isfinite().all()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 400e6


@settings(max_examples=300)
@given(
    st.sampled_from([b"RIFF", b"RF64", b"FORM", b"riff", b"caff", b".snd", b"NIST_1A\n   1024\n", b"OggS"]), st.data()
)
def test_headers_of_anything_are_judged_without_a_traceback(magic, data):
    words = st.sampled_from(
        [b"WAVE", b"AIFF", b"data", b"ds64", b"SSND", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x10\0\0\0"]
    )
    content = magic + b"".join(data.draw(st.lists(st.one_of(words, st.binary(max_size=9)), max_size=30)))
    with contextlib.suppress(containers.Truncated):
        assert len(containers.with_true_length(io.BytesIO(content)).read()) == len(content)


def test_lengths_are_told_before_reading(tmp_path):
    (tmp_path / "a.ogg").write_bytes(WHOLE["OGG OPUS"])
    assert seconds(tmp_path / "a.ogg") == pytest.approx(1.5, abs=0.1)
    (tmp_path / "b.wav").write_bytes(b"RIFF")
    assert seconds(tmp_path / "b.wav") == 0
