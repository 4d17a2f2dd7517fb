import math

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradgradcheck

from cases import MASKS, Case, assert_close, assert_equal, assert_matches_oracle, cases_of
from framealign import AttentivePooling, CLSSelfAttentionPooling, FrameUtteranceAlignmentLoss
from framealign.functional import frame_utterance_alignment_loss


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(FrameUtteranceAlignmentLoss), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_either_direction_equals_the_divergence_computed_by_hand() -> None:
    frame_logits = torch.tensor([[[2.0, 0.0], [0.0, 2.0]]])  # (0.5, 0.5) on average
    p = 1 / (1 + math.exp(-2))
    forward = p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
    backward = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    utterance_logits = torch.tensor([[2.0, 0.0]])
    assert_close(FrameUtteranceAlignmentLoss()(frame_logits, utterance_logits), forward)
    assert_close(FrameUtteranceAlignmentLoss(target="frames")(frame_logits, utterance_logits), backward)


def test_uniform_weights_are_the_default() -> None:
    frame_logits, utterance_logits, mask = torch.randn(3, 5, 4), torch.randn(3, 4), MASKS["holes"]
    uniform = mask / mask.sum(dim=1, keepdim=True)
    expected = FrameUtteranceAlignmentLoss()(frame_logits, utterance_logits, uniform, mask)
    assert_close(FrameUtteranceAlignmentLoss()(frame_logits, utterance_logits, None, mask), expected)


def test_an_empty_utterance_counts_in_no_reduction() -> None:
    mask = MASKS["an empty utterance"]
    arguments = torch.randn(*mask.shape, 3), torch.randn(len(mask), 3), None, mask
    each = FrameUtteranceAlignmentLoss(reduction="none")(*arguments)
    assert each[1] == 0
    assert_close(FrameUtteranceAlignmentLoss(reduction="sum")(*arguments), each.sum())
    assert_close(FrameUtteranceAlignmentLoss()(*arguments), each.sum() / 3)


@pytest.mark.parametrize("detach", ["utterance", "frames"])
@pytest.mark.parametrize("target", ["utterance", "frames"])
def test_no_gradient_flows_into_a_detached_side(target: str, detach: str) -> None:
    frames, utterance = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 4, requires_grad=True)
    FrameUtteranceAlignmentLoss(target=target, detach=detach)(frames, utterance).backward()
    stopped, followed = (utterance, frames) if detach == "utterance" else (frames, utterance)
    assert stopped.grad is None or not stopped.grad.any()
    assert followed.grad.any()


@pytest.mark.parametrize("pooling", [AttentivePooling(8), CLSSelfAttentionPooling(8)], ids=["attentive", "cls"])
def test_a_linear_classifier_gives_the_utterance_the_mean_of_the_frames_logits(pooling: nn.Module) -> None:
    """So the loss is the gap between the softmax of a mean and the mean of softmaxes."""
    classifier, mask = nn.Linear(8, 3), MASKS["an empty utterance"]
    pooled = pooling(torch.randn(*mask.shape, 8), mask)
    frame_logits, real = classifier(pooled.frames), mask.any(dim=1)
    mean_logits = torch.einsum("bt,btc->bc", pooled.weights, frame_logits)
    assert_close(classifier(pooled.utterance)[real], mean_logits[real])
    p, q = mean_logits.softmax(dim=1), torch.einsum("bt,btc->bc", pooled.weights, frame_logits.softmax(dim=2))
    gap = (p * (p / q).log())[real].sum(dim=1).mean()
    loss = FrameUtteranceAlignmentLoss()(frame_logits, classifier(pooled.utterance), pooled.weights, mask)
    assert_close(loss, gap)
    assert gap > 0


