"""Folds in which no speaker is on two sides, and the file that tells them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recipe.corpora import Corpus, Utterance
from recipe.errors import RecipeError
from recipe.folds import Fold, checked, fold_table, session_folds, speaker_folds, write_folds

CLASSES = ("happy", "sad")


def corpus_of(speakers):
    """Each speaker is happy twice and sad once."""
    return Corpus(
        "test corpus",
        CLASSES,
        [
            Utterance(f"{speaker}_{number}", Path(f"{speaker}_{number}.wav"), label, speaker, f"Session{speaker[4:5]}")
            for speaker in speakers
            for number, label in enumerate(["happy", "happy", "sad"])
        ],
    )


@pytest.fixture
def dyads():
    return corpus_of([f"Ses0{session}{sex}" for session in (1, 2, 3) for sex in "FM"])


def test_the_man_of_the_held_out_session_validates_and_the_woman_tests(dyads):
    folds = session_folds(dyads)
    assert [fold.number for fold in folds] == [1, 2, 3]
    second = {side: sorted({u.speaker for u in utterances}) for side, utterances in folds[1].sides().items()}
    assert second == {
        "train": ["Ses01F", "Ses01M", "Ses03F", "Ses03M"],
        "validation": ["Ses02M"],
        "test": ["Ses02F"],
    }
    assert sum(len(utterances) for utterances in folds[1].sides().values()) == len(dyads.utterances)


def test_groups_of_speakers_take_turns():
    folds = speaker_folds(corpus_of("abcdef"), [["a", "b"], ["c"], ["d", "e", "f"]])
    speakers = [[sorted({u.speaker for u in side}) for side in fold.sides().values()] for fold in folds]
    assert speakers == [
        [["d", "e", "f"], ["c"], ["a", "b"]],
        [["a", "b"], ["d", "e", "f"], ["c"]],
        [["c"], ["a", "b"], ["d", "e", "f"]],
    ]


@pytest.mark.parametrize("sides", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_speaker_on_two_sides_is_refused(sides):
    given = dict(
        zip(("train", "validation", "test"), (corpus_of([speaker]).utterances for speaker in "abc"), strict=True)
    )
    leak = replace(given[sides[0]][0], id="leak")
    given[sides[1]] = [*given[sides[1]], leak]
    with pytest.raises(
        RecipeError, match=rf"fold 4: speaker {leak.speaker} is in both {sides[0]} and {sides[1]}; .*Mend"
    ):
        checked([Fold(4, **given)], CLASSES)


def test_groups_that_share_a_speaker_are_refused():
    with pytest.raises(RecipeError, match=r"fold 1: speaker b is in both validation and test"):
        speaker_folds(corpus_of("abcd"), [["a", "b"], ["b", "c"], ["d"]])


def test_a_side_without_a_class_is_refused(dyads):
    dyads.utterances = [u for u in dyads.utterances if (u.speaker, u.label) != ("Ses03M", "sad")]
    with pytest.raises(RecipeError, match=r"fold 3: validation has no utterance of sad; complete the corpus") as caught:
        session_folds(dyads)
    assert "\n" not in str(caught.value)


def test_one_session_is_not_enough():
    with pytest.raises(RecipeError, match=r"fold 1: train has no utterance of happy, sad"):
        session_folds(corpus_of(["Ses01F", "Ses01M"]))


def test_folds_json(dyads, tmp_path):
    write_folds(tmp_path / "folds.json", session_folds(dyads), CLASSES)
    first, *_ = written = json.loads((tmp_path / "folds.json").read_text())
    assert [record["fold"] for record in written] == [1, 2, 3]
    assert list(first) == ["fold", "train", "validation", "test"]
    assert first["train"]["speakers"] == ["Ses02F", "Ses02M", "Ses03F", "Ses03M"]
    assert first["train"]["counts"] == {"happy": 8, "sad": 4}
    assert first["validation"] == {
        "speakers": ["Ses01M"],
        "counts": {"happy": 2, "sad": 1},
        "utterances": ["Ses01M_0", "Ses01M_1", "Ses01M_2"],
    }


def test_table(dyads):
    lines = fold_table(session_folds(dyads), CLASSES).splitlines()
    assert len(lines) == 1 + 3 * 3
    assert lines[0].split() == ["fold", "side", "utterances", "happy", "sad", "speakers"]
    assert lines[3].split() == ["1", "test", "3", "2", "1", "Ses01F"]
