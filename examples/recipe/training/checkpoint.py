"""A training's state after an epoch, so that a killed run goes on from there."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from recipe.training.tensor_files import write_tensors


@dataclass
class Checkpoint:
    """What an epoch leaves. Random numbers need no place here: each epoch draws its own from seed and epoch."""

    epochs: list[dict] = field(default_factory=list)  # the records so far
    model: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)  # the model after the best of these epochs
    optimizer: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    scaler: dict = field(default_factory=dict)  # of float16 training

    def write(self, path: Path) -> None:
        tensors = {f"model/{name}": value for name, value in self.model.items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        tensors |= {
            f"optimizer/{index}/{name}": value
            for index, state in self.optimizer.items()
            for name, value in state.items()
        }
        write_tensors(path, tensors, {"epochs": json.dumps(self.epochs), "scaler": json.dumps(self.scaler)})

    @classmethod
    def read(cls, path: Path) -> "Checkpoint | None":
        """None where there is none, or none that can be read: the training then begins anew, and ends the same."""
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                found = cls(json.loads(metadata["epochs"]), scaler=json.loads(metadata["scaler"]))
                models = {"model": found.model, "best": found.best}
                for key in file.keys():  # noqa: SIM118  no mapping
                    kind, _, name = key.partition("/")
                    tensor = file.get_tensor(key).clone()  # out of the memory map
                    if kind == "optimizer":
                        index, _, name = name.partition("/")
                        found.optimizer.setdefault(int(index), {})[name] = tensor
                    else:
                        models[kind][name] = tensor
                return found
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            print(f"note: {path}: not a whole checkpoint ({error}); this training begins anew.", flush=True)
            return None
