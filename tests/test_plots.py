"""The figures: bars are the shares, words are the numbers, and nothing but the given Axes is touched."""

import io
import math
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import reports
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, Rectangle

from lossviz import examples, plots, regimes
from lossviz.report import Part, Step, Term

MINUS = "\N{MINUS SIGN}"
DRAWINGS = {
    "waterfall": lambda ax=None: plots.waterfall(reports.segmentation(), ax=ax),
    "waterfall by class": lambda ax=None: plots.waterfall(reports.segmentation(), by="class", ax=ax),
    "bars": lambda ax=None: plots.bars(reports.segmentation().by("class"), ax=ax),
    "heatmap": lambda ax=None: plots.heatmap(reports.segmentation(), ax=ax),
    "cascade": lambda ax=None: plots.cascade(reports.segmentation(), ax=ax),
}
each_drawing = pytest.mark.parametrize("draw", DRAWINGS.values(), ids=list(DRAWINGS))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def extents(ax) -> list[tuple[float, float]]:
    """Start and signed length of every bar, top to bottom."""
    return [(p.get_x(), p.get_width()) for p in ax.patches if isinstance(p, Rectangle)]


def names(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def words(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def png(ax) -> bytes:
    buffer = io.BytesIO()
    ax.figure.savefig(buffer, format="png", bbox_inches="tight")
    return buffer.getvalue()


@each_drawing
def test_draws_on_the_given_axes_and_touches_nothing_else(draw):
    other = plt.figure()
    before = plt.get_fignums(), dict(matplotlib.rcParams)
    ax = Figure().subplots()
    assert draw(ax=ax) is ax
    assert (plt.get_fignums(), dict(matplotlib.rcParams)) == before
    assert plt.gcf() is other and not other.axes
    assert ax.has_data() or ax.patches


@each_drawing
def test_makes_a_figure_of_its_own_without_axes(draw):
    other = plt.figure()
    ax = draw()
    assert ax.figure is not other and not other.axes
    assert ax.figure.number in plt.get_fignums()
    assert to_hex(ax.figure.get_facecolor()) == "#fdfdfc"  # opaque and light, also on a dark page


@each_drawing
def test_same_picture_twice(draw):
    assert png(draw()) == png(draw())


def test_same_pictures_in_another_process():
    code = (
        "import sys, test_plots\n"
        "for draw in test_plots.DRAWINGS.values(): sys.stdout.buffer.write(test_plots.png(draw()))"
    )
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (here, here.parent)))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path, "MPLBACKEND": "agg"}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert other.stdout == b"".join(png(draw()) for draw in DRAWINGS.values())


@each_drawing
def test_letters_are_large_enough_for_a_phone(draw):
    ax = draw()
    shown = [t for t in ax.figure.findobj(matplotlib.text.Text) if t.get_text() and t.get_visible()]
    # on a phone the figure is 358 px wide: at least 8.5 px a letter there
    assert min(t.get_fontsize() for t in shown) * 358 / (72 * ax.figure.get_size_inches()[0]) >= 8.5


@pytest.mark.filterwarnings("ignore:Glyph")  # the font has no fox
@pytest.mark.parametrize("name", [n for n in reports.ALL if n != "empty"])
def test_every_report_can_be_drawn(name):
    report = reports.ALL[name]()
    png(plots.waterfall(report))
    for term in report.terms:
        png(plots.cascade(term))
        for axis in term.axes[-2:]:
            png(plots.waterfall(report, by=axis, term=term.name))
            png(plots.bars(term.by(axis), axis=axis))
        if len(term.axes) > 1:
            png(plots.heatmap(report, term.name, term.axes[:2]))
        plt.close("all")


def test_an_empty_report_can_be_drawn():
    assert names(plots.waterfall(reports.empty())) == ["loss"]
    assert extents(plots.bars({})) == []


