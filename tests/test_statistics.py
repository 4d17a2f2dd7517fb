import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_matches_oracle, cases_of
from framealign import StatisticsPooling


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(StatisticsPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_one_frame_deviates_by_zero_with_gradient_zero() -> None:
    frames = torch.randn(1, 4, 3, requires_grad=True)
    utterance = StatisticsPooling()(frames, torch.tensor([[False, True, False, False]])).utterance
    assert_close(utterance, torch.cat([frames[:, 1], torch.zeros(1, 3)], dim=1))
    utterance[:, 3:].sum().backward()
    assert not frames.grad.any()


def test_a_dimension_that_never_changes_has_gradient_zero() -> None:
    frames = torch.tensor([[[2.0, 0.0], [2.0, 2.0]]], requires_grad=True)
    StatisticsPooling()(frames).utterance[:, 2:].sum().backward()
    assert_close(frames.grad, [[[0.0, -0.5], [0.0, 0.5]]])
