"""From one value for each utterance to the loss."""

from torch import Tensor

UNLABELLED = -100  # `ignore_index` of torch's cross-entropy


def reduce_utterances(values: Tensor, has_frames: Tensor, reduction: str) -> Tensor:
    """Reduce (batch,) losses; an utterance without frames has loss 0 and is not counted by "mean"."""
    values = values.masked_fill(~has_frames, 0.0)
    if reduction == "none":
        return values
    if reduction == "sum":
        return values.sum()
    return values.sum() / has_frames.sum().clamp_min(1)
