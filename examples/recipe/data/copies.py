"""One recording under two names: told, and how many of them are on two sides of a fold."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from recipe.data.corpus import Corpus, Fold, Utterance


def tell_copies(corpus: Corpus, folds: Sequence[Fold], sounds: Mapping[str, str]) -> None:
    """Add to the corpus's notes what should be known of utterances that hold the same audio, whatever they are called.

    Args:
        sounds: A fingerprint of the sound of each utterance, by its id.
    """
    found = copies(corpus.utterances, sounds)
    if not found:
        return
    one, other = found[0][:2]
    labels = ", some with another label" if any(len({u.label for u in same}) > 1 for same in found) else ""
    text = (
        f"{sum(len(same) - 1 for same in found)} of {len(corpus.utterances)} utterances hold the same audio as another "
        f"one, under another name{labels} ({other.path} is a copy of {one.path}, for one)"
    )
    apart = {fold.number: count for fold in folds if (count := heard_before(fold, sounds))}
    if apart:
        told = ", ".join(f"{count} in fold {number}" for number, count in apart.items())
        corpus.caveats.append(
            f"{text}. So copies of training utterances are validated or tested on: {told}. Scores measure memory "
            "there; remove the copies."
        )
    else:
        corpus.notes.append(f"{text}; each counts. None of them is trained on and then validated or tested on.")


def heard_before(fold: Fold, sounds: Mapping[str, str]) -> int:
    """How many utterances of validation and test a training hears under another name."""
    trained_on = {sounds[utterance.id] for utterance in fold.train}
    return sum(sounds[utterance.id] in trained_on for utterance in (*fold.validation, *fold.test))


def copies(utterances: Iterable[Utterance], sounds: Mapping[str, str]) -> list[list[Utterance]]:
    """Those that sound the same, where there are several."""
    by_sound: dict[str, list[Utterance]] = defaultdict(list)
    for utterance in utterances:
        by_sound[sounds[utterance.id]].append(utterance)
    return [same for same in by_sound.values() if len(same) > 1]
