"""Point 1: padding never matters."""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cases import (
    EVERYTHING,
    POOLINGS,
    Case,
    assert_close,
    assert_equal,
    assert_matches_oracle,
    frame_inputs,
    make_inputs,
    run,
    values_and_gradients,
)
from strategies import full_precision, half_precision, masks, seeds, with_junk


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(), seed=seeds, dtype=full_precision | half_precision)
def test_its_content_changes_no_bit(case: Case, mask: Tensor, seed: int, dtype: torch.dtype) -> None:
    module = case.build(dtype)
    clean = make_inputs(case, mask, dtype, seed)
    outputs, gradients = values_and_gradients(module, clean, mask)
    junk_outputs, junk_gradients = values_and_gradients(module, with_junk(clean, mask, seed), mask)
    assert_equal(junk_outputs, outputs)
    assert_equal(junk_gradients, gradients)
    assert all(value.isfinite().all() for value in (outputs | gradients).values())
    for name in frame_inputs(clean):
        assert not gradients[name][~mask].any(), f"the padding of `{name}` got a gradient"
    for name in {"weights", "frames"} & outputs.keys():
        assert not outputs[name][~mask].any(), f"`{name}` is not zero on padding"


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(), seed=seeds)
def test_a_padded_batch_equals_its_utterances_alone(case: Case, mask: Tensor, seed: int) -> None:
    assert_matches_oracle(case, mask, seed)


@pytest.mark.parametrize("case", POOLINGS, ids=str)
@given(mask=masks(min_batch=1, min_time=1), seed=seeds)
def test_a_pooled_utterance_equals_the_same_one_alone(case: Case, mask: Tensor, seed: int) -> None:
    module = case.build(torch.float32)
    frames = make_inputs(case, mask, torch.float32, seed)["frames"]
    together = run(module, {"frames": frames}, mask)
    for i, real in enumerate(mask):
        alone = run(module, {"frames": frames[i : i + 1, real]}, None)
        for name, value in together.items():
            row = value[i, real] if name in ("weights", "frames") else value[i]
            assert_close(row, alone[name][0])


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(), seed=seeds)
def test_no_mask_equals_a_mask_of_real_frames(case: Case, mask: Tensor, seed: int) -> None:
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    assert_close(run(module, inputs, None), run(module, inputs, torch.ones_like(mask)))
