"""The HTML form: whole, safe, small, without scripts, and with every number of the text form."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest
import reports

from lossviz.report import Part, Report, Step, Term, html, text
from lossviz.report.formatting import CLASS_COLORS, message

each_report = pytest.mark.parametrize("name", list(reports.ALL))
ALLOWED = {
    *("div", "style", "p", "b", "i", "small", "code", "span", "details", "summary", "ol", "li"),
    *("table", "caption", "thead", "tbody", "tr", "th", "td"),
}


class Page(HTMLParser):
    """Reads a page strictly: every tag closed in order, and the words, tags and attributes it has."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


@each_report
def test_well_formed_and_only_harmless_tags(name):
    page = Page(html.render(reports.ALL[name]()))
    assert set(page.tags) <= ALLOWED
    assert {key for key, _ in page.attributes} <= {"class", "style", "open", "scope", "tabindex", "title"}


@each_report
def test_nothing_is_loaded_from_anywhere(name):
    source = html.render(reports.ALL[name]()).replace("alert(&#x27;x&#x27;)", "")
    assert not re.search(r"<script|url\(|@import|https?:|<img|<link|\bid=|javascript", source)


@each_report
def test_every_number_of_the_text_form_is_there(name):
    report = reports.ALL[name]()
    page = Page(html.render(report)).text
    numbers = re.findall(r"-?\d[\d.\u00a0]*(?:e[+-]\d+)?|NaN|inf\b", re.sub(r" (\. )+", " ", text.render(report)))
    assert numbers
    assert not [number for number in numbers if number.rstrip(".") not in page]


def test_every_label_step_and_note_is_there():
    page = Page(html.render(reports.ratio())).text
    steps_and_notes = (
        "1 − 2·TP / (2·TP + FP + FN) per class",
        "TP: road 12, sky 5",
        "a ratio of sums has no share per pixel",
        "dice + pixel loss, in one function",
    )
    for words in (*steps_and_notes, "road", "sky", "by batch", "by row", "by col", "not split"):
        assert words in page


def test_names_are_escaped_everywhere():
    source = html.render(reports.nasty())
    page = Page(source)
    assert "<script" not in source and "<img" not in source
    assert "<script>alert('x')</script> output" in page.text
    assert "🦊" in page.text and "line\\nbreak" in page.text and 'a & "b"' in page.text
    assert "'\"><img src=x>" in page.text


def test_every_field_that_holds_words_is_escaped():
    evil = "<b id=evil>"
    step = Step(evil, evil, (2,), (2,), (evil,))
    sums = {evil: np.ones(2)}
    part = Part((evil,), np.ones(2), np.ones(2), "exact", (step,), ((evil, "y"),), sums=sums, note=evil)
    report = Report(2.0, (Term(evil, evil, 2.0, 1.0, (part,), evil),), evil, {evil: evil}, notes=(evil,))
    source = html.render(report)
    assert evil not in source
    assert "id" not in {key for key, _ in Page(source).attributes}
    # source, version twice, name, kind, shape, step, its shape, sum with label, three notes, table and its label, ...
    assert source.count("&lt;b id=evil&gt;") >= 14


def test_five_outputs_stay_small():
    assert len(html.render(reports.five_outputs()).encode()) < 60_000


def test_elements_are_shown_where_they_are_few():
    page = html.render(reports.tiny())
    assert "<summary>elements</summary>" in page
    assert page.count("<small>13.500</small>") == 1
    assert "<summary>elements</summary>" not in html.render(reports.segmentation())


def test_nan_and_exact_zeros_are_marked():
    source = html.render(reports.not_a_number())
    assert source.count('<td class="x">NaN <small>NaN</small></td>') == 1
    assert "1 of 12 shares are NaN or infinite" in Page(source).text
    masked = reports.mean_part([[1.0, 0.0], [2.0, 0.0]], ("batch", "class"))
    source = html.render(reports.report_of(reports.one_term(masked)))
    assert source.count('<td class="z">') == 2
    assert "hatched: a share of exactly zero" in Page(source).text
    assert "hatched: a share" not in Page(html.render(reports.tiny())).text


def test_negative_shares_are_marked():
    source = html.render(reports.negative())
    assert source.count('<td class="m"') == 3
    assert re.search(r'<i class="m" style="margin-left:\d', source)


def test_bars_of_terms_lie_where_the_running_sum_is():
    source = html.render(reports.report_of(*(reports.scalar_term(n, "output", v) for n, v in (("a", 3.0), ("b", 1.0)))))
    bars = re.findall(r"margin-left:([\d.]+)%;width:([\d.]+)%", source)
    assert bars == [("0.0", "75.0"), ("75.0", "25.0"), ("0.0", "100.0")]


def test_the_residual_is_a_row_and_loud_when_too_large():
    assert '<span class="x">residual: TOO LARGE</span>' in html.render(reports.opaque())
    page = Page(html.render(reports.segmentation())).text
    assert re.search(r"residual +0\.000000 .*allowed 2e-08", page)


def test_rows_have_shape_divisor_and_exactness():
    page = Page(html.render(reports.segmentation())).text
    assert re.search(r"mask output  0\.018467 94\.4 %\s+exact batch 16 × row 16 × col 16 × class 5, ÷ 5", page)


def test_what_stands_out_and_what_is_wrong_come_first():
    source = html.render(reports.findings())
    places = [source.index(mark) for mark in ("of this loss is batch 1", "Finding scalar-loss", "Fix:", "<ol>")]
    assert places == sorted(places)
    assert source.count('<details class="f" open>') == 1 and source.count('<details class="f"') == 2


