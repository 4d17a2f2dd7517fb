"""The losses and poolings against hand-written code, eager and compiled, and against the measured bandwidth.

Every variant is compiled first, by several processes at once. Then one process after the other measures, alone.
"""

import gc
import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

import framealign
import handwritten
from common import peak_bytes, relative_error
from framealign import functional as F
from on_gpu.machine import copy_bandwidth
from on_gpu.options import Options
from on_gpu.rehearsal import interpret_kernels
from on_gpu.timing import call_milliseconds, card_milliseconds
from on_gpu.workers import compile_then_measure
from shapes import GROUPS, Batch, make_batch

SHAPES = {shape.name: shape for shape in GROUPS["shapes"]}
TINY = {shape.name: shape for shape in GROUPS["quick"][:1]}
DTYPES = ("bfloat16", "float32")
DIRECTIONS = ("forward", "forward + backward")
AUTOTUNED = ("base", "large")  # where max-autotune is compiled too, last and in a row of its own: it takes minutes
MAX_AUTOTUNE = "max-autotune-no-cudagraphs"
# relative distance of a result from the hand-written one: frames in bf16 go through it in bf16
TOLERANCES = {"bfloat16": 5e-2, "float32": 1e-4}


Function = Callable[..., Tensor]


class Operation(NamedTuple):
    """By hand and ours, functions of the same tensors, the frames first."""

    by_hand: Function
    ours: Function
    tensors: tuple[Tensor, ...]
    mask: Tensor
    seed: Tensor | None = None  # the gradient that arrives at an output that is no scalar


def operation(name: str, batch: Batch) -> Operation:
    mask, labels, frames = batch.mask, batch.labels, batch.frames
    if name == "EAL":
        return Operation(
            lambda frames, anchor: handwritten.emotional_attention_loss(frames, anchor, mask),
            lambda frames, anchor: F.emotional_attention_loss(frames, anchor, mask),
            (frames, batch.anchor),
            mask,
        )
    if name == "objective":
        return Operation(
            lambda *tensors: handwritten.alignment_objective(*tensors, labels, mask),
            lambda frames, anchor, *linear: F.alignment_objective(frames, anchor, labels, *linear, mask).loss,
            (frames, batch.anchor, batch.weight, batch.bias),
            mask,
        )
    seed = torch.linspace(-1, 1, batch.anchor.numel(), device=frames.device).view(batch.anchor.shape).to(frames.dtype)
    if name == "mean pooling":
        mean = framealign.MeanPooling()
        return Operation(
            lambda frames: handwritten.mean_pooling(frames, mask),
            lambda frames: mean.embed(frames, mask),
            (frames,),
            mask,
            seed,
        )
    attention = framealign.AttentivePooling(frames.shape[2], hidden_dim=None).to(frames.device, frames.dtype)
    score = attention.scorer.score.weight
    return Operation(
        lambda frames, score: handwritten.attentive_pooling(frames, score, mask),
        lambda frames, score: attention.embed(frames, mask),
        (frames, score),
        mask,
        seed,
    )


OPERATIONS = ("objective", "EAL", "attentive pooling", "mean pooling")


def variants(task: Sequence[str], options: Options) -> dict[str, tuple[Operation, dict[str, Function]]]:
    """By direction: torch keeps what it compiled with gradients and without apart."""
    name, shape, dtype, *autotuned = task
    batch = make_batch((TINY if options.tiny else SHAPES)[shape], options.device, getattr(torch, dtype))
    op = operation(name, batch)
    found: dict[str, Function] = {"hand-written": op.by_hand, "ours": op.ours}
    if autotuned:
        del found["ours"]
        found["hand-written, " + MAX_AUTOTUNE] = torch.compile(op.by_hand, dynamic=False, mode=MAX_AUTOTUNE)
        return {DIRECTIONS[1]: (op, found)}
    if not options.tiny:
        found["hand-written, compiled"] = torch.compile(op.by_hand, dynamic=False)
        found["ours, compiled"] = torch.compile(op.ours, dynamic=False)
    return {direction: (op, dict(found)) for direction in DIRECTIONS}


