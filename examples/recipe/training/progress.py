"""One bar over the whole job: every training step of every seed, fold and system."""

import sys

from tqdm import tqdm


class Progress:
    """A bar with the current loss, validation UA and time left; lines of their own for what is finished."""

    def __init__(self, steps: int, done: int, disable: bool) -> None:
        # A log file gets a line now and then instead of a bar that redraws itself
        interval = 0.2 if sys.stderr.isatty() else 10
        self.bar = tqdm(
            total=steps,
            initial=done,
            unit="step",
            mininterval=interval,
            dynamic_ncols=True,
            smoothing=0.05,
            disable=disable,
        )
        self.quiet, self.what = disable, ""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def begin(self, what: str) -> None:
        self.what = what
        self.bar.set_description(what, refresh=False)
        self.bar.set_postfix_str("")

    def step(self, steps: int = 1) -> None:
        self.bar.update(steps)

    def epoch(self, record: dict, epochs: int) -> None:
        self.bar.set_description(f"{self.what}, epoch {record['epoch']}/{epochs}")
        self.bar.set_postfix_str(f"loss {record['loss']:.3f}, validation UA {record['validation_ua']:.3f}")

    def say(self, line: str) -> None:
        if not self.quiet:
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()
