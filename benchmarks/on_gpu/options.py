"""What a part of `gpu.py` is told."""

from typing import NamedTuple

import torch


class Options(NamedTuple):
    """`tiny` is the rehearsal on a CPU: everything runs once, on small shapes. `seconds` is the part's time, in all."""

    device: torch.device
    tiny: bool
    seconds: float
