"""Training on one corpus and testing on another."""

from dataclasses import replace
from pathlib import Path

import pytest

from recipe.data.corpora import corpora, read_corpus
from recipe.data.corpus import Corpus, Skipped, Utterance
from recipe.data.folds import manifest_folds, split_folds
from recipe.data.speaker_groups import speaker_groups
from recipe.data.transfer import joined
from recipe.errors import RecipeError
from trees import write_iemocap

CLASSES = ("happy", "sad")


def corpus_of(name, speakers, classes=CLASSES):
    """Each speaker speaks once in each class; names of utterances and speakers are those of any other corpus."""
    return Corpus(
        name,
        classes,
        [
            Utterance(f"{speaker}_{label}", Path(name) / f"{speaker}_{label}.wav", label, speaker)
            for speaker in speakers
            for label in classes
        ],
        skipped=[Skipped(Path(name) / "bad.wav", "broken")],
        notes=[f"{name} is incomplete."],
    )


def speakers_of(fold):
    return {side: sorted({u.speaker for u in utterances}) for side, utterances in fold.sides().items()}


def test_one_fold_from_the_first_to_the_second():
    corpus = joined(corpus_of("A", "pqr"), corpus_of("B", "pq"))
    [fold] = split_folds(corpus)
    assert fold.number == 1
    assert speakers_of(fold) == {"train": ["A/p", "A/q"], "validation": ["A/r"], "test": ["B/p", "B/q"]}
    assert sum(map(len, fold.sides().values())) == len(corpus.utterances) == 10
    assert manifest_folds(corpus) == [fold]


def test_what_is_kept_of_both():
    source, target = corpus_of("A", "pqr"), corpus_of("B", "pq", classes=("sad", "happy"))
    corpus = joined(source, target)
    assert corpus.name == "A to B"
    assert corpus.classes == CLASSES  # in the source's order
    assert corpus.skipped == [*source.skipped, *target.skipped]
    assert corpus.notes == ["A is incomplete.", "B is incomplete."]
    assert len({u.id for u in corpus.utterances}) == len(corpus.utterances)
    assert corpus.utterances[0] == replace(source.utterances[0], id="A/p_happy", speaker="A/p", split="train")
    assert all(u.split == "" for u in [*source.utterances, *target.utterances])


def test_folds_and_splits_of_a_manifest_do_not_count():
    source, target = corpus_of("A", "pqr"), corpus_of("B", "pq")
    source.utterances = [replace(u, split="test") for u in source.utterances]
    target.utterances = [replace(u, fold=u.speaker) for u in target.utterances]
    corpus = joined(source, target)
    assert {u.fold for u in corpus.utterances} == {""}
    assert corpus.utterances == joined(corpus_of("A", "pqr"), corpus_of("B", "pq")).utterances


def test_from_iemocap_its_last_session_validates(tmp_path):
    categories = ["neu", "hap", "ang", "sad"]
    turns = {
        f"Ses0{session}F_impro01_{sex}00{number}": category
        for session in range(1, 6)
        for sex in "FM"
        for number, category in enumerate(categories)
    }
    write_iemocap(tmp_path, turns)
    source = read_corpus("iemocap", tmp_path)
    target = corpus_of("EmoDB", ["03"], source.classes)
    [fold] = split_folds(joined(source, target))
    assert speakers_of(fold) == {
        "train": [f"IEMOCAP/Ses0{session}{sex}" for session in range(1, 5) for sex in "FM"],
        "validation": ["IEMOCAP/Ses05F", "IEMOCAP/Ses05M"],
        "test": ["EmoDB/03"],
    }


def test_from_emodb_to_ravdess(data_root):
    source = read_corpus("emodb", data_root / "emodb", "four")
    target = read_corpus("ravdess", data_root / "ravdess" / "Audio_Speech_Actors_01-24_16k_flac", "four")
    corpus = joined(source, target)
    assert corpus.name == "EmoDB to RAVDESS"
    assert "EmoDB/03a01Fa" in {u.id for u in corpus.utterances}
    [fold] = split_folds(corpus)
    assert len(fold.test) == 671
    assert speakers_of(fold)["validation"] == ["EmoDB/16"]
    assert len(fold.train) + len(fold.validation) == 339


def test_published_groups_are_kept_and_others_dealt():
    own = corpus_of("EmoDB", ["09", "03", "10"])
    assert speaker_groups(own) == [["03"], ["09"], ["10"]]
    published = replace(own, speaker_groups=corpora()["emodb"].speaker_groups)
    assert speaker_groups(published) == [["03"], ["10"], ["09"]]


# ---- refused


def refused(source, target, match):
    with pytest.raises(RecipeError, match=match) as caught:
        joined(source, target)
    assert "\n" not in str(caught.value)


def test_corpora_of_other_classes_are_refused():
    refused(
        corpus_of("A", "pqr"),
        corpus_of("B", "pqr", ("happy", "bored")),
        "A has the classes happy, sad, B happy, bored; use --classes four",
    )


def test_the_same_corpus_twice_is_refused():
    refused(corpus_of("A", "pqr"), corpus_of("A", "stu"), r"training and test corpus are both A; name two corpora")


def test_the_same_audio_under_another_name_is_refused():
    source, target = corpus_of("A", "pqr"), corpus_of("B", "pqr")
    again = replace(source.utterances[0], id="again", path=Path("elsewhere") / ".." / source.utterances[0].path)
    target.utterances.append(again)
    refused(source, target, r"p_happy\.wav is in both A and B, as are 1 files in all; .*share no audio")


def test_too_few_speakers_to_validate_are_refused():
    refused(corpus_of("A", "pq"), corpus_of("B", "pqr"), "A: found only the speakers p, q; training, validation")


def test_a_target_without_a_class_is_refused():
    target = corpus_of("B", "pq")
    target.utterances = [u for u in target.utterances if u.label == "sad"]
    with pytest.raises(RecipeError, match="fold 1: test has no utterance of happy"):
        split_folds(joined(corpus_of("A", "pqr"), target))
