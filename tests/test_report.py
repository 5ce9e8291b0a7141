"""The records themselves: sums, errors that name what there is, and what JSON and pandas get."""

import json
import math

import numpy as np
import pytest
import reports
from reports import mean_part, one_term, report_of, scalar_term

from lossviz.report import UNSPLIT, AdditivityError, Part, Report, Term


def two_outputs() -> Report:
    first = mean_part([[1.0, 2.0], [3.0, 6.0]], ("batch", "class"))
    second = mean_part([[8.0, 0.0], [0.0, 0.0]], ("batch", "class"))
    return report_of(one_term(first, "left"), one_term(second, "right"), scalar_term("l2", "regulariser", 0.5))


@pytest.mark.parametrize("maker", reports.ALL.values(), ids=list(reports.ALL))
def test_shares_along_every_axis_sum_to_the_term(maker):
    for term in maker().terms:
        for axis in {axis for part in term.parts for axis in part.axes}:
            np.testing.assert_allclose(sum(term.by(axis).values()), term.contribution, rtol=1e-12)
        assert np.sum(term.contributions) == pytest.approx(term.contribution, nan_ok=True)


def test_by_one_axis_and_by_two():
    report = reports.tiny()
    assert report.by("class") == {0: 1.25, 1: 1.75, 2: 3.0}
    assert report.by("batch") == {0: 1.5, 1: 4.5}
    assert report.by(("class", "batch"))[2, 1] == 2.25  # 13.5 / 6
    assert report.by(("batch", "class"))[1, 2] == 2.25


def test_several_terms_with_the_axis_ask_which():
    with pytest.raises(ValueError, match=r"several terms have axis 'class': \['left', 'right'\].*term='left'"):
        two_outputs().by("class")
    assert two_outputs().by("class", term="right") == {0: 2.0, 1: 0.0}


def test_an_unknown_axis_names_those_there_are():
    with pytest.raises(ValueError, match=r"no term has axis 'channel'.*left \(batch=2, class=2\)"):
        two_outputs().by("channel")
    with pytest.raises(ValueError, match=r"'channel' is not an axis of term 'left'.*batch=2, class=2"):
        two_outputs().by("channel", term="left")
    with pytest.raises(ValueError, match=r"term 'middle' is not in this report.*\['left', 'right', 'l2'\]"):
        two_outputs().by("class", term="middle")


def test_an_axis_lost_to_a_ratio_says_why():
    dice = reports.ratio().term("mask").parts[0]
    with pytest.raises(ValueError, match="Note: a ratio of sums has no share per pixel"):
        report_of(one_term(dice)).by("row")


def test_what_has_no_place_on_the_axis_is_kept_apart():
    shares = reports.ratio().by("row")
    assert shares == {0: 0.125, 1: 0.125, 2: 0.125, 3: 0.125, UNSPLIT: 0.375}
    assert reports.ratio().by("class") == {"road": 0.375, "sky": 0.5}


def test_by_label_groups_by_the_true_class():
    # rows are samples: true class 1, 0, 1; the loss of a sample goes to its true class, whatever the channel
    part = mean_part(
        [[1.0, 2.0], [4.0, 0.5], [0.25, 4.25]],
        ("batch", "class"),
        true_class=np.array([1, 0, 1]),
        true_class_axes=("batch",),
        class_labels=("cat", "dog"),
    )
    report = report_of(one_term(part))
    assert report.by_label() == {"cat": 4.5 / 6, "dog": (3.0 + 4.5) / 6}
    assert sum(report.by_label().values()) == report.total


def test_by_label_keeps_the_share_of_a_class_without_a_label():
    part = mean_part(
        [1.0, 2.0, 3.0],
        ("batch",),
        true_class=np.array([0, -1, 255]),
        true_class_axes=("batch",),
        class_labels=("cat",),
    )
    assert report_of(one_term(part)).by_label() == pytest.approx({"cat": 1 / 3, UNSPLIT: 5 / 3})


def test_by_label_without_classes_says_so():
    with pytest.raises(ValueError, match="no term of this report has shares at positions with a true class"):
        reports.tiny().by_label()
    with pytest.raises(ValueError, match=r"term 'dense'.*cannot be grouped by true class"):
        reports.tiny().by_label(term="dense")


