"""The tables of a run, in Markdown:

python benchmarks/tables.py benchmarks/results/VERSION-DEVICE-losses.json
"""

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def tables(results: dict[str, Any]) -> str:
    ops = list(dict.fromkeys(row["op"] for row in results["rows"]))
    return "\n\n".join([heading(results["about"]), *(table(results["rows"], op) for op in ops)])


def heading(about: dict[str, Any]) -> str:
    return (
        f"{machine(about)}\n"
        "Cells: median in ms ± half the distance between the quartiles · peak memory beyond the inputs, in sizes of "
        "the frames."
    )


def machine(about: dict[str, Any]) -> str:
    versions = {"torch": about["torch"], "framealign": about["framealign"], **about["peers"]}
    where = f"{about['device']}, threads: {about['threads']}" if about["device_type"] == "cpu" else about["device"]
    return f"{where}; {', '.join(f'{name} {version}' for name, version in versions.items())}; commit {about['commit']}."


def table(rows: list[dict[str, Any]], op: str) -> str:
    rows = sorted((row for row in rows if row["op"] == op), key=lambda row: row["group"] != "shapes")  # sweeps last
    names = list(dict.fromkeys(name for row in rows for name in row["variants"]))
    roles = {name: variant["role"] for row in rows for name, variant in row["variants"].items()}
    ours = next(name for name in names if roles[name] == "ours")
    others = [name for name in names if roles[name] != "ours"]
    header = ["shape", "real", "direction", "allocator", "copy", *names, *(f"{name} / {ours}" for name in others)]
    lines = [[*header, "faster than ours"], ["---"] * (len(header) + 1)]
    for row in rows:
        variants = row["variants"]
        ratios = {
            name: variants[name]["median_ms"] / variants[ours]["median_ms"] for name in others if name in variants
        }
        faster = [f"**{name}**" for name, ratio in ratios.items() if ratio < 1]
        shape = f"{row['shape_name']} ({', '.join(map(str, row['shape']))})"
        cells = [shape, f"{row['valid']:.2f}", row["direction"], row["allocator"], f"{row['copy_ms']:.3g}"]
        cells += [cell(variants[name], row["frames_bytes"]) if name in variants else "not run" for name in names]
        cells += [f"{ratios[name]:.2f}" if name in ratios else "" for name in others]
        lines.append([*cells, ", ".join(faster)])
    return f"### {op}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(variant: dict[str, Any], frames_bytes: int) -> str:
    low, high = variant["quartiles_ms"]
    spread = 50 * (high - low) / variant["median_ms"]
    return f"{variant['median_ms']:.3g} ±{spread:.0f}% · {variant['peak_bytes'] / frames_bytes:.2f}"


def recipe_tables(results: dict[str, Any]) -> str:
    """Of a run of bench_recipe.py."""
    sample, whole, lengths, settings = (results[name] for name in ("sample", "whole", "lengths", "settings"))
    backbone = results["backbone"]
    mean = sample["seconds"] / sample["utterances"]
    parts = [
        f"{machine(results['about'])}\n"
        f"Backbone {backbone['name']}, {backbone['parameters'] / 1e6:.1f} M parameters of random weights. Lengths of "
        f"{lengths['utterances']} utterances, mean {lengths['mean']:.2f} s: {lengths['source']}. The audio is noise.\n"
        f"An epoch: {sample['utterances']} of them, mean {mean:.2f} s, {sample['frames']} frames, in steps of "
        f"{settings['batch_size']}. Share of real frames in random batches {sample['real']['random']:.2f} (the whole "
        f"corpus: {whole['real']['random']:.2f}), by length {sample['real']['by length']:.2f} "
        f"({whole['real']['by length']:.2f}); the largest batch of the whole corpus by length has "
        f"{whole['largest_batch']} frames of a budget of {settings['frame_budget']}."
    ]
    usual = next((row for row in results["rows"] if row["key"] == "cnn-trained"), None)
    for title, groups in (("Measure upon measure", ("ladder", "stage 2")), ("Each on its own", ("alone",))):
        rows = [row for row in results["rows"] if row["group"] in groups]
        if rows:
            parts.append(f"### {title}\n\n{recipe_table(rows, usual, sample)}")
    if table3 := results.get("table3"):
        hours = table3["hours"]
        ours = hours["ours"]
        parts.append(
            f"Table 3 as a whole, **computed** from the epochs above and not run: {table3['systems']} systems on five "
            f"folds with one seed, stages of {' and '.join(map(str, table3['epochs']))} epochs. The usual script "
            f"trains both stages of each system, {table3['usual_epochs']} epochs a fold; ours stage 1 once and stage 2 "
            f"of each, {table3['our_epochs']} epochs a fold, and the features once ({table3['features_hours']:.2f} h). "
            + "; ".join(
                f"{name} {value:.0f} h" + ("" if name == "ours" else f" ({value / ours:.1f} times ours)")
                for name, value in hours.items()
            )
            + ". Validation and test are in neither; of the usual script's stage 2, pooling and losses are not either."
        )
    if results.get("longest"):
        frames = results["longest"][0]["frames"]
        parts.append(
            "### The longest utterance\n\n"
            + "\n".join(longest_line(found) for found in results["longest"])
            + f"\n\nA random batch of {settings['batch_size']} with it is padded to {settings['batch_size'] * frames} "
            "frames."
        )
    return "\n\n".join(parts)


def longest_line(found: dict[str, Any]) -> str:
    batches = ", ".join(f"{count} x {frames}" for count, frames in found["batches"])
    precision = "float32" if found["precision"] == "no" else found["precision"]
    memory = f"peak memory {found['peak_bytes'] / 1e9:.2f} GB"
    if found["exceeds_bytes"]:
        memory = f"**does not fit** into the {found['exceeds_bytes'] / 1e9:.1f} GB that the machine has free"
    return (
        f"- {found['seconds_of_speech']} s in a step of the recipe, batches of {batches} frames, each within the "
        f"budget of {found['frame_budget']}, {precision}: {memory}."
    )


def recipe_table(rows: list[dict[str, Any]], usual: dict[str, Any] | None, sample: dict[str, Any]) -> str:
    header = ["", "utterances/s", "µs a real frame", "real", "times the usual script", "peak memory, GB", "rounds"]
    lines = [header, ["---"] * len(header)]
    for row in rows:
        seconds = statistics.median(row["seconds"])
        spread = 50 * (max(row["seconds"]) - min(row["seconds"])) / seconds
        lines.append(
            [
                row["name"],
                f"{sample['utterances'] / seconds:.3g}" + (f" ±{spread:.0f}%" if len(row["seconds"]) > 1 else ""),
                f"{1e6 * seconds / sample['frames']:.0f}",
                f"{row['real']:.2f}",
                f"{statistics.median(usual['seconds']) / seconds:.2f}" if usual else "",
                f"{statistics.median(row['peak_bytes']) / 1e9:.2f}",
                str(len(row["seconds"])),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    found = json.loads(Path(sys.argv[1]).read_text())
    print(recipe_tables(found) if "sample" in found else tables(found))
