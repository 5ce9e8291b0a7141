"""Shares against NumPy: each expected share is written out from the definition of the loss, not from the graph."""

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
    pixels,
    sequence,
    targets,
    two_outputs,
    weights,
)

import lossviz

if ON_TENSORFLOW:
    import tensorflow as tf
else:
    import jax.numpy as jnp

CLOSE = {"rtol": 1e-5, "atol": 1e-8}


def mean_where(values, mask):
    """The mean of the values that the mask keeps."""
    return ops.mean(tf.boolean_mask(values, mask)) if ON_TENSORFLOW else jnp.mean(values, where=mask)


def values(shares: dict) -> np.ndarray:
    return np.array(list(shares.values()))


def bce(y, p):
    return -(y * np.log(p) + (1 - y) * np.log(1 - p))


def log_softmax(z):
    return z - np.log(np.sum(np.exp(z), axis=-1, keepdims=True))


def predicted(model, x) -> np.ndarray:
    return model.predict_on_batch(x).astype(np.float64)


# -- classes --------------------------------------------------------------------------------------------------------


def test_five_classes_binary_crossentropy_with_pixel_weights():
    model = compiled(pixels(5, "sigmoid"), "binary_crossentropy")
    x, y, w = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5), weights(2, 4, 4)
    report = lossviz.explain(model, x, y, w, class_names=["a", "b", "c", "d", "e"])
    by_hand = (w[..., None] * bce(y, predicted(model, x))).sum(axis=(0, 1, 2)) / (5 * w.size)
    assert list(report.by("class")) == ["a", "b", "c", "d", "e"]
    np.testing.assert_allclose(values(report.by("class")), by_hand, **CLOSE)


def test_five_classes_by_the_true_class_of_the_pixel():
    model = compiled(pixels(5, "sigmoid"), "binary_crossentropy")
    x, y, w = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5), weights(2, 4, 4)
    shares = (w[..., None] * bce(y, predicted(model, x))).sum(axis=-1) / (5 * w.size)
    by_hand = [shares[y.argmax(-1) == c].sum() for c in range(5)]
    np.testing.assert_allclose(values(lossviz.explain(model, x, y, w).by_label()), by_hand, **CLOSE)


def test_a_weight_of_a_thousand_on_one_class():
    w = np.where(labels(2, 4, 4, classes=5) == 4, 1000.0, 1.0)
    model = compiled(pixels(5, "softmax"), "categorical_crossentropy")
    x, y = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5)
    loss = -np.log(predicted(model, x)[y == 1])
    label = labels(2, 4, 4, classes=5).reshape(-1)
    by_hand = [np.sum(loss[label == c]) * (1000 if c == 4 else 1) / 32 for c in range(5)]
    np.testing.assert_allclose(values(lossviz.explain(model, x, y, w).by_label()), by_hand, **CLOSE)


@pytest.mark.parametrize("sparse", [False, True])
def test_crossentropy_of_logits_has_its_classes_back(sparse):  # TensorFlow computes it in one operation on (N, C)
    kind = keras.losses.SparseCategoricalCrossentropy if sparse else keras.losses.CategoricalCrossentropy
    z, label = targets(2, 3, 4), labels(2, 3, classes=4)
    y = label if sparse else np.eye(4, dtype="float32")[label]
    report = lossviz.explain_loss(kind(from_logits=True), y, z)
    shares = -np.eye(4)[label] * log_softmax(z.astype(np.float64)) / 6
    np.testing.assert_allclose(report.terms[0].contributions, shares, **CLOSE)
    np.testing.assert_allclose(values(report.by("class")), shares.sum((0, 1)), **CLOSE)
    np.testing.assert_allclose(values(report.by_label()), shares.sum((0, 1)), **CLOSE)  # only the true class costs


def test_smoothed_labels_put_a_share_on_every_class():
    z, y = targets(6, 3), onehot(6, classes=3)
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3)
    by_hand = (-(0.7 * y + 0.1) * log_softmax(z.astype(np.float64))).sum(0) / 6
    np.testing.assert_allclose(values(lossviz.explain_loss(loss, y, z).by("class")), by_hand, **CLOSE)


