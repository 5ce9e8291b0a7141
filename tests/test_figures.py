"""Drawings: what is stored beside a PNG, and what the book's pages make of it."""

import importlib.util
import io
import json
import re
from pathlib import Path

import drawings
import matplotlib
import notebook_rules
import pytest
from matplotlib.figure import Figure

from lossviz import plots
from lossviz.report import formatting

ROOT = Path(__file__).parent.parent
CSS = Path(ROOT, "_static", "custom.css").read_text(encoding="utf-8")
NOTEBOOKS = sorted(Path(ROOT, "book").glob("*.ipynb"))


def extension(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


figures = extension("figures")


def drawn(title: str = "a title") -> str:
    with matplotlib.style.context(plots.STYLE):
        figure = Figure(figsize=(4, 2))
        axes = figure.subplots()
        axes.plot([0, 1, 3], color="#0072B2")
        axes.set_title(title)
        out = io.StringIO()
        figure.savefig(out, format="svg")
    return out.getvalue()


def test_the_same_figure_is_the_same_drawing_without_a_date():
    one, other = (drawings.tidy(drawn()) for _ in range(2))
    assert one == other
    assert "metadata" not in one and "date" not in one
    assert drawings.tidy(drawn("another")) != one


def test_a_tidy_drawing_keeps_what_it_uses():
    svg = drawings.tidy(drawn())
    used, named = set(re.findall(r'(?:href="|url\()#([^")]+)', svg)), set(re.findall(r'\bid="([^"]+)"', svg))
    assert used == named != set()
    assert drawings.tidy(svg) == svg
    assert ">a title</text>" in svg


def test_a_drawing_in_a_page_has_the_alt_text_and_names_of_its_own():
    svg = drawings.tidy(drawn())
    one, other = (figures.inline(svg, "What it shows.", k, {"1f2933"}) for k in (1, 2))
    for k, text in ((1, one), (2, other)):
        assert '<svg class="figure" role="img" aria-label="What it shows."' in text
        assert set(re.findall(r'\bid="([^"]+)"', text)) == set(re.findall(r'(?:href="|url\()#([^")]+)', text))
        assert all(name.startswith(f"figure-{k}-") for name in re.findall(r'\bid="([^"]+)"', text))
    assert "var(--c-1f2933,#1f2933)" in one
    assert "#0072b2" in one and "--c-0072b2" not in one  # not named by the style sheet: stays


@pytest.mark.parametrize("color", [formatting.INK, formatting.QUIET, formatting.LINE, formatting.MUTED, plots.RESULT,
                                   *formatting.KIND_COLORS.values(), *formatting.AXIS_COLORS.values()])  # fmt: skip
def test_the_style_sheet_knows_the_colour_in_the_dark(color):
    assert f"--c-{color.lower().lstrip('#')}" in CSS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_drawings_are_tidy_and_have_letters_that_phones_can_show(path):
    for cell in notebook_rules.code_cells(json.loads(path.read_text(encoding="utf-8"))):
        for output in cell["outputs"]:
            if svg := notebook_rules.text(output.get("data", {}).get("image/svg+xml", "")):
                assert drawings.tidy(svg) == svg
