"""Mean pooling."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_integer
from framealign.functional.attentive import attentive_pooling_core
from framealign.layout import checked_layout
from framealign.masking import zero_padding
from framealign.pooling.pooled import Pooled, known_width


class MeanPooling(nn.Module):
    r"""Pool the real frames of each utterance into their mean.

    $$u = \frac{1}{T} \sum_{t\ \mathrm{real}} h_t$$

    Args:
        dim: Size of each frame vector. None takes any; `output_dim` is then not known.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance: (batch, dim), dtype of `frames`; weights: (batch, time), uniform over the real frames

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Example:
        >>> import torch, framealign
        >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
        >>> framealign.MeanPooling()(frames, torch.tensor([[True, True, False]])).utterance
        tensor([[2.]])
    """

    def __init__(self, dim: int | None = None, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend)
        if dim is not None:
            check_integer("dim", dim, 1)
        self.dim = dim
        self.backend = backend

    @property
    def output_dim(self) -> int:
        return known_width("MeanPooling", self.dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, weights = attentive_pooling_core(frames, layout, self.backend)
        return Pooled(utterance, weights, zero_padding(frames, layout.mask), cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, dim): `forward(...).utterance`, without a clean copy of the frames.

        Example:
            >>> import torch, framealign
            >>> frames = torch.tensor([[[1.0], [3.0], [100.0]]])
            >>> framealign.MeanPooling().embed(frames, torch.tensor([[True, True, False]]))
            tensor([[2.]])
        """
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, _ = attentive_pooling_core(frames, layout, self.backend)
        return utterance
