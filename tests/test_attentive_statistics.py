import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_matches_oracle, cases_of
from framealign import AttentiveStatisticsPooling
from framealign.functional import weighted_statistics


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(AttentiveStatisticsPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_the_utterance_is_twice_as_wide_as_a_frame() -> None:
    assert AttentiveStatisticsPooling(6).output_dim == 12


def test_equal_weights_give_plain_statistics() -> None:
    pooling = AttentiveStatisticsPooling(1)
    torch.nn.init.zeros_(pooling.scorer.score.weight)
    assert_close(pooling(torch.tensor([[[1.0], [3.0]]])).utterance, [[2.0, 1.0]])


def test_weighted_statistics_equal_those_computed_by_hand() -> None:
    # mean 0.25 * 0 + 0.75 * 4 = 3, variance 0.25 * 9 + 0.75 * 1 = 3
    assert_close(weighted_statistics(torch.tensor([[[0.0], [4.0]]]), torch.tensor([[0.25, 0.75]])), [[3.0, 3.0**0.5]])


def test_a_large_mean_loses_no_digits() -> None:
    frames = 1e4 + torch.tensor([[[-1.0], [1.0]]])
    assert_close(weighted_statistics(frames, torch.full((1, 2), 0.5)), [[1e4, 1.0]])


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    with pytest.raises(ValueError, match=r"`weights` must have shape .* = \(2, 3\) to match `frames`, got \(2, 2\)"):
        weighted_statistics(torch.ones(2, 3, 4), torch.ones(2, 2))
    with pytest.raises(TypeError, match=r"`weights` must be floating point, got torch.bool"):
        weighted_statistics(torch.ones(2, 3, 4), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(ValueError, match=r"`frames` must have shape \(batch, time, dim\), got \(2, 3\)"):
        weighted_statistics(torch.ones(2, 3), torch.ones(2, 3))
