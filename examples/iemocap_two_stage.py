"""The paper's experiment on IEMOCAP: python examples/iemocap_two_stage.py --data PATH/TO/IEMOCAP_full_release

Stage 1 fine-tunes the backbone with attentive pooling and cross-entropy. Stage 2 goes on from that backbone with
each system of the paper's Table 3: two readings of its self-attention baseline, CLS pooling, and CLS pooling with
EAL, with FUAL and with both. Five folds, each leaving one session out: its man is validation, its woman is test.
Without --data, the same code runs on a small corpus of synthetic speech. The same command goes on where a run was
stopped.
"""

from recipe.command_line import add_common_arguments, exit_with, parse, script_parser
from recipe.files import home_expanded


def main() -> None:
    parser = script_parser(__doc__)
    parser.add_argument(
        "--data", type=home_expanded, help="folder IEMOCAP_full_release; without it, a demo on synthetic speech"
    )
    add_common_arguments(parser)
    options = parse(parser)

    # Imported after the first lines are out: torch and its company take seconds
    from recipe.experiment import run
    from recipe.reporting.report import write_report
    from recipe.training.systems import chosen_systems

    systems = chosen_systems(options.systems, options.settings)
    run(options, lambda experiment: experiment.train(systems, write_report))


if __name__ == "__main__":
    exit_with(main)
