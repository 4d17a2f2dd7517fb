"""One model for use, trained on all speakers of a corpus, for predict.py:

python examples/train_model.py --corpus emodb --data PATH/TO/EmoDB --classes four --backbone openai/whisper-base \\
    --output runs/emodb-model
python examples/predict.py runs/emodb-model/model speech.wav --timeline

For recordings in which emotion changes: --system attentive-eal-fual --eal_weight 2 --fual_weight 2

The two stages of the paper on one split: the utterances of a few speakers are kept back to choose the epoch, and no one
is left to test on. How well such a model does on new speakers is what cross_dataset.py measures. EAL and FUAL weigh
0.5, which measured best for frames that are right. The same command goes on where a training was stopped.
"""

from recipe.command_line import add_corpus_arguments, add_training_arguments, exit_with, parse, script_parser


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser, required=True)
    parser.add_argument(
        "--system", default="cls-eal-fual", help="attentive-eal-fual, or one of cross_dataset.py's --systems"
    )
    add_training_arguments(parser)
    options = parse(parser, eal_weight=0.5, fual_weight=0.5)

    # Imported after the first lines are out: torch and its company take seconds
    from recipe.experiment import run
    from recipe.one_model import folds_for_use, one_system, train_one_model

    system = one_system(options)
    run(options, lambda experiment: train_one_model(experiment, system), folds_for_use)


if __name__ == "__main__":
    exit_with(main)
