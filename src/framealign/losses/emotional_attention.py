"""Emotional Attention Loss (EAL)."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend
from framealign.functional.emotional_attention import DEFAULTS, EALOptions, emotional_attention_loss


class EmotionalAttentionLoss(nn.Module):
    r"""Draw the frames of each utterance toward its anchor, until their cosine passes a margin.

    $$s_t = \cos(z_{\mathrm{cls}}, z_t), \qquad \ell_t = \mathrm{softplus}_\beta(m - s_t), \qquad
      \mathrm{EAL} = \operatorname*{mean}_{\mathrm{utterances}}\ \operatorname*{mean}_{t\ \mathrm{real}}\ \ell_t$$

    With `beta=1`, the literal reading of the paper, the margin shifts the loss but never lets go: at $s = 1$
    and $m = 0.8$ the loss is still 0.598 and its slope -0.45. `beta=10` lets go of frames that are already
    close (0.013 and -0.12).

    The loss alone is minimised by collapse, every frame equal to the anchor; only cross-entropy opposes that.
    Watch [`frame_variance`][framealign.diagnostics.frame_variance].

    The paper says that the loss also separates frames of different classes, but its equations have no such
    term. `negative_margin` adds it: to utterance $i$, the mean over the utterances $j$ of another label of
    $\operatorname{mean}_t \mathrm{softplus}_\beta(\cos(z_{\mathrm{cls},i}, z_{jt}) - m_{\mathrm{neg}})$.

    A zero frame or a zero anchor has cosine 0 and gradient 0. In float32 a norm below 1e-19 counts as zero, and one
    above 1e19 is beyond it: the cosine is then 0, or nan where both are. Inputs in half precision are computed, and
    the loss is returned, in float32.

    Args:
        margin: $m$, in [-1, 1].
        beta: Sharpness of the softplus, above 0.
        negative_margin: $m_{\mathrm{neg}}$, in [-1, 1]; None leaves the separating term out.
        reduction: `"mean"` is the mean over an utterance's real frames, then over utterances with any, so
            that each utterance counts once, as in cross-entropy; `"frames"` one mean over all real frames of
            the batch; `"none"` one value for each utterance, 0 without real frames; `"sum"` the sum of those.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point: `pooled.frames`
        - anchor: (batch, dim), floating point: `pooled.cls`, or `pooled.utterance` for a pooling without CLS
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim)
        - labels: (batch,), integer; read with `negative_margin` only, where -100 means unlabelled
        - returns: a scalar, or (batch,) with `"none"`; float32 at least

    Raises:
        TypeError: A tensor or an option is of the wrong type.
        ValueError: A shape, a device or an option is not as above, `negative_margin` comes without labels, or
            both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Equations 6 to 8 of Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion
        Recognition", Future Internet 17(11):509, 2025, https://doi.org/10.3390/fi17110509

    Example:
        >>> import torch, framealign
        >>> pooled = framealign.CLSSelfAttentionPooling(64)(torch.randn(2, 50, 64))
        >>> loss = framealign.EmotionalAttentionLoss()(pooled.frames, pooled.cls)
        >>> loss.shape
        torch.Size([])
    """

    margin: float
    beta: float
    negative_margin: float | None
    reduction: str

    def __init__(
        self,
        margin: float = DEFAULTS.margin,
        *,
        beta: float = DEFAULTS.beta,
        negative_margin: float | None = DEFAULTS.negative_margin,
        reduction: str = DEFAULTS.reduction,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        options = EALOptions(margin, beta, negative_margin, reduction).checked()
        check_backend(backend)
        self.margin, self.beta, self.negative_margin, self.reduction = options
        self.backend = backend

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in EALOptions._fields)

    def forward(
        self,
        frames: Tensor,
        anchor: Tensor,
        mask: Tensor | None = None,
        labels: Tensor | None = None,
        *,
        cu_seqlens: Tensor | None = None,
    ) -> Tensor:
        return emotional_attention_loss(
            frames,
            anchor,
            mask,
            labels,
            margin=self.margin,
            beta=self.beta,
            negative_margin=self.negative_margin,
            reduction=self.reduction,
            cu_seqlens=cu_seqlens,
            backend=self.backend,
        )
