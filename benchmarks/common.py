"""Timing, peak memory, and the record of a run: what the benchmark scripts share.

A script gives `run_benchmarks` its operations, each a function from a batch to rows. A row is one operation in one
direction; its variants are first compared with the first of them, then timed in turns. Each process has one
allocator, because glibc reads its settings once, when it starts.
"""

import argparse
import gc
import json
import math
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

import framealign
import peers
import tables
from shapes import GROUPS, Batch, Shape, make_batch

# Blocks of 32 MiB and more, glibc asks the kernel for and gives back at once: every page of every new tensor is then
# a page fault. "reused" keeps them.
ALLOCATORS = {
    "default": {},
    "reused": {
        "MALLOC_MMAP_THRESHOLD_": str(8 * 2**30),
        "MALLOC_TRIM_THRESHOLD_": str(16 * 2**30),
        "MALLOC_TOP_PAD_": str(256 * 2**20),
    },
}
DIRECTIONS = ("forward", "forward + backward")
SWEEPS = ("frames", "padding")
TOLERANCE = 1e-4  # relative distance in float32

Role = Literal["hand-written", "compiled", "ours", "peer"]
Tensors = tuple[Tensor, ...]


def unchanged(results: Tensors) -> Tensors:
    return results


class Candidate(NamedTuple):
    """A function that can be timed in both directions.

    `seed` is the gradient that arrives at an output that is no scalar. `arrange` brings the value and the gradients
    into the form of the first candidate's, to be compared. With `tolerance` None the function computes something else.
    """

    name: str
    role: Role
    function: Callable[..., Tensor]
    tensors: Tensors
    seed: Tensor | None = None
    arrange: Callable[[Tensors], Tensors] = unchanged
    tolerance: float | None = TOLERANCE


class Variant(NamedTuple):
    name: str
    role: Role
    run: Callable[[], Tensors]
    arrange: Callable[[Tensors], Tensors] = unchanged
    tolerance: float | None = TOLERANCE


class Row(NamedTuple):
    op: str
    direction: str
    variants: list[Variant]


def in_directions(op: str, candidates: list[Candidate], directions: Iterable[str] = DIRECTIONS) -> Iterator[Row]:
    for direction in directions:
        run = _forward if direction == "forward" else _forward_backward
        yield Row(op, direction, [Variant(c.name, c.role, partial(run, c), c.arrange, c.tolerance) for c in candidates])


@torch.no_grad()
def _forward(candidate: Candidate) -> Tensors:
    return (candidate.function(*candidate.tensors),)


def _forward_backward(candidate: Candidate) -> Tensors:
    output = candidate.function(*candidate.tensors)
    return output.detach(), *torch.autograd.grad(output, candidate.tensors, candidate.seed)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=False)


def measure(row: Row, seconds: float, least_rounds: int, device: torch.device) -> dict[str, Any]:
    errors = check(row)
    gc.collect()
    gc.disable()
    times: dict[str, list[float]] = {variant.name: [] for variant in row.variants}
    stop, rounds, shuffled = time.perf_counter() + seconds, 0, random.Random(0)
    while rounds < least_rounds or (time.perf_counter() < stop and rounds < 200):
        # In another order each time: what a variant leaves in the cache and in the heap is worth a quarter to the next
        for variant in shuffled.sample(row.variants, len(row.variants)):
            times[variant.name].append(milliseconds(variant.run, device))
        rounds += 1
    gc.enable()
    return {
        "op": row.op,
        "direction": row.direction,
        "rounds": rounds,
        "variants": {
            variant.name: {
                "role": variant.role,
                "median_ms": statistics.median(times[variant.name]),
                "quartiles_ms": statistics.quantiles(times[variant.name], n=4)[::2],
                "peak_bytes": peak_bytes(variant.run, device),
                "relative_error": errors[variant.name],
            }
            for variant in row.variants
        },
    }


