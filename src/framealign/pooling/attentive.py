"""Attentive pooling."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_integer
from framealign._plain_linear import is_plain, is_plain_linear
from framealign.functional.attentive import attentive_pooling_core
from framealign.layout import Layout, checked_layout
from framealign.masking import zero_padding
from framealign.pooling.pooled import Pooled
from framealign.pooling.reset import reset_layers
from framealign.pooling.unpadded import unpad


class FrameScorer(nn.Module):
    """One score for each frame: `w.tanh(V h + b)`, or `w.h` without a hidden layer."""

    project: nn.Module
    score: nn.Linear

    def __init__(self, dim: int, hidden_dim: int | None) -> None:
        super().__init__()
        check_integer("dim", dim, 1)
        if hidden_dim is not None:
            check_integer("hidden_dim", hidden_dim, 1)
        self.project = nn.Identity() if hidden_dim is None else nn.Sequential(nn.Linear(dim, hidden_dim), nn.Tanh())
        self.score = nn.Linear(dim if hidden_dim is None else hidden_dim, 1, bias=False)

    def forward(self, frames: Tensor) -> Tensor:
        logits: Tensor = self.score(self.project(frames))
        return logits.squeeze(-1)

    def attention(self, frames: Tensor, layout: Layout) -> dict[str, Tensor]:
        """By which it goes: logits, of frames that hold anything on padding; of a learned vector alone, a query."""
        if isinstance(self.project, nn.Identity) and is_plain(self) and is_plain_linear(self.score):
            return {"query": self.score.weight.expand(layout.batch, 1, -1)}
        unpadded = unpad(frames, layout)
        if unpadded is not None:
            return {"logits": unpadded.pad(self(unpadded.frames))}
        # nan on padding would reach the gradient of every parameter
        return {"logits": self(zero_padding(frames, layout.mask))}


class AttentivePooling(nn.Module):
    r"""Pool the frames of each utterance into one vector with learned attention.

    $$e_t = w^\top \tanh(V h_t + b), \qquad a_t = \mathrm{softmax}_t(e_t), \qquad u = \sum_t a_t h_t$$

    The softmax runs over real frames only. An utterance with none pools to zeros and sends back zero gradient.

    Args:
        dim: Size of each frame vector.
        hidden_dim: Width of the scoring layer; None scores with a learned vector alone, $e_t = w^\top h_t$.
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

    Source:
        Equation 1 of Byun and Lee 2025; the attention of Okabe et al., "Attentive Statistics Pooling for Deep
        Speaker Embedding", 2018, https://arxiv.org/abs/1803.10963

    Example:
        >>> import torch, framealign
        >>> pool = framealign.AttentivePooling(256)
        >>> mask = framealign.lengths_to_mask(torch.tensor([120, 87]), max_length=120)
        >>> pool(torch.randn(2, 120, 256), mask).utterance.shape
        torch.Size([2, 256])
    """

    dim: int
    output_dim: int
    scorer: FrameScorer

    def __init__(self, dim: int, hidden_dim: int | None = 128, *, backend: Backend = "auto") -> None:
        super().__init__()
        check_backend(backend)
        self.scorer = FrameScorer(dim, hidden_dim)
        self.dim = self.output_dim = dim
        self.backend = backend

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as a new module does."""
        reset_layers(self)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, weights = attentive_pooling_core(
            frames, layout, self.backend, **self.scorer.attention(frames, layout)
        )
        return Pooled(utterance, weights, zero_padding(frames, layout.mask), cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, dim): `forward(...).utterance`, without a clean copy of the frames.

        Example:
            >>> import torch, framealign
            >>> framealign.AttentivePooling(256).embed(torch.randn(2, 120, 256)).shape
            torch.Size([2, 256])
        """
        if not is_plain(self):
            pooled: Pooled = self(frames, mask, cu_seqlens=cu_seqlens)
            return pooled.utterance
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        utterance, _ = attentive_pooling_core(frames, layout, self.backend, **self.scorer.attention(frames, layout))
        return utterance
