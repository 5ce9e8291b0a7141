"""One clear error for bad input: it names the argument, the shapes and the way out, and nothing is changed by it."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import (
    ON_TENSORFLOW,
    compiled,
    dense,
    inputs,
    labels,
    on_another_backend,
    onehot,
    only_tensorflow,
    pixels,
    sequence,
    targets,
    two_outputs,
    weights,
)

import lossviz

X, Y = inputs(6, 4), targets(6, 3)
SCENE, MASKS = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5)


def mse():
    return compiled(dense(), "mse")


def segmentation(loss="categorical_crossentropy"):
    return compiled(pixels(5, "softmax"), loss)


def subclass():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.o = layers.Dense(3)

        def call(self, x):
            return self.o(x)

    return compiled(Two(), "mse")


def python_if(y, p):
    return ops.mean(y) if ops.mean(y) > 0 else ops.mean(p)


def numpy_inside(y, p):
    return ops.convert_to_tensor(float(np.mean(np.square(y.numpy() - p.numpy()))))


def no_loss_here():
    class Trains(keras.Model):
        def train_step(self, data):
            return {"loss": 0.0}

    return compiled(dense(kind=Trains))


BOTH = [targets(6, 3), targets(6, 2)]

# What is called, and words that the message must have, in this order.
BAD = {
    # the model
    "not a model": (lambda: lossviz.explain("model", X, Y), ["model must be a keras.Model", "got str"]),
    "not compiled": (
        lambda: lossviz.explain(dense(), X, Y),
        ["is not compiled", "model.compile(loss=...)", "explain_loss"],
    ),
    "no loss": (
        lambda: lossviz.explain(no_loss_here(), X, Y),
        ["has no loss", "Pass loss=... to compile", "compute_loss"],
    ),
    "a Python if in the loss": (
        lambda: lossviz.explain(compiled(dense(), python_if), X, Y),
        ["the loss of model", "cannot be traced", "Python `if`", "keras.ops"],
    ),
    "numpy in the loss": (
        lambda: lossviz.explain(compiled(dense(), numpy_inside), X, Y),
        ["the loss of model", "cannot be traced", ".numpy()", "keras.ops"],
    ),
    "numpy in a loss alone": (
        lambda: lossviz.explain_loss(numpy_inside, Y, Y),
        ["loss 'numpy_inside'", "cannot be traced", "keras.ops"],
    ),
    # x
    "x is None": (lambda: lossviz.explain(mse(), None, Y), ["x is None", "model.test_on_batch(x, y)"]),
    "x does not fit": (
        lambda: lossviz.explain(mse(), inputs(6, 5), Y),
        ["x does not fit model", "x (6, 5)", "Its input is (None, 4)"],
    ),
    "x does not fit a subclass": (
        lambda: lossviz.explain(compiled_and_used(), inputs(6, 5), Y),
        ["x does not fit model", "x (6, 5)"],
    ),
    "x is empty": (lambda: lossviz.explain(mse(), inputs(0, 4), targets(0, 3)), ["x holds no samples"]),
    "x is ragged": (lambda: lossviz.explain(mse(), [[1.0, 2.0], [3.0]], Y), ["x", "shape"]),
    "x holds objects": (
        lambda: lossviz.explain(mse(), np.array([[None] * 4] * 6), Y),
        ["x is not an array of numbers", "dtype object"],
    ),
    "x has numbers that Keras has not": (
        lambda: lossviz.lint(mse(), X.astype(np.longdouble), Y),
        ["x has dtype float", "which Keras does not know", 'x.astype("float32")'],
    ),
    "no weights": (
        lambda: lossviz.explain(mse(), X, Y, np.ones((6, 0)), batch_size=1),
        ["sample_weight has shape (6, 0), so it holds no weight", "shape (6,)"],
    ),
    # y
    "y is text": (
        lambda: lossviz.explain(mse(), X, np.array(["cat"] * 6)),
        ["y holds text, such as 'cat', and a loss takes numbers", "np.unique(y, return_inverse=True)[1]"],
    ),
    "y is bytes": (lambda: lossviz.lint(mse(), X, [b"cat"] * 6), ["y holds text, such as"]),
    "y is text, in batches": (
        lambda: lossviz.explain(mse(), X, ["a"] * 6, batch_size=2),
        ["y holds text, such as 'a'"],
    ),
    "y holds objects": (
        lambda: lossviz.find_nonfinite(mse(), X, np.array([{}] * 6)),
        ["y is not an array of numbers (dtype object; it holds a value of type dict)", "their integers"],
    ),
    "y is dates": (
        lambda: lossviz.explain(mse(), X, np.array(["2020-01-01"] * 6, "datetime64[D]")),
        ["y has dtype datetime64[D], which Keras does not know", "np.timedelta64(1, 'D')"],
    ),
    "y is a record": (
        lambda: lossviz.explain(mse(), X, np.zeros(6, [("a", "f4")])),
        ["which Keras does not know", "y['a']"],
    ),
    "y_true is text": (
        lambda: lossviz.explain_loss("mse", np.array([["a"]]), np.ones((1, 1))),
        ["y_true holds text, such as 'a'"],
    ),
    "y is missing": (lambda: lossviz.explain(mse(), X), ["y is missing", "o (6, 3)", "explain(model, x, y)"]),
    "y has other samples": (
        lambda: lossviz.explain(mse(), X, targets(5, 3)),
        ["y has 5 samples", "(5, 3)", "x has 6", "same number"],
    ),
    "y has other columns": (
        lambda: lossviz.explain(mse(), X, targets(6, 2)),
        ["y does not fit the outputs", "y (6, 2)", "o (6, 3)", "Targets have the shape"],
    ),
    "two targets for one output": (
        lambda: lossviz.explain(mse(), X, [Y, Y]),
        ["y holds 2 target(s)", "1 output(s): o (6, 3)", "Pass one target per output"],
    ),
    "one target for two outputs": (
        lambda: lossviz.explain(compiled(two_outputs(), "mse"), X, Y),
        ["y holds 1 target(s)", "2 output(s): a (6, 3); b (6, 2)"],
    ),
    "one target for two outputs of one layer": (
        lambda: lossviz.explain(one_layer_twice(), [X, X], Y),
        ["y holds 1 target(s)", "2 output(s): o (6, 3); o_2 (6, 3)"],
    ),
    "labels beyond the classes": (
        lambda: lossviz.explain(segmentation("sparse_categorical_crossentropy"), SCENE, labels(2, 4, 4, classes=5) + 1),
        ["y does not fit output 'o'", "labels from 1 to 5", "5 classes (0 to 4)"],
    ),
    # sample_weight
    "weights one a sample on steps": (
        lambda: lossviz.explain(compiled(sequence(), "mse"), inputs(6, 5, 4), targets(6, 5, 3), weights(6)),
        [
            "Keras refuses sample_weight",
            "'o' has shape (6,)",
            "values of shape (6, 5)",
            "last",
            "(6, 1)",
            "weights.reshape(6, 1)",
        ],
    ),
    "weights one an image on pixels": (
        lambda: lossviz.explain(segmentation(), SCENE, MASKS, weights(2)),
        ["sample_weight", "has shape (2,)", "(2, 4, 4)", "weights.reshape(2, 1, 1)"],
    ),
    "weights one an element": (
        lambda: lossviz.explain(mse(), X, Y, weights(6, 3)),
        ["Keras refuses sample_weight", "'o' has shape (6, 3)", "weights need shape (6,)"],
    ),
    "weights of other samples": (
        lambda: lossviz.explain(mse(), X, Y, weights(5)),
        ["sample_weight has 5 samples", "x has 6"],
    ),
    "weights a single number": (
        lambda: lossviz.explain(mse(), X, Y, np.float32(2.0)),
        ["sample_weight holds a single number", "shape (batch, ...)"],
    ),
    "weights for one of two": (
        lambda: lossviz.explain(compiled(two_outputs(), "mse"), X, BOTH, [weights(6)]),
        ["sample_weight holds 1 entries", "y holds 2", "may hold None"],
    ),
    "weights of the second output": (
        lambda: lossviz.explain(compiled(two_outputs(), "mse"), X, BOTH, [weights(6), weights(6, 2)]),
        ["Keras refuses sample_weight", "'b' has shape (6, 2)", "weights need shape (6,)"],
    ),
    # class_weight
    "class_weight and sample_weight": (
        lambda: lossviz.explain(mse(), X, Y, weights(6), class_weight={0: 1.0}),
        ["class_weight and sample_weight cannot be given together", "Multiply"],
    ),
    "class_weight on pixels": (  # T16
        lambda: lossviz.explain(segmentation(), SCENE, MASKS, class_weight={4: 1000.0}),
        ["class_weight", "y has shape (2, 4, 4, 5)", "sample_weight = np.array([w0, w1, ...])[y.argmax(-1)]"],
    ),
    "class_weight on two outputs": (
        lambda: lossviz.explain(compiled(two_outputs(), "mse"), X, BOTH, class_weight={0: 1.0}),
        ["class_weight works for models with one output", "sample_weight array per output"],
    ),
    "class_weight in a list": (
        lambda: lossviz.explain(mse(), X, Y, class_weight=[1.0, 2.0]),
        ["class_weight must be a dictionary", "got list"],
    ),
    # names
    "too many axes": (
        lambda: lossviz.explain(mse(), X, Y, axes=("batch", "row", "col", "class")),
        ["axes=", "4 names", "o (6, 3)"],
    ),
    "axes twice": (
        lambda: lossviz.explain(mse(), X, Y, axes=("batch", "batch")),
        ["axes=", "output 'o', shape (6, 3)", "2 different names", "('batch', 'class')"],
    ),
    "axes in a string": (
        lambda: lossviz.explain(mse(), X, Y, axes="batch"),
        ["axes='batch'", "one string", "sequence of names"],
    ),
    "axes of an unknown output": (
        lambda: lossviz.explain(mse(), X, Y, axes={"p": ("batch", "class")}),
        ["axes names output 'p'", "['o']"],
    ),
    "too few class_names": (
        lambda: lossviz.explain(mse(), X, Y, class_names=["a", "b"]),
        ["class_names=", "2 names", "o (6, 3)"],
    ),
    "too few class_names for an output": (
        lambda: lossviz.explain(mse(), X, Y, class_names={"o": ["a", "b"]}),
        ["class_names has 2 names", "output 'o' has shape (6, 3)", "give 3 different names"],
    ),
    # the report
    "by an unknown axis": (lambda: lossviz.explain(mse(), X, Y).by("row"), ["'row'", "o (batch=6, class=3)"]),
    "by an axis of several terms": (
        lambda: lossviz.explain(compiled(two_outputs(), "mse"), X, BOTH).by("class"),
        ["several terms have axis 'class'", "['a', 'b']", "term='a'"],
    ),
    "by label without classes": (lambda: lossviz.explain(mse(), X, Y).by_label(), ["true class", "['o']"]),
    # explain_loss
    "a class for a loss": (
        lambda: lossviz.explain_loss(keras.losses.MeanSquaredError, Y, Y),
        ["loss is the class MeanSquaredError", "MeanSquaredError()"],
    ),
    "an unknown name": (lambda: lossviz.explain_loss("square", Y, Y), ["square"]),
    "a number for a loss": (lambda: lossviz.explain_loss(3, Y, Y), ["3"]),
    "other shapes": (
        lambda: lossviz.explain_loss("binary_crossentropy", targets(6, 2), Y),
        ["binary_crossentropy", "y_true (6, 2)", "y_pred (6, 3)"],
    ),
    "weights on other axes": (
        lambda: lossviz.explain_loss("mse", targets(2, 4, 3), inputs(2, 4, 3), weights(2)),
        ["sample_weight has shape (2,)", "values of shape (2, 4)", "(2, 1)"],
    ),
}


def compiled_and_used():
    model = subclass()
    model.predict_on_batch(X)
    return model


def one_layer_twice():
    x, z, o = keras.Input((4,)), keras.Input((4,)), layers.Dense(3, name="o")
    return compiled(keras.Model([x, z], [o(x), o(z)]), ["mse", "mae"])


if not ON_TENSORFLOW:  # JAX takes them: a finding tells
    del BAD["labels beyond the classes"]


@pytest.mark.parametrize("call, words", BAD.values(), ids=BAD)
def test_the_message_names_the_argument_and_the_way_out(call, words):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    place = 0
    for word in words:
        assert word in message[place:], message
        place = message.index(word, place)
    assert "\n" not in message.strip(), "one paragraph"
    assert len(message) < 1000


WRONG = {
    "x": lambda model: lossviz.explain(model, inputs(6, 5), Y),
    "y": lambda model: lossviz.explain(model, X, targets(6, 2)),
    "number of targets": lambda model: lossviz.explain(model, X, [Y, Y]),
    "weights": lambda model: lossviz.explain(model, X, Y, weights(6, 2)),
    "axes": lambda model: lossviz.explain(model, X, Y, axes=("one",)),
}


# a subclass takes the shape of the first x that it sees for the right one
FRESH = {f"{wrong}, {make.__name__}": (make, wrong) for make in (mse, subclass) for wrong in WRONG}
del FRESH["x, subclass"]


@pytest.mark.parametrize("make, wrong", FRESH.values(), ids=FRESH)
def test_a_fresh_model_works_after_the_error(make, wrong):
    """Keras builds metrics and losses with the first batch it sees; a bad one must not leave half of that behind."""
    keras.utils.set_random_seed(1)
    model = make()
    with pytest.raises(ValueError):
        WRONG[wrong](model)
    report = lossviz.explain(model, X, Y).check()
    assert report.reported == pytest.approx(model.evaluate(X, Y, verbose=0), rel=1e-6)


@pytest.mark.parametrize("where", ["x", "y", "sample_weight"])
def test_nan_is_explained_and_located_not_refused(where):
    x, y, w = X.copy(), Y.copy(), np.ones(6, "float32")
    {"x": x, "y": y, "sample_weight": w}[where][2] = np.nan
    report = lossviz.explain(mse(), x, y, w).check()
    word = {"x": "x", "y": "y_true"}.get(where, where)
    assert np.isnan(report.reported) and np.isnan(report.total)
    assert any(note.startswith(f"{word} holds a value that is not finite, first at index (2") for note in report.notes)
    assert [sample for sample, share in report.by("batch").items() if np.isnan(share)] == [2]
    if where != "sample_weight":
        assert "first at batch 2, class 0" in report.terms[0].parts[0].note


def test_nan_that_the_loss_makes_itself_is_located():
    y = np.full((6, 3), 0.5, "float32")
    p = np.full((6, 3), 0.5, "float32")
    p[4, 1] = 0.0
    report = lossviz.explain_loss(lambda y, p: ops.mean(p * ops.log(p), -1), y, p).check()
    assert np.isnan(report.total)
    assert report.terms[0].parts[0].note == "1 of 18 element losses are not finite, first at batch 4, class 1"
    assert report.notes == ()  # the input is clean


def test_a_weight_of_zero_does_not_hide_nan():  # T9: a weight is not a mask
    y = Y.copy()
    y[0] = np.nan
    report = lossviz.explain(mse(), X, y, np.array([0, 1, 1, 1, 1, 1.0])).check()
    assert np.isnan(report.total)
    assert np.isnan(report.by("batch")[0])


def test_infinity_is_explained():
    y = Y.copy()
    y[3, 1] = np.inf
    report = lossviz.explain(mse(), X, y).check()
    assert report.total == report.reported == np.inf
    assert report.by("class")[1] == np.inf and np.isfinite(report.by("class")[0])


@only_tensorflow
def test_a_mean_over_nothing_is_opaque():
    import tensorflow as tf

    report = lossviz.explain_loss(lambda y, p: tf.reduce_mean(tf.boolean_mask(tf.square(y - p), y > 99)), Y, Y).check()
    assert np.isnan(report.total)
    assert report.terms[0].exactness == "opaque"
    assert "a mean over nothing" in report.terms[0].parts[0].note


@only_tensorflow
def test_several_replicas_are_refused():
    model = mse()

    class Strategy:
        num_replicas_in_sync = 2

    model._distribute_strategy = Strategy()
    with pytest.raises(ValueError, match=r"distributed over 2 replicas.*outside the strategy's scope"):
        lossviz.explain(model, X, Y)


CALLS = {
    "explain": "lossviz.explain(None, None)",
    "explain_loss": "lossviz.explain_loss('mse', [0.0], [1.0])",
    "lint": "lossviz.lint(None, None)",
    "find_nonfinite": "lossviz.find_nonfinite(None, None)",
}


@pytest.mark.parametrize("function", CALLS)
def test_another_backend_is_told_which_ones_can_be_read(function, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    expected = rf"lossviz\.{function} reads.*runs on 'torch'.*KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax"
    with pytest.raises(RuntimeError, match=expected):
        eval(CALLS[function])


def test_where_tensorflow_is_not_installed_it_is_asked_for_in_the_call_and_not_before():
    found = on_another_backend(f"""
        import lossviz, lossviz.nonfinite, lossviz.callbacks
        for call in {list(CALLS.values())}:
            try:
                eval(call)
            except RuntimeError as error:
                print(error)
    """)
    assert found.count("runs on 'torch'") == found.count("KERAS_BACKEND=tensorflow") == len(CALLS)