def test_the_sentence_names_the_largest_class_and_how_common_it_is():
    truth = np.array([[0, 0, 0, 1]])
    axes, labels = ("batch", "step"), ("paper", "pencil")
    part = reports.mean_part([[0.1, 0.1, 0.1, 0.5]], axes, true_class=truth, true_class_axes=axes, class_labels=labels)
    report = reports.report_of(reports.one_term(part))
    assert message(report) == "62.5 % of this loss is pencil, 25.0 % of the positions."
    page = Page(html.render(report)).text
    assert page.index(message(report)) < page.index("mask output")
    assert [row[0] for row in re.findall(r"<th scope=row>(\w+)</th>", html.render(report))[:2]] == ["p", "p"]
    assert message(reports.five_outputs()) == message(reports.not_a_number()) == message(reports.empty()) == ""
    assert message(reports.ratio()) == "57.1 % of this loss is sky, one of 2."
    two = (reports.scalar_term("a", "output", 3.0), reports.scalar_term("b", "output", 1.0))
    assert message(reports.report_of(*two)) == "75.0 % of this loss is a."


def test_bars_below_a_term_are_per_cents_of_it():
    part = reports.mean_part([np.arange(1.0, 41.0)], ("batch", "class"))
    source = html.render(reports.report_of(reports.one_term(part)))
    table = source[source.index("by class, the largest") :]
    widths = [float(width) for width in re.findall(r";width:([\d.]+)%", table)]
    assert len(widths) == 4 and sum(widths) == pytest.approx(100.0, abs=0.2)
    assert "repeating-linear-gradient" in re.search(r">37 others<.*", table)[0]


def test_the_true_class_stands_open_above_the_channels():
    folds = re.findall(r"<details( open)?><summary>(by [\w ]+)", html.render(reports.segmentation()))
    assert folds[:2] == [(" open", "by true class"), ("", "by class")]
    assert sum(bool(mark) for mark, _ in folds) == 1


def test_nothing_stands_twice():
    """One term is the loss, a weight of 1 changes nothing, and a step has its shape once."""
    page = Page(html.render(reports.tiny())).text
    assert "× 1 =" not in page and not re.search(r"^loss ", page, re.MULTILINE)
    assert page.count("6.0000") == 2  # the headline and the term
    assert "(2, 3)" not in page and "sum over class, ÷ 3 = mean batch 2" in page
    assert re.search(
        r"^loss  0\.875", Page(html.render(reports.opaque())).text, re.MULTILINE
    )  # the term is not all of it


def test_classes_have_the_colours_of_the_figures():
    source = html.render(reports.segmentation())
    rows = re.findall(r"<th scope=row>(\d)</th>.*?background:(#\w+)", source)
    assert rows[:5] == list(zip(reports.DIGITS, CLASS_COLORS))


def test_dark_pages_are_known_by_their_marks():
    style = html.render(reports.tiny()).partition("</style>")[0]
    for mark in (
        "html[data-theme=dark] .lv",
        "html[theme=dark] .lv",
        "body[data-jp-theme-light=false] .lv",
        ".vscode-dark .lv",
    ):
        assert mark in style
    assert "prefers-color-scheme" not in style  # the page decides, not the reader's system: light-dark() follows it
    used = set(re.findall(r"var\(--(\w+)", style)) - {"a"}
    assert used <= set(html._COLORS)


@each_report
def test_same_bytes_each_time(name):
    assert html.render(reports.ALL[name]()) == html.render(reports.ALL[name]())


def test_same_bytes_in_another_process():
    here = Path(__file__).parent
    code = "import sys, reports; sys.stdout.buffer.write(reports.five_outputs()._repr_html_().encode())"
    path = os.pathsep.join(map(str, (here, here.parent)))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": path}
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert other.stdout.decode() == html.render(reports.five_outputs())


@pytest.fixture(scope="module")
def chromium():
    with browser.launch() as launched:
        yield launched


@pytest.mark.parametrize(
    "dark", ["", "html data-theme=dark", "body data-jp-theme-light=false", "body class=vscode-dark"]
)
def test_report_fits_a_phone_and_can_be_read_in_the_dark(chromium, dark):
    """Everything unfolded, at 390 pixels: nothing pushes the page wider, and every word has contrast enough."""
    axe = (
        Path(pytest.importorskip("axe_playwright_python").__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    )
    with browser.visit(chromium, width=390) as seen:
        made = "".join(reports.ALL[name]()._repr_html_() for name in ("five_outputs", "not_a_number", "nasty", "ratio"))
        tag, _, mark = dark.partition(" ")
        html_tag, body_tag = (f"<{one} {mark}>" if one == tag else f"<{one}>" for one in ("html", "body"))
        seen.page.set_content(f"<!doctype html>{html_tag}{body_tag}<main>{made}</main>")
        seen.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
        background = seen.page.evaluate("getComputedStyle(document.querySelector('.lv')).backgroundColor")
        assert background == ("rgb(21, 25, 30)" if dark else "rgb(255, 255, 255)")
        seen.page.evaluate(axe)
        found = seen.page.evaluate("axe.run('main', {runOnly: ['color-contrast', 'scrollable-region-focusable']})")
        assert [node["failureSummary"] for one in found["violations"] for node in one["nodes"]] == []
        assert not seen.problems
