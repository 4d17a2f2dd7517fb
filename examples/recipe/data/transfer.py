"""Two corpora in one: training on the first, testing on the second."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from recipe.data.corpus import Corpus, Utterance
from recipe.data.speaker_groups import speaker_groups
from recipe.errors import RecipeError


def joined(source: Corpus, target: Corpus) -> Corpus:
    """The utterances of both, each with its side in `split`; `recipe.data.folds.split_folds` makes a fold of them.

    All of `target` is test. The last of the source's speaker groups is validation, so that nothing of `target`
    has a say in the training. A fold or split that a manifest gives does not count here.
    """
    check_apart(source, target)
    validation = speaker_groups(source)[-1]
    return Corpus(
        f"{source.name} to {target.name}",
        source.classes,
        [
            *renamed(source, lambda utterance: "validation" if utterance.speaker in validation else "train"),
            *renamed(target, lambda _: "test"),
        ],
        skipped=[*source.skipped, *target.skipped],
        notes=[*source.notes, *target.notes],
        licence=source.licence,  # of what is trained on
    )


def renamed(corpus: Corpus, split: Callable[[Utterance], str]) -> Iterator[Utterance]:
    """With the corpus in the names: speaker 03 of EmoDB is not speaker 03 of RAVDESS."""
    for utterance in corpus.utterances:
        yield replace(
            utterance,
            id=f"{corpus.name}/{utterance.id}",
            speaker=f"{corpus.name}/{utterance.speaker}",
            fold="",
            split=split(utterance),
        )


def check_apart(source: Corpus, target: Corpus) -> None:
    if source.name == target.name:
        raise RecipeError(
            f"training and test corpus are both {source.name}; name two corpora "
            "(manifests of two corpora need file names that differ)."
        )
    # a manifest may list the files of another corpus under its own names
    audio = {utterance.path.resolve() for utterance in source.utterances}
    if shared := [utterance.path for utterance in target.utterances if utterance.path.resolve() in audio]:
        raise RecipeError(
            f"{shared[0]} is in both {source.name} and {target.name}, as are {len(shared)} files in all; "
            "name two corpora that share no audio."
        )
    if set(source.classes) != set(target.classes):
        raise RecipeError(
            f"{source.name} has the classes {', '.join(source.classes)}, {target.name} {', '.join(target.classes)}; "
            "use --classes four for those that all corpora share."
        )
