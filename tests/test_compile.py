"""Point 8: every module compiles as one graph, exports with dynamic shapes, and never waits for the device."""

from collections.abc import Callable, Iterator

import pytest
import torch
from functorch.compile import make_boxed_func
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.func import grad, jacrev, vmap

from cases import (
    CLASSES,
    DIM,
    EVERYTHING,
    LOSSES,
    OBJECTIVE,
    SHAPES,
    Case,
    assert_close,
    cases_of,
    frame_inputs,
    gradients,
    make_inputs,
    make_mask,
    one_of_each,
    pack_inputs,
    run,
)
from framealign import CLSSelfAttentionPooling, EmotionalAttentionLoss
from framealign.diagnostics import diagnose
from framealign.functional import emotional_attention_loss, lengths_to_mask, unpack
from framealign.kernels import eager
from framealign.kernels.interface import Gradients, Needs, Request, Saved

each_case = pytest.mark.parametrize("case", EVERYTHING, ids=str)
# Tracing takes a second or two: every module, with its defaults and with the options that change most of its graph
GRAPHS = [case for first in one_of_each(EVERYTHING) for case in cases_of(first.module)[:2]]
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


@pytest.mark.parametrize("case", one_of_each(EVERYTHING), ids=str)
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
    shapes = [{0: batch, 1: time} if name in frame_inputs(inputs) else {0: batch} for name in inputs]
    values = tuple(value.detach() for value in inputs.values())
    program = torch.export.export(flat, (BATCHES[0], *values), dynamic_shapes=({0: batch, 1: time}, tuple(shapes)))
    # A program runs where this library is not installed
    graphs = [part.graph for part in program.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    assert not [node for graph in graphs for node in graph.nodes if "framealign" in str(node.target)]
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


@each_case
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_forward_on_cuda_reads_no_value(case: Case, layout: str) -> None:
    """On a fake CUDA device: there the mask is not in host memory, and no path may look at it."""
    sizes, packed = {"b": 4, "t": 5, "d": DIM, "c": CLASSES}, layout == "packed"
    with FakeTensorMode(), torch.device("cuda"):
        tensors = {name: torch.ones(CLASSES) for name, value in case.options.items() if isinstance(value, Tensor)}
        module = case.module(**case.options | tensors)
        inputs = {"labels": torch.zeros(4, dtype=torch.int64)}
        for name in case.inputs:
            axes = SHAPES[name].removeprefix("bt") if packed else SHAPES[name]
            leading = [13] if axes != SHAPES[name] else []
            inputs[name] = torch.randn([*leading, *(sizes[axis] for axis in axes)])
        mask = None if packed else torch.ones(4, 5, dtype=torch.bool)
        outputs = run(module, inputs, mask, torch.zeros(5, dtype=torch.int32) if packed else None)
        assert {value.device.type for value in outputs.values()} == {"cuda"}


@pytest.mark.parametrize("options", [(False, False), (True, True)], ids=["dots", "all"])
def test_the_eager_path_on_cuda_reads_no_value(options: tuple[bool, bool]) -> None:
    """What stands behind the operator where Triton cannot run; the operator itself hides it from a fake tensor."""
    attend, norms = options
    with FakeTensorMode(), torch.device("cuda"):
        frames, columns, mask = torch.randn(4, 5, DIM), torch.randn(4, 2, DIM), torch.ones(4, 5, dtype=torch.bool)
        outputs = eager.forward(Request(frames, columns, None, mask, None, attend, norms))
        asked_for = (True, norms, attend, attend)
        gradients = (torch.ones_like(value) if there else None for value, there in zip(outputs, asked_for, strict=True))
        saved = Saved(frames, columns, *outputs[1:], mask, None, attend, has_logits=False)
        found = eager.backward(saved, Gradients(*gradients), Needs(logits=False))
        assert [tuple(value.shape) for value in found[:2]] == [(4, 5, DIM), (4, 2, DIM)]


@pytest.mark.parametrize("transform", [vmap, lambda loss: vmap(grad(loss)), lambda loss: vmap(jacrev(loss))])
@pytest.mark.filterwarnings("error:There is a performance drop")
def test_transforms_of_torch_func_compile(transform: Callable[..., Callable[..., Tensor]]) -> None:
    transformed = transform(lambda frames, anchor: emotional_attention_loss(frames, anchor, BATCHES[0]))
    batches = torch.randn(3, *BATCHES[0].shape, DIM), torch.randn(3, BATCHES[0].shape[0], DIM)
    compiled = torch.compile(transformed, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*batches), transformed(*batches))


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("case", one_of_each([*LOSSES, *OBJECTIVE]), ids=str)
def test_one_graph_for_ten_length_patterns(case: Case, layout: str) -> None:
    flat, graphs = Flat(case), []

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    def packed_run(cu_seqlens: Tensor, *values: Tensor) -> dict[str, Tensor]:
        return run(flat.module, dict(zip(flat.names, values, strict=True)), None, cu_seqlens)

    compiled = torch.compile(flat if layout == "padded" else packed_run, fullgraph=True, dynamic=True, backend=count)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        batch, time = (int(size) for size in torch.randint(2, 30, (2,), generator=generator))
        mask = torch.rand(batch + CLASSES, time + DIM, generator=generator) > 0.3 * (seed % 3)
        inputs = make_inputs(case, mask, torch.float32)
        if layout == "padded":
            actual, expected = compiled(mask, *inputs.values()), flat(mask, *inputs.values())
        else:
            packed, cu_seqlens = pack_inputs(inputs, mask)
            actual, expected = compiled(cu_seqlens, *packed.values()), packed_run(cu_seqlens, *packed.values())
        assert_close(actual, expected)
    assert len(graphs) == 1


