"""How the kernels over the frames are launched: every choice timed.

python benchmarks/on_gpu/tune.py FOLDER/tune.json writes the best into src/framealign/kernels/measured_launches.py.
"""

import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1]))

from framealign.functional import lengths_to_mask
from framealign.kernels import triton_frame_stats as kernels
from framealign.kernels.interface import Gradients, Needs, Request, Saved
from framealign.kernels.launches import Launch, Launches, block_of, launches_by_rule
from on_gpu.machine import copy_bandwidth
from on_gpu.options import Options
from on_gpu.timing import card_milliseconds
from on_gpu.workers import compile_then_measure

DTYPES = ("bfloat16", "float32")
# (batch, time, dim): as many bytes as fit no cache
SHAPES = {768: (64, 750, 768), 64: (64, 4000, 64)}
ASKED = {"EAL": (1, False), "objective": (5, False), "attention": (1, True)}
REAL = 0.65


def measure(options: Options, save: Callable[[dict[str, Any]], None]) -> None:
    end = time.monotonic() + options.seconds
    results: dict[str, Any] = {"copy_bytes_per_s": copy_bandwidth(options), "rows": [], "missing": {}}
    save(results)

    def done(task: Any, found: dict[str, Any], stage: str) -> None:
        if "error" in found:
            results["missing"][f"{task}"] = found["error"]
        elif stage == "measure":
            results["rows"].append(found)
        save(results)

    tasks = [
        list(task) for task in product(("objective", "EAL", "attention"), (768, 64), DTYPES, ("backward", "forward"))
    ]
    if options.tiny:
        tasks = [["EAL", 64, "float32", "backward"]]
    compile_then_measure("tune", tasks, results["copy_bytes_per_s"], options, end - 3, done)


def launches(dim: int, columns: int, tiny: bool) -> Iterator[Launch]:
    """Launches whose registers can hold what they keep."""
    block = block_of(dim)
    if tiny:
        yield Launch(8, 4, block, 1, True, 1)
        return
    for warps, tile, hold, stages, chunk in product((1, 2, 4, 8), (1, 2, 4, 8), (True, False), (1, 3), (64, 32, 128)):
        lanes = 32 * warps
        if block // lanes > 32 or (warps > 1 and block < 4 * lanes):
            continue
        if tile * block // lanes > 64 or (hold and columns * block // lanes > 100):
            continue
        if chunk != 64 and (not hold or tile not in (1, 4) or stages == 1):
            continue
        if not hold and (stages > 1 or tile > 4):
            continue
        yield Launch(chunk, tile, block, warps, hold, stages)


prepared: dict[str, list[Launch]] = {}


def work(message: list[Any], options: Options) -> dict[str, Any]:
    kind, task, argument = message
    if kind == "prepare":
        return prepare(task, argument, options)
    return timed(task, argument, options)


def prepare(task: list[Any], seconds: float, options: Options) -> dict[str, Any]:
    """Compile as many as there is time for."""
    asked, dim, dtype, direction = task
    columns, _ = ASKED[asked]
    until, run = time.monotonic() + seconds, problem(task, options)
    found = prepared[json.dumps(task)] = []
    by_the_rule = getattr(launches_by_rule(dim, getattr(torch, dtype).itemsize), direction)
    for launch in (by_the_rule, *launches(dim, columns, options.tiny)):
        if time.monotonic() > until:
            break
        with_launch(run, launch)
        found.append(launch)
    return {"compiled": len(found)}


def timed(task: list[Any], copy_bytes_per_s: float, options: Options) -> dict[str, Any]:
    _, dim, dtype, direction = task
    run, times = problem(task, options), []
    for launch in prepared[json.dumps(task)]:
        milliseconds = card_milliseconds(lambda launch=launch: with_launch(run, launch), options.device, 9)
        times.append([1e3 * milliseconds, list(launch)])
    size = math.prod(shape_of(dim, options)) * getattr(torch, dtype).itemsize
    least = 1e6 * size * (REAL if direction == "forward" else REAL + 1) / copy_bytes_per_s
    return {"task": task, "least_us": least, "rule_us": times[0], "times": sorted(times[1:])}


