import pytest
import torch
from torch import Tensor

from cases import MASKS, Case, assert_close, assert_matches_oracle, cases_of
from framealign import MaxPooling


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("case", cases_of(MaxPooling), ids=str)
def test_values_and_gradients_equal_the_reference(case: Case, mask: Tensor) -> None:
    assert_matches_oracle(case, mask)


def test_frames_that_share_a_maximum_share_weight_and_gradient() -> None:
    frames = torch.tensor([[[1.0, 5.0], [1.0, 0.0], [9.0, 9.0]]], requires_grad=True)
    pooled = MaxPooling()(frames, torch.tensor([[True, True, False]]))
    assert_close(pooled.weights, [[0.75, 0.25, 0.0]])
    pooled.utterance.sum().backward()
    assert_close(frames.grad, [[[0.5, 1.0], [0.5, 0.0], [0.0, 0.0]]])


def test_negative_frames_win_over_padding() -> None:
    assert MaxPooling()(torch.tensor([[[-3.0], [0.0]]]), torch.tensor([[True, False]])).utterance.item() == -3.0


def test_nan_in_a_real_frame_shows() -> None:
    assert MaxPooling()(torch.tensor([[[1.0], [torch.nan]]])).utterance.isnan().all()


def test_the_one_frame_of_an_utterance_may_be_padding() -> None:
    pooled = MaxPooling()(torch.tensor([[[3.0]], [[torch.nan]]]), torch.tensor([[True], [False]]))
    assert pooled.utterance.tolist() == [[3.0], [0.0]]
    assert pooled.weights.tolist() == [[1.0], [0.0]]


def test_padding_holds_no_maximum_even_where_it_is_minus_infinity() -> None:
    frames = torch.full((1, 3, 2), -torch.inf)
    pooled = MaxPooling()(frames, torch.tensor([[True, True, False]]))
    assert_close(pooled.weights, [[0.5, 0.5, 0.0]])
