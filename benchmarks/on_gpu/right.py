"""Values and every gradient against float64, one utterance at a time.

The rule: an error, relative to the float64 result, of at most twice that of plain PyTorch on the same inputs in the
same dtype, or of four roundings of float32 where plain PyTorch happens to be nearly exact. Each call is made twice, and
must give the same bits; padding is never read.
"""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import cases
from framealign.functional import frame_stats, lengths_to_mask
from framealign.kernels import frame_stats as path
from framealign.kernels import operator
from on_gpu.options import Options
from on_gpu.rehearsal import interpret_kernels
from on_gpu.workers import share_out

Tensors = dict[str, Tensor]
SHAPES = [
    (1, 1, 1), (2, 3, 7), (3, 37, 65), (8, 150, 768), (5, 64, 767), (32, 500, 64), (16, 257, 1024), (3, 40, 2048),
    (64, 1500, 1024),
]  # fmt: skip
DTYPES = ("float32", "bfloat16", "float16")
LAYOUTS = ("no mask", "prefix", "holes", "time first", "misaligned", "packed")
# columns, attention, norms: what EAL, the objective, mean, attentive and CLS pooling ask for, and everything
ASKED = {
    "EAL": (1, "none", True),
    "objective": (5, "none", True),
    "mean": (0, "logits", False),
    "attention": (1, "column", False),
    "all": (6, "column", True),
    "all, logits": (3, "logits", True),
}
ROUNDINGS = 4 * torch.finfo(torch.float32).eps
MASKS = ("ragged", "holes", "an empty utterance", "only one frame")


def measure(options: Options, save: Callable[[dict[str, Any]], None]) -> None:
    results: dict[str, Any] = {"checks": 0, "tasks": 0, "broken": 0, "failures": [], "worst": {}, "not_equal_twice": []}
    save(results)
    tasks = all_tasks(options.tiny)
    results["of_tasks"] = len(tasks)
    save(results)

    def done(task: Any, found: dict[str, Any]) -> None:
        results["tasks"] += 1
        if "error" in found:
            results["failures"].append({"task": task, "what": found["error"]})
        else:
            results["checks"] += found["checks"]
            results["failures"] += [{"task": task, "what": what} for what in found["broken"]]
            results["not_equal_twice"] += [f"{task}: {what}" for what in found["not_equal_twice"]]
            for name, ratio in found["worst"].items():
                results["worst"][name] = max(results["worst"].get(name, 0.0), ratio)
        results["broken"] = len(results["failures"])
        save(results | {"failures": results["failures"][:400]})

    share_out("right", tasks, options, done)
    results["sanitizer"] = {} if options.tiny else sanitize()
    results["broken"] += sum(
        not said.startswith("clean") for said in results["sanitizer"].values() if "not" not in said
    )
    save(results)


def all_tasks(tiny: bool) -> list[list[Any]]:
    """The costly ones first. In a task are shapes that compile to the same kernels, mostly."""
    if tiny:
        operators = [["operator", [2, 5, 7], "float32", layout] for layout in ("holes", "packed")]
        return [*operators, ["module", "EmotionalAttentionLoss", "float32"]]
    operators = [["operator", list(shape), dtype, layout] for shape, dtype, layout in product(SHAPES, DTYPES, LAYOUTS)]
    operators.sort(key=lambda task: -task[1][0] * task[1][1] * task[1][2])
    modules = dict.fromkeys(case.module.__name__ for case in cases.EVERYTHING)
    return [*operators, *(["module", name, dtype] for name, dtype in product(modules, DTYPES))]


def work(task: list[Any], options: Options) -> dict[str, Any]:
    if options.tiny:
        interpret_kernels()
    torch.manual_seed(0)
    kind, what, dtype, *rest = task
    record = Record()
    if kind == "operator":
        check_operator(record, tuple(what), getattr(torch, dtype), rest[0], options)
    else:
        check_module(record, what, getattr(torch, dtype), options)
    return {
        "checks": record.checks, "broken": record.broken, "not_equal_twice": record.not_equal_twice,
        "worst": dict(record.worst),
    }  # fmt: skip


