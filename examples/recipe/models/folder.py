"""A trained model in a folder that stands alone: weights, configuration, and a card for those who read.

README.md                       the card
config.json                     `Description`, and the checksum of the weights; written last
model.safetensors               all weights, those of the frozen front end too
backbone/                       the encoder's own configuration, as transformers writes it; dvector has none

Nothing of it is unpickled or run.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file

from recipe.data.audio import SAMPLE_RATE
from recipe.errors import RecipeError
from recipe.features.backbones import kind_name, untrained_backbone
from recipe.files import write_text
from recipe.settings import Settings
from recipe.training.model import EmotionModel
from recipe.training.systems import POOLINGS
from recipe.training.tensor_files import write_tensors

FORMAT = 1


@dataclass(frozen=True)
class Description:
    """What a model is, apart from its weights."""

    system: str  # its name in tables
    backbone: str  # as the hub or its folder is named
    pooling: str  # one of POOLINGS
    classes: tuple[str, ...]  # in the order of the outputs
    frozen_layers: int
    layers: str
    num_heads: int
    depth: int
    longest: float  # seconds of the utterances that it was trained on, 30 at most
    typical: float  # seconds that nine in ten of them do not exceed, 2 at least
    sampling_rate: int = SAMPLE_RATE

    @property
    def settings(self) -> Settings:
        return Settings(
            frozen_layers=self.frozen_layers, layers=self.layers, num_heads=self.num_heads, depth=self.depth
        )


def write_model(folder: Path, model: EmotionModel, description: Description, card: str) -> None:
    """A folder that holds an older one's files is no model until the new ones are all there."""
    (folder / "config.json").unlink(missing_ok=True)
    (folder / "backbone").mkdir(parents=True, exist_ok=True)
    model.backbone.write_architecture(folder / "backbone")
    write_tensors(folder / "model.safetensors", model.state_dict(), {"format": "pt"})
    write_text(folder / "README.md", card)
    config = {
        "framealign_model": FORMAT,
        "kind": kind_name(model.backbone),
        **asdict(description),
        "sha256": checksum(folder),
    }
    write_text(folder / "config.json", json.dumps(config, indent=1) + "\n")


def read_model(folder: Path) -> tuple[EmotionModel, Description]:
    """Ready to be asked: in evaluation mode, on the CPU, in float32.

    Raises:
        RecipeError: When the folder is no model, or not as it was written.
    """
    config = read_config(folder)
    try:
        values = {field.name: config[field.name] for field in fields(Description)}
        description = Description(**{**values, "classes": tuple(values["classes"])})
        kind, expected = config["kind"], config["sha256"]
    except (KeyError, TypeError) as error:
        raise RecipeError(f"{folder}: its config.json is not one of a model folder: {error!r}.") from None
    if description.pooling not in POOLINGS:
        raise RecipeError(f"{folder}: its pooling is {description.pooling}, and known are {', '.join(POOLINGS)}.")
    if not (folder / "model.safetensors").exists():
        raise RecipeError(f"{folder}: its model.safetensors is missing; copy the folder again.")
    if checksum(folder) != expected:
        raise RecipeError(f"{folder}: its model.safetensors is not as it was written; copy the folder again.")
    backbone = untrained_backbone(kind, folder / "backbone", description.settings)
    pooling = POOLINGS[description.pooling](backbone.dim, description.settings)
    model = EmotionModel(backbone, pooling, len(description.classes))
    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (SafetensorError, RuntimeError) as error:
        raise RecipeError(f"{folder}: its weights and its configuration do not fit ({_first_line(error)}).") from None
    return model.eval(), description


def read_config(folder: Path) -> dict:
    path = folder / "config.json"
    if not path.exists():
        what = "there is no such folder" if not folder.exists() else "holds no config.json"
        raise RecipeError(
            f"{folder}: {what}; give a model folder, which train_model.py leaves in RUN/model, and --save_models in "
            "the folder of each training."
        )
    try:
        config = json.loads(path.read_text())
    except (ValueError, UnicodeDecodeError):
        raise RecipeError(f"{path}: is no JSON; copy the folder again.") from None
    version = config.get("framealign_model") if isinstance(config, dict) else None
    if version is None:
        raise RecipeError(
            f"{folder}: its config.json is of another program; give a folder that train_model.py or --save_models left."
        )
    if version != FORMAT:
        raise RecipeError(f"{folder}: is of format {version}, and this version reads {FORMAT}; update framealign.")
    return config


def checksum(folder: Path) -> str:
    found = hashlib.sha256()
    with (folder / "model.safetensors").open("rb") as file:
        while block := file.read(2**20):
            found.update(block)
    return found.hexdigest()


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
