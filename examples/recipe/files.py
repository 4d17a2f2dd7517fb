"""Paths as people write them; and files that are whole or not there, whatever stops the process that writes them."""

import argparse
import contextlib
import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from recipe.errors import RecipeError


def home_expanded(text: str) -> Path:
    """The type of an option that is a path: shells leave the `~` of `--data=~/corpus` alone, and so do option files."""
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(f"{text}: no home folder is known by that name") from None


def digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def write_text(path: Path, text: str) -> None:
    """In utf-8; what a file name has of other encodings as escapes."""
    write_bytes(path, text.encode("utf-8", errors="backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name to write under; what is there at the end takes the place of `path`, unless an error came before it.

    Raises:
        RecipeError: When it cannot be written: a full disk, a folder that is not ours.
    """
    # of its own: runs that share a folder may write the same file, from machines with the same process numbers
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())  # a rename may otherwise outlive a power cut, and the content not
        partial.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RecipeError(
                f"{path}: cannot be written ({error.strerror or error}). Make room, or name another folder; what is "
                "finished is kept, and the same command goes on."
            ) from None
        raise
