"""A training whose numbers are none any more ends there, and says of which utterances; it never becomes a score."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from recipe.data.tree import listed

_TOLD = 32  # utterances, of a batch that has more


class DivergedError(Exception):
    """Which of a training's numbers are not finite, and of which utterances."""


class Watch:
    """Looks at the losses and the gradient of each step, and has all processes stop at the same one.

    On a GPU one step late, when they have long arrived: looking at once would have it wait for the next step.
    """

    def __init__(self, names: Sequence[str], accelerator: Accelerator) -> None:
        self.names, self.accelerator = names, accelerator
        self.pending: tuple[int, Sequence[Any], Tensor, torch.cuda.Event] | None = None

    def see(
        self, number: int, utterances: Sequence[Any], terms: Tensor, gradient_norm: Tensor, stopping: bool = False
    ) -> bool:
        """The terms of the step's loss, and the norm of its gradient; whether a process was `stopping`.

        Raises:
            DivergedError: When one of them, or of the step before, is not finite; in all processes alike.
        """
        # float16 training overflows now and then, and then takes no step and a smaller scale
        norm = torch.zeros_like(gradient_norm) if self.accelerator.scaler is not None else gradient_norm
        values = torch.cat([terms, norm.detach().to(terms).reshape(1), terms.new_full((1,), float(stopping))])
        if self.accelerator.num_processes > 1:
            values = self.accelerator.reduce(values, "sum")
        if values.device.type != "cuda":
            return self.judge(number, utterances, values)
        host, arrived = values.to("cpu", non_blocking=True), torch.cuda.Event()
        arrived.record()
        stopped = self.look()
        self.pending = number, utterances, host, arrived
        return stopped

    def look(self) -> bool:
        """At what is on its way."""
        if self.pending is None:
            return False
        number, utterances, values, arrived = self.pending
        arrived.synchronize()
        self.pending = None
        return self.judge(number, utterances, values)

    def judge(self, number: int, utterances: Sequence[Any], values: Tensor) -> bool:
        *terms, norm, stopping = values.tolist()
        found = {name: value for name, value in zip(self.names, terms, strict=True) if not math.isfinite(value)}
        if not math.isfinite(norm):
            found["norm of the gradient"] = norm
        if found:
            told = ", ".join(f"{name.replace('_', '-')} is {value}" for name, value in found.items())
            raise DivergedError(f"in step {number}, {told}; its utterances: {named(utterances)}")
        return stopping > 0


def check_outputs(probabilities: Tensor, utterances: Sequence[Any]) -> None:
    """Raises DivergedError unless what a model says of all utterances is finite."""
    wrong = (~probabilities.isfinite().all(dim=1)).nonzero().flatten().tolist()
    if wrong:
        count = f"{len(wrong)} of {len(utterances)} utterances"
        raise DivergedError(f"the model's output is not finite for {count}: {named([utterances[i] for i in wrong])}")


def named(utterances: Sequence[Any]) -> str:
    return listed([str(utterance) for utterance in utterances], limit=_TOLD)
