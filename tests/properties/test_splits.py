"""A batch split in any way, its parts weighted by what they count, gives the loss and gradient of the whole.

So gradient accumulation and data-parallel training learn what one large batch does, if they weigh so.
"""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cases import (
    LOSSES,
    OBJECTIVE,
    Case,
    OnePass,
    assert_close,
    assert_equal,
    cases_of,
    frame_inputs,
    gradients,
    make_inputs,
    run,
)
from strategies import masks, seeds

# What a part of the batch counts, by the reduction
COUNTS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda mask: mask.any(dim=1).sum(),
    "frames": lambda mask: mask.sum(),
}
# A negative margin compares the utterances of a batch, and class weights divide by their own sum, as in torch
SPLITTABLE = [
    case
    for case in [*LOSSES, *OBJECTIVE]
    if case.options.get("negative_margin") is None and case.options.get("class_weights") is None
]


@pytest.mark.parametrize("case", [*SPLITTABLE, Case(OnePass, {"eal_weight": 0.7})], ids=str)
@given(mask=masks(min_batch=2), seed=seeds, data=st.data())
def test_parts_weighted_by_what_they_count_are_the_whole(
    case: Case, mask: Tensor, seed: int, data: st.DataObject
) -> None:
    reduction = case.options.get("reduction", "mean")
    part_of = torch.tensor(data.draw(st.lists(st.integers(0, 2), min_size=len(mask), max_size=len(mask))))
    module, inputs = case.build(), make_inputs(case, mask, seed=seed)
    outputs = run(module, inputs, mask)
    expected = gradients({"loss": outputs["loss"].sum()}, module, inputs)
    total, values = torch.zeros(()), torch.zeros(len(mask), dtype=torch.float64)
    for part in part_of.unique():
        rows = part_of == part
        loss = run(module, {name: value[rows] for name, value in inputs.items()}, mask[rows])["loss"]
        if reduction == "none":
            values[rows] = loss.detach()
        if reduction in COUNTS:
            count = COUNTS[reduction]
            loss = loss * count(mask[rows]) / count(mask).clamp_min(1)
        total = total + loss.sum()
    assert_close(total, outputs["loss"].sum())
    assert_close(gradients({"loss": total}, module, inputs), expected)
    if reduction == "none":
        assert_close(values, outputs["loss"].detach())


@pytest.mark.parametrize("case", cases_of(OnePass)[:1], ids=str)
def test_a_part_without_frames_adds_nothing_to_accumulated_gradients(case: Case) -> None:
    mask = torch.tensor([[True, True], [False, False]])
    module, inputs = case.build(), make_inputs(case, mask)
    for row in (0, 1):
        part = {name: value[row : row + 1] for name, value in inputs.items()}
        run(module, part, mask[row : row + 1])["loss"].backward()
        if row == 0:
            first = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    assert_equal({name: parameter.grad for name, parameter in module.named_parameters()}, first)
    for name in frame_inputs(inputs):
        assert not inputs[name].grad[1].any()