class Record:
    """What the checks of a task found."""

    def __init__(self) -> None:
        self.checks, self.broken = 0, list[str]()
        self.not_equal_twice, self.worst = list[str](), Counter[str]()

    def check(self, name: str, holds: bool, what: str) -> None:
        self.checks += 1
        if not holds:
            self.broken.append(f"{name}: {what}")

    def twice(self, name: str, one: Tensors, other: Tensors) -> None:
        self.checks += 1
        different = [key for key in one if not torch.equal(bits(one[key]), bits(other[key]))]
        if different:
            self.not_equal_twice.append(f"{name}: {', '.join(different)}")

    def compare(self, name: str, found: Tensors, plain: Tensors, exact: Tensors, gains: float) -> None:
        """`gains` is the scale of a gradient that is a difference: what a softmax takes its mean from."""
        for key, reference in exact.items():
            if reference.numel() == 0:
                continue
            scale = max(norm(reference), gains if key == "g_logits" else 0.0, 1e-30)
            error, allowed = (norm(value.double() - reference) / scale for value in (found[key], plain[key]))
            limit = max(2 * allowed, ROUNDINGS)
            self.worst[f"{name.split(',')[0]} {key}"] = max(self.worst[f"{name.split(',')[0]} {key}"], error / limit)
            self.check(f"{name}, {key}", error <= limit, f"error {error:.1e}, of plain PyTorch {allowed:.1e}")


def bits(tensor: Tensor) -> Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


# The operator ---------------------------------------------------------------------------------------------------


def check_operator(
    record: Record, shape: tuple[int, int, int], dtype: torch.dtype, layout: str, options: Options
) -> None:
    batch, time, dim = shape
    few = options.tiny or batch * time * dim > 5e7
    for asked in ("EAL", "mean", "all") if few else ASKED:
        columns, attention, norms = ASKED[asked]
        inputs, mask, cu_seqlens = make(shape, dtype, layout, columns, attention, options.device)
        call = {"mask": mask, "cu_seqlens": cu_seqlens, "attend": attention != "none", "norms": norms}
        exact, gains = by_hand(inputs, **call)
        with plain_path():
            plain = outcome(inputs, **call)
        has_kernel = operator.why_not_triton(inputs["frames"], inputs["columns"]) is None
        for backend in ("auto", "eager", "triton") if has_kernel else ("auto", "eager"):
            name = f"{backend}, {asked}, {layout}"
            found = outcome(inputs, **call, backend=backend)
            record.compare(name, found, plain, exact, gains)
            record.twice(name, found, outcome(inputs, **call, backend=backend))
            if mask is not None:
                spoilt = {key: spoil(value, mask, key) for key, value in inputs.items()}
                other = outcome(spoilt, **call, backend=backend)
                same = all(torch.equal(bits(found[key]), bits(other[key])) for key in found)
                record.check(name, same, "what stands in the padding changed a result")
                zero = not found["g_frames"][~mask].any() and not found["dots"][~mask].any()
                record.check(name, bool(zero), "padding has a gradient or a dot product")


def make(
    shape: tuple[int, int, int], dtype: torch.dtype, layout: str, columns: int, attention: str, device: torch.device
) -> tuple[Tensors, Tensor | None, Tensor | None]:
    batch, time, dim = shape
    frames = torch.randn(batch, time, dim, device=device).to(dtype)
    lengths = torch.randint(1, time + 1, (batch,), device=device)
    if batch > 2:
        lengths[1] = 0  # an utterance without frames
    mask = None if layout == "no mask" else lengths_to_mask(lengths, time)
    if layout in ("holes", "misaligned"):
        mask = (torch.rand(batch, time, device=device) < 0.7) & (lengths > 0)[:, None]
    if layout == "time first":
        frames = frames.transpose(0, 1).contiguous().transpose(0, 1)
    elif layout == "misaligned":
        storage = torch.zeros(batch, time, dim + 1, dtype=dtype, device=device)
        storage[..., 1:] = frames
        frames = storage[..., 1:]
    cu_seqlens, leading = None, (batch, time)
    if layout == "packed":
        frames, leading = frames[mask], (int(lengths.sum()),)
        cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
        mask = None
    inputs = {"frames": frames, "columns": torch.randn(batch, columns, dim, device=device) / dim**0.5}
    if attention == "logits":
        inputs["logits"] = torch.randn(leading, device=device)
    return inputs, mask, cu_seqlens


def outcome(inputs: Tensors, *, attend: bool, norms: bool, **call: Any) -> Tensors:
    """What the operator gives, and the gradients of a fixed projection of it."""
    leaves = {name: value.detach().requires_grad_() for name, value in inputs.items()}
    stats = frame_stats(
        leaves["frames"], leaves["columns"], logits=leaves.get("logits"), attend=attend, norms=norms, **call
    )
    return with_gradients({key: value for key, value in stats._asdict().items() if value is not None}, leaves)


def with_gradients(outputs: Tensors, leaves: Tensors) -> Tensors:
    joined = [value for value in outputs.values() if value.requires_grad]
    directions = [direction(value) for value in joined]
    found = torch.autograd.grad(joined, list(leaves.values()), directions, allow_unused=True, materialize_grads=True)
    gradients = {f"g_{name}": value for name, value in zip(leaves, found, strict=True)}
    return {name: value.detach() for name, value in outputs.items()} | gradients


