"""Cases that `test_triton_interpreted.py` runs in Triton's interpreter; alone: `TRITON_INTERPRET=1 pytest <this file>`.

The oracle is float64, one utterance at a time, cut to its real frames: it knows neither masks nor chunks.
"""

import os
from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cases import MASKS, assert_equal

pytest.importorskip("triton", reason="the kernels are written in Triton, which is not installed")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1", allow_module_level=True)

from framealign.kernels import triton_frame_stats as kernels

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning:triton.runtime.interpreter")

each_mask = pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
each_attention = pytest.mark.parametrize("attention", ["none", "column", "logits"])

LENGTHS = torch.tensor([150, 0, 33, 64, 97])  # a program takes 32 frames forward and 64 backward


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
            bounds = self.cu_seqlens.tolist()
            yield from ((slice(*ends),) for ends in zip(bounds[:-1], bounds[1:], strict=True))
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
    """Holes everywhere, and whole chunks of padding at the start, in the middle and at the end."""
    mask = (torch.arange(150) < LENGTHS[:, None]) & (torch.rand(5, 150) < 0.7)
    mask[0, :70] = False
    mask[4, 32:64] = False
    return mask


def directions(problem: Problem) -> list[Tensor]:
    """Gradients of dots, norms, weights and pooled, finite on padding too."""
    leading = problem.frames.shape[:-1]
    batch, columns, dim = problem.columns.shape
    generator = torch.Generator().manual_seed(1)
    sizes = [(*leading, columns), leading, leading, (batch, dim)]
    return [torch.randn(size, generator=generator) for size in sizes]


def run(problem: Problem, **needs: bool) -> dict[str, Tensor | None]:
    frames, columns, logits, mask, cu_seqlens, attend = problem
    dots, norms, weights, pooled = kernels.forward(frames, columns, logits, mask, cu_seqlens, attend, norms=True)
    to_dots, to_norms, to_weights, to_pooled = directions(problem)
    gradients = kernels.backward(
        to_dots, to_norms, to_weights if attend else None, to_pooled if attend else None,
        frames, columns, norms, weights, pooled, mask, cu_seqlens, attend, logits is not None,
        **{"needs_frames": True, "needs_columns": True} | needs,
    )  # fmt: skip
    outputs = {"dots": dots, "norms": norms, "weights": weights, "pooled": pooled}
    return outputs | dict(zip(("g_frames", "g_columns", "g_logits"), gradients, strict=True))


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
    """To 1e-6 of each tensor's scale."""
    reference = expected(problem)
    for name, actual in run(problem).items():
        if reference[name] is None:
            assert actual is None
            continue
        assert actual.dtype == torch.float32, name
        scale = max(1.0, float(reference[name].abs().max())) if reference[name].numel() else 1.0
        torch.testing.assert_close(
            actual.double(), reference[name], rtol=0, atol=1e-6 * scale, msg=lambda m, name=name: f"{name}: {m}"
        )


@each_mask
@each_attention
def test_every_mask(mask: Tensor, attention: str) -> None:
    assert_matches_oracle(make(mask, attention=attention))


@each_attention
def test_many_chunks(attention: str) -> None:
    assert_matches_oracle(make(long_mask(), dim=24, attention=attention))
    assert_matches_oracle(make(None, dim=24, attention=attention, time=100))


@pytest.mark.parametrize("columns", range(10))
def test_every_number_of_columns(columns: int) -> None:
    assert_matches_oracle(make(MASKS["holes"], columns=columns, attention="column" if columns else "logits"))


@pytest.mark.parametrize("dim", [1, 2, 15, 16, 64, 100, 513, 1024])
def test_every_dim(dim: int) -> None:
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
def test_every_stride(stride) -> None:
    problem = make(MASKS["holes"])
    assert_matches_oracle(problem._replace(frames=stride(problem.frames)))


