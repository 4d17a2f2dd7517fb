"""Answers as lines of text."""

import csv
import io
import json
from collections.abc import Sequence

from recipe.data.audio import AudioError
from recipe.inference.answer import Answer
from recipe.inference.segments import Segment


def as_text(name: str, answer: Answer | AudioError, found: Sequence[Segment]) -> str:
    if isinstance(answer, AudioError):
        return f"{name}: cannot be used, see below"
    others = sorted(((p, label) for label, p in answer.by_class.items() if label != answer.label), reverse=True)
    rest = ", ".join(f"{label} {p:.1%}" for p, label in others)
    lines = [f"{name}: {answer.label} {answer.by_class[answer.label]:.1%}, {rest}"]
    lines += [f"  {start:8.2f} to {end:8.2f} s  {label} {p:.1%}" for start, end, label, p in found]
    return "\n".join(lines)


def as_json(name: str, answer: Answer | AudioError, found: Sequence[Segment]) -> str:
    if isinstance(answer, AudioError):
        return json.dumps({"file": name, "error": answer.reason})
    probabilities = {label: round(p, 6) for label, p in answer.by_class.items()}
    record: dict = {"file": name, "label": answer.label, "probabilities": probabilities}
    if found:
        record["segments"] = [
            {"start": round(start, 3), "end": round(end, 3), "class": label, "probability": round(p, 6)}
            for start, end, label, p in found
        ]
    return json.dumps(record)


def as_csv(name: str, answer: Answer | AudioError, found: Sequence[Segment], classes: Sequence[str]) -> str:
    if isinstance(answer, AudioError):
        return csv_line([name, "", *("" for _ in classes), answer.reason])
    return csv_line([name, answer.label, *(f"{p:.6f}" for p in answer.probabilities), ""])


def csv_header(classes: Sequence[str]) -> str:
    return csv_line(["file", "label", *(f"p_{name}" for name in classes), "error"])


def csv_line(cells: Sequence[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()
