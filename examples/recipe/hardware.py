"""What a run computes on: devices and processes, precision and compiler."""

import os

import torch
from accelerate import Accelerator
from accelerate.utils import TorchDynamoPlugin

from recipe.command_line import Options
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone


def equipment(options: Options, backbone: Backbone, accelerator: Accelerator) -> str:
    millions = sum(p.numel() for p in backbone.parameters()) / 1e6
    precision = "float32" if accelerator.mixed_precision == "no" else accelerator.mixed_precision
    text = f"backbone {options.backbone}: {millions:.1f} M parameters, on {accelerator.device}, {precision}"
    processes = accelerator.num_processes
    return f"{text}, {processes} processes" if processes > 1 else text


def check_processes(accelerator: Accelerator) -> None:
    """Refuse processes that a launcher started and that do not know of each other: each would train everything."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != accelerator.num_processes:
        raise RecipeError(
            f"{started} processes were started, and {accelerator.num_processes} found each other; "
            "on a CPU, set ACCELERATE_USE_CPU=true."
        )


def resolved_precision(precision: str, backbone: Backbone | type[Backbone]) -> str:
    """What "auto" stands for: what the backbone asks for, or bf16 where the hardware computes with it."""
    if precision != "auto":
        return precision
    if backbone.precision is not None:
        return backbone.precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "no"


def dynamo(compiled: bool) -> TorchDynamoPlugin | None:
    return TorchDynamoPlugin(backend="inductor", dynamic=True) if compiled else None
