"""The text form: golden files, and a check of the printed column itself.

After an intended change: LOSSVIZ_OVERWRITE=1 pytest tests/test_text.py, and read the difference.
"""

import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reports

from lossviz.report import UNSPLIT, Report, Step, text
from lossviz.report.formatting import Column, percent, plain, share_rows, stages, step_label, step_text

GOLDEN = Path(__file__).parent / "golden" / "text"
each_report = pytest.mark.parametrize("name", list(reports.ALL))
each_width = pytest.mark.parametrize("width", [text.WIDTH, 46, 40])


@each_report
def test_golden(name):
    file = GOLDEN / f"{name}.txt"
    rendered = text.render(reports.ALL[name]()) + "\n"
    if os.environ.get("LOSSVIZ_OVERWRITE"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rendered, encoding="utf-8")
    assert rendered == file.read_text(encoding="utf-8")


NUMBER = r"(-?(?:\d[\d.]*(?:e[+-]\d+)?|inf|NaN))"


def contribution_column(rendered: str) -> tuple[list[str], str]:
    """The contributions of the term rows and of the residual, and the last row's number, as printed."""
    lines = rendered.splitlines()
    header = next(k for k, line in enumerate(lines) if line.startswith("term ") and "contribution" in line)
    end = lines[header].index("contribution") + len("contribution")
    rows = []
    for k, line in enumerate(lines):
        if line.startswith(("├─ ", "└─ ")):
            while not re.search(NUMBER + "$", line[:end]) or len(line) < end:  # a long name has lines of its own
                k += 1
                line = lines[k]
            rows.append(re.search(NUMBER + "$", line[:end])[1])
    return rows[:-1], rows[-1]


def half_a_digit(printed: str) -> float:
    """Half of the last printed digit."""
    mantissa, _, exponent = printed.partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


@each_report
@each_width
def test_the_printed_column_sums_to_the_printed_number(name, width):
    report = reports.ALL[name]()
    parts, whole = contribution_column(report.summary(width))
    assert len(parts) == len(report.terms) + 1
    total = sum(map(float, parts))
    if not math.isfinite(report.reported):
        assert not math.isfinite(total)
        return
    assert total == pytest.approx(float(whole), abs=1e-12 + sum(map(half_a_digit, [*parts, whole])))
    assert float(whole) == pytest.approx(report.reported, abs=half_a_digit(whole) * 1.0001)


def test_the_sum_check_notices_a_lost_term():
    parts, whole = contribution_column(text.render(reports.segmentation()))
    assert abs(sum(map(float, parts[1:])) - float(whole)) > 1e-3


@each_report
@each_width
def test_no_line_is_wider_than_the_page(name, width):
    lines = reports.ALL[name]().summary(width).splitlines()
    assert all(text._columns(line) <= width for line in lines)


def test_a_page_must_have_room_for_the_numbers():
    for one in (reports.tiny(), reports.tiny().compare(reports.tiny())):
        with pytest.raises(ValueError, match="width must be 40 columns or more, got width=39"):
            one.summary(width=39)


@pytest.mark.parametrize("total", [6.0, -20.0, 30.0])
@each_width
def test_numbers_and_per_cents_never_run_together(total, width):
    """Where shares cancel, per cents have many digits."""
    terms = (reports.scalar_term("plus", "output", 500 + total), reports.scalar_term("minus", "constant", -500.0))
    report = reports.report_of(*terms)
    rows = [line for line in report.summary(width, digits=9).splitlines() if "%" in line]
    columns = [re.split(r"\s{2,}", re.sub(r"^[├└│─ ]+", "", row.removesuffix("exact")).strip()) for row in rows]
    assert len(rows) == 3
    for row, value in zip(columns, (500 + total, -500, total)):
        number, percent = row[-2:]
        assert float(number.rpartition(" ")[2]) == pytest.approx(value, abs=1e-4)
        assert float(percent.removesuffix(" %")) == pytest.approx(100 * value / total, abs=0.06)
    compared = report.compare(reports.report_of(*terms[:1])).summary(width)
    assert len(re.findall(r"\s-?\d+\.\d+(?=\s|$)", compared.splitlines()[-1])) == 3


@each_report
def test_never_a_nan_per_cent_or_a_negative_zero(name):
    rendered = text.render(reports.ALL[name]())
    assert not re.search(r"nan|NaN ?%|inf ?%|-0\.0+(?!\d)", rendered)


