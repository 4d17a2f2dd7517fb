"""Model folders, as a training leaves them."""

from pathlib import Path

import torch

from recipe.features.backbones import load_backbone
from recipe.models.folder import Description, write_model
from recipe.training.model import EmotionModel
from recipe.training.systems import POOLINGS

CLASSES = ("angry", "happy", "sad")


def write_trained(
    folder: Path, backbone: str = "tiny", pooling: str = "cls", classes: tuple[str, ...] = CLASSES
) -> None:
    torch.manual_seed(0)
    encoder = load_backbone(backbone)
    settings = encoder.settings
    model = EmotionModel(encoder, POOLINGS[pooling](encoder.dim, settings), len(classes))
    torch.nn.init.normal_(model.classifier.weight)  # so that frames and recordings differ in what they say
    description = Description(
        "a system", backbone, pooling, classes, settings.frozen_layers, settings.layers, settings.num_heads, 1, 10, 4
    )
    write_model(folder, model, description, "")
