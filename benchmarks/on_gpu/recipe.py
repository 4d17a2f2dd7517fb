"""A training of wav2vec2-base's shapes: the usual script, and the recipe with its batches made ready beside the GPU.

Random weights, and noise as long as IEMOCAP's utterances: the clock hears neither. The recipe's rows are its own
`EpochTrainer`, each time over one window's worth of utterances of the whole corpus, drawn anew: what a real epoch gives
the GPU, shapes that it has not seen among them.
"""

import gc
import json
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from on_gpu.options import Options
from on_gpu.recipe_runs import Corpus, Row, Run, make_backbone, make_corpus, on_gpu, recipe_run, usual_run
from recipe.training.systems import PROPOSED
from utterances import frame_count

BUDGETS = (3_200, 16_000, 64_000)  # the default, which is a CPU's; and two for GPUs
Save = Callable[[dict[str, Any]], None]


def all_rows() -> list[Row]:
    small, middle, large = BUDGETS

    def recipe(stage: int, budget: int, ahead: bool = True, **other: Any) -> Row:
        how = "made ahead" if ahead else "made in the step"
        key = f"stage-{stage}-{budget}{'' if ahead else '-in-step'}"
        return Row(key, f"budget {budget}, batches {how}", f"stage {stage}", budget, ahead, **other)

    varied = recipe(1, middle)
    return [
        recipe(1, middle, profiled=True),
        recipe(1, middle, ahead=False, profiled=True),
        recipe(1, small, profiled=True),
        recipe(1, small, ahead=False),
        recipe(1, large),
        varied._replace(key="stage-1-no-cudnn", name=f"{varied.name}, no attention of cuDNN", cudnn=False),
        recipe(2, middle, profiled=True),
        recipe(2, middle, ahead=False, profiled=True),
        recipe(2, small),
        Row("usual-bf16", "the usual script, bf16", "usual, bf16", profiled=True),
        Row("usual-float32", "the usual script, float32", "usual, float32", bf16=False, profiled=True),
    ]


# Of the time, what may have gone when a group's last epoch begins
UNTIL = {"stage 1": 0.42, "stage 2": 0.64, "usual, bf16": 0.74, "usual, float32": 0.88}
TITLES = {"stage 1": "The recipe, stage 1 (attentive pooling)", "stage 2": f"The recipe, stage 2 ({PROPOSED})"}


class Sizes(NamedTuple):
    """Utterances of an optimiser's step, of an epoch that is timed and of one that is profiled; and rounds at most."""

    batch: int
    epoch: int
    usual_epoch: int
    profiled: int
    usual_profiled: int
    rounds: int


def measure(options: Options, save: Save) -> None:
    """Measure row by row until the time is up, and save what is known after each."""
    # the process's time counts too, most of which went into imports
    began = time.perf_counter() - min(time.process_time(), 0.2 * options.seconds)
    torch.manual_seed(0)
    sizes = Sizes(4, 8, 4, 4, 4, 1) if options.tiny else Sizes(16, 800, 240, 320, 64, 6)
    backbone = make_backbone(options.tiny)
    settings = replace(backbone.settings, batch_size=sizes.batch)
    corpus = make_corpus(backbone, options, 48 if options.tiny else None)
    rows = all_rows()
    results: dict[str, Any] = {
        "gpu": on_gpu(options),
        "parameters": sum(parameter.numel() for parameter in backbone.parameters()),
        "lengths": {"source": corpus.source, "utterances": len(corpus.samples)},
        "sizes": sizes._asdict(),
        "longest_step": sizes.batch * frame_count(max(corpus.samples)),
        "rows": [],
        "longest": [],
        "waits": {},
    }
    for group, until in UNTIL.items():
        until = began + until * options.seconds
        results["rows"] += [record(row) for row in rows if row.group == group]
        own = results["rows"][-sum(row.group == group for row in rows) :]
        ours = group in TITLES
        run = (recipe_run if ours else usual_run)(group, backbone, corpus, settings, options)
        measure_group(own, run, corpus, sizes, until, options, lambda: save(results))
        if ours and time.perf_counter() < until + 0.1 * options.seconds:
            results["longest"] += longest_steps(group, run, corpus, sizes, options)
            results["waits"][group] = waits(run, corpus, sizes, options)
        del run
        free(options)
        results["seconds"] = time.perf_counter() - began
        save(results)


def record(row: Row) -> dict[str, Any]:
    measured: dict[str, Any] = {name: [] for name in ("seconds", "utterances", "frames", "padded", "peak_bytes")}
    return {**row._asdict(), **measured, "busy": None, "error": None}


