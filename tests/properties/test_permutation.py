"""Point 2: neither the order of the utterances nor that of the frames matters."""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from cases import EVERYTHING, Case, assert_close, frame_inputs, make_inputs, run
from strategies import masks, seeds


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(min_batch=1), seed=seeds)
def test_permuting_the_batch_permutes_the_result(case: Case, mask: Tensor, seed: int) -> None:
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    order = torch.randperm(len(mask), generator=torch.Generator().manual_seed(seed))
    permuted = run(module, {name: value[order] for name, value in inputs.items()}, mask[order])
    expected = {name: value[order] if value.ndim else value for name, value in run(module, inputs, mask).items()}
    assert_close(permuted, expected)


@pytest.mark.parametrize("case", EVERYTHING, ids=str)
@given(mask=masks(min_batch=1, min_time=2), seed=seeds)
def test_permuting_frames_changes_neither_utterance_nor_loss(case: Case, mask: Tensor, seed: int) -> None:
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    order = torch.rand(mask.shape, generator=torch.Generator().manual_seed(seed)).argsort(dim=1)
    rows = torch.arange(len(mask))[:, None]
    permuted_inputs = inputs | {name: inputs[name][rows, order] for name in frame_inputs(inputs)}
    permuted = run(module, permuted_inputs, mask[rows, order])
    for name, value in run(module, inputs, mask).items():
        assert_close(permuted[name], value[rows, order] if name in ("weights", "frames") else value)
