"""Label files and file names of any content: a corpus whose utterances make sense, or the project's own error."""

import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recipe.data.corpora import corpora, read_corpus
from recipe.errors import RecipeError
from trees import touch, write_iemocap_audio

TURN = "Ses01F_impro01_F000"
many = settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_sound(read, root):
    """Whatever is read has labels and speakers, one id each, and is a file."""
    try:
        corpus = read(root)
    except RecipeError:
        return
    ids = [utterance.id for utterance in corpus.utterances]
    assert ids == sorted(set(ids))
    for utterance in corpus.utterances:
        assert utterance.label in corpus.classes
        assert utterance.speaker
        assert utterance.path.is_file()


LINES = st.one_of(
    st.sampled_from(
        [
            f"[6.2901 - 8.2357]\t{TURN}\tneu\t[2.5000, 2.5000, 2.5000]",
            "[8.3 - 9.1]\tSes01F_impro01_M000\tang\t[2.0, 2.0, 2.0]",
            f"[1.0 - 2.0]\t{TURN}\tsad\t[]",
            f"[1.0 - 2.0]\t{TURN}\t",
            "[",
            f"[nan - inf]\t{TURN}\tneu\t[2.5]",
            "[1.0 - 2.0]\t../../../etc/passwd\tneu\t[2.5]",
            "C-E2:\tNeutral;\t()",
        ]
    ),
    st.text(max_size=20),
    st.text(max_size=20).map(lambda text: f"[{text}"),
)


@many
@given(st.lists(LINES, max_size=8), st.binary(max_size=6), st.sampled_from(["\n", "\r\n", "\r", "\0"]))
def test_iemocap_label_files(tmp_path, lines, noise, end):
    root = tmp_path / "iemocap"
    shutil.rmtree(root, ignore_errors=True)
    write_iemocap_audio(root, [TURN, "Ses01F_impro01_M000"])
    labels = root / "Session1" / "dialog" / "EmoEvaluation"
    labels.mkdir(parents=True)
    (labels / "Ses01F_impro01.txt").write_bytes(noise + end.join(lines).encode("utf-8", errors="surrogatepass") + noise)
    assert_sound(lambda root: read_corpus("iemocap", root), root)


NAMES = {
    "ravdess": ["03-01-05-01-02-01-12", "03-01-01-01-01-01-01", "03-02-05-01-02-01-12"],
    "emodb": ["03a01Wa", "16b10Td", "08a05Fb"],
    "crema-d": ["1001_DFA_ANG_XX", "1091_WSI_SAD_XX", "1002_IEO_HAP_LO"],
}
PLACES = {"ravdess": "Actor_{}", "emodb": "wav", "crema-d": "AudioWAV"}


def bent(name):
    """The name, with a letter or two put in, taken out or changed."""
    return st.tuples(
        st.integers(0, len(name)), st.integers(0, 2), st.text(alphabet="0123456789-_aAWX. é\udce4", max_size=3)
    ).map(lambda edit: name[: edit[0]] + edit[2] + name[edit[0] + edit[1] :])


@pytest.mark.parametrize("corpus", NAMES)
@many
@given(data=st.data())
def test_file_names(tmp_path, corpus, data):
    root = tmp_path / "corpus"
    shutil.rmtree(root, ignore_errors=True)
    names = data.draw(st.lists(st.sampled_from(NAMES[corpus]).flatmap(bent), max_size=6))
    for name in [*NAMES[corpus], *names]:
        suffix = data.draw(st.sampled_from([".wav", ".WAV", ".flac", ".mp3", "", ".wav.part"]))
        touch(root / PLACES[corpus].format(name[-2:].strip(". ") or "x"), [(name or "x") + suffix])
    assert_sound(corpora()[corpus].read, root)
