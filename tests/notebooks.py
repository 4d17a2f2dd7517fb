"""The notebooks of the docs, whose cells are run one after the other as Jupyter does."""

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"


def read_notebook(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def source(cell: dict[str, Any]) -> str:
    return "".join(cell["source"])


def prose(page: Path) -> str:
    """The text of a page, or of what a notebook has between its code."""
    if page.suffix != ".ipynb":
        return page.read_text(encoding="utf-8")
    return "\n\n".join(source(cell) for cell in read_notebook(page)["cells"] if cell["cell_type"] == "markdown")


def run_notebook(name: str, **settings: object) -> dict[str, Any]:
    """What its code leaves; `settings` take the place of what the first cell sets under these names."""
    code = [source(cell) for cell in read_notebook(FOLDER / name)["cells"] if cell["cell_type"] == "code"]
    names: dict[str, Any] = {"__name__": "__notebook__"}
    for number, text in enumerate(code, start=1):
        exec(compile(text, f"{name}, code cell {number}", "exec"), names)
        if number == 1:
            assert settings.keys() <= names.keys()
            names.update(settings)
    return names
