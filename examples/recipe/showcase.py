"""The figures of a run, from its results and from the models of one of its folds."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from recipe.audio import read_waveform
from recipe.figures import Timeline, draw_confusion, draw_timeline, draw_tsne
from recipe.results import Results
from recipe.two_stage import Trained


class Showcase:
    """Keeps what the figures need of the first fold whose systems are all trained."""

    def __init__(self, features: Mapping[str, Tensor]) -> None:
        self.features = features
        self.fold: int | None = None
        self.labels: list[int] = []
        self.vectors: dict[str, np.ndarray] = {}
        self.timeline: Timeline | None = None

    def add(self, trained: Trained, classes: tuple[str, ...], accelerator: Accelerator) -> None:
        if self.fold not in (None, trained.fold.number):
            return
        self.fold, self.labels = trained.fold.number, trained.test.labels
        self.vectors[trained.system] = trained.test.vectors
        self.timeline = timeline(trained, self.features, classes, accelerator)

    def draw(self, output: Path, results: Results) -> None:
        classes = results.corpus.classes
        name = results.corpus.name + (", synthetic stand-in" if results.stand_in else "")
        summary = results.summary()
        pooled = {system: part["pooled"] for system, part in summary.items()}
        folds = max(part["folds"] for part in summary.values())
        draw_confusion(
            output / "confusion_matrix.png",
            pooled,
            classes,
            f"{name}\ntest utterances of {folds} fold{'s' * (folds > 1)} together, per cent of the true class",
        )
        draw_tsne(
            output / "tsne.png",
            self.vectors,
            self.labels,
            classes,
            f"{name}\nutterance vectors of fold {self.fold}'s test speakers, coloured by true class",
        )
        if self.timeline is not None:
            draw_timeline(output / "timeline.png", self.timeline, classes)


@torch.no_grad()
def timeline(
    trained: Trained, features: Mapping[str, Tensor], classes: tuple[str, ...], accelerator: Accelerator
) -> Timeline:
    """The test utterance of median length among those that were recognised (among all, if none was)."""
    test = trained.test
    pairs = list(zip(trained.fold.test, test.labels, test.classes, strict=True))
    recognised = [pair for pair in pairs if pair[1] == pair[2]] or pairs
    recognised.sort(key=lambda pair: len(features[pair[0].id]))
    utterance, label, prediction = recognised[len(recognised) // 2]
    steps = features[utterance.id][None].to(accelerator.device)
    pooled, _ = trained.model(steps, torch.ones(steps.shape[:2], dtype=torch.bool, device=steps.device))
    probabilities = trained.model.classifier(pooled.frames).softmax(dim=2)
    return Timeline(
        title=f"{utterance.id}: {classes[label]}, recognised as {classes[prediction]}\n{trained.system}",
        waveform=read_waveform(utterance.path).numpy(),
        weights=pooled.weights[0].cpu().numpy(),
        probabilities=probabilities[0].float().cpu().numpy(),
    )
