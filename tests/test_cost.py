"""What the losses cost, without a clock: bytes moved, operators, memory kept and memory at the peak."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from framealign import lengths_to_mask
from framealign.functional import alignment_objective, emotional_attention_loss, pack
from framealign.kernels import frame_stats

BATCH, TIME, DIM, CLASSES = 8, 500, 768, 4
LENGTHS = torch.tensor([500, 460, 380, 300, 280, 260, 240, 180])  # 0.65 of the batch is real
MASKS = {
    "no mask": None,
    "full": torch.ones(BATCH, TIME, dtype=torch.bool),
    "nearly full": lengths_to_mask(torch.tensor([500, *[499] * 7]), TIME),
    "ragged": lengths_to_mask(LENGTHS, TIME),
    "short": lengths_to_mask((LENGTHS * 0.45).long().clamp_min(1), TIME),
    "holes": torch.rand(BATCH, TIME, generator=torch.Generator().manual_seed(0)) < 0.9,
}
REAL_SHARE = {name: 1.0 if mask is None else mask.float().mean().item() for name, mask in MASKS.items()}


def make() -> dict[str, Tensor]:
    frames, cls = torch.randn(BATCH, TIME, DIM), torch.randn(BATCH, DIM)
    weight, bias = torch.randn(CLASSES, DIM), torch.randn(CLASSES)
    return {name: value.requires_grad_() for name, value in locals().items()}


def eal(frames: Tensor, cls: Tensor, weight: Tensor, bias: Tensor, **layout: Tensor | None) -> Tensor:
    return emotional_attention_loss(frames, cls, **layout)


def joint(frames: Tensor, cls: Tensor, weight: Tensor, bias: Tensor, **layout: Tensor | None) -> Tensor:
    return alignment_objective(frames, cls, torch.arange(len(cls)) % CLASSES, weight, bias, **layout).loss


def step(loss: Callable[..., Tensor], inputs: dict[str, Tensor], **layout: Tensor | None) -> None:
    torch.autograd.grad(loss(**inputs, **layout), list(inputs.values()), allow_unused=True)


class Meter(TorchDispatchMode):
    """Counts operators and the bytes they read and write; of the library's operator, those inside it."""

    FACTORIES = ("empty", "zeros", "ones", "full", "arange", "new_empty", "new_zeros", "empty_like", "zeros_like")
    WRITES_ONLY = ("copy_", "zero_", "fill_")

    def __init__(self) -> None:
        super().__init__()
        self.operators = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "framealign":
            operator = frame_stats._backward_operator if "backward" in func.name() else frame_stats._operator
            with self:
                return operator._init_fn(*args)
        results = func(*args, **kwargs)
        if not self._is_view(func):
            self.operators += 1
            self.bytes += self._moved(func, args, kwargs, results)
        return results

    def _is_view(self, func: Any) -> bool:
        return any(result.alias_info is not None and not result.alias_info.is_write for result in func._schema.returns)

    def _moved(self, func: Any, args: Any, kwargs: Any, results: Any) -> int:
        name = func._schema.name.split("::")[1]
        if name in self.FACTORIES:
            return 0 if "empty" in name else self._size(results)
        if name == "index_select":  # reads the rows that it takes, not all there are
            return 2 * self._size(results)
        if name == "index_copy_":
            return 2 * self._size(args[3])
        if name == "index_fill_":
            return self._size(args[0]) // max(1, args[0].shape[args[1]]) * args[2].numel()
        read, written = 0, 0
        values = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
        for argument in func._schema.arguments:
            for tensor in self._tensors(values.get(argument.name)):
                is_written = argument.alias_info is not None and argument.alias_info.is_write
                only_written = is_written and (argument.is_out or name in self.WRITES_ONLY)
                read += 0 if only_written else self._size(tensor)
                written += self._size(tensor) if is_written else 0
        if not written:
            written = sum(map(self._size, self._tensors(results)))
        return read + written

    def _tensors(self, value: Any) -> list[Tensor]:
        if isinstance(value, Tensor):
            return [value]
        return [tensor for item in value for tensor in self._tensors(item)] if isinstance(value, (list, tuple)) else []

    def _size(self, tensor: Tensor) -> int:
        """Bytes in memory: an expanded axis is read again and again from the same place."""
        distinct = 1
        for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
            distinct *= 1 if stride == 0 else size
        return distinct * tensor.element_size()


def meter(loss: Callable[..., Tensor], **layout: Tensor | None) -> tuple[float, int]:
    inputs = make()
    with Meter() as counter:
        step(loss, inputs, **layout)
    return counter.bytes / inputs["frames"].nbytes, counter.operators


