"""Attentive pooling: a weighted sum of frames, the weights a softmax over the real ones."""

from torch import Tensor

from framealign._checks import Backend, check_backend, check_scalars
from framealign._precision import compute_dtype
from framealign.kernels import attentive as kernel
from framealign.kernels.frame_stats import frame_stats_core
from framealign.layout import Layout, Padded, checked_layout


def attentive_pooling(
    frames: Tensor,
    logits: Tensor,
    mask: Tensor | None = None,
    *,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> tuple[Tensor, Tensor]:
    r"""Pool frames by a softmax over the logits of the real ones.

    $$a_t = \mathrm{softmax}_t(e_t), \qquad u = \sum_t a_t h_t$$

    Args:
        frames: The frame embeddings $h_t$.
        logits: The frames' scores $e_t$.
        mask: True at real frames; None means that every frame is real.
        cu_seqlens: Cumulative lengths of packed frames; then `frames` is (frames, dim) and per-frame tensors (frames,).
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - logits: (batch, time), floating point
        - mask: (batch, time), bool
        - cu_seqlens: (batch + 1,), integer
        - returns: utterance (batch, dim) in the dtype of `frames`, and weights (batch, time) in float32 at least

    Raises:
        TypeError: A tensor is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Equation 1 of Byun and Lee 2025, after Okabe et al. 2018.

    Example:
        >>> import torch
        >>> from framealign.functional import attentive_pooling
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> mask = torch.tensor([[True, True, False]])
        >>> utterance, weights = attentive_pooling(frames, torch.zeros(1, 3), mask)
        >>> utterance, weights
        (tensor([[2.]]), tensor([[0.5000, 0.5000, 0.0000]]))
    """
    check_backend(backend)
    layout = checked_layout(frames, mask, cu_seqlens)
    check_scalars("logits", logits, frames, "frames", cu_seqlens)
    return attentive_pooling_core(frames, layout, backend, logits=logits)


def attentive_pooling_core(
    frames: Tensor, layout: Layout, backend: Backend, *, logits: Tensor | None = None, query: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The utterance in the frames' dtype, and the weights; by logits, by dot products with a query, or equal ones."""
    scores = query if logits is None else logits
    if isinstance(layout, Padded) and backend != "triton" and kernel.can_take(frames, layout, scores):
        if query is not None:
            return kernel.attend(frames, query, layout)
        weights = layout.equal_weights(frames.dtype) if logits is None else layout.softmax(logits)
        return kernel.weighted_sum(frames, weights, layout), weights
    if logits is None and query is None:
        logits = frames.new_zeros(layout.frame_shape, dtype=compute_dtype(frames))
    stats = frame_stats_core(frames, query, layout, logits=logits, attend=True, backend=backend)
    assert stats.pooled is not None
    assert stats.weights is not None
    return stats.pooled.to(frames.dtype), stats.weights
