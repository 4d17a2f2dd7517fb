"""The same two stages on other corpora: within each, or trained on one and tested on another.

Within a corpus, with folds in which no speaker is on two sides:

python examples/cross_dataset.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24
python examples/cross_dataset.py --corpus crema-d --data PATH/TO/CREMA-D
python examples/cross_dataset.py --corpus emodb --data PATH/TO/EmoDB --classes four
python examples/cross_dataset.py --corpus manifest --data my.csv

Trained on one corpus and tested on all of another, over the four classes that all share:

python examples/cross_dataset.py --corpus ravdess --data PATH/TO/Audio_Speech_Actors_01-24 --classes four \\
    --train_corpus iemocap --train_data PATH/TO/IEMOCAP_full_release

The same command goes on where a run was stopped.
"""

from recipe.command_line import add_common_arguments, add_corpus_arguments, exit_with, parse, script_parser
from recipe.data.corpora import corpora
from recipe.files import home_expanded


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser, required=True)
    parser.add_argument(
        "--train_corpus", choices=list(corpora()), help="another corpus to train on; all of --corpus is then test"
    )
    parser.add_argument("--train_data", type=home_expanded, help="where that corpus is")
    add_common_arguments(parser)
    options = parse(parser)

    # Imported after the first line is out: torch and its company take seconds
    from recipe.experiment import run
    from recipe.reporting.report import write_report
    from recipe.training.systems import chosen_systems

    systems = chosen_systems(options.systems, options.settings)
    run(options, lambda experiment: experiment.train(systems, write_report))


if __name__ == "__main__":
    exit_with(main)
