"""No speed: whether bf16 and batches by length change the scores by more than another seed does:

python benchmarks/recipe_scores.py --data PATH/TO/EmoDB --out benchmarks/results/VERSION-cpu-scores.json

Stage 1 of the recipe on EmoDB's four classes with the `dvector` backbone, on all folds with each seed, as the recipe
trains it; then with bf16, and then with random batches. Each variant is a process of its own, for a process keeps the
precision that it began with.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import torch

sys.path.append(str(Path(__file__).parents[1] / "examples"))

import common
import recipe.features.batches
import tables
from recipe.command_line import Options
from recipe.experiment import prepare
from recipe.features.backbones import backbone_kind
from recipe.reporting.significance import paired_test, smallest_p
from recipe.training.systems import STAGE_1


class Variant(NamedTuple):
    name: str
    precision: str = "no"
    window: int = recipe.features.batches._WINDOW  # batches within which utterances are sorted by length

    @property
    def slug(self) -> str:
        return self.name.replace(", ", "-").replace(" ", "-")


VARIANTS = (
    Variant("float32, by length"),
    Variant("bf16, by length", precision="bf16"),
    Variant("float32, random batches", window=1),
)

Training = tuple[int, int]  # seed, fold


def main() -> None:
    arguments = parse()
    if arguments.child:
        child(arguments, next(variant for variant in VARIANTS if variant.slug == arguments.child[0]))
        return
    results: dict[str, Any] = {
        "about": common.about(torch.device("cpu"))
        | {"peers": {package: version(package) for package in ("transformers", "accelerate")}},
        "corpus": "EmoDB, four classes",
        "backbone": arguments.backbone,
        "variants": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for variant in VARIANTS:
            print(f"{variant.name} ...", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, *sys.argv, "--child", variant.slug, folder], check=True)
            results["variants"][variant.name] = json.loads((Path(folder) / f"{variant.slug}.json").read_text())
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")
    print(summary(results))


def child(arguments: argparse.Namespace, variant: Variant) -> None:
    """The variant's trainings: seed, fold and UA of each."""
    folder = Path(arguments.child[1])
    recipe.features.batches._WINDOW = variant.window
    settings = backbone_kind(arguments.backbone).settings_for(arguments.backbone)
    if arguments.epochs:
        settings = replace(settings, stage1=replace(settings.stage1, epochs=arguments.epochs))
    options = Options(
        settings=settings,
        backbone=arguments.backbone,
        output=folder / variant.slug,
        cache=folder / "cache",
        seeds=tuple(arguments.seeds),
        folds=tuple(arguments.folds) if arguments.folds else None,
        corpus="emodb",
        data=arguments.data,
        classes="four",
        precision=variant.precision,
    )
    results = prepare(options).train([STAGE_1], lambda results: f"{len(results.finished)} trainings")
    trainings = [
        {
            "seed": training.seed,
            "fold": training.fold.number,
            "ua": result.scores.ua,
            "wa": result.scores.wa,
            "loss": result.epochs[-1]["loss"],
        }
        for training, result in results.finished.items()
    ]
    (folder / f"{variant.slug}.json").write_text(json.dumps(trainings))


def summary(results: dict[str, Any]) -> str:
    found = {
        name: {(training["seed"], training["fold"]): training["ua"] for training in trainings}
        for name, trainings in results["variants"].items()
    }
    base, *others = found
    lines = [
        f"{tables.machine(results['about'])}",
        f"{results['corpus']}, {results['backbone']}, stage 1: {len(found[base])} trainings of each.",
        "",
        "| variant | UA, mean ± std over trainings | of each seed | between two seeds | against the first | paired p |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, scores in found.items():
        cells = [name, f"{100 * statistics.fmean(scores.values()):.1f} ± {100 * deviation([*scores.values()]):.1f}"]
        seeds = of_seeds(scores)
        cells.append(", ".join(f"{100 * value:.1f}" for value in seeds.values()))
        cells.append(f"{100 * largest_gap(scores):.1f}" if len(seeds) > 1 else "")
        if name in others:
            differences = [scores[training] - found[base][training] for training in scores]
            cells += [f"{100 * statistics.fmean(differences):+.1f}", f"{paired_test(differences):.3f}"]
        else:
            cells += ["", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "In points of UA. *Between two seeds* is the largest difference between the means of two seeds of one variant: "
        "a variant that differs by less does not differ from itself. The test flips the signs of the differences of "
        f"each (seed, fold); the smallest p that {len(found[base])} can give is {smallest_p(len(found[base])):.1g}. "
        "A p above 0.05 proves no equality: the difference beside it says how much there could be.",
    ]
    return "\n".join(lines)


def of_seeds(scores: dict[Training, float]) -> dict[int, float]:
    """The mean over folds of each seed."""
    seeds = sorted({seed for seed, _ in scores})
    return {seed: statistics.fmean(ua for (other, _), ua in scores.items() if other == seed) for seed in seeds}


def largest_gap(scores: dict[Training, float]) -> float:
    return max(abs(one - other) for one, other in combinations(of_seeds(scores).values(), 2))


def deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="EmoDB's folder")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--folds", type=int, nargs="+", help="only these, counted from 1")
    parser.add_argument("--backbone", choices=("dvector", "tiny"), default="dvector", help="tiny: for tests")
    parser.add_argument("--epochs", type=int, help="other than the recipe's")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
