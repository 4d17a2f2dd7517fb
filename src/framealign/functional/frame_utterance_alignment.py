"""Frame-to-Utterance Alignment Loss (FUAL): the frames' predictions, averaged, agree with the utterance's."""

import torch
import torch.nn.functional as F
from torch import Tensor

from framealign._checks import check_choice, check_floating, check_like, check_mask
from framealign.functional._reduction import reduce_utterances
from framealign.masking import compute_dtype, frame_counts, without_autocast, zero_padding

_MAX_EXPONENT = 80.0  # exp(80) = 5.5e34: a gradient this large says enough, and stays finite in float32


def frame_utterance_alignment_loss(
    frame_logits: Tensor,
    utterance_logits: Tensor,
    weights: Tensor | None = None,
    mask: Tensor | None = None,
    *,
    target: str = "utterance",
    detach: str | None = None,
    reduction: str = "mean",
) -> Tensor:
    r"""The function behind [`FrameUtteranceAlignmentLoss`][framealign.FrameUtteranceAlignmentLoss].

    Example:
        >>> import torch
        >>> from framealign.functional import frame_utterance_alignment_loss
        >>> frame_logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])  # two frames that disagree
        >>> frame_utterance_alignment_loss(frame_logits, torch.tensor([[0.0, 0.0]]))  # (0.5, 0.5) on average
        tensor(0.)
        >>> frame_utterance_alignment_loss(frame_logits, torch.tensor([[2.0, 0.0]]))
        tensor(0.3278)
    """
    check_fual_options(target, detach, reduction)
    check_floating("frame_logits", frame_logits, "batch, time, classes")
    check_floating("utterance_logits", utterance_logits, "batch, classes")
    check_like("utterance_logits", utterance_logits, "batch, classes", frame_logits, "frame_logits", keep=(0, 2))
    check_mask(mask, frame_logits, "frame_logits")
    if weights is not None:
        check_floating("weights", weights, "batch, time")
        check_like("weights", weights, "batch, time", frame_logits, "frame_logits")

    with without_autocast(frame_logits):
        dtype = compute_dtype(frame_logits, utterance_logits, *(() if weights is None else (weights,)))
        has_frames = frame_counts(frame_logits, mask) > 0
        if weights is None:
            weights = torch.ones_like(frame_logits[..., 0], dtype=dtype)
        weights = zero_padding(weights.to(dtype), mask)
        total = weights.sum(dim=1, keepdim=True)
        weights = weights / total.masked_fill(~has_frames[:, None], 1.0)

        log_frames = zero_padding(frame_logits, mask).to(dtype).log_softmax(dim=2)
        log_average = _log_average(log_frames, weights)
        log_utterance = utterance_logits.masked_fill(~has_frames[:, None], 0.0).to(dtype).log_softmax(dim=1)
        if detach == "utterance":
            log_utterance = log_utterance.detach()
        elif detach == "frames":
            log_average = log_average.detach()

        p, q = (log_utterance, log_average) if target == "utterance" else (log_average, log_utterance)
        divergence = (p.exp() * (p - q)).sum(dim=1)  # KL(p || q)
        return reduce_utterances(divergence, has_frames, reduction)


def check_fual_options(target: str, detach: str | None, reduction: str) -> None:
    check_choice("target", target, ("utterance", "frames"))
    check_choice("detach", detach, (None, "utterance", "frames"))
    check_choice("reduction", reduction, ("mean", "sum", "none"))


def _log_average(log_frames: Tensor, weights: Tensor) -> Tensor:
    r"""`log sum_t a_t p_t` from `log p_t` (batch, time, classes) and `a_t` (batch, time).

    Finite however far apart the logits are, and with the right gradient for a weight of exactly 0, which
    the obvious `logsumexp(log a + log p)` turns into nan. The sum is taken relative to the largest `p_t`
    among frames that weigh something, so it can neither overflow nor vanish. Frames of weight 0 enter
    through `log1p(sum_t a_t p_t / average)`, whose value is 0 and whose every derivative is right.
    """
    heavy = (weights >= torch.finfo(weights.dtype).tiny)[..., None]
    # One more row, of -inf: the maximum over no frames at all is defined too
    largest = F.pad(log_frames.masked_fill(~heavy, -torch.inf), (0, 0, 0, 1), value=-torch.inf).amax(dim=1).detach()
    largest = largest.masked_fill(largest == -torch.inf, 0.0)
    shares = (log_frames - largest[:, None]).masked_fill(~heavy, -torch.inf).exp()
    average = (weights[..., None].masked_fill(~heavy, 0.0) * shares).sum(dim=1)
    # An utterance without frames sums to 0, and a log of that would carry nan through the backward pass
    average = average.masked_fill(average == 0, 1.0).log() + largest

    rest = weights[..., None].masked_fill(heavy, 0.0)
    ratios = (log_frames - average[:, None]).clamp_max(_MAX_EXPONENT).masked_fill(heavy, 0.0).exp()
    return average + (rest * ratios).sum(dim=1).log1p()
