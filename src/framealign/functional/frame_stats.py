"""What one read of the frames gives: the primitive that the losses and poolings are small arithmetic on."""

from torch import Tensor

from framealign._checks import Backend, check_backend, check_floating, check_like, check_scalars
from framealign.kernels.frame_stats import frame_stats_core
from framealign.kernels.interface import FrameStats
from framealign.layout import checked_layout


def frame_stats(
    frames: Tensor,
    columns: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    logits: Tensor | None = None,
    attend: bool = False,
    norms: bool = False,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> FrameStats:
    r"""Dot products of frames with a few columns, their norms, and the frames pooled by attention.

    $$P_{tk} = A_k \cdot z_t, \qquad n_t = |z_t|, \qquad a_t = \mathrm{softmax}_t(e_t), \qquad u = \sum_t a_t z_t$$

    The frames are read once, in forward as in backward, and their gradient is written once. Nothing in the size of
    the frames is kept for backward but the frames themselves. Padding is never read, and its gradient is exactly 0.
    The losses and poolings of this library are small arithmetic on this; use it for your own.

    Args:
        frames: The frames $z_t$.
        columns: The columns $A_k$ of each utterance: an anchor, a query, the rows of a classifier. One tensor for all
            utterances is `columns.expand(batch, -1, -1)`, which copies nothing of it; None is no columns.
        mask: True at real frames; None means that every frame is real.
        logits: Scores $e_t$ of the frames, for `attend`; None takes the dot products with the last column.
        attend: Whether to compute `weights` and `pooled`.
        norms: Whether to compute `norms`; the gradient of the norm of a zero frame is 0.
        cu_seqlens: Cumulative lengths of packed frames, in place of `mask`; then `frames` is (frames, dim), `dots`
            (frames, columns), and what is (batch, time) is (frames,).
        backend: `"auto"` takes the Triton kernels on CUDA where they can take the call, `"triton"` raises where they
            cannot, `"eager"` is PyTorch.

    Shape:
        - frames: (batch, time, dim), floating point
        - columns: (batch, columns, dim), floating point
        - mask: (batch, time), bool; cu_seqlens: (batch + 1,), integer
        - logits: (batch, time), floating point
        - returns: dots (batch, time, columns), norms (batch, time), weights (batch, time), pooled (batch, dim), all
          in float32 at least; None where not asked for

    Raises:
        TypeError: A tensor is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or `attend` has neither `columns` nor `logits`.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Example:
        >>> import torch
        >>> from framealign.functional import frame_stats
        >>> frames = torch.tensor([[[3.0, 4.0], [0.0, 1.0]]])
        >>> stats = frame_stats(frames, torch.tensor([[[1.0, 0.0]]]), norms=True)
        >>> stats.dots.squeeze(2), stats.norms
        (tensor([[3., 0.]]), tensor([[5., 1.]]))
    """
    check_backend(backend)
    layout = checked_layout(frames, mask, cu_seqlens)
    if columns is not None:
        check_floating("columns", columns, "batch, columns, dim")
        expected = layout.batch, columns.shape[1], frames.shape[-1]
        check_like("columns", columns, "batch, columns, dim", expected, frames, "frames")
    if logits is not None:
        check_scalars("logits", logits, frames, "frames", cu_seqlens)
    elif attend and (columns is None or columns.shape[1] == 0):
        raise ValueError("`attend` needs `logits`, or `columns` whose last one is the query, got neither.")
    return frame_stats_core(frames, columns, layout, logits=logits, attend=attend, norms=norms, backend=backend)
