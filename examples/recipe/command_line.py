"""What the scripts share of their command lines: arguments, the run's folder, and how a run ends."""

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from recipe.errors import RecipeError


def add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backbone",
        help="a wav2vec 2.0, HuBERT or WavLM name on the Hugging Face hub or a local path; dvector, a small pretrained "
        "speaker encoder for a laptop; or tiny, untrained, for tests",
    )
    parser.add_argument(
        "--output", type=Path, help="folder for results, tables and figures; default: a new one in runs/"
    )
    parser.add_argument("--folds", type=int, nargs="+", metavar="N", help="run only these folds, counted from 1")
    parser.add_argument("--epochs", type=int, nargs=2, metavar=("STAGE1", "STAGE2"), help="epochs of the two stages")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--dry-run", action="store_true", help="read and check the corpus, print and write its folds, train nothing"
    )


def new_output(output: Path | None, name: str) -> Path:
    """The folder for a run's results, refused if it holds an earlier run's."""
    if output is None:
        output = Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    if (output / "results.json").exists():
        raise RecipeError(f"--output {output}: holds the results of an earlier run; name another folder, or remove it.")
    return output


def exit_with(main: Callable[[], None]) -> None:
    """Run a script; what the user can mend ends it in one line, an interruption in another."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a job scheduler sends ends a run as Ctrl-C does
    try:
        main()
    except (RecipeError, OSError) as error:  # OSError: a full disk, a file that may not be read
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
