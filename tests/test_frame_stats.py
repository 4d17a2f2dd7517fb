"""The primitive: its values and gradients on every path, and the operator that PyTorch knows."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, library
from torch._subclasses.fake_tensor import FakeTensorMode

from cases import (
    DIM,
    LOSSES,
    MASKS,
    POOLINGS,
    Case,
    assert_close,
    assert_equal,
    make_inputs,
    make_mask,
    one_of_each,
    run,
)
from framealign import (
    AlignmentObjective,
    AttentiveStatisticsPooling,
    FrameUtteranceAlignmentLoss,
    MaxPooling,
    MeanPooling,
    StatisticsPooling,
)
from framealign.functional import cls_attention, emotional_attention_loss, frame_stats, pack
from framealign.kernels.definition import definition
from framealign.kernels.groups import Batch
from framealign.kernels.interface import FrameStats, Request, Saved
from framealign.kernels.operator import backward_operator, operator, why_not_triton
from framealign.layout import Padded
from strategies import masks, seeds

OPTIONS = {
    "dots": {},
    "norms": {"norms": True},
    "attend to the last column": {"attend": True},
    "attend by logits": {"attend": True, "logits": True},
    "all": {"attend": True, "norms": True},
    "only pooled": {"attend": True, "logits": True, "columns": 0},
}
each_option = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


def make(
    mask: Tensor, options: dict[str, object], seed: int = 0, dtype: torch.dtype = torch.float64
) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    batch, time = mask.shape

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()

    inputs = {"frames": random(batch, time, DIM), "columns": random(batch, options.get("columns", 3), DIM)}
    return inputs | ({"logits": random(batch, time)} if options.get("logits") else {})


def call(inputs: dict[str, Tensor], options: dict[str, object], mask: Tensor | None, **more: object) -> FrameStats:
    switches = {name: options.get(name, False) for name in ("attend", "norms")}
    columns = inputs["columns"] if inputs["columns"].shape[1] else None
    return frame_stats(inputs["frames"], columns, mask, logits=inputs.get("logits"), **switches, **more)


def by_hand(inputs: dict[str, Tensor], options: dict[str, object], mask: Tensor) -> list[Tensor]:
    """One utterance at a time, on its real frames alone; laid out like the library's results."""
    frames, columns = inputs["frames"], inputs["columns"]
    dots = frames.new_zeros(*mask.shape, columns.shape[1])
    norms, weights = frames.new_zeros(mask.shape), frames.new_zeros(mask.shape)
    pooled = []
    for i, real in enumerate(mask):
        rows, where = frames[i][real], (torch.tensor(i), real.nonzero()[:, 0])
        dots = dots.index_put(where, rows @ columns[i].T)
        norms = norms.index_put(where, torch.stack([row.norm() for row in rows]) if len(rows) else rows.sum(1))
        scores = (
            inputs["logits"][i][real]
            if "logits" in inputs
            else rows @ columns[i][-1]
            if options.get("attend")
            else rows.sum(1)
        )
        weights = weights.index_put(where, scores.softmax(dim=0))
        pooled.append(scores.softmax(dim=0) @ rows)
    results = [dots]
    if options.get("norms"):
        results.append(norms)
    if options.get("attend"):
        results += [weights, torch.stack(pooled) if pooled else frames.new_zeros(0, DIM)]
    return results


def gradients(outputs: list[Tensor], inputs: dict[str, Tensor]) -> list[Tensor]:
    total = sum((output * torch.cos(torch.arange(output.numel()).view(output.shape))).sum() for output in outputs)
    if not total.requires_grad:  # by hand, where there is no utterance
        return [torch.zeros_like(value) for value in inputs.values()]
    return list(torch.autograd.grad(total, list(inputs.values()), allow_unused=True, materialize_grads=True))


def asked_for(stats: FrameStats) -> list[Tensor]:
    return [value for value in stats if value is not None]


@each_option
@given(mask=masks(), seed=seeds)
def test_equals_the_definition(options: dict[str, object], mask: Tensor, seed: int) -> None:
    inputs = make(mask, options, seed)
    outputs, expected = asked_for(call(inputs, options, mask)), by_hand(inputs, options, mask)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert_close(ours, theirs)
    for ours, theirs in zip(gradients(outputs, inputs), gradients(expected, inputs), strict=True):
        assert_close(ours, theirs)


