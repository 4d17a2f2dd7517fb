"""Max pooling."""

import torch
from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_integer
from framealign._precision import compute_dtype
from framealign.layout import Layout, checked_layout
from framealign.masking import fill_padding, zero_padding
from framealign.pooling.pooled import Pooled, known_width


class MaxPooling(nn.Module):
    r"""Pool the real frames of each utterance into their maximum, dimension by dimension.

    $$u_d = \max_{t\ \mathrm{real}} h_{td}$$

    A frame's weight is the share of dimensions whose maximum stands at that frame. Where several frames hold
    the maximum, they share that dimension, as they share its gradient.

    Args:
        dim: Size of each frame vector. None takes any; `output_dim` is then not known.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance: (batch, dim), dtype of `frames`; weights: (batch, time), float32 at least

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Example:
        >>> import torch, framealign
        >>> frames = torch.tensor([[[1.0, 5.0], [3.0, 0.0], [100.0, 100.0]]])
        >>> pooled = framealign.MaxPooling()(frames, torch.tensor([[True, True, False]]))
        >>> pooled.utterance, pooled.weights
        (tensor([[3., 5.]]), tensor([[0.5000, 0.5000, 0.0000]]))
    """

    def __init__(self, dim: int | None = None, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend, "a maximum has no kernel")
        if dim is not None:
            check_integer("dim", dim, 1)
        self.dim = dim

    @property
    def output_dim(self) -> int:
        return known_width("MaxPooling", self.dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, candidates = _maximum(frames, layout)
        dtype = compute_dtype(frames)
        if frames.shape[-2] == 0:
            return Pooled(utterance, frames.sum(dim=-1).to(dtype), frames, cls=None)
        # Padding is -inf too, and holds none even where the maximum is
        holds = zero_padding((candidates.detach() == layout.spread(utterance.detach())).to(dtype), layout.mask)
        holders = layout.sum(holds).clamp_min(1)
        weights = (holds / layout.spread(holders)).mean(dim=-1)
        return Pooled(utterance, weights, zero_padding(frames, layout.mask), cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, dim): `forward(...).utterance`, without looking for who holds a maximum.

        Example:
            >>> import torch, framealign
            >>> frames = torch.tensor([[[1.0, 5.0], [3.0, 0.0], [100.0, 100.0]]])
            >>> framealign.MaxPooling().embed(frames, torch.tensor([[True, True, False]]))
            tensor([[3., 5.]])
        """
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, _ = _maximum(frames, layout)
        return utterance


def _maximum(frames: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
    """The maximum over real frames, 0 over none, and the frames it was taken of: -inf on padding."""
    if frames.shape[-2] == 0:  # no maximum of nothing; the sum is 0 and joined to the graph
        nothing = frames.sum(dim=-2, keepdim=True).expand(layout.batch, *(1,) * (frames.ndim - 2), -1)
        return nothing.flatten(1), frames
    candidates = fill_padding(frames, layout.mask, -torch.inf)
    return layout.amax(candidates).masked_fill(layout.counts[:, None] == 0, 0.0), candidates
