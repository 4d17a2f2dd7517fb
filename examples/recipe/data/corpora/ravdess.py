"""RAVDESS, the audio-only speech: 24 Canadian actors, two sentences, eight emotions.

Livingstone and Russo, "The Ryerson Audio-Visual Database of Emotional Speech and Song", 2018.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from recipe.data.corpus import Corpus, CorpusKind
from recipe.data.folds import speaker_folds
from recipe.data.named_files import read_named_files
from recipe.data.tree import check_root

NAME = "RAVDESS"
LABELS = {
    "01": "neutral",
    "02": "calm",
    "03": "happy",
    "04": "sad",
    "05": "angry",
    "06": "fearful",
    "07": "disgusted",
    "08": "surprised",
}
# what a complete copy gives: 192 of each emotion and 96 of neutral, less the copy below
COUNTS = {
    "angry": 192,
    "calm": 192,
    "disgusted": 192,
    "fearful": 192,
    "happy": 191,
    "neutral": 96,
    "sad": 192,
    "surprised": 192,
}
UNUSABLE = {"03-01-03-01-02-02-07": "the same bytes as 03-01-03-01-02-01-07"}

# the speaker-independent folds of EmoBox (Ma et al., 2024)
SPEAKER_GROUPS = [
    ["01", "11", "20", "21"],
    ["04", "10", "12", "14"],
    ["08", "09", "19", "23"],
    ["03", "05", "07", "24"],
    ["02", "15", "16", "18"],
    ["06", "13", "17", "22"],
]

# modality (03: audio only) - channel (01: speech) - emotion - intensity - statement - repetition - actor
FILE_NAME = re.compile(r"03-01-(?P<emotion>0[1-8])-0[12]-0[12]-0[12]-(?P<actor>[01][0-9]|2[0-4])")


def read_ravdess(root: Path, classes: Sequence[str] = tuple(COUNTS)) -> Corpus:
    """The speech of `root`, the directory that holds Actor_01 to Actor_24; songs and video are skipped."""
    check_root(root, NAME, "Actor_01 to Actor_24", lambda path: any(actor_directories(path)))
    return read_named_files(
        NAME,
        [path for directory in actor_directories(root) for path in directory.iterdir()],
        parse=label_and_speaker,
        unusable=UNUSABLE,
        classes=classes,
        complete=COUNTS,
    )


def actor_directories(root: Path) -> list[Path]:
    return [path for path in root.glob("Actor_[0-9][0-9]") if path.is_dir()]


def label_and_speaker(name: str) -> tuple[str, str] | None:
    match = FILE_NAME.fullmatch(name)
    return (LABELS[match["emotion"]], match["actor"]) if match else None


CORPUS = CorpusKind("ravdess", read_ravdess, speaker_folds, SPEAKER_GROUPS, "CC BY-NC-SA 4.0")
