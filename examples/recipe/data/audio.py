"""Reading speech, and refusing what is not fit to train on.

soundfile decodes and torchaudio resamples; torchaudio's own `load` needs a further package since 2.9.
"""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from recipe.data.corpus import Corpus, Skipped
from recipe.errors import RecipeError
from recipe.progress_bar import progress_bar

T = TypeVar("T")

SAMPLE_RATE = 16_000
SHORTEST = 400  # samples in one frame of wav2vec 2.0 and its relatives

# programs that write to a pipe do not know the length yet when they write the header
PIPED = 0x7FFFF000  # bytes; a wav header then tells 0, or this many or more
UNKNOWN_LENGTH = 2**63 - 1  # samples; what libsndfile makes of such a FLAC header
GIT_LFS = b"version https://git-lfs"


class AudioError(RecipeError):
    """A file that cannot be used; `reason` says why without the file's name."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}.")
        self.reason = reason


def usable_audio(
    corpus: Corpus, read: Callable[[Path], T], progress: bool = True
) -> tuple[dict[str, T], list[Skipped]]:
    """What `read` makes of the audio file of every utterance, by its id; and the files that cannot be used, and why.

    Raises:
        RecipeError: As soon as more than half of the files turn out unusable; the copy is then broken.
    """
    found: dict[str, T] = {}
    unusable: list[Skipped] = []
    for utterance in progress_bar(corpus.utterances, desc="reading audio", unit="file", disable=not progress):
        try:
            found[utterance.id] = read(utterance.path)
        except AudioError as error:
            unusable.append(Skipped(utterance.path, error.reason))
            if 2 * len(unusable) > len(corpus.utterances):
                raise RecipeError(
                    f"{corpus.name}: more than half of its {len(corpus.utterances)} audio files cannot be used. {error}"
                ) from None
    return found, unusable


def check_file(path: Path) -> None:
    """Read it, and keep nothing of it; AudioError when it cannot be used."""
    read_waveform(path)


def read_waveform(path: Path) -> Tensor:
    """As `waveform`, from the file."""
    return waveform(path, file_content(path))


def waveform(path: Path, content: bytes) -> Tensor:
    """Read a file of any rate and number of channels as (samples,): float32, mono, at `SAMPLE_RATE`.

    Raises:
        AudioError: When the file is missing, empty, no audio, truncated, silent, not finite, or shorter than a frame.
    """
    samples, rate = decode(path, content)
    if len(samples) == 0:
        raise AudioError(path, "holds no samples; copy or unpack it again")
    # in numpy: torch's threads cost more than the work on arrays as short as these
    if not np.isfinite(samples).all():
        raise AudioError(path, "holds NaN or infinite samples; convert it again from its source")
    mono = samples.mean(axis=1)
    if mono.min() == mono.max():
        raise AudioError(path, "is digitally silent; copy or unpack it again")
    resampled = resampler(rate)(torch.from_numpy(mono))
    if len(resampled) < SHORTEST:
        raise AudioError(
            path,
            f"is shorter than one frame: {len(resampled)} samples at {SAMPLE_RATE} Hz, of {SHORTEST}; leave it out",
        )
    return resampled


def at_speed(waveform: Tensor, speed: float) -> Tensor:
    """As a tape that runs at another speed: shorter and higher where it is above 1 (Ko et al. 2015)."""
    return waveform if speed == 1 else resampler(round(SAMPLE_RATE * speed))(waveform)


def seconds(path: Path) -> float:
    """How long a file says that it is; 0 where it cannot be read."""
    import soundfile

    try:
        found = soundfile.info(path)
    except soundfile.SoundFileError:
        return 0.0
    return found.duration if found.frames < UNKNOWN_LENGTH else 0.0


@cache
def resampler(rate: int) -> Resample:
    """From `rate` to `SAMPLE_RATE`.

    The filter grows with both terms of the reduced ratio of the rates: for TESS's 24 414 Hz it would take seconds
    and 400 MB. The nearest ratio of small numbers is off by about one part in a million, less than the clock of a
    recorder, and is the exact one for the usual rates.
    """
    ratio = Fraction(rate, SAMPLE_RATE).limit_denominator(1000)
    return Resample(ratio.numerator, ratio.denominator)


def decode(path: Path, content: bytes) -> tuple[np.ndarray, int]:
    """The samples of a file, (samples, channels) float32, and its rate; AudioError unless all of it is there."""
    import soundfile  # here, for training from features reads no audio

    try:
        file = soundfile.SoundFile(io.BytesIO(with_true_length(path, content)))
    except soundfile.SoundFileError:
        raise AudioError(path, "is not audio, or its header is damaged; copy, unpack or convert it again") from None
    with file:
        if file.frames == UNKNOWN_LENGTH:
            raise AudioError(path, "was written to a pipe and does not tell its length; convert it again, to a file")
        try:
            samples = file.read(dtype="float32", always_2d=True)
            complete = len(samples) == file.frames
        except soundfile.SoundFileError:  # what a truncated FLAC file ends in
            complete = False
        if not complete:
            raise AudioError(path, "is truncated or damaged; copy or unpack it again")
        return samples, file.samplerate


def file_content(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise AudioError(path, "does not exist; check the path, or unpack the corpus again") from None
    except OSError as error:
        raise AudioError(path, f"cannot be read ({error.strerror}); check what it is and its permissions") from None
    if not content:
        raise AudioError(path, "is empty (0 bytes); copy or unpack it again")
    if content.startswith(GIT_LFS):
        raise AudioError(path, "is a pointer of Git LFS and not audio; run `git lfs pull` in the corpus's directory")
    return content


def with_true_length(path: Path, content: bytes) -> bytes:
    """A wav file's content; its header then tells as many bytes of sound as there are.

    libsndfile reads a truncated wav without a word, and reads nothing of one that was written to a pipe with a
    length of 0. So the chunks are walked here: some recorders put others before and after the one with the sound.
    """
    if content[:4] != b"RIFF" or content[8:12] != b"WAVE":
        return content
    start = 12
    while start + 8 <= len(content):
        name, size = struct.unpack_from("<4sI", content, start)
        start += 8
        if name == b"data":
            held = len(content) - start
            if size == 0 or size >= PIPED:
                return content[: start - 4] + struct.pack("<I", held) + content[start:]
            if size > held:
                raise AudioError(
                    path, f"is truncated: it holds {held} of the {size} bytes of its sound; copy or unpack it again"
                )
            return content
        start += size + size % 2  # chunks begin at even offsets
    return content
