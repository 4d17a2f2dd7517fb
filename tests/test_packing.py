from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cases import MASKS, assert_close, assert_equal
from framealign import AlignmentObjective, MeanPooling, lengths_to_mask
from framealign.functional import (
    alignment_objective,
    attentive_pooling,
    cls_attention,
    emotional_attention_loss,
    frame_stats,
    frame_utterance_alignment_loss,
    masked_softmax,
    pack,
    unpack,
    weighted_statistics,
)
from framealign.layout import Packed

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)


@each_mask
def test_pack_puts_the_real_frames_in_a_row(mask: Tensor) -> None:
    frames = torch.randn(*mask.shape, 4).masked_fill(~mask[..., None], torch.nan)
    packed, cu_seqlens = pack(frames, mask)
    assert cu_seqlens.dtype == torch.int32
    assert cu_seqlens.shape == (len(mask) + 1,)
    assert cu_seqlens[0] == 0
    assert packed.shape == (int(mask.sum()), 4)
    for i, real in enumerate(mask):
        assert_equal(packed[cu_seqlens[i] : cu_seqlens[i + 1]], frames[i, real])


@each_mask
def test_unpack_inverts_pack(mask: Tensor) -> None:
    lengths = mask.sum(dim=1)
    prefix = lengths_to_mask(lengths, max_length=mask.shape[1])
    frames = torch.randn(*mask.shape, 4)
    unpacked, unpacked_mask = unpack(*pack(frames, prefix), max_length=mask.shape[1])
    assert_equal(unpacked_mask, prefix)
    assert_equal(unpacked, frames.masked_fill(~prefix[..., None], 0.0))
    assert_equal(pack(*unpack(*pack(frames, mask))), pack(frames, mask))


def test_without_a_mask_every_frame_is_packed() -> None:
    frames = torch.randn(2, 3, 4)
    packed, cu_seqlens = pack(frames)
    assert_equal(packed, frames.reshape(6, 4))
    assert cu_seqlens.tolist() == [0, 3, 6]


def test_unpack_cuts_longer_utterances_and_mixes_none() -> None:
    frames, mask = unpack(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), torch.tensor([0, 3, 3, 4]), max_length=2)
    assert frames.squeeze(2).tolist() == [[1.0, 2.0], [0.0, 0.0], [4.0, 0.0]]
    assert mask.tolist() == [[True, True], [False, False], [True, False]]


def test_gradients_go_back_to_the_frames_they_came_from() -> None:
    mask = MASKS["holes"]
    frames = torch.randn(*mask.shape, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: unpack(*pack(x, mask), max_length=4)[0], frames)
    pack(frames, mask)[0].sum().backward()
    assert_equal(frames.grad, mask[..., None].expand_as(frames).double())


def test_nan_stays_in_its_frame() -> None:
    frames, _ = unpack(torch.tensor([[torch.nan], [1.0]]), torch.tensor([0, 1, 2]), max_length=2)
    assert frames.isnan().squeeze(2).tolist() == [[True, False], [False, False]]


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    packed = torch.randn(3, 4)
    with pytest.raises(ValueError, match=r"`frames` must have shape \(batch, time, dim\), got \(3, 4\)"):
        pack(packed)
    with pytest.raises(TypeError, match=r"`mask` must be bool, True at real frames, got torch.float32"):
        pack(torch.randn(1, 2, 3), torch.ones(1, 2))
    with pytest.raises(ValueError, match=r"`packed` must have shape \(frames, dim\), got \(1, 3, 4\)"):
        unpack(packed[None], torch.tensor([0, 3]))
    with pytest.raises(TypeError, match=r"`cu_seqlens` must be a tensor of shape \(batch \+ 1\), got list"):
        unpack(packed, [0, 3])
    with pytest.raises(ValueError, match=r"`cu_seqlens` must have shape \(batch \+ 1\), got \(1, 2\)"):
        unpack(packed, torch.tensor([[0, 3]]))
    with pytest.raises(TypeError, match=r"`cu_seqlens` must be integer cumulative lengths, got torch.float32"):
        unpack(packed, torch.tensor([0.0, 3.0]))
    with pytest.raises(
        ValueError, match=r"`cu_seqlens` must have shape \(batch \+ 1\), so at least the 0 .* got \(0,\)"
    ):
        unpack(packed, torch.tensor([], dtype=torch.int32))
    with pytest.raises(ValueError, match=r"`cu_seqlens` must be on the device of `packed`, cpu, got meta"):
        unpack(packed, torch.tensor([0, 3], device="meta"))
    with pytest.raises(ValueError, match=r"`max_length` must be at least 0, got -1"):
        unpack(packed, torch.tensor([0, 3]), max_length=-1)