def check(row: Row) -> dict[str, float | None]:
    """Compare values and gradients with those of the first variant; this is the warm-up, too."""
    expected: Tensors | None = None
    errors: dict[str, float | None] = {}
    for variant in row.variants:
        found, errors[variant.name] = variant.arrange(variant.run()), None
        if expected is None:
            expected = found
        elif variant.tolerance is not None:
            error = max(relative_error(a, b) for a, b in zip(found, expected, strict=True))
            if not error <= variant.tolerance:
                raise SystemExit(
                    f"{row.op}, {row.direction}: {variant.name} is {error:.1e} from {row.variants[0].name}, "
                    f"more than {variant.tolerance:.0e}; nothing is timed before they agree."
                )
            errors[variant.name] = error
        del found
    for variant in row.variants:
        variant.run()
    return errors


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Infinite for nan, which a maximum of errors would pass over."""
    found, expected = found.detach().float().flatten(), expected.detach().float().flatten()
    error = float((found - expected).norm() / expected.norm())
    return error if error == error else math.inf


def milliseconds(run: Callable[[], Tensors], device: torch.device) -> float:
    """What `run` returns is freed after the clock has stopped."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        results = run()
        end.record()
        end.synchronize()
        elapsed = start.elapsed_time(end)
    else:
        began = time.perf_counter()
        results = run()
        elapsed = 1e3 * (time.perf_counter() - began)
    del results
    return elapsed


def peak_bytes(run: Callable[[], Tensors], device: torch.device) -> int:
    """The most memory that tensors take at once, beyond those that are there before; results count.

    On the CPU it is the sum over what PyTorch's allocator reports to the profiler: the same with every malloc, which
    the size of the process is not, since a malloc may keep what was freed.
    """
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        results = run()
        torch.cuda.synchronize()
        del results
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        results = run()
    del results
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profile.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    live = peak = 0
    for event in sorted((event for event in events if event.get("name") == "[memory]"), key=lambda event: event["ts"]):
        live += event["args"]["Bytes"]
        peak = max(peak, live)
    return peak


def copy_milliseconds(frames: Tensor, device: torch.device) -> float:
    """One copy of the frames into memory that is already there: what the bandwidth alone would cost."""
    source = frames.detach()
    target = source.clone()
    return statistics.median(milliseconds(lambda: (target.copy_(source),), device) for _ in range(21))


class Options(NamedTuple):
    """What a script needs to know: the device, and whether to compile."""

    device: torch.device
    compile: bool


Operations = dict[str, Callable[[Batch, Options], Iterator[Row]]]


def run_benchmarks(operations: Operations, description: str, swept: tuple[str, ...] = ()) -> None:
    """Measure the operations; over frames and padding, only those that are `swept`."""
    arguments = _parse(description, tuple(operations))
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.child:
        _child(arguments, operations)
        return
    device = torch.device(arguments.device)
    results: dict[str, Any] = {"about": about(device), "rows": []}
    for group, shapes, ops in _jobs(arguments, swept):
        for allocator in ["caching"] if device.type == "cuda" else arguments.allocators:
            environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
            environment |= ALLOCATORS.get(allocator, {}) | {"KINETO_LOG_LEVEL": "99"}  # the profiler says nothing
            with tempfile.TemporaryDirectory() as folder:
                found = Path(folder) / "rows.json"
                child = json.dumps([group, shapes, ops, allocator, str(found)])
                subprocess.run([sys.executable, *sys.argv, "--child", child], env=environment, check=True)
                results["rows"] += json.loads(found.read_text())
            arguments.out.parent.mkdir(parents=True, exist_ok=True)
            arguments.out.write_text(json.dumps(results, indent=1) + "\n")  # kept, should a later process fail
    print(tables.tables(results))


