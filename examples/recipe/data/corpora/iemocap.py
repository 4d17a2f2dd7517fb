"""IEMOCAP: acted dialogues of ten speakers in five sessions, one man and one woman in each.

Busso et al., "IEMOCAP: interactive emotional dyadic motion capture database", 2008.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipe.data.corpus import Corpus, CorpusKind, Skipped, Utterance
from recipe.data.folds import session_folds
from recipe.data.tree import check_root
from recipe.errors import RecipeError

NAME = "IEMOCAP"
SESSIONS = tuple(f"Session{number}" for number in range(1, 6))

# the usual four classes: excited counts as happy, every other category is left out
LABELS = {"ang": "angry", "exc": "happy", "hap": "happy", "neu": "neutral", "sad": "sad"}
COUNTS = {"angry": 1103, "happy": 1636, "neutral": 1708, "sad": 1084}  # 5531

# "[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]"; what follows the category is not needed
TURN = re.compile(r"\[[\d.]+ - [\d.]+\]\s+(?P<id>Ses0(?P<session>[1-5])[FM]_\w+_(?P<sex>[FM])\d+)\s+(?P<category>\w+)")


def read_iemocap(root: Path, classes: Sequence[str] = tuple(COUNTS)) -> Corpus:
    """The labelled utterances of `root`, the directory that holds Session1 to Session5.

    Improvised and scripted dialogues both count. The speaker is told by the last field of a turn's name
    ("Ses01F_impro01_M011" is spoken by the man): the F or M in its first field is who wore the markers.
    """
    check_root(
        root,
        NAME,
        "Session1 to Session5, each with dialog/EmoEvaluation",
        lambda path: any(label_directory(path, session).is_dir() for session in SESSIONS),
    )
    corpus = Corpus(NAME, tuple(classes), utterances=[])
    for session in SESSIONS:
        if not label_directory(root, session).is_dir():
            corpus.notes.append(f"{session} is missing: there is no {label_directory(root, session)}.")
    seen: set[str] = set()
    without_audio: list[Path] = []
    for turn, label_file in labelled_turns(root, corpus.skipped):
        label = LABELS.get(turn["category"])
        if label not in corpus.classes:
            continue
        if turn["id"] in seen:
            corpus.skipped.append(Skipped(label_file, f"labels {turn['id']} once more; the first label is kept"))
            continue
        seen.add(turn["id"])
        session = f"Session{turn['session']}"
        # dialogue names differ in length ("script01_1b"), so the name is cut at its last field
        audio = root / session / "sentences" / "wav" / turn["id"].rpartition("_")[0] / f"{turn['id']}.wav"
        if audio.is_file():
            speaker = f"Ses0{turn['session']}{turn['sex']}"
            corpus.utterances.append(Utterance(turn["id"], audio, label, speaker, session))
        else:
            without_audio.append(audio)
    if not seen:
        raise RecipeError(
            f"{label_directory(root, '*')}: no turn is labelled {', '.join(LABELS)}; "
            "unpack the release's dialog folders again."
        )
    if not corpus.utterances:
        raise RecipeError(
            f"{root}: none of the {len(seen)} labelled turns has audio ({without_audio[0]} is missing, for one); "
            "unpack the release's sentences/wav folders too."
        )
    corpus.skipped += [Skipped(path, "labelled, but the file is missing") for path in without_audio]
    corpus.utterances.sort(key=lambda utterance: utterance.id)
    corpus.notes += corpus.count_notes(COUNTS)
    return corpus


def label_directory(root: Path, session: str) -> Path:
    return root / session / "dialog" / "EmoEvaluation"


def labelled_turns(root: Path, skipped: list[Skipped]) -> Iterator[tuple[re.Match[str], Path]]:
    """Every turn of the label files; lines that look like one but cannot be read are added to `skipped`.

    Sub-folders (Attribute, Categorical, Self-evaluation) repeat the same names for single annotators, and
    names that begin with "." are not text but file attributes that macOS left: neither is read.
    """
    for session in SESSIONS:
        for path in sorted(label_directory(root, session).glob("[!.]*.txt")):
            for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
                if not line.startswith("["):  # the header, blank lines, the votes of single annotators
                    continue
                if turn := TURN.match(line):
                    yield turn, path
                else:
                    skipped.append(Skipped(path, f"line {number} is not a labelled turn"))


CORPUS = CorpusKind(
    "iemocap",
    read_iemocap,
    session_folds,
    # the two speakers of a session talk to each other
    speaker_groups=[[f"Ses0{number}F", f"Ses0{number}M"] for number in range(1, 6)],
    licence="for research, by request to USC's SAIL, who own it",
)
