"""What a training leaves in its folder: `result.json`, and its outputs for the test utterances and splices."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import safe_open
from torch import Tensor

from recipe.files import digest, write_text
from recipe.training.over_time import OverTime
from recipe.training.plan import Training
from recipe.training.predict import Predictions
from recipe.training.scores import Scores, score
from recipe.training.tensor_files import DamagedError, read_tensors, write_tensors


@dataclass(frozen=True)
class Result:
    """A finished training, as data."""

    training: Training
    scores: Scores
    best_epoch: int | None
    diagnostics: dict[str, float]
    epochs: list[dict]
    over_time: dict[str, dict[str, OverTime]]  # by side, validation and test, and by speaker

    @classmethod
    def write(
        cls,
        training: Training,
        found: Predictions,
        classes: Sequence[str],
        epochs: Sequence[dict] = (),
        over_time: Mapping[str, dict[str, OverTime]] | None = None,
        of_splices: Predictions | None = None,
    ) -> None:
        """Outputs first and the record last, since that says that the training is finished."""
        training.folder.mkdir(parents=True, exist_ok=True)
        write_tensors(training.outputs_file, found.tensors())
        if of_splices is not None:
            write_tensors(training.splices_file, of_splices.of_frames())
        labels = [classes.index(utterance.label) for utterance in training.fold.scored]
        scores = score(labels, found.classes, len(classes))
        best = best_epoch(epochs) if epochs else None
        result = cls(training, scores, best, found.diagnostics, list(epochs), dict(over_time or {}))
        sides = {
            side: {speaker: asdict(counts) for speaker, counts in speakers.items()}
            for side, speakers in result.over_time.items()
        }
        record = {**result.record(), "over_time": sides}
        write_text(training.result_file, json.dumps({**record, "digest": _digest(record)}) + "\n")

    @classmethod
    def read(cls, training: Training) -> "Result":
        """Raises DamagedError when that is not what was written."""
        try:
            record = json.loads(training.result_file.read_text())
            told = record.pop("digest", None)
        except (OSError, ValueError, AttributeError) as error:
            raise DamagedError(str(error)) from None
        if told != _digest(record):
            raise DamagedError("its checksum differs")
        scores = Scores(record["ua"], record["wa"], record["recalls"], record["confusion"])
        over_time = {
            side: {speaker: OverTime(**counts) for speaker, counts in speakers.items()}
            for side, speakers in record["over_time"].items()
        }
        return cls(training, scores, record["best_epoch"], record["diagnostics"], record["epochs"], over_time)

    def check_outputs(self) -> None:
        """Raises DamagedError unless the outputs are as they were written."""
        read_tensors(self.training.outputs_file)
        if self.over_time.get("test"):
            read_tensors(self.training.splices_file)

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
        return _tensor(self.training.outputs_file, name)

    def output_of_splices(self, name: str) -> Tensor:
        """One of those that say something of each frame of the test splices."""
        return _tensor(self.training.splices_file, name)

    @cached_property
    def probabilities(self) -> np.ndarray:
        return self.output("probabilities").numpy()


def forget_damaged(trainings: Iterable[Training]) -> list[str]:
    """Make those unfinished whose files are not as they were written; notes on them. They end the same once more."""
    notes = []
    for training in trainings:
        if training.finished:
            try:
                Result.read(training).check_outputs()
            except DamagedError as error:
                training.result_file.unlink()
                notes.append(f"{training.folder}: not as it was written ({error}); this training is made again")
    return notes


def _digest(record: Mapping) -> str:
    return digest(json.dumps(record, sort_keys=True).encode())


def _tensor(path: Path, name: str) -> Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def best_epoch(records: Sequence[dict]) -> int:
    """The one with the highest UA on validation; of equals the last, which has seen more."""
    return max(reversed(records), key=lambda record: record["validation_ua"])["epoch"]
