"""The two stages of the method on one fold."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from torch import Tensor

from framealign import AlignmentObjective, AttentivePooling, CLSSelfAttentionPooling
from recipe.backbones import Backbone
from recipe.features import UtteranceFeatures
from recipe.folds import Fold
from recipe.model import EmotionModel
from recipe.progress import Progress
from recipe.scores import Scores, score
from recipe.settings import Settings, Stage
from recipe.training import Predictions, fit, predict

STAGE_1 = "stage 1: attentive pooling, CE"
STAGE_2 = "stage 2: CLS pooling, CE + EAL + FUAL"
SYSTEMS = (STAGE_1, STAGE_2)


@dataclass(frozen=True)
class Trained:
    """One system, trained on one fold, and what it says of that fold's test utterances."""

    fold: Fold
    system: str
    seed: int
    model: EmotionModel
    epochs: list[dict]
    test: Predictions
    scores: Scores


def train_two_stages(
    fold: Fold,
    pretrained: Backbone,
    features: Mapping[str, Tensor],
    classes: Sequence[str],
    settings: Settings,
    seed: int,
    accelerator: Accelerator,
    progress: Progress,
) -> Iterator[Trained]:
    """Train both stages, each yielded as it is finished."""
    train, validation, test = (UtteranceFeatures(side, features, classes) for side in fold.sides().values())

    def trained(system: str, model: EmotionModel, objective: AlignmentObjective, stage: Stage) -> Trained:
        model.to(accelerator.device)
        progress.begin(f"fold {fold.number}, {system.split(':')[0]}")
        epochs = fit(model, objective, train, validation, stage, settings, accelerator, seed, progress)
        found = predict(model, test, settings.batch_size, accelerator)
        return Trained(fold, system, seed, model, epochs, found, score(found.labels, found.classes, len(classes)))

    # Stage 1: fine-tune the backbone with attentive pooling and cross-entropy alone
    torch.manual_seed(seed)
    backbone = copy.deepcopy(pretrained)
    model = EmotionModel(backbone, AttentivePooling(backbone.dim), len(classes))
    yield trained(STAGE_1, model, AlignmentObjective(eal_weight=0.0, fual_weight=0.0), settings.stage1)

    # Stage 2: from stage 1's backbone, with a new CLS pooling and classifier, and all three losses
    torch.manual_seed(seed + 1)
    pooling = CLSSelfAttentionPooling(backbone.dim, settings.num_heads, settings.depth)
    model = EmotionModel(backbone, pooling, len(classes))
    objective = AlignmentObjective(
        margin=settings.margin, eal_weight=settings.eal_weight, fual_weight=settings.fual_weight
    )
    yield trained(STAGE_2, model, objective, settings.stage2)
