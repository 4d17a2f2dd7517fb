"""A training's state after an epoch, or at the step where it was stopped, so that a run goes on from there."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from recipe.training.tensor_files import DamagedError, read_tensors, write_tensors


@dataclass(frozen=True)
class Begun:
    """An epoch that was stopped. Others need no random numbers kept: each draws its own from seed and epoch."""

    steps: int
    processes: list[dict[str, Tensor]]  # of each, its sums of losses and its random state


@dataclass
class Checkpoint:
    epochs: list[dict] = field(default_factory=list)  # the records so far
    begun: Begun | None = None  # the next epoch, of which the rest is the state
    model: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)  # the model after the best of these epochs
    optimizer: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    scaler: dict = field(default_factory=dict)  # of float16 training

    def write(self, path: Path) -> None:
        tensors = {f"model/{name}": value for name, value in self.model.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        numbered = {"optimizer": self.optimizer, "begun": dict(enumerate(self.begun.processes if self.begun else ()))}
        for kind, states in numbered.items():
            for index, state in states.items():
                tensors |= {f"{kind}/{index}/{name}": value for name, value in state.items()}
        record = {"epochs": self.epochs, "steps": self.begun and self.begun.steps, "scaler": self.scaler}
        write_tensors(path, tensors, {"record": json.dumps(record)})

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """None where there is none, or none that can be read: the training then begins anew, and ends the same."""
        if not path.exists():
            return None
        try:
            tensors, metadata = read_tensors(path)
        except DamagedError as error:
            print(f"note: {path}: not a whole checkpoint ({error}); this training begins anew.", flush=True)
            return None
        record = json.loads(metadata["record"])
        found = cls(record["epochs"], scaler=record["scaler"])
        models = {"model": found.model, "best": found.best}
        processes: dict[int, dict[str, Tensor]] = {}
        numbered = {"optimizer": found.optimizer, "begun": processes}
        for key, tensor in tensors.items():
            kind, _, name = key.partition("/")
            if kind in numbered:
                index, _, name = name.partition("/")
                numbered[kind].setdefault(int(index), {})[name] = tensor
            else:
                models[kind][name] = tensor
        if record["steps"] is not None:
            found.begun = Begun(record["steps"], [processes[index] for index in sorted(processes)])
        return found