@each_option
@given(mask=masks(), seed=seeds, size=st.integers(1, 3), share=st.sampled_from([0.0, 0.75, 1.0]))
def test_neither_the_size_of_a_group_nor_how_it_is_copied_matters(
    options: dict[str, object], mask: Tensor, seed: int, size: int, share: float
) -> None:
    inputs = make(mask, options, seed)
    expected = asked_for(call(inputs, options, mask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framealign.kernels.groups.Batch._group_size", lambda batch, time: size)
        patch.setattr("framealign.kernels.groups._WORTH_TRIMMING", share)
        patch.setattr("framealign.kernels.groups._GROUP_BYTES", 0)
        outputs = asked_for(call(inputs, options, mask))
        for ours, theirs in zip(outputs, expected, strict=True):
            assert_close(ours, theirs)
        for ours, theirs in zip(gradients(outputs, inputs), gradients(expected, inputs), strict=True):
            assert_close(ours, theirs)


@each_option
@given(mask=masks(), seed=seeds)
def test_the_path_of_a_device_equals_that_of_the_cpu(options: dict[str, object], mask: Tensor, seed: int) -> None:
    """On a device nothing is read: all utterances are one group, copied with the padding written over."""
    inputs = make(mask, options, seed)
    junk = dict(inputs, frames=inputs["frames"].detach().masked_fill(~mask[..., None], torch.nan).requires_grad_())
    expected = asked_for(call(inputs, options, mask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("framealign.kernels.groups.Batch.segments", None)
        patch.setattr("framealign.kernels.groups.Batch._group_size", lambda batch, time: max(1, batch.size))
        outputs = asked_for(call(junk, options, mask))
        for ours, theirs in zip(outputs, expected, strict=True):
            assert_close(ours, theirs)
        for ours, theirs in zip(gradients(outputs, junk), gradients(expected, inputs), strict=True):
            assert_close(ours, theirs)


@each_option
def test_only_what_is_asked_for_is_computed(options: dict[str, object]) -> None:
    mask = MASKS["ragged"]
    stats = call(make(mask, options), options, mask)
    assert (stats.norms is None) != bool(options.get("norms"))
    assert (stats.weights is None) != bool(options.get("attend"))
    assert (stats.pooled is None) != bool(options.get("attend"))


@pytest.mark.parametrize("options", [{}, {"norms": True}, {"attend": True}], ids=str)
@pytest.mark.parametrize("share", [0.0, 1.0], ids=["whole", "trimmed"])
def test_padding_gets_no_gradient_of_an_infinite_column(
    options: dict[str, bool], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0 * inf is nan, and would stand in it."""
    monkeypatch.setattr("framealign.kernels.groups._WORTH_TRIMMING", share)
    mask = MASKS["an empty utterance"]
    inputs = make(mask, {})
    columns = inputs["columns"].detach()
    columns[:, 0, 0] = torch.inf
    stats = frame_stats(inputs["frames"], columns, mask, **options)
    total = sum(value.nan_to_num().sum() for value in asked_for(stats))
    (gradient,) = torch.autograd.grad(total, inputs["frames"])
    assert not gradient[~mask].any()


@pytest.mark.parametrize("threads", [1, 3])
def test_a_group_has_an_utterance_for_each_thread(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """`bmm` shares the utterances out."""
    monkeypatch.setattr("framealign.kernels.groups._GROUP_BYTES", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    groups = list(Batch(torch.randn(6, 5, DIM), None, None, torch.float32).groups())
    assert [len(group.frames) for group in groups] == [threads] * (6 // threads)


def test_by_default_there_are_dot_products_alone() -> None:
    stats = frame_stats(torch.randn(2, 3, DIM), torch.randn(2, 1, DIM))
    assert stats[1:] == (None, None, None)


def test_logits_that_nobody_asked_for_leave_no_weights() -> None:
    """The operator's outputs have the shapes that tracing was promised."""
    frames, columns, logits = torch.randn(2, 3, DIM), torch.randn(2, 1, DIM), torch.randn(2, 3)
    library.opcheck(operator, (frames, columns, logits, None, None, False, True, "auto"))


@each_option
@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_pytorch_accepts_the_operator(options: dict[str, object], layout: str) -> None:
    """Schema, autograd, fake tensors, and tracing with dynamic shapes."""
    mask = MASKS["an empty utterance"]
    inputs = make(mask, options, dtype=torch.float32)
    frames, logits, cu_seqlens = inputs["frames"], inputs.get("logits"), None
    if layout == "packed":
        logits = None if logits is None else logits.detach()[mask].requires_grad_()
        frames, cu_seqlens = pack(frames.detach(), mask)
        frames, mask = frames.requires_grad_(), None
    arguments = (frames, inputs["columns"], logits, mask, cu_seqlens)
    switches = bool(options.get("attend")), bool(options.get("norms")), "auto"
    library.opcheck(operator, (*arguments, *switches))


@each_option
@pytest.mark.parametrize("everything", [True, False], ids=["every gradient", "that of the frames"])
def test_the_gradients_of_the_operator_are_those_that_tracing_was_promised(
    options: dict[str, object], everything: bool
) -> None:
    """In half precision, too: shapes and dtypes."""
    mask = MASKS["an empty utterance"]
    inputs = make(mask, options, dtype=torch.bfloat16)
    frames, columns = inputs["frames"].detach(), inputs["columns"].detach().float()
    logits = inputs["logits"].detach().float() if "logits" in inputs else None
    attend, norms, has_logits = bool(options.get("attend")), bool(options.get("norms")), logits is not None
    outputs = operator(frames, columns, logits, mask, None, attend, norms, "auto")
    saved = Saved(frames, columns, *outputs[1:], mask, None, attend, has_logits)
    gradients = [torch.ones_like(value) for value in outputs]
    arguments = (*saved, *gradients, True, everything, everything and has_logits)
    library.opcheck(backward_operator, arguments)


def test_pytorch_checks_every_operator_above() -> None:
    names = {name.split(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("framealign::")}
    assert names == {op._qualname for op in (operator, backward_operator)}


def test_second_derivatives_and_forward_mode_take_the_definition() -> None:
    mask = MASKS["holes"]
    inputs = make(mask, OPTIONS["all"])
    function = lambda *values: tuple(frame_stats(*values, mask, attend=True, norms=True))  # noqa: E731
    assert torch.autograd.gradcheck(function, tuple(inputs.values()), check_forward_ad=True)
    assert torch.autograd.gradgradcheck(function, tuple(inputs.values()))


@pytest.mark.parametrize("columns", [None, torch.randn(2, 0, DIM).double()], ids=["none", "of length zero"])
def test_packed_frames_without_columns_have_every_derivative_too(columns: Tensor | None) -> None:
    frames, cu_seqlens = torch.randn(5, DIM).double(), torch.tensor([0, 2, 5])
    function = lambda frames: frame_stats(frames, columns, norms=True, cu_seqlens=cu_seqlens)[:2]  # noqa: E731
    (dots, norms), (_, slopes) = torch.func.jvp(function, (frames,), (frames,))
    assert dots.shape == (5, 0)
    assert_close(norms, frames.norm(dim=1))
    assert_close(slopes, norms)


def test_a_gradient_that_is_not_needed_is_not_computed() -> None:
    inputs = make(MASKS["holes"], OPTIONS["all"])
    stats = frame_stats(inputs["frames"].detach(), inputs["columns"], MASKS["holes"], norms=True)
    assert not stats.norms.requires_grad or torch.autograd.grad(stats.dots.sum(), inputs["columns"])[0].any()
    stats = frame_stats(inputs["frames"], inputs["columns"].detach(), MASKS["holes"], norms=True)
    (gradient,) = torch.autograd.grad(stats.dots.sum(), inputs["frames"])
    assert_close(gradient, (inputs["columns"].sum(1)[:, None] * MASKS["holes"][..., None]).detach())


def test_frames_alone_learn_where_nothing_else_does_and_the_rest_where_they_do_not() -> None:
    mask = make_mask(["#....", ".....", "##..."])  # much padding, which is left out
    inputs = make(mask, OPTIONS["attend by logits"])
    constant = {name: value.detach() for name, value in inputs.items()}
    frames = inputs["frames"]
    stats = frame_stats(frames, constant["columns"], mask, logits=constant["logits"], attend=True)
    (gradient,) = torch.autograd.grad(stats.pooled.sum(), frames)
    assert_close(gradient, stats.weights[..., None].expand_as(frames))
    stats = frame_stats(constant["frames"], inputs["columns"], mask, norms=True)
    (gradient,) = torch.autograd.grad(stats.dots.sum(), inputs["columns"])
    sums = constant["frames"].masked_fill(~mask[..., None], 0.0).sum(dim=1, keepdim=True)
    assert_close(gradient, sums.expand_as(gradient))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@each_option
def test_half_precision_errs_by_the_rounding_of_its_inputs_alone(
    options: dict[str, object], dtype: torch.dtype
) -> None:
    """Against float64 on the same rounded inputs, results are those of float32."""
    mask = MASKS["an empty utterance"]
    inputs = make(mask, options, dtype=dtype)
    exact = {name: value.detach().double().requires_grad_() for name, value in inputs.items()}
    outputs, expected = asked_for(call(inputs, options, mask)), by_hand(exact, options, mask)
    for ours, theirs in zip(outputs, expected, strict=True):
        assert ours.dtype == torch.float32
        assert_close(ours, theirs)
    for name, ours, theirs in zip(inputs, gradients(outputs, inputs), gradients(expected, exact), strict=True):
        assert ours.dtype == dtype
        assert_close(ours, theirs, dtype)
        if name == "columns":
            torch.testing.assert_close(ours, theirs.to(dtype), rtol=torch.finfo(dtype).eps, atol=1e-5)


def test_the_definition_is_that_of_the_oracle() -> None:
    mask = MASKS["an empty utterance"]
    inputs = make(mask, OPTIONS["all"])
    request = Request(inputs["frames"], inputs["columns"], mask=mask, attend=True, norms=True)
    outputs = definition(request, Padded(inputs["frames"], mask))
    for ours, theirs in zip(outputs, by_hand(inputs, OPTIONS["all"], mask), strict=True):
        assert_close(ours, theirs)


def test_nan_in_a_real_frame_is_not_hidden() -> None:
    frames = torch.randn(2, 3, DIM)
    frames[0, 1, 0] = torch.nan
    stats = frame_stats(frames, torch.ones(2, 1, DIM), attend=True, norms=True)
    assert stats.dots[0, 1].isnan()
    assert stats.norms[0, 1].isnan()
    assert stats.pooled[0].isnan().all()
    assert not stats.pooled[1].isnan().any()


WITHOUT_KERNEL = MaxPooling, StatisticsPooling, AttentiveStatisticsPooling, FrameUtteranceAlignmentLoss


class TestBackend:
    FRAMES, COLUMNS = torch.randn(2, 3, DIM), torch.randn(2, 1, DIM)

    def test_triton_says_why_it_cannot_run(self) -> None:
        with pytest.raises(
            RuntimeError, match=r'`backend="triton"` cannot run: frames are on cpu, and the kernels run'
        ):
            frame_stats(self.FRAMES, self.COLUMNS, backend="triton")

    @pytest.mark.parametrize(
        "case",
        [case for case in one_of_each([*POOLINGS, *LOSSES]) if case.module not in WITHOUT_KERNEL],
        ids=str,
    )
    def test_every_module_hands_it_on(self, case: Case) -> None:
        module = case.module(**case.options, backend="triton").double()
        for arguments in (
            {"mask": MASKS["ragged"]},
            {"mask": None, "cu_seqlens": torch.tensor([0, 5, 5, 9, 20], dtype=torch.int32)},
        ):
            inputs = make_inputs(case, MASKS["ragged"])
            if arguments["mask"] is None:
                inputs["frames"] = inputs["frames"].flatten(0, 1)
            with pytest.raises(RuntimeError, match=r'`backend="triton"` cannot run'):
                run(module, inputs, **arguments)

    @pytest.mark.parametrize("case", [case for case in POOLINGS if case.module not in WITHOUT_KERNEL], ids=str)
    def test_embed_hands_it_on(self, case: Case) -> None:
        module = case.module(**case.options, backend="triton")
        with pytest.raises(RuntimeError, match=r'`backend="triton"` cannot run'):
            module.embed(self.FRAMES)

    @pytest.mark.parametrize("function", [cls_attention, emotional_attention_loss])
    @pytest.mark.parametrize("options", [{}, {"similarity": "cosine"}], ids=str)
    def test_every_function_hands_it_on(self, function: Callable[..., object], options: dict[str, str]) -> None:
        if function is emotional_attention_loss:
            options = {}
        with pytest.raises(RuntimeError, match=r'`backend="triton"` cannot run'):
            function(self.FRAMES, self.COLUMNS[:, 0], backend="triton", **options)

    def test_an_objective_hands_it_on(self) -> None:
        pooled = MeanPooling()(self.FRAMES)
        with pytest.raises(RuntimeError, match=r'`backend="triton"` cannot run'):
            AlignmentObjective(backend="triton")(pooled, torch.tensor([0, 1]), torch.nn.Linear(DIM, 3))

    def test_auto_is_eager_on_the_cpu(self) -> None:
        assert_equal(
            frame_stats(self.FRAMES, self.COLUMNS).dots, frame_stats(self.FRAMES, self.COLUMNS, backend="eager").dots
        )

    def test_why_not_triton_names_the_limit_that_is_passed(self) -> None:
        pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")
        with FakeTensorMode(), torch.device("cuda"):
            frames, columns = torch.empty(2, 3, 768), torch.empty(2, 5, 768)
            assert why_not_triton(frames, columns) is None
            assert why_not_triton(frames.half(), columns) is None
            assert "it computes in torch.float64" in why_not_triton(frames, columns.double())
            assert "frames have 10000 dimensions" in why_not_triton(torch.empty(2, 3, 10_000), columns)
            assert "there are 17 columns" in why_not_triton(frames, torch.empty(2, 17, 768))

    def test_why_not_triton_says_what_is_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        triton = pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")
        with FakeTensorMode(), torch.device("cuda"):
            frames, columns = torch.empty(2, 3, 768), torch.empty(2, 5, 768)
            monkeypatch.setattr(triton, "__version__", "3.2.0")
            assert "Triton is 3.2.0, and the kernels need 3.3" in why_not_triton(frames, columns)
            monkeypatch.setattr("framealign.kernels.operator._HAS_TRITON", False)
            assert "triton is not installed" in why_not_triton(frames, columns)

    def test_another_is_refused_with_the_choices(self) -> None:
        with pytest.raises(ValueError, match=r"`backend` must be one of 'auto', 'eager', 'triton', got 'cuda'"):
            frame_stats(self.FRAMES, self.COLUMNS, backend="cuda")


def test_each_refusal_names_the_argument_and_what_it_got() -> None:
    frames, columns, cu_seqlens = torch.randn(2, 3, DIM), torch.randn(2, 1, DIM), torch.tensor([0, 2, 3])
    with pytest.raises(ValueError, match=r"`attend` needs `logits`, or `columns` whose last one is the query, got nei"):
        frame_stats(frames, attend=True)
    with pytest.raises(ValueError, match=r"`attend` needs `logits`, or `columns` whose last one is the query, got"):
        frame_stats(frames, columns[:, :0], attend=True)
    with pytest.raises(
        ValueError, match=r"`columns` must have shape \(batch, columns, dim\) = \(2, 1, 8\) to match `fr"
    ):
        frame_stats(frames, columns[:, :, :5])
    with pytest.raises(ValueError, match=r"`columns` must have shape \(batch, columns, dim\), got \(2, 8\)"):
        frame_stats(frames, columns[:, 0])
    with pytest.raises(ValueError, match=r"`logits` must have shape \(batch, time\) = \(2, 3\) to match `frames`, got"):
        frame_stats(frames, logits=torch.randn(2, 4), attend=True)
    with pytest.raises(
        ValueError, match=r"`mask` and `cu_seqlens` exclude each other.*got both; use `mask` with padded"
    ):
        frame_stats(frames[0], columns, torch.ones(3, dtype=torch.bool), cu_seqlens=cu_seqlens)
    with pytest.raises(ValueError, match=r"`frames` must have shape \(frames, dim\), got \(2, 3, 8\)"):
        frame_stats(frames, columns, cu_seqlens=cu_seqlens)
    with pytest.raises(
        ValueError, match=r"`columns` must have shape .* = \(2, 1, 8\) to match `frames`, got \(3, 1, 8\)"
    ):
        frame_stats(frames[0], torch.randn(3, 1, DIM), cu_seqlens=cu_seqlens)
    with pytest.raises(TypeError, match=r"`cu_seqlens` must be integer cumulative lengths, got torch.float32"):
        frame_stats(frames[0], columns, cu_seqlens=cu_seqlens.float())
    for bounds in ([0, 2, 4], [1, 2, 3], [0, 4, 3]):
        with pytest.raises(ValueError, match=r"`cu_seqlens` must rise from 0 to 3, the number of frames, got \["):
            frame_stats(frames[0], columns, cu_seqlens=torch.tensor(bounds))
