"""Is a copy of a corpus complete?"""

from collections import Counter
from collections.abc import Mapping

from recipe.data.corpus import Corpus


def count_notes(corpus: Corpus, complete: Mapping[str, int]) -> list[str]:
    """A note for the report when `corpus` has not as many utterances of its classes as a `complete` copy gives."""
    found = Counter(utterance.label for utterance in corpus.utterances)
    differing = [
        f"{label} {found[label]} of {complete[label]}" for label in corpus.classes if found[label] != complete[label]
    ]
    if not differing:
        return []
    total = sum(complete[label] for label in corpus.classes)
    return [
        f"{len(corpus.utterances)} utterances, where a complete {corpus.name} gives {total}: {', '.join(differing)}."
    ]
