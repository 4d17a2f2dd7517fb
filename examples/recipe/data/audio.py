"""Reading speech, and refusing what is not fit to train on.

soundfile decodes and torchaudio resamples; torchaudio's own `load` needs a further package since 2.9.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

from recipe.data.containers import KNOWN, Truncated, with_true_length
from recipe.data.corpus import Corpus, Skipped
from recipe.errors import RecipeError
from recipe.files import digest
from recipe.progress_bar import progress_bar

if TYPE_CHECKING:
    import soundfile

T = TypeVar("T")

SAMPLE_RATE = 16_000
SHORTEST = 400  # samples in one frame of wav2vec 2.0 and its relatives
BLOCK = 6_000_000  # samples that are read at once, of all channels together: a minute of stereo at 48 kHz

RATES = (4_000, 768_000)  # Hz, that speech is recorded at; a header that tells another lies
LOUDEST = 32  # times full scale; float samples reach a few times 1, and integers that were stored as floats thousands
UNKNOWN_LENGTH = 2**63 - 1  # samples; what libsndfile makes of a FLAC header that was written to a pipe
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


def sound_digest(path: Path) -> str:
    """A fingerprint of what is heard, whatever the name and the container; AudioError when it cannot be used."""
    return digest(read_waveform(path).numpy().tobytes())


def read_waveform(path: Path) -> Tensor:
    """As `waveform`, from the file."""
    return waveform(path, file_content(path))


def waveform(path: Path, content: bytes) -> Tensor:
    """Read a file of any rate and number of channels as (samples,): float32, mono, at `SAMPLE_RATE`.

    Raises:
        AudioError: When the file is missing, empty, no audio, truncated, silent, not finite, or shorter than a frame.
    """
    return torch.cat(list(blocks(path, io.BytesIO(content))))


def blocks(path: Path, stream: BinaryIO) -> Iterator[Tensor]:
    """The same block by block, so that a recording of any length takes the memory of one.

    What is wrong with a file is raised where it is found, a truncated end at the end.
    """
    samples = 0
    with sound_file(path, stream) as file:
        for block in resampled(mono(path, file), resampler(file.samplerate)):
            samples += len(block)
            yield block
    if samples < SHORTEST:
        raise AudioError(
            path, f"is shorter than one frame: {samples} samples at {SAMPLE_RATE} Hz, of {SHORTEST}; leave it out"
        )


def resampled(pieces: Iterator[np.ndarray], resample: Resample) -> Iterator[Tensor]:
    """What `resample` gives for all of them in one, in pieces."""
    orig, new = resample.orig_freq // resample.gcd, resample.new_freq // resample.gcd
    # a sample hears those around it; cuts lie where the filter begins anew
    margin = 0 if orig == new else orig * (2 + resample.width // orig)
    held, given = np.empty(0, np.float32), 0  # samples, and how many at the front were given already
    for piece in pieces:
        ready = (len(held) - margin) // orig * orig  # those behind it wait for the next piece
        if ready > given:
            yield resample(torch.from_numpy(held))[given // orig * new : ready // orig * new]
            cut = max(0, ready - margin)
            held, given = held[cut:], ready - cut
        held = np.concatenate([held, piece])
    yield resample(torch.from_numpy(held))[given // orig * new :]


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


def sound_file(path: Path, stream: BinaryIO) -> "soundfile.SoundFile":
    import soundfile  # here, for training from features reads no audio

    try:
        file = soundfile.SoundFile(with_true_length(stream))
    except Truncated as error:
        raise AudioError(path, f"is truncated: {error}; copy or unpack it again") from None
    except soundfile.SoundFileError:
        raise AudioError(path, "is not audio, or its header is damaged; copy, unpack or convert it again") from None
    if file.format not in KNOWN:
        raise AudioError(path, f"is a {file.format} file, of which a truncated one cannot be told; convert it to FLAC")
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(
            path,
            f"tells a sampling rate of {file.samplerate} Hz, where {RATES[0]} to {RATES[1]} are expected; "
            "convert it again from its source",
        )
    if file.frames == UNKNOWN_LENGTH:
        raise AudioError(path, "was written to a pipe and does not tell its length; convert it again, to a file")
    return file


def mono(path: Path, file: "soundfile.SoundFile") -> Iterator[np.ndarray]:
    """Its samples as they are stored, the mean of the channels; AudioError unless all of them are there, and sound."""
    import soundfile

    samples, low, high = 0, np.inf, -np.inf
    while samples < file.frames:
        try:
            piece = file.read(max(1, BLOCK // file.channels), dtype="float32", always_2d=True)
        except soundfile.SoundFileError:  # what a truncated FLAC file ends in
            piece = np.empty((0, 1))
        if len(piece) == 0:
            raise AudioError(path, "is truncated or damaged; copy or unpack it again")
        samples += len(piece)
        # in numpy: torch's threads cost more than the work on arrays as short as these
        if not np.isfinite(piece).all():
            raise AudioError(path, "holds NaN or infinite samples; convert it again from its source")
        piece = piece.mean(axis=1)
        least, most = piece.min(), piece.max()
        if (peak := max(-least, most)) > LOUDEST:
            raise AudioError(
                path,
                f"holds samples of {peak:.6g}, where full scale is 1: integers stored as floats, it seems; "
                "divide them by their full scale (32768 for 16 bits)",
            )
        low, high = min(low, least), max(high, most)
        yield piece
    if samples == 0:
        raise AudioError(path, "holds no samples; copy or unpack it again")
    if low == high:
        raise AudioError(path, "is digitally silent; copy or unpack it again")


def file_content(path: Path) -> bytes:
    with content_of(path) as stream:
        return stream.read()


@contextlib.contextmanager
def content_of(path: Path) -> Iterator[BinaryIO]:
    """A file's content, which may be too long to be read at once; AudioError where there is none."""
    try:
        with path.open("rb") as stream:
            start = stream.read(len(GIT_LFS))
            if not start:
                raise AudioError(path, "is empty (0 bytes); copy or unpack it again")
            if start == GIT_LFS:
                raise AudioError(
                    path, "is a pointer of Git LFS and not audio; run `git lfs pull` in the corpus's directory"
                )
            stream.seek(0)
            yield stream
    except FileNotFoundError:
        raise AudioError(path, "does not exist; check the path, or unpack the corpus again") from None
    except OSError as error:  # while it is read, too
        raise AudioError(path, f"cannot be read ({error.strerror}); check what it is and its permissions") from None
