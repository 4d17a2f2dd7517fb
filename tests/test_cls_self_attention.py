import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_equal, assert_matches_oracle, cases_of
from framealign import CLSSelfAttentionPooling
from framealign.functional import cls_attention


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(CLSSelfAttentionPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_the_cls_starts_small_and_is_learned() -> None:
    pooling = CLSSelfAttentionPooling(4096, depth=1, feedforward_dim=0)
    assert pooling.output_dim == 4096
    assert 0.019 < pooling.cls.std() < 0.021
    assert pooling.cls.requires_grad


def test_the_paper_s_weights_by_hand() -> None:
    frames, cls = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[3.0, 0.0]])
    assert_close(cls_attention(frames, cls), torch.tensor([[6 / 2**0.5, 0.0]]).softmax(dim=1))
    assert_close(cls_attention(frames, cls, similarity="cosine"), torch.tensor([[10.0, 0.0]]).softmax(dim=1))


def test_the_functional_equals_the_module() -> None:
    pooling, mask = CLSSelfAttentionPooling(8, similarity="cosine", temperature=0.3), MASKS["holes"]
    pooled = pooling(torch.randn(*mask.shape, 8), mask)
    weights = cls_attention(pooled.frames, pooled.cls, mask, similarity="cosine", temperature=0.3)
    assert_close(weights, pooled.weights)


def test_messages() -> None:
    with pytest.raises(ValueError, match=r"`similarity` must be one of 'dot', 'cosine', got 'dots'"):
        CLSSelfAttentionPooling(8, similarity="dots")
    with pytest.raises(ValueError, match=r"`aggregate` must be one of 'frames', 'cls', 'sum', got None"):
        CLSSelfAttentionPooling(8, aggregate=None)
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number in \(0, inf\), got 0"):
        CLSSelfAttentionPooling(8, temperature=0)
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number .* got nan"):
        cls_attention(torch.ones(1, 2, 3), torch.ones(1, 3), temperature=float("nan"))
    with pytest.raises(ValueError, match=r"`cls` must have shape \(batch, dim\) = \(1, 3\) to match `frames`, got"):
        cls_attention(torch.ones(1, 2, 3), torch.ones(1, 2))
    with pytest.raises(TypeError, match=r"`cls` must be a tensor of shape .*, got NoneType"):
        cls_attention(torch.ones(1, 2, 3), None)


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_the_functional_never_reads_padding(similarity: str) -> None:
    mask = MASKS["an empty utterance"]
    frames, cls = torch.randn(*mask.shape, 4), torch.randn(len(mask), 4, requires_grad=True)
    results = []
    for junk in (0.0, torch.nan):
        leaf = frames.masked_fill(~mask[..., None], junk).requires_grad_()
        weights = cls_attention(leaf, cls, mask, similarity=similarity)
        results.append([weights, *torch.autograd.grad(weights.square().sum(), [leaf, cls])])
    assert_equal(results[1], results[0])
    assert all(value.isfinite().all() for value in results[1])
