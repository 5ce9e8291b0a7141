"""Two reports side by side: the differences sum to that of the losses, and each term finds its partner.

Texts are golden files; after an intended change: LOSSVIZ_OVERWRITE=1 pytest tests/test_comparison.py.
"""

import dataclasses
import json
import math
import os
import pickle
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import reports
from keras import layers
from models import compiled, dense, inputs, labels, targets
from reports import mean_part, one_term, report_of, scalar_term
from test_html import ALLOWED, Page

import lossviz
from lossviz import regimes
from lossviz.report import html, text

GOLDEN = Path(__file__).parent / "golden" / "text"


def faded(report):
    """The report with shares that shrink along the last axis: to all of the first label, to a fifth of the last."""

    def part(one):
        size = one.contributions.shape[-1:]
        return dataclasses.replace(one, contributions=one.contributions * np.linspace(1, 0.2, *size)) if size else one

    terms = [dataclasses.replace(term, parts=tuple(map(part, term.parts))) for term in report.terms]
    return report_of(*terms)


PAIRS = {
    "training": lambda: (reports.segmentation(), faded(reports.segmentation())),
    "other_model": lambda: (reports.five_outputs(), reports.segmentation()),
    "long_axis": lambda: (reports.long_axis(), faded(reports.long_axis())),
    "nasty": lambda: (reports.nasty(), reports.not_a_number()),
    "ratio": lambda: (reports.ratio(), faded(reports.ratio())),
    "nothing": lambda: (reports.tiny(), reports.empty()),
}
each_pair = pytest.mark.parametrize("name", list(PAIRS))


@each_pair
def test_differences_sum_to_that_of_the_losses(name):
    one, other = PAIRS[name]()
    comparison = one.compare(other)
    assert comparison.difference == pytest.approx(other.reported - one.reported, nan_ok=True)
    parts = [change.difference for change in comparison.changes]
    assert sum(parts) + comparison.residual == pytest.approx(comparison.difference, abs=1e-12, nan_ok=True)
    for change in comparison.changes:
        for axis in change.axes():
            shares = comparison.by(axis, term=change.name)
            assert sum(shares.values()) == pytest.approx(change.difference, abs=1e-12, nan_ok=True)


@each_pair
def test_golden(name):
    one, other = PAIRS[name]()
    file = GOLDEN / f"compare_{name}.txt"
    rendered = text.render_comparison(one.compare(other)) + "\n"
    if os.environ.get("LOSSVIZ_OVERWRITE"):
        file.write_text(rendered, encoding="utf-8")
    assert rendered == file.read_text(encoding="utf-8")
    assert max(map(len, rendered.splitlines())) <= text.WIDTH


@each_pair
def test_html_is_well_formed_harmless_and_has_every_number(name):
    comparison = PAIRS[name]()[0].compare(PAIRS[name]()[1])
    source = html.render_comparison(comparison)
    page = Page(source)
    assert set(page.tags) <= ALLOWED
    assert {key for key, _ in page.attributes} <= {"class", "style", "open", "scope", "tabindex"}
    assert "<script" not in source.replace("&lt;script", "")
    numbers = re.findall(r"-?\d+\.\d+(?:e[+-]\d+)?", text.render_comparison(comparison))
    assert numbers and not [number for number in numbers if number not in page.text]
    assert comparison._repr_html_() == source and str(comparison) == text.render_comparison(comparison)


def test_by_is_the_difference_of_both_reports():
    one, other = PAIRS["training"]()
    shares = one.compare(other).by("class")
    assert shares == {label: other.by("class")[label] - share for label, share in one.by("class").items()}
    both = one.compare(other).by(("batch", "class"))
    assert both[3, "8"] == other.by(("batch", "class"))[3, "8"] - one.by(("batch", "class"))[3, "8"]
    assert one.compare(other).by_label() == {k: other.by_label()[k] - v for k, v in one.by_label().items()}


def test_a_term_of_one_report_counts_whole_and_says_so():
    both = one_term(mean_part([1.0, 3.0], ("batch",)), "a")
    extra = one_term(mean_part([0.5, 0.5], ("batch",)), "b")
    comparison = report_of(both, extra).compare(report_of(both, scalar_term("l2", "regulariser", 0.25)))
    found = [(change.name, change.note, change.contributions, change.difference) for change in comparison.changes]
    assert found == [
        ("a", "", (2.0, 2.0), 0.0),
        ("b", "only before", (0.5, 0.0), -0.5),
        ("l2", "only after", (0.0, 0.25), 0.25),
    ]
    assert comparison.by("batch", term="b") == {0: -0.25, 1: -0.25}


