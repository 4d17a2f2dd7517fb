"""Any corpus, listed in a CSV file with one row for each utterance."""

import csv
import io
import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from recipe.data.corpus import Corpus, CorpusKind, Skipped, Utterance
from recipe.data.folds import manifest_folds
from recipe.data.tree import listed
from recipe.errors import RecipeError

REQUIRED = ("path", "label", "speaker")
OPTIONAL = ("id", "fold", "split", "gender", "session")
SPLITS = {
    "": "",
    "train": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "dev": "validation",
    "test": "test",
}


def read_manifest(path: Path, classes: Sequence[str] | None = None) -> Corpus:
    """The utterances listed in `path`, a CSV file in utf-8, whose labels are among `classes`; default: all labels.

    It has the columns path, label and speaker, and may have id, fold or split, gender, and session; others are not
    read. The path of an audio file is relative to the manifest's folder. Every row is checked, whatever its label.
    """
    rows = [(line, utterance_of(path, line, cells)) for line, cells in read_rows(path)]
    if not rows:
        raise RecipeError(f"{path} lists no utterance; add a row below its header for each audio file.")
    check_unique(path, rows)
    check_sides(path, rows)
    labels = sorted({utterance.label for _, utterance in rows})
    if len(labels) < 2:
        raise RecipeError(f"{path}: every label is {labels[0]}; a classifier needs utterances of at least 2 labels.")
    if classes is None:
        classes = labels
    wanted = [utterance for _, utterance in rows if utterance.label in classes]
    if not wanted:
        raise RecipeError(
            f"{path}: none of its labels ({listed(labels)}) is one of {', '.join(classes)}; "
            "rename the labels, or use the corpus's own classes."
        )
    corpus = Corpus(path.stem, tuple(classes), utterances=[], notes=spelling_notes(rows))
    for utterance in wanted:
        if utterance.path.is_file():
            corpus.utterances.append(utterance)
        else:
            corpus.skipped.append(Skipped(utterance.path, "listed, but the file is missing"))
    if not corpus.utterances:
        raise RecipeError(
            f"{path}: none of the {len(wanted)} audio files it lists exists ({wanted[0].path} is missing, for one); "
            f"give paths relative to {path.parent}, or absolute ones."
        )
    corpus.utterances.sort(key=lambda utterance: utterance.id)
    return corpus


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """The number of each row's (last) line, and its cells by column, all of them text without blanks around it."""
    expected = f"a CSV file with the columns {', '.join(REQUIRED)}"
    if not path.exists():
        raise RecipeError(f"{path} does not exist; give {expected}.")
    if path.is_dir():
        raise RecipeError(f"{path} is a directory; give {expected}.")
    content = path.read_bytes()
    try:
        text = content.decode("utf-8-sig")  # spreadsheets write a BOM
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecipeError(
            f"{path}, line {line}: byte 0x{content[error.start]:02x} is not utf-8; save the file as CSV in utf-8."
        ) from None
    # strict, or a quote that is never closed would swallow the rest of the file
    reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
    try:
        reader.fieldnames = header(path, reader.fieldnames or [])
        for cells in reader:
            if None in cells:  # a comma too many moves every cell behind it into another column
                raise RecipeError(
                    f"{path}, line {reader.line_num}: has more cells than the header's {len(reader.fieldnames)}; "
                    "put cells that hold a comma in double quotes."
                )
            yield reader.line_num, {column: cell.strip() for column, cell in cells.items()}
    except csv.Error as error:
        # the line that was read last: the broken row begins behind it, and may end with the file
        raise RecipeError(f"{path}, line {reader.line_num + 1}: not CSV ({error}); mend its quotes.") from None


def header(path: Path, names: Sequence[str]) -> list[str]:
    """The names of the columns, unless one is missing or there twice."""
    columns = [name.strip() for name in names]
    if not any(columns):
        raise RecipeError(f"{path} has no header; its first line must name the columns {', '.join(REQUIRED)}.")
    if missing := [column for column in REQUIRED if column not in columns]:
        message = f"{path}: there is no column {' nor '.join(missing)} among {listed(columns, limit=10)!r}"
        for delimiter, name in ((";", "semicolons"), ("\t", "tabs")):
            if any(delimiter in column for column in columns):
                raise RecipeError(f"{message}. The cells are separated by {name}; separate them by commas.")
        raise RecipeError(f"{message}; its first line must name the columns {', '.join(REQUIRED)}.")
    if twice := [column for column in (*REQUIRED, *OPTIONAL) if columns.count(column) > 1]:
        raise RecipeError(f"{path}: there is more than one column {twice[0]}; keep one of them.")
    return columns