def test_dollar_signs_in_names_begin_no_formula():
    formula = r"cost in $\frac$"
    elements = np.ones((2, 2))
    labels = ((formula, "b"), (formula, "d"))
    part = reports.mean_part(elements, (formula, "class"), labels=labels)
    report = reports.report_of(reports.one_term(part, formula))
    ax = Figure().subplots()  # tick labels that exist before
    png(plots.waterfall(report, ax=ax))
    assert names(ax)[0] == formula
    png(plots.waterfall(report, by="class"))
    png(plots.heatmap(report, axes=(formula, "class")))
    png(plots.cascade(report))


def test_waterfall_bars_are_the_terms_and_run_to_the_total():
    report = reports.five_outputs()
    ax = plots.waterfall(report)
    shares = sorted((t.contribution for t in report.terms), key=abs, reverse=True)
    starts = [0.0, *np.cumsum(shares)]
    np.testing.assert_allclose(extents(ax)[:-1], list(zip(starts, shares)), atol=1e-12)
    np.testing.assert_allclose(extents(ax)[-1], (0.0, report.reported))
    assert names(ax) == ["depth", "offset", "shape", "caption", "colour", "edges", "activity", "loss"]
    assert words(ax)[:4] == ["1.0644", "70.3 %", f"{MINUS}1.0000", f"{MINUS}66.1 %"]
    assert words(ax)[14:] == ["1.5138", "100.0 %", "output", "constant", *["output"] * 4, "add loss"]


def test_waterfall_says_the_kinds_of_terms_where_they_differ():
    assert "output" not in words(plots.waterfall(reports.not_a_number()))
    ax = plots.waterfall(reports.segmentation())
    png(ax)
    assert words(ax)[-3:] == ["output", "regulariser", "regulariser"]
    for label, kind in zip(ax.get_yticklabels(), ax.texts[-3:]):
        name, below = label.get_window_extent(), kind.get_window_extent()
        assert below.y1 <= name.y0 + 2 and abs(below.x1 - name.x1) < 3


def test_waterfall_shows_a_residual_beyond_rounding():
    ax = plots.waterfall(reports.opaque())
    assert names(ax)[-2:] == ["residual", "loss"]
    assert extents(ax) == [(0.0, 0.75), (0.75, 0.125), (0.0, 0.875)]
    assert words(ax)[2] == "0.12500"


def test_waterfall_by_class_ends_in_the_term():
    report = reports.segmentation()
    ax = plots.waterfall(report, by="class")
    shares = sorted(report.by("class").items(), key=lambda item: -item[1])
    assert names(ax) == [*(label for label, _ in shares), "mask"]
    np.testing.assert_allclose([width for _, width in extents(ax)[:-1]], [share for _, share in shares])
    np.testing.assert_allclose(extents(ax)[-1][1], report.term("mask").contribution)
    colors = [to_hex(p.get_facecolor()).upper() for p in ax.patches]
    assert colors[0] == plots.CLASS_COLORS[4]  # the fifth class, wherever it stands
    assert words(ax)[1] == "77.1 %"


def test_waterfall_gathers_the_small_ones():
    ax = plots.waterfall(reports.long_axis(), by="class", max_display=4)
    assert names(ax) == ["class 7", "class 31", "class 12", "37 others", "words"]
    np.testing.assert_allclose([w for _, w in extents(ax)], [0.5, 0.25, -0.1, 0.23125, 0.88125])
    assert ax.patches[2].get_hatch() and not ax.patches[0].get_hatch()
    with pytest.raises(ValueError, match="max_display=0"):
        plots.waterfall(reports.long_axis(), max_display=0)


def test_waterfall_with_nan_says_nan():
    ax = plots.waterfall(reports.not_a_number())
    assert names(ax) == ["broken", "fine", "residual", "loss"]
    assert words(ax)[::2] == ["NaN", "1.0000", "NaN", "NaN"]
    assert extents(ax) == [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0)]


