"""What predict.py does: answers to many recordings, on the terminal and in files."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from recipe.data.audio import AudioError, seconds
from recipe.errors import RecipeError
from recipe.files import home_expanded, write_text
from recipe.inference import printed
from recipe.inference.answer import Answer
from recipe.inference.picture import answer_figure
from recipe.inference.recognizer import Recognizer
from recipe.inference.segments import Segment, as_audacity, as_csv, as_rttm, segments
from recipe.progress_bar import progress_bar
from recipe.reporting.figures.style import save

STDIN = "-"


def predict_all(
    model: Path, arguments: Sequence[str], form: str, timelines: Path | None = None, device: str | None = None
) -> int:
    """Print an answer to each recording as "text", "json" or "csv"; the exit status, 1 where a file could not be used.

    Args:
        timelines: A folder for pictures and segments.
    """
    names = list(expanded(arguments))
    recognizer = Recognizer(model, device)
    if timelines is not None and not recognizer.knows_frames:
        raise RecipeError(f"--timeline: {recognizer.description.pooling} pooling, of {model}, says nothing of frames.")
    classes = recognizer.description.classes
    line = {"text": printed.as_text, "json": printed.as_json, "csv": partial(printed.as_csv, classes=classes)}[form]
    if form == "csv":
        print(printed.csv_header(classes))
    failed = []
    length = sum(seconds(Path(name)) for name in names)
    with progress_bar(total=round(length), unit="s of audio", disable=length < 60) as bar:
        recordings = (sys.stdin.buffer.read() if name == STDIN else Path(name) for name in names)
        answers = recognizer.answers(recordings, lambda heard: bar.update(round(heard)))
        for name, file, answer in zip(names, file_names(names), answers, strict=True):
            found: list[Segment] = []
            if isinstance(answer, AudioError):
                failed.append(f"{name}: {answer.reason}")
            elif timelines is not None:
                found = segments(answer)
                write_timeline(timelines / file, answer, found, name)
            bar.write(line(name, answer, found), file=sys.stdout)
    if timelines is not None and len(failed) < len(names):
        print(f"pictures and segments: {timelines}", file=sys.stderr)
    if failed:
        print(f"{len(failed)} of {len(names)} recordings could not be used:", *failed, sep="\n  ", file=sys.stderr)
    return 1 if failed else 0


def expanded(arguments: Sequence[str]) -> Iterator[str]:
    """Folders as the audio files in them; what is neither is told where it is read."""
    for argument in arguments:
        path = home_expanded(argument)
        if argument == STDIN or not path.is_dir():
            yield argument if argument == STDIN else str(path)
            continue
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes() and not p.name.startswith("."))
        if not found:
            raise RecipeError(f"{argument}: holds no audio files, by their names ({' '.join(sorted(suffixes()))}).")
        yield from map(str, found)


def suffixes() -> set[str]:
    """Of the files that soundfile reads."""
    import soundfile

    return {f".{name.lower()}" for name in soundfile.available_formats()} | {".aif", ".oga", ".opus"}


def file_names(names: Sequence[str]) -> list[str]:
    """For the files of each timeline: its recording's own name, numbered where there are several of one name."""
    stems = ["stdin" if name == STDIN else Path(name).stem for name in names]
    seen: Counter[str] = Counter()
    found = []
    for stem in stems:
        seen[stem] += 1
        found.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return found


def write_timeline(path: Path, answer: Answer, found: list[Segment], name: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # not with_suffix, which would take the end of a name with a dot
    save(answer_figure(answer, found, Path(name).name), Path(f"{path}.png"))
    write_text(Path(f"{path}.csv"), as_csv(found))
    write_text(Path(f"{path}.rttm"), as_rttm(found, path.name))
    write_text(Path(f"{path}.labels.txt"), as_audacity(found))