def test_an_ignored_class_has_no_share_and_does_not_count():
    z, label = targets(6, 3), np.array([0, 1, -1, 2, -1, 1])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1)
    report = lossviz.explain_loss(loss, label, z)
    kept = label >= 0
    by_hand = np.where(kept, -log_softmax(z.astype(np.float64))[np.arange(6), label], 0) / kept.sum()
    np.testing.assert_allclose(values(report.by("batch")), by_hand, **CLOSE)
    assert report.by_label()["(no class)"] == 0


# -- weights and masks ----------------------------------------------------------------------------------------------


def test_masked_steps_have_no_share_and_valid_steps_divide():
    x, y = inputs(4, 5, 4), targets(4, 5, 3)
    x[0, 2:] = x[2, 4:] = 0
    valid = np.any(x != 0, axis=-1)
    model = compiled(sequence(masked=True), "mse")
    report = lossviz.explain(model, x, y)
    by_hand = np.square(y - predicted(model, x)).mean(-1) * valid / valid.sum()
    shares = report.terms[0].contributions.sum(-1)
    np.testing.assert_allclose(shares, by_hand, **CLOSE)
    assert np.all(shares[~valid] == 0)
    assert valid.sum() == 16


def test_a_mask_and_weights():  # divided by the number of valid steps, not by the weights
    x, y, w = inputs(4, 5, 4), targets(4, 5, 3), weights(4, 5)
    x[0, 2:] = 0
    valid = np.any(x != 0, axis=-1)
    model = compiled(sequence(masked=True), "mse")
    by_hand = np.square(y - predicted(model, x)).mean(-1) * valid * w / valid.sum()
    np.testing.assert_allclose(lossviz.explain(model, x, y, w).terms[0].contributions.sum(-1), by_hand, **CLOSE)


def test_a_mask_given_to_explain_loss():
    y, p, mask = targets(2, 3, 2), inputs(2, 3, 2), np.array([[True, False, True], [True, True, False]])
    report = lossviz.explain_loss("mae", y, p, mask=mask)
    by_hand = np.abs(y - p).mean(-1) * mask / 4
    np.testing.assert_allclose(report.terms[0].contributions.sum(-1), by_hand, **CLOSE)


def test_weights_of_samples_on_steps():
    y, p, w = targets(4, 5, 3), inputs(4, 5, 3), weights(4, 1)
    by_hand = (w[..., None] * np.square(y - p)) / (3 * 20)
    report = lossviz.explain_loss("mse", y, p, w)
    np.testing.assert_allclose(report.terms[0].contributions, by_hand, **CLOSE)
    np.testing.assert_allclose(values(report.by("step")), by_hand.sum((0, 2)), **CLOSE)


def test_weights_that_land_on_the_wrong_axis():  # T1: (B,) on (B, T) with B = T weighs the steps
    y, p = np.zeros((2, 2, 1), "float32"), np.array([[[1.0], [1.0]], [[2.0], [2.0]]], "float32")
    report = lossviz.explain_loss("mse", y, p, np.array([1.0, 0.0], "float32"))
    assert report.by("step") == {0: 1.25, 1: 0.0}
    assert report.by("batch") == {0: 0.25, 1: 1.0}


def test_a_divisor_that_is_the_sum_of_unspread_weights():  # T2: weights (B,1) of 1 on losses (B,3) of 1 give 3
    y, p = np.zeros((2, 3, 1), "float32"), np.ones((2, 3, 1), "float32")
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    report = lossviz.explain_loss(loss, y, p, np.ones((2, 1), "float32"))
    assert report.total == 3
    assert set(report.by(("batch", "step")).values()) == {0.5}


def test_scalar_loss_takes_the_mean_of_the_weights():  # T4: weights cannot act on samples any more
    y, p = np.zeros((2, 2), "float32"), np.array([[2.0, 3.0], [0.0, 1.0]], "float32")
    report = lossviz.explain_loss(lambda y, p: ops.mean(ops.square(y - p)), y, p, np.array([1.0, 0.0], "float32"))
    assert report.by("batch") == {0: 13 / 8, 1: 1 / 8}  # sample 1 has weight 0, and a share


