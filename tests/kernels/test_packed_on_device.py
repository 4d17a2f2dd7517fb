"""Packed frames on a device without the kernels: what `eager` computes, without reading a length."""

from typing import Any

import pytest
import torch
from test_cost import peak_memory
from torch import Tensor
from torch._subclasses import FakeTensorMode

from cases import assert_close
from framealign.functional import frame_stats
from framealign.kernels import eager, operator, packed
from framealign.kernels.interface import Gradients, Needs, Request, Saved

CU_SEQLENS = torch.tensor([0, 5, 5, 13], dtype=torch.int32)
DIM = 8


def make(dtype: torch.dtype, logits: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(13, DIM, generator=generator, dtype=torch.float64)
    frames[2] = 0.0
    columns = torch.randn(3, 3, DIM, generator=generator, dtype=torch.float64)
    scores = torch.randn(13, generator=generator, dtype=torch.float64) if logits else None
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    return frames.to(dtype), columns.to(compute), None if scores is None else scores.to(compute)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("norms", [True, False])
@pytest.mark.parametrize("attention", ["none", "column", "logits"])
def test_equals_the_eager_path(attention: str, norms: bool, dtype: torch.dtype) -> None:
    frames, columns, logits = make(dtype, attention == "logits")
    attend, has_logits = attention != "none", logits is not None
    request = Request(frames, columns, logits, None, CU_SEQLENS, attend, norms)
    outputs, expected = packed.forward(request), eager.forward(request)
    assert_close(dict(enumerate(outputs)), dict(enumerate(expected)), dtype)
    assert len({value.data_ptr() for value in outputs if value.numel()}) == sum(value.numel() > 0 for value in outputs)
    assert len({id(value) for value in outputs}) == 4  # one tensor twice is no operator's result

    generator = torch.Generator().manual_seed(1)
    g_dots, g_norms, g_weights, g_pooled = (
        torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype) for value in expected
    )
    arguments = (
        Saved(frames, columns, *expected[1:], None, CU_SEQLENS, attend, has_logits),
        Gradients(g_dots, g_norms if norms else None, g_weights if attend else None, g_pooled if attend else None),
        Needs(logits=has_logits),
    )
    for ours, theirs in zip(packed.backward(*arguments), eager.backward(*arguments), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype
            assert_close(ours, theirs, dtype)


def test_a_gradient_that_is_not_needed_is_not_computed() -> None:
    frames, columns, _ = make(torch.float32, False)
    outputs = packed.forward(Request(frames, columns, cu_seqlens=CU_SEQLENS, attend=True, norms=True))
    saved = Saved(frames, columns, *outputs[1:], None, CU_SEQLENS, attend=True, has_logits=False)
    gradients = Gradients(torch.ones(13, 3), torch.ones(13), torch.ones(13), torch.ones(3, DIM))
    found = packed.backward(saved, gradients, Needs(False, False, False))
    assert found == (None, None, None)


def test_the_columns_do_not_all_stand_beside_each_frame() -> None:
    """One after the other, in one copy of the frames at a time."""
    frames, columns = torch.randn(600, 64), torch.randn(3, 12, 64)
    cu_seqlens = torch.tensor([0, 200, 400, 600])
    request = Request(frames, columns, cu_seqlens=cu_seqlens)
    dots, norms, weights, pooled = packed.forward(request)
    saved = Saved(frames, columns, norms, weights, pooled, None, cu_seqlens, attend=False, has_logits=False)
    gradients = Gradients(dots, None, None, None)
    assert peak_memory(lambda: packed.forward(request)) < 3 * frames.nbytes
    assert peak_memory(lambda: packed.backward(saved, gradients, Needs(logits=False))) < 5 * frames.nbytes


def test_the_path_is_chosen_when_the_operator_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while it is traced: a compiler should neither import the kernels nor ask a device."""

    def asked(*_: Any) -> str:
        raise AssertionError("asked while tracing")

    monkeypatch.setattr(operator, "why_not_triton", asked)
    with FakeTensorMode(), torch.device("cuda"):
        frames = torch.randn(13, DIM)
        stats = frame_stats(frames, torch.randn(3, 2, DIM), cu_seqlens=torch.zeros(4, dtype=torch.int32), attend=True)
        assert stats.pooled.shape == (3, DIM)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_it_is_taken_for_packed_frames_on_a_device_alone(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeTensorMode(), torch.device(device):
        frames, columns, ends = torch.randn(13, DIM), torch.randn(3, 2, DIM), torch.zeros(4, dtype=torch.int32)
        chosen = operator._implementation(Request(frames, columns, cu_seqlens=ends, backend="eager"))
        assert chosen is (packed if device == "cuda" else eager)
        assert operator._implementation(Request(frames.unsqueeze(0), columns, backend="eager")) is eager
