"""What a model says of utterances, each on its own again."""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from framealign import Pooled
from framealign.diagnostics import diagnose
from recipe.features.batches import UtteranceFeatures, within_budget
from recipe.settings import Settings
from recipe.training.divergence import check_outputs
from recipe.training.model import EmotionModel


@dataclass(frozen=True)
class Predictions:
    """What a model says of some utterances, in their order."""

    probabilities: Tensor  # (utterances, classes)
    vectors: Tensor  # (utterances, dim), the pooled utterance vectors
    lengths: Tensor  # (utterances,), frames of each
    weights: Tensor  # (frames of all,), attention
    frame_probabilities: Tensor  # (frames of all, classes); no classes where frames are narrower than utterances
    diagnostics: dict[str, float]  # framealign's, averaged

    def tensors(self) -> dict[str, Tensor]:
        return {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}

    def of_frames(self) -> dict[str, Tensor]:
        return {name: self.tensors()[name] for name in ("lengths", "weights", "frame_probabilities")}

    @property
    def classes(self) -> list[int]:
        return self.probabilities.argmax(dim=1).tolist()


@torch.no_grad()
def predict(model: EmotionModel, data: UtteranceFeatures, settings: Settings, accelerator: Accelerator) -> Predictions:
    """Raises DivergedError when what it says is not finite."""
    model.eval()
    shares = within_budget(
        range(len(data)), data.lengths, settings.frame_budget, accelerator.process_index, accelerator.num_processes
    )
    outputs = []
    with contextlib.closing(data.batches(shares, accelerator.device)) as batches:
        for features, mask, _ in batches:
            with accelerator.autocast():
                pooled, frame_mask = model(features, mask)
                of_batch = batch_outputs(model, pooled)
                diagnostics = diagnose(pooled, model.classifier, frame_mask)._asdict()
            outputs.append((on_host(of_batch), on_host(diagnostics), frame_mask.to("cpu", non_blocking=True)))
    if accelerator.device.type != "cpu":
        torch.accelerator.synchronize(accelerator.device)  # the one wait: the device had all batches to work on
    found = [
        (index, one_row(of_batch, mask, row), {name: float(values[row]) for name, values in diagnostics.items()})
        for share, (of_batch, diagnostics, mask) in zip(shares, outputs, strict=True)
        for row, index in enumerate(share)
    ]
    if accelerator.num_processes > 1:
        found = gather_object(found)
    _, rows, diagnosed = zip(*sorted(found, key=lambda entry: entry[0]), strict=True)
    means = {name: float(torch.tensor([one[name] for one in diagnosed]).mean()) for name in diagnosed[0]}
    probabilities = torch.stack([row["probabilities"] for row in rows])
    check_outputs(probabilities, data.ids)
    return Predictions(
        probabilities=probabilities,
        vectors=torch.stack([row["vectors"] for row in rows]),
        lengths=torch.tensor([len(row["weights"]) for row in rows]),
        weights=torch.cat([row["weights"] for row in rows]),
        frame_probabilities=torch.cat([row["frame_probabilities"] for row in rows]),
        # one that a pooling does not have is nan
        diagnostics={name: value for name, value in means.items() if not math.isnan(value)},
    )


def batch_outputs(model: EmotionModel, pooled: Pooled) -> dict[str, Tensor]:
    logits = model.classifier(pooled.utterance)
    # The classifier of a statistics pooling is too wide for frames
    narrow = pooled.frames.shape[2] == pooled.utterance.shape[1]
    return {
        "logits": logits,
        "vectors": pooled.utterance,
        "weights": pooled.weights,
        "frame_logits": model.classifier(pooled.frames) if narrow else logits.new_zeros(*pooled.weights.shape, 0),
    }


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: values.float().to("cpu", non_blocking=True) for name, values in tensors.items()}


def one_row(outputs: dict[str, Tensor], mask: Tensor, row: int) -> dict[str, Tensor]:
    """What a batch's outputs say of one utterance, without its padding; probabilities in the place of logits."""
    found = {name: values[row].clone() for name, values in outputs.items()}  # a view would keep, and send, the batch
    found["weights"] = found["weights"][mask[row]]
    found["probabilities"] = found.pop("logits").softmax(0)
    found["frame_probabilities"] = found.pop("frame_logits")[mask[row]].softmax(1)
    return found
