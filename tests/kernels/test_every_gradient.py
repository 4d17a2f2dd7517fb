"""Every gradient, and every second one, of what is computed without the operator and with it, on the CPU.

Each subset of outputs is differentiated by each subset of inputs, since what is not asked for is not computed. The
oracle is autograd on one utterance after the other, which knows no padding.
"""

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from cases import MASKS, assert_close
from framealign.functional import frame_stats, pack
from framealign.kernels import attentive, eager, groups, moments
from framealign.kernels.definition import definition
from framealign.kernels.groups import Batch
from framealign.kernels.interface import Gradients, Needs, Request, Saved
from framealign.layout import Packed, Padded

DIM = 4
COLUMNS = torch.linspace(-1, 2, 3 * DIM, dtype=torch.float64).view(3, DIM)
USED = {name: MASKS[name] for name in ("full", "holes", "an empty utterance")}


class Path(NamedTuple):
    """A function of frames and something else, (frames, other, mask) padded, and the same of one utterance alone."""

    function: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]
    alone: Callable[[Tensor, Tensor], tuple[Tensor, ...]]
    other: str  # what comes beside the frames: "query", "columns", or of each frame "weights" or "logits"


def attention(frames: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
    weights = (frames @ query[0]).softmax(dim=0)
    return weights @ frames, weights


def weighted_moments(frames: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    mean = weights @ frames
    return mean, weights @ (frames - mean).square()


def stats(frames: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
    dots = frames @ columns.T
    weights = dots[:, -1].softmax(dim=0)
    return weights @ frames, dots, torch.linalg.vector_norm(frames, dim=1), weights


def packed_stats(frames: Tensor, columns: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    packed, cu_seqlens = pack(frames, mask)
    found = frame_stats(packed, columns, cu_seqlens=cu_seqlens, attend=True, norms=True)
    return found.pooled, found.dots, found.norms, found.weights


def padded_stats(frames: Tensor, columns: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    found = frame_stats(frames, columns, mask, attend=True, norms=True)
    return found.pooled, found.dots[mask], found.norms[mask], found.weights[mask]


def stats_by_logits(frames: Tensor, logits: Tensor) -> tuple[Tensor, ...]:
    weights = logits.softmax(dim=0)
    return weights @ frames, frames @ COLUMNS.T, torch.linalg.vector_norm(frames, dim=1), weights


def padded_stats_by_logits(frames: Tensor, logits: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    columns = COLUMNS.expand(len(mask), -1, -1)
    found = frame_stats(frames, columns, mask, logits=logits, attend=True, norms=True)
    return found.pooled, found.dots[mask], found.norms[mask], found.weights[mask]


def real_weights(utterance: Tensor, weights: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    assert not weights[~mask].any()
    return utterance, weights[mask]


def packed_moments(frames: Tensor, weights: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    packed, cu_seqlens = pack(frames, mask)
    return moments.weighted_moments(packed, weights[mask], Packed(packed, cu_seqlens))


PATHS = {
    "attention": Path(
        lambda frames, query, mask: real_weights(*attentive.attend(frames, query, Padded(frames, mask)), mask),
        attention,
        "query",
    ),
    "weighted sum": Path(
        lambda frames, weights, mask: (attentive.weighted_sum(frames, weights, Padded(frames, mask)),),
        lambda frames, weights: (weights @ frames,),
        "weights",
    ),
    "moments": Path(
        lambda frames, weights, mask: moments.weighted_moments(frames, weights, Padded(frames, mask)),
        weighted_moments,
        "weights",
    ),
    "moments, packed": Path(packed_moments, weighted_moments, "weights"),
    "operator": Path(padded_stats, stats, "columns"),
    "operator, logits": Path(padded_stats_by_logits, stats_by_logits, "logits"),
    "operator, packed": Path(packed_stats, stats, "columns"),
}


def make(path: Path, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Frames with NaN in the padding, and what comes beside them."""
    frames = torch.randn(*mask.shape, DIM, dtype=torch.float64).masked_fill(~mask[..., None], torch.nan)
    if path.other == "weights":
        scores = torch.randn(mask.shape, dtype=torch.float64).masked_fill(~mask, -torch.inf)
        return frames, scores.softmax(dim=1).nan_to_num()
    if path.other == "logits":
        return frames, torch.randn(mask.shape, dtype=torch.float64).masked_fill(~mask, torch.nan)
    return frames, torch.randn(len(mask), 1 if path.other == "query" else 3, DIM, dtype=torch.float64)


def one_by_one(path: Path, frames: Tensor, other: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """The oracle: the utterances' vectors stacked, and what is of frames in a row."""
    found = [
        path.alone(frames[i][where], other[i][where] if path.other in ("weights", "logits") else other[i])
        for i, where in enumerate(mask)
    ]
    vectors = 2 if path.alone is weighted_moments else 1
    return tuple(
        torch.stack(values) if place < vectors else torch.cat(values)
        for place, values in enumerate(zip(*found, strict=True))
    )


def subsets(count: int) -> Iterator[tuple[int, ...]]:
    for size in range(1, count + 1):
        yield from combinations(range(count), size)


def derivatives(outputs: tuple[Tensor, ...], inputs: list[Tensor], twice: bool) -> dict[str, Tensor]:
    """Of a projection of the outputs by the inputs; and of a projection of these, by inputs and directions."""
    generator = torch.Generator().manual_seed(1)

    def directions(values: tuple[Tensor, ...]) -> list[Tensor]:
        return [torch.randn(value.shape, generator=generator, dtype=value.dtype) for value in values]

    ways = [way.requires_grad_() for way in directions(outputs)]
    first = torch.autograd.grad(outputs, inputs, ways, create_graph=twice, materialize_grads=True, allow_unused=True)
    found = {f"first {i}": value for i, value in enumerate(first)}
    if twice:
        total = sum((value * way).sum() for value, way in zip(first, directions(first), strict=True))
        second = torch.autograd.grad(total, [*inputs, *ways], materialize_grads=True, allow_unused=True)
        found |= {f"second {i}": value for i, value in enumerate(second)}
    return found


@pytest.fixture(params=[False, True], ids=["small", "large"])
def _size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large batch is read group by group, and by the list of its real frames."""
    if request.param:
        monkeypatch.setattr(attentive, "_WORTH_INDEXING", 0)
        monkeypatch.setattr(groups, "_GROUP_BYTES", 0)


@pytest.mark.usefixtures("_size")
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
@pytest.mark.parametrize("mask", USED.values(), ids=USED)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_gradient_equals_that_of_each_utterance_alone(path: Path, mask: Tensor, twice: bool) -> None:
    values = make(path, mask)
    for chosen in subsets(len(one_by_one(path, *values, mask))):
        for needed in subsets(2):
            found = []
            for function in (lambda *arguments: one_by_one(path, *arguments), path.function):
                leaves = [value.clone().requires_grad_(i in needed) for i, value in enumerate(values)]
                outputs = function(*leaves, mask)
                if not found and not all(outputs[i].requires_grad for i in chosen):
                    break  # frames' norms, say, are no function of the columns
                wanted = tuple(outputs[i] for i in chosen)
                found.append(dict(enumerate(outputs)) | derivatives(wanted, [leaves[i] for i in needed], twice))
            else:
                expected, ours = found
                assert_close(ours, expected)


@pytest.mark.usefixtures("_size")
@pytest.mark.parametrize("name", ["attention", "weighted sum", "operator"])
def test_an_infinite_gradient_stays_out_of_the_padding(name: str) -> None:
    mask, path = MASKS["ragged"], PATHS[name]
    frames, other = (value.requires_grad_() for value in make(path, mask))
    utterance = path.function(frames, other, mask)[0]
    gradient = torch.ones_like(utterance)
    gradient[1, 0] = torch.inf
    (found,) = torch.autograd.grad(utterance, frames, gradient)
    assert not found[~mask].any()
    assert found[[0, 2, 3]].isfinite().all()
    assert not found[1, :2].isfinite().all()


@pytest.mark.parametrize("mask", [*USED.values(), None], ids=[*USED, "no mask"])
@pytest.mark.parametrize("attend", [False, True])
def test_on_a_device_where_nothing_is_read_it_is_the_same(
    attend: bool, mask: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The eager path there takes all utterances as one group, and looks for no padding."""
    frames, columns = make(PATHS["operator"], MASKS["full"] if mask is None else mask)
    monkeypatch.setattr(groups, "_GROUP_BYTES", 0)
    expected = stats_of(frames, columns, mask, attend)
    monkeypatch.setattr(Batch, "segments", None)
    assert_close(stats_of(frames, columns, mask, attend), expected)


def test_what_a_compiler_is_shown_of_packed_frames_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """All columns at once there, which it fuses."""
    frames, cu_seqlens = torch.randn(7, DIM, dtype=torch.float64), torch.tensor([0, 4, 4, 7])
    columns = torch.randn(3, 2, DIM, dtype=torch.float64)
    request, layout = Request(frames, columns, cu_seqlens=cu_seqlens, attend=True), Packed(frames, cu_seqlens)
    expected = definition(request, layout)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    for ours, theirs in zip(definition(request, layout), expected, strict=True):
        assert_close(ours, theirs)


def stats_of(frames: Tensor, columns: Tensor, mask: Tensor | None, attend: bool) -> dict[str, Tensor]:
    """What `eager` computes, and gives back to what ones come to."""
    outputs = eager.forward(Request(frames, columns, None, mask, None, attend, norms=True))
    ones = [torch.ones_like(value) for value in outputs]
    saved = Saved(frames, columns, *outputs[1:], mask, None, attend, has_logits=False)
    given = Gradients(*(ones if attend else (*ones[:2], None, None)))
    found = eager.backward(saved, given, Needs(logits=False))
    return {str(i): value for i, value in enumerate((*outputs, *found)) if value is not None}
