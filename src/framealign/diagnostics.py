"""What a training run should watch: concentration, collapse and agreement, one value for each utterance.

EAL and FUAL alone are minimised by collapse, every frame equal to the CLS; only cross-entropy opposes it.
A frame variance that falls toward 0 while the cosine to the anchor rises toward 1 is that collapse. All
values are detached. Each is 0 for an utterance without real frames.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from framealign._checks import check_floating, check_frames, check_like, check_mask
from framealign._precision import compute_dtype
from framealign.functional._cosine import cosine_to_anchor
from framealign.kernels.frame_stats import frame_stats_core
from framealign.layout import layout_of, masked_mean, mean
from framealign.masking import frame_counts, zero_padding
from framealign.pooling.pooled import Pooled, check_pooled

__all__ = [
    "Diagnostics",
    "anchor_cosine",
    "attention_entropy",
    "diagnose",
    "effective_frames",
    "frame_agreement",
    "frame_variance",
]


class Diagnostics(NamedTuple):
    """One value for each utterance, (batch,) each.

    Attributes:
        attention_entropy: How widely attention is spread, in nats.
        effective_frames: Over how many frames.
        anchor_cosine: How near frames are to the anchor.
        frame_variance: How different frames are; near 0 is collapse.
        frame_agreement: Share of frames that are classified as their utterance is.
    """

    attention_entropy: Tensor
    effective_frames: Tensor
    anchor_cosine: Tensor
    frame_variance: Tensor
    frame_agreement: Tensor


@torch.no_grad()
def diagnose(pooled: Pooled, classifier: Callable[[Tensor], Tensor], mask: Tensor | None = None) -> Diagnostics:
    """All diagnostics of a pooled batch at once.

    The anchor is `pooled.cls`, else the utterance where it is as wide as the frames, else the frames' mean.

    Args:
        pooled: What a pooling returned.
        classifier: Callable from (..., output_dim) to (..., classes). Where the utterance is wider than the
            frames (statistics poolings) the classifier cannot take a frame, and `frame_agreement` is nan.
        mask: (batch, time), bool, the one that the pooling was given.

    Example:
        >>> import torch, framealign
        >>> pooled = framealign.CLSSelfAttentionPooling(64)(torch.randn(2, 50, 64))
        >>> watch = framealign.diagnostics.diagnose(pooled, torch.nn.Linear(64, 4))
        >>> watch.effective_frames.shape
        torch.Size([2])
    """
    check_pooled(pooled)
    check_mask(mask, pooled.frames, "pooled.frames")
    same_width = pooled.utterance.shape[-1] == pooled.frames.shape[-1]
    if pooled.cls is not None:
        anchor = pooled.cls
    else:
        anchor = pooled.utterance if same_width else masked_mean(pooled.frames, mask)
    entropy = attention_entropy(pooled.weights, mask)
    if same_width:
        agreement = frame_agreement(classifier(pooled.frames), classifier(pooled.utterance), mask)
    else:
        agreement = torch.full_like(entropy, torch.nan)
    return Diagnostics(
        entropy,
        effective_frames(pooled.weights, mask),
        anchor_cosine(pooled.frames, anchor, mask),
        frame_variance(pooled.frames, mask),
        agreement,
    )


@torch.no_grad()
def attention_entropy(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Entropy of the attention weights in nats: 0 on one frame, $\log T$ when uniform over $T$.

    $$H = -\sum_t a_t \log a_t$$

    Shape:
        - weights: (batch, time), floating point; mask: (batch, time), bool
        - returns: (batch,)

    Example:
        >>> import torch
        >>> from framealign.diagnostics import attention_entropy
        >>> attention_entropy(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.6931, 0.0000])
    """
    check_floating("weights", weights, "batch, time")
    check_mask(mask, weights, "weights")
    weights = zero_padding(weights.to(compute_dtype(weights)), mask)
    terms: Tensor = torch.special.entr(weights)
    return terms.sum(dim=1)


@torch.no_grad()
def effective_frames(weights: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""Effective number of attended frames, $\exp H$: 1 on one frame, $T$ when uniform over $T$.

    Shape:
        - weights: (batch, time), floating point; mask: (batch, time), bool
        - returns: (batch,); 0 for an utterance without real frames

    Example:
        >>> import torch
        >>> from framealign.diagnostics import effective_frames
        >>> effective_frames(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([2., 1.])
    """
    entropy = attention_entropy(weights, mask)
    return entropy.exp().masked_fill(frame_counts(weights, mask) == 0, 0.0)


@torch.no_grad()
def anchor_cosine(frames: Tensor, anchor: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean cosine of an utterance's real frames to its anchor.

    Shape:
        - frames: (batch, time, dim); anchor: (batch, dim); mask: (batch, time), bool
        - returns: (batch,)

    Example:
        >>> import torch
        >>> from framealign.diagnostics import anchor_cosine
        >>> anchor_cosine(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.tensor([[1.0, 0.0]]))
        tensor([0.5000])
    """
    check_frames(frames, mask)
    check_floating("anchor", anchor, "batch, dim")
    check_like("anchor", anchor, "batch, dim", (frames.shape[0], frames.shape[2]), frames, "frames")
    layout = layout_of(frames, mask, None)
    return mean(cosine_to_anchor(frame_stats_core(frames, anchor[:, None], layout, norms=True), anchor, layout), layout)


@torch.no_grad()
def frame_variance(frames: Tensor, mask: Tensor | None = None) -> Tensor:
    r"""The collapse alarm: population variance over an utterance's real frames, averaged over dimensions.

    $$\frac{1}{D} \sum_d \frac{1}{T} \sum_t (z_{td} - \bar z_d)^2$$

    0 means that all frames are the same. Frames that end in a LayerNorm have a mean square near 1, so values
    near 1 mean frames that share no direction.

    Shape:
        - frames: (batch, time, dim); mask: (batch, time), bool
        - returns: (batch,)

    Example:
        >>> import torch
        >>> from framealign.diagnostics import frame_variance
        >>> frame_variance(torch.tensor([[[1.0], [3.0]], [[2.0], [2.0]]]))
        tensor([1., 0.])
    """
    check_frames(frames, mask)
    frames = zero_padding(frames, mask)
    centred = frames.to(compute_dtype(frames)) - masked_mean(frames, mask)[:, None]
    return masked_mean(centred.square(), mask).mean(dim=1)


@torch.no_grad()
def frame_agreement(frame_logits: Tensor, utterance_logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Share of an utterance's real frames whose predicted class is the utterance's.

    Shape:
        - frame_logits: (batch, time, classes); utterance_logits: (batch, classes); mask: (batch, time), bool
        - returns: (batch,)

    Example:
        >>> import torch
        >>> from framealign.diagnostics import frame_agreement
        >>> frame_agreement(torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.tensor([[1.0, 0.0]]))
        tensor([0.5000])
    """
    check_floating("frame_logits", frame_logits, "batch, time, classes")
    check_floating("utterance_logits", utterance_logits, "batch, classes")
    expected = frame_logits.shape[0], frame_logits.shape[2]
    check_like("utterance_logits", utterance_logits, "batch, classes", expected, frame_logits, "frame_logits")
    check_mask(mask, frame_logits, "frame_logits")
    agree = frame_logits.argmax(dim=2) == utterance_logits.argmax(dim=1, keepdim=True)
    return masked_mean(agree.to(compute_dtype(frame_logits)), mask)