def direction(value: Tensor) -> Tensor:
    """The same numbers whatever the dtype."""
    steps = torch.arange(value.numel(), device=value.device, dtype=torch.float64)
    return (steps * 0.7).sin().view(value.shape).to(value.dtype)


def by_hand(
    inputs: Tensors, *, mask: Tensor | None, cu_seqlens: Tensor | None, attend: bool, norms: bool
) -> tuple[Tensors, float]:
    """In float64, one utterance at a time, cut to its real frames; and the norm of what the weights gain."""
    leaves = {name: value.detach().double().requires_grad_() for name, value in inputs.items()}
    frames, columns = leaves["frames"], leaves["columns"]
    leading, count, dim = frames.shape[:-1], columns.shape[1], frames.shape[-1]
    places = list(utterances(columns.shape[0], mask, cu_seqlens))
    outputs = {"dots": frames.new_zeros(*leading, count)}
    if norms:
        outputs["norms"] = frames.new_zeros(leading)
    if attend:
        outputs |= {"weights": frames.new_zeros(leading), "pooled": frames.new_zeros(len(places), dim)}
    directions = {name: direction(value) for name, value in outputs.items()}
    gradients = {name: torch.zeros_like(value) for name, value in leaves.items()}
    gains = 0.0
    for i, place in enumerate(places):
        z = frames[place].detach().requires_grad_()
        if z.shape[0] == 0:
            continue
        own = {"frames": z, "columns": columns[i].detach().requires_grad_()}
        found = {"dots": z @ own["columns"].T}
        if norms:
            found["norms"] = (z * z).sum(1).sqrt()
        if attend:
            if "logits" in leaves:
                e = own["logits"] = leaves["logits"][place].detach().requires_grad_()
            else:
                e = found["dots"][:, -1]
            found["weights"] = e.softmax(0)
            found["pooled"] = found["weights"] @ z
            gain = directions["weights"][place] + z.detach() @ directions["pooled"][i]
            gains += norm(found["weights"].detach() * gain) ** 2
        total = z.new_zeros(())
        for name, value in found.items():
            where = i if name == "pooled" else place
            outputs[name][where] = value.detach()
            total = total + (value * directions[name][where]).sum()
        grads = torch.autograd.grad(total, list(own.values()), allow_unused=True, materialize_grads=True)
        for name, gradient in zip(own, grads, strict=True):
            gradients[name][i if name == "columns" else place] = gradient
    return outputs | {f"g_{name}": value for name, value in gradients.items()}, gains**0.5


def utterances(batch: int, mask: Tensor | None, cu_seqlens: Tensor | None) -> Iterator[Any]:
    if cu_seqlens is not None:
        ends = cu_seqlens.tolist()
        yield from (slice(ends[i], ends[i + 1]) for i in range(batch))
    elif mask is None:
        yield from range(batch)
    else:
        yield from ((i, mask[i].nonzero()[:, 0]) for i in range(batch))


def spoil(value: Tensor, mask: Tensor, name: str) -> Tensor:
    """nan in the padding of one half of the batch, inf in that of the other."""
    if name == "columns":
        return value
    junk = torch.full_like(value, torch.nan)
    junk[::2] = torch.inf
    spoilt = torch.where(mask.reshape(*mask.shape, *(1,) * (value.ndim - 2)), value, junk)
    # as the other lies in memory, misaligned too: kernels sum in another order where they read in other widths
    offset, extent = value.storage_offset(), value.untyped_storage().nbytes() // value.element_size()
    storage = torch.zeros(extent, dtype=value.dtype, device=value.device)
    return storage.as_strided(value.shape, value.stride(), offset).copy_(spoilt)


@contextmanager
def plain_path() -> Iterator[None]:
    """The definition, which PyTorch differentiates: what is called plain PyTorch here."""
    decide = path._needs_definition
    path._needs_definition = lambda *_: True
    try:
        yield
    finally:
        path._needs_definition = decide


# The modules, on the test suite's cases and against its oracle ----------------------------------------------------


