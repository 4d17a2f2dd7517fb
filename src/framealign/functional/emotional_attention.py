"""Emotional Attention Loss (EAL): frames keep a cosine above a margin to their utterance's anchor."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign._checks import (
    Backend,
    check_backend,
    check_choice,
    check_floating,
    check_labels,
    check_like,
    check_number,
)
from framealign.functional._cosine import cosine, cosine_to_anchor
from framealign.functional._reduction import UNLABELLED, reduce_utterances
from framealign.kernels.definition import norm
from framealign.kernels.frame_stats import frame_stats_core
from framealign.kernels.interface import FrameStats
from framealign.layout import Layout, checked_layout, mean
from framealign.masking import zero_padding


class EALOptions(NamedTuple):
    """Options of the loss, and their defaults."""

    margin: float = 0.8
    beta: float = 1.0
    negative_margin: float | None = None
    reduction: str = "mean"

    def checked(self) -> "EALOptions":
        check_number("margin", self.margin, -1, 1)
        check_number("beta", self.beta, 0, open_low=True)
        check_choice("reduction", self.reduction, ("mean", "frames", "sum", "none"))
        if self.negative_margin is not None:
            check_number("negative_margin", self.negative_margin, -1, 1)
            if self.reduction == "frames":
                raise ValueError(
                    '`reduction="frames"` has no meaning with `negative_margin`; use "mean", "sum" or "none".'
                )
        return self


DEFAULTS = EALOptions()


def emotional_attention_loss(
    frames: Tensor,
    anchor: Tensor,
    mask: Tensor | None = None,
    labels: Tensor | None = None,
    *,
    margin: float = DEFAULTS.margin,
    beta: float = DEFAULTS.beta,
    negative_margin: float | None = DEFAULTS.negative_margin,
    reduction: str = DEFAULTS.reduction,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
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
    options = EALOptions(margin, beta, negative_margin, reduction).checked()
    check_backend(backend)
    layout = checked_layout(frames, mask, cu_seqlens)
    if anchor is None:
        raise TypeError(
            "`anchor` must be a tensor of shape (batch, dim), got None; "
            "for a pooling without CLS pass `pooled.utterance` as the anchor."
        )
    check_floating("anchor", anchor, "batch, dim")
    check_like("anchor", anchor, "batch, dim", (layout.batch, frames.shape[-1]), frames, "frames")
    if labels is not None:
        check_labels(labels, layout.batch, frames, "frames")
    elif negative_margin is not None:
        raise ValueError("`labels` are required with `negative_margin`, got None.")

    anchor = safe_anchor(anchor, layout)
    stats = frame_stats_core(frames, anchor_columns(anchor, negative_margin), layout, norms=True, backend=backend)
    return emotional_attention_loss_core(stats, anchor, layout, labels, options)


def safe_anchor(anchor: Tensor, layout: Layout) -> Tensor:
    """Zero for an utterance without frames: nan there would reach the gradients of the others' frames."""
    return anchor.masked_fill(layout.counts[:, None] == 0, 0.0)


def anchor_columns(anchor: Tensor, negative_margin: float | None) -> Tensor:
    """What the frames of each utterance are compared with: its own anchor, then those of all with `negative_margin`."""
    own = anchor[:, None]
    if negative_margin is None:
        return own
    return torch.cat([own, anchor.expand(anchor.shape[0], -1, -1)], dim=1)


def emotional_attention_loss_core(
    stats: FrameStats, anchor: Tensor, layout: Layout, labels: Tensor | None, options: EALOptions
) -> Tensor:
    """The loss; the first columns of `stats` are those of `anchor_columns`."""
    losses = F.softplus(options.margin - cosine_to_anchor(stats, anchor, layout), beta=options.beta)
    if options.reduction == "frames":
        return zero_padding(losses, layout.mask).sum() / layout.counts.sum().clamp_min(1)
    per_utterance = mean(losses, layout)
    if options.negative_margin is not None and labels is not None:
        per_utterance = per_utterance + _other_classes(stats, anchor, layout, labels, options)
    return reduce_utterances(per_utterance, layout.counts > 0, options.reduction)


def _other_classes(stats: FrameStats, anchor: Tensor, layout: Layout, labels: Tensor, options: EALOptions) -> Tensor:
    """For each utterance i, the mean over utterances j of another label of the mean over j's frames."""
    assert stats.norms is not None
    assert options.negative_margin is not None
    lengths = norm(anchor.to(stats.dots.dtype))
    cosines = cosine(stats.dots[..., 1 : 1 + anchor.shape[0]], stats.norms[..., None], lengths)
    losses = F.softplus(cosines - options.negative_margin, beta=options.beta)
    losses = mean(losses, layout).T  # of anchor i to the frames of j
    usable = (layout.counts > 0) & (labels != UNLABELLED)
    pairs = (labels[:, None] != labels) & usable[:, None] & usable
    return losses.masked_fill(~pairs, 0.0).sum(dim=1) / pairs.sum(dim=1).clamp_min(1)
