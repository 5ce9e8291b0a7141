"""What the steps of a report say: which axis, from which shape to which, divided by what, weighted by what."""

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import (
    DIVIDES_ACTIVITY,
    ON_TENSORFLOW,
    compiled,
    dense,
    inputs,
    labels,
    onehot,
    only_tensorflow,
    sequence,
    targets,
    two_outputs,
    weights,
)

import lossviz

L = keras.losses
SAMPLE_WEIGHTS = np.array([1.0, 0.0, 2.0, 2.0])


def words(report, term=0) -> list[str]:
    term = report.terms[term] if isinstance(term, int) else report.term(term)
    return [step.text for step in term.steps]


def scene():
    """16 images of 256 x 256 pixels and 5 classes: the example that everyone meets first."""
    y, p = np.zeros((16, 256, 256, 5), "float32"), np.full((16, 256, 256, 5), 0.2, "float32")
    y[..., 0] = 1
    return y, p, np.linspace(0, 1.5, 16).reshape(16, 1, 1)


ELEMENTS = "element loss (batch, class): (4,3)"
MEAN_OVER_CLASS = "sum over class: (4,3) → (4,), ÷ 3 = mean"
TABLE = {
    "the five-class scene": (
        ("binary_crossentropy", *scene()),
        [
            "element loss (batch, row, col, class): (16,256,256,5)",
            "sum over class: (16,256,256,5) → (16,256,256), ÷ 5 = mean",
            "× sample_weight (16,1,1) along batch: 0 … 1.5, 1 of 16 are 0",
            "sum over batch, row, col: (16,256,256) → (), ÷ 1 048 576 = mean",
        ],
    ),
    "mean of means": (
        ("mse", targets(4, 3), inputs(4, 3)),
        [ELEMENTS, MEAN_OVER_CLASS, "sum over batch: (4,) → (), ÷ 4 = mean"],
    ),
    "sum": (
        (L.MeanSquaredError(reduction="sum"), targets(4, 3), inputs(4, 3)),
        [ELEMENTS, MEAN_OVER_CLASS, "sum over batch: (4,) → ()"],
    ),
    "none, of which the progress bar shows the mean": (
        (L.MeanSquaredError(reduction="none"), targets(4, 3), inputs(4, 3)),
        [ELEMENTS, MEAN_OVER_CLASS, "sum over batch: (4,) → (), ÷ 4 = mean"],
    ),
    "divided by the sum of the weights": (
        (L.MeanSquaredError(reduction="mean_with_sample_weight"), targets(4, 3), inputs(4, 3), SAMPLE_WEIGHTS),
        [
            ELEMENTS,
            MEAN_OVER_CLASS,
            "× sample_weight (4,) along batch: 0 … 2, 1 of 4 are 0",
            "sum over batch: (4,) → (), ÷ 5",
        ],
    ),
    "crossentropy sums over the classes": (
        ("categorical_crossentropy", onehot(4, classes=3), np.full((4, 3), 1 / 3, "float32")),
        [ELEMENTS, "sum over class: (4,3) → (4,)", "sum over batch: (4,) → (), ÷ 4 = mean"],
    ),
    "crossentropy of logits": (
        (L.SparseCategoricalCrossentropy(from_logits=True), labels(4, classes=3), inputs(4, 3)),
        [ELEMENTS, "sum over class: (4,3) → (4,)", "sum over batch: (4,) → (), ÷ 4 = mean"],
    ),
    "flattened": (
        (lambda y, p: ops.mean(ops.square(ops.reshape(y - p, (-1,)))), targets(4, 3), inputs(4, 3)),
        [f"{ELEMENTS}, flattened to (12,)", "sum over batch, class: (12,) → (), ÷ 12 = mean"],
    ),
    "a number of one's own": (
        (lambda y, p: 0.25 * ops.mean(ops.square(y - p), -1), targets(4, 3), inputs(4, 3)),
        [ELEMENTS, MEAN_OVER_CLASS, "× 0.25", "sum over batch: (4,) → (), ÷ 4 = mean"],
    ),
    "Dice of a sample and a class": (
        (L.Dice(axis=(1, 2)), onehot(2, 4, 4, classes=5), np.full((2, 4, 4, 5), 0.2, "float32")),
        [
            "quotient of sums over row, col",
            "element loss (batch, class): (2,5)",
            "sum over batch, class: (2,5) → (), ÷ 10 = mean",
        ],
    ),
}


