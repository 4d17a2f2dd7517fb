"""Progress bars: redrawn on a terminal; in a log file a line a minute."""

import sys
import time
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

INTERVAL = 60.0  # seconds between the lines of a bar in a file


def progress_bar(
    items: Iterable | None = None,
    *,
    desc: str | None = None,
    unit: str,
    total: int | None = None,
    initial: int = 0,
    disable: bool = False,
) -> tqdm:
    """tqdm's, on stderr, over `items` or with `total` steps that are told by `update`."""
    look: dict[str, Any] = {"dynamic_ncols": True} if sys.stderr.isatty() else {"file": LogLines(), "ncols": 0}
    return tqdm(
        items,
        desc=desc,
        unit=unit,
        total=total,
        initial=initial,
        disable=disable,
        smoothing=0.05,  # the time left is told by more than the last few steps
        **look,
    )


class LogLines:
    """What a bar writes to, for a file: of all its redrawings one a minute, and the last, each as a line."""

    def __init__(self) -> None:
        self.line = self.printed = ""
        self.due = time.monotonic() + INTERVAL

    def write(self, text: str) -> None:
        closed = text == "\n"
        self.line = text.strip() or self.line
        if self.line != self.printed and (closed or time.monotonic() >= self.due):
            print(self.line, file=sys.stderr, flush=True)
            self.printed, self.due = self.line, time.monotonic() + INTERVAL

    def flush(self) -> None:
        """Each line is, when it is written."""