class TestExtremes:
    @pytest.mark.parametrize(
        ("dtype", "size"),
        [
            *((dtype, 1e4) for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16)),
            (torch.float16, torch.finfo(torch.float16).max),
            # of which the gap is the largest number
            *((dtype, torch.finfo(dtype).max / 2) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
        ],
        ids=str,
    )
    @pytest.mark.parametrize("target", ["utterance", "frames"])
    def test_opposite_certainties_cost_the_gap_of_the_logits(
        self, target: str, dtype: torch.dtype, size: float
    ) -> None:
        """One frame sure of one class, the utterance of the other: the divergence is the gap of the logits."""
        frame_logits = torch.tensor([[[size, -size]]], dtype=dtype, requires_grad=True)
        utterance_logits = torch.tensor([[-size, size]], dtype=dtype, requires_grad=True)
        loss = FrameUtteranceAlignmentLoss(target=target)(frame_logits, utterance_logits)
        assert loss.dtype == torch.promote_types(dtype, torch.float32)
        assert_close(loss, 2 * torch.tensor(size, dtype=dtype).to(loss.dtype))
        loss.backward()
        sign = 1 if target == "utterance" else -1
        follower = (frame_logits if target == "utterance" else utterance_logits).grad.flatten()
        assert_close(follower, [1.0, -1.0] if sign == 1 else [-1.0, 1.0])

    @pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("target", ["utterance", "frames"])
    def test_logits_at_the_limit_of_the_dtype_are_no_nan(self, target: str, dtype: torch.dtype) -> None:
        """Their difference is beyond it: log_softmax gives -inf, and 0 * -inf is nan."""
        limit = torch.finfo(dtype).max
        loss = FrameUtteranceAlignmentLoss(target=target)
        sure, other = torch.tensor([[limit, -limit]], dtype=dtype), torch.tensor([[-limit, limit]], dtype=dtype)
        wide = torch.finfo(torch.promote_types(dtype, torch.float32))
        for frame_logits, logits, gap in ((sure, sure, 0.0), (sure, other, min(2 * limit, wide.max))):
            leaves = [frame_logits[None].clone().requires_grad_(), logits.clone().requires_grad_()]
            value = loss(*leaves)
            assert_close(value, gap)
            assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(value, leaves))
            assert_close(torch.func.vmap(loss)(frame_logits[None, None], logits[None])[0], gap)

    def test_a_class_ruled_out_everywhere_by_minus_infinity_costs_nothing(self) -> None:
        frame_logits, logits = torch.randn(2, 3, 4), torch.randn(2, 4)
        ruled_out = torch.tensor([False, False, True, False])
        loss = FrameUtteranceAlignmentLoss()
        found = loss(*(values.masked_fill(ruled_out, -torch.inf) for values in (frame_logits, logits)))
        assert_close(found, loss(frame_logits[..., ~ruled_out], logits[:, ~ruled_out]))

    def test_a_class_that_no_frame_believes_in_is_no_infinity(self) -> None:
        """`sum a p` underflows to 0 there in the linear domain, and its logarithm to -inf."""
        frame_logits = torch.tensor([[[0.0, -500.0], [0.0, -300.0]]], requires_grad=True)
        loss = FrameUtteranceAlignmentLoss()(frame_logits, torch.zeros(1, 2))
        # log p_bar = (0, -300 + log(1/2)) up to exp(-200)
        assert_close(loss, 0.5 * math.log(0.5) + 0.5 * (math.log(0.5) + 300 + math.log(2)))
        loss.backward()
        assert_close(frame_logits.grad, [[[0.0, 0.0], [0.5, -0.5]]])

    def test_rounded_weights_cannot_make_the_loss_negative(self) -> None:
        weights = torch.rand(8, 200).softmax(dim=1).bfloat16()
        logits = torch.randn(8, 5)
        loss = FrameUtteranceAlignmentLoss(reduction="none")(logits[:, None].expand(-1, 200, -1), logits, weights)
        assert_close(loss, torch.zeros(8))


def test_second_derivatives_where_a_class_hardly_has_a_probability() -> None:
    """There the logarithm is averaged another way."""
    frame_logits = torch.randn(2, 4, 3, dtype=torch.float64)
    frame_logits[0, :, 0] -= 80
    frame_logits.requires_grad_()
    assert frame_logits.softmax(dim=-1).mean(dim=1).min() < 1e-30
    utterance_logits = torch.randn(2, 3, dtype=torch.float64)
    assert gradgradcheck(lambda values: FrameUtteranceAlignmentLoss()(values, utterance_logits), frame_logits)


