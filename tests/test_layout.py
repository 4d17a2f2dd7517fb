"""The few operations in which losses and poolings are written, on either layout, against one utterance at a time."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cases import MASKS, assert_close, assert_equal
from framealign.functional import masked_mean, pack
from framealign.layout import Layout, Packed, Padded, log_sum_exp, mean
from framealign.masking import fill_padding

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
each_width = pytest.mark.parametrize("width", [(), (3,), (2, 3)], ids=str)


def both(mask: Tensor, width: tuple[int, ...], on_padding: float = 0.0) -> list[tuple[Layout, Tensor]]:
    """The same values in both layouts."""
    values = torch.randn(*mask.shape, *width, dtype=torch.float64)
    _, cu_seqlens = pack(values.new_zeros(*mask.shape, 1), mask)
    packed = values[mask]
    return [
        (Padded(values, mask), fill_padding(values, mask, on_padding)),
        (Packed(packed, cu_seqlens), packed),
    ]


def alone(mask: Tensor, values: Tensor, of_one: Callable[[Tensor], Tensor], width: tuple[int, ...]) -> Tensor:
    """Of padded values, one utterance at a time."""
    found = [of_one(row[real]) for row, real in zip(values, mask, strict=True)]
    return torch.stack(found) if found else values.new_zeros(0, *width)


@each_mask
@each_width
def test_reductions_of_one_value_for_each_frame(mask: Tensor, width: tuple[int, ...]) -> None:
    lowest = torch.full(width, -torch.inf, dtype=torch.float64)
    zeros = torch.zeros(width, dtype=torch.float64)
    layouts = both(mask, width)
    values = layouts[0][1]
    expected = {
        "sum": alone(mask, values, lambda rows: rows.sum(dim=0), width),
        "amax": alone(mask, values, lambda rows: rows.amax(dim=0) if len(rows) else lowest, width),
        "mean": alone(mask, values, lambda rows: rows.mean(dim=0) if len(rows) else zeros, width),
    }
    for layout, given in layouts:
        assert_close(layout.sum(given), expected["sum"])
        assert_close(mean(given, layout), expected["mean"])
        assert_equal(layout.counts, mask.sum(dim=1))
        assert layout.counts.dtype == torch.int64
        lowest_given = fill_padding(given, layout.mask, -torch.inf)
        assert_equal(layout.amax(lowest_given), expected["amax"])
        assert_equal(layout.spread(expected["mean"]).expand_as(given), spread_by_hand(expected["mean"], layout))


def spread_by_hand(values: Tensor, layout: Layout) -> Tensor:
    if isinstance(layout, Packed):
        return values.repeat_interleave(layout.counts, dim=0)
    return values[:, None].expand(-1, layout.frame_shape[1], *values.shape[1:])


@each_mask
@pytest.mark.parametrize("size", [1.0, 1e4])
def test_softmax_and_its_logarithm(mask: Tensor, size: float) -> None:
    for layout, values in both(mask, ()):
        scores = size * values
        laid_out = scores if isinstance(layout, Padded) else scores.new_zeros(mask.shape).masked_scatter(mask, scores)
        weights = torch.zeros_like(laid_out)
        for row, real, place in zip(laid_out, mask, weights, strict=True):
            place[real] = row[real].softmax(dim=0)
        assert_close(layout.softmax(scores), weights if isinstance(layout, Padded) else weights[mask])
        expected = alone(mask, laid_out, lambda row: row.logsumexp(dim=0) if len(row) else row.new_zeros(()), ())
        assert_close(log_sum_exp(scores, layout), expected)
        assert layout.batch == len(mask)


@each_mask
def test_weighted_sums_and_equal_weights(mask: Tensor) -> None:
    counts = mask.sum(dim=1, keepdim=True).clamp_min(1)
    for layout, values in both(mask, (3,)):
        equal = layout.equal_weights(torch.float64)
        by_hand = mask.double() / counts
        assert_close(equal, by_hand if isinstance(layout, Padded) else by_hand[mask])
        assert_close(layout.weighted_sum(equal, values), mean(values, layout))
        assert layout.equal_weights(torch.float32).dtype == torch.float32


def test_each_refusal_of_a_masked_mean_names_the_argument_and_what_it_got() -> None:
    values = torch.randn(2, 3, 4)
    with pytest.raises(ValueError, match=r"`values` must have shape \(batch, time, dim\), got \(3,\)"):
        masked_mean(values[0, :, 0], torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`values` must be floating point, got torch.int64"):
        masked_mean(values[..., 0].long(), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.float32"):
        masked_mean(values, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"`mask` must have shape .* = \(2, 3\) to match `values`, got \(2, 4\)"):
        masked_mean(values, torch.ones(2, 4, dtype=torch.bool))


def test_without_a_mask_every_frame_is_real() -> None:
    values = torch.randn(2, 3, 4)
    layout = Padded(values, None)
    assert layout.counts.tolist() == [3, 3]
    assert_equal(layout.equal_weights(torch.float32), torch.full((2, 3), 1 / 3))
    assert_close(mean(values, layout), values.mean(dim=1))
    assert_equal(Padded(values[:, :0], None).equal_weights(torch.float32), torch.zeros(2, 0))
