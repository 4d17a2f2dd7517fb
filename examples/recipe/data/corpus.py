"""What a corpus is to the recipe, and what it must tell of itself to be one of those that it knows."""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

FOUR_CLASSES = ("angry", "happy", "neutral", "sad")  # every corpus has them; RAVDESS's calm is not neutral
SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Utterance:
    id: str  # unique in its corpus
    path: Path  # of its audio
    label: str  # one of the corpus's classes
    speaker: str
    session: str = ""  # of the recording, where the corpus has sessions
    fold: str = ""  # in which it is test, where the corpus says so
    split: str = ""  # train, validation or test, where the corpus says so
    gender: str = ""  # of the speaker, where speakers are dealt into groups by it
    speech: tuple[float, float] | None = None  # from and to which second there is speech, where the corpus says so


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used; every one of them is counted in the report."""

    path: Path
    reason: str


@dataclass
class Corpus:
    name: str
    classes: tuple[str, ...]  # in the order of the model's outputs
    utterances: list[Utterance]
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # what a reader of the report should know about the data
    caveats: list[str] = field(default_factory=list)  # and before the scores, since it makes them wrong
    speaker_groups: Sequence[Sequence[str]] = ()  # who are tested together; none: they are dealt into groups
    licence: str = ""  # of its audio

    def with_only(self, ids: Collection[str], skipped: Sequence[Skipped]) -> "Corpus":
        """The utterances in `ids`; `skipped` are the files of the others."""
        kept = [utterance for utterance in self.utterances if utterance.id in ids]
        return replace(self, utterances=kept, skipped=[*self.skipped, *skipped])

    def count_notes(self, complete: Mapping[str, int]) -> list[str]:
        """A note for the report when it has not as many utterances of its classes as a `complete` copy gives."""
        found = Counter(utterance.label for utterance in self.utterances)
        differing = [
            f"{label} {found[label]} of {complete[label]}" for label in self.classes if found[label] != complete[label]
        ]
        if not differing:
            return []
        total = sum(complete[label] for label in self.classes)
        return [
            f"{len(self.utterances)} of the {total} utterances of a complete {self.name} were found: "
            f"{', '.join(differing)}."
        ]


@dataclass(frozen=True)
class Fold:
    number: int
    train: list[Utterance]
    validation: list[Utterance]
    test: list[Utterance]
    for_use: bool = False  # of a model that is trained on all that there is; then nobody is left to test on

    def sides(self) -> dict[str, list[Utterance]]:
        return {side: getattr(self, side) for side in SIDES if side != "test" or not self.for_use}

    @property
    def scored(self) -> list[Utterance]:
        """Those whose predictions are kept: the test side, or where there is none the one that chose the epoch."""
        return self.validation if self.for_use else self.test


@dataclass(frozen=True)
class CorpusKind:
    """A corpus that the recipe knows. Each is the `CORPUS` of one file in `corpora`, and nothing else names it."""

    name: str  # on the command line
    read: Callable[..., Corpus]  # of its folder, or file, and of the classes to take; by default its own
    folds: Callable[[Corpus], list[Fold]]
    speaker_groups: Sequence[Sequence[str]] = ()  # published ones, who are tested together
    licence: str = ""  # of the audio, as its publisher says
