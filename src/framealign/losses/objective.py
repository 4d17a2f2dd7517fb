"""The training objective: cross-entropy, EAL and FUAL together."""

from collections.abc import Callable

from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_floating, check_labels, check_like, check_per_frame
from framealign._plain_linear import is_plain_linear
from framealign.functional.alignment_objective import (
    DEFAULTS,
    Objective,
    ObjectiveOptions,
    alignment_objective_core,
    with_classifier,
)
from framealign.functional.emotional_attention import EALOptions, anchor_columns, safe_anchor
from framealign.functional.frame_utterance_alignment import FUALOptions, normalized
from framealign.kernels.frame_stats import frame_stats_core
from framealign.layout import layout_of
from framealign.masking import zero_padding
from framealign.pooling.pooled import Pooled, check_pooled


class AlignmentObjective(nn.Module):
    r"""Cross-entropy on the utterance, plus weighted EAL and FUAL.

    $$L = \mathrm{CE} + \lambda_{\mathrm{EAL}}\,\mathrm{EAL} + \lambda_{\mathrm{FUAL}}\,\mathrm{FUAL}$$

    It has no parameters of its own: the classifier is passed in, and is applied to the utterance and to its
    frames. Utterances without real frames count in no term. A term of weight 0 is not computed; its value is
    then a detached 0. An exact `nn.Linear` without hooks meets the frames in the same read as EAL, and in float32
    at least, also under autocast; any other classifier is called.

    Args:
        margin: Of EAL, in [-1, 1].
        beta: Sharpness of EAL's softplus, above 0.
        negative_margin: Of EAL's separating term, in [-1, 1]; None leaves that term out.
        eal_weight: $\lambda_{\mathrm{EAL}}$, at least 0.
        fual_weight: $\lambda_{\mathrm{FUAL}}$, at least 0.
        target: Target distribution of FUAL, `"utterance"` or `"frames"`.
        detach: Side of FUAL into which no gradient flows, `"utterance"`, `"frames"` or None.
        label_smoothing: Of cross-entropy, in [0, 1].
        class_weights: Of cross-entropy, (classes,); None weighs every class 1. A buffer, which goes where the module
            goes; an option like the others, and so not in its state.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - pooled: the [`Pooled`][framealign.Pooled] of any pooling
        - labels: (batch,), integer class indices; -100 keeps an utterance out of cross-entropy
        - classifier: callable from (..., dim) to (..., classes)
        - mask: (batch, time), bool, or cu_seqlens: (batch + 1,), integer; what the pooling was given
        - returns: [`Objective`][framealign.Objective]; losses are float32 at least

    Raises:
        TypeError: A tensor or an option is of the wrong type.
        ValueError: A shape, a device or an option is not as above, `class_weights` have no values, or
            `pooled` has neither a CLS nor an utterance vector as wide as its frames to be EAL's anchor.
        RuntimeError: `backend="triton"` cannot run; the message says why.

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

    margin: float
    beta: float
    negative_margin: float | None
    eal_weight: float
    fual_weight: float
    target: str
    detach: str | None
    label_smoothing: float
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        margin: float = DEFAULTS.eal.margin,
        beta: float = DEFAULTS.eal.beta,
        negative_margin: float | None = DEFAULTS.eal.negative_margin,
        eal_weight: float = DEFAULTS.eal_weight,
        fual_weight: float = DEFAULTS.fual_weight,
        target: str = DEFAULTS.fual.target,
        detach: str | None = DEFAULTS.fual.detach,
        label_smoothing: float = DEFAULTS.label_smoothing,
        class_weights: Tensor | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        eal, fual = EALOptions(margin, beta, negative_margin, "mean"), FUALOptions(target, detach, "mean")
        ObjectiveOptions(eal, fual, eal_weight, fual_weight, label_smoothing, class_weights).checked()
        check_backend(backend)
        self.backend = backend
        self.margin, self.beta, self.negative_margin = margin, beta, negative_margin
        self.eal_weight, self.fual_weight = eal_weight, fual_weight
        self.target, self.detach, self.label_smoothing = target, detach, label_smoothing
        if class_weights is not None and class_weights.is_meta:
            raise ValueError('`class_weights` must have values, got a meta tensor; make it with `device="cpu"`.')
        self._given_class_weights = class_weights
        self.register_buffer("class_weights", class_weights, persistent=False)

    def reset_parameters(self) -> None:
        """Give the buffer of class weights its values again, which `to_empty` loses; there are no parameters."""
        if self.class_weights is not None and self._given_class_weights is not None:
            self.class_weights.copy_(self._given_class_weights)

    @property
    def _options(self) -> ObjectiveOptions:
        """As the attributes are now."""
        eal = EALOptions(self.margin, self.beta, self.negative_margin, "mean")
        fual = FUALOptions(self.target, self.detach, "mean")
        return ObjectiveOptions(eal, fual, self.eal_weight, self.fual_weight, self.label_smoothing, self.class_weights)

    def extra_repr(self) -> str:
        names = "margin", "beta", "negative_margin", "eal_weight", "fual_weight", "target", "detach", "label_smoothing"
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)

    def forward(
        self,
        pooled: Pooled,
        labels: Tensor,
        classifier: Callable[[Tensor], Tensor],
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
    ) -> Objective:
        options = self._options
        check_pooled(pooled)
        check_per_frame("pooled.frames", pooled.frames, "dim", mask, cu_seqlens)
        layout = layout_of(pooled.frames, mask, cu_seqlens)
        check_labels(labels, layout.batch, pooled.utterance, "pooled.utterance")
        anchor = safe_anchor(_anchor(pooled), layout) if options.eal_weight else None
        if options.fual_weight and pooled.utterance.shape[-1] != pooled.frames.shape[-1]:
            raise ValueError(
                "`pooled` must have an `utterance` as wide as its `frames`, for one classifier to take both, got "
                f"{pooled.utterance.shape[-1]} and {pooled.frames.shape[-1]}; use another pooling or `fual_weight=0`."
            )

        logits = classifier(pooled.utterance)
        check_floating("classifier(pooled.utterance)", logits, "batch, classes")
        if options.class_weights is not None:
            expected = logits.shape[1:]
            check_like(
                "class_weights", options.class_weights, "classes", expected, logits, "classifier(pooled.utterance)"
            )
        stats = frame_logits = weights = None
        if anchor is not None:
            columns = anchor_columns(anchor, options.eal.negative_margin)
            linear: nn.Linear | None = None
            if options.fual_weight and is_plain_linear(classifier):
                linear = classifier
            if linear is not None:
                columns = with_classifier(columns, linear.weight)
            stats = frame_stats_core(pooled.frames, columns, layout, norms=True, backend=self.backend)
            if linear is not None:
                frame_logits = stats.dots[..., -logits.shape[1] :]
                if linear.bias is not None:
                    frame_logits = frame_logits + linear.bias
        if options.fual_weight:
            if frame_logits is None:
                # nan on padding would reach its parameters
                frame_logits = classifier(zero_padding(pooled.frames, layout.mask))
            weights = normalized(frame_logits, pooled.weights, layout)
        return alignment_objective_core(stats, anchor, frame_logits, logits, weights, labels, layout, options)


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
