"""The four regimes against the real packages: recorded numbers of every version, and Keras 3 live.

tests/golden/regimes.json is made by scripts/make_regime_goldens.py, which runs seven versions.
"""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lossviz
from lossviz import Report, plots, regimes
from lossviz.regimes import REGIMES, compare, epoch, reduce
from lossviz.report import html, text
from lossviz.report.formatting import step_text

GOLDEN = json.loads((Path(__file__).parent / "golden" / "regimes.json").read_text())
#: version: the rules it follows
RULES = {
    "keras-2.1.5": "keras-2.2",
    "keras-2.2.4": "keras-2.2",
    "keras-2.3.1": "keras-2.3",
    "tf.keras-2.9": "tf-keras-2.9",
    "tf.keras-2.15": "tf-keras-2.10",
    "tf_keras": "tf-keras-2.10",
    "keras-3": "keras-3",
}
#: regime: the version whose compile and evaluate stand behind its notes
MEASURED = {
    "keras-2.2": "keras-2.2.4",
    "keras-2.3": "keras-2.3.1",
    "tf-keras-2.10": "tf_keras",
    "keras-3": "keras-3",
}
each_version = pytest.mark.parametrize("version", list(RULES))
each_regime = pytest.mark.parametrize("regime", REGIMES)
nan = math.nan


def number(recorded):
    """A recorded result: JSON has no NaN."""
    if isinstance(recorded, list):
        return np.array([number(item) for item in recorded], np.float64)
    return {"NaN": nan, "Infinity": math.inf, "-Infinity": -math.inf}.get(recorded, recorded)


def array(name):
    return None if name is None else np.array(GOLDEN["arrays"][name], np.float64)


def tensors(case):
    """Score array, sample weights and mask of a case; its loss functions are squared errors."""
    squares = (array(case["y_pred"]) - array(case["y_true"])) ** 2
    score = {"mse": lambda: squares.mean(-1), "elements": lambda: squares, "scalar": lambda: squares.mean()}
    return score[case["loss"]](), array(case["sample_weight"]), array(case["mask"])


def refused(recorded):
    return isinstance(recorded, dict)


def words(recorded):
    """What a version said when it refused, without the type of the error."""
    return GOLDEN["messages"][recorded["error"]].split(": ", 1)[1]


def attempt(score, weight, mask, rules, reduction="sum_over_batch_size"):
    try:
        return regimes._reduce(score, weight, mask, rules, reduction)
    except ValueError as error:
        return error


def same(one, other, tolerance=1e-6):
    return np.shape(one) == np.shape(other) and np.allclose(one, other, rtol=tolerance, atol=1e-7, equal_nan=True)


# --- reduce


def test_goldens_hold_what_they_should():
    assert list(GOLDEN["results"]) == list(RULES)
    cases = GOLDEN["cases"]
    assert len(cases) > 1000
    shapes = [
        tuple(None if a is None else a.ndim for a in map(array, (c["y_true"], c["sample_weight"]))) for c in cases
    ]
    assert {(target, weight) for target in (1, 2, 3, 4) for weight in (None, 1, 2, 3)} <= set(shapes)
    for version, results in GOLDEN["results"].items():
        assert len(results["direct"]) == len(cases), version
        ran = [result for result in results["direct"] if not (refused(result) and "skipped" in result)]
        accepted = [result for result in ran if not refused(result)]
        assert len(ran) > 700 and len(accepted) > 500, version
    versions = {name: results["versions"]["keras"] for name, results in GOLDEN["results"].items()}
    assert versions["keras-2.1.5"] == "2.1.5" and versions["tf.keras-2.9"].startswith("2.9")


@each_version
def test_every_recorded_case(version):
    """Value for value at 1e-6, NaN where NaN, refusal where refusal."""
    wrong = []
    for k, (case, recorded) in enumerate(zip(GOLDEN["cases"], GOLDEN["results"][version]["direct"], strict=True)):
        score, weight, mask = tensors(case)
        result = attempt(score, weight, mask, RULES[version], case["reduction"])
        if refused(recorded) or isinstance(result, ValueError):
            agrees = refused(recorded) and isinstance(result, ValueError)
        else:
            agrees = same(result.value, number(recorded))
        if not agrees:
            wrong.append((k, case, score.shape, recorded, str(result)))
    assert not wrong, f"{len(wrong)} differ, the first: {wrong[0]}"