@pytest.mark.parametrize("arguments, expected", TABLE.values(), ids=TABLE)
def test_steps_in_words(arguments, expected):
    assert words(lossviz.explain_loss(*arguments)) == expected


@only_tensorflow
def test_a_mean_over_what_a_mask_keeps():
    import tensorflow as tf

    def loss(y, p):
        return ops.mean(tf.boolean_mask(tf.square(y - p), y > 0))

    assert words(lossviz.explain_loss(loss, np.eye(4, 3, dtype="float32"), inputs(4, 3))) == [
        f"{ELEMENTS}, flattened to (12,)",
        "select: (12,) → (3,)",
        "sum over 1 axis: (3,) → (), ÷ 3 = mean",
    ]


WEIGHTED = {
    "one number for the batch": (
        lambda y, p: ops.mean(ops.square(y - p)),
        [
            "sum over batch, row, col, class: (2,4,4,3) → (), ÷ 96 = mean",
            "× sample_weight (2,4,4) along batch, row, col: {range}",
            "sum over batch, row, col: (2,4,4) → (), ÷ 32 = mean",
        ],
    ),
    "a weighted sum over the classes": (
        lambda y, p: ops.einsum("...c,c->...", ops.square(y - p), ops.convert_to_tensor([0.2, 0.3, 0.5])),
        [
            "weighted sum over class: (2,4,4,3) → (2,4,4)",
            "× sample_weight (2,4,4) along batch, row, col: {range}",
            "sum over batch, row, col: (2,4,4) → (), ÷ 32 = mean",
        ],
    ),
}


@pytest.mark.parametrize("loss, expected", WEIGHTED.values(), ids=WEIGHTED)
def test_weights_have_the_axes_of_what_they_weigh(loss, expected):
    weight = weights(2, 4, 4)
    found = words(lossviz.explain_loss(loss, targets(2, 4, 4, 3), inputs(2, 4, 4, 3), weight))
    assert found[1:] == [text.format(range=f"{weight.min():.6g} … {weight.max():.6g}") for text in expected]
    x = keras.Input((4, 4, 3))
    model = compiled(keras.Model(x, layers.Conv2D(3, 1, name="o")(x)), loss)
    assert words(lossviz.explain(model, inputs(2, 4, 4, 3), targets(2, 4, 4, 3), weight))[1:] == found[1:]


def test_weights_have_the_axis_that_they_meet_not_the_one_that_they_were_meant_for():
    class Weighs(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(sample_weight * ops.mean(ops.square(y - y_pred), axis=-1))

    x = keras.Input((2, 4))
    model = compiled(Weighs(x, layers.Dense(3, name="o")(x)))
    report = lossviz.explain(model, inputs(2, 2, 4), targets(2, 2, 3), np.array([1.0, 3.0]))
    assert words(report)[2:] == [
        "× sample_weight (2,) along step: 1 … 3",
        "sum over batch, step: (2,2) → (), ÷ 4 = mean",
    ]


def test_an_axis_that_is_not_known_is_not_named():
    def loss(y, p):  # which rows are left is known to nobody
        errors = ops.square(y - p)
        return ops.sum(ops.take(errors, ops.argsort(errors[:, 0])[:3], axis=0), axis=-1)

    steps = words(lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)))
    assert steps[-1] == "sum over 1 axis: (3,) → (), ÷ 3 = mean"


@pytest.mark.parametrize("name", [name for name in TABLE if name != "the five-class scene"])
def test_the_steps_multiply_to_the_share_of_an_element(name):
    part = lossviz.explain_loss(*TABLE[name][0]).terms[0].parts[0]
    slope = np.ones(())
    for step in part.steps:
        slope = slope * (step.factor or 1.0) / (step.divisor or 1.0)
        if step.op == "multiply" and step.factor is None:
            assert step.axes == ("batch",)
            slope = slope * SAMPLE_WEIGHTS[:, None]
    np.testing.assert_allclose(part.contributions, part.elements * slope, rtol=1e-6, atol=1e-12)


def test_steps_carry_their_numbers():
    elements, mean, weight, total = lossviz.explain_loss("binary_crossentropy", *scene()).terms[0].steps
    assert (elements.op, elements.axes) == ("element loss", ("batch", "row", "col", "class"))
    assert (mean.op, mean.axes, mean.divisor) == ("mean", ("class",), 5.0)
    assert (mean.input_shape, mean.output_shape) == ((16, 256, 256, 5), (16, 256, 256))
    assert (weight.op, weight.axes, weight.divisor) == ("multiply", ("batch",), None)
    assert (total.op, total.axes, total.divisor) == ("mean", ("batch", "row", "col"), 16 * 256 * 256.0)
    assert total.output_shape == ()


