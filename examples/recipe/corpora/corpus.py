"""What every corpus parser returns."""

from dataclasses import dataclass, field
from pathlib import Path


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
