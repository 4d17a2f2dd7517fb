"""A trained model as one file that runs without this code: ONNX, or a program of torch.export.

python examples/export.py runs/emodb-model/model --output emotion.onnx
python examples/export.py runs/emodb-model/model --output emotion.pt2
python examples/export.py runs/emodb-model/model --output head.onnx --part head

Batches of any size and length, with anything in the padding. The file is compared with the model before it is kept.
docs/export.md says what it reads and gives. ONNX needs `pip install "framealign[export]"`.
"""

import argparse

from recipe.command_line import exit_with
from recipe.files import home_expanded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=home_expanded, help="a model folder")
    parser.add_argument("--output", type=home_expanded, required=True, help="FILE.onnx or FILE.pt2")
    parser.add_argument(
        "--part",
        choices=("head", "whole"),
        help="whole: from the waveform, of Whisper from the spectrum; head: from the backbone's frames. By default "
        "whole, where the backbone can be exported",
    )
    arguments = parser.parse_args()

    # Imported now: torch and its company take seconds, and a wrong option should not
    from recipe.models.export import export

    export(arguments.model, arguments.output, arguments.part)


if __name__ == "__main__":
    exit_with(main)
