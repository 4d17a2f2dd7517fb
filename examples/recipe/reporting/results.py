"""What a run leaves as data: `results.json`, `predictions.csv` and `run.json`, from the files of its trainings."""

import csv
import io
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from importlib.metadata import version
from pathlib import Path

import numpy as np

from recipe.data.corpus import Corpus
from recipe.data.splices import Splice
from recipe.files import write_text
from recipe.reporting.over_time import measured, tally
from recipe.reporting.significance import difference_interval, holm, interval, paired_test
from recipe.settings import Settings
from recipe.training.plan import Block, Training
from recipe.training.result import Result
from recipe.training.scores import Scores, pooled
from recipe.training.systems import System

PACKAGES = ("framealign", "torch", "torchaudio", "transformers", "accelerate", "numpy", "scikit-learn", "soundfile")


@dataclass(frozen=True)
class Summary:
    """A system over all folds and seeds."""

    system: System
    seeds: int  # whose folds are all finished
    ua: list[float]  # of each training
    wa: list[float]
    pooled: Scores  # of the test utterances of all trainings together
    ua_interval: tuple[float, float] | None  # 95 %, of the pooled scores; over the seeds whose folds are all finished
    wa_interval: tuple[float, float] | None


@dataclass(frozen=True)
class Comparison:
    """A system against its baseline, on the trainings that both have."""

    system: System
    baseline: str
    trainings: int
    difference: float  # of UA, mean over trainings
    interval: tuple[float, float]  # 95 %, of the pooled difference
    p: float  # paired, over trainings
    adjusted_p: float  # for the number of comparisons, Holm
    folds_p: float  # paired, over folds, of their mean differences over seeds


