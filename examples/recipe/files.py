"""Files that are whole or not there, whatever stops the process that writes them."""

import contextlib
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    with replacing(path) as partial:
        partial.write_bytes(content)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """As safetensors, which hold numbers only: whoever reads them runs nothing of the writer's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # contiguous clones: safetensors refuses views and tensors that share memory
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with replacing(path) as partial:
        save_file(whole, partial, metadata=dict(metadata or {}))


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
