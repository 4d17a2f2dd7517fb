"""Draws masks.png: one padded batch, and what framealign makes of it. Run: python docs/images/draw_masks.py

Every number in the picture is computed by the library from the batch that is drawn.
"""

from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

import framealign

# Okabe and Ito's colours, which readers with any colour vision can tell apart
REAL, WEIGHT, GRADIENT = "#56B4E9", "#0072B2", "#D55E00"
PADDING = {"facecolor": "#F2F2F2", "edgecolor": "0.75", "hatch": "///", "linewidth": 0.5}
ROWS = ["##########", "######....", "##..###.#.", ".........."]
NAMES = ["full", "shorter", "with holes", "empty"]
DIM, LABELS = 8, [0, 1, 2, 3]

PARTS = [
    ("Poolings", "Weights sum to 1 over real frames and are 0 on padding. The empty utterance pools to zeros."),
    ("EAL", "Mean over an utterance's real frames, then over utterances with any: here it divides by 3, not by 4."),
    ("FUAL", "Weights are divided by their sum over real frames. The mean over utterances divides by 3."),
    ("Objective", "The empty utterance counts in none of the terms, cross-entropy included."),
    ("Diagnostics", "One value for each utterance, over real frames; 0 for the empty one."),
    ("Gradients", "Exactly 0 on padding. NaN stands there in this batch, and NaN comes out nowhere."),
]


def main() -> None:
    torch.manual_seed(2)
    mask = torch.tensor([[frame == "#" for frame in row] for row in ROWS])
    frames = torch.randn(*mask.shape, DIM).masked_fill(~mask[..., None], torch.nan).requires_grad_()
    pooling, classifier = framealign.CLSSelfAttentionPooling(DIM), torch.nn.Linear(DIM, 4)
    pooled = pooling(frames, mask)
    result = framealign.AlignmentObjective()(pooled, torch.tensor(LABELS), classifier, mask)
    (gradient,) = torch.autograd.grad(result.loss, frames)
    eal = framealign.EmotionalAttentionLoss(reduction="none")(pooled.frames, pooled.cls, mask)
    weights, gradient = pooled.weights.detach(), gradient.norm(dim=2)
    assert result.loss.isfinite()
    assert not weights[~mask].any()
    assert not gradient[~mask].any()

    figure = Figure(figsize=(10, 11.6), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)
    batch, attention, gradients, text = figure.subplots(4, 1, height_ratios=(1, 1, 1, 0.9))
    draw(batch, mask, None, REAL, [f"{n} real frames" for n in mask.sum(dim=1).tolist()])
    batch.set_title("The batch: real frames (mask True), and padding (mask False) that holds NaN", loc="left")
    draw(attention, mask, weights, WEIGHT, [f"sum {total:.2f}" for total in weights.sum(dim=1).tolist()])
    attention.set_title("Attention weights of CLSSelfAttentionPooling", loc="left")
    draw(gradients, mask, gradient, GRADIENT, [f"EAL {loss:.3f}" for loss in eal.tolist()])
    gradients.set_title("Size of the loss's gradient on each frame (CE + 0.05 EAL + 0.05 FUAL)", loc="left")
    gradients.set_xlabel("time, in frames")

    text.axis("off")
    for row, (part, does) in enumerate(PARTS):
        height = 0.92 - row * 0.165
        text.text(0.0, height, part, weight="bold", fontsize=10.5, transform=text.transAxes, va="top")
        text.text(0.13, height, does, fontsize=10.5, transform=text.transAxes, va="top")
    figure.savefig(Path(__file__).with_name("masks.png"), dpi=120)


def draw(axis: Axes, mask: Tensor, values: Tensor | None, colour: str, remarks: list[str]) -> None:
    """One cell for each frame of each utterance, padding hatched, and a remark behind every row."""
    time = mask.shape[1]
    largest = 1.0 if values is None else float(values.max())
    for row, column in torch.cartesian_prod(torch.arange(mask.shape[0]), torch.arange(time)).tolist():
        value = None if values is None else float(values[row, column])
        if mask[row, column]:
            share = 0.55 if value is None else 0.08 + 0.92 * value / largest
            axis.add_patch(Rectangle((column, row), 1, 1, facecolor=colour, alpha=share, linewidth=0))
            axis.add_patch(Rectangle((column, row), 1, 1, facecolor="none", edgecolor="white", linewidth=1.5))
            words, ink = "real" if value is None else f"{value:.2f}", "white" if value and share > 0.8 else "black"
        else:
            axis.add_patch(Rectangle((column, row), 1, 1, **PADDING))
            words, ink = "NaN" if value is None else f"{value:.0f}", "0.3"
        axis.text(
            column + 0.5, row + 0.5, words, ha="center", va="center", fontsize=9.5, color=ink,
            bbox=None if mask[row, column] else {"facecolor": "#F2F2F2", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip
    for row, remark in enumerate(remarks):
        axis.text(time + 0.15, row + 0.5, remark, va="center", fontsize=10)
    axis.set_xlim(0, time + 1.6)
    axis.set_ylim(mask.shape[0], 0)
    axis.set_xticks([t + 0.5 for t in range(time)], [str(t) for t in range(time)])
    axis.set_yticks([row + 0.5 for row in range(mask.shape[0])], NAMES)
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
