"""`by(of="gradient")` against the backend's derivatives, finite differences and formulas: who moves the predictions."""

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
    import jax

CLOSE = {"rtol": 1e-5, "atol": 1e-9}


def values(amounts: dict) -> np.ndarray:
    return np.array(list(amounts.values()))


def tape(model, x, y, sample_weight=None) -> list[np.ndarray]:
    """dL/dy_pred of every output, from Keras's own compute_loss."""
    y_pred = model(x)
    if not ON_TENSORFLOW:
        slopes = jax.grad(lambda y_pred: model.compute_loss(x, y, y_pred, sample_weight, training=False))(y_pred)
        return [np.asarray(slope) for slope in keras.tree.flatten(slopes)]
    flat = keras.tree.flatten(y_pred)
    with tf.GradientTape() as recording:
        for tensor in flat:
            recording.watch(tensor)
        loss = model.compute_loss(x, y, y_pred, sample_weight, training=False)
    return [np.asarray(slope) for slope in recording.gradient(loss, flat)]


@pytest.mark.parametrize("loss", ["mse", "mae", "huber", "log_cosh", "poisson", "kl_divergence", "dice"])
def test_it_is_the_gradient_of_the_tape(loss):
    model = compiled(dense(activation="softplus"), loss)
    x, y = inputs(6, 4), onehot(6, classes=3)
    report = lossviz.explain(model, x, y)
    [slope] = tape(model, x, y)
    np.testing.assert_allclose(report.terms[0].gradient.elements, slope, **CLOSE)
    for axis, other in (("batch", 1), ("class", 0)):
        np.testing.assert_allclose(values(report.by(axis, of="gradient")), np.abs(slope).sum(other), **CLOSE)
    both = report.by(("class", "batch"), of="gradient")
    assert both[1, 4] == pytest.approx(abs(slope[4, 1]), rel=1e-5)


def test_weights_and_masks_are_in_it_and_a_weight_of_zero_moves_nothing():
    model = compiled(sequence(masked=True), "mse")
    x, y, w = inputs(4, 5, 4), targets(4, 5, 3), weights(4, 5)
    x[0, 3:] = 0
    w[2] = 0
    amounts = lossviz.explain(model, x, y, w).term("o").gradient.contributions
    error = model.predict_on_batch(x) - y
    valid = np.any(x != 0, axis=-1)
    np.testing.assert_allclose(amounts, np.abs(2 * error / 3 * (w * valid)[..., None]) / valid.sum(), rtol=1e-4)
    assert np.all(amounts[0, 3:] == 0) and np.all(amounts[2] == 0) and np.all(amounts[1] > 0)


def test_several_outputs_hold_the_others_fixed_and_their_loss_weight():
    x = keras.Input((4,))
    a = layers.Dense(3, name="a", activity_regularizer="l2")(x)
    model = keras.Model(x, [a, layers.Dense(2, name="b")(a)])
    compiled(model, ["mse", "mae"], loss_weights=[0.5, 10.0])
    x, y = inputs(6, 4), [targets(6, 3), targets(6, 2)]
    report = lossviz.explain(model, x, y)
    p, _ = model.predict_on_batch(x)
    batch = 6 if DIVIDES_ACTIVITY else 1
    by_hand = np.abs(0.5 * 2 * (p - y[0]) / 18 + 2 * 0.01 * p / batch)  # the activity regulariser reads a, too
    np.testing.assert_allclose(report.term("a").gradient.contributions, by_hand, rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(values(report.by("class", term="b", of="gradient")), 10 * 6 / 12, rtol=1e-5)
    with pytest.raises(ValueError, match="several terms have axis 'class'"):
        report.by("class", of="gradient")


@pytest.mark.parametrize(
    "activation, loss", [("softmax", "categorical_crossentropy"), ("sigmoid", "binary_crossentropy")]
)
def test_behind_softmax_and_sigmoid_it_is_that_of_what_keras_reads(activation, loss):
    model = compiled(pixels(5, activation), loss)
    x, y, w = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5), weights(2, 4, 4)
    report = lossviz.explain(model, x, y, w)
    p = model.predict_on_batch(x)
    slope = p - y
    if not ON_TENSORFLOW:  # where Keras reads the probabilities
        slope = (1 - y / p) if activation == "softmax" else (p - y) / (p * (1 - p))
    slope *= w[..., None] / 32 / (5 if activation == "sigmoid" else 1)
    np.testing.assert_allclose(report.terms[0].gradient.elements, slope, rtol=1e-4, atol=1e-7)
    assert ("logits" in report.terms[0].gradient.note) == ON_TENSORFLOW
    by_class = np.array([np.abs(slope)[y.argmax(-1) == c].sum() for c in range(5)])
    np.testing.assert_allclose(values(report.by_label(of="gradient")), by_class, rtol=1e-4)
    np.testing.assert_allclose(values(report.by("class", of="gradient")), np.abs(slope).sum((0, 1, 2)), rtol=1e-4)


