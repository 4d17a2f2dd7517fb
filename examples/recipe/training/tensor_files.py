"""Tensors in files; apart from `recipe.files`, since torch takes seconds and a script speaks before it is loaded."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from recipe.features.cache import state_digest
from recipe.files import replacing

_DIGEST = "digest"  # among a file's metadata: of all else that it holds


class DamagedError(Exception):
    """A file is not as it was written; the text says why, without its name."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """As safetensors, which hold numbers only: whoever reads them runs nothing of the writer's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # contiguous clones: safetensors refuses views and tensors that share memory
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    metadata = dict(metadata or {})
    with replacing(path) as partial:
        try:
            save_file(whole, partial, metadata={**metadata, _DIGEST: digest(whole, metadata)})
        except SafetensorError as error:  # what a full disk is to it
            raise OSError(str(error)) from None


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote.

    Raises:
        DamagedError: When that is not what the file holds, be it by one bit; safetensors notice a cut alone.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise DamagedError(str(error)) from None
    if metadata.pop(_DIGEST, None) != digest(tensors, metadata):
        raise DamagedError("its checksum differs")
    return tensors, metadata


def digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    found = state_digest(tensors)
    found.update(json.dumps(dict(metadata), sort_keys=True).encode())
    return found.hexdigest()[:32]
