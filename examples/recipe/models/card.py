"""The card of a model folder: what was trained, on whom, how well, and what it must not be taken for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipe.data.corpus import Corpus, Fold, Utterance
from recipe.models.folder import Description
from recipe.reporting.cells import bracket, counted, markdown, percent
from recipe.reporting.significance import interval
from recipe.settings import Settings, Stage
from recipe.training.plan import Training
from recipe.training.predict import Predictions
from recipe.training.scores import score

LICENCES = (
    "The weights come from data under the licence above and from a pretrained encoder under its own; see both before "
    "passing this folder on."
)
LIMITS = """\
- The classes are those of the corpus. Whatever a recording holds, one of them is the answer; a high probability says
  that it is more like the utterances of that class than like the others, not that it is right.
- Scores are those of the corpus: other languages, rooms, microphones, ages and unacted speech were not tested.
- Heard is how something is said. What a person feels cannot be read from it: not fit for judging people, and in the
  European Union unlawful at work and in education (Regulation 2024/1689, article 5).
"""


@dataclass(frozen=True)
class CardWriter:
    """What the cards of all models of a run share."""

    corpus: Corpus
    settings: Settings
    precision: str
    stand_in: bool
    backbone_caveat: str

    def write(self, training: Training, description: Description, found: Predictions) -> str:
        fold = training.fold
        sections = [
            front_matter(description),
            f"# {description.system}, trained on {self.corpus.name}",
            self.warning(),
            f"Recognises {', '.join(description.classes)} in speech of {description.sampling_rate} Hz, mono; "
            f"`predict.py` converts other rates. Frames of `{description.backbone}`, pooled by {description.pooling}.",
            "```\npython examples/predict.py THIS_FOLDER speech.wav --timeline\n```",
            "## Data",
            self.data(fold),
            "## Scores",
            scores(fold, found, description.classes),
            "## Training",
            self.protocol(training),
            "## Limits",
            LIMITS.rstrip(),
            "## Licence",
            LICENCES,
        ]
        return "\n\n".join(filter(None, sections)) + "\n"

    def warning(self) -> str:
        lines = []
        if self.stand_in:
            lines.append("**Trained on synthetic speech, to try the recipe: of no use for real speech.**")
        if self.backbone_caveat:
            lines.append(self.backbone_caveat)
        lines += self.corpus.caveats
        return "\n\n".join(lines)

    def data(self, fold: Fold) -> str:
        licence = "made by the demo" if self.stand_in else self.corpus.licence or "not known to the recipe"
        rows = [[side, *amounts(utterances)] for side, utterances in fold.sides().items()]
        skipped = f" {counted(len(self.corpus.skipped), 'file')} could not be used." if self.corpus.skipped else ""
        return (
            f"{self.corpus.name}, {counted(len(self.corpus.utterances), 'utterance')}; licence: {licence}.{skipped}\n\n"
            + markdown(["side", "utterances", "speakers"], rows)
        )

    def protocol(self, training: Training) -> str:
        settings = self.settings
        stages = [settings.stage1] if training.system.stage == 1 else [settings.stage1, settings.stage2]
        kept = "of the epochs, the one with the best UA on validation"
        return "\n".join(
            [
                *(f"- stage {number}: {stage_text(stage)}" for number, stage in enumerate(stages, 1)),
                f"- losses: cross-entropy, EAL at {training.system.eal_weight:g} (margin {training.system.margin:g}), "
                f"FUAL at {training.system.fual_weight:g}",
                f"- batches of {settings.batch_size}, seed {training.seed}, precision {self.precision}; {kept}",
            ]
        )


def front_matter(description: Description) -> str:
    """What the Hugging Face hub reads of a card."""
    return "---\nlibrary_name: framealign\npipeline_tag: audio-classification\ntags:\n- speech-emotion-recognition\n---"


def amounts(utterances: Sequence[Utterance]) -> list[str]:
    speakers = sorted({utterance.speaker for utterance in utterances})
    return [str(len(utterances)), f"{len(speakers)}: {' '.join(speakers)}"]


def stage_text(stage: Stage) -> str:
    return (
        f"{counted(stage.epochs, 'epoch')}; learning rates {stage.backbone_rate:g} (encoder), "
        f"{stage.attention_rate:g} (pooling), {stage.head_rate:g} (classifier)"
    )


def scores(fold: Fold, found: Predictions, classes: Sequence[str]) -> str:
    labels = [classes.index(utterance.label) for utterance in fold.scored]
    result = score(labels, found.classes, len(classes))
    bounds = {
        name: interval(labels, np.array([found.classes]), len(classes), name)  # type: ignore[arg-type]
        for name in ("ua", "wa")
    }
    speakers = counted(len({utterance.speaker for utterance in fold.scored}), "speaker")
    if fold.for_use:
        whose = (
            f"On the validation side: {speakers}, not trained on, **whose scores chose the epoch, so that these are "
            "too good**. Nobody is left to test on: `cross_dataset.py` with the same options tells what such a model "
            "does on new speakers of the corpus."
        )
    else:
        whose = f"On the test side: {speakers}, with no part in the training."
    rows = [
        ["UA, mean recall of the classes", percent(result.ua) + bracket(bounds["ua"])],
        ["WA, accuracy", percent(result.wa) + bracket(bounds["wa"])],
        *([f"recall of {name}", percent(value)] for name, value in zip(classes, result.recalls, strict=True)),
    ]
    return f"{whose} In brackets, 95 % intervals over utterances; other speakers move scores by more.\n\n" + markdown(
        ["", "score"], rows
    )
