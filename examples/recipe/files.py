"""Files that are whole or not there, whatever stops the process that writes them."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under; what is there at the end takes the place of `path`, unless an error came before it."""
    # of its own: runs that share a folder may write the same file, from machines with the same process numbers
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # a rename may otherwise outlive a power cut, and the content not
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
