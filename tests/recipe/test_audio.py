"""Reading audio: every rate and layout that the corpora have, and every defect provoked."""

import struct

import numpy as np
import pytest
import soundfile
import torch

from recipe.data.audio import (
    SAMPLE_RATE,
    AudioError,
    at_speed,
    file_content,
    read_waveform,
    sound_digest,
    usable_audio,
    waveform,
)
from recipe.data.corpus import Corpus, Utterance
from recipe.errors import RecipeError
from sounds import tone


@pytest.fixture
def wav(tmp_path):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(), SAMPLE_RATE, subtype="PCM_16")
    return path


@pytest.fixture
def flac(tmp_path):
    path = tmp_path / "noise.flac"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, SAMPLE_RATE), SAMPLE_RATE)
    return path


def set_data_size(path, size):
    """Make the header of a wav file tell another size of its sound."""
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.find(b"data") + 4, size)
    path.write_bytes(content)


# ---- what is read


def test_16_khz_is_read_as_it_is(wav):
    waveform = read_waveform(wav)
    assert waveform.dtype == torch.float32
    torch.testing.assert_close(waveform, torch.from_numpy(tone()), atol=2**-15, rtol=0)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 24414, 44100, 48000])
def test_any_rate_becomes_16_khz(tmp_path, rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(rate=rate), rate, subtype="FLOAT")
    waveform = read_waveform(path)
    assert len(waveform) == pytest.approx(SAMPLE_RATE, abs=1)
    inside = slice(1000, 15000)  # the filter rings at both ends
    torch.testing.assert_close(waveform[inside], torch.from_numpy(tone())[inside], atol=5e-3, rtol=0)


@pytest.mark.parametrize("speed", [0.9, 1.1])
def test_at_another_speed_sound_is_shorter_and_higher_alike(speed):
    heard = at_speed(torch.from_numpy(tone(frequency=440)), speed)
    expected = torch.from_numpy(tone(frequency=440 * speed))
    assert len(heard) == pytest.approx(SAMPLE_RATE / speed, abs=1)
    inside = slice(1000, 13000)
    torch.testing.assert_close(heard[inside], expected[inside], atol=5e-3, rtol=0)


def test_at_its_own_speed_sound_is_left_alone():
    waveform = torch.from_numpy(tone())
    assert at_speed(waveform, 1.0) is waveform


def test_channels_are_averaged(tmp_path):
    left, right = tone(frequency=300), tone(frequency=500)
    path = tmp_path / "stereo.wav"
    soundfile.write(path, np.stack([left, right], axis=1), SAMPLE_RATE, subtype="FLOAT")
    torch.testing.assert_close(read_waveform(path), torch.from_numpy((left + right) / 2))


@pytest.mark.parametrize("size", [0, 0x7FFFF000, 0xFFFFFFFF])
def test_wav_written_to_a_pipe_is_judged_by_its_content(wav, size):
    whole = read_waveform(wav)
    set_data_size(wav, size)
    torch.testing.assert_close(read_waveform(wav), whole, rtol=0, atol=0)


def test_chunks_around_the_sound_are_passed_over(wav):
    whole = read_waveform(wav)
    content = wav.read_bytes()
    before, after = b"FLLR" + struct.pack("<I", 5) + bytes(6), b"LIST" + struct.pack("<I", 4) + b"INFO"
    body = content[12:36] + before + content[36:] + after
    wav.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body)
    torch.testing.assert_close(read_waveform(wav), whole, rtol=0, atol=0)
    wav.write_bytes(wav.read_bytes()[:-100])
    with pytest.raises(AudioError, match=r"is truncated: it holds 31912 of the 32000 bytes"):
        read_waveform(wav)


def test_one_frame_is_enough(tmp_path):
    path = tmp_path / "frame.wav"
    soundfile.write(path, tone()[:400], SAMPLE_RATE)
    assert len(read_waveform(path)) == 400


