"""The two-stage recipe on IEMOCAP: python examples/iemocap_two_stage.py --data PATH/TO/IEMOCAP_full_release

Stage 1 fine-tunes the backbone with attentive pooling and cross-entropy. Stage 2 goes on from that backbone with
CLS self-attention pooling and cross-entropy + EAL + FUAL. Five folds, each leaving one session out: its man is
validation, its woman is test. Without --data, the same code runs on a small corpus of synthetic speech.
"""

import argparse
from pathlib import Path

from recipe.command_line import add_common_arguments, exit_with, new_output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder IEMOCAP_full_release; without it, a demo on synthetic speech")
    add_common_arguments(parser)
    arguments = parser.parse_args()
    demo = arguments.data is None
    if arguments.backbone is None:
        arguments.backbone = "dvector" if demo else "facebook/wav2vec2-base"
    output = new_output(arguments.output, "iemocap-demo" if demo else "iemocap")
    print(f"framealign: the two-stage recipe on {'the demo corpus' if demo else arguments.data}, results in {output}")
    if demo:
        print(
            "This is a stand-in: synthetic speech in IEMOCAP's layout, to try the recipe in minutes. It is a smoke "
            "test,\nnot a result, and its numbers are not the paper's: those take --data PATH/TO/IEMOCAP_full_release.",
            flush=True,
        )

    # Imported after the first lines are out: torch and its company take seconds
    from recipe.corpora import read_iemocap
    from recipe.corpora.demo import make_demo_corpus
    from recipe.folds import session_folds
    from recipe.run import run
    from recipe.settings import DEMO, default_settings

    run(
        arguments,
        output,
        read=lambda: read_iemocap(make_demo_corpus(Path("runs/demo-corpus")) if demo else arguments.data),
        make_folds=session_folds,
        settings=DEMO if demo and arguments.backbone == "dvector" else default_settings(arguments.backbone),
        stand_in=demo,
    )


if __name__ == "__main__":
    exit_with(main)