@pytest.mark.parametrize("strides", [(0, 2**28, 1), (0, 1, 2**28), (2**31, 1, 10)])
def test_addresses_beyond_32_bits(strides: tuple[int, int, int]) -> None:
    shape = (2, 10, 10)
    # Memory that is never touched is never taken
    storage = torch.empty(1 + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)), dtype=torch.half)
    frames = storage.as_strided(shape, strides)
    frames.copy_(torch.randn(1, *shape[1:]).expand(shape) if strides[0] == 0 else torch.randn(shape))
    problem = Problem(frames, torch.randn(2, 2, 10))
    assert_equal(run(problem), run(problem._replace(frames=frames.contiguous())))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [1], [3, 0, 5], [150, 0, 33, 64, 97]], ids=str)
@each_attention
def test_packed(lengths: list[int], dtype: torch.dtype, attention: str) -> None:
    problem = make(torch.ones(1, sum(lengths), dtype=torch.bool), attention=attention)
    packed = Problem(
        problem.frames[0],
        torch.randn(len(lengths), 3, 7),
        None if problem.logits is None else problem.logits[0],
        cu_seqlens=torch.tensor([0, *lengths], dtype=dtype).cumsum(0, dtype=dtype),
        attend=problem.attend,
    )
    assert_matches_oracle(packed)
    assert_matches_oracle(packed._replace(frames=packed.frames.T.contiguous().T))


def test_packed_equals_padded() -> None:
    mask = torch.arange(150) < LENGTHS[:, None]
    padded = make(mask, attention="logits")
    packed = padded._replace(
        frames=padded.frames[mask], logits=padded.logits[mask], mask=None, cu_seqlens=torch.tensor([0, *LENGTHS]).cumsum(0)
    )
    to_pooled = torch.randn(5, 7)
    results = []
    for problem in (padded, packed):
        frames, columns, logits, mask_, cu_seqlens, attend = problem
        outputs = kernels.forward(frames, columns, logits, mask_, cu_seqlens, attend, norms=True)
        gradients = kernels.backward(
            outputs[0].sin(), outputs[1].cos(), outputs[2].cos(), to_pooled,
            frames, columns, *outputs[1:], mask_, cu_seqlens, attend, True, True, True,
        )  # fmt: skip
        results.append([*outputs, *gradients])
    for a, b in zip(*results, strict=True):
        assert_equal(a[mask] if a.shape[:2] == mask.shape else a, b)


@each_attention
@pytest.mark.parametrize("junk", [torch.nan, torch.inf, -torch.inf])
def test_padding_content_never_matters(junk: float, attention: str) -> None:
    mask = long_mask()
    clean = make(mask, attention=attention)
    spoilt = clean._replace(
        frames=clean.frames.masked_fill(~mask[..., None], junk),
        logits=None if clean.logits is None else clean.logits.masked_fill(~mask, junk),
    )
    outputs = run(spoilt)
    assert_equal(outputs, run(clean))
    for name in ("dots", "norms", "g_frames", *(("weights",) if clean.attend else ())):
        assert (outputs[name][~mask] == 0).all(), name


def test_gradients_that_reach_padding_never_matter() -> None:
    mask = long_mask()
    frames, columns, _, _, _, _ = problem = make(mask)
    outputs = kernels.forward(frames, columns, None, mask, None, True, True)
    to_pooled = directions(problem)[3]
    results = []
    for junk in (0.0, torch.nan):
        to_frames = [g.masked_fill(~mask.reshape(*mask.shape, *(1,) * (g.ndim - 2)), junk) for g in directions(problem)[:3]]
        results.append(
            kernels.backward(*to_frames, to_pooled, frames, columns, *outputs[1:], mask, None, True, False, True, True)
        )
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


def test_zero_frames() -> None:
    problem = make(MASKS["ragged"])
    problem.frames[0, 1] = 0.0
    problem.frames[1] = 0.0
    assert_matches_oracle(problem)
    assert_matches_oracle(problem._replace(columns=problem.columns[:, :0], attend=False))


@pytest.mark.parametrize("logits", [[1e4, -1e4, 9999.0, 0.0, 0.0], [-torch.inf, 0.0, -torch.inf, 1.0, 2.0]])
def test_extreme_logits(logits: list[float]) -> None:
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


