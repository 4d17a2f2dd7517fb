"""Points 4 and 5: where the losses lie, and what leaves them unchanged."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cases import (
    EVERYTHING,
    MASKS,
    POOLINGS,
    Case,
    assert_close,
    cases_of,
    frame_inputs,
    gradients,
    make_inputs,
    pack_inputs,
    run,
)
from framealign import EmotionalAttentionLoss, FrameUtteranceAlignmentLoss
from strategies import full_precision, masks, seeds

EAL, FUAL = cases_of(EmotionalAttentionLoss), cases_of(FrameUtteranceAlignmentLoss)
POSITIVE = [case for case in EAL if "negative_margin" not in case.options]


@given(mask=masks(min_batch=1), seed=seeds, margin=st.floats(-1, 1), beta=st.floats(0.1, 50), zeros=st.floats(0, 1))
def test_eal_lies_between_its_bounds(mask: Tensor, seed: int, margin: float, beta: float, zeros: float) -> None:
    inputs = make_inputs(EAL[0], mask, torch.float32, seed)
    frames = inputs["frames"] * (torch.rand(inputs["frames"].shape) > zeros)
    loss = EmotionalAttentionLoss(margin, beta=beta, reduction="none")(frames, inputs["anchor"], mask)
    low, high = F.softplus(torch.tensor([margin - 1, margin + 1]), beta=beta)
    real = loss[mask.any(dim=1)]
    assert (real >= low - 1e-5).all()
    assert (real <= high + 1e-5).all()


@pytest.mark.parametrize("case", EAL, ids=str)
@given(mask=masks(), seed=seeds, frame_exponent=st.integers(-11, 17), anchor_exponent=st.integers(-11, 17))
def test_eal_ignores_positive_scale(
    case: Case, mask: Tensor, seed: int, frame_exponent: int, anchor_exponent: int
) -> None:
    inputs = make_inputs(case, mask, torch.float32, seed)
    unit = inputs | {name: F.normalize(inputs[name], dim=-1) for name in case.inputs}
    scaled = unit | {"frames": unit["frames"] * 10.0**frame_exponent, "anchor": unit["anchor"] * 10.0**anchor_exponent}
    module = case.build()
    assert_close(run(module, scaled, mask), run(module, unit, mask))


@pytest.mark.parametrize("exponent", [-38, -22, -20, -18, 18, 20, 38])
@pytest.mark.parametrize("scaled", ["frames", "anchor"])
@pytest.mark.parametrize("case", EAL, ids=str)
def test_eal_is_finite_at_norms_from_1e_minus_38_to_1e38(case: Case, scaled: str, exponent: int) -> None:
    """float64 computes them all; in float32 a vector whose square it cannot hold counts as zero."""
    mask = MASKS["an empty utterance"]
    for dtype in (torch.float64, torch.float32):
        inputs = make_inputs(case, mask, dtype)
        unit = inputs | {name: F.normalize(inputs[name].detach(), dim=-1).requires_grad_() for name in case.inputs}
        extreme = unit | {scaled: (unit[scaled].detach() * 10.0**exponent).requires_grad_()}
        is_held = dtype == torch.float64 or abs(exponent) < 19
        equal = unit if is_held else unit | {scaled: torch.zeros_like(unit[scaled]).requires_grad_()}
        module = case.build()
        outputs, expected = run(module, extreme, mask), run(module, equal, mask)
        assert_close(outputs, expected)
        found, wanted = gradients(outputs, module, extreme), gradients(expected, module, equal)
        assert all(gradient.isfinite().all() for gradient in found.values())
        if is_held:
            assert_close(found[scaled] * 10.0**exponent, wanted[scaled])
        else:
            assert not found[scaled].any()


def test_eal_of_opposite_vectors_is_its_upper_bound() -> None:
    frames = torch.randn(2, 3, 8)
    frames[:, 1:] = frames[:, :1] * torch.tensor([[2.0], [1e-3]])
    loss = EmotionalAttentionLoss(0.3, beta=2.0, reduction="none")(frames, -frames[:, 0])
    assert_close(loss, F.softplus(torch.full((2,), 1.3), beta=2.0))


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("case", EVERYTHING, ids=str)
def test_nan_in_a_real_frame_comes_out(case: Case, layout: str) -> None:
    """Of its own utterance, and of no other where each has a value of its own."""
    mask = MASKS["an empty utterance"]
    module, inputs = case.build(), make_inputs(case, mask)
    for name in frame_inputs(inputs):
        values = inputs[name].detach().clone()
        values[2, 3].fill_(torch.nan)
        arguments, bounds = pack_inputs(inputs | {name: values}, mask)
        arguments = (arguments, None, bounds) if layout == "packed" else (inputs | {name: values}, mask)
        outputs = run(module, *arguments)
        result = outputs["utterance" if case in POOLINGS else "loss"]
        assert result[2].isnan().any() if result.ndim else result.isnan()
        if case in POOLINGS:
            assert result[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("case", POSITIVE, ids=str)
@given(mask=masks(min_batch=1, min_time=1), seed=seeds, turn=st.floats(0.05, 0.9))
def test_eal_falls_when_a_frame_turns_toward_the_anchor(case: Case, mask: Tensor, seed: int, turn: float) -> None:
    mask[0, 0] = True
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    frames, anchor = inputs["frames"].detach(), inputs["anchor"].detach()
    turned = frames.clone()
    turned[0, 0] = (1 - turn) * F.normalize(frames[0, 0], dim=0) + turn * F.normalize(anchor[0], dim=0)
    before, after = (
        run(module, inputs, mask)["loss"].sum(),
        run(module, inputs | {"frames": turned}, mask)["loss"].sum(),
    )
    assert after < before


@pytest.mark.parametrize("case", EAL, ids=str)
@given(mask=masks(min_batch=1, min_time=1), seed=seeds, bad=st.sampled_from([torch.nan, torch.inf, -torch.inf]))
def test_eal_never_hides_a_broken_real_frame(case: Case, mask: Tensor, seed: int, bad: float) -> None:
    mask[0, 0] = True
    inputs = make_inputs(case, mask, seed=seed)
    frames, anchor = inputs["frames"].detach().clone(), inputs["anchor"].detach().clone()
    frames[0, 0, 0] = bad
    assert run(case.build(), inputs | {"frames": frames}, mask)["loss"].flatten()[0].isnan()
    anchor[0] = 0  # not even behind an anchor of zero
    assert run(case.build(), inputs | {"frames": frames, "anchor": anchor}, mask)["loss"].flatten()[0].isnan()


@pytest.mark.parametrize("case", FUAL, ids=str)
@given(mask=masks(), seed=seeds, dtype=full_precision, scale=st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
def test_fual_is_finite_and_not_negative(case: Case, mask: Tensor, seed: int, dtype: torch.dtype, scale: float) -> None:
    module, inputs = case.build(), make_inputs(case, mask, dtype, seed)
    inputs |= {name: (inputs[name] * scale).detach().requires_grad_() for name in ("frame_logits", "utterance_logits")}
    loss = run(module, inputs, mask)["loss"]
    assert (loss >= -1e-6).all()
    loss.sum().backward()
    for value in (loss, *(inputs[name].grad for name in case.inputs if inputs[name].grad is not None)):
        assert value.isfinite().all()


@pytest.mark.parametrize("case", FUAL, ids=str)
@given(mask=masks(min_time=1), seed=seeds, dtype=full_precision, scale=st.sampled_from([1.0, 1e4]))
def test_fual_is_zero_where_the_distributions_agree(
    case: Case, mask: Tensor, seed: int, dtype: torch.dtype, scale: float
) -> None:
    inputs = make_inputs(case, mask, dtype, seed)
    logits = inputs["utterance_logits"] * scale
    inputs |= {"utterance_logits": logits, "frame_logits": logits[:, None].expand(-1, mask.shape[1], -1)}
    loss = run(case.build(), inputs, mask)["loss"]
    assert_close(loss, torch.zeros_like(loss))


@pytest.mark.parametrize("case", FUAL, ids=str)
@given(mask=masks(), seed=seeds)
def test_fual_ignores_a_shift_of_all_logits_of_a_frame(case: Case, mask: Tensor, seed: int) -> None:
    inputs = make_inputs(case, mask, seed=seed)
    shift = 100 * torch.randn(mask.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    shifted = inputs | {"frame_logits": inputs["frame_logits"] + shift[..., None]}
    assert_close(run(case.build(), shifted, mask), run(case.build(), inputs, mask))


@given(mask=masks(), seed=seeds, scale=st.floats(0.5, 1.5))
def test_fual_ignores_the_scale_of_the_weights(mask: Tensor, seed: int, scale: float) -> None:
    inputs = make_inputs(FUAL[0], mask, seed=seed)
    loss = FrameUtteranceAlignmentLoss()
    logits = inputs["frame_logits"], inputs["utterance_logits"]
    assert_close(loss(*logits, inputs["weights"] * scale, mask), loss(*logits, inputs["weights"], mask))
