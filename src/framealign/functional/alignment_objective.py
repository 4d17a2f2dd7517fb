"""The training objective, with what CLS pooling does behind its encoder, from one read of the frames."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign._checks import Backend, check_backend, check_floating, check_labels, check_like, check_number
from framealign._precision import compute_dtype, without_autocast
from framealign.functional._reduction import UNLABELLED
from framealign.functional.cls_self_attention import check_similarity, cls_scores
from framealign.functional.emotional_attention import (
    EALOptions,
    anchor_columns,
    emotional_attention_loss_core,
    safe_anchor,
)
from framealign.functional.frame_utterance_alignment import FUALOptions, frame_utterance_alignment_loss_core
from framealign.kernels.frame_stats import frame_stats_core
from framealign.kernels.interface import FrameStats
from framealign.layout import Layout, checked_layout


class Objective(NamedTuple):
    """The loss, its unweighted terms, and the utterances' logits.

    Attributes:
        loss: The weighted sum of the terms, a scalar.
        cross_entropy: Of the utterances that have a label and real frames.
        eal: EAL, unweighted; a detached 0 where its weight is 0.
        fual: FUAL, likewise.
        logits: (batch, classes), of the utterances.
    """

    loss: Tensor
    cross_entropy: Tensor
    eal: Tensor
    fual: Tensor
    logits: Tensor


class ObjectiveOptions(NamedTuple):
    """Options of the objective, and their defaults: of EAL and FUAL, their weights, and those of cross-entropy."""

    eal: EALOptions = EALOptions()
    fual: FUALOptions = FUALOptions()
    eal_weight: float = 0.05
    fual_weight: float = 0.05
    label_smoothing: float = 0.0
    class_weights: Tensor | None = None

    def checked(self) -> "ObjectiveOptions":
        self.eal.checked()
        self.fual.checked()
        check_number("eal_weight", self.eal_weight, 0)
        check_number("fual_weight", self.fual_weight, 0)
        check_number("label_smoothing", self.label_smoothing, 0, 1)
        if self.class_weights is not None:
            check_floating("class_weights", self.class_weights, "classes")
        return self


DEFAULTS = ObjectiveOptions()


def alignment_objective(
    frames: Tensor,
    cls: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    similarity: str = "dot",
    temperature: float = 0.1,
    margin: float = DEFAULTS.eal.margin,
    beta: float = DEFAULTS.eal.beta,
    negative_margin: float | None = DEFAULTS.eal.negative_margin,
    eal_weight: float = DEFAULTS.eal_weight,
    fual_weight: float = DEFAULTS.fual_weight,
    target: str = DEFAULTS.fual.target,
    detach: str | None = DEFAULTS.fual.detach,
    label_smoothing: float = DEFAULTS.label_smoothing,
    class_weights: Tensor | None = None,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> Objective:
    r"""Attention to the CLS, the utterance's logits, cross-entropy, EAL and FUAL, from one read of the frames.

    $$a = \mathrm{softmax}_t\,\mathrm{sim}(z_{\mathrm{cls}}, z_t), \qquad
      \mathrm{logits} = W \sum_t a_t z_t + b = \sum_t a_t (W z_t) + b, \qquad
      L = \mathrm{CE} + \lambda_{\mathrm{EAL}}\,\mathrm{EAL} + \lambda_{\mathrm{FUAL}}\,\mathrm{FUAL}$$

    With a linear classifier the pooled vector need not be formed: the dot products of each frame with the CLS and
    with the rows of $W$, and its norm, are all that the loss depends on. The result is that of
    [`AlignmentObjective`][framealign.AlignmentObjective] on the pooling of these frames, up to rounding.

    Args:
        frames: The encoded frames $z_t$.
        cls: The CLS output $z_{\mathrm{cls}}$ of each utterance.
        labels: Class indices; -100 keeps an utterance out of cross-entropy.
        weight: $W$ of the classifier, as `nn.Linear` keeps it.
        bias: $b$ of the classifier; None is 0.
        mask: True at real frames; None means that every frame is real.
        similarity: `"dot"`, over $\sqrt D$, or `"cosine"`, over `temperature`.
        temperature: Of the cosine; the dot product does not use it.
        margin: Of EAL, in [-1, 1].
        beta: Sharpness of EAL's softplus, above 0.
        negative_margin: Of EAL's separating term, in [-1, 1]; None leaves that term out.
        eal_weight: $\lambda_{\mathrm{EAL}}$, at least 0.
        fual_weight: $\lambda_{\mathrm{FUAL}}$, at least 0.
        target: Target distribution of FUAL, `"utterance"` or `"frames"`.
        detach: Side of FUAL into which no gradient flows, `"utterance"`, `"frames"` or None.
        label_smoothing: Of cross-entropy, in [0, 1].
        class_weights: Of cross-entropy, (classes,); None weighs every class 1.
        cu_seqlens: Cumulative lengths of packed frames; then `frames` is (frames, dim).
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - cls: (batch, dim), floating point
        - labels: (batch,), integer
        - weight: (classes, dim), bias and class_weights: (classes,), floating point
        - mask: (batch, time), bool; cu_seqlens: (batch + 1,), integer
        - returns: [`Objective`][framealign.Objective]; losses are float32 at least

    Raises:
        TypeError: A tensor or an option is of the wrong type.
        ValueError: A shape, a device or an option is not as above.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Equations 5 to 11 of Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion
        Recognition", Future Internet 17(11):509, 2025, https://doi.org/10.3390/fi17110509

    Example:
        >>> import torch, framealign
        >>> frames, cls, labels = torch.randn(2, 50, 64), torch.randn(2, 64), torch.tensor([0, 3])
        >>> classifier = torch.nn.Linear(64, 4)
        >>> result = framealign.functional.alignment_objective(frames, cls, labels, classifier.weight, classifier.bias)
        >>> result.loss.shape, result.logits.shape
        (torch.Size([]), torch.Size([2, 4]))
    """
    check_similarity(similarity, temperature)
    eal, fual = EALOptions(margin, beta, negative_margin, "mean"), FUALOptions(target, detach, "mean")
    options = ObjectiveOptions(eal, fual, eal_weight, fual_weight, label_smoothing, class_weights).checked()
    check_backend(backend)
    layout, dim = checked_layout(frames, mask, cu_seqlens), frames.shape[-1]
    check_floating("cls", cls, "batch, dim")
    check_like("cls", cls, "batch, dim", (layout.batch, dim), frames, "frames")
    check_labels(labels, layout.batch, frames, "frames")
    check_floating("weight", weight, "classes, dim")
    classes = weight.shape[0]
    check_like("weight", weight, "classes, dim", (classes, dim), frames, "frames")
    for name, value in (("bias", bias), ("class_weights", class_weights)):
        if value is not None:
            check_floating(name, value, "classes")
            check_like(name, value, "classes", (classes,), weight, "weight")

    with without_autocast(frames):
        anchor = safe_anchor(cls, layout)
        columns = with_classifier(anchor_columns(anchor, negative_margin), weight)
        norms = eal_weight > 0 or similarity == "cosine"
        stats = frame_stats_core(frames, columns, layout, norms=norms, backend=backend)
        scores = cls_scores(stats, anchor, layout, similarity, temperature)
        weights, frame_logits = layout.softmax(scores), stats.dots[..., -classes:]
        logits = layout.sum(weights[..., None] * frame_logits)
        if bias is not None:
            logits, frame_logits = logits + bias, frame_logits + bias
        return alignment_objective_core(stats, anchor, frame_logits, logits, weights, labels, layout, options)


def alignment_objective_core(
    stats: FrameStats | None,
    anchor: Tensor | None,
    frame_logits: Tensor | None,
    logits: Tensor,
    weights: Tensor | None,
    labels: Tensor,
    layout: Layout,
    options: ObjectiveOptions,
) -> Objective:
    """EAL is that of `stats` and `anchor`, FUAL that of `frame_logits` and `weights`: None where its weight is 0."""
    cross_entropy = _mean_cross_entropy(logits, labels, layout, options)
    eal = fual = torch.zeros_like(cross_entropy).detach()
    if options.eal_weight:
        assert stats is not None
        assert anchor is not None
        eal = emotional_attention_loss_core(stats, anchor, layout, labels, options.eal)
    if options.fual_weight:
        assert frame_logits is not None
        assert weights is not None
        fual = frame_utterance_alignment_loss_core(frame_logits, logits, weights, layout, options.fual)
    loss = cross_entropy + options.eal_weight * eal + options.fual_weight * fual
    return Objective(loss, cross_entropy, eal, fual, logits)


def with_classifier(columns: Tensor, weight: Tensor) -> Tensor:
    """Behind the columns of each utterance, the rows of the classifier."""
    dtype = compute_dtype(columns, weight)
    return torch.cat([columns.to(dtype), weight.to(dtype).expand(columns.shape[0], -1, -1)], dim=1)


def _mean_cross_entropy(logits: Tensor, labels: Tensor, layout: Layout, options: ObjectiveOptions) -> Tensor:
    """Mean over labelled utterances with frames; 0, joined to the graph, where there are none."""
    labels = labels.long().masked_fill(layout.counts == 0, UNLABELLED)
    counted = labels != UNLABELLED
    logits = logits.to(compute_dtype(logits)).masked_fill(~counted[:, None], 0.0)
    weights = None if options.class_weights is None else options.class_weights.to(logits.dtype)
    total = F.cross_entropy(
        logits, labels, weights, reduction="sum", ignore_index=UNLABELLED, label_smoothing=options.label_smoothing
    )
    if weights is None:
        return total / counted.sum().clamp_min(1)
    share = weights[labels.masked_fill(~counted, 0)].masked_fill(~counted, 0.0).sum()
    return total / share.masked_fill(share == 0, 1.0)
