"""Published results by corpus, each with where it stands and how it was measured.

A number without its protocol says nothing: choosing the epoch on the test speakers alone is worth three to five
points (emotion2vec's own tables, WA 71.8 with a validation set and 74.5 where validation is the test set).
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    name: str
    ua: str  # per cent; a dash where no public text states it
    wa: str
    source: str
    protocol: str
    comparable: str  # with this recipe's numbers


PUBLISHED = {
    "IEMOCAP": (
        Published(
            "CLS + EAL + FUAL, the paper",
            "75.3",
            "74.2",
            "Byun and Lee 2025, doi 10.3390/fi17110509, text of section 4.4.5",
            "wav2vec2-base; five sessions in turn, its man is validation and its woman is test (2649 utterances)",
            "yes: the protocol of this recipe. Seeds, and whether folds are averaged or pooled, are not stated",
        ),
        Published(
            "SMW-CAT",
            "74.25",
            "73.80",
            "its abstract, ICASSP 2023",
            "not in the abstract",
            "unknown",
        ),
        Published(
            "ShiftCNN",
            "-",
            "-",
            "no public text with a number was found; code: ECNU-Cross-Innovation-Lab/ShiftSER, 45ab670",
            "five sessions, both speakers are test, no validation; its code reports the best of 100 epochs on test, "
            "UA and WA from different ones",
            "no: the epoch is chosen on test",
        ),
        Published(
            "FLEA",
            "-",
            "-",
            "no public text with a number was found; code: ASolitaryMan/HFLEA, bca1c40",
            "its code reports the mean of validation UA and test UA; utterances cut at 6 s",
            "no: half of the score is the validation score that was selected",
        ),
        Published(
            "wav2vec2-base, fine-tuned (V-FT)",
            "69.9",
            "-",
            "result table (an image) of b04901014/FT-w2v2-ser, e70175c",
            "five sessions, both speakers are test (5531 utterances), the last epoch is tested, mean of 5 runs",
            "nearly: selects nothing on test, but tests both speakers",
        ),
        Published(
            "wav2vec2-base, further pretrained (P-TAPT)",
            "74.3",
            "-",
            "the same",
            "the same",
            "nearly, likewise; a rerun by a reader gave 71.6 (issue 4 of that repository)",
        ),
    ),
    "RAVDESS": (
        Published(
            "the paper",
            "-",
            "-",
            "Byun and Lee 2025, Table 7, whose numbers were not to be had; its text says: better than its baseline",
            "8 classes; how it was split is not stated",
            "unknown",
        ),
        Published(
            "wav2vec2-base, frozen",
            "54.33",
            "55.40",
            "result table (an image) of emo-box/EmoBox, 08280f2",
            "8 classes, the six folds of this recipe, frozen features and a small classifier",
            "nearly: the same test speakers; its code tests the checkpoint of every epoch",
        ),
        Published("HuBERT base, frozen", "65.43", "66.21", "the same", "the same", "nearly, likewise"),
    ),
    "CREMA-D": (
        Published(
            "the paper",
            "-",
            "-",
            "Byun and Lee 2025, Table 7, whose numbers were not to be had; its text says: better than its baseline",
            "6 classes; how it was split is not stated",
            "unknown",
        ),
        Published(
            "wav2vec2-base, frozen",
            "61.95",
            "61.90",
            "result table (an image) of emo-box/EmoBox, 08280f2",
            "6 classes, one random split in which all 91 speakers are in both training and test",
            "no: the speakers are known",
        ),
    ),
}
