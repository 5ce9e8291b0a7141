"""The method itself: certification catches a false rule, cuts do not overlap, names mean what they say."""

import contextlib
import gc

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops
from models import believe, inputs, targets

import lossviz
from lossviz.backend import graph
from lossviz.backend.tensorflow_program import TensorFlowProgram
from lossviz.engine import ops as kinds
from lossviz.engine import tail

# -- certification --------------------------------------------------------------------------------------------------

# Each of these comes after a sum; taken for linear, it would be passed, and the cut made above that sum.
FALSE_RULES = {
    "Square": lambda y, p: ops.square(ops.mean(y - p, axis=-1)),
    "Abs": lambda y, p: ops.abs(ops.mean(y - p, axis=-1)),  # |2e| = 2|e|: Euler's identity alone would pass it
    "Relu": lambda y, p: ops.relu(ops.mean(y - p, axis=-1)),
    "Softmax": lambda y, p: ops.softmax(ops.mean(y - p, axis=0)) * ops.arange(3.0),
    "Max": lambda y, p: ops.max(ops.cumsum(y - p, axis=0) + ops.mean(p), axis=-1),
    "Sqrt": lambda y, p: ops.sqrt(ops.mean(ops.square(y - p), axis=-1)),
}


@pytest.mark.parametrize("operation, loss", FALSE_RULES.items(), ids=FALSE_RULES)
def test_an_operation_taken_for_linear_is_caught(operation, loss, monkeypatch):
    honest = lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)).check()
    assert honest.terms[0].parts[0].note != "not certified"
    believe(monkeypatch, operation)
    report = lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)).check()
    assert report.terms[0].exactness == "opaque"
    assert report.terms[0].parts[0].note == "not certified"
    assert report.terms[0].axes == ()
    assert report.total == pytest.approx(honest.total, rel=1e-6)


def test_a_product_of_two_predictions_taken_for_linear_is_caught(monkeypatch):
    def loss(y, p):
        return ops.mean(y - p, axis=-1) * ops.mean(p, axis=-1)

    believe(monkeypatch, "Mul", kinds.ALL)
    report = lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)).check()
    assert (report.terms[0].exactness, report.terms[0].parts[0].note) == ("opaque", "not certified")


def test_one_false_part_leaves_the_other_terms_readable(monkeypatch):
    x = keras.Input((4,))
    a, b = keras.layers.Dense(3, name="a")(x), keras.layers.Dense(3, name="b")(x)
    model = keras.Model(x, [a, b])
    model.compile(loss=[FALSE_RULES["Sqrt"], "mse"], jit_compile=False)
    believe(monkeypatch, "Sqrt")
    report = lossviz.explain(model, inputs(6, 4), [targets(6, 3), targets(6, 3)]).check()
    assert [term.exactness for term in report.terms] == ["opaque", "exact"]
    assert report.term("b").axes == ("batch", "class")


def test_a_compute_loss_that_is_not_linear_is_caught(monkeypatch):
    class Override(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.abs(ops.mean(y - y_pred) - 0.3)  # negative inside, as at 0, but not at 1

    x = keras.Input((4,))
    model = Override(x, keras.layers.Dense(3)(x))
    model.compile(jit_compile=False)
    believe(monkeypatch, "Abs")
    report = lossviz.explain(model, inputs(6, 4), targets(6, 3)).check()
    assert [term.exactness for term in report.terms] == ["opaque"]


# -- custom gradients -----------------------------------------------------------------------------------------------


@tf.custom_gradient
def tripled(x):
    """3x, with the gradient of x: what a gradient reversal layer does, and what the shares must not believe."""
    return 3.0 * x, lambda gradient: gradient


CUSTOM = {
    "after the mean": (lambda y, p: tripled(tf.reduce_mean(tf.square(y - p), -1)), ("batch",)),
    "before the mean": (lambda y, p: tf.reduce_mean(tripled(tf.square(y - p)), -1), ("batch", "class")),
}


@pytest.mark.parametrize("loss, axes", CUSTOM.values(), ids=CUSTOM)
def test_a_custom_gradient_is_not_followed(loss, axes):
    term = lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)).check().terms[0]
    squared = 3 * np.square(targets(4, 3) - inputs(4, 3)) / 12
    assert (term.exactness, term.axes) == ("exact", axes)
    expected = squared if len(axes) == 2 else squared.sum(-1)
    np.testing.assert_allclose(term.contributions, expected, rtol=1e-5)


