import math

import pytest
import torch
from torch import Tensor, nn

import reference
from cases import CLASSES, DIM, MASKS, POOLINGS, Case, assert_close, assert_equal, make_inputs
from framealign.diagnostics import (
    anchor_cosine,
    attention_entropy,
    diagnose,
    effective_frames,
    frame_agreement,
    frame_variance,
)
from framealign.functional import masked_mean

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


@each_mask
def test_values_equal_the_reference(mask: Tensor) -> None:
    frames, anchor = torch.randn(*mask.shape, DIM).double(), torch.randn(len(mask), DIM).double()
    frame_logits, logits = torch.randn(*mask.shape, 3).double(), torch.randn(len(mask), 3).double()
    weights = torch.rand(mask.shape).double().masked_fill(~mask, 0)
    weights = weights / weights.sum(dim=1, keepdim=True).clamp_min(1e-9)
    for value in (frames, frame_logits, weights):
        value[~mask] = torch.nan
    found = {
        "entropy": attention_entropy(weights, mask),
        "effective": effective_frames(weights, mask),
        "cosine": anchor_cosine(frames, anchor, mask),
        "variance": frame_variance(frames, mask),
        "agreement": frame_agreement(frame_logits, logits, mask),
    }
    for i, real in enumerate(mask):
        if not real.any():
            assert all(value[i] == 0 for value in found.values())
            continue
        expected = {
            "entropy": reference.attention_entropy(weights[i, real]),
            "effective": math.exp(reference.attention_entropy(weights[i, real])),
            "cosine": reference.anchor_cosine(frames[i, real], anchor[i]),
            "variance": reference.frame_variance(frames[i, real]),
            "agreement": reference.frame_agreement(frame_logits[i, real], logits[i]),
        }
        assert_close({name: value[i] for name, value in found.items()}, expected)


@each_mask
@pytest.mark.parametrize("case", POOLINGS, ids=str)
def test_diagnose_puts_them_together(case: Case, mask: Tensor) -> None:
    module = case.build(torch.float32)
    pooled = module(make_inputs(case, mask, torch.float32)["frames"], mask)
    classifier = nn.Linear(module.output_dim, CLASSES)
    watch = diagnose(pooled, classifier, mask)
    assert not any(value.requires_grad for value in watch)
    assert_equal(watch.attention_entropy, attention_entropy(pooled.weights, mask))
    assert_equal(watch.effective_frames, effective_frames(pooled.weights, mask))
    assert_equal(watch.frame_variance, frame_variance(pooled.frames, mask))
    if pooled.cls is not None:
        assert_equal(watch.anchor_cosine, anchor_cosine(pooled.frames, pooled.cls, mask))
    if module.output_dim == DIM:
        agreement = frame_agreement(classifier(pooled.frames), classifier(pooled.utterance), mask)
        assert_equal(watch.frame_agreement, agreement)
    else:  # no classifier takes both
        assert watch.frame_agreement.isnan().all()
        assert_close(watch.anchor_cosine, anchor_cosine(pooled.frames, masked_mean(pooled.frames, mask), mask))


def test_diagnose_keeps_no_graph_of_the_classifier() -> None:
    modes = []

    def classifier(x: Tensor) -> Tensor:
        modes.append(torch.is_grad_enabled())
        return x

    diagnose(POOLINGS[0].build()(torch.randn(2, 3, DIM)), classifier)
    assert modes == [False, False]


def test_collapse_shows() -> None:
    same = torch.randn(1, 1, DIM).expand(1, 9, DIM)
    assert_close(frame_variance(same), [0.0])
    assert_close(anchor_cosine(same, same[:, 0]), [1.0])
    assert frame_variance(torch.randn(1, 9, DIM)) > 0.3


def test_effective_frames_are_all_of_them_when_uniform_and_one_on_one() -> None:
    weights = torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.0, 1.0, 0.0, 0.0]])
    assert_close(effective_frames(weights), [4.0, 1.0])
    assert_close(attention_entropy(weights), [math.log(4), 0.0])


def test_half_precision_accumulates_in_float32() -> None:
    frames = torch.full((1, 8, 1024), 100.0).half()
    frames[:, ::2] *= -1
    assert_close(frame_variance(frames), [1e4])
    assert_close(anchor_cosine(frames, frames[:, 0]), [0.0])


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    frames, weights = torch.randn(2, 3, 4), torch.rand(2, 3)
    with pytest.raises(TypeError, match=r"`pooled` must be the Pooled that a pooling returns, got Tensor"):
        diagnose(frames, nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"`weights` must have shape \(batch, time\), got \(2, 3, 4\)"):
        attention_entropy(frames)
    with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.int64"):
        effective_frames(weights, torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"`anchor` must be a tensor of shape \(batch, dim\), got NoneType"):
        anchor_cosine(frames, None)
    with pytest.raises(ValueError, match=r"`mask` must have shape .* = \(2, 3\) to match `frames`, got \(3, 2\)"):
        frame_variance(frames, torch.ones(3, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`utterance_logits` must have shape .* = \(2, 4\) to match `frame_logits`"):
        frame_agreement(frames, torch.randn(2, 3))