def test_waterfall_asks_which_term_and_for_an_axis():
    with pytest.raises(ValueError, match="several terms have axis 'class'"):
        plots.waterfall(reports.five_outputs(), by="class")
    with pytest.raises(ValueError, match="needs by="):
        plots.waterfall(reports.five_outputs(), term="shape")


def test_bars_keep_the_order_and_highlight():
    shares = {"road": 1.0, "sky": -0.5, "tree": 3.5}
    ax = plots.bars(shares, highlight="tree", title="one class")
    assert extents(ax) == [(0.0, 1.0), (0.0, -0.5), (0.0, 3.5)]
    assert names(ax) == list(shares)
    assert words(ax) == ["1.0000", "25.0 %", f"{MINUS}0.5000", f"{MINUS}12.5 %", "3.5000", "87.5 %"]
    assert [to_hex(p.get_facecolor()).upper() for p in ax.patches][::2] == [plots.MUTED, plots.CLASS_COLORS[2]]
    assert ax.get_yticklabels()[2].get_fontweight() == "bold"
    assert words(plots.bars(shares, total=8.0))[1] == "12.5 %"


def test_bars_refuse_what_does_not_fit():
    with pytest.raises(ValueError, match=r"highlight 'lake' is not among the labels \['road'\]"):
        plots.bars({"road": 1.0}, highlight="lake")
    with pytest.raises(ValueError, match="2 colours for 1 labels"):
        plots.bars({"road": 1.0}, colors=["red", "blue"])


def test_heatmap_holds_the_shares():
    report = reports.segmentation()
    ax = plots.heatmap(report)
    shown = ax.images[0].get_array()
    np.testing.assert_allclose(shown, report.term("mask").parts[0].sum_to(("row", "col")))
    assert shown.sum() == pytest.approx(report.term("mask").contribution)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("col", "row")
    assert "0.018467" in ax.get_title(loc="left")
    assert ax.figure.axes[1].get_ylabel() == "share of the loss"
    assert ax.images[0].get_clim()[0] == 0.0


def test_numbers_of_maps_beside_each_other_have_the_decimals_asked_for():
    report = regimes.reduce([[1, 0], [3, 4]], regime="keras-3").to_report()
    assert words(plots.heatmap(report, axes=("batch", "step"), decimals=2)) == ["0.25", "0", "0.75", "1.00"]
    assert words(plots.heatmap(report, axes=("batch", "step")))[0] == "0.2500"


def test_numbers_of_bars_beside_each_other_stand_in_line():
    small, large = {"a": 0.0045079, "b": 0.00069}, {"a": 0.16009, "b": 0.00132}
    one, other = plots.bars(small, beside=large.values()), plots.bars(large, beside=small.values())
    assert words(one)[::2] == ["0.00451", "0.00069"] and words(other)[::2] == ["0.16009", "0.00132"]
    places = [[text.get_position() for text in ax.texts] for ax in (one, other)]
    assert places[0] == places[1]
    assert places[0] != [text.get_position() for text in plots.bars(small).texts]


def test_heatmap_of_one_sample_and_one_class():
    report = reports.segmentation()
    ax = plots.heatmap(report, at={"batch": 3, "class": "8"}, axes=("col", "row"), colorbar=False)
    part = report.term("mask").parts[0]
    np.testing.assert_allclose(ax.images[0].get_array(), part.contributions[3, :, :, 4].T)
    assert "batch 3, 8" in ax.get_title(loc="left")
    assert len(ax.figure.axes) == 1
    with pytest.raises(ValueError, match=r"'nine' is not a label of axis 'class': \['0', '1', '4', '7', '8'\]"):
        plots.heatmap(report, at={"class": "nine"})


def test_heatmap_diverges_from_zero_where_shares_are_negative():
    ax = plots.heatmap(reports.negative(), axes=("batch", "class"))
    assert ax.images[0].get_clim() == (-0.25, 0.25)
    assert f"{MINUS}0.18750" in words(ax) and "0.06250" in words(ax)