@pytest.mark.parametrize(
    "before, after, names",
    [
        (["dense"], ["dense_7"], ["dense → dense_7"]),
        (["dense", "dense_1"], ["dense_2", "dense_3"], ["dense → dense_2", "dense_1 → dense_3"]),
        (["dense", "dense_1"], ["dense_1", "dense_2"], ["dense → dense_2", "dense_1"]),
        (["mask"], ["other"], ["mask → other"]),
        (["a", "b"], ["a", "c"], ["a", "b → c"]),
        (["a", "b"], ["c", "d"], ["a", "b", "c", "d"]),
        (["dense"], ["dense_1", "dense_2"], ["dense", "dense_1", "dense_2"]),
        (["block_1/dense"], ["block_2/dense"], ["block_1/dense → block_2/dense"]),
    ],
)
def test_outputs_find_their_partner(before, after, names):
    one, other = (report_of(*(scalar_term(n, "output", 1.0) for n in side)) for side in (before, after))
    assert [change.name for change in one.compare(other).changes] == names


def test_a_regulariser_is_no_partner_of_an_output_or_of_another_layer():
    one = report_of(scalar_term("a/kernel", "regulariser", 1.0), scalar_term("same", "output", 1.0))
    other = report_of(scalar_term("b/kernel", "regulariser", 1.0), scalar_term("same", "add_loss", 1.0))
    assert [change.note for change in one.compare(other).changes] == ["only before"] * 2 + ["only after"] * 2


def test_errors_name_what_there_is():
    one, other = PAIRS["training"]()
    comparison = one.compare(other)
    with pytest.raises(ValueError, match=r"no term has axis 'channel' in both reports.*'mask': \['batch', 'row'"):
        comparison.by("channel")
    with pytest.raises(ValueError, match=r"term 'x' is in neither report. The terms are \['mask', 'encoder/kernel'"):
        comparison.by("class", term="x")
    with pytest.raises(ValueError, match=r"compare takes a Report.*got dict"):
        one.compare({})
    renamed = report_of(one_term(mean_part([1.0, 2.0], ("class",), labels=(("a", "b"),)), "o"))
    plain = report_of(one_term(mean_part([1.0, 2.0], ("class",)), "o"))
    with pytest.raises(
        ValueError, match=r"\[0, 1\] before and \['a', 'b'\] after, none in common. Give both reports the"
    ):
        plain.compare(renamed).by("class")
    assert "by class" not in str(plain.compare(renamed))
    with pytest.raises(ValueError, match=r"several terms have axis 'class'.*Say which"):
        reports.five_outputs().compare(reports.five_outputs()).by("class")


def test_json_and_pickle():
    one, other = PAIRS["nasty"]()
    found = json.loads(json.dumps(one.compare(other).to_dict(), allow_nan=False))
    assert found["difference"] == "NaN" and len(found["changes"]) == 4
    again = pickle.loads(pickle.dumps(one))  # as one made with another version of Keras arrives
    assert str(again.compare(other)) == str(one.compare(other))


def test_before_and_after_training():
    x, y = inputs(64, 4), labels(64, classes=3)
    y = np.where(x[:, 0] > 0, y, 0)
    model = compiled(dense(3, "softmax", kernel_regularizer="l2"), "sparse_categorical_crossentropy", optimizer="adam")
    before = lossviz.explain(model, x, y)
    model.fit(x, y, epochs=2, batch_size=16, verbose=0)
    after = lossviz.explain(model, x, y)
    comparison = before.compare(after)
    assert comparison.difference == after.reported - before.reported < 0
    kernel = 0.01 * np.sum(model.get_weights()[0].astype(float) ** 2)
    assert comparison.term("o/kernel").contributions[1] == pytest.approx(kernel, rel=1e-6)
    assert sum(comparison.by_label().values()) == pytest.approx(comparison.term("o").difference)


def test_two_models_of_one_maker_and_a_whole_data_set():
    x, y = inputs(10, 4), targets(10, 2)
    made = []
    for _ in range(2):
        entry = keras.Input((4,))
        made.append(compiled(keras.Model(entry, layers.Dense(2)(entry)), "mse"))
    one, other = (lossviz.explain(model, x, y, batch_size=4) for model in made)
    comparison = one.compare(other)
    assert len(comparison.changes) == 1 and "→" in comparison.changes[0].name
    assert len(comparison.by("batch")) == 10
    assert comparison.difference == made[1].evaluate(x, y, verbose=0, batch_size=4) - one.reported


def test_two_versions_of_keras_on_the_same_tensors():
    """Weights 1 and 0: Keras up to 2.2.5 divides by the weights that are not zero, Keras 3 by all elements."""
    scores, weight = np.array([2.0, 4.0]), np.array([1.0, 0.0])
    found = [regimes.reduce(scores, weight, regime=name) for name in ("keras-2.2", "keras-3")]
    comparison = found[0].to_report().compare(found[1])
    assert comparison.difference == -1.0
    assert comparison.by("batch") == {0: -1.0, 1: 0.0}
    assert math.isclose(comparison.residual, 0.0)
