"""`torch.jit.trace`: the graph is right for other lengths, masks and batch sizes than those it was traced with."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import framealign
from cases import CLASSES, DIM, POOLINGS, assert_close_to_rounding
from framealign import lengths_to_mask

pytestmark = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*is deprecated")


class Outputs(nn.Module):
    def __init__(self, pooling: nn.Module) -> None:
        super().__init__()
        self.pooling = pooling

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.pooling(frames, mask)[:3]


class Losses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(DIM, CLASSES)
        self.eal, self.fual = framealign.EmotionalAttentionLoss(), framealign.FrameUtteranceAlignmentLoss()

    def forward(self, frames: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        anchor = frames[:, 0]
        return self.eal(frames, anchor, mask), self.fual(self.classifier(frames), self.classifier(anchor), None, mask)


MODULES = {**{str(case): lambda case=case: Outputs(case.module(**case.options)) for case in POOLINGS}, "losses": Losses}


def batch(lengths: list[int], time: int) -> tuple[Tensor, Tensor]:
    return torch.randn(len(lengths), time, DIM), lengths_to_mask(lengths, time)


@pytest.mark.parametrize("lengths", [[20, 7, 3], [20, 20, 20]], ids=["padded", "without padding"])
@pytest.mark.parametrize("make", MODULES.values(), ids=MODULES)
def test_what_is_traced_is_right_for_other_batches(make: Callable[[], nn.Module], lengths: list[int]) -> None:
    module = make().eval()
    with torch.no_grad():
        traced = torch.jit.trace(module, batch(lengths, 20), check_trace=False)
        for others in (batch([2, 20, 9], 20), batch([33, 5], 33), batch([1, 4, 4, 2], 4)):
            for found, expected in zip(traced(*others), module(*others), strict=True):
                assert_close_to_rounding(found, expected)
