"""What the library is compared with: the same computations as users write them, in PyTorch alone.

Products over frames are batched matrix products, the fastest of the usual spellings; `F.cosine_similarity` and
`F.kl_div` stand where people put them. Padding is masked where the result needs it, and nowhere else.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def emotional_attention_loss(frames: Tensor, anchor: Tensor, mask: Tensor, margin: float = 0.8) -> Tensor:
    cosines = F.cosine_similarity(frames, anchor[:, None], dim=-1)
    losses = F.softplus(margin - cosines) * mask
    return (losses.sum(1) / mask.sum(1)).mean()


def masked_softmax(logits: Tensor, mask: Tensor) -> Tensor:
    return logits.masked_fill(~mask, -torch.inf).softmax(1)


def weighted_sum(weights: Tensor, frames: Tensor) -> Tensor:
    return torch.bmm(weights[:, None], frames).squeeze(1)


def attention_to_anchor(frames: Tensor, anchor: Tensor, mask: Tensor) -> Tensor:
    logits = torch.matmul(frames, anchor[:, :, None]).squeeze(-1) / frames.shape[-1] ** 0.5
    return masked_softmax(logits, mask)


def alignment_objective(
    frames: Tensor, anchor: Tensor, weight: Tensor, bias: Tensor, labels: Tensor, mask: Tensor
) -> Tensor:
    weights = attention_to_anchor(frames, anchor, mask)
    utterance_logits = F.linear(weighted_sum(weights, frames), weight, bias)
    frame_logits = F.linear(frames, weight, bias)
    average = weighted_sum(weights, frame_logits.softmax(-1))
    fual = F.kl_div(average.log(), utterance_logits.log_softmax(-1), reduction="batchmean", log_target=True)
    eal = emotional_attention_loss(frames, anchor, mask)
    return F.cross_entropy(utterance_logits, labels) + 0.05 * eal + 0.05 * fual


def mean_pooling(frames: Tensor, mask: Tensor) -> Tensor:
    return (frames * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)


def statistics_pooling(frames: Tensor, mask: Tensor) -> Tensor:
    mean = mean_pooling(frames, mask)
    variance = mean_pooling((frames - mean[:, None]).square(), mask)
    return torch.cat([mean, variance.clamp_min(1e-12).sqrt()], dim=1)


def attentive_pooling(frames: Tensor, score: Tensor, mask: Tensor) -> Tensor:
    """Scores from a learned vector, `score` (1, dim)."""
    weights = masked_softmax(F.linear(frames, score).squeeze(-1), mask)
    return weighted_sum(weights, frames)


def hidden_attentive_pooling(frames: Tensor, project: Tensor, bias: Tensor, score: Tensor, mask: Tensor) -> Tensor:
    """Scores from a hidden layer: `project` (hidden, dim), `bias` (hidden,), `score` (1, hidden)."""
    weights = masked_softmax(F.linear(F.linear(frames, project, bias).tanh(), score).squeeze(-1), mask)
    return weighted_sum(weights, frames)


class CLSEncoder(nn.Module):
    """A learned CLS before the frames, one Transformer layer over both; returns all of its outputs."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.randn(dim) * 0.02)
        self.layer = nn.TransformerEncoderLayer(dim, 4, 4 * dim, dropout=0.0, activation="gelu", batch_first=True)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        tokens = torch.cat([self.cls.expand(frames.shape[0], 1, -1), frames], dim=1)
        return self.layer(tokens, src_key_padding_mask=F.pad(~mask, (1, 0)))


class CLSPooling(CLSEncoder):
    """The frames that leave the layer, weighted by their similarity to the CLS that leaves it."""

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        encoded = super().forward(frames, mask)
        anchor, frames = encoded[:, 0], encoded[:, 1:]
        return weighted_sum(attention_to_anchor(frames, anchor, mask), frames)
