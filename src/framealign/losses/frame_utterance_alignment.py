"""Frame-to-Utterance Alignment Loss (FUAL)."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend
from framealign.functional.frame_utterance_alignment import (
    DEFAULTS,
    NO_KERNEL,
    FUALOptions,
    frame_utterance_alignment_loss,
)


class FrameUtteranceAlignmentLoss(nn.Module):
    r"""Make the attention-weighted average of the frames' predictions agree with the utterance's prediction.

    $$p_t = \mathrm{softmax}(\mathrm{frame\_logits}_t), \quad p_u = \mathrm{softmax}(\mathrm{utterance\_logits}),
      \quad \bar p = \sum_t a_t p_t, \qquad
      \mathrm{FUAL} = \operatorname*{mean}_{\mathrm{utterances}} \mathrm{KL}(p_u \,\|\, \bar p)$$

    Both logits come from the same classifier. With a *linear* classifier and $u = \sum_t a_t z_t$ the
    utterance's logits are exactly $\sum_t a_t\,\mathrm{frame\_logits}_t$, so the loss is the gap between the
    softmax of a mean and the mean of softmaxes.

    The loss is finite however far apart the logits are, and a frame of weight 0 still gets its gradient. The
    weights are divided by their sum over the real frames; that adds a constant to the gradient of an
    utterance's weights, which a softmax behind them takes out again.

    Args:
        target: `"utterance"` is $\mathrm{KL}(p_u \| \bar p)$, the utterance's distribution as the target;
            `"frames"` is $\mathrm{KL}(\bar p \| p_u)$.
        detach: Side into which no gradient flows, `"utterance"` or `"frames"`; None lets it into both.
        reduction: `"mean"` over utterances with real frames; `"none"` one value for each utterance, 0 without
            real frames; `"sum"` the sum of those.
        backend: `"auto"` or `"eager"`: this loss reads no frames, only their logits, and has no kernel.

    Shape:
        - frame_logits: (batch, time, classes), floating point: `classifier(pooled.frames)`
        - utterance_logits: (batch, classes), floating point: `classifier(pooled.utterance)`
        - weights: (batch, time), floating point, at least 0, with a positive sum over an utterance's real
          frames; None is uniform
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames; then `frame_logits` is
          (frames, classes) and `weights` (frames,)
        - returns: a scalar, or (batch,) with `"none"`; float32 at least

    Raises:
        TypeError: A tensor is of the wrong type.
        ValueError: A shape, a device or an option is not as above, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` is asked for.

    Source:
        Equations 9 and 10 of Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion
        Recognition", Future Internet 17(11):509, 2025, https://doi.org/10.3390/fi17110509. The paper leaves
        the direction of the divergence open.

    Example:
        >>> import torch, framealign
        >>> classifier = torch.nn.Linear(64, 4)
        >>> pooled = framealign.CLSSelfAttentionPooling(64)(torch.randn(2, 50, 64))
        >>> loss = framealign.FrameUtteranceAlignmentLoss()(
        ...     classifier(pooled.frames), classifier(pooled.utterance), pooled.weights)
        >>> loss.shape
        torch.Size([])
    """

    target: str
    detach: str | None
    reduction: str

    def __init__(
        self,
        *,
        target: str = DEFAULTS.target,
        detach: str | None = DEFAULTS.detach,
        reduction: str = DEFAULTS.reduction,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        options = FUALOptions(target, detach, reduction).checked()
        check_backend(backend, NO_KERNEL)
        self.target, self.detach, self.reduction = options

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in FUALOptions._fields)

    def forward(
        self,
        frame_logits: Tensor,
        utterance_logits: Tensor,
        weights: Tensor | None = None,
        mask: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        return frame_utterance_alignment_loss(
            frame_logits,
            utterance_logits,
            weights,
            mask,
            target=self.target,
            detach=self.detach,
            reduction=self.reduction,
            cu_seqlens=cu_seqlens,
        )
