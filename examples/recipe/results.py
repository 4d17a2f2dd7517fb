"""What a run leaves as data: `results.json`, `predictions.csv` and `run.json`.

They are written anew after every finished system of every fold, under another name first, so that a run that
is stopped at any moment leaves what it had finished, whole.
"""

import csv
import io
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path

import numpy as np

from recipe.corpora.corpus import Corpus
from recipe.scores import Scores, pooled
from recipe.settings import Settings
from recipe.two_stage import SYSTEMS, Trained

PACKAGES = ("framealign", "torch", "torchaudio", "transformers", "accelerate", "numpy", "scikit-learn", "soundfile")


@dataclass(frozen=True)
class Result:
    """One system on one fold, as data."""

    fold: int
    system: str
    seed: int
    best_epoch: int
    scores: Scores
    diagnostics: dict[str, float]
    epochs: list[dict]
    predictions: list[dict]


@dataclass
class Results:
    """A run's results so far."""

    corpus: Corpus
    backbone: str
    settings: Settings
    seed: int
    planned: int  # systems times folds
    stand_in: bool = False  # the demo corpus
    finished: list[Result] = field(default_factory=list)
    started: float = field(default_factory=time.time)

    def add(self, trained: Trained) -> Result:
        classes = self.corpus.classes
        best = max(
            reversed(trained.epochs), key=lambda record: record["validation_ua"]
        )  # the last of equals, as in fit
        predictions = [
            {
                "utterance": utterance.id,
                "speaker": utterance.speaker,
                "fold": trained.fold.number,
                "system": trained.system,
                "label": classes[label],
                "prediction": classes[prediction],
                **{f"p_{name}": f"{p:.6f}" for name, p in zip(classes, probabilities, strict=True)},
            }
            for utterance, label, prediction, probabilities in zip(
                trained.fold.test, trained.test.labels, trained.test.classes, trained.test.probabilities, strict=True
            )
        ]
        result = Result(
            trained.fold.number,
            trained.system,
            trained.seed,
            best["epoch"],
            trained.scores,
            trained.test.watch,
            trained.epochs,
            predictions,
        )
        self.finished.append(result)
        return result

    def of(self, system: str) -> list[Result]:
        return [result for result in self.finished if result.system == system]

    def summary(self) -> dict[str, dict]:
        """For each system: mean and standard deviation over folds, and the scores of all test utterances pooled."""
        return {system: summarise([r.scores for r in self.of(system)]) for system in SYSTEMS if self.of(system)}

    def write(self, output: Path) -> None:
        replace(output / "results.json", json.dumps(self.record(), indent=1) + "\n")
        replace(output / "predictions.csv", table([row for r in self.finished for row in r.predictions]))
        replace(output / "run.json", json.dumps(self.run_record(), indent=1) + "\n")

    def record(self) -> dict:
        classes = self.corpus.classes
        return {
            "corpus": self.corpus.name,
            "stand_in": self.stand_in,
            "backbone": self.backbone,
            "classes": list(classes),
            "seed": self.seed,
            "settings": asdict(self.settings),
            "finished": len(self.finished),
            "planned": self.planned,
            "utterances": len(self.corpus.utterances),
            "skipped": [{"file": str(s.path), "reason": s.reason} for s in self.corpus.skipped],
            "notes": self.corpus.notes,
            "folds": [
                {
                    "fold": r.fold,
                    "system": r.system,
                    "seed": r.seed,
                    **named(r.scores, classes),
                    "best_epoch": r.best_epoch,
                    "diagnostics": r.diagnostics,
                    "epochs": r.epochs,
                }
                for r in self.finished
            ],
            "summary": {
                system: {**summary, "pooled": named(summary["pooled"], classes)}
                for system, summary in self.summary().items()
            },
        }

    def run_record(self) -> dict:
        return {
            "command": " ".join(["python", *sys.argv]),
            "seconds": round(time.time() - self.started, 1),
            "python": platform.python_version(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
            "versions": {package: version(package) for package in PACKAGES},
        }


def summarise(scores: Sequence[Scores]) -> dict:
    uas, was = [s.ua for s in scores], [s.wa for s in scores]
    return {
        "folds": len(scores),
        "ua_mean": float(np.mean(uas)),
        "ua_std": deviation(uas),
        "wa_mean": float(np.mean(was)),
        "wa_std": deviation(was),
        "pooled": pooled(scores),
    }


def deviation(values: Sequence[float]) -> float | None:
    """The standard deviation of a sample; one fold has none."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def named(scores: Scores, classes: Sequence[str]) -> dict:
    return {**asdict(scores), "recalls": dict(zip(classes, scores.recalls, strict=True))}


def table(rows: Sequence[dict]) -> str:
    text = io.StringIO()
    if rows:
        writer = csv.DictWriter(text, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def replace(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text)
    partial.replace(path)
