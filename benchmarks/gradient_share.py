"""How hard EAL and FUAL pull beside cross-entropy, at the start and at the end of stage 2:

python benchmarks/gradient_share.py --corpus emodb --classes four --data PATH/TO/EmoDB --backbone dvector

The options are those of an examples/cross_dataset.py run with --save_models, whose trained models are read. For each
part of the model it prints the norm of each term's gradient, weighted as in training, over cross-entropy's, and the
cosine between the two: a small share cannot move what cross-entropy decides, whatever the optimiser, since Adam scales
the sum and not the terms. Means over a few training batches of the first fold.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.command_line import add_common_arguments, add_corpus_arguments, exit_with, parse, script_parser
from recipe.experiment import prepare
from recipe.features.batches import UtteranceFeatures, training_steps
from recipe.models.folder import read_model
from recipe.training.model import EmotionModel
from recipe.training.plan import make_plan
from recipe.training.systems import PROPOSED, System, chosen_systems

BATCHES = 8
PARTS = ("backbone", "pooling", "classifier")


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser, required=True)
    add_common_arguments(parser)
    options = parse(parser)
    experiment = prepare(options)
    settings, classes = options.settings, experiment.corpus.classes
    systems = chosen_systems(options.systems, settings)
    block = make_plan(options.seeds[:1], experiment.folds[:1], systems, options.output)[0]
    training = next(training for training in block.systems if training.system.name == PROPOSED)
    data = UtteranceFeatures(block.fold.train, experiment.features, classes)

    torch.manual_seed(training.draw)
    pooling = training.system.build_pooling(experiment.backbone.dim, settings)
    model = EmotionModel(experiment.backbone, pooling, len(classes)).train()
    stage1 = load_file(block.stage1.weights_file)
    model.backbone.load_state_dict(
        {name.removeprefix("backbone."): value for name, value in stage1.items() if name.startswith("backbone.")},
        strict=False,
    )
    print("\n| stage 2 | part | EAL / CE | cosine | FUAL / CE | cosine |\n| --- | --- | --- | --- | --- | --- |")
    show("start", model, data, training.system, settings.batch_size)
    trained, _ = read_model(training.folder / "model")
    show("end", trained.train(), data, training.system, settings.batch_size)


def show(moment: str, model: EmotionModel, data: UtteranceFeatures, system: System, batch_size: int) -> None:
    steps = training_steps(data.lengths, batch_size, seed=0, epoch=1)[:BATCHES]
    rows = torch.stack([torch.stack(list(shares(model, data, step, system))) for step in steps]).mean(dim=0)
    for part, row in zip(PARTS, rows, strict=True):
        cells = [f"{row[0]:.1%}", f"{row[1]:+.2f}", f"{row[2]:.1%}", f"{row[3]:+.2f}"]
        print("| " + " | ".join([moment, part, *cells]) + " |")


def shares(model: EmotionModel, data: UtteranceFeatures, step: list[int], system: System) -> Iterator[Tensor]:
    """For each part of the model: norm of EAL's gradient over cross-entropy's and their cosine; the same of FUAL."""
    features, mask, labels = data.batch(step, torch.device("cpu"))
    pooled, frame_mask = model(features, mask)
    result = system.objective()(pooled, labels, model.classifier, frame_mask)
    terms = (result.cross_entropy, system.eal_weight * result.eal, system.fual_weight * result.fual)
    for part in PARTS:
        learned = [p for p in getattr(model, part).parameters() if p.requires_grad]
        ce, eal, fual = (gradient(term, learned) for term in terms)
        yield torch.stack([eal.norm() / ce.norm(), cosine(eal, ce), fual.norm() / ce.norm(), cosine(fual, ce)])


def gradient(term: Tensor, learned: list[Tensor]) -> Tensor:
    """All in one vector; zero where a term does not reach a parameter, as EAL does not reach the classifier."""
    found = torch.autograd.grad(term, learned, retain_graph=True, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for p, g in zip(learned, found, strict=True)])


def cosine(one: Tensor, other: Tensor) -> Tensor:
    return torch.nn.functional.cosine_similarity(one, other, dim=0)


if __name__ == "__main__":
    exit_with(main)