def test_the_shift_of_a_packed_softmax_gets_no_gradient() -> None:
    """It cancels, so its way back, through the maxima, would be work for nothing."""
    frames, cu_seqlens = torch.randn(5, 2, requires_grad=True), torch.tensor([0, 2, 5])
    weights = cls_attention(frames, torch.randn(2, 2), cu_seqlens=cu_seqlens)  # kept, and with it its graph
    nodes, seen = [weights.grad_fn], []
    while nodes:
        node = nodes.pop()
        seen.append(type(node).__name__)
        nodes += [parent for parent, _ in node.next_functions if parent is not None]
    assert not [name for name in seen if "ScatterReduce" in name or "Amax" in name]


class Searches(TorchDispatchMode):
    """Where the boundaries that are searched begin in their storage."""

    def __init__(self) -> None:
        super().__init__()
        self.offsets: list[int] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.name().startswith(("aten::bucketize", "aten::searchsorted")):
            self.offsets += [value.storage_offset() for value in args[:2]]
        return function(*args, **(kwargs or {}))


def test_no_slice_is_searched() -> None:
    """On CUDA the compiler of torch 2.11 would search it from the start of what it was cut from."""
    with Searches() as searches:
        layout = Packed(torch.randn(5, 2), torch.tensor([0, 2, 2, 5], dtype=torch.int32))
    assert layout.utterance.tolist() == [0, 0, 2, 2, 2]
    assert searches.offsets == [0, 0]


SHARED = torch.randn(4, 6)  # of each utterance
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "attentive_pooling": lambda frames, scores, **layout: attentive_pooling(frames, scores, **layout),
    "cls_attention": lambda frames, _, **layout: cls_attention(frames, SHARED, similarity="cosine", **layout),
    "frame_stats": lambda frames, scores, **layout: frame_stats(
        frames, SHARED[:, None], logits=scores, attend=True, norms=True, **layout
    ),
    "emotional_attention_loss": lambda frames, _, **layout: emotional_attention_loss(frames, SHARED, **layout),
    "frame_utterance_alignment_loss": lambda frames, scores, **layout: frame_utterance_alignment_loss(
        frames, SHARED, scores.sigmoid(), **layout
    ),
    "AlignmentObjective": lambda frames, _, **layout: AlignmentObjective()(
        MeanPooling()(frames, **layout), torch.arange(4), lambda vectors: vectors @ SHARED.T, **layout
    ),
    "alignment_objective": lambda frames, _, **layout: alignment_objective(
        frames, SHARED, torch.arange(4), SHARED[:, :6], **layout
    ),
}


@pytest.mark.parametrize("size", [1.0, 100.0])
@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_each_function_gives_of_packed_frames_what_it_gives_of_padded_ones(
    function: Callable[..., Any], size: float
) -> None:
    """Scores far apart too: no softmax overflows."""
    mask = MASKS["an empty utterance"]
    frames, scores = size * torch.randn(*mask.shape, 6), size * torch.randn(mask.shape)
    packed, cu_seqlens = pack(frames, mask)
    padded_results, results = function(frames, scores, mask=mask), function(packed, scores[mask], cu_seqlens=cu_seqlens)
    if isinstance(results, Tensor):
        padded_results, results = [padded_results], [results]
    for padded, found in zip(padded_results, results, strict=True):
        assert_close(found, padded[mask] if padded.shape[:2] == mask.shape else padded)


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64], ids=str)
def test_weighted_statistics_are_computed_in_the_widest_dtype(dtype: torch.dtype, layout: str) -> None:
    frames, weights = torch.randn(2, 5, 6), torch.randn(2, 5).softmax(dim=1)
    more = {} if layout == "padded" else {"cu_seqlens": torch.tensor([0, 5, 10])}
    if layout == "packed":
        frames, weights = frames.flatten(0, 1), weights.flatten()
    for of_frames, of_weights in ((dtype, torch.float16), (torch.float16, dtype), (torch.float32, dtype)):
        given = frames.to(of_frames), weights.to(of_weights)
        wide = torch.promote_types(dtype, torch.float32)
        found = weighted_statistics(*given, **more)
        assert found.dtype == of_frames
        assert_equal(found, weighted_statistics(*(value.to(wide) for value in given), **more).to(of_frames))
    assert found.shape == (2, 12)


def test_weights_of_packed_scores_in_half_precision_are_float32() -> None:
    scores = torch.randn(2, 5).half()
    _, weights = attentive_pooling(torch.randn(10, 6), scores.flatten(), cu_seqlens=torch.tensor([0, 5, 10]))
    assert_equal(weights, masked_softmax(scores.float()).flatten())
