"""The corpus and the folds that the options ask for."""

from pathlib import Path

from recipe.corpora import Corpus, read_corpus, speaker_groups
from recipe.corpora.demo import make_demo_corpus
from recipe.corpora.transfer import joined
from recipe.folds import Fold, manifest_folds, session_folds, speaker_folds, split_folds
from recipe.options import Options

DEMO = Path("runs/demo-corpus")


def read(options: Options) -> Corpus:
    data = options.data or make_demo_corpus(DEMO)
    corpus = read_corpus(options.corpus, data, options.classes)
    if options.train_corpus is None or options.train_data is None:
        return corpus
    return joined(read_corpus(options.train_corpus, options.train_data, options.classes), corpus)


def make_folds(options: Options, corpus: Corpus) -> list[Fold]:
    if options.train_corpus is not None:
        return split_folds(corpus)
    if options.corpus == "iemocap":
        return session_folds(corpus)
    if options.corpus == "manifest":
        return manifest_folds(corpus)
    return speaker_folds(corpus, speaker_groups(corpus))
