"""The two stages of the method on one fold: stage 1 once, then every system from its backbone."""

import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict

import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor

from recipe.backbones import Backbone
from recipe.batches import UtteranceFeatures
from recipe.classical import classical_predictions
from recipe.corpora.corpus import Utterance
from recipe.files import write_text
from recipe.model import EmotionModel, Trainee
from recipe.plan import Part, Training
from recipe.progress import Progress
from recipe.scores import score
from recipe.settings import Settings
from recipe.systems import CLASSICAL
from recipe.tensor_files import write_tensors
from recipe.training import Predictions, best_epoch, fit, predict


class TwoStages:
    """Trains the parts of a plan; what is finished already is left as it is."""

    def __init__(
        self,
        pretrained: Backbone,
        features: Mapping[str, Tensor],
        classes: Sequence[str],
        settings: Settings,
        accelerator: Accelerator,
        progress: Progress,
        save_models: bool,
    ) -> None:
        self.pretrained, self.features, self.classes, self.settings = pretrained, features, classes, settings
        self.accelerator, self.progress, self.save_models = accelerator, progress, save_models

    def train(self, part: Part, finished: set[Training]) -> Iterator[Training]:
        """The trainings of `part` that are not in `finished`, each yielded when its files are there."""
        stage1: EmotionModel | None = None
        for training in part.trainings:
            if training in finished:
                continue
            self.progress.begin(f"seed {part.seed}, fold {part.fold.number}, {training.system.name}")
            if training.system is CLASSICAL:
                self.finish(training, [], classical_predictions(part.fold, self.classes))
            elif training is part.stage1:
                stage1 = self.new_model(training, self.pretrained)
                self.fit(training, stage1, keep=True)
            else:
                if stage1 is None:
                    stage1 = self.new_model(part.stage1, self.pretrained)
                    stage1.load_learned_state(load_file(part.stage1.weights))
                # Stage 2: from stage 1's backbone, with a new pooling and classifier
                self.fit(training, self.new_model(training, stage1.backbone), keep=self.save_models)
            yield training

    def new_model(self, training: Training, backbone: Backbone) -> EmotionModel:
        torch.manual_seed(training.draw)
        pooling = training.system.build_pooling(backbone.dim, self.settings)
        return EmotionModel(copy.deepcopy(backbone), pooling, len(self.classes)).to(self.accelerator.device)

    def fit(self, training: Training, model: EmotionModel, keep: bool) -> None:
        train, validation, test = (self.data(side) for side in training.fold.sides().values())
        records = fit(
            Trainee(model, training.system.objective()),
            train,
            validation,
            self.settings,
            self.accelerator,
            training,
            self.progress,
        )
        found = predict(model, test, self.settings, self.accelerator)
        if keep and self.accelerator.is_main_process:
            write_tensors(training.weights, model.learned_state())
        self.finish(training, records, found)

    def data(self, utterances: Sequence[Utterance]) -> UtteranceFeatures:
        return UtteranceFeatures(utterances, self.features, self.classes)

    def finish(self, training: Training, records: list[dict], found: Predictions) -> None:
        """Write what the training found, its result last, since that says that it is finished."""
        if self.accelerator.is_main_process:
            training.folder.mkdir(parents=True, exist_ok=True)
            labels = [self.classes.index(u.label) for u in training.fold.test]
            write_tensors(training.outputs, found.tensors())
            result = {
                "seed": training.seed,
                "fold": training.fold.number,
                "system": training.system.name,
                **asdict(score(labels, found.classes, len(self.classes))),
                "best_epoch": best_epoch(records) if records else None,
                "diagnostics": found.watch,
                "epochs": records,
            }
            write_text(training.result, json.dumps(result, indent=1) + "\n")
            training.checkpoint.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