# -- terms ----------------------------------------------------------------------------------------------------------


def test_two_outputs_with_loss_weights():
    model = compiled(two_outputs(), ["mse", "categorical_crossentropy"], loss_weights=[0.5, 10.0])
    x, y = inputs(6, 4), [targets(6, 3), onehot(6, classes=2)]
    a, b = (p.astype(np.float64) for p in model.predict_on_batch(x))
    report = lossviz.explain(model, x, y)
    np.testing.assert_allclose(values(report.by("class", term="a")), 0.5 * np.square(y[0] - a).mean(0) / 3, **CLOSE)
    np.testing.assert_allclose(values(report.by("class", term="b")), 10 * -(y[1] * np.log(b)).sum(0) / 6, **CLOSE)
    assert (report.term("b").loss_weight, report.term("a").loss_weight) == (10.0, 0.5)
    np.testing.assert_allclose(report.term("b").value, -(y[1] * np.log(b)).sum() / 6, **CLOSE)
    samples = 0.5 * np.square(y[0] - a).mean(-1) / 6 - 10 * (y[1] * np.log(b)).sum(-1) / 6
    assert dict(report.top(2)) == pytest.approx({k: samples[k] for k in np.argsort(-samples)[:2]}, rel=1e-5)


def test_regularisers_by_element():
    model = dense(kernel_regularizer=keras.regularizers.L2(0.1), bias_regularizer=keras.regularizers.L1(0.2))
    compiled(model, "mse")
    model.layers[-1].set_weights([inputs(4, 3), np.array([1.0, -2.0, 0.0])])
    report = lossviz.explain(model, inputs(6, 4), targets(6, 3))
    np.testing.assert_allclose(report.term("o/kernel").contributions, 0.1 * np.square(inputs(4, 3)), **CLOSE)
    np.testing.assert_allclose(report.term("o/bias").contributions, [0.2, 0.4, 0.0], **CLOSE)
    np.testing.assert_allclose(values(report.by("out", term="o/kernel")), 0.1 * np.square(inputs(4, 3)).sum(0), **CLOSE)


def test_activity_regulariser_is_divided_by_the_batch():  # since Keras 3.14
    model = compiled(dense(activity_regularizer=keras.regularizers.L2(0.3)), "mse")
    x = inputs(6, 4)
    report = lossviz.explain(model, x, targets(6, 3))
    by_hand = 0.3 * np.square(predicted(model, x)) / (6 if DIVIDES_ACTIVITY else 1)
    np.testing.assert_allclose(report.term("o/activity").contributions, by_hand, **CLOSE)


def test_an_added_vector_is_summed():  # T7: it grows with the batch
    class Adds(layers.Layer):
        def call(self, x):
            self.add_loss(ops.mean(ops.square(x), axis=-1))
            return x

    x = keras.Input((4,))
    model = compiled(keras.Model(x, layers.Dense(3)(Adds(name="adds")(x))), "mse")
    report = lossviz.explain(model, inputs(6, 4), targets(6, 3))
    np.testing.assert_allclose(report.term("adds").contributions, np.square(inputs(6, 4)) / 4, **CLOSE)


def test_a_frozen_layer_is_not_regularised():  # T15
    model = compiled(dense(kernel_regularizer="l2", trainable=False), "mse")
    assert [term.kind for term in lossviz.explain(model, inputs(6, 4), targets(6, 3)).terms] == ["output"]


# -- ratios and constants -------------------------------------------------------------------------------------------


def test_dice_of_the_batch_is_one_ratio():
    y, p = onehot(2, 4, 4, classes=3), weights(2, 4, 4, 3)
    term = lossviz.explain_loss("dice", y, p).terms[0]
    sums = term.parts[0].sums
    assert (term.exactness, term.axes) == ("ratio", ())
    np.testing.assert_allclose(
        [sums["TP"], sums["FP"], sums["FN"]], [(y * p).sum(), ((1 - y) * p).sum(), (y * (1 - p)).sum()], rtol=1e-5
    )
    np.testing.assert_allclose(term.contribution, 1 - 2 * (y * p).sum() / (y.sum() + p.sum()), **CLOSE)
    with pytest.raises(ValueError, match=r"'class' is not an axis.*quotient of sums over batch, row, col, class"):
        term.by("class")