def test_originals_of_ravdess_and_their_16_khz_copies(data_root):
    """48 kHz, some of them stereo, with chunks before and after the sound."""
    originals = sorted((data_root / "ravdess" / "original_wav").glob("*/*.wav"))
    assert any(soundfile.info(path).channels == 2 for path in originals)
    for path in originals:
        copy = data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac" / path.parent.name / f"{path.stem}.flac"
        ours, theirs = read_waveform(path), read_waveform(copy)
        length = min(len(ours), len(theirs))
        assert abs(len(ours) - len(theirs)) <= 1
        # the copies were made with a steeper filter, which shows just below 8 kHz
        assert (ours[:length] - theirs[:length]).norm() < 0.1 * theirs.norm()


def test_the_odd_rate_of_tess_becomes_16_khz(data_root):
    for path in sorted((data_root / "tess").glob("*/*.wav")):
        info = soundfile.info(path)
        assert info.samplerate == 24414
        assert len(read_waveform(path)) == pytest.approx(info.duration * SAMPLE_RATE, abs=2)


# ---- what is refused


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def written(path, samples, rate=SAMPLE_RATE):
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return path


def contents(path, content):
    path.write_bytes(content)
    return path


def flac_of_unknown_length(path):
    content = bytearray(path.read_bytes())
    content[21] &= 0xF0  # the number of samples is 36 bits of the header
    content[22:26] = bytes(4)
    return contents(path, content)


