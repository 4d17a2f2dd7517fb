"""Which emotion is heard in recordings, by a model that train_model.py or --save_models left:

python examples/predict.py runs/emodb-model/model speech.wav
python examples/predict.py runs/emodb-model/model recordings/ --timeline --output answers
python examples/predict.py runs/emodb-model/model recordings/ --json > answers.jsonl
sox talk.mp3 -t wav - | python examples/predict.py runs/emodb-model/model -

Any rate, any number of channels, any length, and any format that soundfile reads. A file that cannot be used does not
stop the others; it is told at the end, and the exit status is then 1.
"""

import argparse
import sys
from pathlib import Path

from recipe.command_line import exit_with
from recipe.files import home_expanded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=home_expanded, help="a model folder")
    parser.add_argument(
        "recordings", nargs="+", help="audio files, folders of them, or - for a file's content on stdin"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", dest="form", action="store_const", const="json", help="one JSON object a line")
    form.add_argument("--csv", dest="form", action="store_const", const="csv", help="one line for each file")
    parser.add_argument(
        "--timeline", action="store_true", help="a picture and segments of each: CSV, RTTM, labels for Audacity"
    )
    parser.add_argument(
        "--output",
        type=home_expanded,
        default=Path("runs/predictions"),
        help="folder for timelines (default: runs/predictions)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:1; by default a GPU where there is one")
    arguments = parser.parse_args()

    # Imported now: torch and its company take seconds, and a wrong option should not
    from recipe.inference.predict import predict_all

    sys.exit(
        predict_all(
            arguments.model,
            arguments.recordings,
            arguments.form or "text",
            arguments.output if arguments.timeline else None,
            arguments.device,
        )
    )


if __name__ == "__main__":
    exit_with(main)
