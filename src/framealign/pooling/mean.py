"""Mean pooling."""

import torch
from torch import Tensor, nn

from framealign._checks import check_frames, check_integer
from framealign.functional.attentive import weighted_sum
from framealign.masking import compute_dtype, masked_softmax, zero_padding
from framealign.pooling.pooled import Pooled, known_width


class MeanPooling(nn.Module):
    r"""Pool the real frames of each utterance into their mean.

    $$u = \frac{1}{T} \sum_{t\ \mathrm{real}} h_t$$

    Args:
        dim: Size of each frame vector. None takes any; `output_dim` is then not known.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - utterance: (batch, dim), dtype of `frames`; weights: (batch, time), uniform over the real frames

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch, framealign
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> framealign.MeanPooling()(frames, torch.tensor([[True, True, False]])).utterance
        tensor([[2.]])
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        if dim is not None:
            check_integer("dim", dim, 1)
        self.dim = dim

    @property
    def output_dim(self) -> int:
        return known_width("MeanPooling", self.dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Pooled:
        check_frames(frames, mask, dim=self.dim)
        frames = zero_padding(frames, mask)
        weights = uniform_weights(frames, mask)
        return Pooled(weighted_sum(frames, weights), weights, frames, cls=None)


def uniform_weights(frames: Tensor, mask: Tensor | None) -> Tensor:
    """1 / (number of real frames) at each real frame."""
    return masked_softmax(torch.zeros(frames.shape[:2], dtype=compute_dtype(frames), device=frames.device), mask)
