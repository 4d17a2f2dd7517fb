"""Finding a corpus on disk, and saying what is wrong when it is not there."""

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from recipe.errors import RecipeError


def check_root(root: Path, corpus: str, layout: str, is_root: Callable[[Path], bool]) -> None:
    """Raise a RecipeError unless `root` is the corpus's directory; a path one level off is told the right one.

    `is_root` recognises the directory, `layout` says in words what it looks for.
    """
    if not root.exists():
        raise RecipeError(f"{root} does not exist; give the directory of {corpus}, which holds {layout}.")
    if not root.is_dir():
        raise RecipeError(f"{root} is a file; give the directory of {corpus}, which holds {layout}.")
    try:
        names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise RecipeError(f"{root} cannot be read ({error.strerror}); change its permissions.") from None
    if not names:
        raise RecipeError(f"{root} is empty; give the directory of {corpus}, which holds {layout}.")
    if is_root(root):
        return
    message = f"{root} is not {corpus}: expected {layout}, found {listed(names)}."
    for near in nearby(root):
        if is_root(near):
            raise RecipeError(f"{message} Did you mean {near}?")
    raise RecipeError(f"{message} Give the directory that holds them.")


def nearby(root: Path) -> Iterator[Path]:
    """Where the corpus is when the path given stops too early or goes too far."""
    yield from islice(root.resolve().parents, 3)
    # bounded, since the path given may be a home directory
    yield from islice(sorted(root.glob("*")), 200)
    yield from islice(root.glob("*/*"), 2000)


def listed(names: list[str], limit: int = 4) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
