"""What passes between a caller, the operator, and what computes it: `eager`, `packed` and `triton_frame_stats`.

Each of these has `forward(Request) -> Outputs` and `backward(Saved, Gradients, Needs) -> Found`.
"""

from typing import NamedTuple

from torch import Tensor


class FrameStats(NamedTuple):
    """What one read of the frames gives; a part that was not asked for is None.

    Attributes:
        dots: (batch, time, columns), dot product of each frame and each column; 0 on padding.
        norms: (batch, time), length of each frame; 0 on padding.
        weights: (batch, time), softmax of the logits over real frames; 0 on padding.
        pooled: (batch, dim), the sum of the frames so weighted.
    """

    dots: Tensor
    norms: Tensor | None
    weights: Tensor | None
    pooled: Tensor | None


class Request(NamedTuple):
    """What a call asks for, in the order of the operator's arguments; columns and logits in the compute dtype."""

    frames: Tensor
    columns: Tensor
    logits: Tensor | None = None
    mask: Tensor | None = None
    cu_seqlens: Tensor | None = None
    attend: bool = False
    norms: bool = False
    backend: str = "auto"


class Saved(NamedTuple):
    """What forward leaves for backward; what was not asked for is empty."""

    frames: Tensor
    columns: Tensor
    norms: Tensor
    weights: Tensor
    pooled: Tensor
    mask: Tensor | None
    cu_seqlens: Tensor | None
    attend: bool
    has_logits: bool
    backend: str = "auto"


class Gradients(NamedTuple):
    """Those that came to the outputs; None is 0, and so is that of an output that was not asked for."""

    dots: Tensor | None
    norms: Tensor | None
    weights: Tensor | None
    pooled: Tensor | None


class Needs(NamedTuple):
    """Which gradients are needed."""

    frames: bool = True
    columns: bool = True
    logits: bool = True


Outputs = tuple[Tensor, Tensor, Tensor, Tensor]  # dots, norms, weights and pooled; empty where not asked for
Found = tuple[Tensor | None, Tensor | None, Tensor | None]  # gradients of frames, columns and logits; None: not needed
