"""What `benchmarks/gpu.py` proves on a card, in small: `pytest -m gpu`. Without a card all of it is skipped."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and torch finds none"),
]

DTYPES = ("float32", "bfloat16", "float16")


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any, Any]:
    """The parts `right` and `silent`, and what they are told."""
    pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")
    monkeypatch.setattr(sys, "path", [*sys.path, str(Path(__file__).parents[2] / "benchmarks")])
    from on_gpu import right, silent
    from on_gpu.options import Options

    return right, silent, Options(torch.device("cuda"), tiny=False, seconds=0.0)


@pytest.mark.parametrize("layout", ["no mask", "prefix", "holes", "time first", "misaligned", "packed"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [[1, 1, 1], [3, 37, 65], [8, 150, 768]], ids=str)
def test_the_operator_is_right(parts: tuple[Any, Any, Any], shape: list[int], dtype: str, layout: str) -> None:
    right, _, options = parts
    found = right.work(["operator", shape, dtype, layout], options)
    assert found["checks"] > 0
    assert found["broken"] == []
    assert [call for call in found["not_equal_twice"] if not call.startswith("eager")] == []


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("module", ["CLSSelfAttentionPooling", "AttentivePooling", "EmotionalAttentionLoss", "OnePass"])
def test_modules_are_right(parts: tuple[Any, Any, Any], module: str, dtype: str) -> None:
    right, _, options = parts
    assert right.work(["module", module, dtype], options)["broken"] == []


@pytest.mark.parametrize("module", ["CLSSelfAttentionPooling", "AttentivePooling", "EmotionalAttentionLoss", "Step"])
def test_nothing_waits_for_the_card(parts: tuple[Any, Any, Any], module: str) -> None:
    _, silent, options = parts
    assert silent.work(["waits", module], options)["calls"] > 0


def test_a_step_in_a_cuda_graph_equals_the_eager_step(parts: tuple[Any, Any, Any]) -> None:
    _, silent, options = parts
    assert "error" not in silent.work(["replayed", "float32"], options)


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_one_graph_for_ten_length_patterns(parts: tuple[Any, Any, Any], layout: str) -> None:
    _, silent, options = parts
    found = silent.work(["compiled", "OnePass", layout, "auto", "inductor"], options)
    assert "error" not in found
    assert found["graphs"] == 1
