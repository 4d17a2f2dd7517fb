"""The site of the docs builds without a warning, and no page of it loads anything from elsewhere."""

import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "latex2mathml", "nbconvert"):
    pytest.importorskip(package)

ROOT = Path(__file__).parents[1]
LOADING = {("audio", "src"), ("iframe", "src"), ("img", "src"), ("link", "href"), ("script", "src"), ("source", "src")}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    return folder


class Loads(HTMLParser):
    """What a page has its browser fetch without being asked, by tags; links to click on are none of it."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if (tag, name) in LOADING]


def from_elsewhere(addresses: list[str]) -> list[str]:
    return [address for address in addresses if re.match(r"(\w+:)?//", address)]


def pages(site: Path) -> Iterator[Path]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 40
    yield from found


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    loaded = {page.relative_to(site): Loads(page).found for page in pages(site) if page.name != "404.html"}
    assert all(loaded.values())  # style and script at least
    assert {page: from_elsewhere(addresses) for page, addresses in loaded.items() if from_elsewhere(addresses)} == {}
    # All that is loaded is there
    for page, addresses in loaded.items():
        for address in addresses:
            assert (site / page).parent.joinpath(address.partition("?")[0]).exists(), (page, address)


def test_no_style_loads_anything_from_elsewhere(site: Path) -> None:
    sheets = sorted(site.rglob("*.css"))
    assert sheets
    for sheet in sheets:
        text = sheet.read_text(encoding="utf-8")
        assert from_elsewhere(re.findall(r"""(?:url\(|@import)\s*["']?([^"')\s]+)""", text)) == [], sheet


def test_formulas_are_drawn_without_a_script(site: Path) -> None:
    assert (site / "method.html").read_text(encoding="utf-8").count("<math ") > 40
    for page in pages(site):
        text = page.read_text(encoding="utf-8")
        assert "arithmatex" not in text, page
        # The one thing that the theme's script would load from elsewhere
        assert 'class="mermaid"' not in text, page


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("index.html", "images/timeline.png"),
        ("contributing.html", "A backbone"),
        ("recipe/code.html", "A tour"),
        ("source/examples/train_head.py.html", "AlignmentObjective"),
        ("modules/mean_pooling.html", "framealign.MeanPooling"),
        ("emotion_over_time.html", 'href="notebooks/see_what_the_losses_do.html"'),
        ("notebooks/see_what_the_losses_do.html", 'href="see_what_the_losses_do.ipynb" download'),
        ("notebooks/emotion_over_time.html", "emotion_over_time_files/emotion_over_time_"),
    ],
)
def test_pages_have_what_they_are_for(site: Path, page: str, text: str) -> None:
    assert text in (site / page).read_text(encoding="utf-8")