def utterance_of(path: Path, line: int, cells: dict[str, str]) -> Utterance:
    for column in REQUIRED:
        if not cells[column]:
            raise RecipeError(f"{path}, line {line}: {column} is empty; fill it, or remove the row.")
    # a speaker in two Unicode forms, as two systems write an ü, is one speaker
    written, cells = cells["path"], {column: unicodedata.normalize("NFC", cell) for column, cell in cells.items()}
    cells = dict.fromkeys(OPTIONAL, "") | cells
    split = SPLITS.get(cells["split"].lower())
    if split is None:
        raise RecipeError(
            f"{path}, line {line}: split is {cells['split']}, expected train, validation (or val, valid, dev) or test; "
            "mend it."
        )
    return Utterance(
        cells["id"] or os.path.splitext(cells["path"])[0],
        located(path.parent, written),
        cells["label"],
        cells["speaker"],
        cells["session"],
        cells["fold"],
        split,
        cells["gender"],
    )


def located(folder: Path, name: str) -> Path:
    """The file of that name, which may have Windows's separators, another Unicode form, or `~` in front."""
    spellings = [name, name.replace("\\", "/")]
    spellings += [unicodedata.normalize(form, spelling) for form in ("NFC", "NFD") for spelling in spellings]
    paths = [folder / os.path.expanduser(spelling) for spelling in spellings]
    return next((path for path in paths if path.is_file()), paths[0])


def check_unique(path: Path, rows: list[tuple[int, Utterance]]) -> None:
    """Refuse an id, or a file, that is listed twice: one recording could be in training and test."""
    ids: dict[str, int] = {}
    files: dict[str, int] = {}
    told = dict(rows)
    for line, utterance in rows:
        if (first := files.setdefault(os.path.normpath(utterance.path), line)) != line:
            if (utterance.label, utterance.speaker) == (told[first].label, told[first].speaker):
                raise RecipeError(f"{path}, line {line}: repeats line {first}; remove it.")
            raise RecipeError(
                f"{path}, line {line}: {utterance.path} is listed on line {first} too, with another label or speaker; "
                "keep one of these rows."
            )
        if (first := ids.setdefault(utterance.id, line)) != line:
            raise RecipeError(
                f"{path}, line {line}: the id {utterance.id} is that of line {first} too; "
                "give each row an id of its own in the column id."
            )


def spelling_notes(rows: list[tuple[int, Utterance]]) -> list[str]:
    """Labels, and speakers, that differ in case alone: they count as several, and may be one that was mistyped."""
    notes = []
    for column, risk in (("label", ""), ("speaker", ", and one person may so be in both training and test")):
        spelt = defaultdict(set)
        for _, utterance in rows:
            name = getattr(utterance, column)
            spelt[name.casefold()].add(name)
        notes += [
            f"The {column}s {' and '.join(sorted(names))} differ in case alone and count as {len(names)}{risk}."
            for names in spelt.values()
            if len(names) > 1
        ]
    return notes


def check_sides(path: Path, rows: list[tuple[int, Utterance]]) -> None:
    """Refuse rows without a fold or split where others have one, and rows with both."""
    for column in ("fold", "split"):
        filled = [line for line, utterance in rows if getattr(utterance, column)]
        empty = [line for line, utterance in rows if not getattr(utterance, column)]
        if filled and empty:
            raise RecipeError(
                f"{path}, line {empty[0]}: {column} is empty, but filled on line {filled[0]}; "
                "fill it in every row or in none."
            )
    if rows[0][1].fold and rows[0][1].split:
        raise RecipeError(f"{path}: both fold and split are filled; remove the column that should not count.")


CORPUS = CorpusKind("manifest", read_manifest, manifest_folds)
