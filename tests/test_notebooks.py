"""Notebooks are kept with the outputs of one run from top to bottom, and tell nothing of where that was."""

import json
import re
from pathlib import Path

import pytest

from notebooks import FOLDER, read_notebook, run_notebook, source

NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SHOWS = re.compile(r"^ *(?:print|print_means|plt\.show|drawn|draw_splice)\(", re.M)
ABSOLUTE = re.compile(r"(?<![\w.:/])/(?:home|mnt|opt|private|root|srv|tmp|Users|usr|var|work)/|\b[A-Z]:\\")


def test_there_are_two() -> None:
    assert [path.name for path in NOTEBOOKS] == ["emotion_over_time.ipynb", "see_what_the_losses_do.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_those_of_one_whole_run(path: Path) -> None:
    code = [cell for cell in read_notebook(path)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    for cell in code:
        shown = [o for o in cell["outputs"] if o.get("name") == "stdout" or "image/png" in o.get("data", {})]
        assert shown == cell["outputs"], source(cell)  # neither errors nor warnings
        assert bool(shown) == bool(SHOWS.search(source(cell))), source(cell)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_nothing_is_kept_of_the_machine(path: Path) -> None:
    notebook = read_notebook(path)
    assert notebook["metadata"] == {"language_info": {"name": "python"}}
    for cell in notebook["cells"]:
        assert cell["metadata"] == {}
        for output in cell.get("outputs", []):
            output.get("data", {}).pop("image/png", None)
    assert ABSOLUTE.findall(json.dumps(notebook).replace("\\n", " ")) == []
    assert path.stat().st_size < 1e6


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_see_what_the_losses_do_runs() -> None:
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    names = run_notebook("see_what_the_losses_do.ipynb", STEPS=20, SEEDS=range(1))
    plt.close("all")
    for rows in names["found"].values():
        assert rows.shape == (1, 7)
        assert (rows[:, :5] > 0.25).all()  # shares; a third is chance
    # Twenty steps are enough for EAL to turn frames to the CLS
    cosine = names["COLUMNS"].index("cosine")
    assert names["found"]["+ EAL"][0, cosine] > names["found"]["cross-entropy"][0, cosine] + 0.1
