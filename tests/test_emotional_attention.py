import math

import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_equal, assert_matches_oracle, cases_of
from framealign import EmotionalAttentionLoss
from framealign.functional import emotional_attention_loss

each_case = pytest.mark.parametrize("case", cases_of(EmotionalAttentionLoss), ids=str)


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@each_case
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


@pytest.mark.parametrize(("beta", "floor", "slope"), [(1.0, 0.598, -0.45), (10.0, 0.013, -0.12)])
def test_only_a_sharp_softplus_lets_go_at_cosine_one(beta: float, floor: float, slope: float) -> None:
    """The numbers that the contract and the documentation state for `margin=0.8`."""
    loss = EmotionalAttentionLoss(0.8, beta=beta)
    anchor, step = torch.tensor([[2.0, 0.0]]).double(), 1e-7
    at_one = loss(torch.tensor([[[3.0, 0.0]]]).double(), anchor).item()
    just_below = loss(torch.tensor([[[1 - step, (1 - (1 - step) ** 2) ** 0.5]]]).double(), anchor).item()
    assert at_one == pytest.approx(floor, abs=5e-4)
    assert (at_one - just_below) / step == pytest.approx(slope, abs=5e-3)


def test_each_utterance_counts_once_by_default_and_each_frame_with_frames() -> None:
    close, far = [1.0, 0.0], [-1.0, 0.0]
    frames, anchor = torch.tensor([[far, far, far], [close, close, close]]), torch.tensor([close, close])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    near, away = (math.log1p(math.exp(0.8 - cosine)) for cosine in (1.0, -1.0))

    def loss(reduction: str) -> Tensor:
        return EmotionalAttentionLoss(reduction=reduction)(frames, anchor, mask)

    assert_close(loss("mean"), (away + near) / 2)
    assert_close(loss("frames"), (3 * away + near) / 4)
    assert_close(loss("none"), [away, near])
    assert_close(loss("sum"), away + near)


@each_case
@pytest.mark.parametrize("zero", ["frame", "anchor"])
def test_a_zero_vector_has_cosine_zero_and_gradient_zero(case: Case, zero: str) -> None:
    frames, anchor = torch.randn(2, 3, 4), torch.randn(2, 4)
    (frames[0, 1] if zero == "frame" else anchor[0]).zero_()
    frames.requires_grad_()
    anchor.requires_grad_()
    loss = case.build()(frames, anchor, None, torch.tensor([0, 1]))
    loss.sum().backward()
    assert not (frames.grad[0, 1] if zero == "frame" else anchor.grad[0]).any()
    assert frames.grad.isfinite().all()
    assert frames.grad.abs().max() < 10  # PyTorch's own cosine sends back 1e8 here
    assert anchor.grad.isfinite().all()


def test_a_zero_vector_costs_the_softplus_of_the_margin() -> None:
    loss = EmotionalAttentionLoss(0.8)
    expected = math.log1p(math.exp(0.8))
    assert_close(loss(torch.zeros(1, 2, 3), torch.ones(1, 3)), expected)
    assert_close(loss(torch.ones(1, 2, 3), torch.zeros(1, 3)), expected)


class TestNegativeMargin:
    FRAMES = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, 0.0]]])

    def loss(self, labels: list[int], mask: Tensor | None = None) -> Tensor:
        """Only the separating term: what it adds to the loss without it."""
        arguments = self.FRAMES, self.FRAMES[:, 0], mask
        with_it = EmotionalAttentionLoss(negative_margin=0.2, reduction="none")(*arguments, torch.tensor(labels))
        return with_it - EmotionalAttentionLoss(reduction="none")(*arguments)

    def test_is_the_mean_over_utterances_of_other_labels(self) -> None:
        far, close = (math.log1p(math.exp(cosine - 0.2)) for cosine in (0.0, 1.0))
        assert_close(self.loss([0, 1, 2]), [(far + close) / 2, far, (close + far) / 2])
        assert_close(self.loss([0, 1, 0]), [far, far, far])

    def test_is_zero_without_another_label(self) -> None:
        assert_close(self.loss([1, 1, 1]), [0.0, 0.0, 0.0])

    def test_neither_unlabelled_nor_empty_utterances_take_part(self) -> None:
        far = math.log1p(math.exp(-0.2))
        assert_close(self.loss([0, 1, -100]), [far, far, 0.0])
        mask = torch.tensor([[True], [True], [False]])
        assert_close(self.loss([0, 1, 2], mask), [far, far, 0.0])

    def test_a_broken_frame_of_an_unlabelled_utterance_reaches_no_other(self) -> None:
        frames = self.FRAMES.clone()
        frames[2] = torch.nan
        loss = EmotionalAttentionLoss(negative_margin=0.2, reduction="none")
        found = loss(frames, self.FRAMES[:, 0], None, torch.tensor([0, 1, -100]))
        assert found.isnan().tolist() == [False, False, True]

    def test_needs_labels_and_refuses_frames(self) -> None:
        with pytest.raises(ValueError, match=r"`labels` are required with `negative_margin`, got None"):
            EmotionalAttentionLoss(negative_margin=0.2)(self.FRAMES, self.FRAMES[:, 0])
        with pytest.raises(ValueError, match=r'`reduction="frames"` has no meaning with `negative_margin`; use "mean"'):
            EmotionalAttentionLoss(negative_margin=0.2, reduction="frames")