def test_the_meter_counts_what_is_read_and_written() -> None:
    a, b, index = torch.randn(10, 10), torch.randn(10, 10), torch.tensor([3, 7])
    for operation, tensors in {
        lambda: a + b: 3,
        lambda: a.add_(b): 3,
        lambda: a.copy_(b): 2,
        lambda: torch.mul(a, b, out=a): 3,
        lambda: a.zero_(): 1,
        lambda: a.T: 0,
        lambda: a + b[:1].expand(10, -1): 2.1,
        lambda: torch.cat([a, b]): 4,
        lambda: a.new_zeros(10, 10): 1,
        lambda: a.new_empty(10, 10): 0,
        lambda: a.index_select(0, index): 0.4,
        lambda: a.index_copy_(0, index, b[:2]): 0.4,
        lambda: a.index_fill_(0, index, 0.0): 0.2,
    }.items():
        with Meter() as counter:
            operation()
        assert counter.bytes == pytest.approx(tensors * 400)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(
    ("loss", "limit", "operators_limit"), [(eal, 9.3, 90), (joint, 12.0, 200)], ids=["EAL", "joint"]
)
def test_few_bytes_are_moved_by_few_operators(
    loss: Callable[..., Tensor], limit: float, operators_limit: int, mask: str
) -> None:
    """In multiples of the frames' bytes, forward and backward; padding that is skipped costs nothing.

    Some operators are called for each utterance, forward and backward: copies of its frames, and zeros behind them.
    """
    moved, operators = meter(loss, mask=MASKS[mask])
    print(f"{loss.__name__}, {mask}: {moved:.1f} times the frames, {operators} operators")
    assert moved <= limit
    assert operators <= operators_limit + 16 * BATCH
    if REAL_SHARE[mask] < 0.5:
        assert moved <= 0.6 * limit


def test_the_hand_written_loss_moves_several_times_as_much() -> None:
    """The meter would notice: the same loss as users write it."""

    def by_hand(frames: Tensor, cls: Tensor, weight: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        cosines = torch.cosine_similarity(frames, cls[:, None], dim=-1)
        losses = torch.nn.functional.softplus(0.8 - cosines) * mask
        return (losses.sum(1) / mask.sum(1)).mean()

    assert meter(by_hand, mask=MASKS["ragged"])[0] > 40


@pytest.mark.parametrize("mask", ["full", "ragged"])
@pytest.mark.parametrize("loss", [eal, joint])
def test_little_is_kept_for_backward_but_the_frames(loss: Callable[..., Tensor], mask: str) -> None:
    """At most 0.05 of the frames, beside the frames themselves and the parameters."""
    inputs, kept = make(), {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(**inputs, mask=MASKS[mask])
    assert inputs["frames"].untyped_storage().data_ptr() in kept
    for value in (*inputs.values(), MASKS[mask]):
        kept.pop(value.untyped_storage().data_ptr(), None)
    share = sum(kept.values()) / inputs["frames"].nbytes
    print(f"{loss.__name__}, {mask}: {share:.3f} of the frames")
    assert 0 < share <= 0.05


@pytest.mark.parametrize("mask", ["no mask", "full", "nearly full", "ragged", "holes"])
@pytest.mark.parametrize("loss", [eal, joint])
def test_peak_memory_is_the_gradient(loss: Callable[..., Tensor], mask: str) -> None:
    """One tensor in the size of the frames, their gradient; beside it a few groups and small tensors."""
    inputs = make()
    with pytest.MonkeyPatch.context() as patch:
        # In a batch this small the group of the real size would be all of it
        patch.setattr("framealign.kernels.groups._GROUP_BYTES", 0)
        peak = peak_memory(lambda: step(loss, inputs, mask=MASKS[mask])) / inputs["frames"].nbytes
    print(f"{loss.__name__}, {mask}: {peak:.2f} times the frames")
    assert 1.0 <= peak <= 1.35


def peak_memory(function: Callable[[], object]) -> int:
    """Bytes that the allocator gave out at the most at one time."""
    function()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        function()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    level = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        level += event.nbytes()
        peak = max(peak, level)
    return peak


def test_peak_memory_sees_a_copy() -> None:
    frames = torch.randn(100, 1000)
    assert 2 * frames.nbytes <= peak_memory(lambda: (frames + 1) + 1) < 2.01 * frames.nbytes


def test_frozen_frames_cost_no_gradient() -> None:
    inputs = make()
    inputs["frames"] = inputs["frames"].detach()

    def head_only() -> None:
        torch.autograd.grad(joint(**inputs, mask=MASKS["full"]), [inputs["cls"], inputs["weight"], inputs["bias"]])

    assert peak_memory(head_only) <= 0.1 * inputs["frames"].nbytes


@pytest.mark.parametrize("loss", [eal, joint])
def test_packed_frames_cost_what_their_number_does(loss: Callable[..., Tensor]) -> None:
    inputs = make()
    frames, cu_seqlens = pack(inputs["frames"].detach(), MASKS["ragged"])
    packed = inputs | {"frames": frames.requires_grad_()}
    with Meter() as counter:
        step(loss, packed, cu_seqlens=cu_seqlens)
    assert counter.bytes / inputs["frames"].nbytes <= 9.3
