"""Attentive statistics pooling."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend
from framealign._plain_linear import is_plain
from framealign.functional.attentive_statistics import weighted_statistics_core
from framealign.layout import checked_layout
from framealign.masking import zero_padding
from framealign.pooling.attentive import FrameScorer
from framealign.pooling.pooled import Pooled
from framealign.pooling.reset import reset_layers


class AttentiveStatisticsPooling(nn.Module):
    r"""Pool the frames of each utterance into their attention-weighted mean and standard deviation.

    $$a_t = \mathrm{softmax}_t\left(w^\top \tanh(V h_t + b)\right), \qquad \mu = \sum_t a_t h_t, \qquad
      \sigma = \sqrt{\sum_t a_t (h_t - \mu)^2}, \qquad u = [\mu; \sigma]$$

    Args:
        dim: Size of each frame vector.
        hidden_dim: Width of the scoring layer; None scores with a learned vector alone.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance: (batch, 2 * dim), dtype of `frames`; weights: (batch, time), float32 at least

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape or a device does not match, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Okabe et al., "Attentive Statistics Pooling for Deep Speaker Embedding", 2018,
        https://arxiv.org/abs/1803.10963, equations 3 to 6.

    Example:
        >>> import torch, framealign
        >>> framealign.AttentiveStatisticsPooling(256)(torch.randn(2, 120, 256)).utterance.shape
        torch.Size([2, 512])
    """

    dim: int
    output_dim: int
    scorer: FrameScorer

    def __init__(self, dim: int, hidden_dim: int | None = 128, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend, "the deviation around a mean takes a second read, and has no kernel")
        self.scorer = FrameScorer(dim, hidden_dim)
        self.dim, self.output_dim = dim, 2 * dim

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as a new module does."""
        reset_layers(self)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, weights = weighted_statistics_core(frames, layout, **self.scorer.attention(frames, layout))
        return Pooled(utterance, weights, zero_padding(frames, layout.mask), cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, 2 * dim): `forward(...).utterance`, without a clean copy of the frames.

        Example:
            >>> import torch, framealign
            >>> framealign.AttentiveStatisticsPooling(256).embed(torch.randn(2, 120, 256)).shape
            torch.Size([2, 512])
        """
        if not is_plain(self):
            pooled: Pooled = self(frames, mask, cu_seqlens=cu_seqlens)
            return pooled.utterance
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, _ = weighted_statistics_core(frames, layout, **self.scorer.attention(frames, layout))
        return utterance
