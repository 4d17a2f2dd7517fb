"""A user's code, for mypy and pyright to be strict about, with the types that it must see; a test runs it."""

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import framealign
from framealign import diagnostics, functional


class Head(nn.Module):
    """Frames to logits, with a pooling that can be swapped."""

    def __init__(self, dim: int, classes: int, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.pooling = framealign.CLSSelfAttentionPooling(dim, num_heads=2, similarity="cosine", aggregate="sum")
        self.classifier = nn.Linear(self.pooling.output_dim, classes)
        self.objective = framealign.AlignmentObjective(negative_margin=0.2, class_weights=class_weights)

    def forward(self, frames: Tensor, mask: Tensor) -> framealign.Pooled:
        pooled: framealign.Pooled = self.pooling(frames, mask)  # calling a module gives Any: torch says no more
        return pooled

    def loss(self, frames: Tensor, mask: Tensor, labels: Tensor) -> framealign.Objective:
        objective: framealign.Objective = self.objective(self.forward(frames, mask), labels, self.classifier, mask)
        return objective


def masks() -> Tensor:
    assert_type(framealign.conv_lengths([400, 800], (10, 3), (5, 2)), Tensor)
    assert_type(framealign.relative_lengths(torch.tensor([1.0, 0.5]), 50), Tensor)
    assert_type(framealign.attention_mask_lengths(torch.ones(2, 400, dtype=torch.bool)), Tensor)
    assert_type(framealign.lengths_to_mask([50, 30]), Tensor)
    assert_type(framealign.lengths_to_mask(np.array([50, 30]), max_length=50), Tensor)
    return framealign.lengths_to_mask(torch.tensor([50, 30]), 50)


def poolings(frames: Tensor, mask: Tensor) -> None:
    any_width = framealign.MeanPooling(), framealign.MaxPooling(), framealign.StatisticsPooling(16)
    with_parameters = (
        framealign.AttentivePooling(16, hidden_dim=None),
        framealign.AttentiveStatisticsPooling(16),
        framealign.SelfAttentionPooling(16, norm_first=True, backend="eager"),
    )
    for pooling in (*any_width, *with_parameters):
        pooled = pooling.forward(frames, mask)
        assert_type(pooled, framealign.Pooled)
        assert_type(pooled.utterance, Tensor)
        assert_type(pooled.cls, Tensor | None)
        assert_type(pooling.embed(frames, mask), Tensor)
    assert_type(with_parameters[1].output_dim, int)
    for pooling in with_parameters:
        pooling.reset_parameters()


def losses(head: Head, frames: Tensor, mask: Tensor, labels: Tensor) -> Tensor:
    pooled = head.forward(frames, mask)
    assert pooled.cls is not None
    eal = framealign.EmotionalAttentionLoss(margin=0.5, reduction="sum")
    fual = framealign.FrameUtteranceAlignmentLoss(target="frames", detach="frames")
    found = assert_type(eal.forward(pooled.frames, pooled.cls, mask, labels), Tensor)
    logits, frame_logits = head.classifier(pooled.utterance), head.classifier(pooled.frames)
    found = found + assert_type(fual.forward(frame_logits, logits, pooled.weights, mask), Tensor)
    objective = head.loss(frames, mask, labels)
    assert_type(objective.cross_entropy, Tensor)
    return found + objective.loss


def functions(head: Head, frames: Tensor, mask: Tensor, labels: Tensor) -> None:
    stats = functional.frame_stats(frames, frames[:, :1], mask, attend=True, norms=True)
    assert_type(stats, functional.FrameStats)
    assert_type(stats.pooled, Tensor | None)
    packed, cu_seqlens = functional.pack(frames, mask)
    assert_type(head.pooling.forward(packed, cu_seqlens=cu_seqlens), framealign.Pooled)
    assert_type(functional.unpack(packed, cu_seqlens, frames.shape[1]), tuple[Tensor, Tensor])
    weight, bias = head.classifier.weight, head.classifier.bias
    objective = functional.alignment_objective(frames, frames[:, 0], labels, weight, bias, mask)
    assert_type(objective, framealign.Objective)
    watched = diagnostics.diagnose(head.forward(frames, mask), head.classifier, mask)
    assert_type(watched, diagnostics.Diagnostics)
    assert_type(watched.effective_frames, Tensor)


class Encoder(nn.Module): ...


def exact(encoder: Encoder) -> Encoder:
    """The type of what is given comes back."""
    return assert_type(framealign.exact_under_padding(encoder), Encoder)


def test_it_runs() -> None:
    frames, labels, mask = torch.randn(2, 50, 16), torch.tensor([0, 3]), masks()
    head = Head(16, 4, torch.ones(4))
    poolings(frames, mask)
    assert losses(head, frames, mask, labels).isfinite()
    functions(head, frames, mask, labels)
