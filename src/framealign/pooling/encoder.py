"""The Transformer encoder of the self-attention poolings."""

import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from framealign._checks import check_integer, check_number


class Encoder(nn.Module):
    """A stack of Transformer encoder layers whose queries never attend to padding.

    The layers compute what `torch.nn.TransformerEncoderLayer(activation="gelu", batch_first=True)` does;
    `feedforward_dim=0` leaves out the feed-forward half, which that class cannot.
    """

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
        self.layers = nn.ModuleList(
            EncoderLayer(dim, num_heads, dropout, norm_first, feedforward_dim) for _ in range(depth)
        )

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        """Frames (batch, time, dim), finite on padding, to encoded frames, meaningless on padding."""
        for layer in self.layers:
            frames = layer(frames, mask)
        return frames


class EncoderLayer(nn.Module):
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

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        if self.norm_first:
            frames = frames + self.dropout(self.attention(self.attention_norm(frames), mask))
            if self.feedforward is not None:
                frames = frames + self.dropout(self.feedforward(self.feedforward_norm(frames)))
            return frames
        frames = self.attention_norm(frames + self.dropout(self.attention(frames, mask)))
        if self.feedforward is not None:
            frames = self.feedforward_norm(frames + self.dropout(self.feedforward(frames)))
        return frames


class SelfAttention(nn.Module):
    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.project_in = nn.Linear(dim, 3 * dim)  # queries, keys and values side by side
        self.project_out = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.project_in.weight)  # as nn.MultiheadAttention
        nn.init.zeros_(self.project_in.bias)
        nn.init.zeros_(self.project_out.bias)

    def forward(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = rearrange(
            self.project_in(frames), "b t (three h d) -> three b h t d", three=3, h=self.num_heads
        ).unbind(0)
        if mask is not None:
            # An utterance without frames attends to its (zero) padding: a softmax over nothing is nan
            mask = (mask | ~mask.any(dim=1, keepdim=True))[:, None, None, :]
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0
        )
        output: Tensor = self.project_out(rearrange(attended, "b h t d -> b t (h d)"))
        return output
