"""The commands of README and docs are right: their scripts, options, values and extras are there.

They are not run, since most train for hours on a corpus that has a licence; what they do is tested where the scripts
are. Each command of a script is read by that script's own parser, in this process, and goes no further.
"""

import re
import shlex
from importlib.metadata import metadata
from pathlib import Path

import pytest

pytest.importorskip("jsonargparse")
from accelerate.commands.launch import launch_command_parser as accelerate_parser
from torch.distributed.run import get_args_parser as torchrun_parser

from command_lines import read
from notebooks import FOLDER, prose
from recipe.command_line import check_options
from recipe.errors import RecipeError
from recipe.settings import Settings
from recipe.training.systems import chosen_systems

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *(
            ROOT / name
            for name in ("README.md", "CONTRIBUTING.md", "benchmarks/README.md", "examples/recipe/README.md")
        ),
        *(ROOT / "docs").rglob("*.md"),
        *FOLDER.glob("*.ipynb"),
    ]
)
BLOCK = re.compile(r"^ *```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```", re.M | re.S)
INLINE = re.compile(r"`((?:python\s[^\s`]+|pip\sinstall)\s[^`]+)`")  # without an argument it only names a script
EXTRAS = set(metadata("framealign").get_all("Provides-Extra"))
NEEDS = {"frameworks.md": ("lightning", "opensmile", "peft", "s3prl", "speechbrain")}  # whose scripts import them first
OTHER_PROGRAMS = {"jupyter", "mkdocs", "mypy", "nox", "pytest", "ruff", "sox", "tensorboard"}


def commands(text: str) -> list[list[str]]:
    """The words of each command: of a line that may go on over several, and of each part of a pipe or a chain."""
    shell = "\n".join(match["code"] for match in BLOCK.finditer(text) if match["language"] == "bash")
    lines = [
        *shell.replace("\\\n", " ").splitlines(),
        *(" ".join(code.split()) for code in INLINE.findall(BLOCK.sub("", text))),
    ]
    found = []
    for line in lines:
        for part in re.split(r"&&|\|", line):
            words = shlex.split(part, comments=True)
            found.append(words[: words.index(">")] if ">" in words else words)
    return [words for words in found if words]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_right(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = prose(page)
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")  # which the scripts set
    monkeypatch.chdir(tmp_path)
    for framework in NEEDS.get(page.name, ()):
        pytest.importorskip(framework)
    for words in commands(text):
        check(words, text)


def check(words: list[str], text: str) -> None:
    """Fails where the command would be refused; a program that is not ours is only known by name."""
    while re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    program, *arguments = words
    if program == "python":
        check_script(arguments[0], arguments[1:], text)
    elif program == "torchrun":
        started = torchrun_parser().parse_args(arguments)
        check_script(started.training_script, started.training_script_args, text)
    elif program == "accelerate":
        started = accelerate_parser().parse_args(arguments[1:])
        check_script(started.training_script, started.training_script_args, text)
    elif program == "pip":
        named = re.fullmatch(r"(?:\.|framealign)(?:\[(\w+)\])?", arguments[-1])
        assert named is not None, arguments
        assert named[1] is None or named[1] in EXTRAS, arguments
    else:
        assert program in OTHER_PROGRAMS, program


def check_script(script: str, arguments: list[str], text: str) -> None:
    assert (ROOT / script).is_file(), script
    if "--config" in arguments:  # of the page's block, or of an earlier run
        given = next((match["code"] for match in BLOCK.finditer(text) if match["language"] == "yaml"), "{}")
        path = Path(arguments[arguments.index("--config") + 1])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(given, encoding="utf-8")
    try:
        options = read(script, arguments).options
    except FileNotFoundError as error:  # of a script without options, which goes right on to the file it is given
        if error.filename not in arguments:
            raise
        return
    except SystemExit:
        pytest.fail(f"{script} refuses {shlex.join(arguments)}")
    if "stage1" in options:  # one of the recipe, which looks at the values once more
        check_options(options.as_dict())
        chosen_systems(options.get("systems", ["paper"]), Settings())


def test_commands_are_found() -> None:
    text = """
```bash
pip install -e ".[dev]" && pytest     # both
NAME=1 python a.py --x 1 \\
    --y 2 > out.txt
cat b | python b.py -
```
```python
python = 1
```
Or `python c.py 3` in
a line, `python d.py`, or `pip install
d`, and not `import e`.
"""
    assert commands(text) == [
        *(["pip", "install", "-e", ".[dev]"], ["pytest"]),
        *(["NAME=1", "python", "a.py", "--x", "1", "--y", "2"], ["cat", "b"], ["python", "b.py", "-"]),
        *(["python", "c.py", "3"], ["pip", "install", "d"]),
    ]


@pytest.mark.parametrize(
    "line",
    [
        "python nothing.py",
        "python examples/ablation.py --margin 0.4 --weights 1",
        "python examples/cross_dataset.py --corpus emodb",
        "python examples/iemocap_two_stage.py --systems no-pooling",
        "python examples/predict.py",
        "torchrun --nproc_per_node 2 examples/iemocap_two_stage.py --epochs 3",
        'pip install ".[exampels]"',
        "nothing --at all",
    ],
)
def test_a_command_that_is_wrong_is_found(line: str) -> None:
    with pytest.raises((AssertionError, RecipeError, pytest.fail.Exception)):
        check(shlex.split(line), "")
