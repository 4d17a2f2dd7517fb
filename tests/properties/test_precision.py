"""Point 6: half precision in, float32 losses out, within the half precision's tolerance of float64."""

import copy
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from cases import (
    LOSSES,
    MASKS,
    OBJECTIVE,
    POOLINGS,
    Case,
    OnePass,
    assert_close,
    assert_equal,
    cases_of,
    gradients,
    make_inputs,
    oracle,
    pack_inputs,
    run,
)
from framealign import AttentivePooling, AttentiveStatisticsPooling, EmotionalAttentionLoss
from framealign.diagnostics import anchor_cosine
from framealign.functional import cls_attention, masked_mean, weighted_statistics
from strategies import half_precision, masks, seeds

# Whose arithmetic is all the library's: a layer of torch rounds its own products under autocast
WITHOUT_LAYERS = [
    *(case for case in [*POOLINGS, *LOSSES] if not list(case.build().parameters())),
    *(case for case in cases_of(AttentivePooling, AttentiveStatisticsPooling) if "hidden_dim" in case.options),
    *cases_of(OnePass),
]


@pytest.mark.parametrize("case", [*POOLINGS, *LOSSES, *OBJECTIVE], ids=str)
@given(mask=masks(), seed=seeds, dtype=half_precision)
def test_half_precision_in_gives_float32_losses_near_those_of_float64(
    case: Case, mask: Tensor, seed: int, dtype: torch.dtype
) -> None:
    module, inputs = case.build(dtype), make_inputs(case, mask, dtype, seed)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    outputs = run(module, inputs, mask)
    expected = oracle(case, copy.deepcopy(module).double(), exact, mask)
    assert_close(outputs, expected, dtype)
    for name in {"loss", "cross_entropy", "eal", "fual", "weights"} & outputs.keys():
        assert outputs[name].dtype == torch.float32, name
    for name in {"utterance", "frames", "cls"} & outputs.keys():
        assert outputs[name].dtype == dtype, name


@pytest.mark.parametrize("case", [*POOLINGS, *LOSSES, *OBJECTIVE], ids=str)
@given(mask=masks(), seed=seeds, dtype=half_precision)
def test_autocast_gives_float32_losses_near_those_of_float64(
    case: Case, mask: Tensor, seed: int, dtype: torch.dtype
) -> None:
    module, inputs = case.build(torch.float32), make_inputs(case, mask, torch.float32, seed)
    with torch.autocast("cpu", dtype=dtype):
        outputs = run(module, inputs, mask)
    exact = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    expected = oracle(case, copy.deepcopy(module).double(), exact, mask)
    # A loss has no matrix of its own for autocast to round, so it keeps every digit
    assert_close(outputs, expected, torch.float32 if case in LOSSES else dtype)
    for name in {"loss", "cross_entropy", "eal", "fual", "weights"} & outputs.keys():
        assert outputs[name].dtype == torch.float32, name


@pytest.mark.parametrize(
    ("case", "dtype"),
    [
        *((case, torch.float32) for case in [*POOLINGS, *LOSSES, *OBJECTIVE]),
        *((case, dtype) for case in WITHOUT_LAYERS for dtype in (torch.float16, torch.bfloat16)),
    ],
    ids=str,
)
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_errs_at_most_twice_as_much_as_plain_pytorch(case: Case, dtype: torch.dtype, layout: str) -> None:
    """Values and gradients against float64 on the same numbers, over several draws: of one an error may be 0 by chance.

    Plain PyTorch is the oracle's code in float32; what comes out in half precision is rounded once, whoever made it.
    """
    mask = MASKS["an empty utterance"]
    ours = plain = 0.0
    for seed in range(8):
        module, inputs = case.build(dtype), make_inputs(case, mask, dtype, seed)
        exact, by_hand = (oracle_in(wide, case, module, inputs, mask) for wide in (torch.float64, torch.float32))
        found = with_gradients(module, *(pack_inputs(inputs, mask) if layout == "packed" else (inputs, None)), mask)
        assert found.keys() == exact.keys()
        for name, value in exact.items():
            result = found[name] if found[name].shape == value.shape else unpacked(found[name], mask)
            ours += (result.double() - value).square().sum().item()
            plain += (by_hand[name].to(result.dtype).double() - value).square().sum().item()
    assert ours**0.5 <= 2 * plain**0.5


