import pytest
from torch import Tensor

from cases import MASKS, Case, assert_matches_oracle, cases_of
from framealign import SelfAttentionPooling


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(SelfAttentionPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)
