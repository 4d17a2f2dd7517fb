"""The folder of a run: made, and claimed for one setup."""

import json
from pathlib import Path

from recipe.errors import RecipeError
from recipe.files import write_text


def claim(output: Path, setup: dict) -> None:
    """Make the folder this setup's own, or see that it is: trainings of two setups would be averaged otherwise."""
    path = output / "setup.json"
    if path.exists():
        try:
            earlier = json.loads(path.read_text())
        except ValueError:
            raise RecipeError(
                f"{path}: is damaged; remove it, if the folder is this run's own, and start again."
            ) from None
        if differing := sorted(differences(earlier, setup)):
            raise RecipeError(
                f"--output {output}: holds a run with {'; '.join(differing)}. Name another folder, or remove it."
            )
        return
    if (output / "results.json").exists():
        raise RecipeError(f"--output {output}: holds the results of another program; name another folder.")
    make_folder(output)
    write_text(path, json.dumps(setup, indent=1) + "\n")


def make_folder(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(f"--output {output}: cannot be made ({error.strerror}); name another folder.") from None


def differences(earlier: dict, now: dict, prefix: str = "") -> list[str]:
    found = []
    for key in earlier.keys() | now.keys():
        one, other = earlier.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            found += differences(one, other, f"{prefix}{key}.")
        elif one != other and key == "content":
            found.append("other audio, labels or speakers than the corpus has now")
        elif one != other and key == "folds":
            found.append("other folds")
        elif one != other and key == "weights":
            found.append("other weights of the backbone")
        elif one != other:
            found.append(f"{prefix}{key} {one} and not {other}")
    return found
