"""Cross-validation folds in which no speaker is on two sides."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

from recipe.data.corpus import FOUR_CLASSES, SIDES, Corpus, Fold, Utterance
from recipe.data.speaker_groups import speaker_groups
from recipe.errors import RecipeError
from recipe.files import write_text


def session_folds(corpus: Corpus) -> list[Fold]:
    """Leave one session out; in the held-out session the man is validation and the woman is test.

    Sessions are named as "Session1", whose number is the fold's, and speakers by session and sex, as "Ses01F".
    """
    folds = []
    for session in sorted({u.session for u in corpus.utterances}):
        held_out = [u for u in corpus.utterances if u.session == session]
        folds.append(
            Fold(
                int(session.removeprefix("Session")),
                train=[u for u in corpus.utterances if u.session != session],
                validation=[u for u in held_out if u.speaker.endswith("M")],
                test=[u for u in held_out if u.speaker.endswith("F")],
            )
        )
    return checked(folds, corpus.classes, corpus.notes)


def speaker_folds(corpus: Corpus) -> list[Fold]:
    """One fold for each group of speakers: the group is test, the next group validation, the others train."""
    return taking_turns(corpus, speaker_groups(corpus), lambda utterance: utterance.speaker)


def manifest_folds(corpus: Corpus) -> list[Fold]:
    """The folds that the corpus itself tells, by `split` or by `fold`; else its speakers are dealt into groups."""
    if any(u.split for u in corpus.utterances):
        return split_folds(corpus)
    if any(u.fold for u in corpus.utterances):
        return listed_folds(corpus)
    return speaker_folds(corpus)


def split_folds(corpus: Corpus) -> list[Fold]:
    """One fold, of the sides that the utterances tell by `split`: a manifest's, or those of two corpora joined."""
    sides = {side: [u for u in corpus.utterances if u.split == side] for side in SIDES}
    return checked([Fold(1, **sides)], corpus.classes, corpus.notes)


def fold_for_use(folds: Sequence[Fold], number: int = 1) -> Fold:
    """All speakers to train on, but for those who are validation in that fold and choose the epoch."""
    found = next(fold for fold in folds if fold.number == number)
    return replace(found, train=[*found.train, *found.test], test=[], for_use=True)


def listed_folds(corpus: Corpus) -> list[Fold]:
    """One fold for each value of `fold`, numbered from 1: its utterances are test, those of the next validation."""
    names = sorted({u.fold for u in corpus.utterances}, key=lambda name: (natural(name), name))
    if len(names) < 3:
        raise RecipeError(
            f"{corpus.name}: the column fold tells {len(names)} folds ({', '.join(names)}); training, validation and "
            "test need three. Tell more of them, or remove the column to have speakers dealt into groups."
        )
    return taking_turns(corpus, [[name] for name in names], lambda utterance: utterance.fold)


def natural(name: str) -> list[str | int]:
    """A key that sorts 2 before 10, and fold2 before fold10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def taking_turns(corpus: Corpus, groups: Sequence[Sequence[str]], key: Callable[[Utterance], str]) -> list[Fold]:
    """One fold for each group of keys: the group is test, the next group validation, the others train."""
    folds = []
    for number, test in enumerate(groups, start=1):
        validation = groups[number % len(groups)]
        folds.append(
            Fold(
                number,
                train=[u for u in corpus.utterances if key(u) not in (*test, *validation)],
                validation=[u for u in corpus.utterances if key(u) in validation],
                test=[u for u in corpus.utterances if key(u) in test],
            )
        )
    return checked(folds, corpus.classes, corpus.notes)


def with_only(folds: Sequence[Fold], ids: Collection[str], classes: Sequence[str]) -> list[Fold]:
    """The same folds, of the utterances in `ids` alone: an unusable file moves no speaker to another fold."""
    kept = [
        replace(fold, **{side: [u for u in found if u.id in ids] for side, found in fold.sides().items()})
        for fold in folds
    ]
    return checked(kept, classes)


def checked(folds: list[Fold], classes: Sequence[str], notes: Sequence[str] = ()) -> list[Fold]:
    """The folds, unless a speaker is on two sides or a side lacks a class: those would make scores meaningless.

    Args:
        notes: What is to be known of the corpus; it may be why a class is missing.
    """
    for fold in folds:
        speakers = {side: {u.speaker for u in utterances} for side, utterances in fold.sides().items()}
        for first, second in combinations(speakers, 2):
            if shared := sorted(speakers[first] & speakers[second]):
                raise RecipeError(
                    f"fold {fold.number}: speaker {', '.join(shared)} is in both {first} and {second}; "
                    "scores would measure the memory of a voice. Mend the speakers of the corpus."
                )
    lacking = [
        (fold.number, side, missing)
        for fold in folds
        for side, utterances in fold.sides().items()
        if (missing := [label for label in classes if label not in {u.label for u in utterances}])
    ]
    if lacking:
        number, side, missing = lacking[0]
        # they are a way out where they leave classes out, and are on every side of every fold
        four = set(FOUR_CLASSES) < set(classes) and not any(set(FOUR_CLASSES) & set(found) for *_, found in lacking)
        way_out = "use --classes four, which all sides have" if four else "choose other classes"
        message = f"fold {number}: {side} has no utterance of {', '.join(missing)}; complete the corpus, or {way_out}."
        raise RecipeError(" ".join([message, *notes]))
    return folds


def fold_records(folds: list[Fold], classes: Sequence[str]) -> list[dict]:
    """The folds as plain data, as they stand in `folds.json`."""
    records = []
    for fold in folds:
        record: dict = {"fold": fold.number}
        for side, utterances in fold.sides().items():
            counts = Counter(u.label for u in utterances)
            record[side] = {
                "speakers": sorted({u.speaker for u in utterances}),
                "counts": {label: counts[label] for label in classes},
                "utterances": [u.id for u in utterances],
            }
        records.append(record)
    return records


def write_folds(path: Path, folds: list[Fold], classes: Sequence[str]) -> None:
    write_text(path, json.dumps(fold_records(folds, classes), indent=1) + "\n")


def fold_digest(folds: list[Fold], classes: Sequence[str]) -> str:
    """What tells these folds from others."""
    return hashlib.sha256(json.dumps(fold_records(folds, classes)).encode()).hexdigest()


def fold_table(folds: list[Fold], classes: Sequence[str]) -> str:
    """A table of counts for the terminal."""
    header = ["fold", "side", "utterances", *classes, "speakers"]
    rows = []
    for record in fold_records(folds, classes):
        for side in filter(record.get, SIDES):
            part = record[side]
            counts = [str(count) for count in part["counts"].values()]
            rows.append([str(record["fold"]), side, str(len(part["utterances"])), *counts, " ".join(part["speakers"])])
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]
    return "\n".join(lines)