class TestGradientToTheWeights:
    """`-sum_c p_u p_tc / p_bar`, for a weight of exactly 0 too; and + 1, from dividing the weights by their sum."""

    def setup_method(self) -> None:
        torch.manual_seed(0)
        self.frame_logits, self.utterance_logits = torch.randn(1, 4, 3).double(), torch.randn(1, 3).double()
        self.weights = torch.tensor([[0.5, 0.0, 0.3, 0.2]], dtype=torch.float64, requires_grad=True)
        p_t, p_u = self.frame_logits.softmax(dim=2)[0], self.utterance_logits.softmax(dim=1)[0]
        self.contract = -(p_u * p_t / (self.weights.detach()[0] @ p_t)).sum(dim=1)

    def gradient(self, weights: Tensor, leaf: Tensor) -> Tensor:
        loss = FrameUtteranceAlignmentLoss()(self.frame_logits, self.utterance_logits, weights)
        return torch.autograd.grad(loss, leaf)[0][0]

    def test_is_the_formula_and_the_constant_of_the_division(self) -> None:
        assert_close(self.gradient(self.weights, self.weights), self.contract + 1)

    def test_through_a_softmax_the_constant_vanishes(self) -> None:
        logits = torch.tensor([[0.3, -900.0, 0.1, 1.0]], dtype=torch.float64, requires_grad=True)
        weights = logits.softmax(dim=1)
        assert weights[0, 1] == 0
        p_t, p_u = self.frame_logits.softmax(dim=2)[0], self.utterance_logits.softmax(dim=1)[0]
        formula = -(p_u * p_t / (weights[0] @ p_t)).sum(dim=1)
        (expected,) = torch.autograd.grad(weights, logits, formula[None])
        assert_close(self.gradient(logits.softmax(dim=1), logits), expected[0])

    @pytest.mark.parametrize("tiny", [1e-30, 1e-42, 0.0])
    def test_is_continuous_down_to_zero_in_float32(self, tiny: float) -> None:
        weights = torch.tensor([[0.5, tiny, 0.3, 0.2]], requires_grad=True)
        self.frame_logits, self.utterance_logits = self.frame_logits.float(), self.utterance_logits.float()
        assert_close(self.gradient(weights, weights), self.contract.float() + 1)

    @pytest.mark.parametrize("belief", [-1e4, -100.0, 0.0])
    @pytest.mark.parametrize("light", [0.0, 1e-42, 1e-20])
    def test_is_finite_where_only_a_frame_of_weight_zero_believes_in_a_class(self, light: float, belief: float) -> None:
        """Or one of next to no weight, which must not make the sum too small to divide by."""
        frame_logits = torch.tensor([[[0.0, -1e4], [0.0, belief], [-1e4, 0.0]]])
        weights = torch.tensor([[1.0, light, 0.0]], requires_grad=True)
        FrameUtteranceAlignmentLoss()(frame_logits, torch.zeros(1, 2), weights).backward()
        assert weights.grad.isfinite().all()
        assert weights.grad[0, 2] < (-1e30 if light * math.exp(belief) < 1e-30 else -1e18)


def test_the_average_over_twenty_thousand_frames_loses_no_digits() -> None:
    frame_logits, utterance_logits = torch.randn(1, 20_000, 2), torch.randn(1, 2)
    p, q = utterance_logits.softmax(dim=1), frame_logits.softmax(dim=2).mean(dim=1)
    assert_close(FrameUtteranceAlignmentLoss()(frame_logits, utterance_logits), (p * (p / q).log()).sum())


@pytest.mark.parametrize("wide", range(3), ids=["frames", "utterance", "weights"])
def test_computes_in_the_widest_dtype(wide: int) -> None:
    arguments = [torch.randn(3, 4, 5), torch.randn(3, 5), torch.full((3, 4), 0.25)]  # whose division rounds nothing
    expected = FrameUtteranceAlignmentLoss()(*(value.double() for value in arguments))
    arguments[wide] = arguments[wide].double()
    found = FrameUtteranceAlignmentLoss()(*arguments)
    assert found.dtype == torch.float64
    assert_close(found, expected)


def test_strided_inputs_give_what_contiguous_ones_give() -> None:
    frame_logits, utterance_logits = torch.randn(3, 5, 4), torch.randn(3, 4)
    transposed = frame_logits.transpose(0, 1).contiguous().transpose(0, 1)
    loss = FrameUtteranceAlignmentLoss()
    assert_equal(loss(transposed, utterance_logits), loss(frame_logits, utterance_logits))
    shared = utterance_logits[:1].expand(3, -1)
    assert_equal(loss(frame_logits, shared), loss(frame_logits, shared.clone()))


def test_the_functional_equals_the_module() -> None:
    options = {"target": "frames", "detach": "utterance", "reduction": "sum"}
    arguments = torch.randn(2, 3, 4), torch.randn(2, 4), torch.rand(2, 3)
    expected = FrameUtteranceAlignmentLoss(**options)(*arguments)
    assert_equal(frame_utterance_alignment_loss(*arguments, **options), expected)


