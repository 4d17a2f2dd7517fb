"""The figures: what they say is what they were given, nothing is cut off, and awkward data is drawn too."""

import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from recipe.reporting.figures.confusion import confusion_figure
from recipe.reporting.figures.curves import curves_figure
from recipe.reporting.figures.scores import scores_figure
from recipe.reporting.figures.style import SYSTEMS, save
from recipe.reporting.figures.sweep import heat_map_figure, sweep_figure
from recipe.reporting.figures.timeline import FrameOutputs, timeline_figure
from recipe.reporting.figures.tsne import tsne_figure
from recipe.settings import Settings
from recipe.training.scores import from_confusion
from recipe.training.systems import STAGE_1, further_systems, paper_systems

FOUR = ("angry", "happy", "neutral", "sad")
EIGHT = ("angry", "calm", "disgusted", "fearful", "happy", "neutral", "sad", "surprised")
TWELVE = (
    "stage 1: attentive pooling",
    "attentive pooling",
    "self-attention pooling",
    "CLS pooling",
    "CLS + EAL",
    "CLS + FUAL",
    "CLS + EAL + FUAL",
    "statistics pooling",
    "attentive statistics pooling",
    "mean pooling",
    "max pooling",
    "emotional attention with a learned anchor",
)
TITLE = "A corpus with a rather long name, backbone of a certain size\ntest utterances of 5 folds together"
NAN = float("nan")


@pytest.fixture
def dice():
    return np.random.default_rng(0)


def texts(axis):
    return [text.get_text() for text in axis.texts]


def tick_labels(axis):
    return [label.get_text() for label in axis.get_ticklabels()]


