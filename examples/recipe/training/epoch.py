"""One epoch of a training: its steps, and the gradient of each."""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from torch.optim import Optimizer

from recipe.features.batches import UtteranceFeatures, training_steps, within_budget
from recipe.settings import Settings, Stage
from recipe.training.checkpoint import Begun
from recipe.training.divergence import Watch
from recipe.training.progress import Progress
from recipe.training.random_state import random_state, set_random_state
from recipe.training.stopping import Stop

TERMS = ("loss", "cross_entropy", "eal", "fual")


@dataclass(frozen=True)
class EpochTrainer:
    """What one epoch shares with the next."""

    trainee: nn.Module  # as the accelerator prepared it
    optimizer: Optimizer  # likewise
    data: UtteranceFeatures
    stage: Stage
    settings: Settings
    accelerator: Accelerator
    seed: int
    progress: Progress

    @property
    def steps(self) -> int:
        """Of one epoch."""
        return steps_an_epoch(len(self.data), self.settings)

    def train(self, epoch: int, stop: Stop, begun: Begun | None = None) -> dict[str, float] | Begun:
        """One pass over the training utterances; the mean of the loss and its terms over them.

        Args:
            stop: Looked at after each step; an epoch that is stopped is given back as it stands.
            begun: What came back then, to go on from.

        Raises:
            DivergedError: At a step whose loss or gradient is not finite.
        """
        self.trainee.train()
        device, process = self.accelerator.device, self.accelerator.process_index
        data = self.data.drawn(self.seed, epoch)
        steps = training_steps(data.lengths, self.settings.batch_size, self.seed, epoch)
        done = begun.steps if begun is not None else 0
        sums = torch.zeros(len(TERMS), device=device)
        if begun is not None and len(begun.processes) == self.accelerator.num_processes:
            sums = begun.processes[process]["sums"].to(device)
            set_random_state(begun.processes[process], device)
        found = gradients(self.trainee, data, steps[done:], self.settings.frame_budget, self.accelerator)
        watch = Watch(TERMS, self.accelerator)
        with contextlib.closing(found):
            for count, terms in enumerate(found, start=done + 1):
                sums += terms
                number = (epoch - 1) * self.steps + count
                set_rates(self.optimizer, triangle(number - 1, self.stage.epochs * self.steps, self.settings.warmup))
                norm = self.accelerator.clip_grad_norm_(self.trainee.parameters(), self.settings.clip_norm)
                utterances = [data.ids[index] for index in steps[count - 1]]
                stopped = watch.see(number, utterances, terms, norm, stop.signal is not None)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.progress.step()
                if stopped and count < len(steps):
                    state = {"sums": sums.cpu(), **random_state(device)}
                    return Begun(count, gather_object([state]) if self.accelerator.num_processes > 1 else [state])
            watch.look()
        sums = self.accelerator.reduce(sums, "sum") / len(self.data)
        return dict(zip(TERMS, sums.tolist(), strict=True))


def gradients(
    trainee: nn.Module,
    data: UtteranceFeatures,
    steps: Sequence[Sequence[int]],
    frame_budget: int,
    accelerator: Accelerator,
) -> Generator[Tensor, None, None]:
    """For each step, adds the gradient of the mean loss over its utterances; the sums of this process's terms.

    Each pass weighs as many utterances as it counts for, so that the gradient depends on neither processes nor frame
    budget. Close the iterator, as that of `UtteranceFeatures.batches`.
    """
    shares = [passes(step, data.lengths, frame_budget, accelerator) for step in steps]
    ready = data.batches([indices for share in shares for indices, _ in share], accelerator.device)
    with contextlib.closing(ready):
        for step, share in zip(steps, shares, strict=True):
            sums = torch.zeros(len(TERMS), device=accelerator.device)
            for number, (_, count) in enumerate(share, start=1):
                with contextlib.nullcontext() if number == len(share) else accelerator.no_sync(trainee):
                    result = trainee(*next(ready))
                    # distributed training averages over processes
                    accelerator.backward(result.loss * (count * accelerator.num_processes / len(step)))
                sums += count * torch.stack([getattr(result, name).detach().float() for name in TERMS])
            yield sums


def passes(
    step: Sequence[int], lengths: Sequence[int], frame_budget: int, accelerator: Accelerator
) -> list[tuple[list[int], int]]:
    """The passes of a step that are this process's: the utterances of each, and how many they count for.

    The step is shared out over the processes, and a share over as many passes as the frame budget asks for.
    """
    shares = within_budget(step, lengths, frame_budget, accelerator.process_index, accelerator.num_processes)
    # A process without utterances still has to take part in the exchange of gradients, with a pass that weighs nothing
    return [(share, len(share)) for share in shares] or [([step[0]], 0)]


def steps_an_epoch(utterances: int, settings: Settings) -> int:
    return -(-utterances // settings.batch_size)


def set_rates(optimizer: Optimizer, share: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = share * group["rate"]


def triangle(step: int, steps: int, warmup: float) -> float:
    """Share of the learning rate: up from 0 over the first `warmup` of the steps, then down to 0."""
    rising = max(1, round(steps * warmup))
    return (step + 1) / rising if step < rising else (steps - step) / max(1, steps - rising)
