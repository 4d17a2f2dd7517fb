"""Emotional Attention Loss (EAL): frames keep a cosine above a margin to their utterance's anchor."""

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign._checks import check_choice, check_floating, check_frames, check_labels, check_like, check_number
from framealign.functional._reduction import reduce_utterances
from framealign.masking import compute_dtype, frame_counts, masked_mean, without_autocast, zero_padding

UNLABELLED = -100  # `ignore_index` of torch's cross-entropy


def emotional_attention_loss(
    frames: Tensor,
    anchor: Tensor,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    margin: float = 0.8,
    beta: float = 1.0,
    negative_margin: float | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The function behind [`EmotionalAttentionLoss`][framealign.EmotionalAttentionLoss], which documents it.

    Example:
        >>> import torch
        >>> from framealign.functional import emotional_attention_loss
        >>> anchor = torch.tensor([[1.0, 0.0]])
        >>> frames = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])  # cosines 1 and 0
        >>> emotional_attention_loss(frames, anchor, margin=0.8)  # (0.598 + 1.171) / 2
        tensor(0.8846)
    """
    check_eal_options(margin, beta, negative_margin, reduction)
    check_frames(frames, mask)
    if anchor is None:
        raise TypeError(
            "`anchor` must be a tensor of shape (batch, dim), got None; "
            "for a pooling without CLS pass `pooled.utterance` as the anchor."
        )
    check_floating("anchor", anchor, "batch, dim")
    check_like("anchor", anchor, "batch, dim", frames, "frames", keep=(0, 2))
    if labels is not None:
        check_labels(labels, frames, "frames")
    elif negative_margin is not None:
        raise ValueError("`labels` are required with `negative_margin`, got None.")

    dtype = compute_dtype(frames, anchor)
    with without_autocast(frames):
        counts = frame_counts(frames, mask)
        frames = zero_padding(frames, mask).to(dtype)
        # nan in the anchor of an utterance without frames would reach the gradients of the others' frames
        anchor = anchor.masked_fill(counts[:, None] == 0, 0.0).to(dtype)
        losses = F.softplus(margin - cosine_to_anchor(frames, anchor), beta=beta)  # (batch, time)
        if reduction == "frames":
            return zero_padding(losses, mask).sum() / counts.sum().clamp_min(1)
        per_utterance = masked_mean(losses, mask)
        if negative_margin is not None and labels is not None:
            per_utterance = per_utterance + _other_classes(
                frames, anchor, mask, labels, counts > 0, negative_margin, beta
            )
        return reduce_utterances(per_utterance, counts > 0, reduction)


def check_eal_options(margin: float, beta: float, negative_margin: float | None, reduction: str) -> None:
    check_number("margin", margin, -1, 1)
    check_number("beta", beta, 0, open_low=True)
    check_choice("reduction", reduction, ("mean", "frames", "sum", "none"))
    if negative_margin is not None:
        check_number("negative_margin", negative_margin, -1, 1)
        if reduction == "frames":
            raise ValueError('`reduction="frames"` has no meaning with `negative_margin`; use "mean", "sum" or "none".')


def cosine_to_anchor(frames: Tensor, anchor: Tensor) -> Tensor:
    """Cosine of each frame (batch, time, dim) to its utterance's anchor (batch, dim): (batch, time).

    Where either vector is zero the cosine is 0 and so is its gradient; `F.cosine_similarity` divides by a
    small constant there instead, which makes the gradient huge.
    """
    return _cosine(torch.einsum("btd,bd->bt", frames, anchor), _norm(frames), _norm(anchor)[:, None])


def _other_classes(
    frames: Tensor,
    anchor: Tensor,
    mask: Tensor | None,
    labels: Tensor,
    has_frames: Tensor,
    negative_margin: float,
    beta: float,
) -> Tensor:
    """For each utterance i, the mean over utterances j of another label of the mean over j's frames."""
    dots = torch.einsum("id,jtd->ijt", anchor, frames)
    cosines = _cosine(dots, _norm(frames), _norm(anchor)[:, None, None])
    losses = F.softplus(cosines - negative_margin, beta=beta)
    if mask is not None:
        losses = losses.masked_fill(~mask, 0.0)
    losses = losses.sum(dim=2) / frame_counts(frames, mask).clamp_min(1)
    usable = has_frames & (labels != UNLABELLED)
    pairs = (labels[:, None] != labels) & usable[:, None] & usable
    return losses.masked_fill(~pairs, 0.0).sum(dim=1) / pairs.sum(dim=1).clamp_min(1)


def _norm(vectors: Tensor) -> Tensor:
    squares = vectors.square().sum(dim=-1)
    zero = squares == 0  # no root is taken there: its derivatives, vector_norm's second one too, are not finite
    return squares.masked_fill(zero, 1.0).sqrt().masked_fill(zero, 0.0)


def _cosine(dots: Tensor, first: Tensor, second: Tensor) -> Tensor:
    zero = ((first == 0) | (second == 0)) & dots.isfinite()  # nan against zero stays nan
    # One division after the other: the product of two norms leaves float32's range before either of them does
    cosines = dots / first.masked_fill(first == 0, 1.0) / second.masked_fill(second == 0, 1.0)
    return cosines.masked_fill(zero, 0.0)
