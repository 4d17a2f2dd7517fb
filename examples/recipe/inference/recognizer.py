"""A model of a folder, and what it says of recordings."""

import contextlib
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from recipe.data.audio import AudioError, blocks, content_of
from recipe.features.backbone import pad
from recipe.features.batches import within_budget
from recipe.inference.answer import Answer, Heard, Recording
from recipe.inference.windows import Window, windows
from recipe.models.folder import read_model
from recipe.training.predict import batch_outputs, on_host, one_row

AHEAD = 32  # windows that are read before the model is asked, so that those of a batch are of similar length
FRAME_BUDGET = 6000  # steps of a batch, padding included


class Recognizer:
    """Asks a model about recordings: audio files of any rate, any number of channels, and any length.

    One that is no longer than the utterances that the model was trained on is heard whole, as those were. A longer one
    is heard in windows of the length that most of them had; its probabilities are the windows' mean, by their length.

    Args:
        folder: A model folder, as train_model.py and `--save_models` leave it.
        device: By default a GPU, where there is one.

    Raises:
        RecipeError: When the folder holds no whole model.

    Example:
        recognizer = Recognizer("runs/emodb-model/model")
        answer = recognizer("speech.wav")
        print(answer.label, answer.by_class)
    """

    def __init__(self, folder: Path | str, device: str | torch.device | None = None) -> None:
        model, self.description = read_model(Path(folder))
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device)

    @property
    def knows_frames(self) -> bool:
        """Whether the model says something of each frame: a statistics pooling's classifier is too wide for them."""
        return self.model.pooling.output_dim == self.model.backbone.dim

    def __call__(self, recording: Path | str | bytes) -> Answer:
        """The answer to one file, or to the content of one.

        Raises:
            AudioError: When it cannot be used.
        """
        [answer] = self.answers([recording])
        if isinstance(answer, AudioError):
            raise answer
        return answer

    def answers(
        self, recordings: Iterable[Path | str | bytes], heard: Callable[[float], object] = lambda seconds: None
    ) -> Iterator[Answer | AudioError]:
        """An answer to each, in their order and computed in batches; a file that cannot be used is an error there.

        Args:
            recordings: Files, or their contents.
            heard: Is told, batch by batch, how many seconds were heard.
        """
        unfinished: deque[Recording] = deque()
        waiting: list[tuple[Recording, Window]] = []

        def finished() -> Iterator[Answer | AudioError]:
            while unfinished and unfinished[0].finished:
                yield unfinished.popleft().answer(self.description.classes)

        for source in recordings:
            unfinished.append(recording := Recording())
            try:
                for window in self.windows(source):
                    recording.windows += 1
                    waiting.append((recording, window))
                    if len(waiting) == AHEAD:
                        heard(self.hear(waiting))
                        waiting.clear()
                        yield from finished()
            except AudioError as error:
                recording.error = error
            recording.whole = True
        heard(self.hear(waiting))
        yield from finished()

    def windows(self, recording: Path | str | bytes) -> Iterator[Window]:
        if isinstance(recording, bytes):
            path, content = Path("-"), contextlib.nullcontext(io.BytesIO(recording))
        else:
            path = Path(recording)
            content = content_of(path)
        with content as stream:
            yield from windows(blocks(path, stream), self.description.longest, self.description.typical)

    @torch.inference_mode()
    def hear(self, waiting: Sequence[tuple[Recording, Window]]) -> float:
        """Tell the recordings what the model says of these windows; their seconds."""
        features = [self.model.backbone.features(window.waveform.to(self.device)) for _, window in waiting]
        for batch in within_budget(range(len(waiting)), [len(steps) for steps in features], FRAME_BUDGET):
            pooled, mask = self.model(*pad([features[index] for index in batch]))
            outputs, mask = on_host(batch_outputs(self.model, pooled)), mask.cpu()
            for row, index in enumerate(batch):
                recording, window = waiting[index]
                recording.heard[window.number] = Heard.of(window, one_row(outputs, mask, row))
        return sum(window.seconds for _, window in waiting)
