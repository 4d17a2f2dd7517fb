"""The tables of a run, in Markdown:

python benchmarks/report.py benchmarks/results/VERSION-DEVICE-losses.json
"""

import json
import sys
from pathlib import Path
from typing import Any


def tables(results: dict[str, Any]) -> str:
    ops = list(dict.fromkeys(row["op"] for row in results["rows"]))
    return "\n\n".join([heading(results["about"]), *(table(results["rows"], op) for op in ops)])


def heading(about: dict[str, Any]) -> str:
    versions = {"torch": about["torch"], "framealign": about["framealign"], **about["peers"]}
    where = f"{about['device']}, threads: {about['threads']}" if about["device_type"] == "cpu" else about["device"]
    return (
        f"{where}; {', '.join(f'{name} {version}' for name, version in versions.items())}; commit {about['commit']}.\n"
        "Cells: median in ms ± half the distance between the quartiles · peak memory beyond the inputs, in sizes of "
        "the frames."
    )


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
        ratios = {name: variants[name]["median_ms"] / variants[ours]["median_ms"] for name in others}
        faster = [f"**{name}**" for name, ratio in ratios.items() if ratio < 1]
        shape = f"{row['shape_name']} ({', '.join(map(str, row['shape']))})"
        cells = [shape, f"{row['valid']:.2f}", row["direction"], row["allocator"], f"{row['copy_ms']:.3g}"]
        cells += [cell(variants[name], row["frames_bytes"]) for name in names]
        lines.append([*cells, *(f"{ratio:.2f}" for ratio in ratios.values()), ", ".join(faster)])
    return f"### {op}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(variant: dict[str, Any], frames_bytes: int) -> str:
    low, high = variant["quartiles_ms"]
    spread = 50 * (high - low) / variant["median_ms"]
    return f"{variant['median_ms']:.3g} ±{spread:.0f}% · {variant['peak_bytes'] / frames_bytes:.2f}"


if __name__ == "__main__":
    print(tables(json.loads(Path(sys.argv[1]).read_text())))
