import pytest
import torch
from torch import Tensor

from cases import MASKS, assert_close, assert_equal
from framealign import lengths_to_mask
from framealign.functional import masked_mean, masked_softmax, zero_padding


class TestLengthsToMask:
    def test_real_frames_come_first(self) -> None:
        mask = lengths_to_mask(torch.tensor([2, 0, 3]), max_length=4)
        assert mask.tolist() == [[True, True, False, False], [False] * 4, [True, True, True, False]]
        assert mask.dtype == torch.bool

    def test_the_longest_decides_without_max_length(self) -> None:
        assert lengths_to_mask(torch.tensor([1, 3])).shape == (2, 3)
        assert lengths_to_mask(torch.tensor([0, 0])).shape == (2, 0)
        assert lengths_to_mask(torch.tensor([], dtype=torch.int64)).shape == (0, 0)

    def test_a_negative_length_is_no_frame(self) -> None:
        assert lengths_to_mask(torch.tensor([-2, -1])).shape == (2, 0)
        assert lengths_to_mask(torch.tensor([-2, 1])).tolist() == [[False], [True]]

    def test_longer_lengths_saturate(self) -> None:
        assert lengths_to_mask(torch.tensor([9, 1]), max_length=2).tolist() == [[True, True], [True, False]]
        assert lengths_to_mask(torch.tensor([9]), max_length=0).shape == (1, 0)

    @pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
    def test_any_integer_dtype(self, dtype: torch.dtype) -> None:
        assert lengths_to_mask(torch.tensor([1, 2], dtype=dtype)).tolist() == [[True, False], [True, True]]

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(TypeError, match=r"`lengths` must be integer numbers of frames, got torch.float32; for len"):
            lengths_to_mask(torch.tensor([0.5, 1.0]))
        with pytest.raises(TypeError, match=r"`lengths` must be integer numbers of frames, got torch.bool"):
            lengths_to_mask(torch.tensor([True]))
        with pytest.raises(ValueError, match=r"`lengths` must have shape \(batch\), got \(1, 2\)"):
            lengths_to_mask(torch.tensor([[1, 2]]))
        with pytest.raises(ValueError, match=r"`max_length` must be at least 0, got -1"):
            lengths_to_mask(torch.tensor([1]), max_length=-1)
        for wrong, name in ((2.0, "float"), (True, "bool"), (torch.tensor(2), "Tensor")):
            with pytest.raises(TypeError, match=f"`max_length` must be an integer, got {name}"):
                lengths_to_mask(torch.tensor([1]), max_length=wrong)


class TestZeroPadding:
    def test_writes_over_nan_and_sends_back_exactly_zero(self) -> None:
        frames = torch.tensor([[[1.0], [torch.nan]]], requires_grad=True)
        padded = zero_padding(frames, torch.tensor([[True, False]]))
        assert padded.flatten().tolist() == [1.0, 0.0]
        (padded * torch.tensor(torch.nan)).sum().backward()
        assert frames.grad[0, 1] == 0

    def test_without_a_mask_nothing_is_copied(self) -> None:
        frames = torch.ones(1, 2, 3)
        assert zero_padding(frames, None) is frames

    def test_where_all_of_many_frames_are_real_nothing_is_copied(self) -> None:
        frames = torch.ones(2, 300, 300)
        assert zero_padding(frames, torch.ones(2, 300, dtype=torch.bool)) is frames

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.float32"):
            zero_padding(torch.ones(1, 2), torch.ones(1, 2))
        with pytest.raises(ValueError, match=r"`mask` must have shape .* = \(1, 2\) to match `frames`, got \(1, 3\)"):
            zero_padding(torch.ones(1, 2), torch.ones(1, 3, dtype=torch.bool))


