"""Frame-to-Utterance Alignment Loss (FUAL): the frames' predictions, averaged, agree with the utterance's."""

from typing import NamedTuple

import torch
from torch import Tensor

from framealign._checks import (
    Backend,
    check_backend,
    check_choice,
    check_floating,
    check_like,
    check_per_frame,
    check_scalars,
)
from framealign._precision import compute_dtype, without_autocast
from framealign.functional._log_average import log_average, log_predictions_of
from framealign.functional._reduction import reduce_utterances
from framealign.layout import Layout, layout_of
from framealign.masking import zero_padding

NO_KERNEL = "this loss reads no frames, only their logits, and has no kernel"


class FUALOptions(NamedTuple):
    """Options of the loss, and their defaults."""

    target: str = "utterance"
    detach: str | None = None
    reduction: str = "mean"

    def checked(self) -> "FUALOptions":
        check_choice("target", self.target, ("utterance", "frames"))
        check_choice("detach", self.detach, (None, "utterance", "frames"))
        check_choice("reduction", self.reduction, ("mean", "sum", "none"))
        return self


DEFAULTS = FUALOptions()


def frame_utterance_alignment_loss(
    frame_logits: Tensor,
    utterance_logits: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    target: str = DEFAULTS.target,
    detach: str | None = DEFAULTS.detach,
    reduction: str = DEFAULTS.reduction,
    cu_seqlens: Tensor | None = None,
    backend: Backend = "auto",
) -> Tensor:
    r"""The function behind [`FrameUtteranceAlignmentLoss`][framealign.FrameUtteranceAlignmentLoss].

    Example:
        >>> import torch
        >>> from framealign.functional import frame_utterance_alignment_loss
        >>> frame_logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])  # two frames that disagree
        >>> agreement = frame_utterance_alignment_loss(frame_logits, torch.tensor([[0.0, 0.0]]))  # both (0.5, 0.5)
        >>> agreement.abs() < 1e-6
        tensor(True)
        >>> frame_utterance_alignment_loss(frame_logits, torch.tensor([[2.0, 0.0]]))
        tensor(0.3278)
    """
    options = FUALOptions(target, detach, reduction).checked()
    check_backend(backend, NO_KERNEL)
    check_per_frame("frame_logits", frame_logits, "classes", mask, cu_seqlens)
    layout = layout_of(frame_logits, mask, cu_seqlens)
    check_floating("utterance_logits", utterance_logits, "batch, classes")
    expected = layout.batch, frame_logits.shape[-1]
    check_like("utterance_logits", utterance_logits, "batch, classes", expected, frame_logits, "frame_logits")
    if weights is not None:
        check_scalars("weights", weights, frame_logits, "frame_logits", cu_seqlens)
    frame_logits = zero_padding(frame_logits, layout.mask)
    weights = normalized(frame_logits, weights, layout)
    return frame_utterance_alignment_loss_core(frame_logits, utterance_logits, weights, layout, options)


def normalized(frame_logits: Tensor, weights: Tensor | None, layout: Layout) -> Tensor:
    """Weights of sum 1 over each utterance's real frames, 0 on padding, float32 at least; None is uniform."""
    if weights is None:
        weights = torch.ones_like(frame_logits[..., 0])
    weights = zero_padding(weights.to(compute_dtype(weights, frame_logits)), layout.mask)
    total = layout.sum(weights).masked_fill(layout.counts == 0, 1.0)
    return weights / layout.spread(total)


def frame_utterance_alignment_loss_core(
    frame_logits: Tensor, utterance_logits: Tensor, weights: Tensor, layout: Layout, options: FUALOptions
) -> Tensor:
    """The loss, of `normalized` weights and of frame logits that are finite on padding."""
    with without_autocast(frame_logits):
        dtype = compute_dtype(frame_logits, utterance_logits, weights)
        without_frames = layout.counts[:, None] == 0
        log_frames_average = log_average(frame_logits.to(dtype), weights.to(dtype), layout)
        log_utterance = log_predictions_of(utterance_logits.masked_fill(without_frames, 0.0).to(dtype))
        if options.detach == "utterance":
            log_utterance = log_utterance.detach()
        elif options.detach == "frames":
            log_frames_average = log_frames_average.detach()

        first, second = log_utterance, log_frames_average
        p, q = (first, second) if options.target == "utterance" else (second, first)
        return reduce_utterances((p.exp() * (p - q)).sum(dim=1), ~without_frames[:, 0], options.reduction)  # KL(p || q)
