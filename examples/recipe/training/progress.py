"""One bar over the whole job: every training step of every seed, fold and system."""

import sys

from recipe.progress_bar import progress_bar


class Progress:
    """A bar with the current loss, validation UA and time left; lines of their own for what is finished."""

    def __init__(self, steps: int, done: int, disable: bool) -> None:
        self.bar = progress_bar(total=steps, initial=done, unit="step", disable=disable)
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
        self.bar.set_postfix_str(f"loss {record['loss']:.3f}, validation UA {record['validation_ua']:.1%}")

    def say(self, line: str) -> None:
        if not self.quiet:
            self.bar.write(line, file=sys.stdout)
            sys.stdout.flush()
