"""Cases that `test_triton_interpreted.py` runs in Triton's interpreter; alone: `TRITON_INTERPRET=1 pytest <this file>`.

The oracle is float64, one utterance at a time, cut to its real frames: it knows neither masks nor chunks.
"""

import os
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from cases import MASKS, assert_close_to_rounding, assert_equal

pytest.importorskip("triton", minversion="3.3", reason="the kernels need Triton 3.3")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

import triton.language as tl
from triton.runtime import interpreter

from framealign.kernels import measured_launches
from framealign.kernels import triton_frame_stats as kernels
from framealign.kernels.interface import Gradients, Needs, Request, Saved

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning:triton.runtime.interpreter")

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
each_attention = pytest.mark.parametrize("attention", ["none", "column", "logits"])

LENGTHS = torch.tensor([100, 0, 33, 70])  # a program takes 32 frames forward and 64 backward


@pytest.fixture(autouse=True)
def _round_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter truncates to bfloat16, where the compiled kernels round (see `test_triton_compiled.py`)."""
    convert = interpreter._convert_float

    def rounding(data: np.ndarray, source: tl.dtype, target: tl.dtype, mode: object) -> np.ndarray:
        if source.is_fp32() and target.is_bf16():
            return torch.from_numpy(np.array(data)).bfloat16().view(torch.int16).numpy().view(np.uint16)
        return convert(data, source, target, mode)

    monkeypatch.setattr(interpreter, "_convert_float", rounding)


class Problem(NamedTuple):
    """What `frame_stats` is asked; frames are (batch, time, dim), or (frames, dim) with `cu_seqlens`."""

    frames: Tensor
    columns: Tensor
    logits: Tensor | None = None
    mask: Tensor | None = None
    cu_seqlens: Tensor | None = None
    attend: bool = True

    @property
    def utterances(self) -> Iterator[tuple[int | slice | Tensor, ...]]:
        """Index of each utterance's real frames."""
        if self.cu_seqlens is not None:
            yield from ((slice(*ends),) for ends in pairwise(self.cu_seqlens.tolist()))
        else:
            everything = torch.ones(self.frames.shape[:2], dtype=torch.bool)
            rows = everything if self.mask is None else self.mask
            yield from ((i, row.nonzero()[:, 0]) for i, row in enumerate(rows))


def make(mask: Tensor | None, dim: int = 7, columns: int = 3, attention: str = "column", time: int = 5) -> Problem:
    batch, time = (2, time) if mask is None else mask.shape
    return Problem(
        torch.randn(batch, time, dim),
        torch.randn(batch, columns, dim),
        torch.randn(batch, time) if attention == "logits" else None,
        mask,
        attend=attention != "none",
    )


def long_mask() -> Tensor:
    """Holes everywhere; whole chunks of padding at the start, in the middle and at the end, and whole tiles of it."""
    generator = torch.Generator().manual_seed(0)
    mask = (torch.arange(100) < LENGTHS[:, None]) & (torch.rand(4, 100, generator=generator) < 0.7)
    mask[0, :80] = False
    mask[3, 32:64] = False
    return mask


def spoil(values: Tensor, mask: Tensor, junk: float) -> Tensor:
    return torch.where(mask.reshape(*mask.shape, *(1,) * (values.ndim - 2)), values, junk)


def directions(problem: Problem) -> list[Tensor]:
    """Gradients of dots, norms, weights and pooled, finite on padding too."""
    leading = problem.frames.shape[:-1]
    batch, columns, dim = problem.columns.shape
    generator = torch.Generator().manual_seed(1)
    sizes = [(*leading, columns), leading, leading, (batch, dim)]
    return [torch.randn(size, generator=generator) for size in sizes]


def run(problem: Problem, **needs: bool) -> dict[str, Tensor | None]:
    frames, columns, logits, mask, cu_seqlens, attend = problem
    outputs = kernels.forward(Request(*problem, norms=True))
    saved = Saved(frames, columns, *outputs[1:], mask, cu_seqlens, attend, logits is not None)
    to_outputs = directions(problem) if attend else [*directions(problem)[:2], None, None]
    gradients = kernels.backward(saved, Gradients(*to_outputs), Needs(**needs))
    names = "dots", "norms", "weights", "pooled", "g_frames", "g_columns", "g_logits"
    return dict(zip(names, (*outputs, *gradients), strict=True))