def test_a_mask_multiplies_by_steps_over_valid_steps():
    x = inputs(4, 5, 4)
    x[0, 2:] = 0  # 17 of 20 steps are left, and weigh 20/17 each
    model = compiled(sequence(masked=True), "mse")
    assert words(lossviz.explain(model, x, targets(4, 5, 3))) == [
        "element loss (batch, step, class): (4,5,3)",
        "sum over class: (4,5,3) → (4,5), ÷ 3 = mean",
        "× mask (4,5) along batch, step: 0 … 1.17647, 3 of 20 are 0",
        "sum over batch, step: (4,5) → (), ÷ 20 = mean",
    ]
    both = words(lossviz.explain(model, x, targets(4, 5, 3), np.ones((4, 5), "float32")))
    assert both[2].startswith("× sample_weight × mask (4,5) along batch, step: 0 … 1.17647")


def test_loss_weights_come_last():
    model = compiled(two_outputs(), ["mse", "mae"], loss_weights=[0.5, 10.0])
    report = lossviz.explain(model, inputs(6, 4), [targets(6, 3), targets(6, 2)], [weights(6), None])
    assert words(report, "a")[-3:] == [
        "sum over batch: (6,) → (), ÷ 6 = mean",
        "× loss weight 0.5",
        "added to the total",
    ]
    assert words(report, "b")[-2:] == ["× loss weight 10", "added to the total"]
    assert any(text.startswith("× sample_weight (6,) along batch") for text in words(report, "a"))
    assert not any("sample_weight" in text for text in words(report, "b"))


def test_class_weights_are_called_so():
    model = compiled(dense(activation="softmax"), "sparse_categorical_crossentropy")
    report = lossviz.explain(model, inputs(6, 4), labels(6, classes=3), class_weight={2: 9.0})
    assert "× class_weight (6,) along batch: 1 … 9" in words(report)


def test_regularisers_and_added_losses():
    class Adds(layers.Layer):
        def call(self, x):
            self.add_loss(ops.mean(ops.square(x), axis=-1))
            return x

    x = keras.Input((4,))
    hidden = layers.Dense(3, name="o", kernel_regularizer=keras.regularizers.L2(0.5), activity_regularizer="l2")
    report = lossviz.explain(compiled(keras.Model(x, hidden(Adds(name="adds")(x))), "mse"), inputs(6, 4), targets(6, 3))
    assert words(report, "o/kernel") == [
        "element loss (in, out): (4,3)",
        "sum over in, out: (4,3) → ()",
        "× 0.5",
        "added to the total",
    ]
    batch = ["÷ 6"] if DIVIDES_ACTIVITY else []
    assert words(report, "o/activity")[-2 - len(batch) :] == ["× 0.01", *batch, "added to the total"]
    assert words(report, "adds")[1:] == [
        "sum over feature: (6,4) → (6,), ÷ 4 = mean",
        "sum over batch: (6,) → ()",  # Keras sums what is added
        "added to the total",
    ]


def test_several_roads_are_said():
    def loss(y, p):
        squared = ops.square(y - p)
        return ops.mean(squared, -1) + ops.sum(squared, -1)

    assert words(lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3)))[-1] == (
        "these element losses reach the number on 2 roads"
    )


def test_what_cannot_be_read_says_so():
    opaque = lossviz.explain_loss(lambda y, p: ops.sqrt(ops.mean(ops.square(y - p))), targets(4, 3), inputs(4, 3))
    assert f"{'Sqrt' if ON_TENSORFLOW else 'sqrt'} comes after the sums" in opaque.terms[0].parts[0].note
    loop = lossviz.explain_loss(
        lambda y, p: ops.map(lambda e: ops.mean(ops.square(e)), y - p), targets(4, 3), inputs(4, 3)
    )
    assert f"{'While' if ON_TENSORFLOW else 'scan'} cannot be read" in loop.terms[0].parts[0].note
    constant = lossviz.explain_loss(lambda y, p: ops.mean(ops.square(y - p)) + 3.0, targets(4, 3), inputs(4, 3))
    assert words(constant, "constant in lambda") == ["no small change of a prediction or a weight changes it"]
