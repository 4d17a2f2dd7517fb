"""For mkdocstrings: the docstrings' section `Example:` is what Google's style calls `Examples:`, doctests and all."""

import griffe


class Examples(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
