import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_equal, assert_matches_oracle, cases_of, make_inputs, run
from framealign import AttentivePooling, MeanPooling
from framealign.functional import attentive_pooling


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(AttentivePooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(AttentivePooling, MeanPooling), ids=str)
def test_many_frames_give_what_few_do(case: Case, mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which the real ones are listed, and no other is read."""
    module, inputs = case.build(), make_inputs(case, mask)
    without_mask = run(module, inputs, None)
    monkeypatch.setattr("framealign.kernels.attentive._WORTH_INDEXING", 0)
    monkeypatch.setattr("framealign.kernels.groups._GROUP_BYTES", 0)
    assert_matches_oracle(case, mask)
    assert_close(run(module, inputs, None), without_mask)


def test_by_default_128_hidden_units_score_and_the_width_is_kept() -> None:
    pooling = AttentivePooling(6)
    assert pooling.output_dim == 6
    assert {name: tuple(p.shape) for name, p in pooling.named_parameters()} == {
        "scorer.project.0.weight": (128, 6),
        "scorer.project.0.bias": (128,),
        "scorer.score.weight": (1, 128),
    }
    assert [tuple(p.shape) for p in AttentivePooling(6, hidden_dim=None).parameters()] == [(1, 6)]


def test_a_learned_vector_scores_as_computed_by_hand() -> None:
    pooling = AttentivePooling(2, hidden_dim=None)
    torch.nn.init.constant_(pooling.scorer.score.weight, 1.0)
    pooled = pooling(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]]))  # scores 1 and 0
    assert_close(pooled.weights, [[0.7310586, 0.2689414]])
    assert_close(pooled.utterance, [[0.7310586, 0.0]])
    assert pooled.cls is None


def test_the_functional_equals_the_module() -> None:
    pooling, frames, mask = AttentivePooling(4), torch.randn(4, 5, 4), MASKS["ragged"]
    utterance, weights = attentive_pooling(frames, pooling.scorer(frames), mask)
    assert_close(utterance, pooling(frames, mask).utterance)
    assert_close(weights, pooling(frames, mask).weights)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_logits_may_be_of_another_dtype(dtype: torch.dtype) -> None:
    frames, logits, mask = torch.randn(4, 5, 4), torch.randn(4, 5).to(dtype), MASKS["ragged"]
    utterance, weights = attentive_pooling(frames, logits, mask)
    assert utterance.dtype == torch.float32
    assert weights.dtype == torch.float32
    exact = attentive_pooling(frames.double(), logits.double(), mask)
    assert_close(utterance, exact[0])
    assert_close(weights, exact[1])


def test_a_learned_vector_may_be_of_another_dtype() -> None:
    pooling, frames, mask = AttentivePooling(4, hidden_dim=None), torch.randn(4, 5, 4), MASKS["ragged"]
    expected = pooling(frames, mask)
    found = pooling.double()(frames, mask)
    assert found.utterance.dtype == torch.float32
    assert_close(found.utterance, expected.utterance)
    assert_close(found.weights, expected.weights, torch.float32)


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    with pytest.raises(TypeError, match=r"`hidden_dim` must be an integer, got float"):
        AttentivePooling(4, hidden_dim=2.0)
    with pytest.raises(ValueError, match=r"`hidden_dim` must be at least 1, got 0"):
        AttentivePooling(4, hidden_dim=0)
    with pytest.raises(TypeError, match=r"`dim` must be an integer, got bool"):
        AttentivePooling(True)
    with pytest.raises(ValueError, match=r"`logits` must have shape \(batch, time\) = \(2, 3\) to match `frames`, got"):
        attentive_pooling(torch.ones(2, 3, 4), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"`logits` must have shape \(frames\) = \(3,\) to match `frames`, got \(4,\)"):
        attentive_pooling(torch.ones(3, 4), torch.ones(4), cu_seqlens=torch.tensor([0, 3]))
    with pytest.raises(TypeError, match=r"`logits` must be floating point, got torch.int64"):
        attentive_pooling(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"`logits` must be on the device of `frames`, cpu, got meta"):
        attentive_pooling(torch.ones(2, 3, 4), torch.ones(2, 3, device="meta"))


def test_the_functional_never_reads_padding() -> None:
    mask = MASKS["an empty utterance"]
    frames, logits = torch.randn(*mask.shape, 4), torch.randn(mask.shape)
    results = []
    for junk in (0.0, torch.nan):
        leaves = frames.masked_fill(~mask[..., None], junk), logits.masked_fill(~mask, junk)
        outputs = attentive_pooling(*(leaf.requires_grad_() for leaf in leaves), mask)
        results.append([*outputs, *torch.autograd.grad(outputs[0].square().sum(), leaves)])
    assert_equal(results[1], results[0])
    assert all(value.isfinite().all() for value in results[1])