def measure_group(
    records: list[dict[str, Any]],
    run: Run,
    corpus: Corpus,
    sizes: Sizes,
    until: float,
    options: Options,
    save: Callable[[], None],
) -> None:
    rows = {found["key"]: Row(**{name: found[name] for name in Row._fields}) for found in records}
    count = sizes.usual_epoch if records[0]["group"].startswith("usual") else sizes.epoch
    draws = iter(range(1, 10_000))

    def guarded(found: dict[str, Any], what: Callable[[Row], None]) -> None:
        try:
            what(rows[found["key"]])
        except torch.OutOfMemoryError:
            found["error"] = "out of memory"
            free(options)

    def epoch(found: dict[str, Any], row: Row) -> None:
        if on_gpu(options):
            torch.cuda.reset_peak_memory_stats(options.device)
        number = next(draws)
        for name, value in run(row, corpus.draw(count, number), number)._asdict().items():
            found[name].append(value)
        if on_gpu(options):
            found["peak_bytes"].append(torch.cuda.max_memory_allocated(options.device))

    # kernels are loaded and memory is taken, by utterances that are drawn for this alone
    for found in records:
        share = 5 if found is records[0] else 20
        warm_up = corpus.draw(max(sizes.batch, count // share), 0)
        guarded(found, lambda row, warm_up=warm_up: run(row, warm_up, 0) and None)
    for number in range(sizes.rounds):
        # there and back, so that a machine that becomes slower is no row's fault
        for found in records[:: 1 if number % 2 == 0 else -1]:
            first = found is records[0] and not found["seconds"]  # is measured whatever the time
            if found["error"] is None and (first or time.perf_counter() < until):
                guarded(found, lambda row, found=found: epoch(found, row))
                save()
        if number == 0 and on_gpu(options):
            for found in records:
                if found["profiled"] and found["error"] is None and time.perf_counter() < until:
                    guarded(found, lambda row, found=found: found.update(busy=busy(run, row, corpus, sizes, options)))
                    save()
        if time.perf_counter() > until:
            break


def busy(run: Run, row: Row, corpus: Corpus, sizes: Sizes, options: Options) -> dict[str, float]:
    """How long the GPU computed in an epoch, under the profiler; and how long the same takes without it.

    Kernels take as long under the profiler as they do without. The host does not: it launches more slowly.
    """
    count = sizes.usual_profiled if row.group.startswith("usual") else sizes.profiled
    utterances, activity = corpus.draw(count, 20_000), torch.profiler.ProfilerActivity.CUDA
    run(row, utterances, 20_000)  # its shapes are known then
    plain = [run(row, utterances, 20_000).seconds for _ in range(2)]
    with torch.profiler.profile(activities=[activity]) as profiler:
        profiled = run(row, utterances, 20_000).seconds
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    kernels = spans(events, "kernel")
    every = spans(events, "kernel", "gpu_memcpy", "gpu_memset")
    return {
        "kernels": covered(kernels),
        "kernels_and_copies": covered(every),
        "window": max(end for _, end in every) - min(start for start, _ in every),
        "profiled_seconds": profiled,
        "seconds": min(plain),
        "launched": len(kernels),
    }


def spans(events: list[dict[str, Any]], *kinds: str) -> list[tuple[float, float]]:
    """When events of these kinds began and ended, in seconds."""
    return [
        (1e-6 * event["ts"], 1e-6 * (event["ts"] + event["dur"]))
        for event in events
        if event.get("ph") == "X" and event.get("cat") in kinds
    ]


def covered(found: Sequence[tuple[float, float]]) -> float:
    """The time in which at least one of the spans goes on."""
    total, reached = 0.0, -float("inf")
    for start, end in sorted(found):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def longest_steps(group: str, run: Run, corpus: Corpus, sizes: Sizes, options: Options) -> list[dict[str, Any]]:
    """The peak memory of the step that has the corpus's longest utterances, under each budget."""
    longest = sorted(range(len(corpus.samples)), key=corpus.samples.__getitem__)[-sizes.batch :]
    found = []
    for budget in BUDGETS:
        free(options)
        if on_gpu(options):
            torch.cuda.reset_peak_memory_stats(options.device)
        peak: int | None = None
        try:
            padded = run(Row("longest", "", group, budget), longest, 0).padded
            if on_gpu(options):
                peak = torch.cuda.max_memory_allocated(options.device)
        except torch.OutOfMemoryError:
            padded = 0
        found.append({"group": group, "frame_budget": budget, "peak_bytes": peak, "padded": padded})
    return found


def waits(run: Run, corpus: Corpus, sizes: Sizes, options: Options) -> list[str]:
    """Where the host waited for the GPU in an epoch of three steps, as PyTorch tells it."""
    if not on_gpu(options):
        return []
    row = next(row for row in all_rows() if row.ahead)
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run(row, corpus.draw(3 * sizes.batch, 3), 3)
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    places = Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if "called a synchronizing" in str(warning.message)
    )
    return [f"{place}, {count} times" for place, count in places.items()]


def free(options: Options) -> None:
    gc.collect()
    if on_gpu(options):
        torch.cuda.empty_cache()


def table(results: dict[str, Any]) -> str:
    sizes = results["sizes"]
    parts = [
        f"Random weights, {results['parameters'] / 1e6:.1f} M parameters. Utterances as long as IEMOCAP's "
        f"({results['lengths']['source']}), of noise; steps of {sizes['batch']}. A timed epoch of the recipe has "
        f"{sizes['epoch']} of them, drawn anew each time, one of the usual script {sizes['usual_epoch']}. The "
        "recipe's features are a frozen CNN's, in float16 on the host, and it trains in bf16. The usual script trains "
        "its CNN, on waveforms that are in memory already. Median over the rounds; no epoch is timed twice.",
    ]
    usual = [row for row in results["rows"] if row["group"].startswith("usual")]
    for group, title in TITLES.items():
        if rows := [row for row in results["rows"] if row["group"] == group]:
            parts.append(f"**{title}**\n\n{rows_table(rows, usual, results['gpu'])}")
    if usual:
        parts.append(f"**The usual script**\n\n{rows_table(usual, [], results['gpu'])}")
    parts.append(
        "*Computing* is the time in which kernels run, over the time that the same epoch takes without the profiler; "
        "in brackets, over the window from the first to the last of them under the profiler, which slows the host "
        "down. Kernels take the same time in both."
        if results["gpu"]
        else "The share in which a GPU computes and its memory are not measured on a CPU."
    )
    if results["gpu"] and results["longest"]:
        parts.append(longest_text(results))
    for group, places in results["waits"].items():
        if results["gpu"]:
            where = "; ".join(places) or "nowhere"
            parts.append(f"In an epoch of three steps of {group} the host waits for the GPU: {where}.")
    return "\n\n".join(parts)


def rows_table(rows: Sequence[dict[str, Any]], usual: Sequence[dict[str, Any]], gpu: bool) -> str:
    against = {row["key"]: speed(row, "frames") for row in usual if row["seconds"]}
    header = ["", "utterances/s", "real frames/s", "real", "computing", "peak memory, GB"]
    header += [f"times {row['name']}" for row in usual if row["key"] in against] + ["rounds", "first round"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        if not row["seconds"]:
            lines.append([row["name"], row["error"] or "no time left", *[""] * (len(header) - 2)])
            continue
        lines.append(
            [
                row["name"],
                f"{speed(row, 'utterances'):.4g}{spread(row)}",
                f"{speed(row, 'frames'):.4g}",
                f"{sum(row['frames']) / sum(row['padded']):.2f}",
                computing(row["busy"], gpu),
                f"{max(row['peak_bytes']) / 1e9:.1f}" if row["peak_bytes"] else "not measured",
                *(f"{speed(row, 'frames') / value:.1f}" for value in against.values()),
                str(len(row["seconds"])),
                f"{row['utterances'][0] / row['seconds'][0]:.4g}",
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def speed(row: dict[str, Any], of: str) -> float:
    """Median over the rounds, a second."""
    return statistics.median(count / seconds for count, seconds in zip(row[of], row["seconds"], strict=True))


def spread(row: dict[str, Any]) -> str:
    speeds = [count / seconds for count, seconds in zip(row["frames"], row["seconds"], strict=True)]
    return f" ±{50 * (max(speeds) - min(speeds)) / statistics.median(speeds):.0f}%" if len(speeds) > 1 else ""


def computing(found: dict[str, float] | None, gpu: bool) -> str:
    if not gpu:
        return "not measured on a CPU"
    if found is None:
        return ""
    return f"{found['kernels'] / found['seconds']:.0%} ({found['kernels'] / found['window']:.0%})"


def longest_text(results: dict[str, Any]) -> str:
    lines = [
        f"- {found['group']}, budget {found['frame_budget']}: "
        + ("out of memory" if found["peak_bytes"] is None else f"{found['peak_bytes'] / 1e9:.1f} GB")
        for found in results["longest"]
    ]
    return (
        f"Peak memory of the step with the {results['sizes']['batch']} longest utterances; "
        f"{results['longest_step']} frames are the most that a step can be padded to.\n\n" + "\n".join(lines)
    )