def test_shares_in_a_table_sum_to_their_term():
    rendered = text.render(reports.segmentation())
    shares = re.findall(r"^│      \d [ .]+ (\d\.\d+)", rendered, re.M)
    assert len(shares) == 5
    assert sum(map(float, shares)) == pytest.approx(reports.segmentation().term("mask").contribution, abs=3e-6)


def test_a_long_axis_shows_three_and_the_others():
    lines = text.render(reports.long_axis()).splitlines()
    start = next(k for k, line in enumerate(lines) if "by class, the largest" in line)
    labels = [re.sub(r"[ .]+", " ", line[2:34]).strip() for line in lines[start + 1 : start + 5]]
    assert labels == ["7", "31", "12", "37 others"]
    assert "0.23125" in lines[start + 4]  # 37 * 0.25 / 40


def test_the_residual_beyond_rounding_is_loud():
    rendered = text.render(reports.opaque())
    assert re.search(r"residual: TOO LARGE +0\.12500 +allowed 8e-07", rendered)
    assert re.search(r"residual +0\.000000 +allowed 2e-08", text.render(reports.segmentation()))
    # too small for the column's decimals, yet beyond what is allowed
    faint = reports.report_of(reports.scalar_term("a", "output", 1000.0), residual=0.004)
    assert re.search(r"residual: TOO LARGE +4\.0e-03 +allowed 1e-03", text.render(faint))


def test_nan_says_where_it_is():
    rendered = " ".join(text.render(reports.not_a_number()).replace("│", " ").split())
    assert "1 of 12 shares are NaN or infinite; the first is at batch 2, class b" in rendered
    assert "loss NaN" in rendered


def test_names_cannot_break_a_row():
    rendered = text.render(reports.nasty())
    assert "line\\nbreak" in rendered
    assert all(line[:1] in ("l", "K", "t", "├", "│", "└", "n", "") for line in rendered.splitlines())


@each_report
def test_same_text_in_another_process(name):
    code = f"import reports; print(reports.ALL[{name!r}]())"
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parent.parent)))
    if name != "nasty":  # one process is enough for the rest
        assert text.render(reports.ALL[name]()) == text.render(reports.ALL[name]())
        return
    other = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True)
    assert other.stdout.decode() == text.render(reports.nasty()) + "\n"


def test_writers_need_neither_matplotlib_nor_tensorflow():
    code = (
        "import sys, reports\nreport = reports.five_outputs()\nstr(report), report._repr_html_()\n"
        "assert not {'matplotlib', 'tensorflow', 'keras', 'pandas'} & set(sys.modules), sorted(sys.modules)"
    )
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (here, here.parent)))}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


@pytest.mark.parametrize(
    "values, number, printed",
    [
        ([0.019571], 0.0011, "0.001100"),
        ([12.5], 0.00004, "4.0e-05"),  # would look like zero
        ([12.5], 0.0, "0.000"),
        ([12.5], -1e-30, "-1.0e-30"),
        ([123456789.0], 5.0, "5"),
        ([1e12], 5.0, "5.0000e+00"),
        ([1e-9], 1e-9, "1.0000e-09"),
        ([math.nan, 2.0], math.nan, "NaN"),
        ([math.inf], -math.inf, "-inf"),
        ([], 0.0, "0.0000"),
    ],
)
def test_numbers_of_a_column(values, number, printed):
    assert Column.of(values)(number) == printed


def test_digits_can_be_asked_for():
    assert "1.7500" in text.render(reports.tiny()) and "1.75000000" in text.render(reports.tiny(), digits=9)


@pytest.mark.parametrize(
    "share, total, printed",
    [
        (1.0, 4.0, "25.0 %"),
        (-1.0, 4.0, "-25.0 %"),
        (1e-6, 4.0, "<0.1 %"),
        (-1e-6, 4.0, ">-0.1 %"),
        (0.0, 4.0, "0.0 %"),
        (-0.0, 4.0, "0.0 %"),
        (1.0, 0.0, ""),
        (math.nan, 1.0, ""),
        (1.0, math.inf, ""),
        (1e9, 1e-3, ""),
        (-9900.0, 100.0, "-9900.0 %"),
        (-9900.0, 99.0, ""),
    ],
)
def test_per_cents(share, total, printed):
    assert percent(share, total) == printed


