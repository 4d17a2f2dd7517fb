"""The scripts' command lines: options, a file of options, the first lines of a run, and how it ends."""

import argparse
import difflib
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NoReturn

import yaml
from jsonargparse import ArgumentParser

from recipe.data.corpora import corpora
from recipe.errors import Interrupted, RecipeError
from recipe.files import home_expanded, write_text
from recipe.settings import Settings, Stage, check


@dataclass(frozen=True)
class Options:
    """All that decides what a run is; `settings` are the hyperparameters."""

    settings: Settings
    backbone: str
    output: Path
    cache: Path
    seeds: tuple[int, ...] = (0,)
    folds: tuple[int, ...] | None = None  # all of them
    corpus: str = "iemocap"
    data: Path | None = None  # the demo corpus
    classes: str = "own"
    train_corpus: str | None = None  # the same
    train_data: Path | None = None
    systems: tuple[str, ...] = ()
    system: str = ""  # the one of a model for use
    margins: tuple[float, ...] = ()  # of the ablation, as the next two
    eal_weights: tuple[float, ...] = ()
    fual_weights: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()  # of the script of that name, as the next one
    variants: bool = False
    precision: str = "auto"
    cache_dtype: str = "float16"
    compile: bool = False
    save_models: bool = False
    dry_run: bool = False
    names: tuple[str, ...] = ()  # of the options that the script has

    def write(self, path: Path) -> None:
        """As a file for `--config`, which gives the same run again from any folder."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self) if field.name in self.names}
        given = {name: value for name, value in values.items() if name != "dry_run" and value is not None}
        write_text(path, yaml.safe_dump({**given, **asdict(self.settings)}, sort_keys=False))


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value.resolve())
    return list(value) if isinstance(value, tuple) else value


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The script's own description as it is written, and each option's default."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.help is None or any(action.default is nothing for nothing in (None, False, argparse.SUPPRESS)):
            return action.help
        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{action.help} (default: {default})"


def script_parser(description: str | None) -> ArgumentParser:
    parser = ArgumentParser(
        description=description,
        formatter_class=HelpFormatter,
        exit_on_error=False,
        print_config=None,  # a run writes its own, with the defaults of its backbone
    )
    parser.add_argument("--config", action="config", help="a file of options, such as an earlier run's config.yaml")
    return parser


def add_corpus_arguments(parser: ArgumentParser, required: bool = False) -> None:
    parser.add_argument(
        "--corpus",
        choices=list(corpora()),
        required=required,
        default=None if required else "iemocap",
        help="manifest: any corpus, by a CSV with the columns path, label and speaker",
    )
    parser.add_argument(
        "--data",
        type=home_expanded,
        required=required,
        help="its folder, in its own public layout, or the CSV" + ("" if required else "; without it, a demo"),
    )
    parser.add_argument(
        "--classes",
        choices=("own", "four"),
        default="own",
        help="the corpus's own classes, or the four that all corpora share: angry, happy, neutral, sad",
    )


def add_common_arguments(parser: ArgumentParser, systems: bool = True) -> None:
    """Those of an experiment over folds and seeds."""
    add = parser.add_argument
    if systems:
        add(
            "--systems",
            nargs="+",
            default=["paper"],
            help="paper: the systems of its Table 3; all: further poolings and an SVM too; or single ones by name",
        )
    add("--seeds", type=int, nargs="+", default=[0], help="the whole experiment is run with each")
    add("--folds", type=int, nargs="+", help="only these folds, counted from 1")
    add("--save_models", action="store_true", help="keep a model folder of each training, for predict.py")
    add_training_arguments(parser)


def add_training_arguments(parser: ArgumentParser) -> None:
    """Those of any training."""
    add = parser.add_argument
    add(
        "--backbone",
        type=name_or_path,
        help="a wav2vec 2.0, HuBERT, WavLM, data2vec or Whisper name on the Hugging Face hub or a local path; dvector, "
        "a small pretrained speaker encoder for a laptop; or tiny, untrained, for tests",
    )
    add(
        "--output",
        type=home_expanded,
        help="folder for results, tables and figures; the same command goes on with a run that was stopped there. "
        "Default: runs/CORPUS-BACKBONE",
    )
    add("--cache", type=home_expanded, default=Path("runs/cache"), help="folder for the frozen front end's features")
    add(
        "--cache_dtype",
        choices=("float16", "bfloat16", "float32"),
        default="float16",
        help="what they are kept in; bfloat16 holds any value, and either half takes half of float32's disk",
    )
    add(
        "--precision",
        choices=("auto", "no", "bf16", "fp16"),
        default="auto",
        help="auto: bf16 where the hardware computes with it and the backbone is a Transformer, else no (float32)",
    )
    add("--compile", action="store_true", help="compile the model with torch.compile")
    add("--dry_run", action="store_true", help="read and check the corpus, print and write its folds, train nothing")
    parser.add_class_arguments(Settings)


def name_or_path(text: str) -> str:
    return str(home_expanded(text)) if text.startswith("~") else text


def parse(parser: ArgumentParser, **defaults: float) -> Options:
    """What the command line says; a `--config` file counts as the options in it, at its place among the others.

    Hyperparameters that are not given are `defaults`, else the backbone's own, and its file takes seconds to import. So
    what can be wrong is found before, and the first lines of the run are printed.
    """
    parser.set_defaults(defaults)
    found = parsed(parser)
    check_options(found)
    demo = found["data"] is None
    backbone = found["backbone"] or ("dvector" if demo else "facebook/wav2vec2-base")
    output = found["output"] or Path("runs") / default_name(found, demo, backbone)
    print_first_lines(found["data"], output)
    if not found["dry_run"]:  # which trains nothing
        from recipe.features.backbones import backbone_kind

        kind = backbone_kind(backbone)
        parser.set_defaults({**asdict((demo and kind.demo_settings) or kind.settings_for(backbone)), **defaults})
        found = parsed(parser)
    values = {field.name: found[field.name] for field in fields(Options) if field.name in found}
    values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    names = tuple(values)
    return Options(**{**values, "backbone": backbone, "output": output, "settings": settings_of(found), "names": names})


def parsed(parser: ArgumentParser) -> dict:
    try:
        found: dict = parser.parse_args([underscored(argument) for argument in sys.argv[1:]]).as_dict()
    except (argparse.ArgumentError, TypeError, ValueError) as error:
        raise RecipeError(" ".join(str(error).split()) + suggestion(str(error), parser)) from None
    return found


def underscored(argument: str) -> str:
    """`--batch-size` is `--batch_size`."""
    name, equals, value = argument.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if name.startswith("--") else argument


def suggestion(message: str, parser: ArgumentParser) -> str:
    """The options that an unknown one may have meant."""
    unknown = re.search(r"unrecognized arguments: --(\S+)", message, re.IGNORECASE)  # jsonargparse 4.40 has a capital
    if unknown is None:
        return ""
    known = [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
    last_words = {option: option.removeprefix("--").rpartition(".")[2] for option in known}
    word = unknown[1].partition("=")[0]
    near = difflib.get_close_matches(word, last_words.values())
    found = [option for option, last in last_words.items() if last in near or option == f"--{word}"]
    return f"; did you mean {' or '.join(found)}?" if found else ""


def check_options(found: dict) -> None:
    """Refuse values that make no sense."""
    if found["data"] is None and found.get("corpus", "iemocap") != "iemocap":
        raise RecipeError(f"--corpus {found['corpus']}: needs --data, the place of the corpus.")
    check_grid(found)
    for name in ("output", "cache"):  # TensorBoard and safetensors open no other names
        if any("\ud800" <= letter <= "\udfff" for letter in str(found[name])):
            raise RecipeError(f"--{name} {found[name]}: is no text in utf-8; name another folder.")
    if (found.get("train_corpus") is None) != (found.get("train_data") is None):
        raise RecipeError("--train_corpus and --train_data belong together; give both, or neither.")
    seeds = found.get("seeds", [])
    if repeated := [seed for seed in seeds if seeds.count(seed) > 1]:
        raise RecipeError(f"--seeds: {repeated[0]} is given twice; a seed counts once.")
    if negative := [seed for seed in seeds if seed < 0]:
        raise RecipeError(f"--seeds {negative[0]}: must be at least 0.")
    settings_of(found)


def settings_of(found: dict) -> Settings:
    stages = {stage: Stage(**found[stage]) for stage in ("stage1", "stage2")}
    return check(Settings(**{**{field.name: found[field.name] for field in fields(Settings)}, **stages}))


def check_grid(found: dict) -> None:
    """The values of the ablation, where a script has them."""
    if wrong := [margin for margin in found.get("margins", ()) if not -1 <= margin <= 1]:
        raise RecipeError(f"--margins {wrong[0]:g}: a margin between cosines lies between -1 and 1.")
    for name in ("eal_weights", "fual_weights", "weights"):
        if wrong := [weight for weight in found.get(name, ()) if weight < 0]:
            raise RecipeError(f"--{name} {wrong[0]:g}: must be at least 0.")


def default_name(found: dict, demo: bool, backbone: str) -> str:
    """A folder for each task and backbone, so that the same command finds its own run again."""
    corpus = "iemocap-demo" if demo else found.get("corpus") or "iemocap"
    if corpus == "manifest":
        corpus = found["data"].stem
    source = found.get("train_corpus")
    if source == "manifest":
        source = found["train_data"].stem
    four, model = found.get("classes") == "four", "system" in found
    words = [source, corpus, "four" if four else None, "model" if model else None]
    return re.sub(r"[^\w.-]+", "-", "-".join([*filter(None, words), Path(backbone).name]))


def print_first_lines(data: Path | None, output: Path) -> None:
    """What begins, and where it goes; for the demo, that it is one."""
    print(f"framealign: the two stages on {data or 'the demo corpus'}, results in {output}", flush=True)
    if data is None:
        print(
            "This is a stand-in: synthetic speech in IEMOCAP's layout, to try the recipe in minutes. It is a smoke "
            "test,\nnot a result, and its numbers are not the paper's: those take --data PATH/TO/IEMOCAP_full_release.",
            flush=True,
        )


def exit_with(main: Callable[[], None]) -> None:
    """Run a script; what the user can mend ends it in one line, an interruption in another."""
    # A thread that waits for another would keep its core busy, and where cores are shared that is the core the other
    # needs: a step then takes many times as long. OpenMP reads this when torch is imported, which is not yet
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    # Figures go to files. A notebook's backend, which what it starts inherits, may be none that can be imported here
    os.environ["MPLBACKEND"] = "agg"
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack letters of a name, and must not stop a run
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, terminated)
    try:
        main()
    except (RecipeError, OSError) as error:  # OSError: a full disk, a file that may not be read
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt as interruption:
        print(": ".join(filter(None, ["interrupted", str(interruption)])), file=sys.stderr)
        sys.exit(interruption.status if isinstance(interruption, Interrupted) else 130)


def terminated(number: int, _: object) -> NoReturn:
    """What a job scheduler sends ends a run as Ctrl-C does."""
    raise Interrupted(number)