@dataclass
class RunResults:
    """A run's results so far, in the order of its plan."""

    corpus: Corpus
    output: Path
    backbone: str
    settings: Settings
    plan: list[Block]
    name: str = "results"  # of the file
    precision: str = "no"
    stand_in: bool = False  # the demo corpus
    backbone_caveat: str = ""
    splices: Sequence[Splice] = ()  # of the folds' validation and test utterances
    finished: dict[Training, Result] = field(default_factory=dict)
    started: float = field(default_factory=time.time)

    @property
    def trainings(self) -> list[Training]:
        return [training for block in self.plan for training in block.trainings]

    @property
    def results(self) -> list[Result]:
        return [self.finished[training] for training in self.trainings if training in self.finished]

    @property
    def systems(self) -> list[System]:
        return [training.system for training in self.plan[0].trainings]

    def read(self) -> None:
        for training in self.trainings:
            if training not in self.finished and training.finished:
                self.finished[training] = Result.read(training)
                for name in ("summaries", "comparisons"):
                    self.__dict__.pop(name, None)

    def of(self, system: System) -> list[Result]:
        return [result for result in self.results if result.training.system == system]

    def by_seed(self, system: System) -> dict[int, list[Result]]:
        """The results of the seeds whose folds are all finished, in the order of the folds."""
        found: dict[int, list[Result]] = {}
        for result in self.of(system):
            found.setdefault(result.training.seed, []).append(result)
        folds = len({block.fold.number for block in self.plan})
        return {seed: results for seed, results in found.items() if len(results) == folds}

    def pooled_predictions(self, system: System, seeds: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Labels (utterances,) and predictions (seeds, utterances) of all folds' test utterances."""
        by_seed = self.by_seed(system)
        classes = self.corpus.classes
        labels = [classes.index(u.label) for result in by_seed[seeds[0]] for u in result.training.fold.test]
        predictions = [
            np.concatenate([result.probabilities.argmax(axis=1) for result in by_seed[seed]]) for seed in seeds
        ]
        return np.array(labels), np.stack(predictions)

    @cached_property
    def summaries(self) -> list[Summary]:
        return [self.summary(system) for system in self.systems if self.of(system)]

    def summary(self, system: System) -> Summary:
        results = self.of(system)
        seeds = list(self.by_seed(system))
        intervals: dict[str, tuple[float, float] | None] = {"ua": None, "wa": None}
        if seeds:
            labels, predictions = self.pooled_predictions(system, seeds)
            for name in intervals:
                found = interval(labels, predictions, len(self.corpus.classes), name)
                intervals[name] = (found.low, found.high)
        return Summary(
            system,
            len(seeds),
            [result.scores.ua for result in results],
            [result.scores.wa for result in results],
            pooled([result.scores for result in results]),
            intervals["ua"],
            intervals["wa"],
        )

    @cached_property
    def comparisons(self) -> list[Comparison]:
        """Every system against its baseline, where both have seeds whose folds are all finished."""
        found = []
        by_name = {system.name: system for system in self.systems}
        for system in self.systems:
            baseline = by_name.get(system.baseline or "")
            seeds = [seed for seed in self.by_seed(system) if baseline and seed in self.by_seed(baseline)]
            if baseline is None or not seeds:
                continue
            ours, theirs = self.by_seed(system), self.by_seed(baseline)
            differences = np.array(  # (seeds, folds)
                [
                    [one.scores.ua - other.scores.ua for one, other in zip(ours[seed], theirs[seed], strict=True)]
                    for seed in seeds
                ]
            )
            labels, predictions = self.pooled_predictions(system, seeds)
            _, baseline_predictions = self.pooled_predictions(baseline, seeds)
            between = difference_interval(labels, predictions, baseline_predictions, len(self.corpus.classes))
            found.append((system, baseline.name, differences, between))
        p_values = [paired_test(differences.flatten()) for _, _, differences, _ in found]
        return [
            Comparison(
                system,
                baseline,
                differences.size,
                float(differences.mean()),
                (between.low, between.high),
                p,
                float(adjusted_p),
                paired_test(differences.mean(axis=0)),
            )
            for (system, baseline, differences, between), p, adjusted_p in zip(
                found, p_values, holm(p_values), strict=True
            )
        ]

    def file(self, name: str) -> Path:
        """A file in the output folder; experiments beside the main one have their name in front."""
        return self.output / (name if self.name == "results" else f"{self.name}-{name}")

    def write(self) -> None:
        self.read()
        write_text(self.output / f"{self.name}.json", json.dumps(self.record(), indent=1) + "\n")
        write_text(self.file("predictions.csv"), table(self.prediction_rows()))
        write_text(self.file("run.json"), json.dumps(self.run_record(), indent=1) + "\n")

    def record(self) -> dict:
        corpus = self.corpus
        return {
            "corpus": corpus.name,
            "stand_in": self.stand_in,
            "backbone": self.backbone,
            "classes": list(corpus.classes),
            "settings": asdict(self.settings),
            "precision": self.precision,
            "finished": len(self.finished),
            "planned": len(self.trainings),
            "utterances": len(corpus.utterances),
            "skipped": [{"file": str(s.path), "reason": s.reason} for s in corpus.skipped],
            "notes": [*corpus.caveats, *corpus.notes],
            "trainings": [result.record(corpus.classes) for result in self.results],
            "summary": {
                s.system.name: {
                    "trainings": len(s.ua),
                    "seeds": s.seeds,
                    "ua_mean": float(np.mean(s.ua)),
                    "ua_std": deviation(s.ua),
                    "wa_mean": float(np.mean(s.wa)),
                    "wa_std": deviation(s.wa),
                    "pooled": s.pooled.named(corpus.classes),
                    "ua_interval": s.ua_interval,
                    "wa_interval": s.wa_interval,
                }
                for s in self.summaries
            },
            "comparisons": [{**vars(c), "system": c.system.name} for c in self.comparisons],
            "over_time": {
                side: {
                    system.name: measured(counts, corpus.classes)
                    for system in self.systems
                    if (counts := tally(self.of(system), side))
                }
                for side in ("validation", "test")
            },
        }

    def prediction_rows(self) -> list[dict]:
        classes = self.corpus.classes
        return [
            {
                "utterance": utterance.id,
                "speaker": utterance.speaker,
                "seed": result.training.seed,
                "fold": result.training.fold.number,
                "system": result.training.system.name,
                "label": utterance.label,
                "prediction": classes[int(probabilities.argmax())],
                **{f"p_{name}": f"{p:.6f}" for name, p in zip(classes, probabilities, strict=True)},
            }
            for result in self.results
            for utterance, probabilities in zip(result.training.fold.test, result.probabilities, strict=True)
        ]

    def run_record(self) -> dict:
        return {
            "command": " ".join(["python", *sys.argv]),
            "seconds": round(time.time() - self.started, 1),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {package: version(package) for package in PACKAGES},
        }


def validation_ua(results: RunResults, system: System) -> float:
    """Of the epochs that were kept; a system without a training is the last to be chosen."""
    found = [max(record["validation_ua"] for record in result.epochs) for result in results.of(system)]
    return float(np.mean(found)) if found else -1.0


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; one value has none."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def table(rows: Sequence[dict]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()