def test_dice_of_sample_and_class_has_these_shares_and_no_others():
    y, p = onehot(2, 4, 4, classes=3), weights(2, 4, 4, 3)
    term = lossviz.explain_loss(keras.losses.Dice(axis=(1, 2)), y, p).terms[0]
    by_hand = (1 - 2 * (y * p).sum((1, 2)) / (y.sum((1, 2)) + p.sum((1, 2)))) / 6
    assert (term.exactness, term.axes) == ("ratio", ("batch", "class"))
    np.testing.assert_allclose(term.contributions, by_hand, **CLOSE)
    np.testing.assert_allclose(term.parts[0].sums["TP"], (y * p).sum((1, 2)), **CLOSE)
    with pytest.raises(ValueError, match="'row' is not an axis"):
        term.by("row")


def test_crossentropy_minus_dice_with_weights_from_the_labels():
    """BCE - (1 + dice) a pixel, weighted by the class: shares, a ratio, and the constant -mean(w)."""
    table = np.array([1.0, 2.0, 5.0], "float32")

    def loss(y, p):
        dice = 2 * ops.sum(y * p) / (ops.sum(y) + ops.sum(p))
        per_pixel = keras.losses.binary_crossentropy(y, p) - (1 + dice)
        return per_pixel * ops.take(table, ops.argmax(y, axis=-1))

    y, p = onehot(2, 4, 4, classes=3), weights(2, 4, 4, 3) * 0.9 + 0.05
    report = lossviz.explain_loss(loss, y, p)
    w, dice = table[y.argmax(-1)], 2 * (y * p).sum() / (y.sum() + p.sum())
    constant = next(term for term in report.terms if term.kind == "constant")
    np.testing.assert_allclose(constant.contribution, -w.mean(), **CLOSE)
    np.testing.assert_allclose(
        values({k: v for k, v in report.by("class").items() if k != "(not split)"}),
        (w[..., None] * bce(y, p)).sum((0, 1, 2)) / (3 * w.size),
        rtol=1e-4,
    )
    np.testing.assert_allclose(report.by("class")["(not split)"], -dice * w.mean(), **CLOSE)
    assert report.terms[0].exactness == "ratio"


# -- losses that rearrange ------------------------------------------------------------------------------------------

SQUARED = np.square(targets(4, 3) - inputs(4, 3)) / 12
REARRANGED = {
    "flattened": lambda y, p: ops.mean(ops.square(ops.reshape(y, (-1,)) - ops.reshape(p, (-1,)))),
    "transposed": lambda y, p: ops.mean(ops.square(ops.transpose(y) - ops.transpose(p)), axis=0),
    "transposed by einsum": lambda y, p: ops.mean(ops.einsum("ij->ji", ops.square(y - p)), axis=0),
    "reversed": lambda y, p: ops.mean(ops.square(ops.flip(y - p, axis=0)), axis=-1),
    "class by class": lambda y, p: sum(ops.mean(ops.square(y[:, c] - p[:, c])) for c in range(3)) / 3,
    "unstacked": lambda y, p: sum(ops.mean(ops.square(d)) for d in ops.unstack(y - p, axis=0)) / 4,
    "split": lambda y, p: sum(ops.mean(ops.square(d)) for d in ops.split(y - p, 3, axis=-1)) / 3,
    "two halves of the batch": lambda y, p: (
        (ops.mean(ops.square(y[:2] - p[:2])) + ops.mean(ops.square(y[2:] - p[2:]))) / 2
    ),
    "with a new axis": lambda y, p: ops.mean(ops.square(y[:, None, :, None] - p[:, None, :, None]), axis=(1, 2, 3)),
    "with all of a mask": lambda y, p: mean_where(ops.square(y - p), y > -99),
    "gathered": lambda y, p: ops.mean(ops.take(ops.square(y - p), [2, 0, 1], axis=1)),
    "as a matrix product": lambda y, p: ops.matmul(ops.square(y - p), ops.ones((3, 1)) / 3),
}


