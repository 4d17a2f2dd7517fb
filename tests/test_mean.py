import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_matches_oracle, cases_of
from framealign import MeanPooling


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(MeanPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_weights_are_uniform_over_real_frames() -> None:
    pooled = MeanPooling()(torch.randn(2, 3, 4), torch.tensor([[True, False, True], [True, True, True]]))
    assert_close(pooled.weights, [[0.5, 0.0, 0.5], [1 / 3, 1 / 3, 1 / 3]])
