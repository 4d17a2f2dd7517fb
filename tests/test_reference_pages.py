"""docs/api.md and docs/recipe/options.md say what the code says now, and every public name has a page."""

import pytest

import framealign

pytest.importorskip("jsonargparse")
from reference_pages import DOCS, pages


@pytest.mark.parametrize("name", ["api.md", "recipe/options.md"])
def test_a_page_that_is_made_from_the_code_is_up_to_date(name: str) -> None:
    path = DOCS / name
    assert path.read_text(encoding="utf-8") == pages()[path], "run python docs/site/reference_pages.py"


def test_every_public_name_has_its_docstring_on_one_page() -> None:
    shown = [
        line.removeprefix("::: ")
        for page in DOCS.rglob("*.md")
        for line in page.read_text(encoding="utf-8").splitlines()
        if line.startswith("::: ")
    ]
    spaces = {"framealign": framealign, "framealign.functional": framealign.functional}
    public = {f"{space}.{name}" for space, module in spaces.items() for name in module.__all__}
    public |= {
        f"framealign.diagnostics.{n}" for n in ("diagnose", "Diagnostics", *framealign.diagnostics.Diagnostics._fields)
    }
    assert sorted(shown) == sorted(
        public - {"framealign.diagnostics", "framealign.functional", "framealign.functional.lengths_to_mask"}
    )
