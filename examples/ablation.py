"""The paper's ablations: python examples/ablation.py --data PATH/TO/IEMOCAP_full_release

Table 4: EAL's margin and weight. Table 5: FUAL's weight, at the margin and weight of EAL that did best on
validation. Each is one more system of stage 2, on the stage 1 that examples/iemocap_two_stage.py trained: both
scripts use the same output folder, and what either has finished the other does not train again.
"""

from recipe.command_line import add_common_arguments, add_corpus_arguments, exit_with, parse, script_parser


def main() -> None:
    parser = script_parser(__doc__)
    add_corpus_arguments(parser)
    parser.add_argument("--margins", type=float, nargs="+", default=[0.4, 0.6, 0.8], help="EAL's margins")
    parser.add_argument("--eal_weights", type=float, nargs="+", default=[0.05, 0.10, 0.15], help="EAL's weights")
    parser.add_argument("--fual_weights", type=float, nargs="+", default=[0.0, 0.05, 0.10, 0.15], help="FUAL's weights")
    add_common_arguments(parser, systems=False)
    options = parse(parser)

    # Imported after the first lines are out: torch and its company take seconds
    from recipe.ablation import train_ablations
    from recipe.experiment import run

    run(options, train_ablations)


if __name__ == "__main__":
    exit_with(main)
