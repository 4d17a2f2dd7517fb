"""One stage of training: fit, keep the epoch that is best on validation, and predict."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from framealign import AlignmentObjective
from framealign.diagnostics import diagnose
from recipe.features import UtteranceFeatures, ordered_batches, training_batches
from recipe.model import EmotionModel
from recipe.progress import Progress
from recipe.scores import score
from recipe.settings import Settings, Stage


@dataclass(frozen=True)
class Predictions:
    """What a model says of some utterances, in their order."""

    labels: list[int]
    probabilities: np.ndarray  # (utterances, classes)
    vectors: np.ndarray  # (utterances, dim), the pooled utterance vectors
    watch: dict[str, float]  # diagnostics of framealign, averaged

    @property
    def classes(self) -> list[int]:
        return self.probabilities.argmax(axis=1).tolist()


def fit(
    model: EmotionModel,
    objective: AlignmentObjective,
    train: UtteranceFeatures,
    validation: UtteranceFeatures,
    stage: Stage,
    settings: Settings,
    accelerator: Accelerator,
    seed: int,
    progress: Progress,
) -> list[dict]:
    """Train, and leave the model as it was after its best epoch; the records of all epochs.

    The best epoch is the one with the highest UA on validation, the last of equals. Test utterances are not seen here.
    """
    optimizer = AdamW(parameter_groups(model, stage), weight_decay=settings.weight_decay)
    batches = training_batches(train, settings.batch_size, seed)
    steps = stage.epochs * len(batches)
    scheduler = LambdaLR(optimizer, lambda step: triangle(step, steps, settings.warmup))
    model, optimizer = accelerator.prepare(model, optimizer)
    records: list[dict] = []
    best_ua, best_state = -1.0, None
    for epoch in range(1, stage.epochs + 1):
        model.train()
        sums: dict[str, float] = defaultdict(float)
        for features, mask, labels in batches:
            features, mask, labels = (t.to(accelerator.device) for t in (features, mask, labels))
            pooled, frame_mask = model(features, mask)
            result = objective(pooled, labels, model.classifier, frame_mask)
            optimizer.zero_grad()
            accelerator.backward(result.loss)
            accelerator.clip_grad_norm_(model.parameters(), settings.clip_norm)
            optimizer.step()
            scheduler.step()
            for name in ("loss", "cross_entropy", "eal", "fual"):
                sums[name] += float(getattr(result, name).detach()) * len(labels)
            progress.step()
        found = predict(model, validation, settings.batch_size, accelerator)
        scores = score(found.labels, found.classes, found.probabilities.shape[1])
        record = {
            "epoch": epoch,
            **{name: total / len(train) for name, total in sums.items()},
            "validation_ua": scores.ua,
            "validation_wa": scores.wa,
            **{f"validation_{name}": value for name, value in found.watch.items()},
        }
        records.append(record)
        progress.epoch(record, stage.epochs)
        if scores.ua >= best_ua:  # of equals the later: it has seen more
            best_ua = scores.ua
            best_state = {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
    if best_state is not None:
        model.load_state_dict(best_state)
    return records


@torch.no_grad()
def predict(model: EmotionModel, data: UtteranceFeatures, batch_size: int, accelerator: Accelerator) -> Predictions:
    model.eval()
    probabilities: list[Tensor] = []
    vectors: list[Tensor] = []
    watch: dict[str, list[Tensor]] = defaultdict(list)
    for features, mask, _ in ordered_batches(data, batch_size):
        pooled, frame_mask = model(features.to(accelerator.device), mask.to(accelerator.device))
        probabilities.append(model.classifier(pooled.utterance).float().softmax(dim=1).cpu())
        vectors.append(pooled.utterance.float().cpu())
        for name, values in diagnose(pooled, model.classifier, frame_mask)._asdict().items():
            watch[name].append(values.cpu())
    return Predictions(
        labels=list(data.labels),
        probabilities=torch.cat(probabilities).numpy(),
        vectors=torch.cat(vectors).numpy(),
        watch={name: float(torch.cat(values).mean()) for name, values in watch.items()},
    )


def parameter_groups(model: EmotionModel, stage: Stage) -> Sequence[dict]:
    """Three learning rates: backbone, attention, head. Frozen parameters are in none."""
    groups = (
        (model.backbone, stage.backbone_rate),
        (model.pooling, stage.attention_rate),
        (model.classifier, stage.head_rate),
    )
    return [{"params": [p for p in part.parameters() if p.requires_grad], "lr": rate} for part, rate in groups]


def triangle(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: up from 0 over the first `warmup` of the steps, then down to 0."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)
