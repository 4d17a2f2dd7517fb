"""A page in the browser: what a model says of a recording, when, and the segment that weighed most."""

import io
import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from recipe.data.audio import SAMPLE_RATE, AudioError, blocks, content_of
from recipe.errors import RecipeError
from recipe.inference.answer import Answer
from recipe.inference.picture import answer_figure
from recipe.inference.recognizer import Recognizer
from recipe.inference.segments import Segment, attention_of, segments
from recipe.reporting.cells import markdown
from recipe.reporting.figures.style import save

KEPT = 3000  # seconds for which a recording can be played; its file is deleted at most 300 later
LIMITS = (
    "Whatever it hears, one of these classes is the answer: how something is said, not what a person feels. Not fit "
    "for judging people. Recordings stay on this computer, and are deleted within an hour."
)
FONT = ["system-ui", "sans-serif"]
# Gradio would break words for a table to fit
STYLE = """
td, th { padding: 0.2em 0.5em !important; border-color: var(--border-color-primary) !important }
td, th { font-size: 0.9em; font-variant-numeric: tabular-nums; word-break: normal; overflow-wrap: normal }
"""
# Nothing is fetched from elsewhere, though a model's card may name a picture there
HEAD = """<meta http-equiv="Content-Security-Policy"
content="default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'">"""


class Refused(Exception):
    """A recording has no answer; why not, as a person is told."""


def serve(folder: Path, port: int | None, longest: float) -> None:
    """Show the page to this computer until it is interrupted.

    Args:
        folder: A model folder.
        port: By default the first free one from 7860 on.
        longest: Seconds of a recording.
    """
    recognizer = Recognizer(folder)
    # Gradio asks its own address whether the page is up, which a proxy would not know
    os.environ.update(GRADIO_ANALYTICS_ENABLED="False", no_proxy="*")
    with TemporaryDirectory(prefix="framealign-page-", ignore_cleanup_errors=True) as kept:
        os.environ["GRADIO_TEMP_DIR"] = kept
        shown = page(recognizer, card_text(folder), longest)
        try:
            shown.launch(
                server_name="127.0.0.1",
                server_port=port,
                share=False,
                prevent_thread_lock=True,
                quiet=True,
                footer_links=[],
                run_history=False,  # of recordings and answers, in the browser
                ssr_mode=False,
                theme=gr.themes.Default(font=FONT, font_mono=FONT),
                css=STYLE,
                head=HEAD,
            )
        except OSError:
            which = "7860 to 7959 are" if port is None else f"{port} is"
            raise RecipeError(f"--port: {which} not free; choose another.") from None
        print(f"{shown.local_url} (Ctrl-C ends it)", flush=True)
        shown.block_thread()


def page(recognizer: Recognizer, card: str, longest: float) -> gr.Blocks:
    description = recognizer.description
    title = f"{description.system}: {', '.join(description.classes)}"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT // 10, KEPT)) as shown:
        gr.Markdown(f"# {title}\n\n{LIMITS}")
        with gr.Row():
            with gr.Column():
                recording = gr.Audio(
                    type="filepath", editable=False, buttons=[], label=f"Recording, up to {minutes(longest)}"
                )
                word = gr.Markdown(visible=False, container=True)
            probabilities = gr.Label(num_top_classes=len(description.classes), label="Probabilities")
        with gr.Row(visible=False) as over_time:
            with gr.Column(scale=3, min_width=640):
                picture = gr.Image(
                    format="png",
                    type="pil",
                    interactive=False,
                    buttons=[],
                    show_label=False,  # it would lie on the title
                    alt_text="Segments, waveform, attention and class probabilities over time",
                )
            with gr.Column(scale=2):
                heaviest = gr.Audio(interactive=False, buttons=[])
                table = gr.Markdown(max_height=400)
        with gr.Accordion("About this model", open=False, visible=bool(card)):
            gr.Markdown(card)

        screen = gr.Number(visible=False)
        outputs = [word, probabilities, over_time, picture, heaviest, table]

        def listen(path: str | None, pixels: float) -> dict:
            nothing = {word: gr.Markdown(visible=False), probabilities: None, over_time: gr.Row(visible=False)}
            if path is None:
                return nothing
            try:
                samples = samples_of(Path(path), longest)
            except Refused as reason:
                return {**nothing, word: gr.Markdown(str(reason), visible=True)}
            answer = recognizer(path)
            found = segments(answer)
            if not found:  # a pooling whose frames have no classes
                return {**nothing, probabilities: answer.by_class}
            return {
                word: gr.Markdown(visible=False),
                probabilities: answer.by_class,
                over_time: gr.Row(visible=True),
                picture: drawn(answer, found, Path(path).name, pixels),
                heaviest: weighed_most(answer, found, samples),
                table: as_table(answer, found),
            }

        recording.change(
            listen,
            [recording, screen],
            outputs,
            show_progress_on=probabilities,
            js="(recording) => [recording, window.innerWidth]",
        )
    return shown


def samples_of(path: Path, longest: float) -> Tensor:
    """All of the recording, once it is known to be one, and no longer than `longest` seconds.

    Raises:
        Refused: As soon as that much is read, since a file may be longer than it says; or when it cannot be used.
    """
    pieces, left = [], longest * SAMPLE_RATE
    try:
        with content_of(path) as stream:
            for piece in blocks(path, stream):
                left -= len(piece)
                if left < 0:
                    raise Refused(
                        f"This recording is longer than {minutes(longest)}, and the page takes no longer ones. "
                        "`python examples/predict.py` takes any length."
                    )
                pieces.append(piece)
    except AudioError as error:
        reason = error.reason.partition(";")[0]  # the rest is for who has a command line
        raise Refused(
            f"This recording cannot be used: it {reason}. Try another one; WAV, FLAC, MP3 and Ogg can be read."
        ) from None
    return torch.cat(pieces)


def drawn(answer: Answer, found: list[Segment], name: str, pixels: float) -> Image.Image:
    """For a screen of that width, so that its letters can be read on a narrow one."""
    file = io.BytesIO()
    save(answer_figure(answer, found, name, width=min(max(pixels / 95, 3), 7.5)), file)
    return Image.open(file)


def weighed_most(answer: Answer, found: list[Segment], samples: Tensor) -> gr.Audio:
    weight, segment = max(zip(attention_of(answer, found), found, strict=True))
    start, end = round(segment.start * SAMPLE_RATE), round(segment.end * SAMPLE_RATE)
    sound = (samples[start:end].clamp(-1, 1) * 32767).short().numpy()
    label = (
        f"The segment that weighed most: {segment.label}, {segment.start:.2f} to {segment.end:.2f} s, "
        f"{weight:.0%} of the attention"
    )
    return gr.Audio((SAMPLE_RATE, sound), label=label)


def as_table(answer: Answer, found: list[Segment]) -> str:
    weights = attention_of(answer, found)
    rows = [
        [f"{start:.2f}-{end:.2f}", label, f"{probability:.0%}", f"{weight:.0%}"]
        for (start, end, label, probability), weight in zip(found, weights, strict=True)
    ]
    return markdown(["seconds", "class", "probability", "attention"], rows)


def minutes(seconds: float) -> str:
    return "1 minute" if seconds == 60 else f"{seconds / 60:g} minutes"


def card_text(folder: Path) -> str:
    """The model's card, without what is for the hub."""
    path = folder / "README.md"
    return re.sub(r"\A---\n.*?\n---\n", "", path.read_text(), flags=re.S) if path.exists() else ""
