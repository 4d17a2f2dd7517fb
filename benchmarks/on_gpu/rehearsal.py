"""On a CPU the kernels run too, in Triton's interpreter."""

import importlib

import torch
from torch import Tensor

# the package's own `frame_stats` is a function
frame_stats = importlib.import_module("framealign.kernels.frame_stats")


def interpret_kernels() -> None:
    """Let `frame_stats` send float32 work on the CPU to the kernels; TRITON_INTERPRET=1 must be set."""
    decide = frame_stats.why_not_triton

    def why_not_triton(frames: Tensor, columns: Tensor) -> str | None:
        from framealign.kernels import triton_frame_stats

        if frames.device.type == "cpu" and columns.dtype == torch.float32:
            return triton_frame_stats.why_not(frames, columns)
        reason: str | None = decide(frames, columns)
        return reason

    frame_stats.why_not_triton = why_not_triton
