"""Time and memory against the number of frames, log-log, from the `frames` sweep of a run:

python benchmarks/plot.py benchmarks/results/VERSION-DEVICE-losses.json --out benchmarks/results/VERSION-DEVICE.png
"""

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter

COPY, SIZE = "one copy of the frames", "the frames themselves"
COLOURS = {"hand-written": "#b35806", "compiled": "#7b3294", "ours": "#01665e", COPY: "#888888", SIZE: "#888888"}
LABELS = {"compiled": "torch.compile", "ours": "framealign"}
ALLOCATOR_TITLES = {"default": "glibc's default allocator", "reused": "pages reused", "caching": "CUDA"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text())
    rows = [row for row in results["rows"] if row["group"] == "frames" and row["direction"] == "forward + backward"]
    if not rows:
        raise SystemExit(f"{arguments.results} has no sweep over frames; run with `--groups frames`.")
    draw(rows, results["about"], arguments.out)


def draw(rows: list[dict[str, Any]], about: dict[str, Any], path: Path) -> None:
    ops = list(dict.fromkeys(row["op"] for row in rows))
    allocators = list(dict.fromkeys(row["allocator"] for row in rows))
    columns = len(allocators) + 1
    figure, grid = plt.subplots(
        len(ops), columns, figsize=(4.6 * columns, 3.6 * len(ops)), squeeze=False, layout="constrained"
    )
    for op, axes in zip(ops, grid, strict=True):
        of_op = [row for row in rows if row["op"] == op]
        for allocator, axis in zip(allocators, axes[:-1], strict=True):
            time_panel(axis, [row for row in of_op if row["allocator"] == allocator])
            axis.set_title(f"{op}: time, {ALLOCATOR_TITLES[allocator]}", loc="left", fontsize=10)
            axis.set_ylabel("ms, forward + backward")
        memory_panel(axes[-1], [row for row in of_op if row["allocator"] == allocators[0]])
        axes[-1].set_title(f"{op}: peak memory beyond the inputs", loc="left", fontsize=10)
        axes[-1].set_ylabel("MiB")
        for axis in axes[1:-1]:  # times of one operation, on one scale
            axis.sharey(axes[0])
    batch, _, dim = rows[0]["shape"]
    threads = f", threads: {about['threads']}" if about["device_type"] == "cpu" else ""
    figure.suptitle(
        f"{batch} utterances, D = {dim}, {rows[-1]['valid']:.0%} of the frames real. {about['device']}{threads}, "
        f"torch {about['torch']}, framealign {about['framealign']} ({about['commit']}). "
        "Medians; bands from quartile to quartile.",
        x=0.01,
        ha="left",
        fontsize=9,
    )
    figure.savefig(path, dpi=150)


def time_panel(axis: Axes, rows: list[dict[str, Any]]) -> None:
    frames = [row["shape"][0] * row["shape"][1] for row in rows]
    ends = {}
    for name in series(rows):
        variants = [row["variants"][name] for row in rows]
        medians = [variant["median_ms"] for variant in variants]
        axis.plot(frames, medians, color=COLOURS[name], marker="o", markersize=3)
        quartiles = zip(*(variant["quartiles_ms"] for variant in variants), strict=True)
        axis.fill_between(frames, *quartiles, color=COLOURS[name], alpha=0.15, linewidth=0)
        ends[name] = medians[-1]
    copies = [row["copy_ms"] for row in rows]
    axis.plot(frames, copies, color=COLOURS[COPY], linestyle=":")
    finish(axis, frames, ends | {COPY: copies[-1]})


def memory_panel(axis: Axes, rows: list[dict[str, Any]]) -> None:
    frames = [row["shape"][0] * row["shape"][1] for row in rows]
    ends = {}
    for name in series(rows):
        peaks = [row["variants"][name]["peak_bytes"] / 2**20 for row in rows]
        axis.plot(frames, peaks, color=COLOURS[name], marker="o", markersize=3)
        ends[name] = peaks[-1]
    sizes = [row["frames_bytes"] / 2**20 for row in rows]
    axis.plot(frames, sizes, color=COLOURS[SIZE], linestyle=":")
    finish(axis, frames, ends | {SIZE: sizes[-1]})


def series(rows: list[dict[str, Any]]) -> list[str]:
    return [name for name in ("hand-written", "compiled", "ours") if all(name in row["variants"] for row in rows)]


def finish(axis: Axes, frames: list[int], ends: dict[str, float]) -> None:
    axis.set_xscale("log")
    axis.set_yscale("log")
    for scale in (axis.xaxis, axis.yaxis):
        scale.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        scale.set_minor_formatter(NullFormatter())
    axis.set_xlabel("frames, padding included")
    axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(y=0.08)
    axis.set_xlim(frames[0] / 1.3, frames[-1] * (frames[-1] / frames[0]) ** 0.65)  # room for the names
    above = 0.0
    for name, value in sorted(ends.items(), key=lambda item: item[1]):
        above = max(value, above * 1.55)  # where two lines end together, one name above the other
        axis.annotate(
            LABELS.get(name, name), (frames[-1] * 1.15, above), color=COLOURS[name], fontsize=8.5, va="center"
        )


if __name__ == "__main__":
    main()