DEFECTS = {
    "missing": (lambda d, wav, flac: d / "gone.wav", r"does not exist; check the path"),
    "a directory": (lambda d, wav, flac: d, r"cannot be read \(Is a directory\); check"),
    "0 bytes": (lambda d, wav, flac: contents(wav, b""), r"is empty \(0 bytes\); copy or unpack it again"),
    "text": (
        lambda d, wav, flac: contents(wav, b"not a sound\n" * 99),
        r"is not audio, or its header is damaged; copy",
    ),
    "Git LFS": (
        lambda d, wav, flac: contents(wav, b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n"),
        r"is a pointer of Git LFS and not audio; run `git lfs pull`",
    ),
    "truncated wav": (lambda d, wav, flac: truncated(wav), r"is truncated: it holds 15978 of the 32000 bytes .*; copy"),
    "truncated flac": (lambda d, wav, flac: truncated(flac), r"is truncated or damaged; copy or unpack it again"),
    "piped flac": (lambda d, wav, flac: flac_of_unknown_length(flac), r"does not tell its length; convert it again"),
    "half a header": (lambda d, wav, flac: contents(wav, wav.read_bytes()[:20]), r"header is damaged; copy"),
    "no samples": (lambda d, wav, flac: written(wav, tone()[:0]), r"holds no samples; copy or unpack it again"),
    "silence": (lambda d, wav, flac: written(wav, 0 * tone()), r"is digitally silent; copy or unpack it again"),
    "constant": (lambda d, wav, flac: written(wav, 0 * tone() + 0.1), r"is digitally silent; copy or unpack it again"),
    "too short": (
        lambda d, wav, flac: written(wav, tone()[:399]),
        r"is shorter than one frame: 399 samples at 16000 Hz, of 400; leave it out",
    ),
    "too short at 48 kHz": (
        lambda d, wav, flac: written(wav, tone(rate=48000)[:1190], 48000),
        r"is shorter than one frame: 397 samples at 16000 Hz, of 400; leave it out",
    ),
    "NaN": (
        lambda d, wav, flac: written(wav, np.where(np.arange(SAMPLE_RATE) == 9, np.nan, tone())),
        r"holds NaN or infinite samples; convert it again",
    ),
    "infinite": (
        lambda d, wav, flac: written(wav, np.where(np.arange(SAMPLE_RATE) == 9, np.inf, tone())),
        r"holds NaN or infinite samples; convert it again",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_defects_are_told_in_one_line_that_names_the_file(tmp_path, wav, flac, defect):
    provoke, message = DEFECTS[defect]
    path = provoke(tmp_path, wav, flac)
    with pytest.raises(AudioError, match=message) as caught:
        read_waveform(path)
    assert str(caught.value) == f"{path}: {caught.value.reason}."
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
@pytest.mark.parametrize("kept", [0.01, 0.3, 0.9, 0.999])
def test_a_file_truncated_anywhere_is_refused(data_root, tmp_path, suffix, kept):
    """Real recordings, cut within the header, early, late, and a few bytes before the end of the sound."""
    folder = "original_wav" if suffix == "wav" else "Audio_Speech_Actors_01-24_16k_flac"
    source = sorted((data_root / "ravdess" / folder).glob(f"*/*.{suffix}"))[0]
    content = source.read_bytes()
    if suffix == "wav":  # what stands behind the sound may be lost
        content = content[: content.find(b"data") + 8 + struct.unpack_from("<I", content, content.find(b"data") + 4)[0]]
        assert len(read_waveform(contents(tmp_path / "whole.wav", content))) > 0
    path = contents(tmp_path / f"cut.{suffix}", content[: int(kept * len(content))])
    with pytest.raises(AudioError, match=rf"cut\.{suffix}: (is truncated|is not audio, or its header is damaged)"):
        read_waveform(path)


# ---- whole corpora


@pytest.fixture
def corpus(tmp_path):
    """Four utterances, of which the second is silent."""
    utterances = []
    for number in range(4):
        path = written(tmp_path / f"{number}.wav", tone(frequency=200 + 50 * number) * (number != 1))
        utterances.append(Utterance(str(number), path, "happy", "1001"))
    return Corpus("test corpus", ("happy",), utterances)


def test_usable_audio_is_what_was_read_and_what_was_skipped(corpus):
    found, [skipped] = usable_audio(corpus, read_waveform, progress=False)
    assert list(found) == ["0", "2", "3"]
    torch.testing.assert_close(found["3"], torch.from_numpy(tone(frequency=350)))
    assert skipped.path.name == "1.wav"
    assert skipped.reason == "is digitally silent; copy or unpack it again"
    assert len(corpus.utterances) == 4  # left as it is
    assert corpus.skipped == []
    kept = corpus.with_only(found, [skipped])
    assert [utterance.id for utterance in kept.utterances] == ["0", "2", "3"]
    assert kept.skipped == [skipped]


def test_usable_audio_gives_whatever_is_read(corpus):
    """A reader of its own, that reads from the content, meets the same defects."""

    def read(path):
        return len(waveform(path, file_content(path)))

    found, skipped = usable_audio(corpus, read, progress=False)
    assert found == {"0": SAMPLE_RATE, "2": SAMPLE_RATE, "3": SAMPLE_RATE}
    assert [file.path.name for file in skipped] == ["1.wav"]


def test_a_waveform_is_of_the_content_and_not_of_what_the_file_has_become(wav):
    content, whole = file_content(wav), read_waveform(wav)
    wav.unlink()
    torch.testing.assert_close(waveform(wav, content), whole, rtol=0, atol=0)


def test_reading_a_corpus_shows_its_progress(corpus, capsys):
    found, _ = usable_audio(corpus, sound_digest)
    assert {id: len(digest) for id, digest in found.items()} == {
        "0": 32,
        "2": 32,
        "3": 32,
    }  # no more of the audio is kept
    assert "reading audio: 100%" in capsys.readouterr().err


def test_half_of_a_corpus_is_enough(corpus):
    contents(corpus.utterances[0].path, b"")
    found, skipped = usable_audio(corpus, sound_digest, progress=False)
    assert (len(found), len(skipped)) == (2, 2)


def test_less_than_half_of_a_corpus_is_not_enough(corpus):
    for utterance in corpus.utterances[2:]:
        contents(utterance.path, b"")
    message = r"test corpus: more than half of its 4 audio files .*3\.wav: is empty"
    with pytest.raises(RecipeError, match=message) as caught:
        usable_audio(corpus, sound_digest, progress=False)
    assert "\n" not in str(caught.value)
