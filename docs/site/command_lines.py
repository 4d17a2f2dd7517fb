"""The scripts' command lines, from the scripts themselves: each runs until it has read its own."""

import argparse
import runpy
import signal
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import jsonargparse

ROOT = Path(__file__).parents[2]


class CommandLine(NamedTuple):
    parser: argparse.ArgumentParser
    options: argparse.Namespace | jsonargparse.Namespace


class HasRead(BaseException):
    """That it is no Exception takes it through whatever a script catches."""

    def __init__(self, found: CommandLine) -> None:
        self.found = found


def read(script: str, arguments: list[str]) -> CommandLine:
    """What `script` makes of the arguments; if it refuses them, the SystemExit with which it does."""
    path = ROOT / script
    with (
        stop_behind(argparse.ArgumentParser),
        stop_behind(jsonargparse.ArgumentParser),
        mock.patch.object(signal, "signal"),
        mock.patch.object(sys, "argv", [str(path), *arguments]),
        mock.patch.object(sys, "path", [str(path.parent), *sys.path]),
    ):
        try:
            runpy.run_path(str(path), run_name="__main__")
        except HasRead as end:
            return end.found
    raise RuntimeError(f"{script} read no command line")


def stop_behind(kind: type[argparse.ArgumentParser]) -> AbstractContextManager[object]:
    original = kind.parse_args

    def parse_args(parser: argparse.ArgumentParser, *arguments: object, **options: object) -> None:
        raise HasRead(CommandLine(parser, original(parser, *arguments, **options)))

    return mock.patch.object(kind, "parse_args", parse_args)
