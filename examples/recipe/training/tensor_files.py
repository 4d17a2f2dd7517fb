"""Tensors in files; apart from `recipe.files`, since torch takes seconds and a script speaks before it is loaded."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from recipe.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """As safetensors, which hold numbers only: whoever reads them runs nothing of the writer's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # contiguous clones: safetensors refuses views and tensors that share memory
    whole = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    with replacing(path) as partial:
        save_file(whole, partial, metadata=dict(metadata or {}))
