"""CREMA-D: 91 actors, twelve sentences, six emotions.

Cao et al., "CREMA-D: Crowd-sourced Emotional Multimodal Actors Dataset", 2014.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from recipe.data.corpus import Corpus, CorpusKind
from recipe.data.folds import speaker_folds
from recipe.data.named_files import AUDIO_SUFFIXES, read_named_files
from recipe.data.tree import check_root

NAME = "CREMA-D"
LABELS = {"ANG": "angry", "DIS": "disgusted", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
# what a complete copy gives: 1271 of each emotion and 1087 of neutral, less the files below
COUNTS = {"angry": 1270, "disgusted": 1270, "fearful": 1270, "happy": 1270, "neutral": 1086, "sad": 1269}

# pairs with the same bytes and two labels: one of the labels is wrong, and nothing tells which
CONTRADICTIONS = [
    ("1006_TIE_HAP_XX", "1006_TIE_NEU_XX"),
    ("1013_WSI_DIS_XX", "1013_WSI_SAD_XX"),
    ("1017_IWW_ANG_XX", "1017_IWW_FEA_XX"),
]
UNUSABLE = {
    "1076_MTI_SAD_XX": "holds no speech",
    **{one: f"the same bytes as {other}, under another label" for one, other in CONTRADICTIONS},
    **{other: f"the same bytes as {one}, under another label" for one, other in CONTRADICTIONS},
}

# fmt: off
WOMEN = [
    1002, 1003, 1004, 1006, 1007, 1008, 1009, 1010, 1012, 1013, 1018, 1020, 1021, 1024, 1025, 1028, 1029, 1030, 1037,
    1043, 1046, 1047, 1049, 1052, 1053, 1054, 1055, 1056, 1058, 1060, 1061, 1063, 1072, 1073, 1074, 1075, 1076, 1078,
    1079, 1082, 1084, 1089, 1091,
]
# fmt: on
MEN = [actor for actor in range(1001, 1092) if actor not in WOMEN]
# CREMA-D has no speaker-independent folds of its own: women, then men, are dealt round like cards, so that the
# five groups have 18 or 19 actors, of whom 8 or 9 are women
SPEAKER_GROUPS = [[str(actor) for actor in [*WOMEN, *MEN][group::5]] for group in range(5)]

# actor, sentence, intended emotion, level
FILE_NAME = re.compile(r"(?P<actor>10[0-8]\d|109[01])_[A-Z]{3}_(?P<emotion>ANG|DIS|FEA|HAP|NEU|SAD)_(LO|MD|HI|XX?)")


def read_crema_d(root: Path, classes: Sequence[str] = tuple(COUNTS)) -> Corpus:
    """The clips of `root`, which holds the folder AudioWAV, or is that folder.

    The label is the emotion that the actor was asked for; listeners agree with it in four clips of ten.
    """
    check_root(root, NAME, "the folder AudioWAV, with files named like 1001_DFA_ANG_XX.wav", has_clips)
    return read_named_files(
        NAME,
        audio_directory(root).iterdir(),
        parse=label_and_speaker,
        unusable=UNUSABLE,
        classes=classes,
        complete=COUNTS,
    )


def audio_directory(root: Path) -> Path:
    return root / "AudioWAV" if (root / "AudioWAV").is_dir() else root


def has_clips(root: Path) -> bool:
    audio = (path for path in audio_directory(root).glob("*") if path.suffix.lower() in AUDIO_SUFFIXES)
    return any(FILE_NAME.fullmatch(path.stem) for path in audio)


def label_and_speaker(name: str) -> tuple[str, str] | None:
    match = FILE_NAME.fullmatch(name)
    return (LABELS[match["emotion"]], match["actor"]) if match else None


CORPUS = CorpusKind("crema-d", read_crema_d, speaker_folds, SPEAKER_GROUPS, "Open Database License 1.0")
