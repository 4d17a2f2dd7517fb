"""The same two stages on other corpora, within each, with speaker-independent folds:

python examples/cross_dataset.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24
python examples/cross_dataset.py --corpus crema-d --data PATH/TO/CREMA-D
python examples/cross_dataset.py --corpus emodb --data PATH/TO/EmoDB --classes four
"""

import argparse
from pathlib import Path

from recipe.command_line import add_common_arguments, exit_with, new_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", required=True, choices=("crema-d", "ravdess", "emodb"))
    parser.add_argument("--data", type=Path, required=True, help="the corpus's folder, in its own public layout")
    parser.add_argument(
        "--classes",
        choices=("own", "four"),
        default="own",
        help="the corpus's own classes, or the four that all corpora share: angry, happy, neutral, sad",
    )
    add_common_arguments(parser)
    parser.set_defaults(backbone="facebook/wav2vec2-base")
    arguments = parser.parse_args()
    output = new_output(arguments.output, arguments.corpus)
    print(f"framealign: the two-stage recipe on {arguments.corpus}, results in {output}", flush=True)

    # Imported after the first line is out: torch and its company take seconds
    from recipe.corpora import read_corpus, speaker_groups
    from recipe.folds import speaker_folds
    from recipe.run import run
    from recipe.settings import default_settings

    run(
        arguments,
        output,
        read=lambda: read_corpus(arguments.corpus, arguments.data, arguments.classes),
        make_folds=lambda corpus: speaker_folds(corpus, speaker_groups(corpus)),
        settings=default_settings(arguments.backbone),
    )


if __name__ == "__main__":
    exit_with(main)
