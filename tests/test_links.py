"""The links of README and docs lead somewhere: files are there, and anchors are headings as GitHub spells them."""

import re
from collections import Counter
from pathlib import Path

import pytest

from notebooks import FOLDER, prose

ROOT = Path(__file__).parents[1]
FOLDERS = ("src", "docs", "examples", "benchmarks", "tests")
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAGES = sorted([*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))])
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
FENCE = re.compile(r"^ *```.*?^ *```", re.M | re.S)
LINK = re.compile(r"\]\((?!\w+:)([^)\s]+)\)")
MENTION = re.compile(r"\b(?:docs|examples|benchmarks|tests)/[\w/]+\.(?:md|py)\b")


def anchors(text: str) -> set[str]:
    """Of the headings: words joined by dashes; of equal ones the second has -1 behind it."""
    found: Counter[str] = Counter()
    for heading in re.findall(r"^#+ +(.*?) *$", FENCE.sub("", text), re.M):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found[re.sub(r"[^\w\- ]", "", words).replace(" ", "-")] += 1
    return {f"{slug}-{n}" if n else slug for slug, count in found.items() for n in range(count)}


def broken_links(page: Path, text: str) -> list[str]:
    prose = re.sub(r"`[^`\n]*`", "", FENCE.sub("", text))
    return [link for link in LINK.findall(prose) if not leads_somewhere(page, text, link)]


def leads_somewhere(page: Path, text: str, link: str) -> bool:
    name, _, anchor = link.partition("#")
    target = page.parent / name
    if not name:
        return anchor in anchors(text)
    return target.exists() and (not anchor or anchor in anchors(target.read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken_links(page, prose(page)) == []


@pytest.mark.parametrize("path", [*PAGES, *SOURCES], ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_are_named_are_there(path: Path) -> None:
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))  # a block of code may show a file that is yet to be made
    assert [name for name in MENTION.findall(prose) if not (ROOT / name).exists()] == []


def test_a_broken_link_is_found() -> None:
    page = ROOT / "docs" / "method.md"
    text = """
# A *page*, with `code.py`
# Twice
# Twice
[here](#a-page-with-codepy) [second](#twice-1) [there](method.md#notation) [a
file](../examples/train_head.py) <https://example.org> [out](https://example.org/#x) `[code](nothing.md)`
[gone](gone.md) [no anchor](method.md#gone) [none here](#twice-2)
```python
x = y[0](z.md)
# Not a heading
```
"""
    assert broken_links(page, text) == ["gone.md", "method.md#gone", "#twice-2"]
