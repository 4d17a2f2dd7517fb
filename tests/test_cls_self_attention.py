import pytest
import torch
from torch import Tensor

from cases import DIM, MASKS, Case, assert_close, assert_equal, assert_matches_oracle, cases_of
from framealign import CLSSelfAttentionPooling
from framealign.functional import cls_attention, pack
from framealign.pooling.encoder import Encoder


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(CLSSelfAttentionPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_the_cls_starts_small_and_is_learned() -> None:
    pooling = CLSSelfAttentionPooling(4096, depth=1, feedforward_dim=0)
    assert pooling.output_dim == 4096
    assert 0.019 < pooling.cls.std() < 0.021
    assert pooling.cls.requires_grad


def test_the_paper_s_weights_equal_those_computed_by_hand() -> None:
    frames, cls = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[3.0, 0.0]])
    assert_close(cls_attention(frames, cls), torch.tensor([[6 / 2**0.5, 0.0]]).softmax(dim=1))
    assert_close(cls_attention(frames, cls, similarity="cosine"), torch.tensor([[10.0, 0.0]]).softmax(dim=1))


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_functional_equals_the_module(dtype: torch.dtype, similarity: str) -> None:
    """In float32's tolerance: no score is rounded to the dtype of the frames."""
    pooling, mask = CLSSelfAttentionPooling(8, similarity=similarity, temperature=0.3).to(dtype), MASKS["holes"]
    pooled = pooling(torch.randn(*mask.shape, 8, dtype=dtype), mask)
    weights = cls_attention(pooled.frames, pooled.cls, mask, similarity=similarity, temperature=0.3)
    assert_close(weights, pooled.weights)


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    with pytest.raises(ValueError, match=r"`similarity` must be one of 'dot', 'cosine', got 'dots'"):
        CLSSelfAttentionPooling(8, similarity="dots")
    with pytest.raises(ValueError, match=r"`aggregate` must be one of 'frames', 'cls', 'sum', got None"):
        CLSSelfAttentionPooling(8, aggregate=None)
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number in \(0, inf\), got 0"):
        CLSSelfAttentionPooling(8, temperature=0)
    with pytest.raises(ValueError, match=r"`temperature` must be a finite number .* got nan"):
        cls_attention(torch.ones(1, 2, 3), torch.ones(1, 3), temperature=float("nan"))
    with pytest.raises(ValueError, match=r"`cls` must have shape \(batch, dim\), got \(3,\)"):
        cls_attention(torch.randn(1, 2, 3), torch.randn(3))
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


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize(
    "options",
    [{}, {"norm_first": True}, {"feedforward_dim": 0}, {"norm_first": True, "feedforward_dim": 0}, {"num_heads": 1}],
    ids=str,
)
def test_embed_is_the_utterance_of_the_whole_encoder(options: dict[str, object], layout: str, mask: Tensor) -> None:
    case = Case(CLSSelfAttentionPooling, {"dim": DIM, "aggregate": "cls", **options})
    module, frames = case.build(), torch.randn(*mask.shape, DIM, dtype=torch.float64)
    expected = module(frames, mask).utterance
    frames = frames.masked_fill(~mask[..., None], torch.nan).requires_grad_()
    if layout == "padded":
        assert_close(module.embed(frames, mask), expected)
    else:
        packed, cu_seqlens = pack(frames, mask)
        assert_close(module.embed(packed, cu_seqlens=cu_seqlens), expected)
    (gradient,) = torch.autograd.grad(module.embed(frames, mask).sum(), frames)
    assert gradient.isfinite().all()
    assert not gradient[~mask].any()


def test_embed_encodes_no_frame_where_only_the_cls_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    frames, mask = torch.randn(2, 5, DIM), torch.rand(2, 5) > 0.3
    module = CLSSelfAttentionPooling(DIM, aggregate="cls")
    with monkeypatch.context() as without:
        without.setattr(Encoder, "forward", None)
        assert module.embed(frames, mask).shape == (2, DIM)
    for options in ({}, {"aggregate": "cls", "depth": 2}, {"aggregate": "cls", "dropout": 0.5}):
        module = CLSSelfAttentionPooling(DIM, **options)
        torch.manual_seed(0)
        expected = module(frames, mask).utterance
        torch.manual_seed(0)
        assert_equal(module.embed(frames, mask), expected)
    module = module.eval()  # dropout is not at work
    monkeypatch.setattr(Encoder, "forward", None)
    assert module.embed(frames, mask).shape == (2, DIM)


def test_embed_refuses_what_forward_refuses() -> None:
    with pytest.raises(ValueError, match=r"`frames` must have dim 8, the `dim` of this module, got \(2, 3, 4\)"):
        CLSSelfAttentionPooling(DIM, aggregate="cls").embed(torch.randn(2, 3, 4))