def test_top_orders_by_size_and_adds_terms_per_sample():
    report = two_outputs()
    assert report.top(1) == [(0, 0.75 + 2.0)]
    assert report.top(9) == [(0, 0.75 + 2.0), (1, 2.25)]
    words = reports.long_axis().top(3, axis="class")
    assert [label for label, _ in words] == [7, 31, 12]
    assert words[2][1] == pytest.approx(-0.1)  # by absolute size
    assert report.top(0) == []
    with pytest.raises(ValueError, match="k must be 0 or more, got k=-1"):
        report.top(-1)


def test_top_puts_nan_first():
    (label, share), *rest = reports.not_a_number().top(3, axis="class", term="broken")
    assert label == "b" and math.isnan(share)
    assert [share for _, share in rest] == [pytest.approx(1 / 3)] * 2


def test_check_returns_the_report_or_raises_with_the_numbers():
    report = reports.segmentation()
    assert report.check() is report
    with pytest.raises(AdditivityError) as raised:
        reports.opaque().check()
    for words in (
        "the parts sum to 0.75",
        "model.test_on_batch gave 0.875",
        "residual +0.125",
        "custom",
        "allowed 7.5e-07",
    ):
        assert words in str(raised.value)


@pytest.mark.parametrize(
    "reported, share, good",
    [
        (math.nan, math.nan, True),
        (math.inf, math.inf, True),
        (math.inf, -math.inf, False),
        (math.nan, 1.0, False),
        (1.0, math.nan, False),
        (1.0, math.inf, False),
        (math.inf, 1.0, False),
        (1.0, 1.0 + 0.9e-6, True),
        (1.0, 1.0 + 1.1e-6, False),
    ],
)
def test_check_with_numbers_that_are_not_finite(reported, share, good):
    report = Report(reported, (scalar_term("a", "output", share),), "somewhere", {})
    if good:
        assert report.check() is report
    else:
        with pytest.raises(AdditivityError):
            report.check()


def test_a_term_is_as_exact_as_its_worst_part():
    assert reports.ratio().term("mask").exactness == "ratio"
    assert Term("none", "constant", 0.0, 1.0, ()).exactness == "exact"


def test_parts_share_the_axes_that_both_have():
    term = reports.ratio().term("mask")
    assert term.axes == ("class",)
    np.testing.assert_allclose(term.contributions, [0.375, 0.5])
    assert term.elements is None
    assert reports.tiny().term("dense").elements.shape == (2, 3)


@pytest.mark.parametrize("maker", reports.ALL.values(), ids=list(reports.ALL))
def test_to_dict_is_strict_json(maker):
    report = maker()
    again = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [term["name"] for term in again["terms"]] == [term.name for term in report.terms]
    assert again["residual"] == ("NaN" if math.isnan(report.residual) else report.residual)


def test_to_dict_writes_numbers_json_does_not_know():
    assert reports.not_a_number().to_dict()["total"] == "NaN"
    assert reports.infinite().to_dict()["reported"] == "Infinity"
    labels = ((np.int64(3), ("a", 1)),)
    part = Part(("class",), np.ones(2), np.ones(2), "exact", (), labels)
    by = report_of(one_term(part)).to_dict()["terms"][0]["parts"][0]["by"]
    assert json.dumps(by) == '{"class": [[3, 1.0], [["a", 1], 1.0]]}'


def test_to_frame_has_a_row_a_term_and_the_residual():
    pytest.importorskip("pandas")
    frame = reports.opaque().to_frame()
    assert list(frame["term"]) == ["custom", "residual"]
    assert list(frame["contribution"]) == [0.75, 0.125]
    shares = reports.tiny().to_frame("class")
    assert list(shares.columns) == ["class", "contribution", "share"]
    assert list(shares["share"]) == pytest.approx([1.25 / 6, 1.75 / 6, 0.5])


def test_printing_is_the_text_form_and_html_the_html_form():
    from lossviz.report import html, text

    report = reports.tiny()
    assert str(report) == repr(report) == text.render(report)
    assert report._repr_html_() == html.render(report)