def test_the_mean_over_twenty_thousand_frames_loses_no_digits() -> None:
    frames, anchor = torch.randn(1, 20_000, 4), torch.randn(1, 4)
    cosines = torch.cosine_similarity(frames, anchor[:, None], dim=-1)
    assert_close(EmotionalAttentionLoss()(frames, anchor), torch.nn.functional.softplus(0.8 - cosines).mean())


def test_strided_inputs_give_what_contiguous_ones_give() -> None:
    frames, anchor = torch.randn(3, 5, 8), torch.randn(3, 8)
    expected = EmotionalAttentionLoss()(frames, anchor)
    transposed = frames.transpose(0, 1).contiguous().transpose(0, 1)
    assert_equal(EmotionalAttentionLoss()(transposed, torch.stack([anchor, anchor], dim=2)[..., 0]), expected)
    shared = anchor[:1].expand(3, -1)
    assert_close(EmotionalAttentionLoss()(frames, shared), EmotionalAttentionLoss()(frames, shared.clone()))


def test_the_functional_equals_the_module() -> None:
    frames, anchor, labels = torch.randn(2, 3, 4), torch.randn(2, 4), torch.tensor([0, 1])
    options = {"margin": 0.3, "beta": 2.0, "negative_margin": 0.1, "reduction": "sum"}
    expected = EmotionalAttentionLoss(**options)(frames, anchor, None, labels)
    assert_equal(emotional_attention_loss(frames, anchor, None, labels, **options), expected)


def test_repr_shows_the_options() -> None:
    text = "EmotionalAttentionLoss(margin=0.4, beta=10.0, negative_margin=None, reduction='sum')"
    assert repr(EmotionalAttentionLoss(0.4, beta=10.0, reduction="sum")) == text


@pytest.mark.parametrize("name", ["margin", "negative_margin"])
def test_a_margin_that_is_no_cosine_is_refused(name: str) -> None:
    for value in (1.5, -1.01, math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"`{name}` must be a finite number in \[-1, 1\], got {value}"):
            EmotionalAttentionLoss(**{name: value})
    for value, kind in ((True, "bool"), ("0.8", "str"), (torch.tensor(0.8), "Tensor")):
        with pytest.raises(TypeError, match=f"`{name}` must be a number, got {kind}"):
            EmotionalAttentionLoss(**{name: value})


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    frames, anchor, loss = torch.randn(2, 3, 4), torch.randn(2, 4), EmotionalAttentionLoss()
    for beta in (0, -1.0, math.nan):
        with pytest.raises(ValueError, match=r"`beta` must be a finite number in \(0, inf\), got"):
            EmotionalAttentionLoss(beta=beta)
    with pytest.raises(ValueError, match=r"`reduction` must be one of 'mean', 'frames', 'sum', 'none', got 'batch'"):
        EmotionalAttentionLoss(reduction="batch")
    with pytest.raises(TypeError, match=r"`anchor` must be .* got None; for a pooling without CLS pass `pooled.utter"):
        loss(frames, None)
    with pytest.raises(ValueError, match=r"`anchor` must have shape \(batch, dim\) = \(2, 4\) to match `frames`, got"):
        loss(frames, anchor[:, :3])
    with pytest.raises(ValueError, match=r"`anchor` must have shape \(batch, dim\), got \(2, 1, 4\)"):
        loss(frames, anchor[:, None])
    with pytest.raises(TypeError, match=r"`anchor` must be floating point, got torch.int64"):
        loss(frames, anchor.long())
    with pytest.raises(ValueError, match=r"`anchor` must be on the device of `frames`, cpu, got meta"):
        loss(frames, anchor.to("meta"))
    with pytest.raises(ValueError, match=r"`frames` must have shape \(batch, time, dim\), got \(2, 4\)"):
        loss(anchor, anchor)
    with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.float32"):
        loss(frames, anchor, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`mask` must be on the device of `frames`, cpu, got meta"):
        loss(frames, anchor, torch.ones(2, 3, dtype=torch.bool, device="meta"))
    with pytest.raises(TypeError, match=r"`labels` must be integer class indices, got torch.float32"):
        loss(frames, anchor, None, torch.ones(2))
    with pytest.raises(TypeError, match=r"`labels` must be a tensor of shape \(batch\), got list"):
        loss(frames, anchor, None, [0, 1])
    with pytest.raises(ValueError, match=r"`labels` must have shape \(batch\) = \(2,\) to match `frames`, got \(3,\)"):
        loss(frames, anchor, None, torch.tensor([0, 1, 2]))
