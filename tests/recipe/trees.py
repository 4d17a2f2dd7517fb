"""Small corpora on disk, in their own layouts; the audio is empty files where only the parsing is tested."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import soundfile

from sounds import SAMPLE_RATE, tone

CATEGORIES = ("ang", "hap", "exc", "neu", "sad", "xxx")
HEADER = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n"


def iemocap_block(turn: str, category: str, start: float = 0.0, end: float = 1.0) -> str:
    return (
        f"[{start:.4f} - {end:.4f}]\t{turn}\t{category}\t[2.5000, 2.5000, 2.5000]\n"
        "C-E2:\tNeutral; Anger;\t()\n"
        "C-F1:\tNeutral;\t(curious)\n"
        "A-E3:\tval 3; act 2; dom  2;\t()\n"
        "A-E4:\tval 2; act 3; dom  ;\t(mildly aggravated but staying polite, attitude)\n"
        "\n"
    )


def write_iemocap_labels(root: Path, dialogue: str, text: str) -> Path:
    path = root / f"Session{dialogue[4]}" / "dialog" / "EmoEvaluation" / f"{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + text)
    return path


def write_iemocap_audio(root: Path, turns: Iterable[str]) -> None:
    for turn in turns:
        path = root / f"Session{turn[4]}" / "sentences" / "wav" / turn.rpartition("_")[0] / f"{turn}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def write_iemocap(root: Path, labels: dict[str, str]) -> None:
    """Label files and audio for `labels`, from turns to categories."""
    dialogues: dict[str, list[str]] = {}
    for turn in labels:
        dialogues.setdefault(turn.rpartition("_")[0], []).append(turn)
    for dialogue, turns in dialogues.items():
        write_iemocap_labels(root, dialogue, "".join(iemocap_block(turn, labels[turn]) for turn in turns))
    write_iemocap_audio(root, labels)


def touch(directory: Path, names: Iterable[str]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names:
        (directory / name).touch()


def write_iemocap_of_tones(root: Path) -> Path:
    """Two turns a class for each of the ten speakers, as tones that tell the classes apart."""
    labels = {
        f"Ses0{session}{prefix}_impro01_{sex}{2 * index + repeat:03d}": category
        for session in range(1, 6)
        for prefix, sex in (("F", "F"), ("F", "M"))
        for index, category in enumerate(CATEGORIES)
        for repeat in range(2)
    }
    write_iemocap(root, labels)
    dice = np.random.default_rng(0)
    for path in sorted(root.glob("*/sentences/wav/*/*.wav")):
        category = labels[path.stem]
        seconds = dice.uniform(0.25, 0.56)
        pitch = 150 * (2 + CATEGORIES.index(category))
        soundfile.write(path, tone(pitch, seconds, gain=0.1, noise=0.01, dice=dice), SAMPLE_RATE)
    return root