def test_a_zero_on_a_heatmap_is_0():
    ax = plots.heatmap(regimes.reduce([[1, 0], [3, 4]], regime="keras-3").to_report(), axes=("batch", "step"))
    assert words(ax)[:4] == ["0.2500", "0", "0.7500", "1.0000"]


def test_an_axis_of_size_one_is_faint_in_a_cascade():
    ax = plots.cascade(reports.report_of(reports.one_term(reports.mean_part([[1.0, 2.0]], ("batch", "class")))))
    assert words(ax)[:2] == ["batch 1", "class 2"]
    assert [box.get_alpha() for box in ax.patches[:2]] == [0.4, None]


def test_numbers_on_a_heatmap_can_be_read():
    """Of white and ink, the one with the higher contrast (WCAG): at worst sqrt(1.05 / (0.021 + 0.05)), 3.84."""
    grades = np.linspace(0.0, 1.0, 64).reshape(8, 8)
    for shares in (grades, grades * 2.0 - 1.0):
        ax = plots.heatmap(regimes.reduce(shares, regime="keras-3").to_report(), axes=("batch", "step"))
        image = ax.images[0]
        cells = image.cmap(image.norm(image.get_array()))[..., :3].reshape(-1, 3)
        numbers = [text.get_color() for text in ax.texts]
        assert len(numbers) == 64
        for cell, number in zip(cells, numbers, strict=True):
            low, high = sorted(luminance(rgb) for rgb in (cell, number))
            assert (high + 0.05) / (low + 0.05) > 3.8


def test_heatmap_marks_nan_and_names_what_has_no_place():
    ax = plots.heatmap(reports.not_a_number(), "broken", ("batch", "class"))
    assert ax.images[0].get_array().mask.sum() == 1
    assert words(ax)[7] == "NaN"
    assert "1 of 12 cells are NaN or infinite" in ax.get_title(loc="left")
    title = plots.heatmap(reports.ratio()).get_title(loc="left")
    assert "0.37500 more has no place on these axes" in title


def test_heatmap_needs_axes_that_are_there():
    with pytest.raises(ValueError, match="no term has axis"):
        plots.heatmap(reports.tiny())


def boxes(ax) -> int:
    return sum(isinstance(p, FancyBboxPatch) for p in ax.patches)


def test_cascade_has_a_box_an_axis_and_ends_in_the_number():
    ax = plots.cascade(reports.segmentation())
    assert words(ax) == [
        "batch 16",
        "row 16",
        "col 16",
        "class 5",
        "sum over class, ÷ 5 = mean",
        "batch 16",
        "row 16",
        "col 16",
        "sum over batch, row, col, ÷ 4096 = mean",
        "0.018467",
        "94.4 % of\nthe loss",
    ]
    assert boxes(ax) == 4 + 3 + 1
    assert "20\N{NO-BREAK SPACE}480 element losses" in ax.get_title(loc="left").replace("\n", " ")


def test_cascade_shows_the_loss_weight_once():
    edges = words(plots.cascade(reports.five_outputs().term("edges")))
    assert sorted(edges[-3:]) == ["0.12579", "0.50315", "× loss weight 0.25"]
    part = reports.five_outputs().term("edges").parts[0]
    told = (*part.steps, Step("multiply", "× loss weight 0.25", (), (), factor=0.25), Step("add", "added", (), ()))
    part = Part(part.axes, part.elements, part.contributions, "exact", told, part.labels)
    term = Term("edges", "output", 0.50315, 0.25, (part,))
    assert words(plots.cascade(term)) == edges


def mean_of_four(*more: Step) -> Part:
    """Errors 1 to 4, their mean 2.5, and what follows; each carries a quarter of `more`'s result, which is 5."""
    mean = Step("sum", "sum over batch, ÷ 4 = mean", (4,), (), ("batch",), 4.0)
    steps = (Step("element loss", "element loss (batch): (4,)", (4,), (4,)), mean, *more)
    elements = np.array([1.0, 2.0, 3.0, 4.0])
    return Part(("batch",), elements, elements / 2, "exact", steps, ((0, 1, 2, 3),))


