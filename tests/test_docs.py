"""The Python blocks of README.md and docs/ run, in order, in one namespace per file.

A block right below a comment like `<!-- run by tests/recipe/test_documented_code.py -->` takes more than a page has: it
runs there. A page that needs a framework which is not installed is skipped, with the framework's name. Of the other
blocks, test_shell_blocks.py reads the commands; text is what something printed or holds, and is compared with nothing.
"""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for path in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")] if path.is_file())
NEEDS = {
    "export.md": ("onnx", "onnxscript", "onnxruntime"),
    "frameworks.md": ("lightning", "opensmile", "s3prl", "speechbrain"),
}
BLOCK = re.compile(
    r"^(?P<elsewhere><!-- run by (?P<test>tests/\S+\.py) -->\s*)?^(?P<indent> *)```python[^\n]*\n(?P<code>.*?)^ *```",
    re.M | re.S,
)


def blocks_to_run(text: str) -> list[tuple[int, str]]:
    """(line, code) of each block, the code without the indentation that it has inside a list."""
    found = []
    for match in BLOCK.finditer(text):
        if match["elsewhere"] is None:
            code = re.sub(rf"^{match['indent']}", "", match["code"], flags=re.M)
            found.append((text.count("\n", 0, match.start("code")), code))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_run(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for framework in NEEDS.get(path.name, ()):
        pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)  # so that a block that writes a file leaves none here
    namespace: dict[str, object] = {"__name__": "__docs__"}
    for line, code in blocks_to_run(path.read_text(encoding="utf-8")):
        exec(compile("\n" * line + code, str(path), "exec"), namespace)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_block_tells_its_language(path: Path) -> None:
    fences = re.findall(r"^ *```(.*)$", path.read_text(encoding="utf-8"), re.M)
    assert {fence.partition(" ")[0] for fence in fences[::2]} <= {"bash", "diff", "python", "text", "yaml"}
    assert set(fences[1::2]) <= {""}


def test_blocks_that_run_elsewhere_are_named_there() -> None:
    for path in FILES:
        for match in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if match["test"]:
                assert path.name in (ROOT / match["test"]).read_text(encoding="utf-8")


def test_a_block_is_found_in_a_list_and_left_to_another_test_where_marked() -> None:
    text = """
```python
x = 1
```
- in a list
  ```python title="a.py"
  if x:
      y = x + 1
  ```
<!-- run by tests/test_docs.py -->
```python
raise SystemExit
```
```bash
false
```
<!-- another comment -->
```python
z = y
```
"""
    blocks = blocks_to_run(text)
    assert [code for _, code in blocks] == ["x = 1\n", "if x:\n    y = x + 1\n", "z = y\n"]
    assert text.splitlines()[blocks[0][0]] == "x = 1"
