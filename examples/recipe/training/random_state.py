"""The states of all random generators that a training draws from, as tensors that a checkpoint can hold.

Dropout draws from torch's, of the device it runs on; SpecAugment inside transformers' encoders from numpy's.
"""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    _, keys, place, has_gauss, gauss = np.random.get_state()  # noqa: NPY002  the one that is drawn from
    found = {
        "torch": torch.get_rng_state(),
        "numpy": torch.tensor([*keys.tolist(), place, has_gauss]),
        "numpy_gauss": torch.tensor(gauss, dtype=torch.float64),
    }
    if device.type == "cuda":
        found["cuda"] = torch.cuda.get_rng_state(device)
    return found


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["torch"])
    *keys, place, has_gauss = state["numpy"].tolist()
    state_of_numpy = ("MT19937", np.array(keys, np.uint32), place, has_gauss, float(state["numpy_gauss"]))
    np.random.set_state(state_of_numpy)  # noqa: NPY002
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
