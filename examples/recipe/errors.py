"""How a run ends before its end, as a user is meant to see it."""

import signal


class RecipeError(Exception):
    """Something the user can mend. Its text is one line: what is wrong, with which file, and what to do."""


class Interrupted(KeyboardInterrupt):
    """By a signal; its text says what there is of what was being done."""

    def __init__(self, number: int = signal.SIGINT, text: str = "") -> None:
        super().__init__(text)
        self.status = 128 + number  # as shells tell it
