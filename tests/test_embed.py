"""`embed` gives what `forward` calls the utterance, of every pooling, and makes no tensor in the size of the frames."""

from collections.abc import Callable, Iterator

import pytest
import torch
from test_cost import BATCH, LENGTHS, TIME, peak_memory
from test_cost import DIM as WIDE
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call

from cases import (
    DIM,
    MASKS,
    POOLINGS,
    Case,
    assert_close,
    assert_equal,
    gradients,
    make_inputs,
    make_mask,
    one_of_each,
    pack_inputs,
)
from framealign import AttentivePooling, AttentiveStatisticsPooling, MeanPooling, StatisticsPooling, lengths_to_mask
from framealign.kernels import attentive
from framealign.layout import Padded

each_pooling = pytest.mark.parametrize("case", POOLINGS, ids=str)
each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
SHORT = make_mask(["#.##.", ".....", "#####", "#...."])
OF_ONE_READ = [case for case in POOLINGS if str(case) in ("MeanPooling()", "AttentivePooling(hidden_dim=None)")]


@pytest.fixture(params=["few frames", "many frames"], autouse=True)
def _size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done to a batch by its bytes, done to the small ones here."""
    if request.param == "many frames":
        monkeypatch.setattr("framealign.kernels.attentive._WORTH_INDEXING", -1)
        monkeypatch.setattr("framealign.kernels.groups._GROUP_BYTES", 0)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def embed_and_gradients(
    module: nn.Module, inputs: dict[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> dict[str, Tensor]:
    utterance = module.embed(inputs["frames"], mask, cu_seqlens=cu_seqlens)
    return {"utterance": utterance} | gradients({"utterance": utterance}, module, inputs)


def forward_and_gradients(
    module: nn.Module, inputs: dict[str, Tensor], mask: Tensor | None, cu_seqlens: Tensor | None = None
) -> dict[str, Tensor]:
    utterance = module(inputs["frames"], mask, cu_seqlens=cu_seqlens).utterance
    return {"utterance": utterance} | gradients({"utterance": utterance}, module, inputs)


@each_pooling
@each_mask
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_equals_the_utterance_of_forward(case: Case, mask: Tensor, layout: str) -> None:
    module, inputs, cu_seqlens = case.build(), make_inputs(case, mask), None
    if layout == "packed":
        inputs, cu_seqlens = pack_inputs(inputs, mask)
        mask = None
    actual = embed_and_gradients(module, inputs, mask, cu_seqlens)
    assert_close(actual, forward_and_gradients(module, inputs, mask, cu_seqlens))


@each_pooling
def test_no_mask_is_a_full_mask(case: Case) -> None:
    module, inputs = case.build(), make_inputs(case, MASKS["full"])
    assert_close(embed_and_gradients(module, inputs, None), embed_and_gradients(module, inputs, MASKS["full"]))


@each_pooling
@each_mask
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -torch.inf, 6e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_padding_never_matters(case: Case, mask: Tensor, junk: float, dtype: torch.dtype) -> None:
    module, inputs = case.build(dtype), make_inputs(case, mask, dtype)
    dirty = inputs["frames"].detach().masked_fill(~mask[..., None], junk).requires_grad_()
    found = embed_and_gradients(module, {"frames": dirty}, mask)
    assert_equal(found, embed_and_gradients(module, {"frames": inputs["frames"]}, mask))
    assert not found["frames"][~mask].any()


@each_pooling
def test_padding_never_matters_in_strided_frames(case: Case) -> None:
    module, mask = case.build(torch.float32), MASKS["holes"]
    clean = torch.randn(3, 5, 2 * DIM)
    dirty = clean.masked_fill(~mask[..., None], torch.nan)
    found = [
        embed_and_gradients(module, {"frames": frames[..., ::2].requires_grad_()}, mask) for frames in (clean, dirty)
    ]
    assert_equal(*found)


@pytest.mark.parametrize("case", OF_ONE_READ, ids=str)
def test_no_gradient_on_padding_where_an_infinite_one_arrives(case: Case) -> None:
    module, frames = case.build(torch.float32), make_inputs(case, SHORT, torch.float32)["frames"]
    infinite = torch.full((4, DIM), torch.inf)
    (gradient,) = torch.autograd.grad(module.embed(frames, SHORT), frames, infinite)
    assert not gradient[~SHORT].any()
    assert not gradient[SHORT].isfinite().any()


@each_pooling
@pytest.mark.filterwarnings("ignore:Anomaly Detection")
def test_no_step_of_the_backward_pass_is_nan(case: Case) -> None:
    """With an empty utterance in the batch, even where a later step would write over the nan."""
    module, inputs = case.build(), make_inputs(case, SHORT)
    with torch.autograd.set_detect_anomaly(True):
        found = embed_and_gradients(module, inputs, SHORT)
    assert all(value.isfinite().all() for value in found.values())


def test_no_gradient_to_the_weight_of_padding() -> None:
    frames, weights = torch.randn(4, 5, DIM), SHORT.float().requires_grad_()
    frames[~SHORT] = torch.nan
    attentive.weighted_sum(frames, weights, Padded(frames, SHORT)).sum().backward()
    assert not weights.grad[~SHORT].any()
    assert_close(weights.grad[SHORT], frames.sum(dim=2)[SHORT])


@pytest.mark.parametrize("case", OF_ONE_READ, ids=str)
def test_nan_in_a_real_frame_comes_out(case: Case) -> None:
    module, frames = case.build(torch.float32), torch.randn(4, 5, DIM)
    frames[2, 3, 1] = torch.nan
    found = module.embed(frames, SHORT)
    assert found[2, 1].isnan()
    assert found[[0, 1, 3]].isfinite().all()


@pytest.mark.parametrize("case", OF_ONE_READ, ids=str)
def test_derivatives_equal_finite_differences(case: Case) -> None:
    module, frames = case.build(), make_inputs(case, SHORT)["frames"]
    names, parameters = zip(*module.named_parameters(), strict=True) if list(module.parameters()) else ((), ())

    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, frames: Tensor) -> Tensor:
            return self.module.embed(frames, SHORT)

    embed = Embed()

    def function(frames: Tensor, *values: Tensor) -> Tensor:
        return functional_call(embed, {f"module.{n}": v for n, v in zip(names, values, strict=True)}, (frames,))

    assert gradcheck(function, (frames, *parameters))
    assert gradgradcheck(function, (frames, *parameters))


@pytest.mark.parametrize("case", OF_ONE_READ, ids=str)
def test_gradients_that_arrive_at_the_weights_equal_finite_differences(case: Case) -> None:
    """Beside those of the utterance, alone, and differentiated again."""
    module, frames = case.build(), make_inputs(case, SHORT)["frames"]
    if not list(module.parameters()):
        return  # equal weights do not learn
    for pick in (lambda pooled: (pooled.weights,), lambda pooled: (pooled.utterance, pooled.weights)):
        assert gradcheck(lambda frames, pick=pick: pick(module(frames, SHORT)), (frames,))
        assert gradgradcheck(lambda frames, pick=pick: pick(module(frames, SHORT)), (frames,))


@each_pooling
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_errs_within_its_tolerance_of_float64(case: Case, dtype: torch.dtype) -> None:
    mask = MASKS["an empty utterance"]
    frames = make_inputs(case, mask, dtype)["frames"]
    found = case.build(dtype).embed(frames, mask)
    assert found.dtype == dtype
    assert_close(found.double(), case.build(dtype).double().embed(frames.double(), mask), dtype)


@pytest.mark.parametrize("case", OF_ONE_READ, ids=str)
def test_autocast_computes_in_float32(case: Case) -> None:
    module, inputs = case.build(torch.float32), make_inputs(case, SHORT, torch.float32)
    expected = embed_and_gradients(module, inputs, SHORT)
    with torch.autocast("cpu", torch.bfloat16):
        assert_equal(embed_and_gradients(module, inputs, SHORT), expected)


@pytest.mark.parametrize("case", one_of_each(POOLINGS), ids=str)
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.usefixtures("fresh_compiler")  # which takes as long as ten of the other tests
def test_compiles_as_one_graph_and_exports(case: Case, layout: str) -> None:
    module, graphs = case.build(torch.float32), []

    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, frames: Tensor, where: Tensor) -> Tensor:
            if layout == "packed":
                return self.module.embed(frames, cu_seqlens=where)
            return self.module.embed(frames, where)

    def count(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    batches = []
    for mask in (SHORT, make_mask(["######", ".#.#.#", "##....", "......", "###.##", ".....#", "######"])):
        inputs, where = make_inputs(case, mask, torch.float32), mask
        if layout == "packed":
            inputs, where = pack_inputs(inputs, mask)
        frames = inputs["frames"].detach()
        batches.append((frames, where, Embed()(frames, where)))
    compiled = torch.compile(Embed(), fullgraph=True, dynamic=True, backend=count)
    for frames, where, expected in batches:
        assert_close(compiled(frames, where), expected)
    assert len(graphs) == 1
    batch, time = (torch.export.Dim(name, min=2, max=2**20) for name in ("batch", "time"))
    shapes = ({0: batch, 1: time},) * 2 if layout == "padded" else ({0: time}, {0: batch + 1})
    program = torch.export.export(Embed(), batches[0][:2], dynamic_shapes=shapes)
    for frames, where, expected in batches:
        assert_close(program.module()(frames, where), expected)


@each_pooling
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_reads_no_value_of_a_fake_tensor(case: Case, device: str) -> None:
    with FakeTensorMode(), torch.device(device):
        module, mask = case.module(**case.options), torch.ones(4, 5, dtype=torch.bool)
        assert module.embed(torch.randn(4, 5, DIM), mask).device.type == device
        found = module.embed(torch.randn(13, DIM), cu_seqlens=torch.zeros(5, dtype=torch.int32))
        assert found.shape == (4, module.output_dim)


@each_pooling
def test_refuses_what_forward_refuses(case: Case) -> None:
    module = case.module(**case.options)
    with pytest.raises(ValueError, match=r"`frames` must have shape \(batch, time, dim\)"):
        module.embed(torch.randn(3, DIM))
    with pytest.raises(ValueError, match=rf"`frames` must have dim {DIM}"):
        module.embed(torch.randn(2, 3, 5))
    with pytest.raises(TypeError, match=r"`mask` must be bool"):
        module.embed(torch.randn(2, 3, DIM), torch.ones(2, 3))


def of_width(build: Callable[..., nn.Module], **options: object) -> tuple[nn.Module, Tensor]:
    return build(WIDE, **options), torch.randn(BATCH, TIME, WIDE)


@pytest.mark.parametrize("lengths", [LENGTHS, None], ids=["ragged", "no mask"])
@pytest.mark.parametrize(
    ("build", "options"),
    [(MeanPooling, {}), (AttentivePooling, {"hidden_dim": None})],
    ids=["mean", "attention"],
)
def test_no_tensor_in_the_size_of_the_frames_is_made_but_their_gradient(
    build: Callable[..., nn.Module], options: dict[str, object], lengths: Tensor | None
) -> None:
    """Nothing in the size of the frames is made but their gradient, and nothing is kept but the frames."""
    module, frames = of_width(build, **options)
    mask = None if lengths is None else lengths_to_mask(lengths, TIME)
    assert peak_memory(lambda: module.embed(frames, mask)) <= 0.05 * frames.nbytes
    frames.requires_grad_()
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        module.embed(frames, mask)
    assert kept.pop(frames.untyped_storage().data_ptr()) == frames.nbytes
    assert sum(kept.values()) <= 0.05 * frames.nbytes

    def step() -> None:
        torch.autograd.grad(module.embed(frames, mask).sum(), [frames, *module.parameters()])

    assert 1.0 <= peak_memory(step) / frames.nbytes <= 1.1


@pytest.mark.parametrize(
    ("build", "options"),
    [(StatisticsPooling, {}), (AttentiveStatisticsPooling, {"hidden_dim": None})],
    ids=["mean", "attention"],
)
def test_embed_of_statistics_makes_no_clean_copy_of_the_frames(
    build: Callable[..., nn.Module], options: dict[str, object]
) -> None:
    """Their groups are squared in a copy of their own; where they are all one, that is one copy."""
    module, frames = of_width(build, **options)
    mask = lengths_to_mask(LENGTHS, TIME)
    forward, embed = (peak_memory(lambda f=f: f(frames, mask)) for f in (module, module.embed))
    assert embed <= forward - 0.1 * frames.nbytes


def test_many_frames_are_read_by_index() -> None:
    """The batches above take the path that they are meant to take."""
    calls, original = [], torch.embedding_bag

    def counted(*arguments: object) -> object:
        calls.append(1)
        return original(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "embedding_bag", counted)
        MeanPooling().embed(torch.randn(4, 5, DIM), SHORT)
    assert bool(calls) == (attentive._WORTH_INDEXING < 0)
