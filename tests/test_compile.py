"""Point 8: every module compiles as one graph, exports with dynamic shapes, and never waits for the device."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from cases import CLASSES, DIM, EVERYTHING, Case, assert_close, cases_of, gradients, make_inputs, make_mask, run
from framealign.diagnostics import diagnose
from framealign.functional import lengths_to_mask, unpack

each_case = pytest.mark.parametrize("case", EVERYTHING, ids=str)
# Tracing takes a second or two: every module, with its defaults and with the options that change most of its graph
GRAPHS = [case for module in dict.fromkeys(case.module for case in EVERYTHING) for case in cases_of(module)[:2]]
each_graph = pytest.mark.parametrize("case", GRAPHS, ids=str)
# No size equals another one of the first batch: the compiler would take the two for one
BATCHES = [
    make_mask(["#.##.", ".....", "#####", "#...."]),
    make_mask(["######", ".#.#.#", "##....", "......", "###.##", ".....#", "######"]),
]


@pytest.fixture(autouse=True)
def _fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Flat(nn.Module):
    """The case behind positional tensors, as export and compile see a user's model."""

    def __init__(self, case: Case, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.module, self.names = case.build(dtype), (*case.inputs, "labels")

    def forward(self, mask: Tensor | None, *values: Tensor) -> dict[str, Tensor]:
        return run(self.module, dict(zip(self.names, values, strict=True)), mask)


@each_graph
@torch._dynamo.config.patch(error_on_recompile=True)
def test_compiled_equals_eager_without_a_graph_break_or_a_recompilation(case: Case) -> None:
    flat = Flat(case)
    compiled = torch.compile(flat, fullgraph=True, dynamic=True, backend="aot_eager")
    for mask in BATCHES:
        inputs = make_inputs(case, mask, torch.float32)
        actual, expected = compiled(mask, *inputs.values()), flat(mask, *inputs.values())
        assert_close(actual, expected)
        assert_close(gradients(actual, flat, inputs), gradients(expected, flat, inputs))


@pytest.mark.parametrize("case", {case.module: case for case in reversed(EVERYTHING)}.values(), ids=str)
def test_compiles_without_a_mask(case: Case) -> None:
    flat = Flat(case)
    compiled = torch.compile(flat, fullgraph=True, dynamic=True, backend="eager")
    inputs = make_inputs(case, BATCHES[0], torch.float32)
    assert_close(compiled(None, *inputs.values()), flat(None, *inputs.values()))


@each_graph
def test_exports_with_dynamic_batch_and_time(case: Case) -> None:
    flat = Flat(case)
    # Without `max` torch 2.6 guards against a size of 2**63 - 1, and then refuses its own guard
    batch, time = (torch.export.Dim(name, min=2, max=2**20) for name in ("batch", "time"))
    inputs = make_inputs(case, BATCHES[0], torch.float32)
    shapes = [{0: batch, 1: time} if value.ndim > 1 and name not in ("anchor", "utterance_logits") else {0: batch}
              for name, value in inputs.items()]  # fmt: skip
    values = tuple(value.detach() for value in inputs.values())
    program = torch.export.export(flat, (BATCHES[0], *values), dynamic_shapes=({0: batch, 1: time}, tuple(shapes)))
    for mask in (*BATCHES, make_mask(["##", ".#"])):
        inputs = make_inputs(case, mask, torch.float32)
        assert_close(program.module()(mask, *inputs.values()), flat(mask, *inputs.values()))


@each_case
def test_neither_forward_nor_backward_reads_a_value(case: Case) -> None:
    """A fake tensor has no values: `.item()`, `bool()`, `nonzero()` and boolean indexing raise."""
    module = case.build(torch.float32)
    inputs = make_inputs(case, BATCHES[0], torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fakes = {name: mode.from_tensor(value) for name, value in inputs.items()}
        outputs = run(module, fakes, mode.from_tensor(BATCHES[0]))
        assert gradients(outputs, module, fakes).keys() >= set(case.inputs)


def test_neither_diagnostics_nor_unpacking_reads_a_value() -> None:
    pooling = next(case for case in EVERYTHING if "CLS" in str(case))
    module, classifier = pooling.build(torch.float32), nn.Linear(DIM, CLASSES)
    with FakeTensorMode(allow_non_fake_inputs=True):
        mask = lengths_to_mask(torch.ones(3, dtype=torch.int64), max_length=4)
        pooled = module(torch.randn(3, 4, DIM), mask)
        assert diagnose(pooled, classifier, mask).frame_variance.shape == (3,)
        assert unpack(torch.randn(9, DIM), torch.zeros(4, dtype=torch.int32), max_length=5)[0].shape == (3, 5, DIM)


def test_a_fake_tensor_would_notice_a_read() -> None:
    with FakeTensorMode():
        mask = torch.ones(3, 4, dtype=torch.bool)
        for read in (mask.any().item, mask.nonzero, lambda: bool(mask.all()), lambda: torch.randn(3, 4)[mask]):
            with pytest.raises((DataDependentOutputException, DynamicOutputShapeException)):
                read()


def test_lengths_to_mask_compiles_with_the_length_of_the_batch() -> None:
    def make(frames: Tensor, lengths: Tensor) -> Tensor:
        return lengths_to_mask(lengths, max_length=frames.shape[1])

    compiled = torch.compile(make, fullgraph=True, dynamic=True, backend="aot_eager")
    for time in (4, 7):
        lengths = torch.tensor([1, time])
        assert torch.equal(compiled(torch.randn(2, time, 3), lengths), make(torch.randn(2, time, 3), lengths))