def oracle_in(
    dtype: torch.dtype, case: Case, module: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor
) -> dict[str, Tensor]:
    module = copy.deepcopy(module).to(dtype)
    inputs = {
        name: value.detach().to(dtype).requires_grad_() if value.requires_grad else value
        for name, value in inputs.items()
    }
    outputs = oracle(case, module, inputs, mask)
    return values_with_gradients(outputs, module, inputs)


def with_gradients(
    module: nn.Module, inputs: Mapping[str, Tensor], bounds: Tensor | None, mask: Tensor
) -> dict[str, Tensor]:
    outputs = run(module, inputs, mask if bounds is None else None, bounds)
    if bounds is not None:
        outputs = {
            name: unpacked(value, mask) if name in ("weights", "frames") else value for name, value in outputs.items()
        }
    return values_with_gradients(outputs, module, inputs)


def values_with_gradients(
    outputs: Mapping[str, Tensor], module: nn.Module, inputs: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    found = gradients({name: outputs[name] for name in sorted(outputs)}, module, inputs)
    return {name: value.detach() for name, value in outputs.items()} | {f"d {name}": g for name, g in found.items()}


def unpacked(value: Tensor, mask: Tensor) -> Tensor:
    return value.new_zeros(*mask.shape, *value.shape[1:]).index_put(mask.nonzero(as_tuple=True), value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_wide_frames_with_large_entries_do_not_overflow(dtype: torch.dtype) -> None:
    """D = 1024 with entries of 100: the squares sum to 1e7, and float16 ends at 65,504."""
    frames = 100 * torch.randn(2, 7, 1024).sign().to(dtype)
    frames[:, 1] = frames[:, 0]
    anchor, exact = frames[:, 0], frames.double()
    loss = EmotionalAttentionLoss()(frames, anchor)
    assert_close(loss, EmotionalAttentionLoss()(exact, exact[:, 0]))
    apart, labels = EmotionalAttentionLoss(negative_margin=0.1), torch.tensor([0, 1])
    assert_close(apart(frames, anchor, None, labels), apart(exact, exact[:, 0], None, labels))
    assert_close(anchor_cosine(frames, anchor), anchor_cosine(exact, exact[:, 0]))
    assert_close(cls_attention(frames, anchor), cls_attention(exact, exact[:, 0]))
    weights = torch.full((2, 7), 1 / 7)
    assert_close(weighted_statistics(frames, weights), weighted_statistics(exact, weights.double()))
    assert_close(masked_mean(frames.abs().repeat(1, 200, 1)), torch.full((2, 1024), 100.0))


@pytest.mark.parametrize("case", WITHOUT_LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_forward_inside_autocast_rounds_nothing_more(case: Case, dtype: torch.dtype, layout: str) -> None:
    mask, cu_seqlens = MASKS["an empty utterance"], None
    module, inputs = case.build(torch.float32), make_inputs(case, mask, torch.float32)
    if layout == "packed":
        inputs, cu_seqlens = pack_inputs(inputs, mask)
        mask = None
    expected = run(module, inputs, mask, cu_seqlens)
    with torch.autocast("cpu", dtype=dtype):
        assert_equal(run(module, inputs, mask, cu_seqlens), expected)


def test_weighted_statistics_inside_autocast_round_nothing_more() -> None:
    frames, weights = torch.randn(2, 7, 8), torch.rand(2, 7).softmax(dim=1)
    expected = weighted_statistics(frames, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_equal(weighted_statistics(frames, weights), expected)


@pytest.mark.parametrize("case", WITHOUT_LAYERS, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_backward_inside_autocast_rounds_nothing_more(case: Case, dtype: torch.dtype) -> None:
    mask = MASKS["an empty utterance"]
    module, inputs = case.build(torch.float32), make_inputs(case, mask, torch.float32)
    expected = gradients(run(module, inputs, mask), module, inputs)
    outputs = run(module, inputs, mask)
    with torch.autocast("cpu", dtype=dtype):
        found = gradients(outputs, module, inputs)
    assert_equal(found, expected)