def expected(problem: Problem, dtype: torch.dtype = torch.float64) -> dict[str, Tensor | None]:
    """The same in plain PyTorch, computed in `dtype`; gradients by autograd, of the frames in the frames' dtype."""
    round_trip = problem.frames.dtype if dtype == torch.float32 else dtype
    frames = problem.frames.detach().clone().to(round_trip).requires_grad_()
    columns = problem.columns.detach().to(dtype).requires_grad_()
    logits = None if problem.logits is None else problem.logits.detach().to(dtype).requires_grad_()
    leading = frames.shape[:-1]
    outputs = {
        "dots": torch.zeros(*leading, columns.shape[1], dtype=dtype),
        "norms": torch.zeros(leading, dtype=dtype),
        "weights": torch.zeros(leading if problem.attend else 0, dtype=dtype),
        "pooled": torch.zeros(columns.shape[0::2] if problem.attend else 0, dtype=dtype),
    }
    total = (frames * 0.0).sum() if frames.isfinite().all() else frames.new_zeros(())
    for i, where in enumerate(problem.utterances):
        z = frames[where].to(dtype)
        found = {"dots": z @ columns[i].T, "norms": torch.linalg.vector_norm(z, dim=1)}
        if problem.attend:
            e = found["dots"][:, -1] if logits is None else logits[where]
            found["weights"] = e.softmax(0)
            found["pooled"] = found["weights"] @ z
        for (name, value), direction in zip(found.items(), directions(problem), strict=False):
            place = (i,) if name == "pooled" else where
            outputs[name][place] = value.detach()
            total = total + (value * direction[place].to(dtype)).sum()
    leaves = {"frames": frames, "columns": columns} | ({} if logits is None else {"logits": logits})
    gradients = dict.fromkeys(leaves, torch.zeros(()))
    if total.requires_grad:
        found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
        gradients = dict(zip(leaves, found, strict=True))
    else:
        gradients = {name: torch.zeros_like(leaf) for name, leaf in leaves.items()}
    return outputs | {"g_logits": None} | {f"g_{name}": value for name, value in gradients.items()}


def assert_matches_oracle(problem: Problem) -> None:
    reference = expected(problem)
    for name, actual in run(problem).items():
        if reference[name] is None:
            assert actual is None
            continue
        assert actual.dtype == torch.float32, name
        assert_close_to_rounding({name: actual.double()}, {name: reference[name]}, torch.float32)


@each_mask
@each_attention
def test_equals_the_oracle_with_every_mask(mask: Tensor, attention: str) -> None:
    assert_matches_oracle(make(mask, attention=attention))


@each_attention
def test_equals_the_oracle_over_many_chunks(attention: str) -> None:
    assert_matches_oracle(make(long_mask(), dim=24, attention=attention))
    assert_matches_oracle(make(None, dim=24, attention=attention, time=100))


@pytest.mark.parametrize("columns", range(10))
def test_equals_the_oracle_with_every_number_of_columns(columns: int) -> None:
    assert_matches_oracle(make(MASKS["holes"], columns=columns, attention="column" if columns else "logits"))


@pytest.mark.parametrize("dim", [1, 2, 15, 64, 513, 1024])
def test_equals_the_oracle_in_every_dim(dim: int) -> None:
    problem = make(MASKS["an empty utterance"], dim=dim)
    assert_matches_oracle(problem._replace(columns=problem.columns / dim**0.5))


