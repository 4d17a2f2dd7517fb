"""The training objective: cross-entropy, EAL and FUAL together."""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from framealign._checks import check_floating, check_labels, check_like, check_mask, check_number
from framealign.functional.emotional_attention import UNLABELLED, check_eal_options, emotional_attention_loss
from framealign.functional.frame_utterance_alignment import check_fual_options, frame_utterance_alignment_loss
from framealign.masking import compute_dtype, frame_counts, zero_padding
from framealign.pooling.pooled import Pooled, check_pooled


class Objective(NamedTuple):
    """The loss, its unweighted terms, and the utterances' logits (batch, classes)."""

    loss: Tensor
    cross_entropy: Tensor
    eal: Tensor
    fual: Tensor
    logits: Tensor


class AlignmentObjective(nn.Module):
    r"""Cross-entropy on the utterance, plus weighted EAL and FUAL.

    $$L = \mathrm{CE} + \lambda_{\mathrm{EAL}}\,\mathrm{EAL} + \lambda_{\mathrm{FUAL}}\,\mathrm{FUAL}$$

    It has no parameters of its own: the classifier is passed in, and is applied to the utterance and to its
    frames. Utterances without real frames count in no term. A term of weight 0 is not computed; its value is
    then a detached 0.

    Args:
        margin: Of EAL, in [-1, 1].
        beta: Sharpness of EAL's softplus, above 0.
        negative_margin: Of EAL's separating term, in [-1, 1]; None leaves that term out.
        eal_weight: $\lambda_{\mathrm{EAL}}$, at least 0.
        fual_weight: $\lambda_{\mathrm{FUAL}}$, at least 0.
        target: Target distribution of FUAL, `"utterance"` or `"frames"`.
        detach: Side of FUAL into which no gradient flows, `"utterance"`, `"frames"` or None.
        label_smoothing: Of cross-entropy, in [0, 1].
        class_weights: Of cross-entropy, (classes,), kept as a buffer; None weighs every class 1.

    Shape:
        - pooled: the [`Pooled`][framealign.Pooled] of any pooling
        - labels: (batch,), integer class indices; -100 keeps an utterance out of cross-entropy
        - classifier: callable from (..., dim) to (..., classes)
        - mask: (batch, time), bool, the one that the pooling was given
        - returns: [`Objective`][framealign.Objective]; losses are float32 at least

    Raises:
        TypeError: A tensor or an option is of the wrong type.
        ValueError: A shape, a device or an option is not as above, or `pooled` has neither a CLS nor an
            utterance vector as wide as its frames to be EAL's anchor.

    Source:
        Equation 11 of Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion Recognition",
        Future Internet 17(11):509, 2025, https://doi.org/10.3390/fi17110509

    Example:
        >>> import torch, framealign
        >>> frames, labels = torch.randn(2, 50, 64), torch.tensor([0, 3])
        >>> pooling, classifier = framealign.CLSSelfAttentionPooling(64), torch.nn.Linear(64, 4)
        >>> result = framealign.AlignmentObjective()(pooling(frames), labels, classifier)
        >>> result.loss.backward()
        >>> result.logits.shape
        torch.Size([2, 4])
    """

    class_weights: Tensor | None

    def __init__(
        self,
        *,
        margin: float = 0.8,
        beta: float = 1.0,
        negative_margin: float | None = None,
        eal_weight: float = 0.05,
        fual_weight: float = 0.05,
        target: str = "utterance",
        detach: str | None = None,
        label_smoothing: float = 0.0,
        class_weights: Tensor | None = None,
    ) -> None:
        super().__init__()
        check_eal_options(margin, beta, negative_margin, "mean")
        check_fual_options(target, detach, "mean")
        check_number("eal_weight", eal_weight, 0)
        check_number("fual_weight", fual_weight, 0)
        check_number("label_smoothing", label_smoothing, 0, 1)
        if class_weights is not None:
            check_floating("class_weights", class_weights, "classes")
        self.margin, self.beta, self.negative_margin = margin, beta, negative_margin
        self.eal_weight, self.fual_weight = eal_weight, fual_weight
        self.target, self.detach, self.label_smoothing = target, detach, label_smoothing
        self.register_buffer("class_weights", class_weights)

    def extra_repr(self) -> str:
        return (
            f"margin={self.margin}, beta={self.beta}, negative_margin={self.negative_margin}, "
            f"eal_weight={self.eal_weight}, fual_weight={self.fual_weight}, target={self.target!r}, "
            f"detach={self.detach!r}, label_smoothing={self.label_smoothing}"
        )

    def forward(
        self,
        pooled: Pooled,
        labels: Tensor,
        classifier: Callable[[Tensor], Tensor],
        mask: Tensor | None = None,
    ) -> Objective:
        check_pooled(pooled)
        check_mask(mask, pooled.frames, "pooled.frames")
        check_labels(labels, pooled.utterance, "pooled.utterance")
        anchor = _anchor(pooled) if self.eal_weight else None
        if self.fual_weight and pooled.utterance.shape[-1] != pooled.frames.shape[-1]:
            raise ValueError(
                "`pooled` must have an `utterance` as wide as its `frames`, for one classifier to take both, got "
                f"{pooled.utterance.shape[-1]} and {pooled.frames.shape[-1]}; use another pooling or `fual_weight=0`."
            )

        logits = classifier(pooled.utterance)
        check_floating("classifier(pooled.utterance)", logits, "batch, classes")
        if self.class_weights is not None:
            check_like(
                "class_weights", self.class_weights, "classes", logits, "classifier(pooled.utterance)", keep=(1,)
            )
        has_frames = frame_counts(pooled.frames, mask) > 0
        cross_entropy = self._cross_entropy(logits, labels, has_frames)
        eal = fual = torch.zeros_like(cross_entropy).detach()
        if anchor is not None:
            eal = emotional_attention_loss(
                pooled.frames,
                anchor,
                mask,
                labels,
                margin=self.margin,
                beta=self.beta,
                negative_margin=self.negative_margin,
            )
        if self.fual_weight:
            frame_logits = classifier(zero_padding(pooled.frames, mask))  # nan there would reach its parameters
            fual = frame_utterance_alignment_loss(
                frame_logits, logits, pooled.weights, mask, target=self.target, detach=self.detach
            )
        loss = cross_entropy + self.eal_weight * eal + self.fual_weight * fual
        return Objective(loss, cross_entropy, eal, fual, logits)

    def _cross_entropy(self, logits: Tensor, labels: Tensor, has_frames: Tensor) -> Tensor:
        """Mean over labelled utterances with frames; 0, joined to the graph, where there are none."""
        labels = labels.long().masked_fill(~has_frames, UNLABELLED)
        counted = labels != UNLABELLED
        logits = logits.to(compute_dtype(logits)).masked_fill(~counted[:, None], 0.0)
        weights = None if self.class_weights is None else self.class_weights.to(logits.dtype)
        total = F.cross_entropy(
            logits,
            labels,
            weights,
            reduction="sum",
            ignore_index=UNLABELLED,
            label_smoothing=self.label_smoothing,
        )
        if weights is None:
            return total / counted.sum().clamp_min(1)
        share = weights[labels.masked_fill(~counted, 0)].masked_fill(~counted, 0.0).sum()
        return total / share.masked_fill(share == 0, 1.0)


def _anchor(pooled: Pooled) -> Tensor:
    if pooled.cls is not None:
        return pooled.cls
    if pooled.utterance.shape[-1] == pooled.frames.shape[-1]:
        return pooled.utterance
    raise ValueError(
        f"`pooled` must have a `cls`, or an `utterance` as wide as its `frames`, to be EAL's anchor, got no cls, an "
        f"utterance of width {pooled.utterance.shape[-1]} and frames of width {pooled.frames.shape[-1]}; "
        "use another pooling or `eal_weight=0`."
    )
