"""Drawings: what is stored beside a PNG, and what the book's pages make of it."""

import base64
import importlib.util
import io
import json
import re
from pathlib import Path

import browser
import drawings
import matplotlib
import notebook_rules
import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

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
        axes.plot([0, 1, 3], color="#E69F00")
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
    assert "#e69f00" in one and "--c-e69f00" not in one  # not named by the style sheet: stays


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


def stored_drawings() -> list[tuple[str, str, bytes]]:
    """The place of each drawing in the notebooks, its SVG, and the PNG that is stored beside it."""
    found = []
    for path in NOTEBOOKS:
        for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
            for data in (output.get("data", {}) for output in cell.get("outputs", [])):
                if {"image/svg+xml", "image/png"} <= set(data):
                    png = base64.b64decode("".join(data["image/png"]))
                    found.append((f"{path.stem} {number}", "".join(data["image/svg+xml"]), png))
    return found


def coarse(png: bytes) -> np.ndarray:
    """A picture as the means of squares of 8 pixels, from 0 to 1: how thick its letters are makes no difference."""
    pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), float) / 255
    rows, cols = (size // 8 for size in pixels.shape[:2])
    return pixels[: 8 * rows, : 8 * cols].reshape(rows, 8, cols, 8, 3).mean((1, 3))


def nearest(one: np.ndarray, other: np.ndarray, reach: int = 3) -> np.ndarray:
    """How far each square of a picture is from the most alike of those nearby in the other."""
    wide = np.pad(other, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows, cols = one.shape[:2]
    moved = (wide[i : i + rows, j : j + cols] for i in range(2 * reach + 1) for j in range(2 * reach + 1))
    return np.min([np.abs(one - there).max(-1) for there in moved], 0)


def differs(one: np.ndarray, other: np.ndarray) -> bool:
    """Are they two pictures? Of the two drawings of a figure, one is laid out a few pixels away from the other."""
    if max(abs(a - b) for a, b in zip(one.shape, other.shape)) > 1:
        return True
    rows, cols = (min(sizes) for sizes in zip(one.shape[:2], other.shape[:2]))
    one, other = one[:rows, :cols], other[:rows, :cols]
    return bool(max((nearest(*pair) > 0.15).mean() for pair in ((one, other), (other, one))) > 0.02)


@pytest.fixture(scope="module")
def seen_drawings():
    """Each drawing as a browser shows it in a light page, beside its PNG: place -> two pictures."""
    pairs = {}
    with (
        browser.launch() as chromium,
        browser.visit(chromium, width=1400, height=1400, reduced_motion="reduce") as seen,
    ):
        for place, svg, png in stored_drawings():
            width, height = Image.open(io.BytesIO(png)).size
            inlined = figures.inline(svg, "a drawing", 1, set())
            style = f"svg.figure {{ width: {width}px !important; height: {height}px !important; display: block }}"
            rules = f"<style>{CSS} body {{ margin: 0 }} {style} :root {{ --figure-font: 'DejaVu Sans' }}</style>"
            seen.page.set_content(f"<!doctype html>{rules}{inlined}")
            pairs[place] = coarse(seen.page.locator("svg.figure").screenshot()), coarse(png)
    return pairs


def luminance(color: np.ndarray) -> float:
    """https://www.w3.org/TR/WCAG22/#dfn-relative-luminance, of values from 0 to 255."""
    channels = np.asarray(color[:3], float) / 255
    return float(
        np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
    )


def pale_words(seen, place: str, svg: str) -> list[str]:
    """The words of a drawing in a dark page that hardly differ from what is behind them."""
    themed = set(figures.THEMED.findall(CSS))
    inlined = figures.inline(svg, "a drawing", 1, themed)
    dark = ":root { --pst-color-background: #121212; background: #121212 } body { margin: 0 }"
    seen.page.set_content(f"<!doctype html><html data-theme=dark><style>{CSS} {dark}</style>{inlined}")
    words = seen.page.evaluate("""[...document.querySelectorAll('svg.figure text')].map(one => {
        const { x, y, width, height } = one.getBoundingClientRect();
        const color = getComputedStyle(one).fill.match(/[\\d.]+/g).map(Number);
        return { text: one.textContent, x: x + width / 2, y: y + height / 2, color };
    })""")
    seen.page.add_style_tag(content="svg.figure text { visibility: hidden }")
    size = seen.page.evaluate(
        "(({ right, bottom }) => [right, bottom])(document.querySelector('svg.figure').getBoundingClientRect())"
    )
    clip = {"x": 0, "y": 0, "width": size[0], "height": size[1]}
    ground = np.asarray(Image.open(io.BytesIO(seen.page.screenshot(clip=clip))).convert("RGB"), float)
    pale = []
    for word in words:
        row, col = round(word["y"]), round(word["x"])
        if word["text"].strip() and 0 <= row < len(ground) and 0 <= col < len(ground[0]):
            low, high = sorted(
                map(luminance, (word["color"], np.median(ground[row - 1 : row + 2, col - 1 : col + 2], (0, 1))))
            )
            if (high + 0.05) / (low + 0.05) < 2.5:
                pale.append(f"{place}: {word['text']}")
    return pale


def test_words_of_drawings_can_be_read_in_the_dark():
    """Also those on coloured ground, which keeps its colour: `plots.ON_DATA` does too, other ink turns light."""
    with (
        browser.launch() as chromium,
        browser.visit(chromium, width=1000, height=1000, reduced_motion="reduce") as seen,
    ):
        pale = [word for place, svg, _ in stored_drawings() for word in pale_words(seen, place, svg)]
        ground = '<rect width="100" height="50" fill="#fee8d0"/>'
        one = f'<svg viewBox="0 0 100 50">{ground}<text x="50" y="25" fill="#1f2933">9</text></svg>'
        assert pale_words(seen, "a test", one) == ["a test: 9"]
    assert pale == []


def test_each_drawing_shows_what_its_png_shows(seen_drawings):
    assert len(seen_drawings) > 30
    assert [place for place, pair in seen_drawings.items() if differs(*pair)] == []


def test_a_drawing_turned_round_or_without_a_bar_would_be_seen(seen_drawings):
    turned = [place for place, (drawn, png) in seen_drawings.items() if not differs(drawn[:, ::-1], png)]
    assert len(turned) <= 4, turned  # a few have little more than thin lines or points
    drawn, png = seen_drawings["one_number 2"]
    for rows, cols in ((slice(-7, -2), slice(15, 40)), (slice(8, -2), slice(50, 65))):  # the last bar; the numbers
        gone = drawn.copy()
        gone[rows, cols] = gone[0, 0]
        assert differs(gone, png)
    assert differs(drawn[..., ::-1] * [1, 1, 0.5], png)


def test_contributors_are_told_the_colours_of_the_package():
    """The table of colours has each that a figure gives a meaning, and no other."""
    text = Path(ROOT, "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Colours") : text.index("## Put a view")]
    meant = {*plots.CLASS_COLORS, *plots.KIND_COLORS.values(), *plots.AXIS_COLORS.values(), formatting.OTHER_AXIS_COLOR}
    meant |= {formatting.MUTED, plots.NAN_COLOR, plots.BAD}
    assert set(re.findall(r"#[0-9A-F]{6}", section)) == meant
    names = [name for name in re.findall(r"`([A-Z_]+)(?:\[[^`]*)?`", section) if name != "NaN"]
    assert all(hasattr(plots, name) or hasattr(formatting, name) for name in names) and len(names) >= 8