@pytest.mark.parametrize(
    "stride",
    [
        lambda z: z.transpose(0, 1).contiguous().transpose(0, 1),
        lambda z: z.transpose(1, 2).contiguous().transpose(1, 2),
        lambda z: z.permute(2, 1, 0).contiguous().permute(2, 1, 0),
        lambda z: torch.stack([z, z + 1], dim=3)[..., 0],
        lambda z: torch.cat([z + 1, z, z + 1], dim=2)[..., z.shape[2] : 2 * z.shape[2]],
        lambda z: torch.cat([z, z + 1], dim=1)[:, ::2],
        lambda z: z[:1].expand_as(z),
        lambda z: z[:, :1].expand_as(z),
        lambda z: z[..., :1].expand_as(z),
        lambda z: z[:1, :1, :1].expand_as(z),
    ],
    ids=["time first", "dim first", "reversed", "every other element", "columns", "every other frame", "one utterance",
         "one frame", "one dimension", "one number"],
)  # fmt: skip
def test_equals_the_oracle_with_every_stride(stride) -> None:
    problem = make(MASKS["holes"])
    assert_matches_oracle(problem._replace(frames=stride(problem.frames)))


@pytest.mark.parametrize("strides", [(2**30, 7, 1), (70, 2**29, 1), (70, 1, 2**29)], ids=["batch", "time", "dim"])
def test_addresses_beyond_32_bits_are_reached(strides: tuple[int, int, int]) -> None:
    problem = make(MASKS["holes"])
    extent = sum((size - 1) * stride for size, stride in zip(problem.frames.shape, strides, strict=True))
    storage = torch.empty(1 + extent, dtype=torch.half)  # what is never touched takes no memory
    far = storage.as_strided(problem.frames.shape, strides).copy_(problem.frames)
    assert_equal(run(problem._replace(frames=far)), run(problem._replace(frames=far.contiguous())))


def pack(lengths: list[int], attention: str, dtype: torch.dtype = torch.int32) -> Problem:
    batch, total = len(lengths), sum(lengths)
    return Problem(
        torch.randn(total, 7),
        torch.randn(batch, 3, 7),
        torch.randn(total) if attention == "logits" else None,
        cu_seqlens=torch.tensor([0, *lengths], dtype=dtype).cumsum(0, dtype=dtype),
        attend=attention != "none",
    )


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [3, 0, 5], LENGTHS.tolist()], ids=str)
@each_attention
def test_packed_frames_equal_the_oracle(lengths: list[int], attention: str) -> None:
    assert_matches_oracle(pack(lengths, attention))


def test_packed_frames_equal_the_oracle_with_int64_lengths_and_odd_strides() -> None:
    problem = pack([3, 0, 40], "column", torch.int64)
    assert_matches_oracle(problem)
    assert_matches_oracle(problem._replace(frames=problem.frames.T.contiguous().T))
    assert_matches_oracle(problem._replace(frames=problem.frames[:1].expand(43, 7)))
    assert_matches_oracle(problem._replace(cu_seqlens=torch.stack([problem.cu_seqlens] * 2, dim=1)[:, 0]))


def test_packed_equals_padded() -> None:
    mask = torch.arange(100) < LENGTHS[:, None]
    padded = make(mask, attention="logits")
    packed = padded._replace(
        frames=padded.frames[mask],
        logits=padded.logits[mask],
        mask=None,
        cu_seqlens=torch.tensor([0, *LENGTHS]).cumsum(0),
    )
    to_pooled = torch.randn(4, 7)
    results = []
    for problem in (padded, packed):
        frames, columns, _, mask_, cu_seqlens, attend = problem
        outputs = kernels.forward(Request(*problem, norms=True))
        saved = Saved(frames, columns, *outputs[1:], mask_, cu_seqlens, attend, has_logits=True)
        to_outputs = Gradients(outputs[0].sin(), outputs[1].cos(), outputs[2].cos(), to_pooled)
        gradients = kernels.backward(saved, to_outputs, Needs())
        results.append([*outputs, *gradients])
    for a, b in zip(*results, strict=True):
        assert_equal(a[mask] if a.shape[:2] == mask.shape else a, b)


