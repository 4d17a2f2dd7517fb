"""One model for use, trained on all speakers that there are but those who choose the epoch."""

from dataclasses import replace

from recipe.command_line import Options
from recipe.data.corpus import Corpus, Fold
from recipe.data.folds import fold_for_use
from recipe.errors import RecipeError
from recipe.experiment import Experiment, announce, folds_of
from recipe.training.model import EmotionModel
from recipe.training.plan import Training, make_plan
from recipe.training.predict import Predictions
from recipe.training.systems import ATTENTIVE, CLASSICAL, STAGE_1, System, chosen_systems


def train_one_model(experiment: Experiment, system: System) -> None:
    """Into the folder `model` of the output; stopped, it goes on with the same command."""
    options = experiment.options
    plan = make_plan(options.seeds, experiment.folds, [STAGE_1, system], options.output)
    folder = options.output / "model"

    def keep(training: Training, model: EmotionModel, found: Predictions) -> None:
        if training.system is system:
            experiment.keep(folder, training, model, found)

    if experiment.accelerator.is_main_process:
        options.write(options.output / "config.yaml")
    for _ in experiment.trained(plan, keep):
        pass
    announce(
        experiment.accelerator,
        f"the model: {folder}, its card: {folder / 'README.md'}\n"
        f"ask it: python examples/predict.py {folder} speech.wav --timeline",
    )


def one_system(options: Options) -> System:
    """The system that is trained: one of the experiments' with weights of its own, or attentive pooling with losses."""
    settings = options.settings
    attentive = replace(
        ATTENTIVE,
        name="attentive + EAL + FUAL",
        eal_weight=settings.eal_weight,
        fual_weight=settings.fual_weight,
        margin=settings.margin,
    )
    if options.system == attentive.slug:
        return attentive
    *_, system = chosen_systems([options.system], settings)
    if system is STAGE_1 or system is CLASSICAL or options.system in ("paper", "all"):
        raise RecipeError(
            f"--system {options.system}: name one system of stage 2, such as cls-eal-fual or {attentive.slug}."
        )
    return system


def folds_for_use(options: Options, corpus: Corpus) -> list[Fold]:
    return [fold_for_use(folds_of(options, corpus))]
