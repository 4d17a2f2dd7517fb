"""Statistics pooling."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_integer
from framealign.functional.attentive_statistics import weighted_statistics_core
from framealign.layout import checked_layout
from framealign.masking import zero_padding
from framealign.pooling.pooled import Pooled, known_width


class StatisticsPooling(nn.Module):
    r"""Pool the real frames of each utterance into their mean and population standard deviation.

    $$\mu = \frac{1}{T} \sum_t h_t, \qquad \sigma = \sqrt{\frac{1}{T} \sum_t (h_t - \mu)^2}, \qquad u = [\mu; \sigma]$$

    The standard deviation of a single frame is 0, with gradient 0.

    Args:
        dim: Size of each frame vector. None takes any; `output_dim`, twice that, is then not known.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance: (batch, 2 * dim), dtype of `frames`; weights: (batch, time), uniform over the real frames

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Snyder et al., "X-vectors: Robust DNN Embeddings for Speaker Recognition", ICASSP 2018.

    Example:
        >>> import torch, framealign
        >>> framealign.StatisticsPooling()(torch.tensor([[[1.0], [3.0]]])).utterance
        tensor([[2., 1.]])
    """

    def __init__(self, dim: int | None = None, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend, "the deviation around a mean takes a second read, and has no kernel")
        if dim is not None:
            check_integer("dim", dim, 1)
        self.dim = dim

    @property
    def output_dim(self) -> int:
        return 2 * known_width("StatisticsPooling", self.dim)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, weights = weighted_statistics_core(frames, layout)
        return Pooled(utterance, weights, zero_padding(frames, layout.mask), cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, 2 * dim): `forward(...).utterance`, without a clean copy of the frames.

        Example:
            >>> import torch, framealign
            >>> framealign.StatisticsPooling().embed(torch.tensor([[[1.0], [3.0]]]))
            tensor([[2., 1.]])
        """
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, _ = weighted_statistics_core(frames, layout)
        return utterance
