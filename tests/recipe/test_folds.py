"""Folds in which no speaker is on two sides, and the file that tells them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recipe.data.corpus import Corpus, Fold, Utterance
from recipe.data.folds import checked, fold_table, manifest_folds, session_folds, speaker_folds, write_folds
from recipe.data.speaker_groups import dealt_speakers
from recipe.errors import RecipeError

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
    folds = speaker_folds(replace(corpus_of("abcdef"), speaker_groups=[["a", "b"], ["c"], ["d", "e", "f"]]))
    speakers = [[sorted({u.speaker for u in side}) for side in fold.sides().values()] for fold in folds]
    assert speakers == [
        [["d", "e", "f"], ["c"], ["a", "b"]],
        [["a", "b"], ["d", "e", "f"], ["c"]],
        [["c"], ["a", "b"], ["d", "e", "f"]],
    ]


@pytest.mark.parametrize("sides", [("train", "validation"), ("train", "test"), ("validation", "test")])
def test_a_speaker_on_two_sides_is_refused(sides):
    utterances = dict(
        zip(("train", "validation", "test"), (corpus_of([speaker]).utterances for speaker in "abc"), strict=True)
    )
    leak = replace(utterances[sides[0]][0], id="leak")
    utterances[sides[1]] = [*utterances[sides[1]], leak]
    with pytest.raises(
        RecipeError, match=rf"fold 4: speaker {leak.speaker} is in both {sides[0]} and {sides[1]}; .*Mend"
    ):
        checked([Fold(4, **utterances)], CLASSES)


def test_groups_that_share_a_speaker_are_refused():
    with pytest.raises(RecipeError, match=r"fold 1: speaker b is in both validation and test"):
        speaker_folds(replace(corpus_of("abcd"), speaker_groups=[["a", "b"], ["b", "c"], ["d"]]))


def test_a_side_without_a_class_is_refused(dyads):
    dyads.utterances = [u for u in dyads.utterances if (u.speaker, u.label) != ("Ses03M", "sad")]
    with pytest.raises(RecipeError, match=r"fold 3: validation has no utterance of sad; complete the corpus") as caught:
        session_folds(dyads)
    assert "\n" not in str(caught.value)


def test_one_session_is_refused():
    with pytest.raises(RecipeError, match=r"fold 1: train has no utterance of happy, sad"):
        session_folds(corpus_of(["Ses01F", "Ses01M"]))


# ---- of a manifest


def with_cells(corpus, column, cells):
    """The corpus, with the cell of each speaker in a column."""
    corpus.utterances = [replace(u, **{column: cells[u.speaker]}) for u in corpus.utterances]
    return corpus


def test_a_split_is_one_fold():
    [fold] = manifest_folds(
        with_cells(corpus_of("abcd"), "split", {"a": "test", "b": "train", "c": "validation", "d": "train"})
    )
    assert fold.number == 1
    assert {side: sorted({u.speaker for u in utterances}) for side, utterances in fold.sides().items()} == {
        "train": ["b", "d"],
        "validation": ["c"],
        "test": ["a"],
    }


def test_a_split_without_validation_is_refused():
    with pytest.raises(RecipeError, match="fold 1: validation has no utterance of happy, sad"):
        manifest_folds(with_cells(corpus_of("ab"), "split", {"a": "test", "b": "train"}))


@pytest.mark.parametrize(
    "names",
    [("2", "3", "10", "11"), ("fold2", "fold10", "fold11a", "fold11b"), ("a", "b", "c", "d"), ("01", "1", "2", "x")],
)
def test_listed_folds_come_in_natural_order(names):
    corpus = with_cells(corpus_of("dacb"), "fold", dict(zip("abcd", names, strict=True)))
    folds = manifest_folds(corpus)
    assert [fold.number for fold in folds] == [1, 2, 3, 4]
    assert [{u.speaker for u in fold.test} for fold in folds] == [{"a"}, {"b"}, {"c"}, {"d"}]
    assert [{u.speaker for u in fold.validation} for fold in folds] == [{"b"}, {"c"}, {"d"}, {"a"}]


def test_two_listed_folds_are_refused():
    corpus = with_cells(corpus_of("abc"), "fold", {"a": "1", "b": "2", "c": "1"})
    with pytest.raises(RecipeError, match=r"test corpus: the column fold tells 2 folds \(1, 2\); .*need three.*remove"):
        manifest_folds(corpus)


def test_a_speaker_in_two_listed_folds_is_refused():
    corpus = with_cells(corpus_of("abc"), "fold", {"a": "1", "b": "2", "c": "3"})
    corpus.utterances[0] = replace(corpus.utterances[0], fold="2")
    with pytest.raises(RecipeError, match=r"fold 1: speaker a is in both validation and test"):
        manifest_folds(corpus)


def test_a_speaker_on_two_sides_of_a_split_is_refused():
    corpus = with_cells(corpus_of("abc"), "split", {"a": "train", "b": "validation", "c": "test"})
    corpus.utterances[0] = replace(corpus.utterances[0], split="test")
    with pytest.raises(RecipeError, match=r"fold 1: speaker a is in both train and test"):
        manifest_folds(corpus)


def test_two_speakers_are_too_few_to_be_dealt():
    with pytest.raises(
        RecipeError, match=r"test corpus: found only the speakers a, b; .* need one each\. Add speakers"
    ):
        manifest_folds(corpus_of("ab"))


speakers_by_gender = st.dictionaries(
    st.text("abc123", min_size=1, max_size=3), st.sampled_from(["f", "m", ""]), min_size=3
)


@given(speakers_by_gender)
def test_dealt_folds_test_everyone_once_and_share_nobody(genders):
    corpus = with_cells(corpus_of(genders), "gender", genders)
    folds = manifest_folds(corpus)
    assert len(folds) == (len(genders) if len(genders) <= 10 else 5)
    assert sorted(u.id for fold in folds for u in fold.test) == sorted(u.id for u in corpus.utterances)
    for fold in folds:
        sides = [{u.speaker for u in side} for side in fold.sides().values()]
        assert sum(map(len, sides)) == len(set.union(*sides)) == len(genders)
        assert sum(map(len, fold.sides().values())) == len(corpus.utterances)


@given(speakers_by_gender)
def test_dealt_groups_share_the_genders_evenly(genders):
    groups = dealt_speakers(with_cells(corpus_of(genders), "gender", genders))
    for gender in set(genders.values()):
        counts = [sum(genders[speaker] == gender for speaker in group) for group in groups]
        assert max(counts) - min(counts) <= 1


@given(speakers_by_gender, st.randoms())
def test_dealt_groups_do_not_depend_on_the_order_of_rows(genders, dice):
    corpus = with_cells(corpus_of(genders), "gender", genders)
    groups = dealt_speakers(corpus)
    dice.shuffle(corpus.utterances)
    assert dealt_speakers(corpus) == groups


@given(st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(1, 12), min_size=3))
def test_listed_folds_test_everyone_once(folds_of_speakers):
    names = sorted(set(folds_of_speakers.values()))
    corpus = with_cells(corpus_of(folds_of_speakers), "fold", {s: str(n) for s, n in folds_of_speakers.items()})
    if len(names) < 3:
        with pytest.raises(RecipeError, match="need three"):
            manifest_folds(corpus)
        return
    folds = manifest_folds(corpus)
    assert [{u.fold for u in fold.test} for fold in folds] == [{str(name)} for name in names]
    assert [{u.fold for u in fold.validation} for fold in folds] == [{str(name)} for name in [*names[1:], names[0]]]
    assert all(sum(map(len, fold.sides().values())) == len(corpus.utterances) for fold in folds)


# ---- as they are written


def test_folds_json_tells_speakers_counts_and_utterances(dyads, tmp_path):
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


def test_the_table_has_a_row_for_each_side_of_each_fold(dyads):
    lines = fold_table(session_folds(dyads), CLASSES).splitlines()
    assert len(lines) == 1 + 3 * 3
    assert lines[0].split() == ["fold", "side", "utterances", "happy", "sad", "speakers"]
    assert lines[3].split() == ["1", "test", "3", "2", "1", "Ses01F"]