def test_a_custom_gradient_that_is_followed_is_caught(monkeypatch):
    believe(monkeypatch, "IdentityN", kinds.ALL)
    report = lossviz.explain_loss(CUSTOM["after the mean"][0], targets(4, 3), inputs(4, 3)).check()
    assert (report.terms[0].exactness, report.terms[0].parts[0].note) == ("opaque", "not certified")


# -- random losses --------------------------------------------------------------------------------------------------
# A program is a list of instructions on a growing list of 3 x 3 tensors: y - p, p, then what each instruction makes.
# Three samples and three classes: nothing can be told apart by its size.

ROW, TABLE = np.float32([[1.0, 2.0, 0.5]]), np.float32([[1, 0, 2], [3, 1, 0], [0.5, 1, 1]])

#: The same for every order of the batch, and of the shape (batch, class).
FOR_EVERY_ORDER = {
    "negative": lambda a, b: -a,
    "scaled": lambda a, b: a * 0.3,
    "sum": lambda a, b: a + b,
    "difference": lambda a, b: a - b,
    "weights of classes": lambda a, b: a * ROW,
    "squared": lambda a, b: tf.square(a),
    "absolute": lambda a, b: tf.abs(a),
    "tanh": lambda a, b: tf.tanh(a + b),
    "softplus": lambda a, b: tf.nn.softplus(a),
    "softmax": lambda a, b: tf.nn.softmax(a),
    "product": lambda a, b: tf.tanh(a) * tf.tanh(b),
    "quotient": lambda a, b: a / (1.0 + tf.square(b)),
    "maximum": lambda a, b: tf.maximum(a, b),
    "choice": lambda a, b: tf.where(a > b, a, 0.1 * b),
    "centred on the batch": lambda a, b: a - tf.reduce_mean(a, 0, keepdims=True),
    "centred on the classes": lambda a, b: a - tf.reduce_mean(a, 1, keepdims=True),
    "over its sum": lambda a, b: tf.square(a) / (1.0 + tf.reduce_sum(tf.square(a))),
    "sorted classes": lambda a, b: tf.sort(a, axis=1),
    "there and back": lambda a, b: tf.transpose(tf.transpose(a)),
    "classes turned": lambda a, b: tf.reverse(a, [1]),
    "mixed classes": lambda a, b: tf.matmul(a, TABLE),
    "stopped": lambda a, b: tf.stop_gradient(a) + b,
    "stacked columns": lambda a, b: tf.stack(tf.unstack(a, axis=1), axis=1),
    "halves": lambda a, b: tf.concat([a[:, :1], b[:, 1:]], axis=1),
    "einsum": lambda a, b: tf.einsum("ij,jk->ik", a, tf.constant(TABLE)),
    "running sum": lambda a, b: tf.cumsum(a, axis=1),
}
#: Any others.
ANY = {
    **FOR_EVERY_ORDER,
    "table": lambda a, b: a * TABLE,
    "rows picked": lambda a, b: tf.gather(a, [2, 0, 0]),
    "rows turned": lambda a, b: tf.reverse(a, [0]),
    "rolled": lambda a, b: tf.roll(a, 1, 0),
    "sorted batch": lambda a, b: tf.sort(a, axis=0),
    "masked": lambda a, b: tf.where(TABLE > 0.7, a, b),
    "transposed": lambda a, b: tf.transpose(a),
    "reshaped": lambda a, b: tf.reshape(tf.reshape(a, [9]), [3, 3]),
    "Gram": lambda a, b: tf.matmul(tf.tanh(a), tf.tanh(b), transpose_b=True),
    "split": lambda a, b: tf.concat(tf.split(a, 3, axis=0)[::-1], axis=0),
    "einsum transposed": lambda a, b: tf.einsum("ij->ji", a),
    "padded": lambda a, b: tf.pad(a[:2], [[0, 1], [0, 0]], constant_values=2.0),
}
ENDS = {
    "mean": tf.reduce_mean,
    "sum": lambda a: 0.2 * tf.reduce_sum(a),
    "mean of sums": lambda a: tf.reduce_mean(tf.reduce_sum(a, 1)),
    "sum of means": lambda a: tf.reduce_sum(tf.reduce_mean(a, 0)),
    "sorted batch": lambda a: tf.reduce_sum(tf.sort(a, axis=0)[:2]),
    "norms": lambda a: tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(a), 1) + 1.0)),
    "Gram": lambda a: tf.reduce_mean(tf.square(tf.matmul(a, a, transpose_b=True))),
    "root": lambda a: tf.sqrt(1.0 + tf.reduce_sum(tf.square(a))),
    "one sample's": lambda a: tf.reduce_mean(tf.reduce_max(a, 1)),
    "positive": lambda a: tf.reduce_sum(tf.boolean_mask(a, a > 0)),
}