def relative_errors(problem: Problem, outputs: dict[str, Tensor | None]) -> dict[str, float]:
    exact = expected(problem)
    return {
        name: float((outputs[name].double() - value).norm() / value.norm())
        for name, value in exact.items()
        if value is not None
    }


@each_attention
@pytest.mark.parametrize("dim", [64, 513])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_errs_at_most_twice_as_much_as_eager(dtype: torch.dtype, dim: int, attention: str) -> None:
    problem = make(long_mask()[:, ::2], dim=dim, attention=attention)
    problem = problem._replace(frames=problem.frames.to(dtype), columns=problem.columns / dim**0.5)
    outputs = run(problem)
    assert outputs["g_frames"].dtype == dtype
    errors, eager = relative_errors(problem, outputs), relative_errors(problem, expected(problem, torch.float32))
    for name, error in errors.items():
        assert error <= 2 * eager[name], f"{name}: {error} against {eager[name]}"


@pytest.mark.parametrize("missing", range(4), ids=["dots", "norms", "weights", "pooled"])
@each_attention
def test_a_missing_gradient_is_a_zero(missing: int, attention: str) -> None:
    mask = MASKS["an empty utterance"]
    problem = make(mask, attention=attention)
    frames, columns, logits, _, _, attend = problem
    outputs = kernels.forward(frames, columns, logits, mask, None, attend, True)
    given = directions(problem)[: 4 if attend else 2]
    results = []
    for nothing in (None, 0.0):
        gradients = [g if i != missing else nothing and None for i, g in enumerate(given)]
        if nothing == 0.0:
            gradients = [torch.zeros_like(g) if i == missing else g for i, g in enumerate(given)]
        gradients += [None] * (4 - len(gradients))
        arguments = frames, columns, *outputs[1:], mask, None, attend, logits is not None, True, True
        results.append(kernels.backward(*gradients, *arguments))
    for a, b in zip(*results, strict=True):
        if a is not None:
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)


def test_what_is_not_asked_for_is_empty() -> None:
    frames, columns, *_ = make(None)
    dots, *rest = kernels.forward(frames, columns, None, None, None, attend=False, norms=False)
    assert_equal(dots, run(Problem(frames, columns))["dots"])
    assert [value.shape for value in rest] == [(0,)] * 3


class Sizes(TorchDispatchMode):
    """Records the number of elements of every tensor made."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.seen += [value.numel() for value in torch.utils._pytree.tree_leaves(result) if isinstance(value, Tensor)]
        return result


@pytest.mark.parametrize("needs_columns", [True, False])
@pytest.mark.parametrize("needs_frames", [True, False])
def test_only_the_gradients_needed(needs_frames: bool, needs_columns: bool) -> None:
    problem = make(long_mask(), attention="logits")
    everything = run(problem)
    frames, columns, logits, mask, _, _ = problem
    given, saved = directions(problem), (everything["norms"], everything["weights"], everything["pooled"])
    with Sizes() as sizes:
        found = kernels.backward(
            *given, frames, columns, *saved, mask, None, True, True, needs_frames=needs_frames, needs_columns=needs_columns
        )
    assert_equal(found[0], everything["g_frames"] if needs_frames else None)
    assert_equal(found[1], everything["g_columns"] if needs_columns else None)
    assert_equal(found[2], everything["g_logits"])
    assert (max(sizes.seen) >= frames.numel()) == needs_frames


def test_reasons() -> None:
    def reason(dim: int, columns: int) -> str | None:
        return kernels.why_not(torch.empty(1, 1, dim), torch.empty(1, columns, dim))

    assert reason(768, 16) is None
    assert reason(8192, 4) is None
    assert reason(0, 1) == "frames have 0 dimensions, and the kernels hold 1 to 8192."
    assert reason(8193, 1) == "frames have 8193 dimensions, and the kernels hold 1 to 8192."
    assert reason(8, 17) == "there are 17 columns, and the kernels hold at most 16."
    assert reason(5000, 5) == "there are 5 columns of 5000 dimensions, and at this size the kernels hold at most 4."
