"""Emotional speech corpora, each read from its own public layout, and any other from a manifest."""

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from recipe.corpora import crema_d, emodb, iemocap, ravdess
from recipe.corpora.corpus import Corpus, Skipped, Utterance
from recipe.corpora.crema_d import read_crema_d
from recipe.corpora.emodb import read_emodb
from recipe.corpora.iemocap import read_iemocap
from recipe.corpora.manifest import read_manifest
from recipe.corpora.ravdess import read_ravdess
from recipe.errors import RecipeError

__all__ = [
    "FOUR_CLASSES",
    "READERS",
    "Corpus",
    "Skipped",
    "Utterance",
    "dealt_speakers",
    "read_corpus",
    "read_crema_d",
    "read_emodb",
    "read_iemocap",
    "read_manifest",
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
# the two speakers of a session talk to each other
SPEAKER_GROUPS[iemocap.NAME] = [[f"Ses0{number}F", f"Ses0{number}M"] for number in range(1, 6)]


def read_corpus(name: str, root: Path, classes: Literal["own", "four"] = "own") -> Corpus:
    """A corpus with its own classes, or with the four that every corpus shares; `root` of "manifest" is its file."""
    reader = read_manifest if name == "manifest" else READERS[name]
    return reader(root, FOUR_CLASSES) if classes == "four" else reader(root)


def speaker_groups(corpus: Corpus) -> list[list[str]]:
    """The speakers who are tested together, one group for each fold; those of a partial copy stay in their group."""
    present = {utterance.speaker for utterance in corpus.utterances}
    published = SPEAKER_GROUPS.get(corpus.name, [])
    if not present.issubset(speaker for group in published for speaker in group):
        return dealt_speakers(corpus)  # a manifest's, which may be named like a corpus that has groups
    groups = [[speaker for speaker in group if speaker in present] for group in published]
    groups = [group for group in groups if group]
    if len(groups) < 3:
        raise RecipeError(
            f"{corpus.name}: the {len(present)} speakers found ({', '.join(sorted(present))}) are in {len(groups)} of "
            f"the {len(published)} speaker groups; training, validation and test need three. Complete the corpus."
        )
    return groups


def dealt_speakers(corpus: Corpus) -> list[list[str]]:
    """Speaker groups for a corpus that has none of its own: a speaker each, or five groups of more than ten speakers.

    Women, then men, or whatever genders the corpus tells, are dealt round like cards, for each group to have its share.
    """
    genders = {utterance.speaker: utterance.gender for utterance in corpus.utterances}
    if len(genders) < 3:
        raise RecipeError(
            f"{corpus.name}: found only the speakers {', '.join(sorted(genders))}; training, validation and test need "
            "one each. Add speakers, or tell apart those who share a name."
        )
    speakers = sorted(genders, key=lambda speaker: (genders[speaker], speaker))
    count = len(speakers) if len(speakers) <= 10 else 5
    return [speakers[group::count] for group in range(count)]