def test_plain_numbers():
    assert plain(65536).split("\N{NO-BREAK SPACE}") == ["65", "536"]
    assert (plain(0.5), plain(1 / 3), plain(math.nan)) == ("0.5", "0.33333", "NaN")


def test_share_rows_keep_what_is_not_split_apart():
    shares = {k: float(k) for k in range(6)} | {UNSPLIT: 99.0}
    assert share_rows(shares, limit=4, top=3) == [(5, 5.0), (4, 4.0), (3, 3.0), ("3 others", 3.0), (UNSPLIT, 99.0)]
    assert share_rows(shares, limit=6)[:2] == [(0, 0.0), (1, 1.0)]
    assert share_rows({0: 1.0, 1: math.nan, 2: -3.0}, ordered=True)[1:] == [(2, -3.0), (0, 1.0)]


def test_stages_name_the_shape_after_each_step():
    part = reports.segmentation().term("mask").parts[0]
    assert stages(part) == [
        (("batch", "row", "col", "class"), (16, 16, 16, 5)),
        (("batch", "row", "col"), (16, 16, 16)),
        ((), ()),
    ]


def test_stages_follow_merged_axes_and_axes_of_one():
    part = reports.mean_part([[[1.0], [2.0], [3.0]], [[4.0], [5.0], [6.0]]], ("batch", "step", "class"))
    steps = (
        Step("element loss", "", (2, 3, 1), (2, 3, 1)),
        Step("multiply", "× mask (2,3)", (2, 3, 1), (2, 3), ("batch", "step")),
        Step("Weird", "", (2, 3), (6,)),
        Step("select", "keep 5 of 6", (6,), (5,)),
        Step("sum", "", (5,), (), ("batch", "step")),
    )
    follow = stages(reports.Part(part.axes, part.elements, part.contributions, "exact", steps, part.labels))
    assert follow == [
        (("batch", "step", "class"), (2, 3, 1)),
        (("batch", "step"), (2, 3)),
        (("batch", "step"), (2, 3)),  # merged to six, still these two
        (("",), (5,)),
        ((), ()),
    ]


def test_stages_name_what_a_summed_part_no_longer_has():
    steps = (
        Step("element loss", "", (4, 8, 8, 5), (4, 8, 8, 5), ("batch", "row", "col", "class")),
        Step("mean", "", (4, 8, 8, 5), (4, 8, 8), ("class",), 5.0),
    )
    summed = reports.np.ones((4, 5))
    part = reports.Part(("batch", "class"), summed, summed, "exact", steps, (range(4), range(5)))
    assert stages(part)[1] == (("batch", "row", "col"), (4, 8, 8))


def test_step_labels_drop_shapes_and_keep_divisors():
    assert step_label(Step("mean", "mean over class: (4,5) → (4,), ÷ 5", (4, 5), (4,), ("class",), 5.0)) == (
        "sum over class, ÷ 5 = mean"
    )
    assert step_label(Step("sum", "sum over batch", (4,), (), ("batch",), 4.0)).endswith("÷ 4")


def test_a_sum_divided_by_its_count_is_called_a_mean_and_no_other_is():
    def words(op, text, divisor):
        return step_text(Step(op, text, (4, 5), (5,), ("batch",), divisor))

    assert words("mean", "mean over batch: (4,5) → (5,), ÷ 4", 4.0) == "sum over batch: (4,5) → (5,), ÷ 4 = mean"
    assert words("sum", "sum over batch, ÷ 4", 4.0) == "sum over batch, ÷ 4 = mean"
    assert words("sum", "sum over batch, ÷ 65 536", 4.0).endswith("÷ 65 536 = mean")
    assert words("sum", "sum over batch, ÷ 3", 3.0) == "sum over batch, ÷ 3"
    assert words("sum", "sum over batch, ÷ 4, the sum of the weights", 4.0).endswith("the sum of the weights")
    assert words("divide", "÷ 4", 4.0) == "÷ 4"


def test_labels_of_other_steps_stay():
    assert step_label(Step("multiply", "× mask (2,6) along step: 0 … 1", (2, 6), (2, 6))) == (
        "× mask (2,6) along step: 0 … 1"
    )


def test_a_total_of_zero_has_no_per_cents():
    zero = Report(0.0, (reports.scalar_term("a", "output", 1.0), reports.scalar_term("b", "constant", -1.0)), "f", {})
    assert "%" not in text.render(zero)