def programs(instructions: dict, ends: dict):
    steps = st.lists(st.tuples(st.sampled_from(sorted(instructions)), st.integers(0, 9), st.integers(0, 9)), max_size=7)
    terms = st.lists(st.tuples(st.sampled_from(sorted(ends)), st.integers(0, 9)), min_size=1, max_size=4)
    return st.tuples(steps, terms, st.sampled_from([0.0, 0.7]))


def loss_of(program, instructions):
    steps, terms, constant = program

    def loss(y, p):
        made = [y - p, p]
        for name, a, b in steps:
            made.append(instructions[name](made[-1 - a % len(made)], made[-1 - b % len(made)]))
        return tf.add_n([ENDS[name](made[-1 - a % len(made)]) for name, a in terms]) + constant

    return loss


def roads_are_apart(report) -> bool:
    return all("not certified" not in part.note for term in report.terms for part in term.parts)


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(programs(ANY, ENDS))
def test_shares_of_random_losses_sum_to_the_loss(program):
    y, p = targets(3, 3), inputs(3, 3)
    report = lossviz.explain_loss(loss_of(program, ANY), y, p).check()
    parts = [part for term in report.terms for part in term.parts]
    scale = sum(np.abs(part.contributions).sum() for part in parts)
    assert abs(sum(part.contributions.sum() for part in parts) - report.reported) <= 1e-6 * scale
    assert roads_are_apart(report)


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(programs(FOR_EVERY_ORDER, ENDS))
def test_a_share_called_batch_belongs_to_its_sample(program):
    """In another order of the samples, each sample takes its share along; otherwise the axis has a wrong name."""
    y, p, order = targets(3, 3), inputs(3, 3), [2, 0, 1]
    loss = loss_of(program, FOR_EVERY_ORDER)
    one = lossviz.explain_loss(loss, y, p).terms[0]
    other = lossviz.explain_loss(loss, y[order], p[order]).terms[0]
    assert [part.axes for part in one.parts] == [part.axes for part in other.parts]
    for part, turned in zip(one.parts, other.parts):
        for axis in part.axes:
            if axis in ("batch", "batch_2"):
                shares, moved = part.sum_to([axis]), turned.sum_to([axis])
                np.testing.assert_allclose(moved, shares[order], rtol=1e-4, atol=1e-5)


# -- cuts -----------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(programs(ANY, ENDS))
def test_no_cut_lies_on_the_road_of_another(program):
    traced = graph.trace(lambda y, p: loss_of(program, ANY)(y, p), [tf.TensorSpec((3, 3))] * 2)
    lowered = TensorFlowProgram(traced)
    root, p = lowered.value(traced.function.outputs[0]), lowered.feeds[1]
    found = tail.Reader([root], [p]).find_tail(root)
    cuts = {cut.tensor for cut in found.cuts}
    assert len(cuts) == len(found.cuts)
    for cut in found.cuts:
        after = {output for op in cut.path for output in op.outputs}
        assert not after & cuts
    # every road from the root ends at a cut: what is left of the tail without them does not depend on p
    stack, seen, reader = [root], set(), tail.Reader([root], [p])
    while stack:
        value = stack.pop()
        if value in cuts or value in seen or value not in reader.depends:
            continue
        seen.add(value)
        assert value is not p, "a road from the predictions to the loss is not cut"
        stack.extend(value.op.inputs)


# -- views of TensorFlow's buffers, and several functions of one graph ------------------------------------------------


