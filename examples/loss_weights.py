"""How strong EAL and FUAL should be for frames that are right, chosen on validation speakers:

python examples/loss_weights.py --corpus emodb --data PATH/TO/EmoDB --classes four --backbone openai/whisper-base

EAL, FUAL and both at each weight, and with --variants every choice that the paper leaves open made the other way, at
the weights that did best. Each is one more system of stage 2, in the folder of the main experiment, on its stage 1.
"""

from recipe.command_line import add_common_arguments, add_corpus_arguments, exit_with, parse, script_parser


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser)
    parser.add_argument("--weights", type=float, nargs="+", default=[0.05, 0.5, 2.0, 5.0], help="of both losses")
    parser.add_argument("--variants", action="store_true", help="what the paper leaves open made the other way, too")
    add_common_arguments(parser, systems=False)
    options = parse(parser)

    # Imported after the first lines are out: torch and its company take seconds
    from recipe.experiment import run
    from recipe.loss_weights import train_loss_weights

    run(options, train_loss_weights)


if __name__ == "__main__":
    exit_with(main)
