"""Batches of utterances of similar length, cut so that no process ever holds more frames than its budget."""

import copy
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from recipe.data.corpus import Utterance
from recipe.data.splices import Splice
from recipe.errors import RecipeError
from recipe.features.ahead import made_ahead
from recipe.features.backbone import pad

_WINDOW = 50  # batches within which utterances are sorted by length
_AHEAD = 4  # batches that are ready, or in the making, while a GPU is at work on another


class Batch(NamedTuple):
    """Padded features (batch, steps, width), their mask and the labels."""

    features: Tensor
    mask: Tensor
    labels: Tensor

    def pinned(self) -> "Batch":
        """In memory that a GPU copies from by itself, while the host goes on."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        """On the device, features in float32: half precision crosses the bus as it is, and the values are the same."""
        features, mask, labels = (tensor.to(device, non_blocking=device.type == "cuda") for tensor in self)
        return Batch(features.float(), mask, labels)


class UtteranceFeatures:
    """Features and labels of some utterances, or splices of them; the features lie in the cache's memory maps.

    At speeds beside their own, utterances have features by their id and the speed.
    """

    def __init__(
        self,
        utterances: Sequence[Utterance] | Sequence[Splice],
        features: Mapping[Any, Tensor],
        classes: Sequence[str],
        speeds: Sequence[float] = (1.0,),
    ) -> None:
        self.at_speeds = [[features[u.id if speed == 1 else (u.id, speed)] for speed in speeds] for u in utterances]
        self.ids = [u.id for u in utterances]
        self.labels = [classes.index(u.label) for u in utterances]
        self.take([0] * len(utterances))

    def take(self, speeds: Sequence[int]) -> None:
        """Each utterance at its own of the speeds, by their numbers."""
        self.features = [of_one[number] for of_one, number in zip(self.at_speeds, speeds, strict=True)]
        self.lengths = [len(steps) for steps in self.features]

    def drawn(self, seed: int, epoch: int) -> "UtteranceFeatures":
        """Each utterance at a random one of its speeds, the same whenever that epoch is run."""
        found = copy.copy(self)
        count = len(self.at_speeds[0])
        found.take(np.random.default_rng((seed, epoch)).integers(count, size=len(self)).tolist())
        return found

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices: Sequence[int], device: torch.device) -> Batch:
        return self.padded(indices).to(device)

    def batches(self, passes: Sequence[Sequence[int]], device: torch.device) -> Generator[Batch, None, None]:
        """The batch of each pass, in their order; a GPU finds them ready.

        On a CPU each is made when it is asked for: the cores that would make it ahead are those that train.
        Close the iterator, for its thread to end with it.
        """
        if device.type != "cuda":
            yield from (self.batch(indices, device) for indices in passes)
            return
        ready = made_ahead(lambda indices: self.padded(indices).pinned(), passes, _AHEAD)
        with closing(ready):
            for batch in ready:
                yield batch.to(device)

    def padded(self, indices: Sequence[int]) -> Batch:
        """On the host, features in the precision that they are kept in."""
        features, mask = pad([self.features[index] for index in indices])
        return Batch(features, mask, torch.tensor([self.labels[index] for index in indices]))


def check_budget(utterances: Sequence[Utterance], features: Mapping[str, Tensor], frame_budget: int) -> None:
    longest = max(utterances, key=lambda utterance: len(features[utterance.id]))
    if len(features[longest.id]) > frame_budget:
        raise RecipeError(
            f"--frame_budget {frame_budget}: {longest.path} alone has {len(features[longest.id])} frames; raise the "
            "budget, or leave the file out."
        )


def training_steps(lengths: Sequence[int], batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The utterances of each optimiser step of one epoch: random, and of similar length within a step.

    It depends on nothing but its arguments: an epoch that is run again has the same steps.
    """
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    order = torch.randperm(len(lengths), generator=generator).tolist()
    window = _WINDOW * batch_size
    ranked = [
        index
        for start in range(0, len(order), window)
        for index in sorted(order[start : start + window], key=lengths.__getitem__)
    ]
    steps = [ranked[i : i + batch_size] for i in range(0, len(ranked), batch_size)]
    return [steps[index] for index in torch.randperm(len(steps), generator=generator).tolist()]


def within_budget(
    indices: Sequence[int], lengths: Sequence[int], frame_budget: int, process: int = 0, processes: int = 1
) -> list[list[int]]:
    """One process's share of `indices`, in batches that fit the budget with their padding.

    Utterances are dealt round by length, so that processes have the same work. A process may get none.
    """
    share = sorted(indices, key=lambda index: (lengths[index], index))[process::processes]
    found: list[list[int]] = []
    for index in share:  # ever longer: the newest is what a batch is padded to
        if found and (len(found[-1]) + 1) * lengths[index] <= frame_budget:
            found[-1].append(index)
        else:
            found.append([index])
    return found
