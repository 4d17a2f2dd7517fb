"""A model's head, or all of it, in one file that runs without this code: ONNX, or a program of torch.export.

A file is written, run on a padded batch of other sizes, with NaN in the padding, and compared with what the model says
of each utterance alone. One that differs is not kept.
"""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.utils.rnn import pad_sequence

from framealign import lengths_to_mask
from framealign.functional import zero_padding
from recipe.data.audio import SAMPLE_RATE
from recipe.errors import RecipeError
from recipe.features.backbone import Input
from recipe.files import replacing
from recipe.models.folder import Description, read_model
from recipe.training.model import EmotionModel
from recipe.training.predict import batch_outputs

TOLERANCE = 1e-4
SUFFIXES = (".onnx", ".pt2")
ONNX_LIMIT = 2**31  # bytes of one file
METADATA = "metadata.json"  # in a .pt2, where an ONNX file has properties

Answers = dict[str, Tensor]
Ask = Callable[[Tensor, Tensor], list[Tensor]]


class Part(nn.Module):
    """What is exported: a padded batch and its mask to `answers`, which are zero at padding."""

    name: str
    input: Input

    def utterance(self, seconds: float) -> tuple[Tensor, Answers]:
        """What it reads of an utterance of noise, and what the model says of that alone."""
        raise NotImplementedError


class Head(Part):
    name = "head"

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.pooling, self.classifier = model.pooling, model.classifier
        self.dim = model.backbone.dim
        self.input = Input("frames", ("batch", "time", self.dim), "the backbone's, 20 ms each", 1, 2**20)

    def forward(self, frames: Tensor, mask: Tensor) -> Answers:
        return answers(self, frames, mask)

    def utterance(self, seconds: float) -> tuple[Tensor, Answers]:
        frames = torch.randn(round(50 * seconds), self.dim)
        return frames, self(frames[None], torch.ones(1, len(frames), dtype=torch.bool))


class Whole(Part):
    name = "whole"

    def __init__(self, model: EmotionModel, reads: Input) -> None:
        super().__init__()
        self.model, self.input = model, reads

    def forward(self, raw: Tensor, mask: Tensor) -> Answers:
        return answers(self.model, *self.model.backbone.whole(raw, mask))

    def utterance(self, seconds: float) -> tuple[Tensor, Answers]:
        waveform = 0.1 * torch.randn(round(seconds * SAMPLE_RATE))
        return self.model.backbone.raw(waveform), answers(self.model, *self.model.backbone([waveform]))


def answers(model: EmotionModel | Head, frames: Tensor, mask: Tensor) -> Answers:
    outputs = batch_outputs(model, model.pooling(frames, mask))
    found = {"probabilities": outputs["logits"].softmax(1), "attention": outputs["weights"]}
    if outputs["frame_logits"].shape[2]:
        found["frame_probabilities"] = zero_padding(outputs["frame_logits"].softmax(2), mask)
    return found


def export(folder: Path, file: Path, part: str | None = None) -> tuple[Part, float | None]:
    """Write `head` or `whole` of a model folder, by default what can be had of it.

    Returns:
        What was written, and by how much its answers differ from the model's at most; None where onnxruntime is missing.

    Raises:
        RecipeError: When it cannot be exported, which is told before it is tried, or when the file's answers differ.
    """
    check_packages(file)
    model, description = read_model(folder)
    chosen = part_of(model, folder, part)
    check_size(chosen, file)
    with replacing(file) as partial, torch.no_grad():
        program = exported(chosen)
        texts = metadata(chosen, description)
        partial.write_bytes(onnx_file(program, chosen, texts) if file.suffix == ".onnx" else pt2_file(program, texts))
        ask = opened(partial, file.suffix)
        return chosen, None if ask is None else difference(chosen, ask)