def traced_model():
    model = keras.Sequential([keras.layers.Dense(64, activation="relu"), keras.layers.Dense(3)])
    model.build((None, 4))
    made = []

    def compute(x):
        made.extend([x, model.layers[0](x), model(x)])
        return tf.reduce_sum(made[-1])

    trace = graph.trace(compute, [tf.TensorSpec((512, 4), tf.float32)])
    return model, trace, [*made, trace.function.outputs[0]]


def test_what_a_run_returned_is_read_only_and_stays_while_later_runs_come_and_go():
    """The arrays are views: each keeps its buffer alive, and no later operation writes into it."""
    _, trace, tensors = traced_model()
    program = graph.Program(trace, tensors)
    rerun = graph.Rerun([tensors[-1]], [tensors[1]], [tensors[2]])
    kept = []
    for seed in range(40):
        x = np.random.default_rng(seed).normal(size=(512, 4)).astype("float32")
        found = list(program([x]).values())
        given = x.copy()
        x[:] = np.nan  # the caller's own array is his again
        rerun([found[2] if feed is tensors[2] else found[1] for feed in rerun.feeds])
        kept.append((given, found, [array.copy() for array in found]))
        del x
    del program, rerun, trace, tensors
    gc.collect()
    for given, views, copies in kept:
        np.testing.assert_array_equal(views[0], given)
        for view, copied in zip(views, copies, strict=True):
            np.testing.assert_array_equal(view, copied)
            if view.ndim:
                assert not view.flags.writeable
                with pytest.raises(ValueError, match="read-only"):
                    view[0] = 0.0


def test_functions_of_one_graph_keep_their_own_outputs():
    """Each is made while the graph says that its outputs are others, and the graph says what it said again."""
    model, trace, (x, hidden, predicted, total) = traced_model()
    before = trace.graph.outputs, trace.graph.structured_outputs
    one, other = graph.Program(trace, [hidden]), graph.Program(trace, [total, predicted, x])
    assert (trace.graph.outputs, trace.graph.structured_outputs) == before
    data = inputs(512, 4)
    truth = [model.layers[0](data).numpy(), model(data).numpy()]
    for tape in (contextlib.nullcontext(), tf.GradientTape(persistent=True)):
        with tape:  # which would have TensorFlow make other functions, with a gradient
            for _ in range(2):
                (first,) = one([data]).values()
                second = other([data])
                np.testing.assert_allclose(first, truth[0], rtol=1e-5, atol=1e-6)
                assert list(second) == [total.ref(), predicted.ref(), x.ref()]
                np.testing.assert_allclose(second[predicted.ref()], truth[1], rtol=1e-5, atol=1e-6)
                np.testing.assert_array_equal(second[x.ref()], data)
                np.testing.assert_allclose(trace.run([hidden], [x], [data])[0], truth[0], rtol=1e-5, atol=1e-6)


def test_a_function_that_cannot_be_made_leaves_the_outputs_of_the_graph(monkeypatch):
    _, trace, (_, hidden, _, _) = traced_model()
    before = trace.graph.outputs, trace.graph.structured_outputs
    monkeypatch.setattr(type(trace.function), "__init__", lambda *args, **options: pytest.fail("no function"))
    with pytest.raises(pytest.fail.Exception):
        graph.Program(trace, [hidden])
    assert (trace.graph.outputs, trace.graph.structured_outputs) == before


@pytest.mark.parametrize("which", ["all", "inside"])
def test_a_part_of_a_graph_gives_what_the_whole_gives(which):
    _, trace, (x, hidden, predicted, total) = traced_model()
    data = inputs(512, 4)
    values = trace.run([hidden, predicted, total], [x], [data])
    feeds = {"all": ([x], [data]), "inside": ([x, predicted], [data, values[1]])}[which]
    assert trace.run([total], *feeds)[0] == pytest.approx(values[2], rel=1e-6)
    fed = np.array([1.0, 2.0, 3.0]) * np.ones((512, 1))
    again = trace.run([predicted, total], [x, predicted], [data, fed])
    np.testing.assert_allclose(again[0], fed)
    assert again[1] == pytest.approx(fed.sum(), rel=1e-6)
    np.testing.assert_array_equal(trace.run([x], [x], [data])[0], data)  # a fetch that is a feed, and nothing else
    copied = graph._part([total], feeds[0])
    assert (copied is None) == (which == "all")  # which needs the weights