def runner(op: Operation, function: Function, direction: str) -> Callable[[], tuple[Tensor, ...]]:
    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return (function(*op.tensors),)

    def forward_backward() -> tuple[Tensor, ...]:
        output = function(*op.tensors)
        return output.detach(), *torch.autograd.grad(output, op.tensors, op.seed)

    return forward if direction == "forward" else forward_backward


# In a worker ------------------------------------------------------------------------------------------------------

prepared: dict[str, dict[str, tuple[Operation, dict[str, Function]]]] = {}


def work(message: list[Any], options: Options) -> dict[str, Any]:
    if options.tiny:
        interpret_kernels()
    torch._dynamo.config.cache_size_limit = 1000
    kind, task, argument = message
    key = json.dumps(task)
    if kind == "prepare":
        return prepare(key, task, argument, options)
    return measured(key, task, argument, options)


def prepare(key: str, task: Sequence[str], seconds: float, options: Options) -> dict[str, Any]:
    """Compile all variants, and compare their results."""
    began, errors, missing = time.monotonic(), {}, {}
    both = variants(task, options)
    for direction, (op, functions) in both.items():
        expected = None
        for name, function in list(functions.items()):
            if time.monotonic() - began > seconds:
                missing[f"{direction}, {name}"] = "not compiled in time"
                del functions[name]
                continue
            try:
                results = runner(op, function, direction)()
            except Exception as error:  # a compiler that fails is that variant's result
                missing[f"{direction}, {name}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                del functions[name]
                continue
            expected = results if expected is None else expected
            error = max(relative_error(a, b) for a, b in zip(results, expected, strict=True))
            errors[f"{direction}, {name}"] = error
            if not error <= TOLERANCES[task[2]]:
                missing[f"{direction}, {name}"] = f"{error:.1e} from the hand-written result"
    prepared[key] = both
    gc.collect()
    return {"seconds": time.monotonic() - began, "errors": errors, "missing": missing}


def measured(key: str, task: Sequence[str], copy_bytes_per_s: float, options: Options) -> dict[str, Any]:
    rows = []
    for direction, (op, functions) in prepared.pop(key).items():
        frames = op.tensors[0]
        real = float(op.mask.float().mean())
        size = frames.numel() * frames.element_size()
        moved = size * (real if direction == "forward" else 2 * real + 1)
        row: dict[str, Any] = {
            "op": task[0], "shape_name": task[1], "dtype": task[2], "shape": list(frames.shape), "real": real,
            "direction": direction, "frames_bytes": size, "least_bytes": moved,
            "least_ms": 1e3 * moved / copy_bytes_per_s, "variants": {},
        }  # fmt: skip
        for name, function in functions.items():
            run = runner(op, function, direction)
            card = card_milliseconds(run, options.device)
            calls = max(3, min(50, int(30 / card))) if not options.tiny else 1
            row["variants"][name] = {
                "card_ms": card,
                "call_ms": call_milliseconds(run, options.device, calls),
                "peak_bytes": peak_bytes(run, options.device),
            }
        if options.device.type == "cuda" and task[1] in ("base", "large"):
            row["profile"] = {
                name: profile(runner(op, functions[name], direction)) for name in functions if "ours" in name
            }
        rows.append(row)
    gc.collect()
    if options.device.type == "cuda":
        torch.cuda.empty_cache()
    return {"rows": rows}


def profile(run: Callable[[], object], calls: int = 3) -> list[dict[str, Any]]:
    """What a call launches, by the time it takes on the card."""
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        for _ in range(calls):
            run()
        torch.cuda.synchronize()
    kernels = [event for event in found.key_averages() if event.self_device_time_total > 0]
    kernels.sort(key=lambda event: -event.self_device_time_total)
    return [
        {"kernel": event.key[:90], "us": event.self_device_time_total / calls, "launches": event.count / calls}
        for event in kernels[:24]
    ]


# In the part's own process ----------------------------------------------------------------------------------------


def measure(options: Options, save: Callable[[dict[str, Any]], None]) -> None:
    end = time.monotonic() + options.seconds
    results: dict[str, Any] = {"copy_bytes_per_s": copy_bandwidth(options), "rows": [], "missing": {}, "broken": 0}
    save(results)

    def done(task: Any, found: dict[str, Any], stage: str) -> None:
        if "error" in found:
            results["missing"][f"{task}"] = found["error"]
        if stage == "prepare":
            results["missing"] |= {f"{task}: {name}": why for name, why in found.get("missing", {}).items()}
        results["rows"] += found.get("rows", [])
        save(results)

    tasks, bandwidth = all_tasks(options.tiny), results["copy_bytes_per_s"]
    compile_then_measure("fast", tasks, bandwidth, options, end - 5, done)


def all_tasks(tiny: bool) -> list[list[str]]:
    if tiny:
        return [["EAL", "quick", "float32"], ["mean pooling", "quick", "bfloat16"]]
    order = ("large", "base", "iemocap", "small", "narrow")
    tasks = [[op, shape, dtype] for op in OPERATIONS for shape in order for dtype in DTYPES]
    autotuned = [
        [op, shape, dtype, "autotuned"] for op, shape, dtype in tasks if op in OPERATIONS[:2] and shape in AUTOTUNED
    ]
    return tasks + autotuned


def table(results: dict[str, Any]) -> str:
    names = ["hand-written", "hand-written, compiled", "hand-written, " + MAX_AUTOTUNE, "ours", "ours, compiled"]
    header = ["", "frames", "dtype", "", "bandwidth allows"]
    header += [f"{name}, on the card (called)" for name in names]
    header += ["of the bandwidth", "hand-written / ours", "compiled / ours", "called", "peak, ours / hand-written"]
    lines = [header, ["---"] * len(header)]
    for row in results["rows"]:
        found = row["variants"]
        cells = [row["op"], str(tuple(row["shape"])), row["dtype"], row["direction"], f"{1e3 * row['least_ms']:.1f} µs"]
        cells += [pair(found[name]) if name in found else "" for name in names]
        lines.append([*cells, *ratios(row)])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    notes = [
        f"Times in µs: on the card alone (a CUDA graph, replayed with a cold L2), and of a call from Python. Copy: "
        f"{results['copy_bytes_per_s'] / 1e9:.0f} GB/s. Of the bandwidth: ours, the better of eager and compiled."
    ]
    if results["missing"]:
        notes.append("Not there: " + "; ".join(f"{name}: {why}" for name, why in results["missing"].items()) + ".")
    return "\n\n".join([*notes, text])


def pair(variant: dict[str, Any]) -> str:
    return f"{1e3 * variant['card_ms']:.0f} ({1e3 * variant['call_ms']:.0f})"


def ratios(row: dict[str, Any]) -> list[str]:
    found = row["variants"]
    ours = [found[name] for name in ("ours", "ours, compiled") if name in found]
    by_hand = found.get("hand-written")
    compiled = [value for name, value in found.items() if name.startswith("hand-written, ")]
    if not ours or by_hand is None:
        return [""] * 5
    best = {kind: min(value[kind] for value in ours) for kind in ("card_ms", "call_ms")}
    faster = {kind: min((value[kind] for value in compiled), default=math.nan) for kind in best}
    peaks = [value["peak_bytes"] for value in (ours[0], by_hand)]
    called = f"{by_hand['call_ms'] / best['call_ms']:.2f}, {faster['call_ms'] / best['call_ms']:.2f}"
    memory = " / ".join(f"{peak / row['frames_bytes']:.2f}" for peak in peaks)
    return [
        f"{row['least_ms'] / best['card_ms']:.0%}",
        f"{by_hand['card_ms'] / best['card_ms']:.2f}",
        f"{faster['card_ms'] / best['card_ms']:.2f}",
        called,
        memory,
    ]
