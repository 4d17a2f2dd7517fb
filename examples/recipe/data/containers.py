"""Whether a file holds as much sound as its header says.

libsndfile reads a truncated wav, AIFF, AU, NIST, Wave64 or Ogg file without a word, as if that were all, and takes what
stands behind the sound of a wav that was written to a pipe for sound. So the headers are read here too.
"""

import io
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# Whose truncation is noticed, here or while they are decoded
KNOWN = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "NIST", "CAF", "FLAC", "OGG", "MP3")

# Programs that write to a pipe do not know the length yet when they write the header
PIPED = 0x7FFFF000  # bytes; a header then tells 0, or this many or more
MOST_CHUNKS = 1000  # that are walked over; a damaged file may look like millions of empty ones
TAIL = 16 * 2**20  # bytes at the end of a file in which chunks behind the sound are looked for
BEHIND = re.compile(
    rb"LIST|id3 |ID3 |bext|iXML|cue |smpl|fact|PEAK|JUNK|PAD |FLLR|DISP|_PMX|axml|acid|inst|plst|afsp|cart|umid|minf"
)


@dataclass(frozen=True)
class Promise:
    """The bytes of sound that a header tells, and those behind it in the file."""

    told: int
    start: int  # where the sound begins
    place: int  # where the header tells it
    form: str  # in which struct format


class Truncated(ValueError):
    """Less than the header tells."""


def with_true_length(stream: BinaryIO) -> BinaryIO:
    """The same content, from its beginning; a header that tells no length then tells that of the sound there is.

    Raises:
        Truncated: When the file holds less than it tells.
    """
    length = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    start = stream.read(16)
    stream.seek(0)
    found = Repaired(stream, 0, b"")
    if start[:4] == b"OggS":
        check_last_page(stream, length)
    elif (promise := promise_of(stream, start)) is not None:
        held = max(0, length - promise.start)
        if 0 < held < PIPED and (promise.told == 0 or promise.told >= PIPED):
            end = sound_end(stream, promise.start, length) if start[:4] in (b"RIFF", b"RIFX", b"RF64") else length
            found = Repaired(stream, promise.place, struct.pack(promise.form, end - promise.start))
        elif promise.told > held:
            raise Truncated(f"it holds {held} of the {promise.told} bytes of its sound")
    found.seek(0)
    return found


def promise_of(stream: BinaryIO, start: bytes) -> Promise | None:
    """None for containers that are none of these, or have no sound."""
    if start[:4] in (b"RIFF", b"RF64", b"BW64", b"RIFX") and start[8:12] == b"WAVE":
        return of_wav(stream, ">" if start[:4] == b"RIFX" else "<")
    if start[:4] == b"FORM" and start[8:12] in (b"AIFF", b"AIFC"):
        return of_aiff(stream)
    if start[:4] == b"riff":
        return of_wave64(stream)
    if start[:4] == b"caff":
        return of_caf(stream)
    if start[:4] in (b".snd", b"dns."):
        return of_au(stream, ">" if start[:4] == b".snd" else "<")
    if start[:7] == b"NIST_1A":
        return of_nist(stream)
    return None


def chunks(stream: BinaryIO, at: int, form: str, padding: int = 1, own: int = 0) -> Iterator[tuple[bytes, int, int]]:
    """Name, place of the content, and size, of chunks whose header has the struct format `form`.

    Chunks begin at multiples of `padding`; their size counts `own` bytes of their header.
    """
    header = struct.calcsize(form)
    for _ in range(MOST_CHUNKS):
        if len(content := _at(stream, at, header)) < header:
            return
        name, size = struct.unpack(form, content)
        yield name, at + header, size - own
        at += header + max(size - own, 0)
        at += -at % padding


def of_wav(stream: BinaryIO, order: str) -> Promise | None:
    """Some recorders put other chunks before the one with the sound. RF64 tells a length above 4 GB in one of them."""
    long: Promise | None = None
    for name, place, size in chunks(stream, 12, order + "4sI", padding=2):
        if name == b"ds64" and len(told := _at(stream, place + 8, 8)) == 8:
            long = Promise(struct.unpack("<Q", told)[0], 0, place + 8, "<Q")
        if name == b"data":
            if long is not None and size == 2**32 - 1:
                return Promise(long.told, place, long.place, long.form)
            return Promise(size, place, place - 4, order + "I")
    return None


