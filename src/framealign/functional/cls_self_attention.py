"""Weights of the frames from their similarity to the CLS output."""

import torch
from torch import Tensor

from framealign._checks import check_choice, check_floating, check_frames, check_like, check_number
from framealign.functional.emotional_attention import cosine_to_anchor
from framealign.masking import compute_dtype, masked_softmax, without_autocast, zero_padding


def cls_attention(
    frames: Tensor,
    cls: Tensor,
    mask: Tensor | None = None,
    *,
    similarity: str = "dot",
    temperature: float = 0.1,
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

    Shape:
        - frames: (batch, time, dim), floating point
        - cls: (batch, dim), floating point
        - mask: (batch, time), bool
        - returns: (batch, time), float32 at least

    Raises:
        TypeError: A tensor is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or an option is not one of those above.

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
    check_frames(frames, mask)
    check_floating("cls", cls, "batch, dim")
    check_like("cls", cls, "batch, dim", frames, "frames", keep=(0, 2))
    with without_autocast(frames):
        dtype = compute_dtype(frames, cls)
        frames, cls = zero_padding(frames, mask).to(dtype), cls.to(dtype)
        if similarity == "cosine":
            logits = cosine_to_anchor(frames, cls) / temperature
        else:
            logits = torch.einsum("btd,bd->bt", frames, cls) / frames.shape[2] ** 0.5
        return masked_softmax(logits, mask)


def check_similarity(similarity: str, temperature: float) -> None:
    check_choice("similarity", similarity, ("dot", "cosine"))
    check_number("temperature", temperature, 0, open_low=True)