def check_packages(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise RecipeError(f"--output {file}: its name must end in {' or '.join(SUFFIXES)}.")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if file.suffix == ".onnx" and missing:
        raise RecipeError(
            f'{" and ".join(missing)}: not installed; run `pip install "framealign[export]"`, or write a .pt2, which '
            "needs neither."
        )


def part_of(model: EmotionModel, folder: Path, part: str | None) -> Part:
    reads = model.backbone.whole_input
    if part == "head" or (part is None and reads is None):
        return Head(model)
    if reads is None:
        raise RecipeError(
            f"{folder}: cannot be exported whole: {model.backbone.why_not_whole}. --part head can, and reads frames."
        )
    return Whole(model, reads)


def check_size(part: Part, file: Path) -> None:
    size = sum(value.nbytes for value in part.state_dict().values())
    if file.suffix == ".onnx" and size > ONNX_LIMIT:
        raise RecipeError(f"{file}: would be of {size / 1e9:.1f} GB, and ONNX files end at 2 GB; write a .pt2.")


def exported(part: Part) -> ExportedProgram:
    inputs, mask, _ = padded_batch(part, (0.5, 0.3))
    time, reads = part.input.time, part.input
    batch = Dim("batch", min=1)
    length = Dim(str(reads.shape[time]), min=reads.shortest, max=reads.longest)
    return torch.export.export(
        part,
        (inputs, mask),
        dynamic_shapes=({0: batch, time: length}, {0: batch, 1: length}),
        # such as that what convolutions leave is longer than one step, which is so and which it cannot prove
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def padded_batch(part: Part, seconds: Sequence[float]) -> tuple[Tensor, Tensor, list[Answers]]:
    """Inputs with NaN in the padding, their mask, and what the model says of each utterance alone."""
    utterances, alone = zip(*(part.utterance(length) for length in seconds), strict=True)
    rows = [utterance.movedim(part.input.time - 1, 0) for utterance in utterances]
    inputs = pad_sequence(rows, batch_first=True, padding_value=torch.nan).movedim(1, part.input.time)
    return inputs, lengths_to_mask([len(row) for row in rows]), list(alone)


def metadata(part: Part, description: Description) -> dict[str, str]:
    reads = part.input
    time = reads.shape[reads.time]
    return {
        "part": part.name,
        "classes": json.dumps(description.classes),
        "sampling_rate": str(description.sampling_rate),
        "backbone": description.backbone,
        "pooling": description.pooling,
        reads.name: f"{list(reads.shape)} float32: {reads.meaning}; {time} from {reads.shortest} to {reads.longest}",
        "mask": f"['batch', '{time}'] bool: true where real; padding comes last and may hold anything",
        "outputs": "probabilities of the classes; attention of each frame and its probabilities, zero at padding",
    }


def pt2_file(program: ExportedProgram, texts: dict[str, str]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: json.dumps(texts)})
    return content.getvalue()


def onnx_file(program: ExportedProgram, part: Part, texts: dict[str, str]) -> bytes:
    names = list(part.utterance(0.5)[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an axis's name is given once and used twice
        found = torch.onnx.export(
            program, input_names=[part.input.name, "mask"], output_names=names, dynamo=True, verbose=False
        )
    assert found is not None
    found.model.metadata_props.update(texts)
    content: bytes = found.model_proto.SerializeToString()
    return content


def opened(file: Path, suffix: str) -> Ask | None:
    """What asks a file; None where what runs it is not installed."""
    if suffix == ".pt2":
        program = torch.export.load(io.BytesIO(file.read_bytes())).module()
        return lambda inputs, mask: list(program(inputs, mask).values())
    if find_spec("onnxruntime") is None:
        return None
    from onnxruntime import InferenceSession

    session = InferenceSession(file, providers=["CPUExecutionProvider"])
    first, second = (one.name for one in session.get_inputs())
    return lambda inputs, mask: [
        torch.as_tensor(values) for values in session.run(None, {first: inputs.numpy(), second: mask.numpy()})
    ]


def difference(part: Part, ask: Ask) -> float:
    """Of a file's answers from the model's, at most: in a batch of three, and alone."""
    worst = 0.0
    for seconds in ((1.1, 0.4, 0.8), (0.6,)):
        inputs, mask, alone = padded_batch(part, seconds)
        for name, values in zip(alone[0], ask(inputs, mask), strict=True):
            expected = torch.zeros_like(values)
            for row, one in zip(expected, alone, strict=True):
                row[: one[name].shape[1]] = one[name][0]
            worst = max(worst, float((values - expected).abs().nan_to_num(torch.inf).max()))
    if worst > TOLERANCE:
        raise RecipeError(f"what was exported differs from the model by {worst:.1e}; it is not kept. Please report it.")
    return worst