def assert_all_fits(figure):
    """No text is cut off, and no heading is on another."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    drawn, page = figure.get_tightbbox(renderer), figure.bbox_inches
    assert drawn.x0 > -0.01
    assert drawn.y0 > -0.01
    assert drawn.x1 < page.x1 + 0.01
    assert drawn.y1 < page.y1 + 0.01
    headings = [axis.title for axis in figure.axes if axis.get_title()] + [figure._suptitle]
    boxes = [heading.get_window_extent(renderer) for heading in headings]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])


def assert_is_png(path):
    assert path.read_bytes().startswith(b"\x89PNG")


def confusion_of(classes, dice):
    return from_confusion(dice.integers(1, 400, (len(classes), len(classes))) + 900 * np.eye(len(classes), dtype=int))


def wavy(frames, classes, dice):
    probabilities = dice.random((frames, classes))
    return FrameOutputs(dice.dirichlet(np.ones(frames)), probabilities / probabilities.sum(axis=1, keepdims=True))


def training(epochs, offset=0.0):
    return [
        {
            "epoch": epoch,
            "loss": 1.5,
            "cross_entropy": 1.4 / epoch + offset,
            "validation_ua": 0.5 + 0.01 * epoch + offset,
            "validation_anchor_cosine": 0.1 * epoch + offset,
        }
        for epoch in range(1, epochs + 1)
    ]


# Confusion


def test_confusion_in_words_and_numbers():
    scores = from_confusion(np.array([[3, 1], [2, 2]]))
    figure = confusion_figure({"CLS pooling": scores}, ("happy", "sad"), TITLE)
    (axis,) = figure.axes
    assert texts(axis) == ["75%\n(3)", "25%\n(1)", "50%\n(2)", "50%\n(2)"]
    assert axis.get_title() == "CLS pooling\nUA 62.5%, WA 62.5%, n = 8"
    assert tick_labels(axis.xaxis) == tick_labels(axis.yaxis) == ["happy", "sad"]
    assert_all_fits(figure)


@pytest.mark.parametrize(
    ("count", "classes", "grid"),
    [(1, FOUR, (1, 1)), (2, FOUR, (1, 2)), (5, FOUR, (2, 3)), (7, FOUR, (2, 4)), (12, FOUR, (3, 4)), (7, EIGHT, (3, 3)),
     (12, EIGHT, (4, 3))],
)  # fmt: skip
def test_confusion_panels_lie_in_a_grid(dice, count, classes, grid):
    systems = {name: confusion_of(classes, dice) for name in TWELVE[:count]}
    figure = confusion_figure(systems, classes, TITLE)
    assert figure.axes[0].get_gridspec().get_geometry() == grid
    assert [axis.get_title().split("\nUA")[0].replace("\n", " ") for axis in figure.axes] == list(systems)
    # each column's last panel names the predicted classes, each row's first the true ones
    columns = grid[1]
    for place, axis in enumerate(figure.axes):
        assert tick_labels(axis.xaxis) == (list(classes) if place + columns >= count else [""] * len(classes))
        assert tick_labels(axis.yaxis) == (list(classes) if place % columns == 0 else [""] * len(classes))
    assert_all_fits(figure)


def test_confusion_of_many_classes_is_in_whole_per_cent(dice):
    scores = confusion_of(EIGHT, dice)
    (axis,) = confusion_figure({"CLS pooling": scores}, EIGHT, TITLE).axes
    shares = np.array(scores.confusion) / np.sum(scores.confusion, axis=1, keepdims=True)
    assert texts(axis) == [f"{100 * share:.0f}" for share in shares.flat]


def test_a_class_without_test_utterances_has_no_confusion(tmp_path):
    scores = from_confusion(np.array([[3, 1, 0], [0, 0, 0], [1, 0, 1]]))
    save(confusion_figure({"CLS pooling": scores}, FOUR[:3], TITLE), tmp_path / "confusion.png")
    assert_is_png(tmp_path / "confusion.png")
    (axis,) = confusion_figure({"CLS pooling": scores}, FOUR[:3], TITLE).axes
    assert texts(axis)[3:6] == ["–"] * 3  # noqa: RUF001
    assert np.ma.getmaskarray(axis.images[0].get_array()).tolist() == [[False] * 3, [True] * 3, [False] * 3]


# t-SNE


def points_of(axis):
    """How many utterances of each class the panel shows, and how many class means."""
    sizes = [len(collection.get_offsets()) for collection in axis.collections]
    means = [collection for collection in axis.collections if to_hex(collection.get_edgecolor()[0]) == "#000000"]
    return sum(sizes) - len(means), len(means)


def test_tsne_shows_every_utterance_in_its_own_embedding_of_each_system(dice, tmp_path):
    labels = np.arange(40) % 4
    apart = 8 * np.eye(4)[labels] + 0.3 * dice.standard_normal((40, 4))
    mixed = dice.standard_normal((40, 6))  # another width: each panel embeds its own vectors
    systems = {"before the losses: CLS pooling": mixed, "after: CLS + EAL + FUAL": apart}
    figure = tsne_figure(systems, labels.tolist(), FOUR, TITLE)
    assert [axis.get_title() for axis in figure.axes] == list(systems)
    assert [points_of(axis) for axis in figure.axes] == [(40, 4), (40, 4)]
    before, after = (float(axis.get_xlabel().split(": ")[1]) for axis in figure.axes)
    assert before < 0.2 < 0.8 < after
    radii, gaps = [], []
    for axis in figure.axes:
        clouds = [c.get_offsets() for c in axis.collections if len(c.get_offsets()) > 1]
        centres = np.array([cloud.mean(axis=0) for cloud in clouds])
        radii.append(max(np.std(cloud - centre) for cloud, centre in zip(clouds, centres, strict=True)))
        gaps.append(min(np.linalg.norm(a - b) for a, b in itertools.combinations(centres, 2)))
    assert gaps[0] < 2 * radii[0]
    assert gaps[1] > 4 * radii[1]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [*FOUR, "mean of a class"]
    assert_all_fits(figure)
    save(tsne_figure(systems, labels.tolist(), FOUR, TITLE), tmp_path / "tsne.png")
    assert_is_png(tmp_path / "tsne.png")


def test_the_same_vectors_have_the_same_tsne(dice):
    vectors = dice.standard_normal((12, 5))
    systems = {"one": vectors, "another": vectors.copy()}
    one, another = tsne_figure(systems, [0, 1] * 6, FOUR, TITLE).axes
    for points, same in zip(one.collections, another.collections, strict=True):
        np.testing.assert_array_equal(points.get_offsets(), same.get_offsets())


@pytest.mark.parametrize(
    ("vectors", "labels"),
    [
        (np.ones((3, 8)), [0, 1, 3]),
        (np.ones((6, 8)), [0, 1, 3] * 2),
        (np.repeat(np.eye(3), 4, axis=0), [0] * 4 + [1] * 4 + [3] * 4),  # three points, four times each
        (np.eye(3, 8), [0, 1, 3]),
        (np.eye(2, 8), [0, 0]),
        (np.ones((1, 8)), [2]),
        (np.arange(5.0)[:, None], [0, 0, 1, 1, 1]),  # one dimension
    ],
)
@pytest.mark.filterwarnings("error")
def test_tsne_takes_few_or_equal_vectors(vectors, labels):
    figure = tsne_figure({"CLS pooling": vectors}, labels, FOUR, TITLE)
    (axis,) = figure.axes
    assert points_of(axis)[0] == len(labels)
    assert all(np.isfinite(collection.get_offsets()).all() for collection in axis.collections)
    present = [name for index, name in enumerate(FOUR) if index in labels]
    assert [text.get_text() for text in figure.legends[0].get_texts()][: len(present)] == present
    FigureCanvasAgg(figure).draw()


# Timeline


def test_timelines_of_two_systems_share_one_attention_scale(dice, tmp_path):
    waveform = 0.1 * dice.standard_normal(16_000)
    flat = FrameOutputs(np.full(50, 0.02), np.full((50, 4), 0.25))
    peaked = FrameOutputs(np.array([0.51] + [0.01] * 49), np.full((50, 4), 0.25))
    timelines = {"before the losses": flat, "after the losses": peaked}
    figure = timeline_figure(waveform, timelines, FOUR, TITLE)
    wave, before, _, after, last = figure.axes
    assert len(wave.lines[0].get_xdata()) == 16_000
    assert wave.get_xlim() == (0, 1)  # a second
    assert before.get_ylim() == after.get_ylim() == pytest.approx((0, 1.12 * 0.51))
    assert [before.get_title(loc="left"), after.get_title(loc="left")] == list(timelines)
    assert after.patches[0].get_data().values.tolist() == peaked.weights.tolist()
    assert last.get_xlabel() == "time in seconds"
    assert_all_fits(figure)
    save(timeline_figure(waveform, timelines, FOUR, TITLE), tmp_path / "timeline.png")
    assert_is_png(tmp_path / "timeline.png")


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_class_probabilities_of_every_frame_fill_the_panel(dice, frames):
    outputs = wavy(frames, 8, dice)
    _, attention, classes = timeline_figure(np.zeros(800), {"CLS": outputs}, EIGHT, TITLE).axes
    layers = [patch.get_data() for patch in classes.patches]
    heights = np.array([layer.values - layer.baseline for layer in layers]).T
    np.testing.assert_allclose(heights, outputs.probabilities)
    np.testing.assert_allclose(layers[-1].values, 1)
    np.testing.assert_allclose(layers[0].edges, np.linspace(0, 0.05, frames + 1))
    assert attention.lines[0].get_ydata()[0] == 1 / frames


def test_where_the_truth_is_known_it_stands_above_and_its_changes_go_through_every_panel(dice, tmp_path):
    waveform = 0.1 * dice.standard_normal(32_000)
    timelines = {"before the losses": wavy(100, 8, dice), "after the losses": wavy(100, 8, dice)}
    figure = timeline_figure(waveform, timelines, EIGHT, TITLE, [("neutral", 0.7), ("surprised", 2.0)])
    strip, *panels = figure.axes
    assert len(panels) == 5
    assert texts(strip) == ["neutral", "surprised"]
    boxes = [patch.get_path().transformed(patch.get_patch_transform()).get_extents() for patch in strip.patches]
    spans = [(box.x0, box.x1) for box in boxes]
    assert spans == [(0, 0.7), (0.7, pytest.approx(2.0))]
    colours = [to_hex(patch.get_facecolor()) for patch in strip.patches]
    assert colours == [to_hex(figure.legends[0].get_patches()[EIGHT.index(n)].get_facecolor()) for n in texts(strip)]
    assert all(any(list(line.get_xdata()) == [0.7, 0.7] for line in panel.lines) for panel in panels)
    assert_all_fits(figure)
    save(timeline_figure(waveform, timelines, EIGHT, TITLE, [("neutral", 0.7), ("surprised", 2.0)]), tmp_path / "t.png")
    assert_is_png(tmp_path / "t.png")


# Curves


def test_curves_are_means_with_a_band_of_one_deviation(tmp_path):
    curves = {
        "stage 1: attentive pooling": [training(3), training(3, 0.2), training(2, 0.4)],  # one ended sooner
        "CLS pooling": [training(5)],
        "CLS + EAL + FUAL": [training(5), training(5, 0.1)],
    }
    figure = curves_figure(curves, TITLE)
    grid = np.array(figure.axes).reshape(3, 2)
    assert [axis.get_title() for axis in grid[0]] == ["stage 1", "stage 2"]
    (line,) = grid[1, 0].lines
    np.testing.assert_allclose(line.get_xdata(), [1, 2, 3])
    np.testing.assert_allclose(line.get_ydata(), [0.71, 0.72, 0.63])
    upper = grid[1, 0].collections[0].get_paths()[0].vertices[:, 1].max()
    assert upper == pytest.approx(0.72 + 0.2)
    assert [line.get_label() for line in grid[2, 1].lines] == ["CLS pooling", "CLS + EAL + FUAL"]
    np.testing.assert_allclose(grid[2, 1].lines[0].get_ydata(), [0.1, 0.2, 0.3, 0.4, 0.5])
    assert not len(grid[2, 1].collections[0].get_paths())  # one training has no band
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(curves)
    assert_all_fits(figure)
    save(curves_figure(curves, TITLE), tmp_path / "curves.png")
    assert_is_png(tmp_path / "curves.png")


def looks(systems):
    figure = curves_figure({system: [training(3), training(3, 0.1)] for system in systems}, TITLE)
    assert_all_fits(figure)
    lines = [line for axis in figure.axes[:2] for line in axis.lines]
    return {line.get_label(): (line.get_color(), line.get_linestyle()) for line in lines}


def test_all_systems_are_told_apart_by_colour_and_dashes_and_the_papers_by_colour():
    settings = Settings()
    paper = [STAGE_1.name, *(system.name for system in paper_systems(settings))]
    further = [system.name for system in further_systems(settings)]
    found = looks([*paper, *further])
    assert len(set(found.values())) == 13
    assert len({found[system][0] for system in paper}) == 7


def test_a_system_looks_the_same_in_every_run():
    others = ["CLS + EAL, margin 0.4, weight 0.05", "of somebody's own"]
    every = looks(["stage 1", "attentive pooling", "CLS pooling", "CLS + EAL + FUAL", *others])
    for some in (["stage 1", "CLS pooling"], [*others, "CLS + EAL + FUAL"], others[::-1]):
        assert looks(some) == {system: every[system] for system in some}
    known = looks(SYSTEMS).values()
    assert all(every[system] not in known for system in others)


def test_one_epoch_is_a_visible_point():
    figure = curves_figure({"CLS pooling": [training(1), training(1, 0.2)]}, TITLE)
    assert [axis.get_title() for axis in figure.axes] == ["stage 2", "", ""]
    ua = figure.axes[1]
    assert ua.lines[0].get_marker() != "None"
    np.testing.assert_allclose(ua.lines[0].get_ydata(), [0.61])
    spread = np.std([0.51, 0.71], ddof=1)
    np.testing.assert_allclose(ua.collections[-1].get_segments()[0][:, 1], [0.61 - spread, 0.61 + spread])
    low, high = ua.get_xlim()
    assert low < 1 < high
    assert_all_fits(figure)


def test_no_tick_says_more_than_100_per_cent():
    figure = curves_figure({"CLS pooling": [[{**training(1)[0], "validation_ua": 1.0}]]}, TITLE)
    FigureCanvasAgg(figure).draw()
    labels = tick_labels(figure.axes[1].yaxis)
    assert "100%" in labels
    assert all(float(label.rstrip("%")) <= 100 for label in labels if label)


# Ablations


def framed(axis):
    """The cells, as (row, column), that have a frame."""
    frames = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    return [(round(patch.get_y() + 0.5), round(patch.get_x() + 0.5)) for patch in frames]


def test_the_heat_map_frames_the_given_cell_and_says_what_was_not_run(tmp_path):
    values = [[0.601, NAN, 0.621], [0.588, 0.644, 0.6]]
    deviations = [[0.04, NAN, 0.031], [0.02, 0.0251, None]]
    arguments = ((0.1, 0.2), (0, 0.5, 1.0), values, deviations, "margin", "weight of EAL", TITLE, (0, 2))
    figure = heat_map_figure(*arguments)
    axis, bar = figure.axes
    assert texts(axis) == ["60.1%\n± 4.0%", "not run", "62.1%\n± 3.1%", "58.8%\n± 2.0%", "64.4%\n± 2.5%", "60.0%"]
    assert framed(axis) == [(0, 2)]  # chosen on validation: not the best of these
    assert axis.images[0].get_clim() == (0.588, 0.644)
    assert (axis.get_ylabel(), tick_labels(axis.yaxis)) == ("margin", ["0.1", "0.2"])
    assert (axis.get_xlabel(), tick_labels(axis.xaxis)) == ("weight of EAL", ["0", "0.5", "1"])
    assert_all_fits(figure)
    assert all(label.endswith("%") for label in tick_labels(bar.yaxis))
    save(heat_map_figure(*arguments), tmp_path / "heat_map.png")
    assert_is_png(tmp_path / "heat_map.png")


@pytest.mark.parametrize("values", [[[0.6]], [[NAN, NAN]], [[0.6, 0.6]]])
@pytest.mark.filterwarnings("error")
def test_a_heat_map_may_have_one_value_or_none(values):
    columns = range(len(values[0]))
    figure = heat_map_figure(["none"], columns, values, values, "margin", "weight", TITLE)
    assert framed(figure.axes[0]) == []
    low, high = figure.axes[0].images[0].get_clim()
    assert low < high
    assert_all_fits(figure)


def test_a_sweep_has_its_bars_in_order_and_carries_on_weight_0(tmp_path):
    arguments = ((1.0, 0.0, 0.5, 0.1), (0.60, 0.61, NAN, 0.635), (0.02, None, NAN, 0.03), "weight of FUAL", TITLE)
    figure = sweep_figure(*arguments)
    (axis,) = figure.axes
    assert tick_labels(axis.xaxis) == ["0", "0.1", "0.5\nnot run", "1"]
    assert texts(axis) == ["weight 0", "61.0%", "63.5%", "60.0%"]
    without, line = axis.lines[:2]
    assert set(without.get_ydata()) == {0.61}
    np.testing.assert_allclose(line.get_ydata(), [0.61, 0.635, NAN, 0.6])
    (bars,) = axis.collections
    segments = [segment[:, 1].tolist() for segment in bars.get_segments() if len(segment)]
    np.testing.assert_allclose(segments, [[0.605, 0.665], [0.58, 0.62]])
    assert_all_fits(figure)
    save(sweep_figure(*arguments), tmp_path / "sweep.png")
    assert_is_png(tmp_path / "sweep.png")


def test_a_sweep_may_have_one_weight_and_no_0():
    figure = sweep_figure([0.5], [0.6], [NAN], "weight of FUAL", TITLE)
    assert texts(figure.axes[0]) == ["60.0%"]
    assert_all_fits(figure)


# Scores


@pytest.mark.parametrize("count", [1, 2, 7, 12])
def test_scores_name_every_system_from_the_top_with_its_interval(tmp_path, count):
    scores = {system: (0.5 + 0.01 * n, 0.48 + 0.01 * n, 0.515 + 0.01 * n) for n, system in enumerate(TWELVE[:count])}
    figure = scores_figure(scores, 0.25, TITLE)
    (axis,) = figure.axes
    assert [label.replace("\n", " ") for label in tick_labels(axis.yaxis)] == list(scores)
    bottom, top = axis.get_ylim()
    assert top < 0 < bottom  # the first system is on top
    assert "50.0%  [48.0, 51.5]" in texts(axis)
    assert "chance, 25.0%" in texts(axis)
    points, chance = axis.lines
    np.testing.assert_allclose(points.get_xdata(), [mean for mean, _, _ in scores.values()])
    assert set(chance.get_xdata()) == {0.25}
    intervals = [tuple(segment[:, 0]) for segment in axis.collections[0].get_segments()]
    np.testing.assert_allclose(intervals, [(low, high) for _, low, high in scores.values()])
    left, right = axis.get_xlim()
    assert left < 0.25 < 0.515 < right
    assert_all_fits(figure)
    save(scores_figure(scores, 0.25, TITLE), tmp_path / "scores.png")
    assert_is_png(tmp_path / "scores.png")


def test_an_interval_may_leave_its_mean_out():
    figure = scores_figure({"CLS pooling": (0.99, 0.995, 1.0), "CLS + EAL": (0.2, 0.1, 0.3)}, 0.5, TITLE)
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.99
    assert_all_fits(figure)


@pytest.mark.filterwarnings("error")
def test_a_score_without_an_interval_is_a_point():
    figure = scores_figure({"stage 1": (0.5, NAN, NAN), "CLS pooling": (0.6, 0.5, 0.7)}, 0.25, TITLE)
    assert {"50.0%", "60.0%  [50.0, 70.0]"} < set(texts(figure.axes[0]))
    assert len(figure.axes[0].collections[0].get_segments()) == 1
    alone = scores_figure({"stage 1": (0.5, NAN, NAN)}, 0.25, TITLE)
    assert_all_fits(alone)


# All


def test_a_dollar_sign_is_no_formula(tmp_path):
    corpus, system = r"corpus $\frac{1}$", r"a $\frac$ b"
    confusion = from_confusion(np.array([[3, 1], [2, 2]]))
    save(confusion_figure({system: confusion}, (r"$\x$", "sad"), corpus), tmp_path / "c.png")
    save(scores_figure({system: (0.5, 0.4, 0.6)}, 0.5, corpus), tmp_path / "s.png")
    assert_is_png(tmp_path / "c.png")
    assert_is_png(tmp_path / "s.png")
