"""For mkdocstrings: what it should make of docstrings that are written otherwise than it expects."""

import griffe


class Docstrings(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is None:
            return
        # Google's style has the section Examples, doctests and all; here it is Example
        obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
        if obj.docstring.value.startswith("Alias for field number"):  # of a named tuple, whose own docstring has them
            obj.docstring = None
