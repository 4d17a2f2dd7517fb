"""CLS self-attention pooling: the pooling of the method."""

import torch
from torch import Tensor, nn

from framealign._checks import Backend, check_backend, check_choice
from framealign._plain_linear import is_plain
from framealign.functional.cls_self_attention import check_similarity, cls_attention_core
from framealign.layout import checked_layout
from framealign.pooling.encoder import Encoder
from framealign.pooling.pooled import Pooled
from framealign.pooling.reset import reset_layers


class CLSSelfAttentionPooling(nn.Module):
    r"""Encode the frames together with a learned CLS token, and weigh them by their similarity to it.

    $$[z_{\mathrm{cls}}; z_1 .. z_T] = \mathrm{Encoder}([\mathrm{cls}; h_1 .. h_T]), \qquad
      a = \mathrm{softmax}_t\,\mathrm{sim}(z_{\mathrm{cls}}, z_t), \qquad u = \sum_t a_t z_t$$

    No query attends to padding, and there is no positional encoding: the backbone has given position. The
    result has the anchor (`cls`), the encoded frames and the weights that EAL and FUAL need.

    Args:
        dim: Size of each frame vector.
        num_heads: Attention heads; must divide `dim`.
        depth: Number of Transformer encoder layers.
        dropout: On attention weights, inside the feed-forward half and on both residual branches.
        similarity: `"dot"`, over $\sqrt D$, or `"cosine"`, over `temperature`.
        temperature: Of the cosine; the dot product does not use it.
        aggregate: `"frames"` pools $\sum_t a_t z_t$, `"cls"` takes $z_{\mathrm{cls}}$, `"sum"` adds both.
        norm_first: Normalise before each half of a layer instead of after it.
        feedforward_dim: Width of the feed-forward half; None is `4 * dim`, 0 leaves it out.
        backend: `"auto"`, `"eager"` or `"triton"`.

    Shape:
        - frames: (batch, time, dim), floating point
        - mask: (batch, time), bool, True at real frames; None means that every frame is real
        - cu_seqlens: (batch + 1,), integer cumulative lengths of packed frames, which are (frames, dim); then
          weights and frames come back packed too
        - utterance and cls: (batch, dim); weights: (batch, time), float32 at least;
          frames: (batch, time, dim), encoded. All zero for an utterance without real frames.

    Raises:
        TypeError: `frames` is not floating point, or `mask` not bool.
        ValueError: A shape, a device or an option is not as above, or both `mask` and `cu_seqlens` are given.
        RuntimeError: `backend="triton"` cannot run; the message says why.

    Source:
        Equations 3 to 5 of Byun and Lee, "Frame and Utterance Emotional Alignment for Speech Emotion
        Recognition", Future Internet 17(11):509, 2025, https://doi.org/10.3390/fi17110509

    Example:
        >>> import torch, framealign
        >>> pool = framealign.CLSSelfAttentionPooling(64)
        >>> pooled = pool(torch.randn(2, 50, 64), framealign.lengths_to_mask(torch.tensor([50, 30])))
        >>> pooled.utterance.shape, pooled.cls.shape, pooled.frames.shape
        (torch.Size([2, 64]), torch.Size([2, 64]), torch.Size([2, 50, 64]))
        >>> pooled.weights[1, 30:].count_nonzero()
        tensor(0)
    """

    dim: int
    output_dim: int
    similarity: str
    temperature: float
    aggregate: str
    encoder: Encoder
    cls: nn.Parameter

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        depth: int = 1,
        dropout: float = 0.0,
        *,
        similarity: str = "dot",
        temperature: float = 0.1,
        aggregate: str = "frames",
        norm_first: bool = False,
        feedforward_dim: int | None = None,
        backend: Backend = "auto",
    ) -> None:
        super().__init__()
        check_backend(backend)
        check_similarity(similarity, temperature)
        check_choice("aggregate", aggregate, ("frames", "cls", "sum"))
        self.encoder = Encoder(dim, num_heads, depth, dropout, norm_first, feedforward_dim)
        self.cls = nn.Parameter(torch.empty(dim))
        self._start_cls()
        self.similarity, self.temperature, self.aggregate = similarity, temperature, aggregate
        self.dim = self.output_dim = dim
        self.backend = backend

    def reset_parameters(self) -> None:
        """Draw all parameters anew, as a new module does."""
        reset_layers(self)
        self._start_cls()

    def _start_cls(self) -> None:
        nn.init.normal_(self.cls, std=0.02)

    def forward(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Pooled:
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        frames, cls = self.encoder(frames, layout, self.cls.to(frames.dtype))
        weights, pooled = cls_attention_core(frames, cls, layout, self.similarity, self.temperature, self.backend)
        utterance = cls if self.aggregate == "cls" else pooled.to(frames.dtype)
        if self.aggregate == "sum":
            utterance = utterance + cls
        return Pooled(utterance, weights, frames, cls)

    def embed(self, frames: Tensor, mask: Tensor | None = None, *, cu_seqlens: Tensor | None = None) -> Tensor:
        """The utterance vectors alone, (batch, dim): `forward(...).utterance`.

        With `aggregate="cls"` and `depth=1`, and no dropout at work, only the CLS asks and no frame is encoded:
        the same up to rounding, for a small part of the work.

        Example:
            >>> import torch, framealign
            >>> pool = framealign.CLSSelfAttentionPooling(64, aggregate="cls").eval()
            >>> frames = torch.randn(2, 50, 64)
            >>> torch.allclose(pool.embed(frames), pool(frames).utterance, atol=1e-5)
            True
        """
        if self.aggregate != "cls" or not (is_plain(self) and self.encoder.answers_one_query):
            pooled: Pooled = self(frames, mask, cu_seqlens=cu_seqlens)
            return pooled.utterance
        layout = checked_layout(frames, mask, cu_seqlens, dim=self.dim)
        return self.encoder.cls_alone(frames, self.cls.to(frames.dtype), layout, self.backend)
