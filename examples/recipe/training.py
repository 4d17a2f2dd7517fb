"""One training: fit, keep the epoch that is best on validation, and predict. Goes on where it was killed."""

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, set_seed
from torch import Tensor
from torch.optim import AdamW
from torch.utils.tensorboard import SummaryWriter

from framealign.diagnostics import diagnose
from recipe.batches import Batch, UtteranceFeatures, parts, training_steps
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
    shares = [passes(step, train.lengths, settings.frame_budget, accelerator) for step in steps]
    sums = torch.zeros(len(TERMS), device=accelerator.device)
    indices = [one for share in shares for one, _ in share]
    with contextlib.closing(train.batches(indices, accelerator.device)) as batches:
        for number, (step, share) in enumerate(zip(steps, shares, strict=True), start=(epoch - 1) * len(steps)):
            set_rates(optimizer, triangle(number, stage.epochs * len(steps), settings.warmup))
            optimizer.zero_grad()
            sums += backward(trainee, batches, [count for _, count in share], len(step), accelerator)
            accelerator.clip_grad_norm_(trainee.parameters(), settings.clip_norm)
            optimizer.step()
            progress.step()
    sums = accelerator.reduce(sums, "sum") / len(train)
    return dict(zip(TERMS, sums.tolist(), strict=True))


def passes(
    step: Sequence[int], lengths: Sequence[int], frame_budget: int, accelerator: Accelerator
) -> list[tuple[list[int], int]]:
    """The passes of a step that are this process's: the utterances of each, and how many they count for.

    The step is shared out over the processes, and a share over as many passes as the frame budget asks for.
    """
    shares = parts(step, lengths, frame_budget, accelerator.process_index, accelerator.num_processes)
    # A process without utterances still has to take part in the exchange of gradients, with a pass that weighs nothing
    return [(share, len(share)) for share in shares] or [([step[0]], 0)]


def backward(
    trainee: torch.nn.Module, batches: Iterator[Batch], counts: Sequence[int], utterances: int, accelerator: Accelerator
) -> Tensor:
    """The gradient of the mean loss over a step's utterances; the sums of this process's terms.

    `batches` gives the step's passes. Each weighs as many utterances as it counts for, so that the gradient depends on
    neither processes nor frame budget.
    """
    sums = torch.zeros(len(TERMS), device=accelerator.device)
    for number, count in enumerate(counts, start=1):
        with contextlib.nullcontext() if number == len(counts) else accelerator.no_sync(trainee):
            result = trainee(*next(batches))
            # distributed training averages over processes
            accelerator.backward(result.loss * (count * accelerator.num_processes / utterances))
        sums += count * torch.stack([getattr(result, name).detach().float() for name in TERMS])
    return sums


@torch.no_grad()
def predict(model: EmotionModel, data: UtteranceFeatures, settings: Settings, accelerator: Accelerator) -> Predictions:
    model.eval()
    shares = parts(
        range(len(data)), data.lengths, settings.frame_budget, accelerator.process_index, accelerator.num_processes
    )
    outputs = []
    with contextlib.closing(data.batches(shares, accelerator.device)) as batches:
        for features, mask, _ in batches:
            with accelerator.autocast():
                pooled, frame_mask = model(features, mask)
                logits = model.classifier(pooled.utterance)
                watch = diagnose(pooled, model.classifier, frame_mask)._asdict()
                # The classifier of a statistics pooling is too wide for frames
                narrow = pooled.frames.shape[2] == pooled.utterance.shape[1]
                frame_logits = model.classifier(pooled.frames) if narrow else logits.new_zeros(*frame_mask.shape, 0)
            of_batch = {
                "logits": logits,
                "vectors": pooled.utterance,
                "weights": pooled.weights,
                "frame_logits": frame_logits,
                **{f"watch/{name}": values for name, values in watch.items()},
            }
            on_host = {name: values.float().to("cpu", non_blocking=True) for name, values in of_batch.items()}
            outputs.append((on_host, frame_mask.to("cpu", non_blocking=True)))
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize(accelerator.device)  # the one wait: the device had all batches to work on
    found = [
        (index, one_row(on_host, mask, row))
        for share, (on_host, mask) in zip(shares, outputs, strict=True)
        for row, index in enumerate(share)
    ]
    if accelerator.num_processes > 1:
        found = gather_object(found)
    rows = [row for _, row in sorted(found, key=lambda pair: pair[0])]
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


def one_row(outputs: dict[str, Tensor], mask: Tensor, row: int) -> dict[str, Tensor]:
    """What a batch's outputs say of one utterance, without its padding; probabilities in the place of logits."""
    found = {name: values[row].clone() for name, values in outputs.items()}  # a view would keep, and send, the batch
    found["weights"] = found["weights"][mask[row]]
    found["probabilities"] = found.pop("logits").softmax(0)
    found["frame_probabilities"] = found.pop("frame_logits")[mask[row]].softmax(1)
    return found


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