@pytest.mark.parametrize(("junk", "attention"), [(torch.nan, "none"), (torch.nan, "column"), (torch.inf, "logits")])
def test_padding_content_never_matters(junk: float, attention: str) -> None:
    mask = long_mask()
    clean = make(mask, attention=attention)
    spoilt = clean._replace(
        frames=spoil(clean.frames, mask, junk),
        logits=None if clean.logits is None else spoil(clean.logits, mask, junk),
    )
    outputs = run(spoilt)
    assert_equal(outputs, run(clean))
    for name in ("dots", "norms", "g_frames", *(("weights",) if clean.attend else ())):
        assert (outputs[name][~mask] == 0).all(), name


def test_gradients_that_reach_padding_never_matter() -> None:
    mask = long_mask()
    frames, columns, _, _, _, _ = problem = make(mask)
    outputs = kernels.forward(Request(*problem, norms=True))
    saved = Saved(frames, columns, *outputs[1:], mask, None, attend=True, has_logits=False)
    to_pooled = directions(problem)[3]
    results = []
    for junk in (0.0, torch.nan):
        to_frames = [spoil(gradient, mask, junk) for gradient in directions(problem)[:3]]
        results.append(kernels.backward(saved, Gradients(*to_frames, to_pooled), Needs()))
    assert_equal(*results)


def test_infinite_columns_never_reach_padding() -> None:
    mask = MASKS["holes"]
    problem = make(mask)
    problem.columns[:, 0, 0] = torch.inf
    outputs = run(problem)
    assert (outputs["dots"][~mask] == 0).all()
    assert (outputs["g_frames"][~mask] == 0).all()


def test_nan_in_a_real_frame_comes_out() -> None:
    problem = make(MASKS["full"])
    clean = run(problem)
    problem.frames[1, 2, 3] = torch.nan
    outputs = run(problem)
    for name in ("dots", "norms", "g_frames"):
        assert outputs[name][1, 2].isnan().any(), name
    for name in ("weights", "pooled", "g_columns", "g_frames"):
        assert outputs[name][1].isnan().any(), name
    for name, value in outputs.items():
        if value is not None:
            assert_equal(value[[0, 2]], clean[name][[0, 2]])


def test_zero_frames_equal_the_oracle() -> None:
    problem = make(MASKS["ragged"])
    problem.frames[0, 1] = 0.0
    problem.frames[1] = 0.0
    assert_matches_oracle(problem)
    assert_matches_oracle(problem._replace(columns=problem.columns[:, :0], attend=False))


@pytest.mark.parametrize("logits", [[1e4, -1e4, 9999.0, 0.0, 0.0], [-torch.inf, 0.0, -torch.inf, 1.0, 2.0]])
def test_extreme_logits_equal_the_oracle(logits: list[float]) -> None:
    problem = make(MASKS["ragged"], attention="logits")
    assert_matches_oracle(problem._replace(logits=torch.tensor(logits).expand(4, 5).clone()))


@pytest.mark.parametrize("value", [torch.inf, -torch.inf, torch.nan])
def test_logits_without_a_softmax_give_nan(value: float) -> None:
    problem = make(MASKS["an empty utterance"], attention="logits")
    problem.logits[0] = value
    outputs = run(problem)
    for name in ("weights", "pooled"):
        assert outputs[name][0, :3].isnan().all(), name
        assert outputs[name][1:].isfinite().all(), name
    assert (outputs["weights"][0, 3:] == 0).all()