def test_a_box_of_one_number_in_a_cascade_says_which():
    twice = Step("multiply", "× 2", (), (), factor=2.0)
    assert words(plots.cascade(Term("mae", "output", 5.0, 1.0, (mean_of_four(twice),)))) == [
        *("batch 4", "sum over batch, ÷ 4 = mean", "2.5000", "× 2", "5.0000"),
    ]
    halved = Step("divide", "÷ 0.5", (), (), divisor=0.5)
    assert words(plots.cascade(Term("mae", "output", 5.0, 1.0, (mean_of_four(halved),))))[2] == "2.5000"
    # weights that meet one number: what comes after it does not say what it was, the element losses do
    spread = Step("multiply", "× sample_weight (3,)", (), (3,)), Step("sum", "sum over 1 axis", (3,), ())
    assert words(plots.cascade(Term("mae", "output", 5.0, 1.0, (mean_of_four(*spread),))))[2] == "2.5000"


def test_a_box_of_one_number_stays_without_its_value_where_that_is_not_known():
    masked = Step("multiply", "× mask (4,) along batch", (4,), (4,), ("batch",))
    spread = Step("multiply", "× sample_weight (3,)", (), (3,)), Step("sum", "sum over 1 axis", (3,), ())
    part = mean_of_four(*spread)
    part = Part(
        part.axes, part.elements, part.contributions, "exact", (part.steps[0], masked, *part.steps[1:]), part.labels
    )
    assert "one number" in words(plots.cascade(Term("mae", "output", 5.0, 1.0, (part,))))


def test_cascade_says_what_came_before_the_element_losses():
    part = Part(
        ("class",),
        np.array([0.25, 0.5]),
        np.array([0.25, 0.5]),
        "ratio",
        (
            Step("ratio", "quotient of sums over batch, row, col", (), ()),
            Step("element loss", "element loss (class): (2,)", (2,), (2,)),
            Step("sum", "sum over class: (2,) → ()", (2,), (), ("class",)),
        ),
        (("road", "sky"),),
    )
    term = Term("dice", "output", 0.75, 1.0, (part,))
    assert words(plots.cascade(term)) == [
        "quotient of sums over batch, row, col",
        "class 2",
        "sum over class",
        "0.75000",
    ]


def test_cascade_draws_the_largest_part_or_the_one_asked_for():
    report = reports.ratio()
    assert "part 2 of 2" in plots.cascade(report).get_title(loc="left").replace("\n", " ")
    assert "part 1 of 2" in plots.cascade(report, part=0).get_title(loc="left").replace("\n", " ")
    with pytest.raises(ValueError, match="part=2 is not a part of term 'mask', which has 2"):
        plots.cascade(report, part=2)


def test_cascade_asks_which_output():
    with pytest.raises(ValueError, match=r"5 terms \['shape', 'colour', .*cascade\(report\.term\(name\)\)"):
        plots.cascade(reports.five_outputs())


def test_describe_says_the_number_and_its_largest_shares():
    assert plots.describe(reports.long_axis(), by="class") == (
        "The share of words in the loss is 0.88125; by class: class 7 0.50000 (56.7 % of the loss), "
        f"class 31 0.25000 (28.4 % of the loss), class 12 {MINUS}0.10000 ({MINUS}11.3 % of the loss), "
        "37 others 0.23125 (26.2 % of the loss)."
    )
    assert plots.describe(reports.not_a_number()) == "The loss is NaN; by term: broken NaN, fine 1.0000."


def test_report_plot_is_the_waterfall():
    ax = Figure().subplots()
    assert reports.opaque().plot(ax=ax) is ax
    assert names(ax) == ["custom", "residual", "loss"]


def test_the_style_file_has_the_colours_of_the_classes():
    with matplotlib.style.context(plots.STYLE):
        cycle = matplotlib.rcParams["axes.prop_cycle"].by_key()["color"]
    assert [f"#{color.lstrip('#')}" for color in cycle] == list(plots.CLASS_COLORS)


