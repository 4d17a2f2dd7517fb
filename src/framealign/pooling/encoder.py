"""The Transformer encoder of the self-attention poolings."""

from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framealign._checks import Backend, check_integer, check_number
from framealign._plain_linear import is_plain, is_plain_linear
from framealign.kernels.frame_stats import frame_stats_core
from framealign.layout import Layout, Packed, Padded, log_sum_exp
from framealign.masking import zero_padding
from framealign.pooling.reset import reset_layers
from framealign.pooling.tokens import tokens_of


class Encoder(nn.Module):
    """A stack of Transformer encoder layers whose queries never attend to padding.

    The layers compute what `torch.nn.TransformerEncoderLayer(activation="gelu", batch_first=True)` does;
    `feedforward_dim=0` leaves out the feed-forward half, which that class cannot.
    """

    layers: nn.ModuleList

    def __init__(
        self, dim: int, num_heads: int, depth: int, dropout: float, norm_first: bool, feedforward_dim: int | None
    ) -> None:
        super().__init__()
        for name, value in (("dim", dim), ("num_heads", num_heads), ("depth", depth)):
            check_integer(name, value, 1)
        if dim % num_heads:
            raise ValueError(f"`dim` must be divisible by `num_heads`, got {dim} and {num_heads}.")
        check_number("dropout", dropout, 0, 1)
        if feedforward_dim is None:
            feedforward_dim = 4 * dim
        check_integer("feedforward_dim", feedforward_dim, 0)
        self.dropout = dropout
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, dropout, norm_first, feedforward_dim) for _ in range(depth)
        )

    def forward(self, frames: Tensor, layout: Layout, cls: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encoded frames, 0 on padding, and the output (batch, dim) at a `cls` (dim,) before those of each utterance.

        That output is 0 for an utterance without frames, and None without a `cls`.
        """
        tokens = tokens_of(frames, layout, cls)
        values = tokens.values
        for layer in self.layers:
            values = layer(values, tokens.layout)
        return tokens.frames(values), None if cls is None else tokens.cls(values)

    @property
    def answers_one_query(self) -> bool:
        """Whether `cls_alone` computes what calling the encoder does: it calls neither a layer nor its attention."""
        layer = cast(EncoderLayer, self.layers[0])
        return (
            len(self.layers) == 1
            and not (self.training and self.dropout > 0)
            and all(is_plain(module) for module in (self, layer, layer.attention))
            and is_plain_linear(layer.attention.project_in)
        )

    def cls_alone(self, frames: Tensor, cls: Tensor, layout: Layout, backend: Backend) -> Tensor:
        """Only the second result of `forward`, of a single layer without dropout: one query in place of all."""
        layer = cast(EncoderLayer, self.layers[0])
        if layer.norm_first:
            frames, token = layer.attention_norm(zero_padding(frames, layout.mask)), layer.attention_norm(cls)
        else:
            token = cls
        attended = layer.attention.answer(token, frames, layout, backend)
        return layer.after_attention(cls, attended).masked_fill(layout.counts[:, None] == 0, 0.0)


class EncoderLayer(nn.Module):
    attention: "SelfAttention"
    attention_norm: nn.LayerNorm
    feedforward_norm: nn.LayerNorm
    dropout: nn.Dropout

    def __init__(self, dim: int, num_heads: int, dropout: float, norm_first: bool, feedforward_dim: int) -> None:
        super().__init__()
        self.norm_first = norm_first
        self.attention = SelfAttention(dim, num_heads, dropout)
        self.attention_norm = nn.LayerNorm(dim)
        self.feedforward: nn.Sequential | None = None
        if feedforward_dim:
            self.feedforward = nn.Sequential(
                nn.Linear(dim, feedforward_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(feedforward_dim, dim)
            )
            self.feedforward_norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        attended = self.attention(self.attention_norm(tokens) if self.norm_first else tokens, layout)
        return self.after_attention(tokens, attended)

    def after_attention(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = tokens + self.dropout(attended)
        if self.norm_first:
            if self.feedforward is not None:
                tokens = tokens + self.dropout(self.feedforward(self.feedforward_norm(tokens)))
            return tokens
        tokens = self.attention_norm(tokens)
        if self.feedforward is not None:
            tokens = self.feedforward_norm(tokens + self.dropout(self.feedforward(tokens)))
        return tokens


class SelfAttention(nn.Module):
    num_heads: int
    dropout: float
    project_in: nn.Linear
    project_out: nn.Linear

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.project_in = nn.Linear(dim, 3 * dim)  # queries, keys and values side by side
        self.project_out = nn.Linear(dim, dim)
        self._start_as_multihead_attention()

    def reset_parameters(self) -> None:
        reset_layers(self)
        self._start_as_multihead_attention()

    def _start_as_multihead_attention(self) -> None:
        """As torch's class of that name: over what the two layers drew."""
        nn.init.xavier_uniform_(self.project_in.weight)
        nn.init.zeros_(self.project_in.bias)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, tokens: Tensor, layout: Layout) -> Tensor:
        projected = self.project_in(tokens)
        if isinstance(layout, Padded):
            attended = self._attend(projected, layout.mask)
        else:
            attended = self._attend_packed(projected, layout)
        output: Tensor = self.project_out(attended)
        return output

    def answer(self, token: Tensor, frames: Tensor, layout: Layout, backend: Backend) -> Tensor:
        r"""What one query, of `token` (dim,), gets from itself and the frames of each utterance: (batch, dim).

        $q^\top W_k z_t = (W_k^\top q)^\top z_t$ and $\sum_t a_t W_v z_t = W_v \sum_t a_t z_t$: the frames meet one
        column for each head, and no matrix. The bias of the keys shifts all scores of a query alike, and drops out.
        """
        dim = token.shape[0]
        (w_query, w_key, w_value), (b_query, _, b_value) = (
            torch.split(tensor, dim) for tensor in (self.project_in.weight, self.project_in.bias)
        )
        query = F.linear(token, w_query, b_query).view(self.num_heads, -1)
        keys, values = (weight.view(self.num_heads, -1, dim) for weight in (w_key, w_value))
        columns = torch.einsum("hd,hdk->hk", query, keys) / query.shape[1] ** 0.5
        heads = []
        for column, value in zip(columns, values, strict=True):
            stats = frame_stats_core(frames, column.expand(layout.batch, 1, -1), layout, attend=True, backend=backend)
            assert stats.pooled is not None
            score = (column * token).sum().to(stats.dots.dtype)
            share = (log_sum_exp(stats.dots[..., 0], layout) - score).sigmoid()[:, None]  # of all frames together
            heads.append(F.linear((share * stats.pooled + (1 - share) * token).to(token.dtype), value))
        output: Tensor = self.project_out(torch.cat(heads, dim=1) + b_value)
        return output

    def _attend(self, projected: Tensor, mask: Tensor | None) -> Tensor:
        """(batch, time, 3 * dim) to (batch, time, dim); `mask` is (batch, time), or (batch, time, time)."""
        query, key, value = rearrange(projected, "b t (three h d) -> three b h t d", three=3, h=self.num_heads).unbind(
            0
        )
        if mask is not None:
            mask = mask[:, None, None, :] if mask.ndim == 2 else mask[:, None]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        return rearrange(attended, "b h t d -> b t (h d)")

    def _attend_packed(self, projected: Tensor, layout: Packed) -> Tensor:
        lengths = layout.lengths_on_host()
        if lengths is None:
            same_utterance = layout.utterance[:, None] == layout.utterance
            return self._attend(projected[None], same_utterance[None])[0]
        # One split, whose gradient is one concatenation: a slice for each utterance would each send back zeros
        # in the size of the whole
        alone = [self._attend(part[None], None)[0] for part in torch.split(projected, lengths) if len(part)]
        return torch.cat(alone) if alone else projected[:, : projected.shape[1] // 3]
