"""The classical row: statistics of MFCCs and a support vector machine.

No pretrained network and no GPU, trained in seconds: it gives a reader a sense of scale for the other rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import Tensor
from torchaudio.functional import compute_deltas
from torchaudio.transforms import MFCC

from recipe.data.audio import SAMPLE_RATE, SHORTEST, read_waveform
from recipe.data.corpus import Fold
from recipe.training.predict import Predictions
from recipe.training.scores import score

WINDOW = 400  # samples: 25 ms
HOP = 160  # 10 ms
COEFFICIENTS = 20
MEL_BANDS = 40
SILENCE = 1e-10  # energy below that of any microphone; the logarithm needs some
PERCENTILES = (10, 50, 90)

C_GRID = (0.1, 1.0, 10.0, 100.0)


@dataclass(frozen=True)
class FittedSVM:
    """The machine, and what the validation speakers said of it."""

    pipeline: Pipeline
    c: float
    validation_ua: float

    def predict(self, features: np.ndarray) -> np.ndarray:
        """(utterances,) class indices."""
        return self.pipeline.predict(features)

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """(utterances, classes): the softmax of the decision function, largest at the predicted class.

        They order the classes and are not calibrated. SVC's own probabilities come from a random cross-validation,
        may contradict its predictions, and are deprecated.
        """
        decisions = self.pipeline.decision_function(features)
        if decisions.ndim == 1:  # of two classes SVC gives the second's decision only
            decisions = np.stack([-decisions, decisions], axis=1)
        return softmax(decisions, axis=1)


def mfcc_statistics(waveform: Tensor) -> np.ndarray:
    """Statistics over time of (samples,) at 16 kHz: (features,) float32.

    20 MFCCs, the log energy, and their deltas: each one's mean, standard deviation, and 10, 50 and 90 % percentiles.
    """
    if waveform.ndim != 1 or len(waveform) < SHORTEST:
        raise ValueError(
            f"`waveform` must have shape (samples,) with at least {SHORTEST} samples at {SAMPLE_RATE} Hz, "
            f"got {tuple(waveform.shape)}."
        )
    waveform = waveform.detach().to("cpu", torch.float32)
    energy = waveform.unfold(0, WINDOW, HOP).square().mean(dim=1)
    static = torch.cat([mfcc()(waveform), (energy + SILENCE).log()[None]])  # (coefficients, time)
    contours = torch.cat([static, compute_deltas(static)]).numpy()
    statistics = [
        contours.mean(axis=1),
        contours.std(axis=1),  # of the population: a single frame has one, 0
        *np.percentile(contours, PERCENTILES, axis=1),
    ]
    return np.concatenate(statistics).astype(np.float32)


def classical_predictions(fold: Fold, classes: Sequence[str]) -> Predictions:
    """Fit on the fold, and predict its test utterances. Nothing in it is random: seeds give the same."""
    sides = [np.stack([statistics_of(u.path) for u in side]) for side in fold.sides().values()]
    labels = [[classes.index(u.label) for u in side] for side in fold.sides().values()]
    probabilities = fit_svm(sides[0], labels[0], sides[1], labels[1]).probabilities(sides[2])
    return Predictions(
        probabilities=torch.from_numpy(probabilities).float(),
        vectors=torch.from_numpy(sides[2]),
        lengths=torch.zeros(len(fold.test), dtype=torch.long),
        weights=torch.zeros(0),
        frame_probabilities=torch.zeros(0, 0),
        diagnostics={},
    )


@cache  # every file is in each fold, on one side or another
def statistics_of(path: Path) -> np.ndarray:
    return mfcc_statistics(read_waveform(path))


@cache
def mfcc() -> MFCC:
    return MFCC(
        SAMPLE_RATE,
        n_mfcc=COEFFICIENTS,
        melkwargs={
            "n_fft": WINDOW,
            "hop_length": HOP,
            "n_mels": MEL_BANDS,
            "center": False,  # else the first and last frames are mirror images, not speech
        },
    )


def fit_svm(
    train_x: np.ndarray, train_y: Sequence[int], validation_x: np.ndarray, validation_y: Sequence[int]
) -> FittedSVM:
    """Fit on the training speakers; C is the one with the best UA on the validation speakers, the smaller of equals.

    Args:
        train_x, validation_x: (utterances, features).
        train_y, validation_y: Class indices; training has utterances of every class, from 0 on.
    """
    classes = np.unique(train_y)
    if not np.array_equal(classes, np.arange(len(classes))) or not np.isin(validation_y, classes).all():
        raise ValueError(
            f"`train_y` must hold every class from 0 on, those of `validation_y` too, got {classes.tolist()} "
            f"and {np.unique(validation_y).tolist()}."
        )
    fits = []
    for c in C_GRID:
        # without break_ties, predict and decision_function disagree where classes win equally many duels
        svc = SVC(C=c, kernel="rbf", class_weight="balanced", decision_function_shape="ovr", break_ties=True)
        pipeline = make_pipeline(StandardScaler(), svc).fit(train_x, train_y)
        ua = score(validation_y, pipeline.predict(validation_x), len(classes)).ua
        fits.append(FittedSVM(pipeline, c, ua))
    return max(fits, key=lambda fitted: fitted.validation_ua)  # the first, so the smaller, of equals
