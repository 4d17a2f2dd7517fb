"""On a CPU the kernels run too, in Triton's interpreter."""

import torch
from torch import Tensor

from framealign.kernels import operator


def interpret_kernels() -> None:
    """Let `frame_stats` send float32 work on the CPU to the kernels; TRITON_INTERPRET=1 must be set."""
    decide = operator.why_not_triton

    def why_not_triton(frames: Tensor, columns: Tensor) -> str | None:
        from framealign.kernels import triton_frame_stats

        if frames.device.type == "cpu" and columns.dtype == torch.float32:
            return triton_frame_stats.why_not(frames, columns)
        reason: str | None = decide(frames, columns)
        return reason

    operator.why_not_triton = why_not_triton
