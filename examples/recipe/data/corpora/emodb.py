"""EmoDB, the Berlin database: ten German actors, ten sentences, seven emotions.

Burkhardt et al., "A Database of German Emotional Speech", 2005.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from recipe.data.corpus import Corpus, CorpusKind
from recipe.data.folds import speaker_folds
from recipe.data.named_files import read_named_files
from recipe.data.tree import check_root

NAME = "EmoDB"
LABELS = {  # letters of the German words
    "W": "angry",  # Wut
    "L": "bored",  # Langeweile
    "E": "disgusted",  # Ekel
    "A": "fearful",  # Angst
    "F": "happy",  # Freude
    "N": "neutral",
    "T": "sad",  # Trauer
}
COUNTS = {"angry": 127, "bored": 81, "disgusted": 46, "fearful": 69, "happy": 71, "neutral": 79, "sad": 62}

# one speaker is tested at a time, for there are few; the next, of the other sex, is the validation speaker
SPEAKER_GROUPS = [["03"], ["08"], ["10"], ["09"], ["11"], ["13"], ["12"], ["14"], ["15"], ["16"]]

# speaker, sentence, emotion, version: 03a01Fa
PHONE = re.compile(r"^\s*(\d+\.\d+)\s+-1\b", re.MULTILINE)  # in a file of lablaut: time, colour, label
FILE_NAME = re.compile(r"(?P<speaker>03|08|09|1[0-6])[ab]\d\d(?P<emotion>[WLEAFNT])[a-z]?")


def read_emodb(root: Path, classes: Sequence[str] = tuple(COUNTS)) -> Corpus:
    """The utterances of `root`, which holds the folder wav, or is that folder.

    Other folders beside wav are not read: their copies, cut or resampled for some emotions only, would let a
    model tell emotions by the format of a file.
    """
    check_root(root, NAME, "the folder wav, with files named like 03a01Fa.wav", has_speech)
    corpus = read_named_files(
        NAME, audio_directory(root).iterdir(), parse=label_and_speaker, unusable={}, classes=classes, complete=COUNTS
    )
    corpus.utterances = [replace(u, speech=labelled_speech(root, u.id)) for u in corpus.utterances]
    return corpus


def labelled_speech(root: Path, name: str) -> tuple[float, float] | None:
    """From the first to the last phone label in `lablaut`, where the copy has it.

    A label stands at the time where its phone begins, and the last one where speech ends.
    """
    path = root / "lablaut" / f"{name}xx.lablaut"
    if not path.is_file():
        return None
    _, _, labels = path.read_text("iso-8859-1").partition("\n#\n")
    times = [float(match[1]) for match in PHONE.finditer(labels)]
    return (times[0], times[-1]) if times else None


def audio_directory(root: Path) -> Path:
    return root / "wav" if (root / "wav").is_dir() else root


def has_speech(root: Path) -> bool:
    return any(label_and_speaker(path.stem) for path in audio_directory(root).glob("*.[wW][aA][vV]"))


def label_and_speaker(name: str) -> tuple[str, str] | None:
    match = FILE_NAME.fullmatch(name)
    return (LABELS[match["emotion"]], match["speaker"]) if match else None


CORPUS = CorpusKind("emodb", read_emodb, speaker_folds, SPEAKER_GROUPS, "CC0 1.0, in the publication by audEERING")
