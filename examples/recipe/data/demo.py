"""A small corpus of synthetic acted speech in IEMOCAP's own layout, for trying the recipe without the real one.

Ten voices of espeak-ng act four emotions by speaking faster or slower, higher or lower, livelier or flatter, pressed
or soft. The emotions overlap, and each voice has its own timbre and habits, so that an unseen one is no trivial matter.
"""

import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import soundfile
import torch
from torch import Tensor

from recipe.data.audio import SAMPLE_RATE, resampler
from recipe.data.espeak import Espeak
from recipe.errors import RecipeError
from recipe.progress_bar import progress_bar

NAME = "synthetic speech (not IEMOCAP)"  # in every title and table: the demo has IEMOCAP's layout, and no more of it

README = """\
This is synthetic speech, spoken by espeak-ng, in the layout of IEMOCAP_full_release. No actor spoke it and nobody
felt anything. It is a smoke test of the recipe: it shows that everything runs, and its scores say nothing about
the recognition of emotions. The examples of framealign make it again when this directory is deleted.
Edition 1.
"""


@dataclass(frozen=True)
class Style:
    """How an emotion, or a voice, speaks; voices add to what the emotion asks for."""

    rate: float  # words per minute
    pitch: float  # of 99
    pitch_range: float  # of 99
    effort: float  # from -1, soft and dull, to 1, pressed and bright


# the categories as IEMOCAP writes them; happy is spoken as happiness or as excitement
EMOTIONS = {
    "ang": Style(rate=212, pitch=50, pitch_range=72, effort=0.6),
    "exc": Style(rate=192, pitch=84, pitch_range=92, effort=0.2),
    "hap": Style(rate=184, pitch=78, pitch_range=88, effort=0.1),
    "neu": Style(rate=160, pitch=40, pitch_range=34, effort=-0.1),
    "sad": Style(rate=112, pitch=24, pitch_range=10, effort=-0.6),
    "fru": Style(rate=175, pitch=45, pitch_range=55, effort=0.2),
    "xxx": Style(rate=165, pitch=50, pitch_range=50, effort=0.0),
}
SPREAD = Style(rate=12, pitch=6, pitch_range=10, effort=0.2)  # standard deviation between utterances

VOTES = {"ang": "Anger", "exc": "Excited", "hap": "Happiness", "neu": "Neutral", "sad": "Sadness", "fru": "Frustration"}
DIMENSIONS = {  # valence, activation, dominance
    "ang": (2, 4, 4),
    "exc": (4, 4, 3),
    "hap": (4, 3, 3),
    "neu": (3, 2, 3),
    "sad": (2, 2, 2),
    "fru": (2, 3, 3),
    "xxx": (3, 3, 3),
}

# variants of espeak-ng's English that differ in pitch and timbre, the woman and the man of each session; none of
# the breathy ones, whose noise is another in each process
VOICES = {
    "Ses01F": ("en-us+f1", Style(rate=0, pitch=0, pitch_range=0, effort=0.0)),
    "Ses01M": ("en-us+m3", Style(rate=-5, pitch=4, pitch_range=0, effort=0.1)),
    "Ses02F": ("en-us+Annie", Style(rate=8, pitch=-3, pitch_range=4, effort=0.1)),
    "Ses02M": ("en+john", Style(rate=6, pitch=-4, pitch_range=4, effort=0.0)),
    "Ses03F": ("en+shelby", Style(rate=-8, pitch=4, pitch_range=-4, effort=0.0)),
    "Ses03M": ("en-us+pablo", Style(rate=0, pitch=0, pitch_range=-4, effort=-0.1)),
    "Ses04F": ("en-us+linda", Style(rate=4, pitch=-2, pitch_range=6, effort=-0.1)),
    "Ses04M": ("en+ed", Style(rate=-4, pitch=3, pitch_range=4, effort=-0.1)),
    "Ses05F": ("en+f4", Style(rate=0, pitch=5, pitch_range=0, effort=0.0)),
    "Ses05M": ("en-us+m4", Style(rate=5, pitch=0, pitch_range=0, effort=0.1)),
}

# every voice says every sentence in every emotion: the words tell nothing
SENTENCES = [
    "They moved the meeting to Thursday.",
    "I left the keys on the kitchen table.",
    "The train to the airport leaves at nine.",
    "You told me about it last week.",
    "There is a letter for you by the door.",
    "We are going to my mother's house.",
    "He said that he would call again.",
    "It has been raining since this morning.",
    "The form goes to the other office.",
    "She is waiting for us outside.",
    "That is what the doctor said.",
]
DIALOGUES = ["F_impro01", "F_script01_1", "M_impro01", "M_script01_1b"]


def make_demo_corpus(root: Path, progress: bool = True) -> Path:
    """Speak the demo corpus into `root`, unless it is already there, and return `root`.

    It is made in one fresh process and always in the same order, since espeak-ng repeats its samples only then. It
    gets its name when it is complete, so that an interrupted run leaves nothing that looks like a corpus.
    """
    if not is_complete(root):
        if root.exists() and (root.is_file() or any(root.iterdir())):
            raise RecipeError(f"{root} is not the demo corpus in its present edition; delete it or name another place.")
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as temporary:
            made = Path(temporary).resolve() / root.name
            speak_in_fresh_process(made, progress)
            try:
                made.rename(root)
            except OSError:
                if not is_complete(root):  # by another run, which was faster
                    raise
    return root