@pytest.mark.parametrize("loss", REARRANGED.values(), ids=REARRANGED)
def test_axes_survive_what_a_loss_does_to_the_shape(loss):
    report = lossviz.explain_loss(loss, targets(4, 3), inputs(4, 3))
    axes = {axis for part in report.terms[0].parts for axis in part.axes}
    assert axes <= {"batch", "class"}
    for axis, other in (("batch", 1), ("class", 0)):
        if axis in axes:
            shares = report.by(axis)
            np.testing.assert_allclose([shares[k] for k in sorted(shares)], SQUARED.sum(other), **CLOSE)
    assert axes == {"batch", "class"}


def fourier(y, p):
    return tf.abs(tf.signal.fft(tf.cast(y - p, tf.complex64))) if ON_TENSORFLOW else jnp.abs(jnp.fft.fft(y - p))


SORTED = {
    "sorted along the batch": (lambda y, p: ops.mean(ops.sort(ops.square(y - p), axis=0)), {"batch", "class"}),
    "the largest first": (lambda y, p: ops.top_k(ops.square(y - p), 3)[0], {"batch", "class"}),
    "a product over the classes": (lambda y, p: ops.square(ops.einsum("ij,kj->ik", p, y)), {"batch"}),
    "a Fourier transform": (fourier, {"batch"}),
    "shifted": (lambda y, p: ops.square(ops.roll(y - p, 1, axis=0)), {"batch", "class"}),
}


@pytest.mark.parametrize("loss, named", SORTED.values(), ids=SORTED)
def test_equal_sizes_do_not_name_an_axis(loss, named):  # three samples, three classes
    axes = lossviz.explain_loss(loss, targets(3, 3), inputs(3, 3)).terms[0].axes
    assert {axis for axis in axes if not axis.startswith("axis")} == named
    assert len(axes) == 2


def test_what_a_boolean_mask_leaves_out_has_no_share():
    y, p = targets(4, 3), inputs(4, 3)
    report = lossviz.explain_loss(lambda y, p: mean_where(ops.square(y - p), y > 0), y, p)
    by_hand = np.square(y - p) * (y > 0) / (y > 0).sum()
    np.testing.assert_allclose(report.terms[0].contributions, by_hand, **CLOSE)


def test_missing_labels_that_a_mask_leaves_out_have_no_share():
    y, p = targets(4, 3), inputs(4, 3)
    y[1, 2] = y[3, 0] = np.nan
    report = lossviz.explain_loss(lambda y, p: mean_where(ops.square(y - p), ops.isfinite(y)), y, p)
    by_hand = np.where(np.isnan(y), 0, np.square(y - p)) / 10
    np.testing.assert_allclose(report.check().terms[0].contributions, by_hand, **CLOSE)


