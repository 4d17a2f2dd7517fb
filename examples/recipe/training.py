"""One training: fit, keep the epoch that is best on validation, and predict. Goes on where it was killed."""

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from torch.optim import AdamW
from torch.utils.tensorboard import SummaryWriter

from framealign.diagnostics import diagnose
from recipe.batches import UtteranceFeatures, parts, training_steps
from recipe.checkpoint import Checkpoint
from recipe.model import EmotionModel, Trainee
from recipe.plan import Training
from recipe.progress import Progress
from recipe.scores import score
from recipe.settings import Settings, Stage

TERMS = ("loss", "cross_entropy", "eal", "fual")


@dataclass(frozen=True)
class Predictions:
    """What a model says of some utterances, in their order."""

    probabilities: Tensor  # (utterances, classes)
    vectors: Tensor  # (utterances, dim), the pooled utterance vectors
    lengths: Tensor  # (utterances,), frames of each
    weights: Tensor  # (frames of all,), attention
    frame_probabilities: Tensor  # (frames of all, classes); no classes where frames are narrower than utterances
    watch: dict[str, float]  # diagnostics of framealign, averaged

    def tensors(self) -> dict[str, Tensor]:
        return {
            "probabilities": self.probabilities,
            "vectors": self.vectors,
            "lengths": self.lengths,
            "weights": self.weights,
            "frame_probabilities": self.frame_probabilities,
        }

    @property
    def classes(self) -> list[int]:
        return self.probabilities.argmax(dim=1).tolist()


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
    """
    model, stage, seed = trainee.model, training.system.training(settings), training.draw
    checkpoint = Checkpoint.read(training.checkpoint) or Checkpoint()
    if checkpoint.epochs:
        model.load_learned_state(checkpoint.model)
    optimizer = AdamW(parameter_groups(model, stage), weight_decay=settings.weight_decay, fused=True)
    if checkpoint.epochs:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": checkpoint.optimizer})
        if accelerator.scaler is not None:
            accelerator.scaler.load_state_dict(checkpoint.scaler)
    prepared, prepared_optimizer = accelerator.prepare(trainee, optimizer)
    progress.step(steps_an_epoch(len(train), settings) * len(checkpoint.epochs))
    log = None
    if accelerator.is_main_process:
        log = SummaryWriter(str(training.folder), purge_step=len(checkpoint.epochs) + 1)
    for epoch in range(len(checkpoint.epochs) + 1, stage.epochs + 1):
        # Each epoch draws from its own seed, so that it is the same after a restart; each process its own dropout
        set_seed((1_000_003 * seed + epoch) % 2**31, device_specific=True)  # numpy takes no larger seeds
        terms = train_epoch(prepared, prepared_optimizer, train, stage, settings, accelerator, seed, epoch, progress)
        found = predict(model, validation, settings, accelerator)
        scores = score(validation.labels, found.classes, found.probabilities.shape[1])
        record = {
            "epoch": epoch,
            **terms,
            "validation_ua": scores.ua,
            "validation_wa": scores.wa,
            **{f"validation_{name}": value for name, value in found.watch.items()},
        }
        checkpoint.epochs.append(record)
        checkpoint.model = copied(model.learned_state())
        if best_epoch(checkpoint.epochs) == epoch:
            checkpoint.best = checkpoint.model
        checkpoint.optimizer = optimizer.state_dict()["state"]
        checkpoint.scaler = accelerator.scaler.state_dict() if accelerator.scaler is not None else {}
        if log is not None:
            for name, value in record.items():
                log.add_scalar(name, value, epoch)
            log.flush()
            checkpoint.write(training.checkpoint)
        progress.epoch(record, stage.epochs)
    if log is not None:
        log.close()
    accelerator.free_memory()  # it holds on to all that it ever prepared
    model.load_learned_state(checkpoint.best)
    return checkpoint.epochs


def train_epoch(
    trainee: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    train: UtteranceFeatures,
    stage: Stage,
    settings: Settings,
    accelerator: Accelerator,
    seed: int,
    epoch: int,
    progress: Progress,
) -> dict[str, float]:
    """One pass over the training utterances; the mean of the loss and its terms over them."""
    trainee.train()
    steps = training_steps(train.lengths, settings.batch_size, seed, epoch)
    sums = torch.zeros(len(TERMS), device=accelerator.device)
    for number, step in enumerate(steps, start=(epoch - 1) * len(steps)):
        set_rates(optimizer, triangle(number, stage.epochs * len(steps), settings.warmup))
        optimizer.zero_grad()
        sums += backward(trainee, train, step, settings.frame_budget, accelerator)
        accelerator.clip_grad_norm_(trainee.parameters(), settings.clip_norm)
        optimizer.step()
        progress.step()
    sums = accelerator.reduce(sums, "sum") / len(train)
    return dict(zip(TERMS, sums.tolist(), strict=True))


def backward(
    trainee: torch.nn.Module,
    train: UtteranceFeatures,
    step: Sequence[int],
    frame_budget: int,
    accelerator: Accelerator,
) -> Tensor:
    """The gradient of the mean loss over a step's utterances; the sums of this process's terms.

    The step is shared out over the processes, and a share over as many passes as the frame budget asks for. Each
    pass weighs as many utterances as it has, so that the gradient depends on neither.
    """
    processes = accelerator.num_processes
    shares = parts(step, train.lengths, frame_budget, accelerator.process_index, processes)
    # A process without utterances still has to take part in the exchange of gradients, with a pass that weighs nothing
    passes = [(share, len(share)) for share in shares] or [([step[0]], 0)]
    sums = torch.zeros(len(TERMS), device=accelerator.device)
    for share, count in passes:
        last = share is passes[-1][0]
        with contextlib.nullcontext() if last else accelerator.no_sync(trainee):
            result = trainee(*train.batch(share, accelerator.device))
            # distributed training averages over processes
            accelerator.backward(result.loss * (count * processes / len(step)))
        sums += count * torch.stack([getattr(result, name).detach().float() for name in TERMS])
    return sums


@torch.no_grad()
def predict(model: EmotionModel, data: UtteranceFeatures, settings: Settings, accelerator: Accelerator) -> Predictions:
    model.eval()
    found: list[tuple[int, dict[str, Tensor]]] = []
    everyone = range(len(data))
    for share in parts(
        everyone, data.lengths, settings.frame_budget, accelerator.process_index, accelerator.num_processes
    ):
        features, mask, _ = data.batch(share, accelerator.device)
        with accelerator.autocast():
            pooled, frame_mask = model(features, mask)
            logits = model.classifier(pooled.utterance)
            watch = diagnose(pooled, model.classifier, frame_mask)._asdict()
            # The classifier of a statistics pooling is too wide for frames
            narrow = pooled.frames.shape[2] == pooled.utterance.shape[1]
            frame_logits = model.classifier(pooled.frames) if narrow else logits.new_zeros(*frame_mask.shape, 0)
        for row, index in enumerate(share):
            real = frame_mask[row]
            outputs = {
                "probabilities": logits[row].float().softmax(0),
                "vectors": pooled.utterance[row].float(),
                "weights": pooled.weights[row][real].float(),
                "frame_probabilities": frame_logits[row][real].float().softmax(1),
                **{f"watch/{name}": values[row].float() for name, values in watch.items()},
            }
            found.append((index, {name: value.cpu() for name, value in outputs.items()}))
    if accelerator.num_processes > 1:
        found = gather_object(found)
    rows = [outputs for _, outputs in sorted(found, key=lambda pair: pair[0])]
    watch = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0] if "/" in name}
    return Predictions(
        probabilities=torch.stack([row["probabilities"] for row in rows]),
        vectors=torch.stack([row["vectors"] for row in rows]),
        lengths=torch.tensor([len(row["weights"]) for row in rows]),
        weights=torch.cat([row["weights"] for row in rows]),
        frame_probabilities=torch.cat([row["frame_probabilities"] for row in rows]),
        # a diagnostic that a pooling does not have is nan
        watch={name.partition("/")[2]: value for name, value in watch.items() if not math.isnan(value)},
    )


def steps_an_epoch(utterances: int, settings: Settings) -> int:
    return -(-utterances // settings.batch_size)


def best_epoch(records: Sequence[dict]) -> int:
    """The one with the highest UA on validation; of equals the last, which has seen more."""
    return max(reversed(records), key=lambda record: record["validation_ua"])["epoch"]


def parameter_groups(model: EmotionModel, stage: Stage) -> list[dict]:
    """Three learning rates: backbone, attention, head. Frozen parameters are in none."""
    groups = (
        (model.backbone, stage.backbone_rate),
        (model.pooling, stage.attention_rate),
        (model.classifier, stage.head_rate),
    )
    return [
        {"params": learned, "lr": rate, "rate": rate}
        for part, rate in groups
        if (learned := [parameter for parameter in part.parameters() if parameter.requires_grad])
    ]


def set_rates(optimizer: torch.optim.Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = share * group["rate"]


def triangle(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: up from 0 over the first `warmup` of the steps, then down to 0."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)


def copied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in state.items()}