def is_complete(root: Path) -> bool:
    readme = root / "README.txt"
    return readme.is_file() and readme.read_text() == README


def speak_in_fresh_process(root: Path, progress: bool) -> None:
    """Run `speak_corpus` in a Python of its own; its progress bar comes by stderr and what went wrong by stdout."""
    command = [sys.executable, "-m", "recipe.data.demo", str(root), *([] if progress else ["--quiet"])]
    examples = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, cwd=examples, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        raise RecipeError(done.stdout.strip() or f"speaking the demo corpus ended with status {done.returncode}.")


def speak_corpus(root: Path, progress: bool) -> None:
    """Write the audio and the label files of every dialogue, one speaker's role in it after the other."""
    torch.set_num_threads(1)  # more of them cost more than they bring on a few seconds of sound
    espeak = Espeak()
    dice = random.Random(0)
    roles = [(speaker, *role) for speaker in VOICES for role in deal_roles(dice)]
    shown = progress_bar(roles, desc="speaking the demo corpus", unit="role", disable=not progress)
    for speaker, dialogue, turns in shown:
        session, sex = root / f"Session{speaker[4]}", speaker[5]
        name = speaker[:5] + dialogue
        wav = session / "sentences" / "wav" / name
        wav.mkdir(parents=True, exist_ok=True)
        blocks = []
        end = 0.0  # the clock of this speaker alone: turns of the two overlap in time
        for number, (category, sentence) in enumerate(turns):
            turn = f"{name}_{sex}{number:03d}"
            waveform = act(espeak, speaker, category, sentence, dice)
            soundfile.write(wav / f"{turn}.wav", waveform.numpy(), SAMPLE_RATE, subtype="PCM_16")
            start, end = end, end + len(waveform) / SAMPLE_RATE
            blocks.append(label_block(turn, category, start, end))
        labels = session / "dialog" / "EmoEvaluation" / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        if not labels.exists():
            labels.write_text("% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]\n\n")
        with labels.open("a") as file:  # the woman's turns come first, the man's after them
            file.writelines(blocks)
    (root / "README.txt").write_text(README)


def deal_roles(dice: random.Random) -> list[tuple[str, list[tuple[str, str]]]]:
    """What one speaker says in each dialogue, as (category, sentence).

    Over all dialogues that is every sentence in each of the four emotions, and some turns of other categories.
    """
    turns = [(category, sentence) for category in ("ang", "neu", "sad") for sentence in SENTENCES]
    turns += [(dice.choice(["hap", "exc"]), sentence) for sentence in SENTENCES]
    turns += [(category, dice.choice(SENTENCES)) for category in ("fru", "fru", "xxx", "xxx")]
    dice.shuffle(turns)
    return [(dialogue, turns[number :: len(DIALOGUES)]) for number, dialogue in enumerate(DIALOGUES)]


def act(espeak: Espeak, speaker: str, category: str, sentence: str, dice: random.Random) -> Tensor:
    """One turn: (samples,), float32, at `SAMPLE_RATE`."""
    voice, habit = VOICES[speaker]

    def drawn(quantity: str, lowest: float, highest: float) -> float:
        mean = getattr(EMOTIONS[category], quantity) + getattr(habit, quantity)
        return min(max(dice.gauss(mean, getattr(SPREAD, quantity)), lowest), highest)

    samples = espeak.speak(
        sentence,
        voice,
        rate=round(drawn("rate", 90, 260)),
        pitch=round(drawn("pitch", 0, 99)),
        pitch_range=round(drawn("pitch_range", 0, 99)),
        volume=round(dice.uniform(60, 120)),  # like the distance of a microphone, it tells nothing of the emotion
    )
    waveform = resampler(espeak.sample_rate)(torch.from_numpy(samples) / 32768)
    # louder voices have more of the high frequencies: tilt the spectrum up with effort, down without it
    return waveform - drawn("effort", -0.8, 0.8) * waveform.roll(1)


def label_block(turn: str, category: str, start: float, end: float) -> str:
    """The lines of one turn: its label, two votes for a category (xxx is no majority) and two ratings."""
    votes = ("Neutral", "Surprise") if category == "xxx" else (VOTES[category],) * 2
    valence, activation, dominance = DIMENSIONS[category]
    means = f"[{valence:.4f}, {activation:.4f}, {dominance:.4f}]"
    return "".join(
        [
            f"[{start:.4f} - {end:.4f}]\t{turn}\t{category}\t{means}\n",
            *(f"C-E{number}:\t{vote};\t()\n" for number, vote in enumerate(votes, start=1)),
            *(f"A-E{number}:\tval {valence}; act {activation}; dom  {dominance};\t()\n" for number in (1, 2)),
            "\n",
        ]
    )


if __name__ == "__main__":
    try:
        speak_corpus(Path(sys.argv[1]), progress="--quiet" not in sys.argv)
    except RecipeError as error:
        print(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)  # whoever started this process reports it