@pytest.mark.parametrize("attention", ["column", "logits"])
@pytest.mark.parametrize(("mask", "dim"), [(long_mask(), 24), (MASKS["an empty utterance"], 520)], ids=["long", "wide"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_errs_at_most_twice_as_much_as_eager(
    dtype: torch.dtype, mask: Tensor, dim: int, attention: str
) -> None:
    problem = make(mask, dim=dim, attention=attention)
    problem = problem._replace(frames=problem.frames.to(dtype), columns=problem.columns / dim**0.5)
    actual, eager, exact = run(problem), expected(problem, torch.float32), expected(problem)
    assert actual["g_frames"].dtype == eager["g_frames"].dtype == dtype
    for name, reference in exact.items():
        if reference is not None:
            error, allowed = ((found[name].double() - reference).norm() for found in (actual, eager))
            assert error <= 2 * allowed, name


@pytest.mark.parametrize("missing", range(4), ids=["dots", "norms", "weights", "pooled"])
@each_attention
def test_a_missing_gradient_is_a_zero(missing: int, attention: str) -> None:
    mask = MASKS["an empty utterance"]
    problem = make(mask, attention=attention)
    frames, columns, logits, _, _, attend = problem
    outputs = kernels.forward(Request(*problem, norms=True))
    saved = Saved(frames, columns, *outputs[1:], mask, None, attend, logits is not None)
    given = directions(problem) if attend else [*directions(problem)[:2], None, None]
    results = []
    for replacement in (None, torch.zeros_like(directions(problem)[missing]) if given[missing] is not None else None):
        gradients = [replacement if i == missing else gradient for i, gradient in enumerate(given)]
        results.append(kernels.backward(saved, Gradients(*gradients), Needs()))
    for without, with_zeros in zip(*results, strict=True):
        if without is not None:
            torch.testing.assert_close(without, with_zeros, rtol=0, atol=1e-6)


def test_what_is_not_asked_for_is_empty() -> None:
    frames, columns, *_ = make(None)
    dots, *rest = kernels.forward(Request(frames, columns))
    assert_equal(dots, run(Problem(frames, columns))["dots"])
    assert [value.shape for value in rest] == [(0,)] * 3


@pytest.mark.parametrize("needs_columns", [True, False])
@pytest.mark.parametrize("needs_frames", [True, False])
def test_only_the_gradients_needed_are_computed(needs_frames: bool, needs_columns: bool) -> None:
    problem = make(MASKS["an empty utterance"], attention="logits")
    everything = run(problem)
    found = run(problem, frames=needs_frames, columns=needs_columns)
    assert_equal(found["g_frames"], everything["g_frames"] if needs_frames else None)
    assert_equal(found["g_columns"], everything["g_columns"] if needs_columns else None)
    assert_equal(found["g_logits"], everything["g_logits"])


def test_why_not_names_the_limit_that_is_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    def reason(dim: int, columns: int) -> str | None:
        return kernels.why_not(torch.empty(1, 1, dim), torch.empty(1, columns, dim))

    assert reason(768, 12) is None
    assert reason(8192, 1) is None
    assert reason(0, 1) == "frames have 0 dimensions, and the kernels hold 1 to 8192."
    assert reason(8193, 1) == "frames have 8193 dimensions, and the kernels hold 1 to 8192."
    assert reason(8, 13) == "there are 13 columns, and the kernels hold at most 12."
    assert reason(8000, 2) == "there are 2 columns of 8000 dimensions, and at this size the kernels hold at most 1."
    monkeypatch.setattr(kernels.triton, "__version__", "3.2.0+git")
    assert reason(768, 1) == "Triton is 3.2.0+git, and the kernels need 3.3."


def test_expanded_columns_equal_their_copies() -> None:
    """As attentive pooling gives its query: expanded, with a stride of 0."""
    problem = make(MASKS["an empty utterance"], columns=2)
    one = problem.columns[:1].expand_as(problem.columns)
    assert_matches_oracle(problem._replace(columns=one))
    assert_equal(run(problem._replace(columns=one)), run(problem._replace(columns=one.clone())))


@pytest.mark.parametrize("key", measured_launches.MEASURED, ids=str)
def test_every_measured_launch_errs_at_most_twice_as_much_as_eager(key: tuple[str, int, int, int, bool]) -> None:
    _, itemsize, block, columns, attend = key
    problem = make(long_mask(), dim=block - 3, columns=columns, attention="column" if attend else "none")
    dtype = torch.float32 if itemsize == 4 else torch.bfloat16
    problem = problem._replace(frames=problem.frames.to(dtype), columns=problem.columns / block**0.5)
    actual, eager, exact = run(problem), expected(problem, torch.float32), expected(problem)
    for name, reference in exact.items():
        if reference is not None and reference.numel():
            error, allowed = ((found[name].double() - reference).norm() for found in (actual, eager))
            assert error <= max(2 * allowed, 1e-6 * reference.norm()), name