def _jobs(arguments: argparse.Namespace, swept: tuple[str, ...]) -> Iterator[tuple[str, list[str], list[str]]]:
    """What each process measures: a group, and of it shapes and operations."""
    for group in arguments.groups:
        shapes = [shape.name for shape in GROUPS[group] if not arguments.shapes or shape.name in arguments.shapes]
        ops = [op for op in arguments.ops if group not in SWEEPS or op in swept]
        if group == "shapes":  # one by one: a heap that has seen other operations and sizes is another heap
            yield from ((group, [shape], [op]) for shape in shapes for op in ops)
        elif shapes and ops:
            yield group, shapes, ops


def _child(arguments: argparse.Namespace, operations: Operations) -> None:
    group, shapes, ops, allocator, path = json.loads(arguments.child)
    options = Options(torch.device(arguments.device), arguments.compile)
    found = []
    for shape in GROUPS[group]:
        if shape.name not in shapes:
            continue
        torch.manual_seed(0)
        batch = make_batch(shape, options.device)
        where = _describe(group, shape, allocator, batch, options)
        for row in (row for op in ops for row in operations[op](batch, options)):
            if group in SWEEPS and row.direction == "forward":
                continue
            print(f"{shape.name}, {allocator}: {row.op}, {row.direction}", file=sys.stderr, flush=True)
            torch.compiler.reset()
            least_rounds = 3 if batch.frames.numel() > 10**8 or group == "quick" else 7
            found.append(where | measure(row, arguments.seconds, least_rounds, options.device))
    Path(path).write_text(json.dumps(found))


def _describe(group: str, shape: Shape, allocator: str, batch: Batch, options: Options) -> dict[str, Any]:
    return {
        "group": group,
        "shape_name": shape.name,
        "shape": list(batch.frames.shape),
        "valid": batch.mask.float().mean().item(),
        "allocator": allocator,
        "frames_bytes": batch.frames.numel() * batch.frames.element_size(),
        "copy_ms": copy_milliseconds(batch.frames, options.device),
    }


def about(device: torch.device) -> dict[str, Any]:
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu_name(),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],  # before the run; well above 0, someone else was using the machine
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "framealign": framealign.__version__,
        "commit": _commit(),
        "peers": peers.versions(),
        "python": platform.python_version(),
        "libc": " ".join(platform.libc_ver()),
        "preload": os.environ.get("LD_PRELOAD"),  # another malloc than glibc's
        "allocators": ALLOCATORS,
    }


def _cpu_name() -> str:
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return f"{line.partition(':')[2].strip()}, {os.cpu_count()} cores"
    return platform.processor() or platform.machine()


def _commit() -> str:
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        changes = subprocess.run(
            [*git, "diff", "--quiet", "HEAD", "--", "../src", "../examples", ".", ":!results"], check=False
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit.stdout.strip() + (" with changes" if changes.returncode else "")


def _parse(description: str, ops: tuple[str, ...]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--groups", nargs="+", choices=tuple(GROUPS), default=[*SWEEPS, "shapes"])
    parser.add_argument("--shapes", nargs="+", metavar="NAME", help="only these, by their names in shapes.py")
    parser.add_argument("--ops", nargs="+", choices=ops, default=ops, help="only these")
    parser.add_argument("--allocators", nargs="+", choices=tuple(ALLOCATORS), help="on the CPU (default: both)")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=None, help="torch.compile, too")
    parser.add_argument("--seconds", type=float, default=None, help="to spend on each row (default 5)")
    parser.add_argument("--threads", type=int, help="default is PyTorch's choice")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, a few rounds: does everything run?")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.groups = ["quick"]
        arguments.threads = arguments.threads or 1  # two that wait for a busy core would not be quick
    if arguments.allocators is None:
        arguments.allocators = ["reused"] if arguments.quick else list(ALLOCATORS)
    if arguments.compile is None:
        arguments.compile = not arguments.quick
    if arguments.seconds is None:
        arguments.seconds = 0.0 if arguments.quick else 5.0
    return arguments
