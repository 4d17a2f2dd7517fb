"""What a training leaves in its folder: `result.json`, and its outputs for the test utterances."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
from safetensors import safe_open
from torch import Tensor

from recipe.files import write_text
from recipe.training.plan import Training
from recipe.training.predict import Predictions
from recipe.training.scores import Scores, score
from recipe.training.tensor_files import write_tensors


@dataclass(frozen=True)
class Result:
    """A finished training, as data."""

    training: Training
    scores: Scores
    best_epoch: int | None
    diagnostics: dict[str, float]
    epochs: list[dict]

    @classmethod
    def write(
        cls,
        training: Training,
        found: Predictions,
        classes: Sequence[str],
        epochs: Sequence[dict] = (),
    ) -> None:
        """Outputs first and the record last, since that says that the training is finished."""
        training.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(training.outputs_file, found.tensors())
        labels = [classes.index(utterance.label) for utterance in training.fold.test]
        scores = score(labels, found.classes, len(classes))
        result = cls(training, scores, best_epoch(epochs) if epochs else None, found.diagnostics, list(epochs))
        write_text(training.result_file, json.dumps(result.record(), indent=1) + "\n")

    @classmethod
    def read(cls, training: Training) -> "Result":
        record = json.loads(training.result_file.read_text())
        scores = Scores(record["ua"], record["wa"], record["recalls"], record["confusion"])
        return cls(training, scores, record["best_epoch"], record["diagnostics"], record["epochs"])

    def record(self, classes: Sequence[str] | None = None) -> dict:
        """As plain data; with `classes`, recalls by their names."""
        return {
            "seed": self.training.seed,
            "fold": self.training.fold.number,
            "system": self.training.system.name,
            **(asdict(self.scores) if classes is None else self.scores.named(classes)),
            "best_epoch": self.best_epoch,
            "diagnostics": self.diagnostics,
            "epochs": self.epochs,
        }

    def output(self, name: str) -> Tensor:
        """One of the tensors that the trained model gave for the test utterances."""
        with safe_open(self.training.outputs_file, framework="pt") as file:
            return file.get_tensor(name)

    @cached_property
    def probabilities(self) -> np.ndarray:
        return self.output("probabilities").numpy()


def best_epoch(records: Sequence[dict]) -> int:
    """The one with the highest UA on validation; of equals the last, which has seen more."""
    return max(reversed(records), key=lambda record: record["validation_ua"])["epoch"]