def test_columns_against_rows_show_two_batches():  # (N, 1) - (N,) is (N, N); a loss function would be squeezed
    class Squares(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.square(y_pred - y_true)

    numbers = np.arange(4, dtype="float32")
    report = lossviz.explain_loss(Squares(), numbers, numbers[:, None])
    assert report.total == 2.5  # though every prediction is right
    assert report.terms[0].axes == ("batch", "batch_2")
    np.testing.assert_array_equal(report.terms[0].contributions, np.square(numbers[:, None] - numbers) / 16)


def test_a_loss_of_slices():
    y, p = targets(4, 3), inputs(4, 3)

    def loss(y, p):
        return ops.mean(ops.square(y[:, :2] - p[:, :2]), -1) + ops.abs(y[:, 2] - p[:, 2])

    report = lossviz.explain_loss(loss, y, p)
    by_hand = [*(np.square(y - p)[:, :2].sum(0) / 8), np.abs(y - p)[:, 2].sum() / 4]
    shares = report.by("class")
    np.testing.assert_allclose([shares[0], shares[1]], by_hand[:2], **CLOSE)
    assert sum(shares.values()) == pytest.approx(sum(by_hand), rel=1e-5)


@pytest.mark.parametrize("unpack", [ops.unstack, lambda y, axis: ops.split(y, 2, axis)], ids=["unstack", "split"])
def test_weights_packed_into_the_targets(unpack):  # one of them above the sums, the other below
    y, p = targets(4, 2), inputs(4, 1)

    def loss(y, p):
        truth, weight = unpack(y, axis=-1)
        squared = ops.mean(ops.square(ops.reshape(truth, (-1, 1)) - p), -1)
        return ops.reshape(squared, ops.shape(weight)) * weight

    report = lossviz.explain_loss(loss, y, p)
    np.testing.assert_allclose(values(report.by("batch")), np.square(y[:, 0] - p[:, 0]) * y[:, 1] / 4, **CLOSE)


@pytest.mark.parametrize(
    "picked",
    [
        lambda p, label: (
            tf.gather(p, label, batch_dims=1) if ON_TENSORFLOW else jnp.take_along_axis(p, label[:, None], 1)
        ),
        lambda p, label: (
            tf.gather_nd(p, tf.stack([tf.range(4), label], axis=1)) if ON_TENSORFLOW else p[jnp.arange(4), label]
        ),
        lambda p, label: ops.take_along_axis(p, label[:, None], axis=1)[:, 0],
    ],
    ids=["gather", "gather_nd", "take_along_axis"],
)
def test_the_probability_of_the_label_keeps_the_batch(picked):
    y, p = labels(4, classes=3), weights(4, 3)
    report = lossviz.explain_loss(lambda y, p: -ops.log(picked(p, ops.cast(y, "int32"))), y, p)
    np.testing.assert_allclose(values(report.by("batch")), -np.log(p[np.arange(4), y]) / 4, **CLOSE)


# -- names and sizes ------------------------------------------------------------------------------------------------


def test_own_axes_and_class_names():
    report = lossviz.explain_loss(
        "mse", targets(2, 3, 2), inputs(2, 3, 2), axes=("patient", "day", "drug"), class_names=("A", "B")
    )
    by_hand = np.square(targets(2, 3, 2) - inputs(2, 3, 2)) / 12
    assert report.terms[0].axes == ("patient", "day", "drug")
    assert report.by("drug") == pytest.approx({"A": by_hand[..., 0].sum(), "B": by_hand[..., 1].sum()}, rel=1e-5)
    assert report.by(("day", "drug"))[2, "B"] == pytest.approx(by_hand[:, 2, 1].sum(), rel=1e-5)


def test_axes_and_class_names_go_by_output():
    model = compiled(two_outputs(), "mse")
    report = lossviz.explain(
        model,
        inputs(6, 4),
        [targets(6, 3), targets(6, 2)],
        axes={"a": ("plot", "height")},
        class_names={"b": ("off", "on")},
    )
    assert report.term("a").axes == ("plot", "height")
    assert list(report.by("class", term="b")) == ["off", "on"]


def test_more_elements_than_max_elements_are_kept_summed():
    y, p = targets(2, 8, 8, 3), inputs(2, 8, 8, 3)
    full, small = (lossviz.explain_loss("mse", y, p, max_elements=n) for n in (384, 100))
    assert full.terms[0].axes == ("batch", "row", "col", "class")
    assert full.terms[0].parts[0].note == ""
    assert small.terms[0].axes == ("batch", "col", "class")
    assert small.terms[0].parts[0].note == "summed over row: 384 elements are more than max_elements=100"
    for axis in small.terms[0].axes:
        np.testing.assert_allclose(values(small.by(axis)), values(full.by(axis)), rtol=1e-6)
    assert small.check().total == pytest.approx(full.total, rel=1e-6)


def test_summing_keeps_batch_and_class_as_long_as_it_can():
    report = lossviz.explain_loss("mse", targets(8, 8, 8, 8), inputs(8, 8, 8, 8), max_elements=64)
    assert report.terms[0].axes == ("batch", "class")