def check_module(record: Record, name: str, dtype: torch.dtype, options: Options) -> None:
    for case in (case for case in cases.EVERYTHING if case.module.__name__ == name):
        for pattern in MASKS[:1] if options.tiny else MASKS:
            mask, label = cases.MASKS[pattern], f"{case}, {pattern}"
            reference, module = case.build(), case.build(dtype)
            with torch.no_grad():
                for exact, used in zip(reference.parameters(), module.parameters(), strict=True):
                    exact.copy_(used)  # as it was rounded
            inputs = cases.make_inputs(case, mask, dtype)
            exact_inputs = {key: raised(value) for key, value in inputs.items()}
            expected = cases.oracle(case, reference, exact_inputs, mask)
            expected |= gradients(expected, reference, exact_inputs)

            module, there = module.to(options.device), mask.to(options.device)
            on_card = {key: moved(value, options.device) for key, value in inputs.items()}
            with plain_path():
                plain = on_host(module, on_card, there)
            found = on_host(module, on_card, there)
            for key, wanted in expected.items():
                limit = max(2 * norm(plain[key] - wanted), 4 * torch.finfo(dtype).eps * max(1.0, norm(wanted)))
                error = norm(found[key] - wanted)
                record.check(f"{label}, {key}", error <= limit, f"error {error:.1e}, allowed {limit:.1e}")
            record.twice(label, found, on_host(module, on_card, there))
            of_frames = cases.frame_inputs(inputs)
            spoilt = {
                key: spoil(value.detach(), there, key).requires_grad_() if key in of_frames else value
                for key, value in on_card.items()
            }
            other = on_host(module, spoilt, there)
            same = all(torch.equal(bits(found[key]), bits(other[key])) for key in found)
            record.check(label, same, "what stands in the padding changed a result")
            packed, cu_seqlens = cases.pack_inputs(on_card, there)
            for key, value in cases.run(module, packed, None, cu_seqlens).items():
                wanted = expected[key] if value.shape == expected[key].shape else expected[key][mask]
                limit = max(2 * norm(plain[key] - expected[key]), 4 * torch.finfo(dtype).eps * max(1.0, norm(wanted)))
                error = norm(value.detach().cpu() - wanted)
                record.check(f"{label}, packed, {key}", error <= limit, f"error {error:.1e}, allowed {limit:.1e}")


def on_host(module: torch.nn.Module, inputs: Tensors, mask: Tensor) -> Tensors:
    outputs = cases.run(module, inputs, mask)
    found = outputs | gradients(outputs, module, inputs)
    return {key: value.detach().cpu() for key, value in found.items()}


def gradients(outputs: Tensors, module: torch.nn.Module, inputs: Tensors) -> Tensors:
    """Of a fixed projection of the outputs."""
    leaves = {key: value for key, value in inputs.items() if value.requires_grad} | dict(module.named_parameters())
    total = sum((value * direction(value)).sum() for value in outputs.values())
    if not isinstance(total, Tensor) or not total.requires_grad:
        return {}
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return {f"gradient of {name}": value for name, value in zip(leaves, found, strict=True)}


def norm(value: Tensor) -> float:
    found = float(value.detach().double().norm())
    return found if found == found else float("inf")


def raised(value: Tensor) -> Tensor:
    return value.detach().double().requires_grad_(value.requires_grad) if value.is_floating_point() else value


def moved(value: Tensor, device: torch.device) -> Tensor:
    return value.detach().to(device).requires_grad_(value.is_floating_point())


# compute-sanitizer ------------------------------------------------------------------------------------------------

SANITIZED = """
import torch
from on_gpu import right
from on_gpu.options import Options
for layout in ("holes", "packed", "misaligned"):
    right.work(["operator", [2, 37, 65], "float32", layout], Options(torch.device("cuda"), False, 0.0))
"""


def sanitize() -> dict[str, str]:
    """A small set under memcheck and racecheck, at the same time."""
    program = shutil.which("compute-sanitizer")
    if program is None:
        return {"compute-sanitizer": "not run: the program is not installed"}
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    running = {
        tool: subprocess.Popen(
            [program, "--tool", tool, "--kernel-name", "regex:.*_kernel", "--error-exitcode", "9", sys.executable,
             "-c", SANITIZED],
            env=environment, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for tool in ("memcheck", "racecheck")
    }  # fmt: skip
    said = {}
    for tool, process in running.items():
        try:
            text, _ = process.communicate(timeout=60)
            summary = [line for line in text.splitlines() if "SUMMARY" in line]
            last = (summary or text.strip().splitlines() or ["nothing"])[-1].strip("= ")
            said[tool] = f"{'clean' if process.returncode == 0 else f'exit {process.returncode}'}: {last[:200]}"
        except subprocess.TimeoutExpired:
            process.kill()
            said[tool] = "not finished in 60 s"
    return said


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{results['checks']} checks in {results['tasks']} of {results.get('of_tasks', '?')} tasks, "
        f"{results['broken']} broken."
    ]
    lines += [f"- {failure['task']}: {failure['what']}" for failure in results["failures"][:20]]
    twice = results["not_equal_twice"]
    lines.append(
        f"Called twice, not the same bits: {len(twice)} calls" + (": " + "; ".join(twice[:6]) if twice else "") + "."
    )
    if results["worst"]:
        worst = sorted(results["worst"].items(), key=lambda pair: -pair[1])[:8]
        lines.append("Largest errors, of what the rule allows: " + ", ".join(f"{k} {v:.2f}" for k, v in worst) + ".")
    lines += [f"compute-sanitizer, {tool}: {said}" for tool, said in results.get("sanitizer", {}).items()]
    return "\n".join(lines)
