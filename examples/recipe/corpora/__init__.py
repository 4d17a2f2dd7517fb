"""Emotional speech corpora, each read from its own public layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from recipe.corpora import crema_d, emodb, ravdess
from recipe.corpora.corpus import Corpus, Skipped, Utterance
from recipe.corpora.crema_d import read_crema_d
from recipe.corpora.emodb import read_emodb
from recipe.corpora.iemocap import read_iemocap
from recipe.corpora.ravdess import read_ravdess
from recipe.errors import RecipeError

__all__ = [
    "FOUR_CLASSES",
    "READERS",
    "Corpus",
    "Skipped",
    "Utterance",
    "read_corpus",
    "read_crema_d",
    "read_emodb",
    "read_iemocap",
    "read_ravdess",
    "speaker_groups",
]

FOUR_CLASSES = ("angry", "happy", "neutral", "sad")  # every corpus has them; RAVDESS's calm is not neutral

READERS: dict[str, Callable[..., Corpus]] = {
    "iemocap": read_iemocap,
    "crema-d": read_crema_d,
    "ravdess": read_ravdess,
    "emodb": read_emodb,
}

SPEAKER_GROUPS = {module.NAME: module.SPEAKER_GROUPS for module in (crema_d, emodb, ravdess)}


def read_corpus(name: str, root: Path, classes: Literal["own", "four"] = "own") -> Corpus:
    """A corpus with its own classes, or with the four that every corpus shares."""
    if classes == "four":
        return READERS[name](root, FOUR_CLASSES)
    return READERS[name](root)


def speaker_groups(corpus: Corpus) -> list[list[str]]:
    """The speakers who are tested together, one group for each fold; those of a partial copy stay in their group."""
    present = {utterance.speaker for utterance in corpus.utterances}
    published = SPEAKER_GROUPS[corpus.name]
    groups = [[speaker for speaker in group if speaker in present] for group in published]
    groups = [group for group in groups if group]
    if len(groups) < 3:
        raise RecipeError(
            f"{corpus.name}: the {len(present)} speakers found ({', '.join(sorted(present))}) are in {len(groups)} of "
            f"the {len(published)} speaker groups; training, validation and test need three. Complete the corpus."
        )
    return groups