def of_aiff(stream: BinaryIO) -> Promise | None:
    found = (
        Promise(size, place, place - 4, ">I") for name, place, size in chunks(stream, 12, ">4sI", 2) if name == b"SSND"
    )
    return next(found, None)


def of_wave64(stream: BinaryIO) -> Promise | None:
    for name, place, size in chunks(stream, 40, "<16sQ", padding=8, own=24):
        if name[:4] == b"data":
            return Promise(size, place, place - 8, "<Q")
    return None


def of_caf(stream: BinaryIO) -> Promise | None:
    found = (
        Promise(size, place, place - 8, ">q") for name, place, size in chunks(stream, 8, ">4sq") if name == b"data"
    )
    return next(found, None)


def of_au(stream: BinaryIO, order: str) -> Promise | None:
    content = _at(stream, 4, 8)
    if len(content) < 8:
        return None
    start, told = struct.unpack(order + "II", content)
    return Promise(told, start, 8, order + "I")


def of_nist(stream: BinaryIO) -> Promise | None:
    """A header in words; one that leaves out how large its samples are promises nothing."""
    start = _at(stream, 0, 1024).decode("ascii", errors="replace")
    size = re.match(r"NIST_1A\s+(\d{1,6})", start)
    fields = dict(re.findall(r"^(\w+) -(?:i|s\d+) (\d{1,15})$", start, re.M))
    try:
        told = int(fields["sample_count"]) * int(fields["sample_n_bytes"]) * int(fields["channel_count"])
    except KeyError:
        return None
    return Promise(told, int(size[1]), 0, "") if size and told else None


def check_last_page(stream: BinaryIO, length: int) -> None:
    """Ogg tells no length. A file that was cut ends within a page, but for a cut where a page ends."""
    at = 0
    while at < length:
        header = _at(stream, at, 27)
        if header[:4] != b"OggS":
            return  # something else stands between or behind the pages, which decoders pass over
        sizes = _at(stream, at + 27, header[26]) if len(header) == 27 else b""
        if len(header) < 27 or len(sizes) < header[26] or (end := at + 27 + len(sizes) + sum(sizes)) > length:
            raise Truncated("its last page is not whole")
        at = end


def sound_end(stream: BinaryIO, start: int, length: int) -> int:
    """Where the sound ends of a wav that does not tell: at the end of the file, or where the chunks behind it begin.

    Those are taken for such where one follows the other up to the last byte of the file.
    """
    tail = max(start, length - TAIL)
    tail += (tail - start) % 2
    content = _at(stream, tail, length - tail)
    for match in BEHIND.finditer(content):
        if match.start() % 2 == 0:
            end = match.start()
            for _, place, size in chunks(io.BytesIO(content), match.start(), "<4sI", padding=2):
                end = place + size
            if len(content) <= end + end % 2 <= len(content) + 1:
                return tail + match.start()
    return length


def _at(stream: BinaryIO, place: int, count: int) -> bytes:
    if place >= 2**63:  # where no file reaches, and no seek
        return b""
    stream.seek(place)
    return stream.read(count)


class Repaired(io.RawIOBase):
    """A stream with some bytes in the place of those that it holds.

    Asked for a place before its beginning, as libsndfile does for some damaged files, it stays where it is: an error
    would be printed from within libsndfile.
    """

    def __init__(self, stream: BinaryIO, place: int, content: bytes) -> None:
        self.stream, self.place, self.content = stream, place, content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self.stream.seek(offset, whence)
        except (ValueError, OSError):
            return self.stream.tell()

    def tell(self) -> int:
        return self.stream.tell()

    def readinto(self, buffer) -> int:
        start = self.stream.tell()
        count = self.stream.readinto(buffer)
        first, last = max(start, self.place), min(start + count, self.place + len(self.content))
        if first < last:
            buffer[first - start : last - start] = self.content[first - self.place : last - self.place]
        return count