def test_sparse_labels_on_softmax():
    model = compiled(dense(activation="softmax"), "sparse_categorical_crossentropy")
    x, y = inputs(6, 4), labels(6, classes=3)
    p, truth = model.predict_on_batch(x), np.eye(3)[y]
    slope = np.abs(p - truth if ON_TENSORFLOW else 1 - truth / p) / 6  # by the logits, or by the probabilities
    np.testing.assert_allclose(values(lossviz.explain(model, x, y).by("class", of="gradient")), slope.sum(0), rtol=1e-4)


def test_probabilities_alone_have_a_gradient_of_their_own():
    p, y = weights(6, 3).astype("float64") * 0.8 + 0.1, onehot(6, classes=3)
    report = lossviz.explain_loss("binary_crossentropy", y, p)
    slope = (-y / p + (1 - y) / (1 - p)) / 18
    np.testing.assert_allclose(report.terms[0].gradient.elements, slope, rtol=1e-4)
    assert "predictions" in report.terms[0].gradient.note


def test_finite_differences_of_a_dice_loss_that_has_no_shares_by_pixel():
    p, y = weights(2, 4, 4, 3), onehot(2, 4, 4, classes=3)
    report = lossviz.explain_loss("dice", y, p)
    assert report.terms[0].axes == ()

    def dice(p):
        return 1 - 2 * (y * p).sum() / (y.sum() + p.sum())

    slope = np.zeros(p.shape)
    for index in np.ndindex(p.shape):
        step = np.zeros(p.shape)
        step[index] = 1e-5
        slope[index] = (dice(p.astype("float64") + step) - dice(p.astype("float64") - step)) / 2e-5
    np.testing.assert_allclose(report.terms[0].gradient.elements, slope, rtol=1e-3, atol=1e-7)
    np.testing.assert_allclose(
        values(report.by_label(of="gradient")), [np.abs(slope)[y.argmax(-1) == c].sum() for c in range(3)], rtol=1e-3
    )


def test_it_says_how_fast_the_loss_falls():
    y, p = targets(6, 3), inputs(6, 3)
    report = lossviz.explain_loss("mse", y, p)
    slope, step = report.terms[0].gradient.elements, 1e-4
    moved = np.mean(np.square(p.astype("float64") - step * np.sign(slope) - y))
    fall = (np.mean(np.square(p.astype("float64") - y)) - moved) / step
    assert fall == pytest.approx(sum(report.by("class", of="gradient").values()), rel=1e-3)


def test_a_compute_loss_of_its_own():
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.sqrt(ops.mean(ops.square(y - y_pred)))

    model = compiled(dense(kind=Own))
    x, y = inputs(6, 4), targets(6, 3)
    error = model.predict_on_batch(x) - y
    amounts = values(lossviz.explain(model, x, y).by("batch", of="gradient"))
    np.testing.assert_allclose(amounts, np.abs(error).sum(1) / 18 / np.sqrt(np.mean(error**2)), rtol=1e-4)


def test_a_whole_data_set():
    model = compiled(dense(), "mse")
    x, y = inputs(10, 4), targets(10, 3)
    report = lossviz.explain(model, x, y, batch_size=4)
    amounts = 2 * np.abs(model.predict(x, verbose=0) - y) / 30
    np.testing.assert_allclose(values(report.by("class", of="gradient")), amounts.sum(0), rtol=1e-4)
    np.testing.assert_allclose(values(report.by("batch", of="gradient")), amounts.sum(1), rtol=1e-4)


def test_more_than_max_elements_are_kept_summed():
    y, p = targets(2, 8, 8, 3), inputs(2, 8, 8, 3)
    full, small = (lossviz.explain_loss("mse", y, p, max_elements=n) for n in (384, 100))
    assert small.terms[0].gradient.axes == ("batch", "col", "class")
    for axis in small.terms[0].gradient.axes:
        np.testing.assert_allclose(
            values(small.by(axis, of="gradient")), values(full.by(axis, of="gradient")), rtol=1e-5
        )


def test_what_has_no_gradient_says_so():
    model = compiled(two_outputs(), ["mse", "mae"])
    report = lossviz.explain(model, inputs(6, 4), [targets(6, 3), targets(6, 2)])
    with pytest.raises(ValueError, match=r"of='grad', but it must be \"loss\" or \"gradient\""):
        report.by("class", term="a", of="grad")
    with pytest.raises(ValueError, match=r"of='grad', but it must be"):
        report.by("class", of="grad")
    with pytest.raises(ValueError, match=r"'row' is not an axis of term 'a'.*batch=6, class=3"):
        report.by("row", term="a", of="gradient")
    model = compiled(dense(kernel_regularizer="l2"), "mse")
    report = lossviz.explain(model, inputs(6, 4), targets(6, 3))
    with pytest.raises(ValueError, match=r"'o/kernel' \(regulariser\) has no gradient.*it is no output"):
        report.by("in", term="o/kernel", of="gradient")
    assert set(report.by("class", of="gradient")) == {0, 1, 2}