def test_public_reduce_is_what_the_cases_check():
    for case in GOLDEN["cases"][::40]:
        score, weight, mask = tensors(case)
        for regime in REGIMES:
            result = attempt(score, weight, mask, regime, case["reduction"])
            if isinstance(result, ValueError):
                with pytest.raises(ValueError, match=re.escape(str(result))):
                    reduce(score, weight, mask, regime=regime, reduction=case["reduction"])
            else:
                again = reduce(score, weight, mask, regime=regime, reduction=case["reduction"])
                assert same(again.value, result.value, 0)


#: Numbers that people asked about, computed by hand; in the order of REGIMES, None where refused.
TABLE = {
    "a zero among the weights": ([0, 4, 4], [0.1, 0, 0.1], None, (0.2, 0.4 / 3, 0.4 / 3, 0.4 / 3)),
    "one masked step of three": ([[1, 1, 0]], None, [[1, 0, 1]], (0.5, 1 / 3, 0.5, 0.5)),
    "masked, with step weights": ([[1, 1, 1]], [[1, 1, 0.5]], [[1, 0, 1]], (0.75, 0.5, 0.75, 0.75)),
    "a step masked and another of weight 0": ([[2, 4, 6]], [[0, 1, 1]], [[1, 1, 0]], (3, 4 / 3, 2, 2)),
    "everything masked": ([[1, 2]], None, [[0, 0]], (nan, 0, nan, 0)),
    "all weights zero": ([1, 2], [0, 0], None, (nan, 0, 0, 0)),
    "nothing but the scores": ([[1, 2], [3, 6]], None, None, (3, 3, 3, 3)),
    "one pixel of weight 4": (np.ones((2, 2, 2)), 4.0 * np.eye(8)[0].reshape(2, 2, 2), None, (4, 0.5, 0.5, 0.5)),
    "a weight a sample, on steps": (np.ones((2, 4)), [1, 3], None, (2, 2, 2, None)),
    "the same, as many steps as samples": ([[1, 1], [0, 0]], [1, 3], None, (0.5, 0.5, 0.5, 1)),
    "a weight a sample, on pixels": (np.ones((2, 3, 4)), [1, 3], None, (2, 2, None, None)),
    "the same, as many columns as samples": (
        np.arange(8).reshape(2, 2, 2), [1, 3], None, (9.0, 9.0, 7.5, 7.5),
    ),
    "a column of weights, on steps": (np.ones((2, 4)), [[1], [3]], None, (2, 2, 2, 2)),
    "a column of mask, on samples": ([1, 2, 6], None, [[1], [0], [1]], (3, 7 / 3, 3.5, 3.5)),
    "NaN under weight 0": ([nan, 1], [0, 1], None, (nan, nan, nan, nan)),
    "a loss function that returns one number": (2.0, [1, 0, 2], None, (3, None, None, 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_numbers_by_hand(name):
    score, weight, mask, expected = TABLE[name]
    table = compare(score, weight, mask)
    for row, value in zip(table.rows, expected, strict=True):
        assert (row.value is None) == (value is None), row.regime
        assert value is None or same(row.value, value, 1e-12), row.regime


def test_divide_by_the_sum_of_weights():
    given_ = {"regime": "keras-3", "reduction": "mean_with_sample_weight"}
    assert reduce([0, 4, 4], [0.1, 0, 0.1], **given_).value == pytest.approx(2.0, rel=1e-12)
    assert reduce([0, 4, 4], [0, 0, 0], **given_).value == 0
    # sum(w) is taken before broadcasting: four times the weighted mean
    assert reduce(np.ones((2, 4)), [[1], [3]], **given_).value == 4


def test_steps_carry_shapes_axes_and_divisors():
    result = reduce(np.ones((4, 6)), [1, 0, 2, 1], np.arange(24).reshape(4, 6) % 4 > 0, regime="keras-2.2")
    rows = [(step.op, step.input_shape, step.output_shape, step.axes, step.divisor) for step in result.steps]
    assert rows == [
        ("element loss", (4, 6), (4, 6), ("batch", "step"), None),
        ("multiply", (4, 6), (4, 6), ("batch", "step"), None),
        ("divide", (4, 6), (4, 6), (), 0.75),
        ("mean", (4, 6), (4,), ("step",), 6),
        ("multiply", (4,), (4,), ("batch",), None),
        ("divide", (4,), (4,), (), 0.75),
        ("mean", (4,), (), ("batch",), 4),
    ]
    assert result.divisors == {"mask": 0.75, "mean over step": 6, "weights": 0.75, "mean over batch": 4}
    assert result.divisor == 13.5
    assert result.steps[-2].text == "÷ 0.75, the share of weights that are not 0 (3 of 4)"


def test_axes_and_loss_weight():
    result = reduce([[1, 2, 3]], regime="keras-3", loss_weight=0.5, axes=("image", "pixel"))
    assert result.value == 1
    assert result.steps[-1].text == "× 0.5 (loss weight)" and result.steps[-1].factor == 0.5
    assert result.to_report().by("pixel") == {0: 1 / 6, 1: 1 / 3, 2: 0.5}
    assert reduce([1, 2], regime="keras-2.3", loss_weight=0).value == 0


@pytest.mark.parametrize("regime", REGIMES[1:])
def test_reduction_none_keeps_the_array(regime):
    result = reduce([[1, 2], [3, 4]], [[1, 0], [2, 1]], regime=regime, reduction="none")
    assert result.value.tolist() == [[1, 0], [6, 4]]
    assert str(result).startswith(f"{regime} leaves an array of shape (2, 2)")
    with pytest.raises(ValueError, match=r"left an array of shape \(2, 2\).*reduction='sum_over_batch_size'"):
        result.to_report()


@pytest.mark.parametrize(
    "regime, reduction, said",
    [
        ("keras-2.2", "sum", "reduction='sum' is unknown to keras-2.2 .* always takes the mean"),
        ("keras-2.3", "auto", "reduction='auto' is unknown to keras-2.3 .*'sum_over_batch_size', 'sum', 'none'"),
        ("tf-keras-2.10", "mean_with_sample_weight", "reduction='mean_with_sample_weight' is unknown to tf-keras"),
        ("keras-3", "auto", "reduction='auto' is unknown to keras-3"),
        ("keras-4", "sum", "regime='keras-4' is not a regime. The regimes are 'keras-2.2', 'keras-2.3'"),
    ],
)
def test_unknown_names_are_refused_by_name(regime, reduction, said):
    with pytest.raises(ValueError, match=said):
        reduce([1, 2], regime=regime, reduction=reduction)


@pytest.mark.parametrize(
    "regime, weight, mask, said",
    [
        (
            "keras-2.2",
            (4, 5),
            None,
            r"sample_weight of shape \(4, 5\) does not fit .*\(4, 6\).* shape \(4,\) or \(4, 6\)",
        ),
        ("keras-2.2", None, (4,), r"mask of shape \(4,\) does not fit .*as they are.*Give it the shape \(4, 6\)\."),
        (
            "keras-2.3",
            (4, 6, 2),
            None,
            r"sample_weight .* only a last axis of size 1 is dropped. .*\(4, 1\) or \(4, 6\)",
        ),
        ("keras-2.3", (6,), None, r"sample_weight of shape \(6,\) .*missing axes are added at its end"),
        ("tf-keras-2.10", (5,), None, r"sample_weight of shape \(5,\) .*multiplied as \(5, 1\) with last axes aligned"),
        ("keras-3", (4,), None, r"sample_weight of shape \(4,\) .*no axis is appended to it.*\(4, 1\) or \(4, 6\)"),
        ("keras-3", (4,), (4, 6), r"sample_weight of shape \(4,\) does not fit the mask of shape \(4, 6\)"),
        ("keras-3", None, (4, 5), r"mask of shape \(4, 5\) does not fit the score array of shape \(4, 6\)"),
    ],
)
def test_refusals_name_argument_shapes_rule_and_way_out(regime, weight, mask, said):
    with pytest.raises(ValueError, match=said):
        reduce(
            np.ones((4, 6)),
            None if weight is None else np.ones(weight),
            None if mask is None else np.ones(mask),
            regime=regime,
        )


# --- contributions: exact shares in every regime


def values(shape, **limits):
    elements = st.floats(**{"min_value": -8, "max_value": 8, "width": 32, "allow_subnormal": False} | limits)
    return st.lists(elements, min_size=math.prod(shape), max_size=math.prod(shape)).map(
        lambda flat: np.array(flat, np.float32).reshape(shape)
    )


@st.composite
def calls(draw):
    """Score array, weights and mask: mostly of shapes that fit, also of shapes that do not."""
    shape = tuple(draw(st.lists(st.integers(1, 4), max_size=4)))
    size = st.integers(1, 4)
    shapes = st.sampled_from(
        [shape, shape[:1], (*shape[:1], 1), shape[:2], (*shape, 1), shape[1:], (1,) * len(shape), ()]
    ) | st.lists(size, max_size=4).map(tuple)
    score = draw(values(shape, min_value=0))
    weight = draw(values(draw(shapes)) | values(draw(shapes)).map(np.round)) if draw(st.booleans()) else None
    mask = draw(values(draw(shapes)).map(lambda x: x > -2)) if draw(st.booleans()) else None
    return score, weight, mask


@given(calls(), st.sampled_from(list(regimes._RULES)), st.sampled_from([None, 0.25]))
@settings(max_examples=200, deadline=None)
def test_contributions_sum_to_the_value(call, rules, loss_weight):
    try:
        result = regimes._reduce(*call, rules, loss_weight=loss_weight)
    except ValueError:
        return
    assert result.contributions.shape == call[0].shape
    score, weight, mask = call
    # weights of both signs can cancel: rounding is judged on the scale of what was added up
    positive = regimes._reduce(score, None if weight is None else abs(weight), mask, rules, loss_weight=loss_weight)
    positive.to_report().check()
    scale = np.nan_to_num(positive.value, posinf=0.0)
    assert np.allclose(result.contributions.sum(), result.value, rtol=1e-9, atol=1e-9 * max(1, scale), equal_nan=True)
    for before, after in zip(result.steps, result.steps[1:]):
        assert math.prod(before.output_shape) == math.prod(after.input_shape)
    assert result.steps[-1].output_shape == np.shape(result.value)


@pytest.fixture(scope="module")
def keras_3():
    """Keras 3's own `Loss.__call__`, with a mask on the predictions and a loss function that returns them."""
    import keras
    from keras.src import backend

    class Given(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return y_pred + y_true  # a new tensor: the mask stays on the predictions

    def call(score, weight, mask, reduction):
        y_pred = keras.ops.convert_to_tensor(score)
        if mask is not None:
            backend.set_keras_mask(y_pred, keras.ops.convert_to_tensor(mask))
        loss = Given(reduction=reduction)(np.zeros_like(score), y_pred, weight)
        return keras.ops.convert_to_numpy(loss)

    return call


@given(call=calls(), reduction=st.sampled_from(regimes._REDUCTIONS["keras-3"]))
@settings(max_examples=300, deadline=None)
def test_keras_3_itself(keras_3, call, reduction):
    import tensorflow as tf

    try:
        real = keras_3(*call, reduction)
    except (ValueError, tf.errors.InvalidArgumentError):
        with pytest.raises(ValueError, match="does not fit"):
            reduce(*call, regime="keras-3", reduction=reduction)
        return
    result = reduce(*call, regime="keras-3", reduction=reduction)
    assert np.shape(result.value) == real.shape
    # float32 loses what cancels: the error is judged on the scale of what was added up
    scale = reduce(call[0], None if call[1] is None else abs(call[1]), call[2], regime="keras-3", reduction="sum").value
    size = max(1.0, float(np.sum(scale)))
    if reduction == "mean_with_sample_weight":  # the divisor can cancel too
        total = result.divisor
        if call[1] is not None and abs(total) < 1e-3 * np.abs(call[1]).sum():
            return
        size /= min(1.0, abs(total) or 1.0)
    assert np.allclose(result.value, real, rtol=1e-5, atol=2e-6 * size, equal_nan=True)


# --- compare


@pytest.fixture(scope="module")
def comparisons():
    """(case, index, comparison) of every recorded case with the usual reduction."""
    return [
        (case, k, compare(*tensors(case)))
        for k, case in enumerate(GOLDEN["cases"])
        if case["reduction"] == "sum_over_batch_size"
    ]


def test_compare_on_every_case(comparisons):
    for _, k, table in comparisons:
        reference = table.reference and table[table.reference]
        for row in table.rows:
            recorded = GOLDEN["results"][MEASURED[row.regime]]["direct"][k]
            assert bool(row.refusal) == refused(recorded), (k, row)
            if not row.refusal:
                assert same(row.value, number(recorded)), (k, row)
                assert row.divisor == row.reduction.divisor
                if not row.difference:
                    assert same(row.value, reference.value, 1e-9), (k, table)
        assert max(map(len, str(table).splitlines())) <= 100


def test_notes_on_tf_keras_up_to_2_9(comparisons):
    """There is one wherever tf.keras 2.9 gives another number than Keras 2.3.1, or refuses, or does not."""
    both = 0
    for _, k, table in comparisons:
        old, new = (GOLDEN["results"][name]["direct"][k] for name in ("keras-2.3.1", "tf.keras-2.9"))
        differ = refused(old) != refused(new) or (not refused(old) and not same(number(old), number(new)))
        notes = [note for note in table["keras-2.3"].notes if note.startswith("tf.keras up to 2.9")]
        assert len(notes) == differ, (k, table, old, new)
        both += differ
        if differ and not refused(new):
            assert notes[0].endswith(f"gives {regimes.f.plain(number(new), 6)}."), (notes, new)
    assert both > 50


def plain_words(message):
    """Without the sizes of what `compare` does not know: the last axis of the target, and all of x."""
    message = message.split("'x' sizes")[0]
    return re.sub(r"(input with shape \(.*?), (\d+|\.\.\.)\)", r"\1)", message)


@each_regime
def test_notes_are_what_compile_and_evaluate_did(comparisons, regime):
    """Where evaluate accepts what the wrapper refuses, or the other way round, a note says so, in the same words."""
    results = GOLDEN["results"][MEASURED[regime]]
    order = [k for k, case in enumerate(GOLDEN["cases"]) if case["compiled"]]
    counts = {"refused": 0, "taken": 0, "the same": 0}
    for case, k, table in comparisons:
        target = array(case["y_true"])
        if not case["compiled"] or case["loss"] != "mse" or target.ndim == 1:
            continue  # compare speaks of built-in losses, whose target has an axis more than the score array
        row, modes = table[regime], ["compiled", *(["temporal"] if "temporal" in results else [])]
        recorded = {mode: results[mode][order.index(k)] for mode in modes}
        said = " ".join(row.notes)
        fit = recorded["compiled"]
        if refused(fit) and not row.refusal:
            counts["refused"] += 1
            assert plain_words(words(fit)).rstrip(".") in plain_words(said), (case, words(fit), said)
            temporal = recorded.get("temporal")
            takes = temporal is not None and not refused(temporal)
            way_out = "fit takes these weights only after" if case["sample_weight"] else "After"
            assert (f'{way_out} compile(sample_weight_mode="temporal")' in said) == takes, (case, said)
            if takes:
                assert same(number(temporal), row.value), (case, temporal, row)
        elif not refused(fit):
            counts["the same"] += 1
            assert not row.refusal and same(number(fit), row.value), (case, fit, row)
            own = " ".join(note for note in row.notes if not note.startswith("tf.keras"))
            assert "refuses" not in own, (case, own)
    assert counts["the same"] > 40
    assert counts["refused"] > (40 if regime in REGIMES[:2] else 10)


@pytest.mark.parametrize("regime", ["keras-2.3", "tf-keras-2.10"])
def test_notes_on_loss_functions_that_return_one_number(comparisons, regime):
    """There fit takes weights that the wrapper refuses."""
    results = GOLDEN["results"][MEASURED[regime]]
    order = [k for k, case in enumerate(GOLDEN["cases"]) if case["compiled"]]
    found = 0
    for case, k, table in comparisons:
        if case["compiled"] and case["loss"] == "scalar" and case["mask"] is None and case["sample_weight"]:
            fit, row = results["compiled"][order.index(k)], table[regime]
            if row.refusal and not refused(fit):
                found += 1
                assert f"gives {regimes.f.plain(number(fit), 6)}." in " ".join(row.notes), (fit, row)
    assert found


def test_first_step_that_differs():
    mask, weight = [[1, 0], [1, 1]], [[1, 0], [2, 1]]
    table = compare([[1, 2], [3, 4]], weight, mask)
    assert table.reference == "keras-3"
    assert [row.difference for row in table.rows] == [
        "÷ 0.75, the share of weights that are not 0 (3 of 4)",
        "no ÷ 0.75, the mean of the mask: 3 of 4 are unmasked",
        "",
        "",
    ]
    assert compare([[1, 1, 1]], [1], None)["keras-3"].difference == ""
    wrong_axis = compare([[1, 2], [3, 4]], [1, 3])["tf-keras-2.10"].difference
    assert wrong_axis == "× sample weights (2,) as (2, 1) along batch: 1 … 3"


def test_reference_is_the_newest_that_does_not_refuse():
    table = compare(np.ones((2, 4)), [1, 3])
    assert table.reference == "tf-keras-2.10" and table["keras-3"].value is None
    assert "keras-3: sample_weight of shape (2,) does not fit the score array of shape (2, 4)" in str(table)
    nobody = compare(np.ones((2, 4)), np.ones(5))
    assert nobody.reference == "" and all(row.refusal for row in nobody.rows)
    assert "refused" in str(nobody)
    with pytest.raises(KeyError, match="'keras-4' is not a regime"):
        _ = nobody["keras-4"]


def test_comparison_prints_and_draws():
    table = compare([[1, 2], [3, 4]], [[1, 0], [2, 1]], [[1, 0], [1, 1]])
    lines = str(table).splitlines()
    assert lines[0] == "score array (2, 2), sample weights (2, 2), mask (2, 2)"
    assert [line.split()[0] for line in lines[3:7]] == list(REGIMES)
    drawn = table._repr_html_()
    assert drawn.startswith('<div class="lv">') and "<script" not in drawn and "<table>" in drawn
    assert "sample_weight_mode=&quot;temporal&quot;" in drawn
    for row in table.rows:
        assert f"<th scope=row>{row.regime}</th> <td>{row.value:.4f}</td>" in drawn


# --- the same writers as for explain


def test_writers_take_a_reduction():
    result = reduce([[1, 2], [3, 4]], [1, 0], [[1, 0], [1, 1]], regime="keras-2.2", axes=("batch", "<b>"))
    report = result.to_report()
    assert isinstance(report, Report) and report.total == pytest.approx(result.value)
    assert str(result) == text.render(result) == text.render(report)
    assert all(step_text(step) in str(result) for step in result.steps)
    assert result._repr_html_() == html.render(result)
    assert "&lt;b&gt;" in result._repr_html_() and "<b>, " not in result._repr_html_()
    assert plots.describe(result).startswith("The loss is ")
    for draw in (plots.cascade, plots.waterfall, lambda r: plots.waterfall(r, by="batch")):
        drawn = draw(result)
        assert drawn.get_title(loc="left")
        plt.close(drawn.figure)


@pytest.mark.parametrize("regime", REGIMES)
@pytest.mark.parametrize("score, mask", [(2.0, None), ([1, 2, 3], [[1], [0], [1]]), (np.ones((1, 1)), [[0]])])
def test_writers_take_odd_shapes(regime, score, mask):
    result = reduce(score, None, mask, regime=regime)
    assert str(result) and result._repr_html_()
    plt.close(plots.cascade(result).figure)


# --- epoch


@each_version
def test_every_recorded_epoch(version):
    rules = RULES[version]
    # tf.keras 2.9 reduces as Keras 2.3 does, but reports as later versions do
    regime = "tf-keras-2.10" if rules == "tf-keras-2.9" else rules
    for case, recorded in zip(GOLDEN["epochs"], GOLDEN["results"][version]["epochs"], strict=True):
        size, count = case["batch_size"], len(case["x"])
        sizes = [min(size, count - start) for start in range(0, count, size)]
        losses = number(recorded["batch_losses"])
        x, y = np.array(case["x"], float), np.array(case["y"], float)
        weight = case["sample_weight"]
        for k, loss in enumerate(losses):  # the batch losses are reductions themselves
            rows = slice(k * size, (k + 1) * size)
            own = regimes._reduce((x - y)[rows] ** 2, None if weight is None else weight[rows], None, rules)
            if not np.isnan(
                losses[:k]
            ).any():  # a gradient of NaN has made the weights NaN, even with a learning rate of 0
                assert same(own.value, loss)
        for method in ("fit", "generator"):
            generator = method == "generator" and regime in ("keras-2.2", "keras-2.3")
            result, real = epoch(losses, sizes, regime=regime, fit_generator=generator), recorded[method]
            assert same(result.history, number(real["history"])), (case, method)
            assert same(result.callback, number(real["callback"])), (case, method)
            # the bar prints four decimals
            assert same(round(result.bar, 4), number(real["bar"]), 1e-4), (case, method)
        assert same(epoch(losses, sizes, regime=regime).history, number(recorded["evaluate"])), case


@pytest.mark.parametrize(
    "losses, sizes, regime, generator, history, bar, callback",
    [
        ([0, 1, 4, 9], [1, 1, 1, 1], "keras-2.3", False, 3.5, 3.5, (0, 1, 4, 9)),
        ([0, 1, 4, 9], [1, 1, 1, 1], "keras-3", False, 3.5, 3.5, (0, 0.5, 5 / 3, 3.5)),
        ([1, 4], [2, 1], "keras-2.2", False, 2.0, 2.0, (1, 4)),
        ([1, 4], [2, 1], "keras-2.2", True, 2.0, 7 / 3, (1, 4)),
        ([1, 4], [2, 1], "tf-keras-2.10", False, 2.0, 2.0, (1, 2)),
        ([1, nan], [2, 1], "keras-2.2", False, nan, nan, (1, nan)),
    ],
)
def test_epochs_by_hand(losses, sizes, regime, generator, history, bar, callback):
    result = epoch(losses, sizes, regime=regime, fit_generator=generator)
    assert same(result.history, history) and same(result.bar, bar) and same(result.callback, callback)
    assert same(result.bars[-1], bar) and regime in str(result)


@pytest.mark.parametrize(
    "losses, sizes, options, said",
    [
        ([1, 2], [1], {"regime": "keras-3"}, r"batch_losses has shape \(2,\) and batch_sizes \(1,\)"),
        ([], [], {"regime": "keras-3"}, "at least one"),
        ([1], [0], {"regime": "keras-3"}, "every batch has at least one sample"),
        ([1], [1], {"regime": "keras-3", "fit_generator": True}, "its fit takes generators"),
        ([1], [1], {"regime": "keras"}, "regime='keras' is not a regime"),
    ],
)
def test_epoch_refuses(losses, sizes, options, said):
    with pytest.raises(ValueError, match=said):
        epoch(losses, sizes, **options)


def test_no_tensorflow_needed():
    code = (
        "import sys, lossviz.regimes as r; r.compare([1, 2], [1, 0])._repr_html_();"
        "print(r.reduce([1], regime='keras-3'));"
        "print(sorted({'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert lossviz.regimes is regimes
