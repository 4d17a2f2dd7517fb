"""Writes docs/api.md and docs/recipe/options.md, which are made from the code: python docs/site/reference_pages.py

They are kept in the repository, to be read there too; tests/test_reference_pages.py holds that they are up to date.
"""

import argparse
import inspect
import re
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import framealign
from command_lines import read

DOCS = Path(__file__).parents[1]
TRAINING = {  # each with a command line that it takes
    "iemocap_two_stage.py": [],
    "cross_dataset.py": ["--corpus", "emodb", "--data", "."],
    "ablation.py": [],
    "loss_weights.py": [],
    "train_model.py": ["--corpus", "emodb", "--data", "."],
}
OTHERS = {
    "predict.py": ["model", "recording"],
    "demo_app.py": ["model"],
    "export.py": ["model", "--output", "file.onnx"],
}


def main() -> None:
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


def pages() -> dict[Path, str]:
    return {DOCS / "api.md": api(), DOCS / "recipe" / "options.md": options()}


def api() -> str:
    """A line for each public name, with the page that has its docstring."""
    text = API
    documented: dict[str, list[list[str]]] = {
        "framealign": [],
        "framealign.functional": [],
        "framealign.diagnostics": [],
    }
    for page in sorted((DOCS / "modules").glob("*.md")):
        for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M):
            space, _, last = name.rpartition(".")
            documented[space].append([f"[`{last}`](modules/{page.name})", summary(name)])
    for space, rows in documented.items():
        text += f"\n## {space}\n\n" + table(("name", ""), sorted(rows))
    return text


API = """# API

Every public name, and the page that has its docstring: formula, options, shapes, errors and source. (`lengths_to_mask`
is in `framealign.functional` too.)
"""


def summary(name: str) -> str:
    """The first paragraph of a docstring, without the site's own kind of links."""
    found = inspect.getdoc(attrgetter(name.removeprefix("framealign."))(framealign)) or ""
    return re.sub(r"\[(`\w+`)\]\[[\w.]+\]", r"\1", " ".join(found.partition("\n\n")[0].split()))


COLUMNS = ("option", "default", "meaning")


class Option(NamedTuple):
    group: str
    name: str
    meaning: str


OPTIONS = """# Options

What `--help` says, of every script of the recipe at once. Any option may be spelt with dashes too, `--batch-size` for
one, and stand in [a file](tune.md#configuration) that is given to `--config`.

- `--backbone`: by default `facebook/wav2vec2-base`, in the demo `dvector`; [what there is](backbones.md), and [which
  layers are frozen and read](backbones.md#frozen-layers-and-which-layer-is-read).
- `--output`: the folder in which a stopped run [goes on](when_it_stops.md); [what is in it](files.md).
- `--cache`: the [feature cache](tune.md#the-feature-cache). `--precision`: [what auto
  is](tune.md#precision-and-compiling). `--systems`: [their names](paper.md#the-systems).
- `--seeds` change the start of new layers, the order of batches and dropout, and not the folds. On IEMOCAP a fold of
  `--folds` has the number of the session that it leaves out; by default it is all of them.
"""


def options() -> str:
    found: dict[Option, dict[str, str]] = {}
    for script, arguments in TRAINING.items():
        for option, default in options_of(script, arguments):
            found.setdefault(option, {})[script] = default
    groups: dict[str, list[list[str]]] = {}
    some = []
    for option, defaults in found.items():
        if defaults.keys() == TRAINING.keys():
            groups.setdefault(option.group, []).append([option.name, joined(defaults), option.meaning])
        else:
            scripts = ", ".join(f"`{script}`" for script in defaults)
            some.append([option.name, scripts, joined(defaults), option.meaning])
    text = OPTIONS + "\n## Every script that trains\n\n" + table(COLUMNS, groups.pop("options"))
    text += "\n## Some scripts that train\n\n" + table(("option", "of", *COLUMNS[1:]), some)
    for title, rows in groups.items():
        head, _, remark = title.partition("; ")
        text += f"\n## {head}\n\n" + (f"{remark.capitalize()}.\n\n" if remark else "") + table(COLUMNS, rows)
    for script, arguments in OTHERS.items():
        rows = [[option.name, default, option.meaning] for option, default in options_of(script, arguments)]
        text += f"\n## {script}\n\n" + table(COLUMNS, rows)
    return text


def options_of(script: str, arguments: list[str]) -> list[tuple[Option, str]]:
    """Each option with its default."""
    parser = read(f"examples/{script}", arguments).parser
    return [
        (Option(group.title or "", name_of(action), meaning_of(action)), default_of(action))
        for group in parser._action_groups
        for action in group._group_actions
        if action.help != argparse.SUPPRESS and action.dest not in ("help", "stage1", "stage2")  # a stage's own file
    ]


def name_of(action: argparse.Action) -> str:
    name = action.option_strings[-1] if action.option_strings else action.metavar or action.dest.upper()
    many = " ..." if action.nargs == "+" else ""
    choices = ": " + ", ".join(f"`{choice}`" for choice in action.choices) if action.choices else ""
    return f"`{name}{many}`{choices}"


def meaning_of(action: argparse.Action) -> str:
    """The help, without the default where that has a cell of its own."""
    text = action.help or ""
    return re.sub(r" \(default: [^)]*\)", "", text) if default_of(action) else text


def default_of(action: argparse.Action) -> str:
    default = action.default
    if action.required:
        return "required"
    if default is None or default is False or default == argparse.SUPPRESS:
        return ""
    return "`" + " ".join(map(str, default if isinstance(default, list) else [default])) + "`"


def joined(defaults: dict[str, str]) -> str:
    """The first script's, and those of scripts that have another."""
    first = next(iter(defaults.values()))
    return "; ".join([first, *(f"`{script}`: {other}" for script, other in defaults.items() if other != first)])


def table(head: Iterable[str], rows: Iterable[list[str]]) -> str:
    lines = [list(head), ["---" for _ in head], *rows]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in lines)


if __name__ == "__main__":
    main()
