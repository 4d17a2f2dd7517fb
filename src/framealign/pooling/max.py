"""Max pooling."""

import torch
from torch import Tensor, nn

from framealign._checks import check_frames, check_integer
from framealign.masking import compute_dtype, frame_counts, zero_padding
from framealign.pooling.pooled import Pooled, known_width


class MaxPooling(nn.Module):
    r"""Pool the real frames of each utterance into their maximum, dimension by dimension.

    $$u_d = \max_{t\ \mathrm{real}} h_{td}$$

    A frame's weight is the share of dimensions whose maximum stands at that frame. Where several frames hold
    the maximum, they share that dimension, as they share its gradient.

    Args:
        dim: Size of each frame vector. None takes any; `output_dim` is then not known.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - utterance: (batch, dim), dtype of `frames`; weights: (batch, time), float32 at least

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match.

    Example:
        >>> import torch, framealign
        >>> frames = torch.tensor([[[1.0, 5.0], [3.0, 0.0], [100.0, 100.0]]])
        >>> pooled = framealign.MaxPooling()(frames, torch.tensor([[True, True, False]]))
        >>> pooled.utterance, pooled.weights
        (tensor([[3., 5.]]), tensor([[0.5000, 0.5000, 0.0000]]))
    """

    def __init__(self, dim: int | None = None) -> None:
        super().__init__()
        if dim is not None:
            check_integer("dim", dim, 1)
        self.dim = dim

    @property
    def output_dim(self) -> int:
        return known_width("MaxPooling", self.dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Pooled:
        check_frames(frames, mask, dim=self.dim)
        dtype = compute_dtype(frames)
        if frames.shape[1] == 0:  # no maximum of nothing; the sum is 0 and joined to the graph
            return Pooled(frames.sum(dim=1), frames.sum(dim=2).to(dtype), frames, cls=None)
        candidates = frames if mask is None else frames.masked_fill(~mask[..., None], -torch.inf)
        has_frames = frame_counts(frames, mask)[:, None] > 0
        utterance = candidates.amax(dim=1).masked_fill(~has_frames, 0.0)
        holds = (candidates.detach() == utterance.detach()[:, None]).to(dtype)
        weights = (holds / holds.sum(dim=1, keepdim=True).masked_fill(~has_frames[..., None], 1.0)).mean(dim=2)
        return Pooled(utterance, zero_padding(weights, mask), zero_padding(frames, mask), cls=None)
