"""Packed frames, (frames, dim) with cumulative lengths, give what the padded batch gives."""

from collections.abc import Mapping

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cases import (
    EVERYTHING,
    POOLINGS,
    Case,
    assert_close,
    assert_close_to_rounding,
    frame_inputs,
    gradients,
    make_inputs,
    pack_inputs,
    run,
)
from cases import values_and_gradients as evaluate
from strategies import full_precision, half_precision, masks, seeds


def packed_like(values: Mapping[str, Tensor], mask: Tensor, names: set[str]) -> dict[str, Tensor]:
    return {name: value[mask] if name in names else value for name, value in values.items()}


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(), seed=seeds, dtype=full_precision)
def test_packed_equals_padded(case: Case, mask: Tensor, seed: int, dtype: torch.dtype) -> None:
    module, inputs = case.build(dtype), make_inputs(case, mask, dtype, seed)
    packed, cu_seqlens = pack_inputs(inputs, mask)
    per_frame = {"weights", "frames"} if case in POOLINGS else set()
    padded_outputs = run(module, inputs, mask)
    outputs = run(module, packed, None, cu_seqlens)
    assert_close_to_rounding(outputs, packed_like(padded_outputs, mask, per_frame))
    # One projection for both, so that gradients can be compared
    total, padded_total = (
        {name: (value * torch.sin(torch.arange(value.numel()).to(value).view(value.shape))).sum()
         for name, value in values.items()}
        for values in (outputs, packed_like(padded_outputs, mask, per_frame))
    )  # fmt: skip
    expected = packed_like(gradients(padded_total, module, inputs), mask, set(frame_inputs(inputs)))
    assert_close_to_rounding(gradients(total, module, packed), expected)


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(), seed=seeds, dtype=half_precision)
def test_packed_equals_padded_in_half_precision(case: Case, mask: Tensor, seed: int, dtype: torch.dtype) -> None:
    module, inputs = case.build(dtype), make_inputs(case, mask, dtype, seed)
    packed, cu_seqlens = pack_inputs(inputs, mask)
    per_frame = {"weights", "frames"} if case in POOLINGS else set()
    outputs = run(module, packed, None, cu_seqlens)
    assert_close(outputs, packed_like(run(module, inputs, mask), mask, per_frame), dtype)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("case", EVERYTHING, ids=str)
def test_nothing_packed_is_zero_and_joined_to_the_graph(case: Case, dtype: torch.dtype) -> None:
    for batch in (0, 2):
        module, inputs = case.build(), make_inputs(case, torch.zeros(batch, 3, dtype=torch.bool))
        packed, _ = pack_inputs(inputs, torch.zeros(batch, 3, dtype=torch.bool))
        outputs, found = evaluate(module, packed, None, torch.zeros(batch + 1, dtype=dtype))
        assert not outputs["loss" if "loss" in outputs else "utterance"].any()
        assert all(gradient.isfinite().all() for gradient in found.values())
        assert not any(gradient.any() for name, gradient in found.items() if "classifier" not in name)
