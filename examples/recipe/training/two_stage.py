"""The two stages of the method on one fold: stage 1 once, then every system from its backbone."""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from recipe.data.corpus import Utterance
from recipe.data.splices import Splice, within
from recipe.errors import RecipeError
from recipe.features.backbone import Backbone
from recipe.features.batches import UtteranceFeatures
from recipe.settings import Settings
from recipe.training.breakdown import out_of_memory, process_lost
from recipe.training.classical import classical_predictions
from recipe.training.divergence import DivergedError
from recipe.training.fit import fit
from recipe.training.model import EmotionModel, Trainee
from recipe.training.over_time import OverTime, over_time
from recipe.training.plan import Block, Training
from recipe.training.predict import Predictions, predict
from recipe.training.progress import Progress
from recipe.training.result import Result
from recipe.training.systems import CLASSICAL
from recipe.training.tensor_files import DamagedError, read_tensors, write_tensors

KeepModel = Callable[[Training, EmotionModel, Predictions], None]


@dataclass(frozen=True)
class TwoStages:
    """Trains the blocks of a plan; what is finished already is left as it is."""

    pretrained: Backbone
    features: Mapping[Any, Tensor]  # of utterances and splices, by their ids; at other speeds by id and speed
    splices: Sequence[Splice]
    classes: Sequence[str]
    settings: Settings
    accelerator: Accelerator
    progress: Progress
    keep_model: KeepModel | None  # told of each trained model, and of what it says of the fold's scored side

    def train(self, block: Block, finished: set[Training]) -> Iterator[Training]:
        """The trainings of `block` that are not in `finished`, each yielded when its files are there."""
        stage1: EmotionModel | None = None
        for training in block.trainings:
            if training in finished:
                continue
            self.progress.begin(training.name)
            if training.system is CLASSICAL:
                self.finish(training, classical_predictions(block.fold, self.classes))
            elif training is block.stage1:
                stage1 = self.new_model(training, self.pretrained)
                self.fit(training, stage1)
            else:
                stage1 = stage1 or self.finished_stage1(block.stage1)
                # Stage 2: from stage 1's backbone, with a new pooling and classifier
                self.fit(training, self.new_model(training, stage1.backbone))
            yield training

    def finished_stage1(self, training: Training) -> EmotionModel:
        """From its file; where that is damaged, trained again, to the same weights."""
        model = self.new_model(training, self.pretrained)
        try:
            state, _ = read_tensors(training.weights_file)
        except DamagedError as error:
            print(
                f"note: {training.weights_file}: not as it was written ({error}); stage 1 is trained again", flush=True
            )
            self.fit(training, model)
        else:
            model.load_learned_state(state)
        return model

    def new_model(self, training: Training, backbone: Backbone) -> EmotionModel:
        torch.manual_seed(training.draw)
        pooling = training.system.build_pooling(backbone.dim, self.settings)
        return EmotionModel(copy.deepcopy(backbone), pooling, len(self.classes)).to(self.accelerator.device)

    def fit(self, training: Training, model: EmotionModel) -> None:
        try:
            self.fit_and_finish(training, model)
        except DivergedError as error:
            raise RecipeError(
                f"{training.name}: diverged: {error}. There is no result of this training; those that are finished "
                f"are kept. Lower its learning rates (--stage{training.system.stage}.backbone_rate and the others) or "
                "--clip_norm, or look at these files; other settings need another --output."
            ) from None
        except (MemoryError, RuntimeError) as error:
            if out_of_memory(error):
                raise RecipeError(f"{training.name}: {self.memory_advice(training, error)}") from error
            if process_lost(error):
                reason = str(error).splitlines()[0]
                raise RecipeError(
                    f"{training.name}: another process was lost ({reason}). The same command goes on."
                ) from error
            raise

    def memory_advice(self, training: Training, error: BaseException) -> str:
        longest = max(len(self.features[utterance.id]) for utterance in training.fold.train)
        return (
            f"out of memory ({str(error).splitlines()[0]}). --frame_budget {self.settings.frame_budget} is what is "
            f"computed at once; less takes less, down to {longest}, the longest utterance. Then leave that out, keep "
            "more layers frozen (--frozen_layers), or compute in half precision (--precision bf16). With another "
            "budget the same command goes on from what is finished."
        )

    def fit_and_finish(self, training: Training, model: EmotionModel) -> None:
        train = UtteranceFeatures(training.fold.train, self.features, self.classes, self.settings.speeds)
        validation = self.data(training.fold.validation)
        epochs = fit(
            Trainee(model, training.system.objective()),
            train,
            validation,
            self.settings,
            self.accelerator,
            training,
            self.progress,
        )
        found = self.predict(model, training.fold.scored)
        sides = {side: utterances for side, utterances in training.fold.sides().items() if side != "train"}
        spliced = {side: within(self.splices, utterances) for side, utterances in sides.items()}
        of_splices = {side: self.predict(model, some) for side, some in spliced.items() if some}
        counts = {
            side: over_time(
                sides[side],
                found if side == "test" else self.predict(model, sides[side]),
                spliced[side],
                predictions,
                self.classes,
            )
            for side, predictions in of_splices.items()
        }
        if self.accelerator.is_main_process:
            if training.system.stage == 1:  # of which stage 2 begins, in a later run too
                write_tensors(training.weights_file, model.learned_state())
            if self.keep_model is not None:
                self.keep_model(training, model, found)
        self.finish(training, found, epochs, counts, of_splices.get("test"))

    def predict(self, model: EmotionModel, some: Sequence[Utterance] | Sequence[Splice]) -> Predictions:
        return predict(model, self.data(some), self.settings, self.accelerator)

    def data(self, some: Sequence[Utterance] | Sequence[Splice]) -> UtteranceFeatures:
        return UtteranceFeatures(some, self.features, self.classes)

    def finish(
        self,
        training: Training,
        found: Predictions,
        epochs: Sequence[dict] = (),
        counts: Mapping[str, dict[str, OverTime]] | None = None,
        of_splices: Predictions | None = None,
    ) -> None:
        if self.accelerator.is_main_process:
            Result.write(training, found, self.classes, epochs, counts, of_splices)
            training.checkpoint_file.unlink(missing_ok=True)
        self.accelerator.wait_for_everyone()