class TestMaskedSoftmax:
    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    def test_equals_the_softmax_of_the_real_logits_alone(self, mask: torch.Tensor) -> None:
        logits = torch.randn(mask.shape, dtype=torch.float64)
        weights = masked_softmax(logits, mask)
        for i, real in enumerate(mask):
            assert_close(weights[i, real], logits[i, real].softmax(dim=0))
            assert not weights[i, ~real].any()

    def test_padding_weighs_exactly_nothing_beside_the_lowest_logits(self) -> None:
        lowest = torch.finfo(torch.float32).min
        weights = masked_softmax(torch.tensor([[lowest, lowest, 0.0]]), torch.tensor([[True, True, False]]))
        assert weights.tolist() == [[0.5, 0.5, 0.0]]

    def test_no_real_frame_weighs_nothing(self) -> None:
        assert masked_softmax(torch.randn(1, 3), torch.zeros(1, 3, dtype=torch.bool)).tolist() == [[0.0] * 3]

    def test_half_precision_sums_to_one_in_float32(self) -> None:
        weights = masked_softmax(torch.randn(1, 3000).half())
        assert weights.dtype == torch.float32
        assert_close(weights.sum(), 1.0)

    def test_nan_in_a_real_frame_shows(self) -> None:
        assert masked_softmax(torch.tensor([[torch.nan, 0.0]]), torch.tensor([[True, True]])).isnan().all()

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(TypeError, match=r"`logits` must be floating point, got torch.int64; use `logits.float"):
            masked_softmax(torch.ones(1, 2, dtype=torch.int64))
        with pytest.raises(ValueError, match=r"`logits` must have shape \(batch, time\), got \(2,\)"):
            masked_softmax(torch.ones(2))
        with pytest.raises(ValueError, match=r"`mask` must have shape .* to match `logits`, got \(1, 3\)"):
            masked_softmax(torch.ones(1, 2), torch.ones(1, 3, dtype=torch.bool))


class TestMaskedMean:
    @pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
    @pytest.mark.parametrize("width", [(), (4,)], ids=["values", "vectors"])
    def test_equals_the_mean_of_the_real_values_alone(self, mask: torch.Tensor, width: tuple[int, ...]) -> None:
        values = torch.randn(*mask.shape, *width, dtype=torch.float64)
        means = masked_mean(values.masked_fill(~mask.reshape(*mask.shape, *(1,) * len(width)), torch.nan), mask)
        for i, real in enumerate(mask):
            expected = values[i, real].mean(dim=0) if real.any() else torch.zeros(width, dtype=torch.float64)
            assert_close(means[i], expected)

    def test_half_precision_accumulates_in_float32(self) -> None:
        assert_equal(masked_mean(torch.full((1, 4096), 100.0).half()), torch.tensor([100.0]))

    def test_each_refusal_names_the_argument_and_what_it_got(self) -> None:
        with pytest.raises(ValueError, match=r"`values` must have shape \(batch, time, dim\), got \(2,\)"):
            masked_mean(torch.ones(2))
        with pytest.raises(TypeError, match=r"`values` must be a tensor of shape .*, got float"):
            masked_mean(1.0)
        with pytest.raises(TypeError, match=r"`values` must be floating point, got torch.bool"):
            masked_mean(torch.ones(1, 2, dtype=torch.bool))


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_many_frames_are_copied_as_few_are_filled(mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    """From some size on the real frames are copied and the padding is not read."""
    frames = torch.randn(*mask.shape, 4, dtype=torch.float64).masked_fill(~mask[..., None], torch.nan).requires_grad_()
    few = zero_padding(frames, mask)
    monkeypatch.setattr("framealign.masking._WORTH_READING", -1)
    many = zero_padding(frames, mask)
    assert_equal(many, few)
    assert torch.autograd.gradcheck(lambda x: zero_padding(x, mask), few.detach().requires_grad_())
    squares = lambda x: zero_padding(x, mask).square()  # noqa: E731
    assert torch.autograd.gradgradcheck(squares, few.detach().requires_grad_())
    (gradient,) = torch.autograd.grad(many.sum(), frames)
    assert_equal(gradient, mask[..., None].expand_as(frames).double())