@pytest.mark.parametrize("case", GRAPHS, ids=str)
def test_packed_input_compiles_and_exports(case: Case) -> None:
    flat = Flat(case)

    class PackedFlat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = flat.module

        def forward(self, cu_seqlens: Tensor, *values: Tensor) -> dict[str, Tensor]:
            return run(self.module, dict(zip(flat.names, values, strict=True)), None, cu_seqlens)

    module = PackedFlat()
    compiled = torch.compile(module, fullgraph=True, dynamic=True, backend="aot_eager")
    program = None
    for mask in BATCHES:
        packed, cu_seqlens = pack_inputs(make_inputs(case, mask, torch.float32), mask)
        expected = module(cu_seqlens, *packed.values())
        assert_close(compiled(cu_seqlens, *packed.values()), expected)
        if program is None:
            batch, frames = (torch.export.Dim(name, min=2, max=2**20) for name in ("batch", "frames"))
            shapes = ({0: batch + 1}, tuple({0: frames if name in frame_inputs(packed) else batch} for name in packed))
            values = tuple(value.detach() for value in packed.values())
            program = torch.export.export(module, (cu_seqlens, *values), dynamic_shapes=shapes)
        assert_close(program.module()(cu_seqlens, *packed.values()), expected)


def test_an_exported_program_needs_no_operator_of_this_library() -> None:
    """So that it can run where framealign is not installed."""
    case = cases_of(EmotionalAttentionLoss)[0]
    inputs = make_inputs(case, BATCHES[0], torch.float32)
    program = torch.export.export(Flat(case), (BATCHES[0], *(value.detach() for value in inputs.values())))
    # What stands where autocast is off is a graph inside the graph
    graphs = [module.graph for module in program.graph_module.modules() if isinstance(module, torch.fx.GraphModule)]
    assert len(graphs) > 1
    assert not [node for graph in graphs for node in graph.nodes if "framealign" in str(node.target)]


def test_a_compiled_backward_pass_reads_the_frames_once() -> None:
    """By the operator, not by the derivative of its definition."""
    targets: list[str] = []

    def keep(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    case = cases_of(EmotionalAttentionLoss)[0]
    flat, inputs = Flat(case), make_inputs(case, BATCHES[0], torch.float32)
    compiled = torch.compile(flat, fullgraph=True, backend=aot_autograd(fw_compiler=keep, bw_compiler=keep))
    gradients(compiled(BATCHES[0], *inputs.values()), flat, inputs)
    assert [target for target in targets if "framealign" in target] == [
        "framealign.frame_stats.default",
        "framealign.frame_stats_backward.default",
    ]


def test_neither_diagnostics_nor_unpacking_reads_a_value() -> None:
    module, classifier = CLSSelfAttentionPooling(DIM), nn.Linear(DIM, CLASSES)
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