def test_classes_have_the_colours_of_the_scenes():
    assert [color.lower() for color in plots.CLASS_COLORS[:5]] == list(examples.CLASS_COLORS)


def luminance(color: str) -> float:
    channels = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(color)]
    return float(np.dot([0.2126, 0.7152, 0.0722], channels))


def test_words_on_axis_boxes_are_readable():
    ink = luminance(plots.INK)
    for color in plots.AXIS_COLORS.values():
        assert (luminance(color) + 0.05) / (ink + 0.05) > 7


@pytest.mark.parametrize("gone", ["nobody", "protan", "deutan"])
def test_any_two_classes_differ_also_without_red_or_green(gone):
    # Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
    seen = {
        "nobody": np.eye(3),
        "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    }[gone]
    rgb = np.array([matplotlib.colors.to_rgb(c) for c in plots.CLASS_COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(linear @ np.array(seen).T, 0, 1)
    xyz = linear @ np.array([[0.4124, 0.2126, 0.0193], [0.3576, 0.7152, 0.1192], [0.1805, 0.0722, 0.9505]])
    root = np.cbrt(xyz / [0.9505, 1.0, 1.089])
    lab = np.stack([116 * root[:, 1] - 16, 500 * (root[:, 0] - root[:, 1]), 200 * (root[:, 1] - root[:, 2])], axis=1)
    distance = [math.dist(a, b) for k, a in enumerate(lab) for b in lab[:k]]
    assert min(distance) > 15


N = np.arange(6.0)
LOGS = {
    "loss": 2.6 - 0.1 * N,
    "data_loss": 2.5 - 0.1 * N,
    "data_loss/paper": 1.0 - 0.1 * N,
    "data_loss/pencil": 1.5 + 0.0 * N,
    "regularization": 0.0 * N,
    "add_loss/act": 0.1 + 0.0 * N,
    "val_data_loss/paper": 1.0 + N,
    "val_data_loss/pencil": 3.0 + N,
    "accuracy": N,
}


def layers(ax):
    """The layers in the order they are drawn: (lower edge, upper edge, colour)."""
    found = []
    for layer in ax.collections:
        points = layer.get_paths()[0].vertices
        edges = [[y for x, y in points if x == k] for k in sorted({x for x, _ in points})]
        color = to_hex(layer.get_facecolor()[0]).upper()
        found.append(([min(one) for one in edges], [max(one) for one in edges], color))
    return found


def test_film_stacks_the_finest_parts_to_the_loss():
    ax = plots.film(LOGS)
    png(ax)
    drawn = layers(ax)
    assert len(drawn) == 3  # what is always 0 is left out, and the sum of the classes
    np.testing.assert_allclose(drawn[0][0], 0.0)
    for (_, upper, _), (lower, _, _) in pairwise(drawn):
        np.testing.assert_allclose(lower, upper)
    np.testing.assert_allclose(drawn[-1][1], LOGS["loss"])
    colors = [color for *_, color in drawn]
    assert colors == [*plots.CLASS_COLORS[:2], plots.KIND_COLORS["add_loss"]]
    assert words(ax) == ["paper 23.8 %", "pencil 71.4 %", "add_loss/act 4.8 %"]
    assert (ax.get_xlim(), ax.get_xlabel()) == ((1.0, 6.0), "epoch")


def test_film_takes_a_history_and_the_validation():
    class History:
        history = LOGS

    ax = plots.film(History(), validation=True, highlight="pencil", colors={"pencil": "#222222"})
    drawn = layers(ax)
    np.testing.assert_allclose(drawn[0][1], LOGS["val_data_loss/pencil"])  # at the bottom
    assert [color for *_, color in drawn] == ["#222222", plots.MUTED.upper()]
    assert [text.get_weight() for text in ax.texts] == ["bold", "normal"]


def test_film_has_the_order_of_the_colors():
    """Keras sorts the names of a history; what is always 0, such as `no_class`, needs no colour."""
    logs = {"data_loss/a": 1.0 + N, "data_loss/b": 2.0 + N, "data_loss/c": 3.0 + N, "data_loss/no_class": 0.0 * N}
    drawn = layers(plots.film(logs, colors={"c": "#111111", "a": "#222222"}))
    assert [color for *_, color in drawn] == ["#111111", "#222222", plots.CLASS_COLORS[1]]
    np.testing.assert_allclose(drawn[0][1], 3.0 + N)


def test_film_begins_with_what_was_before():
    ax = plots.film(LOGS, before={"paper": 5.0, "pencil": 0.5}, until=1)
    assert [round(upper[0], 6) for _, upper, _ in layers(ax)] == [5.0, 5.5, 5.5]  # nothing of the added loss
    assert ax.get_xlim() == (0.0, 6.0) and words(ax)[0] == "paper 38.5 %"
    with pytest.raises(ValueError, match="before names 'pen', which is not among"):
        plots.film(LOGS, before={"pen": 1.0})


def test_film_names_its_layers_for_what_moves_them():
    """The book lets them appear from left to right (_static/custom.css)."""
    import drawings  # a script, which the process of `test_same_pictures_in_another_process` does not know

    out = io.StringIO()
    plots.film(LOGS).figure.savefig(out, format="svg")
    assert drawings.tidy(out.getvalue()).count('<g class="film">') == 3


def test_film_until_is_a_frame_of_the_whole():
    whole, frame = plots.film(LOGS), plots.film(LOGS, until=2)
    assert frame.get_xlim() == whole.get_xlim() and frame.get_ylim() == whole.get_ylim()
    assert [len(upper) for _, upper, _ in layers(frame)] == [2, 2, 2]
    assert words(frame)[0] == "paper 36.0 %"
    for until in (0, 7):
        with pytest.raises(ValueError, match=f"until={until}, but the history has 6 epochs"):
            plots.film(LOGS, until=until)


def test_film_of_parts_below_zero_and_of_one_epoch():
    drawn = layers(plots.film({"data_loss": 2.0 + N, "add_loss/density": -1.0 - N}))
    assert [color for *_, color in drawn] == [plots.KIND_COLORS["output"], plots.KIND_COLORS["add_loss"]]
    np.testing.assert_allclose(drawn[1][0], -1.0 - N)
    np.testing.assert_allclose(drawn[1][1], 0.0)
    one = plots.film({"data_loss/a": [1.0], "data_loss/b": [3.0]})
    assert words(one) == ["a 25.0 %", "b 75.0 %"] and len(layers(one)) == 2


def test_film_labels_stay_apart():
    logs = {f"data_loss/{k}": np.full(3, 1.0 if k == 9 else 0.001) for k in range(10)}
    ax = plots.film(logs)
    png(ax)
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert len(boxes) == 10
    assert all(lower.y1 <= upper.y0 + 1 for lower, upper in pairwise(boxes))
    assert plots._apart([1.0, 5.0, 9.0, 9.1, 9.2], 1.0) == pytest.approx([1.0, 5.0, 7.2, 8.2, 9.2])  # the rest stays


def test_film_says_what_it_needs():
    with pytest.raises(ValueError, match=r"holds no parts of the loss \(data_loss, ...\), but \['loss'\]: train with"):
        plots.film({"loss": [1.0]})
    with pytest.raises(ValueError, match="val_data_loss"):
        plots.film({"data_loss": [1.0]}, validation=True)
    with pytest.raises(ValueError, match=r"colors names 'pen', which is not among the parts \['paper', 'pencil'"):
        plots.film(LOGS, colors={"pen": "red"})
    with pytest.raises(ValueError, match="highlight 'pen' is not among"):
        plots.film(LOGS, highlight="pen")
    with pytest.raises(ValueError, match=r"NaN or infinite: lossviz\.find_nonfinite"):
        plots.film({"data_loss": [1.0, math.nan]})
