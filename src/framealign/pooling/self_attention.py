"""Self-attention pooling without CLS: the first baseline."""

from torch import Tensor, nn

from framealign._checks import Backend, check_backend
from framealign.functional.attentive import attentive_pooling_core
from framealign.layout import checked_layout
from framealign.pooling.attentive import FrameScorer
from framealign.pooling.encoder import Encoder
from framealign.pooling.pooled import Pooled
from framealign.pooling.reset import reset_layers


class SelfAttentionPooling(nn.Module):
    r"""Encode the frames with self-attention, then pool them attentively.

    $$[z_1 .. z_T] = \mathrm{Encoder}([h_1 .. h_T]), \qquad
      a_t = \mathrm{softmax}_t\left(w^\top \tanh(V z_t + b)\right), \qquad u = \sum_t a_t z_t$$

    Args:
        dim: Size of each frame vector.
        num_heads: Attention heads; must divide `dim`.
        depth: Number of Transformer encoder layers.
        dropout: On attention weights, inside the feed-forward half and on both residual branches.
        norm_first: Normalise before each half of a layer instead of after it.
        feedforward_dim: Width of the feed-forward half; None is `4 * dim`, 0 leaves it out.
        hidden_dim: Width of the scoring layer; None scores with a learned vector alone.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance: (batch, dim); weights: (batch, time), float32 at least; frames: (batch, time, dim), encoded

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape, a device or an option is not as above, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        The baseline of Byun and Lee 2025, section 4.4.1: equation 4 without CLS, then equation 1.

    Example:
        >>> import torch, framealign
        >>> framealign.SelfAttentionPooling(64)(torch.randn(2, 50, 64)).frames.shape
        torch.Size([2, 50, 64])
    """

    dim: int
    output_dim: int
    encoder: Encoder
    scorer: FrameScorer

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        depth: int = 1,
        dropout: float = 0.0,
        *,
        norm_first: bool = False,
        feedforward_dim: int | None = None,
        hidden_dim: int | None = 128,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_backend(backend)
        self.encoder = Encoder(dim, num_heads, depth, dropout, norm_first, feedforward_dim)
        self.scorer = FrameScorer(dim, hidden_dim)
        self.dim = self.output_dim = dim
        self.backend = backend

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as a new module does."""
        reset_layers(self)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        frames, _ = self.encoder(frames, layout)
        utterance, weights = attentive_pooling_core(
            frames, layout, self.backend, **self.scorer.attention(frames, layout)
        )
        return Pooled(utterance, weights, frames, cls=None)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, dim): `forward(...).utterance`; its frames are encoded all the same.

        Example:
            >>> import torch, framealign
            >>> framealign.SelfAttentionPooling(64).embed(torch.randn(2, 50, 64)).shape
            torch.Size([2, 64])
        """
        pooled: Pooled = self(frames, mask, cu_seqlens=cu_seqlens)
        return pooled.utterance
