"""Weights of the frames from their similarity to the CLS output."""

from torch import Tensor

from framealign._checks import Backend, check_backend, check_choice, check_floating, check_like, check_number
from framealign._precision import compute_dtype
from framealign.functional._cosine import cosine_to_anchor
from framealign.kernels.frame_stats import frame_stats_core
from framealign.kernels.interface import FrameStats
from framealign.layout import Layout, checked_layout


def cls_attention(
    frames: Tensor,
    cls: Tensor,
    mask: Tensor | None = None,
    *,
    similarity: str = "dot",
    temperature: float = 0.1,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""Attention weights from the similarity of each frame to the CLS output.

    $$a = \mathrm{softmax}_t\,\mathrm{sim}(z_{\mathrm{cls}}, z_t), \qquad
      \mathrm{sim} = \frac{z_{\mathrm{cls}} \cdot z_t}{\sqrt D}
      \quad\text{or}\quad \frac{\cos(z_{\mathrm{cls}}, z_t)}{\tau}$$

    Args:
        frames: The encoded frames $z_t$.
        cls: The CLS output $z_{\mathrm{cls}}$ of each utterance.
        mask: True at real frames; None means that every frame is real.
        similarity: `"dot"`, over $\sqrt D$, or `"cosine"`, over `temperature`.
        temperature: $\tau$; only the cosine uses it.
        cu_seqlens: Cumulative lengths of packed frames; then `frames` is (frames, dim), and the result (frames,).
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - cls: (batch, dim), floating point
        - mask: (batch, time), bool
        - cu_seqlens: (batch + 1,), integer
        - returns: (batch, time), float32 at least

    Raises:
        TypeError: A tensor is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or an option is not one of those above.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Equation 5 of Byun and Lee 2025; the paper leaves the similarity open.

    Example:
        >>> import torch
        >>> from framealign.functional import cls_attention
        >>> frames = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
        >>> cls_attention(frames, torch.tensor([[5.0, 0.0]]), similarity="cosine", temperature=1.0)
        tensor([[0.7311, 0.2689]])
    """
    check_similarity(similarity, temperature)
    check_backend(backend)
    layout = checked_layout(frames, mask, cu_seqlens)
    check_floating("cls", cls, "batch, dim")
    check_like("cls", cls, "batch, dim", (layout.batch, frames.shape[-1]), frames, "frames")
    stats = frame_stats_core(frames, cls[:, None], layout, norms=similarity == "cosine", backend=backend)
    return layout.softmax(cls_scores(stats, cls, layout, similarity, temperature))


def cls_attention_core(
    frames: Tensor, cls: Tensor, layout: Layout, similarity: str, temperature: float, backend: Backend
) -> tuple[Tensor, Tensor]:
    """The weights, and the frames so weighted, in the dtype of the weights."""
    if similarity == "cosine":
        stats = frame_stats_core(frames, cls[:, None], layout, norms=True, backend=backend)
        logits = cls_scores(stats, cls, layout, similarity, temperature)
        stats = frame_stats_core(frames, None, layout, logits=logits, attend=True, backend=backend)
    else:
        query = cls.to(compute_dtype(cls))[:, None] / cls.shape[1] ** 0.5
        stats = frame_stats_core(frames, query, layout, attend=True, backend=backend)
    assert stats.weights is not None
    assert stats.pooled is not None
    return stats.weights, stats.pooled


def cls_scores(stats: FrameStats, cls: Tensor, layout: Layout, similarity: str, temperature: float) -> Tensor:
    """Before the softmax; the CLS is the first column of `stats`."""
    if similarity == "cosine":
        return cosine_to_anchor(stats, cls, layout) / temperature
    scores: Tensor = stats.dots[..., 0] / cls.shape[1] ** 0.5
    return scores


def check_similarity(similarity: str, temperature: float) -> None:
    check_choice("similarity", similarity, ("dot", "cosine"))
    check_number("temperature", temperature, 0, open_low=True)
