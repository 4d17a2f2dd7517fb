"""A page in the browser that tells which emotion is heard, by a model that train_model.py or --save_models left:

python examples/demo_app.py runs/emodb-model/model

Speak or upload a file; see the probabilities, what is heard when, and hear the segment that weighed most. The page is
for this computer alone, needs no network, and keeps no recording. It needs Gradio: `pip install -e ".[demo]"`.
"""

import argparse
from importlib.util import find_spec

from recipe.command_line import exit_with
from recipe.errors import RecipeError
from recipe.files import home_expanded


def port(text: str) -> int:
    if 0 < (number := int(text)) < 2**16:
        return number
    raise ValueError


def minutes(text: str) -> float:
    if (number := float(text)) > 0:
        return number
    raise ValueError


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=home_expanded, help="a model folder")
    parser.add_argument("--port", type=port, help="of the page (default: the first free one from 7860 on)")
    parser.add_argument(
        "--longest",
        type=minutes,
        default=10,
        metavar="MINUTES",
        help="longer recordings are refused (default: 10); predict.py takes any length",
    )
    arguments = parser.parse_args()
    if find_spec("gradio") is None:
        raise RecipeError('The page needs Gradio; run `pip install -e ".[demo]"`.')

    # Imported now: torch and its company take seconds, and a wrong option should not
    from recipe.inference.page import serve

    serve(arguments.model, arguments.port, 60 * arguments.longest)


if __name__ == "__main__":
    exit_with(main)
