"""The one error that a user is meant to see."""


class RecipeError(Exception):
    """Something the user can mend. Its text is one line: what is wrong, with which file, and what to do."""
