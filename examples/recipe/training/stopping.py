"""Ctrl-C and SIGTERM while a model trains: the step is finished and saved. The second one ends the run at once."""

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from recipe.errors import Interrupted


@dataclass
class Stop:
    signal: int | None = None  # that asked for it


@contextlib.contextmanager
def stop_asked_for() -> Iterator[Stop]:
    """Within this, a first signal is only noted."""
    stop = Stop()

    def note(number: int, _: object) -> None:
        if stop.signal is not None:
            raise Interrupted(number)
        stop.signal = number
        print("\nfinishing this step; the same again stops at once", file=sys.stderr, flush=True)

    # Only a main thread may set handlers; and what ignores Ctrl-C, as jobs in the background do, goes on to ignore it
    ours = threading.current_thread() is threading.main_thread()
    asked = [n for n in (signal.SIGINT, signal.SIGTERM) if ours and signal.getsignal(n) != signal.SIG_IGN]
    before = {number: signal.signal(number, note) for number in asked}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
