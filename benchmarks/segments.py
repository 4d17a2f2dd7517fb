"""How much a change of class should cost where frames become segments, on splices whose truth is known:

python benchmarks/segments.py RUN --corpus emodb --data PATH/TO/EmoDB --classes four

RUN is the output of cross_dataset.py or loss_weights.py on that corpus. Of each of its systems, over the splices of the
test speakers of all finished trainings: the share of time that is wrong, and the changes of class in a second, with
each frame by itself and as segments by the cost of a change.
"""

import sys
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

sys.path.append(str(Path(__file__).parents[1] / "examples"))

from recipe.command_line import add_corpus_arguments, exit_with, script_parser
from recipe.data.corpora import corpora, read_corpus
from recipe.data.corpus import Fold
from recipe.data.splices import Splice, within
from recipe.errors import RecipeError
from recipe.experiment import splices_of
from recipe.inference.segments import course
from recipe.training.over_time import calm_as_neutral

COSTS = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 30.0, 60.0)


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument("run", type=Path)
    add_corpus_arguments(parser, required=True)
    options = parser.parse_args()
    corpus = read_corpus(options.corpus, options.data, options.classes)
    folds = {fold.number: fold for fold in corpora()[options.corpus].folds(corpus)}
    files = sorted(options.run.glob("trainings/seed-*-fold-*/*/splices.safetensors"))
    if not files:
        raise RecipeError(f"{options.run}: holds no trainings with splices; give the output of a run on this corpus.")
    spliced = splices_of(list(folds.values()), progress=True)
    print(
        "| % of time wrong, changes a second |",
        *(f" {cost:g} |" for cost in COSTS),
        "\n|" + " --- |" * (len(COSTS) + 1),
    )
    for system in dict.fromkeys(path.parent.name for path in files):
        own = [path for path in files if path.parent.name == system]
        scored = [pair for path in own for pair in frames(path, folds[fold_of(path)], spliced, corpus.classes)]
        cells = [measured(scored, cost) for cost in COSTS]
        print(f"| {system}, {len(own)} trainings | {' | '.join(cells)} |", flush=True)


def fold_of(path: Path) -> int:
    return int(path.parents[1].name.rpartition("-")[2])


def frames(
    path: Path, fold: Fold, spliced: list[Splice], classes: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each splice: class probabilities, and the truth."""
    found = load_file(path)
    parts = found["frame_probabilities"].split(found["lengths"].tolist())
    return [
        (
            calm_as_neutral(part.numpy(), classes),
            np.array([classes.index(name) for name in splice.truth(len(part))]),
        )
        for splice, part in zip(within(spliced, fold.test), parts, strict=True)
    ]


def measured(scored: list[tuple[np.ndarray, np.ndarray]], cost: float) -> str:
    wrong = changes = count = 0
    for probabilities, truth in scored:
        labels = course(probabilities, cost)
        wrong += int((labels != truth).sum())
        changes += int(np.count_nonzero(np.diff(labels)))
        count += len(truth)
    return f"{100 * wrong / count:.1f}, {50 * changes / count:.2f}"


if __name__ == "__main__":
    exit_with(main)
