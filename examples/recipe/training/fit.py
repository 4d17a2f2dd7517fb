"""One training: fit, and keep the epoch that is best on validation. Goes on where it was killed."""

import contextlib
import signal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.optim import AdamW
from torch.utils.tensorboard import SummaryWriter

from recipe.errors import Interrupted
from recipe.features.batches import UtteranceFeatures
from recipe.settings import Settings, Stage
from recipe.training.checkpoint import Begun, Checkpoint
from recipe.training.epoch import EpochTrainer
from recipe.training.model import EmotionModel, Trainee
from recipe.training.plan import Training
from recipe.training.predict import predict
from recipe.training.progress import Progress
from recipe.training.result import best_epoch
from recipe.training.scores import score
from recipe.training.stopping import Stop, stop_asked_for


def fit(
    trainee: Trainee,
    train: UtteranceFeatures,
    validation: UtteranceFeatures,
    settings: Settings,
    accelerator: Accelerator,
    training: Training,
    progress: Progress,
) -> list[dict]:
    """Train, and leave the model as it was after its best epoch; the records of all epochs.

    The best epoch is the one with the highest UA on validation, the last of equals. Test utterances are not seen here.

    Raises:
        DivergedError: When the loss, the gradient or what the model says is not finite.
        Interrupted: When it was asked to stop; the checkpoint then holds the step that it came to.
    """
    model, stage, seed = trainee.model, training.system.stage_settings(settings), training.draw
    checkpoint = Checkpoint.read(training.checkpoint_file) or Checkpoint()
    if checkpoint.model:
        model.load_learned_state(checkpoint.model)
    optimizer = AdamW(parameter_groups(model, stage), weight_decay=settings.weight_decay, fused=True)
    if checkpoint.model:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": checkpoint.optimizer})
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)
    prepared = accelerator.prepare(trainee, optimizer)
    trainer = EpochTrainer(*prepared, train, stage, settings, accelerator, seed, progress)
    progress.step(trainer.steps * len(checkpoint.epochs) + (checkpoint.begun.steps if checkpoint.begun else 0))
    main = accelerator.is_main_process
    log = SummaryWriter(str(training.folder), purge_step=len(checkpoint.epochs) + 1) if main else None

    def save() -> None:
        checkpoint.model = copied(model.learned_state())
        if checkpoint.begun is None and best_epoch(checkpoint.epochs) == len(checkpoint.epochs):
            checkpoint.best = checkpoint.model
        checkpoint.optimizer = optimizer.state_dict()["state"]
        checkpoint.scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        if main:
            checkpoint.write(training.checkpoint_file)

    with stop_asked_for() as stop, contextlib.closing(log) if log is not None else contextlib.nullcontext():
        for epoch in range(len(checkpoint.epochs) + 1, stage.epochs + 1):
            # Each epoch draws from its own seed, so that it is the same after a restart; each process its own dropout
            set_seed((1_000_003 * seed + epoch) % 2**31, device_specific=True)  # numpy takes no larger seeds
            trained = trainer.train(epoch, stop, checkpoint.begun)
            if isinstance(trained, Begun):
                checkpoint.begun = trained
                save()
                raise stopped(training, stop, f"step {trained.steps} of epoch {epoch}")
            checkpoint.begun = None
            found = predict(model, validation, settings, accelerator)
            scores = score(validation.labels, found.classes, found.probabilities.shape[1])
            record = {
                "epoch": epoch,
                **trained,
                "validation_ua": scores.ua,
                "validation_wa": scores.wa,
                **{f"validation_{name}": value for name, value in found.diagnostics.items()},
            }
            checkpoint.epochs.append(record)
            if log is not None:
                for name, value in record.items():
                    log.add_scalar(name, value, epoch)
                log.flush()
            save()
            progress.epoch(record, stage.epochs)
            if agreed(stop.signal is not None, accelerator):
                raise stopped(training, stop, f"epoch {epoch}")
    accelerator.free_memory()  # it holds on to all that it ever prepared
    model.load_learned_state(checkpoint.best)
    return checkpoint.epochs


def stopped(training: Training, stop: Stop, where: str) -> Interrupted:
    return Interrupted(stop.signal or signal.SIGTERM, f"{training.name}, after {where}; the same command goes on there")


def agreed(flag: bool, accelerator: Accelerator) -> bool:
    """Whether it is so in any process."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum") > 0)


def parameter_groups(model: EmotionModel, stage: Stage) -> list[dict]:
    """Three learning rates: backbone, attention, head. Frozen parameters are in none."""
    new = model.backbone.new_parameters()
    pretrained = [p for p in model.backbone.parameters() if all(p is not other for other in new)]
    groups = (
        (pretrained, stage.backbone_rate),
        (model.pooling.parameters(), stage.attention_rate),
        ([*model.classifier.parameters(), *new], stage.head_rate),
    )
    return [
        {"params": learned, "lr": rate, "rate": rate}
        for parameters, rate in groups
        if (learned := [parameter for parameter in parameters if parameter.requires_grad])
    ]


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
