"""Corpora that say everything in the names of their files."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from recipe.data.corpus import Corpus, Skipped, Utterance
from recipe.errors import RecipeError

AUDIO_SUFFIXES = (".flac", ".wav")


def read_named_files(
    corpus_name: str,
    paths: Iterable[Path],
    *,
    parse: Callable[[str], tuple[str, str] | None],
    unusable: Mapping[str, str],
    classes: Sequence[str],
    complete: Mapping[str, int],
) -> Corpus:
    """A corpus of the audio files among `paths`, each an utterance whose id is its name without the suffix.

    Args:
        parse: From an id to its label and speaker, or None for a name that is not the corpus's.
        unusable: Ids to skip, with the reason.
        complete: How many utterances of each class a complete copy gives.
    """
    corpus = Corpus(corpus_name, tuple(classes), utterances=[])
    seen: set[str] = set()
    for path in sorted(paths, key=lambda path: path.name):
        if path.name.startswith(".") or path.suffix.lower() not in AUDIO_SUFFIXES:
            continue
        parsed = parse(path.stem)
        if parsed is None:
            corpus.skipped.append(Skipped(path, f"not named like speech of {corpus_name}"))
            continue
        label, speaker = parsed
        if label not in classes:
            continue
        if path.stem in seen:
            corpus.skipped.append(Skipped(path, "the same utterance in another file is used"))
        elif path.stem in unusable:
            corpus.skipped.append(Skipped(path, unusable[path.stem]))
        else:
            corpus.utterances.append(Utterance(path.stem, path, label, speaker))
        seen.add(path.stem)
    if not corpus.utterances:
        raise RecipeError(f"{corpus_name}: no audio file of {', '.join(classes)}; unpack the corpus again.")
    corpus.utterances.sort(key=lambda utterance: utterance.id)
    corpus.notes += corpus.count_notes(complete)
    return corpus