def with_launch(run: Callable[[], object], launch: Launch) -> object:
    decide = kernels.launches
    kernels.launches = lambda *_: Launches(launch, launch)
    try:
        return run()
    finally:
        kernels.launches = decide


def shape_of(dim: int, options: Options) -> tuple[int, int, int]:
    return (2, 9, dim) if options.tiny else SHAPES[dim]


def problem(task: list[Any], options: Options) -> Callable[[], object]:
    asked, dim, dtype, direction = task
    batch, time_, _ = shape_of(dim, options)
    columns, attend = ASKED[asked]
    torch.manual_seed(0)
    frames = torch.randn(batch, time_, dim, device=options.device).to(getattr(torch, dtype))
    vectors = torch.randn(batch, columns, dim, device=options.device) / dim**0.5
    ends = (time_ * torch.arange(1, batch + 1) / batch) ** (1 / REAL - 1) * time_ ** (2 - 1 / REAL)
    mask = lengths_to_mask(ends.long().clamp_min(1), time_).to(options.device)

    def forward() -> tuple[Tensor, ...]:
        return kernels.forward(Request(frames, vectors, mask=mask, attend=attend, norms=not attend))

    if direction == "forward":
        return forward
    dots, norms, weights, pooled = forward()
    saved = Saved(frames, vectors, norms, weights, pooled, mask, None, attend, has_logits=False)
    gradients = Gradients(dots, None, weights, pooled) if attend else Gradients(dots, norms, None, None)
    return lambda: kernels.backward(saved, gradients, Needs(logits=False))


HEAD = '''"""How the kernels over the frames are launched where that was measured. By `benchmarks/on_gpu/tune.py`."""

# On an {device}, frames (64, 750, 768) and (64, 4000, 64); all that was timed: benchmarks/results
# (direction, bytes of an element, block of dimensions, columns, attends):
#     (frames of a program, frames of a tile, warps, whether columns stay in registers, tiles on their way at once)
MEASURED: dict[tuple[str, int, int, int, bool], tuple[int, int, int, bool, int]] = {{
'''


def measured_launches(results: dict[str, Any]) -> str:
    """The module with the table. What was not faster by 3 % than the rule's launch stays with the rule."""
    lines = []
    for row in results["rows"]:
        (asked, _, dtype, direction), (best, launch) = row["task"], row["times"][0]
        if best > 0.97 * row["rule_us"][0]:
            continue
        chunk, tile, block, warps, hold, stages = launch
        key = direction, getattr(torch, dtype).itemsize, block, *ASKED[asked]
        comment = f"{best:.1f} us, by the rule {row['rule_us'][0]:.1f}, bandwidth allows {row['least_us']:.1f}"
        lines.append(f"    {key!r}: {(chunk, tile, warps, hold, stages)!r},  # {comment}".replace("'", '"'))
    return HEAD.format(device=results["device"]) + "\n".join(sorted(lines)) + "\n}\n"


def table(results: dict[str, Any]) -> str:
    best = "best: µs (chunk, tile, block, warps, held, stages)"
    header = ["", "dim", "dtype", "", "bandwidth allows", "by the rule", best]
    lines = [header, ["---"] * len(header)]
    for row in results["rows"]:
        best = "; ".join(f"{us:.1f} {tuple(launch)}" for us, launch in row["times"][:3])
        by_rule = f"{row['rule_us'][0]:.1f} {tuple(row['rule_us'][1])}"
        lines.append([*map(str, row["task"]), f"{row['least_us']:.1f} µs", by_rule, best])
    missing = "".join(f"\n\nNot there: {task}: {why}." for task, why in results["missing"].items())
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + missing


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    Path(__file__).parents[2].joinpath("src/framealign/kernels/measured_launches.py").write_text(
        measured_launches(found)
    )