def test_repr_shows_the_options() -> None:
    text = "FrameUtteranceAlignmentLoss(target='frames', detach=None, reduction='sum')"
    assert repr(FrameUtteranceAlignmentLoss(target="frames", reduction="sum")) == text


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    frame_logits, logits, loss = torch.randn(2, 3, 4), torch.randn(2, 4), FrameUtteranceAlignmentLoss()
    with pytest.raises(ValueError, match=r"`cu_seqlens` must be on the device of `frame_logits`, cpu, got meta"):
        loss(frame_logits[0], logits[:1], cu_seqlens=torch.zeros(2, dtype=torch.int32, device="meta"))
    with pytest.raises(ValueError, match=r"`target` must be one of 'utterance', 'frames', got 'frame'"):
        FrameUtteranceAlignmentLoss(target="frame")
    with pytest.raises(ValueError, match=r"`detach` must be one of None, 'utterance', 'frames', got 'both'"):
        FrameUtteranceAlignmentLoss(detach="both")
    with pytest.raises(ValueError, match=r"`reduction` must be one of 'mean', 'sum', 'none', got 'frames'"):
        FrameUtteranceAlignmentLoss(reduction="frames")
    with pytest.raises(ValueError, match=r"`frame_logits` must have shape \(batch, time, classes\), got \(2, 4\)"):
        loss(logits, logits)
    with pytest.raises(ValueError, match=r"`utterance_logits` must have shape .* = \(2, 4\) to match `frame_logits`"):
        loss(frame_logits, logits[:, :3])
    with pytest.raises(TypeError, match=r"`utterance_logits` must be floating point, got torch.int64"):
        loss(frame_logits, logits.long())
    with pytest.raises(ValueError, match=r"`utterance_logits` must be on the device of `frame_logits`, cpu, got meta"):
        loss(frame_logits, logits.to("meta"))
    with pytest.raises(ValueError, match=r"`weights` must have shape \(batch, time\) = \(2, 3\) to match `frame_logit"):
        loss(frame_logits, logits, torch.ones(2, 4))
    with pytest.raises(TypeError, match=r"`weights` must be floating point, got torch.bool"):
        loss(frame_logits, logits, torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.float32"):
        loss(frame_logits, logits, None, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`mask` must have shape .* = \(2, 3\) to match `frame_logits`, got \(2, 4\)"):
        loss(frame_logits, logits, None, torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`utterance_logits` must have shape \(batch, classes\), got \(4,\)"):
        loss(frame_logits, logits[0])
    with pytest.raises(ValueError, match=r"`utterance_logits` must have shape \(batch, classes\) = \(2, 4\) to match"):
        loss(frame_logits, logits[:1])
    for refuse in (
        lambda: FrameUtteranceAlignmentLoss(backend="triton"),
        lambda: frame_utterance_alignment_loss(frame_logits, logits, backend="triton"),
    ):
        with pytest.raises(RuntimeError, match=r"cannot run: this loss reads no frames, only their logits, and has no"):
            refuse()
    with pytest.raises(ValueError, match=r"`frame_logits` must have shape \(frames, classes\), got \(2, 3, 4\)"):
        loss(frame_logits, logits, cu_seqlens=torch.tensor([0, 3, 6]))


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("size", [1.0, 1e4])
@pytest.mark.parametrize("target", ["utterance", "frames"])
def test_padding_and_an_empty_utterance_send_back_zero_on_every_path(target: str, size: float) -> None:
    """Where averages are read, where they would vanish, and where every derivative is asked for."""
    mask = MASKS["an empty utterance"]
    frame_logits, logits = size * torch.randn(*mask.shape, 3), size * torch.randn(len(mask), 3)
    junk = frame_logits.masked_fill(~mask[..., None], torch.nan)
    loss = FrameUtteranceAlignmentLoss(target=target)
    every = torch.func.grad(lambda *values: loss(*values, None, mask), argnums=(0, 1))
    for values in (frame_logits, junk):
        leaves = [values.clone().requires_grad_(), logits.clone().requires_grad_()]
        with torch.autograd.set_detect_anomaly(True):  # not even where a later step would write over the nan
            of_loss = torch.autograd.grad(loss(*leaves, None, mask), leaves)
        for found in (of_loss, every(values, logits)):
            assert all(gradient.isfinite().all() for gradient in found)
            assert not found[0][~mask].any()
            assert not found[1][1].any()
