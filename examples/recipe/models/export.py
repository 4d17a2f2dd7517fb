"""A model's head, or all of it, in one file that runs without this code: ONNX, or a program of torch.export.

A file is run on padded batches of other sizes, with NaN in the padding, and compared with what the model says of each
utterance alone. One that differs is not kept.
"""

import contextlib
import io
import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
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
INSTALL = 'pip install "framealign[export]"'

Answers = dict[str, Tensor]
Ask = Callable[[Tensor, Tensor], list[Tensor]]


class Part(nn.Module):
    """What is exported: a padded batch and its mask to `answers`."""

    name: str
    input: Input

    def utterance(self, seconds: float) -> tuple[Tensor, Answers]:
        """What it reads of some noise, and what the model says of that alone."""
        raise NotImplementedError


class Head(Part):
    name = "head"

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.pooling, self.classifier, self.dim = model.pooling, model.classifier, model.backbone.dim
        self.input = Input("frames", ("batch", "time", self.dim), "the backbone's, 20 ms each", 1, 2**20)

    def forward(self, frames: Tensor, mask: Tensor) -> Answers:
        return answers(self, frames, mask)

    def utterance(self, seconds: float) -> tuple[Tensor, Answers]:
        frames = torch.randn(round(50 * seconds), self.dim)
        return frames, answers(self, frames[None], torch.ones(1, len(frames), dtype=torch.bool))


class Whole(Part):
    name = "whole"

    def __init__(self, model: EmotionModel) -> None:
        super().__init__()
        self.model, self.input = model, model.backbone.whole_input

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


def export(folder: Path, file: Path, part: str | None = None) -> None:
    """Write `head` or `whole` of a model folder, by default what can be had, and print what was written.

    Raises:
        RecipeError: When it cannot be exported, which is told before it is tried, or when the file's answers differ.
    """
    check_packages(file)
    model, description = read_model(folder)
    chosen = part_of(model, file, part)
    check_size(chosen, file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial, torch.no_grad(), quiet():
        program, texts = exported(chosen), metadata(chosen, description)
        partial.write_bytes(onnx_file(program, chosen, texts) if file.suffix == ".onnx" else pt2_file(program, texts))
        ask = opened(partial, file.suffix)
        found = None if ask is None else difference(chosen, ask)
    if found is None:
        checked = f"not compared with the model, for which onnxruntime is needed: {INSTALL}"
    else:
        checked = f"its answers are the model's, within {found:.0e}"
    print(f"{file}: {chosen.name}, {file.stat().st_size / 1e6:.1f} MB; {checked}")


def check_packages(file: Path) -> None:
    if file.suffix not in SUFFIXES:
        raise RecipeError(f"--output {file}: its name must end in {' or '.join(SUFFIXES)}.")
    missing = [name for name in ("onnx", "onnxscript") if find_spec(name) is None]
    if file.suffix == ".onnx" and missing:
        raise RecipeError(
            f"{' and '.join(missing)}: not installed; run `{INSTALL}`, or write a .pt2, which needs neither."
        )


def part_of(model: EmotionModel, file: Path, part: str | None) -> Part:
    why_not = model.backbone.why_not_whole(file.suffix)
    if part == "whole" and why_not is not None:
        raise RecipeError(f"--part whole: cannot be exported: {why_not}. --part head can, and reads frames.")
    if part is None and why_not is not None:
        print(f"the head alone, which reads frames; the whole cannot be exported: {why_not}", file=sys.stderr)
    return Head(model) if part == "head" or why_not is not None else Whole(model)


def check_size(part: Part, file: Path) -> None:
    size = sum(value.nbytes for value in part.state_dict().values())
    if file.suffix == ".onnx" and size > ONNX_LIMIT:
        raise RecipeError(f"{file}: would be of {size / 1e9:.1f} GB, and ONNX files end at 2 GB; write a .pt2.")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """PyTorch and its exporter warn of what is not wrong and not for a user to mend."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def exported(part: Part) -> ExportedProgram:
    inputs, mask, _ = padded_batch(part, (0.5, 0.3))
    return torch.export.export(
        part,
        (inputs, mask),
        dynamic_shapes=dynamic_shapes(part.input),
        # among them that convolutions leave more than one step, which it cannot prove
        prefer_deferred_runtime_asserts_over_guards=True,
    )


def dynamic_shapes(reads: Input) -> tuple[dict[int, Dim], dict[int, Dim]]:
    """Of the inputs and of the mask."""
    batch, time = Dim("batch", min=1), Dim(str(reads.shape[reads.time]), min=reads.shortest, max=reads.longest)
    return {0: batch, reads.time: time}, {0: batch, 1: time}


def padded_batch(part: Part, seconds: Sequence[float]) -> tuple[Tensor, Tensor, list[Answers]]:
    """Inputs with NaN in the padding, their mask, and what the model says of each utterance alone."""
    utterances, alone = zip(*(part.utterance(length) for length in seconds), strict=True)
    rows = [utterance.movedim(part.input.time - 1, 0) for utterance in utterances]
    inputs = pad_sequence(rows, batch_first=True, padding_value=torch.nan).movedim(1, part.input.time)
    return inputs, lengths_to_mask([len(row) for row in rows]), list(alone)


def metadata(part: Part, description: Description) -> dict[str, str]:
    reads = part.input
    axes, time = ", ".join(map(str, reads.shape)), reads.shape[reads.time]
    return {
        "part": part.name,
        "classes": json.dumps(description.classes),
        "sampling_rate": str(description.sampling_rate),
        "backbone": description.backbone,
        "pooling": description.pooling,
        reads.name: f"({axes}) float32: {reads.meaning}; {reads.shortest} to {reads.longest} {time}",
        "mask": f"(batch, {time}) bool: true where real; padding comes last, and may hold anything",
        "outputs": "probabilities of the classes; each frame's attention and probabilities, zero at padding",
    }


def pt2_file(program: ExportedProgram, texts: dict[str, str]) -> bytes:
    content = io.BytesIO()
    torch.export.save(program, content, extra_files={METADATA: json.dumps(texts)})
    return content.getvalue()


def onnx_file(program: ExportedProgram, part: Part, texts: dict[str, str]) -> bytes:
    names = list(part.utterance(0.5)[1])
    found = torch.onnx.export(
        program,
        input_names=[part.input.name, "mask"],
        output_names=names,
        dynamic_shapes=dynamic_shapes(part.input),  # known to the program, but for their names
        dynamo=True,
        verbose=False,
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
        raise RecipeError(f"the file's answers differ from the model's by {worst:.0e}, so it is not kept; report it.")
    return worst
