"""Which speakers are tested together."""

from recipe.data.corpus import Corpus
from recipe.errors import RecipeError


def speaker_groups(corpus: Corpus) -> list[list[str]]:
    """The speakers who are tested together, one group for each fold; those of a partial copy stay in their group."""
    if not corpus.speaker_groups:
        return dealt_speakers(corpus)
    present = {utterance.speaker for utterance in corpus.utterances}
    groups = [[speaker for speaker in group if speaker in present] for group in corpus.speaker_groups]
    groups = [group for group in groups if group]
    if len(groups) < 3:
        raise RecipeError(
            f"{corpus.name}: the {len(present)} speakers found ({', '.join(sorted(present))}) are in {len(groups)} of "
            f"the {len(corpus.speaker_groups)} speaker groups; training, validation and test need three. Complete the "
            "corpus."
        )
    return groups


def dealt_speakers(corpus: Corpus) -> list[list[str]]:
    """Speaker groups for a corpus that has none of its own: a speaker each, or five groups of more than ten speakers.

    Women, then men, or whatever genders the corpus tells, are dealt round like cards, for each group to have its share.
    """
    genders = {utterance.speaker: utterance.gender for utterance in corpus.utterances}
    if len(genders) < 3:
        raise RecipeError(
            f"{corpus.name}: found only the speakers {', '.join(sorted(genders))}; training, validation and test need "
            "one each. Add speakers, or tell apart those who share a name."
        )
    speakers = sorted(genders, key=lambda speaker: (genders[speaker], speaker))
    count = len(speakers) if len(speakers) <= 10 else 5
    return [speakers[group::count] for group in range(count)]
