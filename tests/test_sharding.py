"""FSDP2 and DDP in two processes on the CPU: a sharded pooling computes, learns, starts and is saved as a whole one.

One test, since processes take longer to start than everything that is asked of them.
"""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.multiprocessing import spawn

from cases import CLASSES, DIM, POOLINGS, Case, Step, assert_close
from framealign import CLSSelfAttentionPooling, lengths_to_mask

PROCESSES = 2
LEARNED = [case for case in POOLINGS if list(case.module(**case.options).parameters())]
CLS = Case(CLSSelfAttentionPooling, {"dim": DIM, "aggregate": "cls"})


def shard_whole(module: nn.Module) -> None:
    fully_shard(module)


def shard_everything(module: nn.Module) -> None:
    """Each module with parameters for itself: whatever reads a weight without a call meets a shard."""
    for part in reversed(list(module.modules())):
        if list(part.parameters()) and not isinstance(part, nn.ModuleList):
            fully_shard(part)


def step_of(case: Case) -> Step:
    torch.manual_seed(0)
    step = Step(case)
    if step.pooling.output_dim != DIM:  # then there is no anchor
        step.objective.eal_weight = step.objective.fual_weight = 0.0
    return step


def batch() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = lengths_to_mask([9, 4, 7, 1], 9)
    return torch.randn(*mask.shape, DIM), mask, torch.arange(len(mask)) % CLASSES


def whole(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.full_tensor().detach() for name, parameter in module.named_parameters()}


def trained(step: nn.Module, rows: slice) -> nn.Module:
    optimizer = torch.optim.SGD(step.parameters(), lr=0.1)
    frames, mask, labels = batch()
    for _ in range(2):
        optimizer.zero_grad()
        step(frames[rows], mask[rows], labels[rows]).loss.backward()
        optimizer.step()
    return step


def learns_as_one_process_does(case: Case, shard: Callable[[nn.Module], None], rank: int) -> None:
    expected = trained(step_of(case), slice(None))
    sharded = step_of(case)
    shard(sharded)
    trained(sharded, slice(rank, None, PROCESSES))
    assert_close(whole(sharded), dict(expected.named_parameters()))


def learns_in_ddp_as_one_process_does(case: Case, rank: int) -> None:
    expected = trained(step_of(case), slice(None))
    distributed = nn.parallel.DistributedDataParallel(step_of(case))
    trained(distributed, slice(rank, None, PROCESSES))
    assert_close(dict(distributed.module.named_parameters()), dict(expected.named_parameters()))


def embeds(case: Case, shard: Callable[[nn.Module], None]) -> None:
    plain = case.build(torch.float32)
    frames, mask, _ = batch()
    expected = plain.embed(frames, mask)
    sharded = copy.deepcopy(plain)
    shard(sharded)
    assert_close(sharded.embed(frames, mask), expected)
    register_fsdp_forward_method(sharded, "embed")
    assert_close(sharded.embed(frames, mask), expected)


class Model(nn.Module):
    """The pooling is a part of what is sharded, and no unit of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.pooling = CLS.build(torch.float32)

    def embed(self, frames: Tensor, mask: Tensor) -> Tensor:
        return self.pooling.embed(frames, mask)


def embeds_as_a_part() -> None:
    model, (frames, mask, _) = Model(), batch()
    expected = model.embed(frames, mask)
    fully_shard(model)
    with pytest.raises(RuntimeError, match=r"mixed torch\.Tensor and DTensor"):
        model.embed(frames, mask)
    register_fsdp_forward_method(model, "embed")
    assert_close(model.embed(frames, mask), expected)


def starts_from_the_meta_device_and_from_a_checkpoint(folder: Path) -> None:
    saved = step_of(CLS)
    fully_shard(saved)
    dcp.save(get_model_state_dict(saved), checkpoint_id=folder)
    with torch.device("meta"):
        step = step_of(CLS)
    fully_shard(step)
    step.to_empty(device="cpu")
    for parameter in step.parameters():
        nn.init.constant_(parameter, torch.nan)
    step.apply(lambda module: module.reset_parameters() if hasattr(module, "reset_parameters") else None)
    start = whole(step.pooling)
    assert all(value.isfinite().all() for value in start.values())
    assert 0 < start["cls"].abs().max() < 0.1
    bound = math.sqrt(6 / (DIM + 3 * DIM))  # of the whole weight, whatever the shards' sizes
    assert 0.9 * bound < start["encoder.layers.0.attention.project_in.weight"].abs().max() < bound
    state = get_model_state_dict(step)
    dcp.load(state, checkpoint_id=folder)
    step.load_state_dict(state)
    assert_close(whole(step), whole(saved))


def in_one_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=PROCESSES)
    try:
        for case in LEARNED:
            learns_in_ddp_as_one_process_does(case, rank)
            for shard in (shard_whole, shard_everything):
                learns_as_one_process_does(case, shard, rank)
                embeds(case, shard)
        embeds_as_a_part()
        starts_from_the_meta_device_and_from_a_checkpoint(folder / "checkpoint")
        dist.barrier()  # who leaves first can take down what the other still waits for
    finally:
        dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_sharded(tmp_path: Path) -> None:
    spawn(in_one_process, (tmp_path,), PROCESSES)
    step = step_of(CLS)
    expected = {name: value.clone() for name, value in step.state_dict().items()}
    for parameter in step.parameters():
        nn.init.zeros_(parameter)
    dcp.load(step.state_dict(), checkpoint_id=tmp_path / "checkpoint")  # what two wrote, one reads
    assert_close(step.state_dict(), expected)
