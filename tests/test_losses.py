"""The losses against published values, plain NumPy and themselves; what they refuse; and that explain reads them."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_values import CASES, compute, gradient, landmarks, sigmoid, value

import lossviz
from lossviz.losses import BinaryCrossentropyDice, LandmarkLoss, SegmentationCrossentropy, SegmentationTversky

few = settings(max_examples=12, deadline=None, derandomize=True)

ALL = [
    LandmarkLoss(2, "huber", 0.5, 2.0, 0.1, "sample", True, reduction="sum", name="points"),
    SegmentationCrossentropy([1, 2, 0.5], 1.5, (2, 0), "counted", True, reduction=None, name="cross"),
    SegmentationTversky(0.3, 0.7, 0.75, 0.01, [1, 2, 3], (1,), True, name="tversky", dtype="bfloat16"),
    BinaryCrossentropyDice([3, 2, 1], 0.25, True, 0.5, name="both"),
]


def softmax(z):
    shifted = np.exp(z - z.max(-1, keepdims=True))
    return shifted / shifted.sum(-1, keepdims=True)


@st.composite
def scenes(draw):
    """One-hot targets and logits, (batch, rows, columns, classes), and weights of the classes."""
    shape = tuple(draw(st.integers(1, 3)) for _ in range(3))
    classes = draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    y = np.eye(classes)[rng.integers(0, classes, shape)]
    return y, rng.normal(0, draw(st.sampled_from([0.5, 2.0])), y.shape), rng.uniform(0.1, 3, classes)


# The same in plain NumPy, float64, pixel by pixel.


def crossentropy(y, p, weights, gamma, ignored=(), divisor="all"):
    values = np.zeros(y.shape[:-1])
    counted = 0
    for at in np.ndindex(values.shape):
        if y[at].argmax() not in ignored:
            counted += 1
            values[at] = sum(-w * t * (1 - q) ** gamma * np.log(q) for w, t, q in zip(weights, y[at], p[at]) if t)
    return values * (values.size / max(counted, 1) if divisor == "counted" else 1)


def tversky(y, p, fp, fn, gamma, smooth, weights, ignored=()):
    values = []
    for target, prediction in zip(y, p):
        correct = np.isin(target.argmax(-1), ignored)[..., None]
        prediction = np.where(correct, target, prediction)
        total = 0.0
        for c, weight in enumerate(weights):
            t, q = target[..., c], prediction[..., c]
            hits, false, missed = (t * q).sum(), ((1 - t) * q).sum(), (t * (1 - q)).sum()
            total += weight * (1 - (hits + smooth) / (hits + fp * false + fn * missed + smooth)) ** gamma
        values.append(total / len(weights))
    return np.array(values)


def test_every_worked_value():
    found = compute({case.name: (case.loss, case.y_true, case.y_pred, case.weight) for case in CASES})
    assert len(found) == len(CASES)
    for case in CASES:
        result, slope = found[case.name]
        np.testing.assert_allclose(result, case.expected, rtol=case.rtol, atol=1e-7, err_msg=case.name)
        assert np.isfinite(slope).all(), case.name


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
def test_compiled_steps_give_the_same_values_and_gradients(jit):
    cases = CASES[::3]  # the test of JAX compiles every one
    eager = compute({case.name: (case.loss, case.y_true, case.y_pred, case.weight) for case in cases})

    @tf.function(jit_compile=jit)
    def step(predictions):
        result = {}
        for case, p in zip(cases, predictions):
            with tf.GradientTape() as tape:
                tape.watch(p)
                found = case.loss(tf.constant(case.y_true, tf.float32), p, sample_weight=case.weight)
                total = tf.reduce_sum(found)
            result[case.name] = found, tape.gradient(total, p)
        return result

    for name, both in step([tf.constant(case.y_pred, tf.float32) for case in cases]).items():
        for found, expected in zip(both, eager[name]):
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6, err_msg=name)


# What is the same, said in two ways


@few
@given(scenes(), st.sampled_from([0.0, 0.5, 1.0, 2.0]), st.sampled_from(["all", "counted"]), st.booleans())
def test_crossentropy_is_that_of_numpy(scene, gamma, divisor, weighted):
    y, z, w = scene
    ignored = (1,)
    weights = w if weighted else None
    loss = SegmentationCrossentropy(weights, gamma, ignored, divisor, reduction=None)
    expected = crossentropy(y, softmax(z), w if weighted else np.ones(len(w)), gamma, ignored, divisor)
    np.testing.assert_allclose(value(loss, y, softmax(z)), expected, rtol=2e-4, atol=2e-6)


@few
@given(scenes(), st.sampled_from([0.5, 1.0, 4 / 3]), st.sampled_from([(0.5, 0.5), (1, 1), (0.3, 0.7), (0.5, 0)]))
def test_tversky_is_that_of_numpy(scene, gamma, factors):
    y, z, w = scene
    for ignored in ((), (0,)):
        loss = SegmentationTversky(*factors, gamma, 0.01, w, ignored, reduction=None)
        expected = tversky(y, softmax(z), *factors, gamma, 0.01, w, ignored)
        np.testing.assert_allclose(value(loss, y, softmax(z)), expected, rtol=1e-4, atol=1e-5)


@few
@given(scenes())
def test_bce_dice_is_its_two_parts(scene):
    y, z, w = scene
    p = sigmoid(z)
    bce = (-(y * np.log(p) + (1 - y) * np.log(1 - p)) * w).mean((1, 2, 3))
    dice = tversky(y, p, 0.5, 0.5, 1, 1e-3, w)
    expected = bce + 0.3 * dice
    np.testing.assert_allclose(value(BinaryCrossentropyDice(w, 0.3, reduction=None), y, p), expected, rtol=1e-4)
    np.testing.assert_allclose(value(BinaryCrossentropyDice(w, 0.3, True, reduction=None), y, z), expected, rtol=1e-4)
    both = value(BinaryCrossentropyDice(reduction=None), y, p) - value(
        BinaryCrossentropyDice(None, 0, reduction=None), y, p
    )
    np.testing.assert_allclose(both, value(SegmentationTversky(reduction=None), y, p), rtol=1e-4, atol=1e-5)


@few
@given(scenes())
def test_gamma_0_and_no_weights_is_the_crossentropy_of_keras(scene):
    y, z, _ = scene
    p = softmax(z)
    np.testing.assert_allclose(
        value(SegmentationCrossentropy(reduction=None), y, p),
        keras.losses.categorical_crossentropy(y, p).numpy(),
        rtol=1e-5,
        atol=2e-7,
    )


@few
@given(scenes(), st.sampled_from([0.0, 0.5, 2.0]))
def test_logits_and_probabilities_agree(scene, gamma):
    y, z, w = scene
    for cls, options in (
        (SegmentationCrossentropy, {"class_weights": w, "gamma": gamma}),
        (SegmentationTversky, {"class_weights": w, "gamma": gamma + 0.5, "ignore_false_negatives": (1,)}),
    ):
        one, other = value(cls(**options), y, softmax(z)), value(cls(**options, from_logits=True), y, z)
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=1e-6)


@few
@given(scenes(), st.sampled_from([0.0, 0.5, 2.0]))
def test_bit_for_bit_the_plain_loss(scene, gamma):
    """An empty set is the loss without it, and weights of 1 are none; gradients too."""
    y, z, _ = scene
    ones = [1.0] * y.shape[-1]
    for cls, options in (
        (SegmentationCrossentropy, {"gamma": gamma}),
        (SegmentationCrossentropy, {"gamma": gamma, "divisor": "counted"}),
        (SegmentationTversky, {"gamma": gamma + 0.5}),
    ):
        plain = compute({"": (cls(**options, from_logits=True), y, z, None)})[""]
        for more in ({"ignore_false_negatives": ()}, {"class_weights": ones}):
            same = compute({"": (cls(**options, **more, from_logits=True), y, z, None)})[""]
            assert all(np.array_equal(a, b) for a, b in zip(plain, same))
    assert value(BinaryCrossentropyDice(ones), y, sigmoid(z)) == value(BinaryCrossentropyDice(), y, sigmoid(z))


@few
@given(scenes(), st.integers(0, 100))
def test_the_order_of_the_classes_does_not_matter(scene, seed):
    y, z, w = scene
    order = np.random.default_rng(seed).permutation(len(w))
    place = int(np.flatnonzero(order == 1)[0])
    for cls, options in (
        (SegmentationCrossentropy, {"gamma": 2.0, "divisor": "counted"}),
        (SegmentationTversky, {"gamma": 0.75}),
    ):
        one = value(cls(class_weights=w, ignore_false_negatives=(1,), **options), y, softmax(z))
        other = cls(class_weights=w[order], ignore_false_negatives=(place,), **options)
        np.testing.assert_allclose(value(other, y[..., order], softmax(z)[..., order]), one, rtol=1e-5, atol=1e-6)


@few
@given(scenes(), st.booleans(), st.sampled_from([0.0, 2.0]))
def test_ignored_pixels_have_no_gradient_and_the_others_their_own(scene, from_logits, gamma):
    y, z, w = scene
    p = z if from_logits else softmax(z)
    ignored = y[..., 1] == 1
    options = {"class_weights": w, "from_logits": from_logits}
    plain = gradient(SegmentationCrossentropy(gamma=gamma, **options), y, p)
    found = gradient(SegmentationCrossentropy(gamma=gamma, ignore_false_negatives=(1,), **options), y, p)
    assert np.all(found[ignored] == 0)
    assert np.array_equal(found[~ignored], plain[~ignored])
    assert np.all(gradient(SegmentationTversky(ignore_false_negatives=(1,), **options), y, p)[ignored] == 0)


@pytest.mark.parametrize("from_logits", [False, True])
@pytest.mark.parametrize("cls", [SegmentationCrossentropy, SegmentationTversky])
def test_what_is_predicted_at_an_ignored_pixel_is_never_looked_at(cls, from_logits):
    y = np.eye(3)[[[[0, 1], [2, 1]]]]
    p = np.full(y.shape, 1 / 3)
    broken = np.where(y[..., 1:2] == 1, np.nan, p)
    loss = cls(ignore_false_negatives=(1,), from_logits=from_logits)
    (result, slope), (same, other) = compute({"a": (loss, y, p, None), "b": (loss, y, broken, None)}).values()
    assert result == same and np.array_equal(slope, other)


def test_false_positives_of_an_ignored_class_still_cost():
    y = np.eye(3)[[[[1, 1], [1, 1]]]]
    right, wrong = np.eye(3)[[[[1, 1], [1, 1]]]], np.eye(3)[[[[1, 1], [1, 0]]]]
    for loss in (
        SegmentationCrossentropy(ignore_false_negatives=(0,)),
        SegmentationTversky(ignore_false_negatives=(0,)),
    ):
        assert value(loss, y, right) == 0 < value(loss, y, wrong)


def test_ignoring_every_class_leaves_nothing():
    y, p = np.eye(2)[[[0, 1]]], np.full((1, 2, 2), 0.5)
    for loss in (
        SegmentationCrossentropy(ignore_false_negatives=(0, 1), divisor="counted"),
        SegmentationCrossentropy(ignore_false_negatives=(0, 1)),
        SegmentationTversky(ignore_false_negatives=(1, 0), gamma=0.5),
    ):
        result, slope = compute({"": (loss, y, p, None)})[""]
        assert result == 0 and np.all(slope == 0)


def test_a_pixel_without_a_class_is_not_of_class_0():
    y, p = np.zeros((1, 1, 3)), np.full((1, 1, 3), 1 / 3)
    slope = gradient(SegmentationTversky(ignore_false_negatives=(0,)), y, p)
    assert np.all(slope > 0)  # all of it false positives


def test_class_weights_multiply_and_never_divide():
    y, p = np.eye(2)[[[0, 1, 1]]], np.full((1, 3, 2), 0.5)
    for cls in (SegmentationCrossentropy, SegmentationTversky, BinaryCrossentropyDice):
        one, ten = (value(cls(class_weights=[w, w]), y, p) for w in (1, 10))
        assert ten == pytest.approx(10 * one)
    assert value(SegmentationCrossentropy([0, 1]), y, p) == pytest.approx(np.log(2) * 2 / 3)


def test_an_absent_class_pays_for_false_positives_and_an_empty_one_nothing():
    y = np.eye(2)[[[0, 0, 0, 0]]]
    assert value(SegmentationTversky(class_weights=[0, 2]), y, y) == 0
    wrong = np.eye(2)[[[0, 0, 0, 1]]]
    assert value(SegmentationTversky(class_weights=[0, 2]), y, wrong) == pytest.approx(1, abs=0.01)
    assert value(SegmentationTversky(fp=1, smooth=1, class_weights=[0, 2]), y, wrong) == pytest.approx(0.5)


def test_gamma_is_taken_per_class_before_the_mean():
    y = np.eye(2)[[[0, 0, 1, 1]]]
    p = np.eye(2)[[[0, 0, 1, 0]]]
    one, other = (float(value(SegmentationTversky(class_weights=2 * np.eye(2)[c], smooth=1e-6), y, p)) for c in (0, 1))
    focal = value(SegmentationTversky(gamma=2, smooth=1e-6), y, p)
    assert focal == pytest.approx((one**2 + other**2) / 2, rel=1e-4)
    assert focal != pytest.approx(((one + other) / 2) ** 2, rel=0.05)


# Landmarks


@few
@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from(["mape", "mae", "mse", "huber"]))
def test_landmarks_are_those_of_numpy_whatever_stands_at_invisible_points(batch, points, seed, coordinate):
    rng = np.random.default_rng(seed)
    visible = rng.random((batch, points)) < 0.6
    y, p = (rng.uniform(0, 20, (batch, 2 * points)) for _ in range(2))
    flags = rng.uniform(0.05, 0.95, (batch, points))
    errors = {
        "mape": lambda t, q: 100 * abs(t - q) / max(abs(t), 1),
        "mae": lambda t, q: abs(t - q),
        "mse": lambda t, q: (t - q) ** 2,
        "huber": lambda t, q: (t - q) ** 2 / 2 if abs(t - q) < 1 else abs(t - q) - 0.5,
    }
    seen = np.repeat(visible, 2, 1)
    error = np.where(seen, np.vectorize(errors[coordinate])(y, p), 0).sum(1)
    bce = -np.where(visible, np.log(flags), np.log(1 - flags)).mean(1)
    placeholders = rng.choice([np.nan, 0.0, -1.0, np.inf], y.shape)
    target = landmarks(np.where(seen, y, placeholders), visible)
    prediction = landmarks(p, flags)
    for divisor, scale in (("batch", batch / max(seen.sum(), 1)), ("sample", 1 / np.maximum(seen.sum(1), 1))):
        loss = LandmarkLoss(points, coordinate, 0.5, 2.0, divisor=divisor, reduction=None)
        result, slope = compute({"": (loss, target, prediction, None)})[""]
        np.testing.assert_allclose(result, 2 * bce + 0.5 * scale * error, rtol=1e-4, atol=1e-5)
        assert np.isfinite(slope).all()
        coordinates = slope.reshape(batch, points, 3)[..., :2]
        assert np.all(coordinates[~visible] == 0) and np.all(coordinates[visible] != 0)


def test_divisor_batch_is_the_sum_over_the_number_of_visible_coordinates():
    y = landmarks([[1, 1, 2, 2], [3, 3, np.nan, np.nan]], [[1, 1], [1, 0]])
    p = landmarks([[2, 1, 2, 2], [3, 5, 0, 0]], [[1, 1], [1, 0]])
    assert value(LandmarkLoss(2, "mae"), y, p) == pytest.approx((1 + 2) / 6)
    weighted = value(LandmarkLoss(2, "mae"), y, p, [0, 1])  # weights do not enter V
    assert weighted == pytest.approx(2 / 6)
    assert value(LandmarkLoss(2, "mae", divisor="sample"), y, p) == pytest.approx((1 / 4 + 2 / 2) / 2)


@pytest.mark.parametrize("coordinate", ["mape", "mae", "mse", "huber"])
@pytest.mark.parametrize("divisor", ["batch", "sample"])
def test_all_invisible_is_exactly_the_visibility_term(coordinate, divisor):
    flags = np.array([[0.25, 0.125], [0.5, 0.75]])
    y, p = landmarks(np.full((2, 4), np.nan), 0), landmarks(np.full((2, 4), 1e6), flags)
    result, slope = compute({"": (LandmarkLoss(2, coordinate, divisor=divisor, reduction=None), y, p, None)})[""]
    assert np.array_equal(result, keras.losses.binary_crossentropy(np.zeros((2, 2)), flags.astype("float32")).numpy())
    assert np.all(slope.reshape(2, 2, 3)[..., :2] == 0) and np.isfinite(slope).all()


def test_mape_has_the_divisor_of_keras_where_it_is_asked_for():
    y, p = landmarks([[0.0, 5.0]]), landmarks([[0.5, 4.0]])
    keras_value = keras.losses.mean_absolute_percentage_error([[0.0, 5.0]], [[0.5, 4.0]]).numpy()[0]
    assert value(LandmarkLoss(1, epsilon=1e-7), y, p) == pytest.approx(keras_value)
    assert value(LandmarkLoss(1), y, p) == pytest.approx((50 + 20) / 2)


# Everywhere finite


def everywhere():
    """Losses at the corners of what can be predicted: perfect, all wrong, undecided, empty classes, huge logits."""
    y = np.eye(3)[[[0, 0, 1, 1]]]  # class 2 is empty
    corners = {"perfect": y, "wrong": np.roll(y, 1, -1), "undecided": np.full(y.shape, 1 / 3), "zero": 0 * y}
    logits = {f"logits {size:g}": (2 * y - 1) * size for size in (1.0, 20.0, 100.0, -100.0, 1e4, -1e4)}
    for gamma in (0.1, 0.5, 1.0, 2.0, 5.0):
        for name, p in corners.items():
            yield f"crossentropy {gamma} {name}", SegmentationCrossentropy([5, 1, 9], gamma), y, p
            yield f"tversky {gamma} {name}", SegmentationTversky(0.2, 0.8, gamma), y, p
        for name, p in logits.items():
            yield f"crossentropy {gamma} {name}", SegmentationCrossentropy(gamma=gamma, from_logits=True), y, p
            yield f"tversky {gamma} {name}", SegmentationTversky(gamma=gamma, from_logits=True), y, p
    for name, p in corners.items():
        yield f"both {name}", BinaryCrossentropyDice(), y, p
        yield f"crossentropy {name}", SegmentationCrossentropy(), y, p
    flags, visible = landmarks([[0, 5.0]], 1.0), landmarks([[0, 5.0]], 0.0)
    for name, p in logits.items():
        yield f"both {name}", BinaryCrossentropyDice(from_logits=True), y, p
        yield f"crossentropy {name}", SegmentationCrossentropy(from_logits=True), y, p
        yield f"landmarks {name}", LandmarkLoss(1, from_logits=True), flags, np.full((1, 3), p[0, 0, 0])
    for coordinate in ("mape", "mae", "mse", "huber"):
        yield f"landmarks {coordinate}", LandmarkLoss(1, coordinate), flags, flags
        yield f"landmarks {coordinate}, wrong", LandmarkLoss(1, coordinate), flags, visible


def test_values_and_gradients_are_finite_everywhere():
    found = compute({name: (loss, y, p, None) for name, loss, y, p in everywhere()})
    for name, (result, slope) in found.items():
        assert np.isfinite(result) and np.isfinite(slope).all(), name
        assert result >= 0, name
        if "perfect" in name:
            assert result == 0, name
    assert len(found) == 5 * 20 + 8 + 18 + 8


@pytest.mark.parametrize("size, expected", [(100, 200.0), (1e4, 2e4)])
def test_logits_have_no_floor_and_probabilities_that_of_keras(size, expected):
    y, z = np.array([[1.0, 0]]), np.array([[-size, size]])
    result, slope = compute({"": (SegmentationCrossentropy(from_logits=True), y, z, None)})[""]
    assert result == pytest.approx(expected) and np.allclose(slope, [[-1, 1]])
    assert value(SegmentationCrossentropy(), y, softmax(z)) == pytest.approx(-np.log(1e-7), rel=1e-4)
    both, points = BinaryCrossentropyDice(dice_weight=0, from_logits=True), LandmarkLoss(1, from_logits=True)
    result, slope = compute({"": (both, y[None], z[None], None)})[""]
    assert result == pytest.approx(expected / 2) and np.allclose(slope, [[[-0.5, 0.5]]])
    assert value(points, [[0, 0, 1]], [[0, 0, -size]]) == pytest.approx(expected / 2)


# Reductions, weights, masks, dtypes


def test_values_before_reduction_have_the_shape_that_weights_line_up_with():
    y, p = np.eye(3)[np.arange(24).reshape(2, 3, 4) % 3], np.full((2, 3, 4, 3), 1 / 3)
    for cls, shape in (
        (SegmentationCrossentropy, (2, 3, 4)),
        (SegmentationTversky, (2,)),
        (BinaryCrossentropyDice, (2,)),
    ):
        values = value(cls(reduction=None), y, p)
        assert values.shape == shape
        weights = np.random.default_rng(0).random(shape)
        assert value(cls(), y, p, weights) == pytest.approx((weights * values).mean())
        assert value(cls(reduction="sum"), y, p) == pytest.approx(values.sum())
        weighted = value(cls(reduction="mean_with_sample_weight"), y, p, weights)
        assert weighted == pytest.approx((weights * values).sum() / weights.sum())


def test_a_mask_of_keras_divides_by_the_pixels_it_leaves():
    y, p = np.eye(2)[[[0, 1, 1]]].astype("float32"), np.full((1, 3, 2), 0.5, "float32")
    masked = tf.constant(p)
    masked._keras_mask = tf.constant([[True, False, True]])
    assert SegmentationCrossentropy([1, 9])(y, masked).numpy() == pytest.approx(np.log(2) * (1 + 9) / 2)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes(dtype):
    for case in CASES[::3]:
        options = {**case.loss.get_config(), "dtype": dtype}
        loss = type(case.loss).from_config(options)
        result = loss(np.asarray(case.y_true, "float32"), np.asarray(case.y_pred, "float32"), sample_weight=case.weight)
        assert result.dtype.name == dtype
        tolerance = {"float16": 5e-3, "bfloat16": 4e-2, "float64": case.rtol}[dtype]
        np.testing.assert_allclose(
            np.asarray(result, float), case.expected, rtol=tolerance, atol=1e-4, err_msg=case.name
        )


def small_model(loss):
    """A model of one layer for this loss, and a batch for it, four samples."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    if isinstance(loss, LandmarkLoss):
        x = rng.normal(size=(4, 5)).astype("float32")
        y = landmarks(rng.uniform(0, 3, (4, 2 * loss.num_landmarks)), rng.random((4, loss.num_landmarks)) < 0.5)
        layers = [keras.Input((5,)), keras.layers.Dense(3 * loss.num_landmarks)]
    else:
        x = rng.normal(size=(4, 5, 6, 2)).astype("float32")
        y = np.eye(3)[rng.integers(0, 3, (4, 5, 6))]
        activation = None if loss.from_logits else "softmax"
        layers = [keras.Input((5, 6, 2)), keras.layers.Conv2D(3, 1, activation=activation)]
    model = keras.Sequential(layers)
    model.compile("sgd", loss=loss)
    return model, x, y.astype("float32")


def test_mixed_precision_models_train_and_the_loss_is_float32(mixed):
    for loss in (LandmarkLoss(2, from_logits=True), *(cls() for cls in map(type, ALL[1:]))):
        model, x, y = small_model(loss)
        assert loss.dtype == "float32" and model(x).dtype.name == mixed.removeprefix("mixed_")
        before = [w.numpy() for w in model.trainable_weights]
        # twelve steps: float16 begins with a few that are skipped, to find its scale
        history = model.fit(np.concatenate([x] * 12), np.concatenate([y] * 12), batch_size=4, verbose=0)
        assert np.isfinite(history.history["loss"]).all()
        assert all(np.isfinite(w.numpy()).all() for w in model.trainable_weights)
        assert any(not np.array_equal(a, w.numpy()) for a, w in zip(before, model.trainable_weights))


@pytest.mark.parametrize("loss", ALL, ids=lambda loss: loss.name)
def test_saved_and_loaded(loss, tmp_path):
    config = loss.get_config()
    assert type(loss).from_config(config).get_config() == config
    through = keras.losses.deserialize(keras.losses.serialize(loss))
    assert type(through) is type(loss) and through.get_config() == config
    model, x, y = small_model(loss)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.loss.get_config() == config
    weights = None if loss.name == "cross" else np.arange(4.0)
    again, once = (m.evaluate(x, y, sample_weight=weights, verbose=0) for m in (loaded, model))
    assert again == once


@pytest.mark.parametrize("cls", [type(loss) for loss in ALL])
def test_defaults_are_in_the_configuration_and_can_be_named(cls):
    config = cls().get_config()
    assert config["reduction"] == "sum_over_batch_size" and config["dtype"] == "float32"
    assert config["name"] == re.sub("(?<!^)([A-Z])", r"_\1", cls.__name__).lower()
    assert keras.saving.get_registered_name(cls) == f"lossviz>{cls.__name__}"


# What is refused

CROSS, TVERSKY, BOTH, POINTS = SegmentationCrossentropy, SegmentationTversky, BinaryCrossentropyDice, LandmarkLoss


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: POINTS(0), r"num_landmarks must be a whole number of at least 1, got 0\."),
        (lambda: POINTS(2.0), r"num_landmarks must be a whole number of at least 1, got 2\.0"),
        (lambda: POINTS(coordinate="mpae"), r"coordinate must be one of 'mape', 'mae', 'mse', 'huber', got 'mpae'"),
        (lambda: POINTS(coordinate_weight=-1), r"coordinate_weight must be a finite number of at least 0, got -1"),
        (lambda: POINTS(visibility_weight=None), r"visibility_weight must be a finite number of at least 0, got None"),
        (lambda: POINTS(epsilon=0), r"epsilon must be a finite number above 0, got 0"),
        (lambda: POINTS(divisor="all"), r"divisor must be one of 'batch', 'sample', got 'all'"),
        (lambda: POINTS(from_logits="yes"), r"from_logits must be one of True, False, got 'yes'"),
        (lambda: POINTS(reduction="avg"), r"Invalid value for argument `reduction`"),
        (lambda: CROSS([1, -2]), r"class_weights\[1\] must be a finite number of at least 0, got -2"),
        (lambda: CROSS([1, np.nan]), r"class_weights\[1\] must be a finite number"),
        (lambda: CROSS({0: 1, 1: 1000}), r"class_weights is a dictionary, \{0: 1, 1: 1000\}.*weights\[c\] for c in"),
        (lambda: CROSS(3), r"class_weights must be a list of one number a class, or None, got 3"),
        (lambda: CROSS([[1, 2]]), r"class_weights must be a list of one number a class"),
        (lambda: CROSS([]), r"class_weights must be a list of one number a class"),
        (lambda: CROSS(gamma=-0.5), r"gamma must be a finite number of at least 0, got -0\.5"),
        (lambda: CROSS(ignore_false_negatives=0), r"ignore_false_negatives must be a tuple.*such as \(0,\).*got 0"),
        (lambda: CROSS(ignore_false_negatives=(0, -1)), r"ignore_false_negatives\[1\] must be a whole number.*got -1"),
        (lambda: CROSS(ignore_false_negatives=(1, 1)), r"names a class twice: \(1, 1\)"),
        (lambda: CROSS(divisor="batch"), r"divisor must be one of 'all', 'counted', got 'batch'"),
        (lambda: TVERSKY(fp=-1), r"fp must be a finite number of at least 0, got -1"),
        (lambda: TVERSKY(0, 0), r"fp and fn are both 0"),
        (lambda: TVERSKY(gamma=0), r"gamma must be a finite number above 0, got 0"),
        (lambda: TVERSKY(smooth=0), r"smooth must be a finite number above 0, got 0"),
        (lambda: BOTH(dice_weight=np.inf), r"dice_weight must be a finite number of at least 0, got inf"),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


ONES = np.ones((2, 3, 2)) / 2


@pytest.mark.parametrize(
    "loss, y, p, message",
    [
        (POINTS(), np.ones((2, 8)), np.ones((2, 8)), r"shape \(2, 8\); num_landmarks=3 needs \(batch, 9\)"),
        (
            POINTS(),
            np.ones((2, 9)),
            np.ones((2, 12)),
            r"must both have shape \(batch, 3 \* num_landmarks\), got",
        ),
        (POINTS(1), [[1, 2, 3]], [[1, 2, 1]], r"visible flags of y_true must lie in \[0, 1\], got values from 3 to 3"),
        (POINTS(1), [[1, 2, 1]], [[1, 2, 7]], r"y_pred must lie in \[0, 1\], got values from 7 to 7.*from_logits=True"),
        (CROSS(), ONES, ONES * 4, r"y_pred must lie in \[0, 1\], got values from 2 to 2.*pass from_logits=True"),
        (CROSS(), ONES * 10, ONES, r"y_true must lie in \[0, 1\], got values from 5 to 5: targets are one-hot"),
        (CROSS(), np.ones((2, 3)), ONES, r"got \(2, 3\) and \(2, 3, 2\).*keras.ops.one_hot\(y_true, 2\)"),
        (CROSS(), np.ones((2, 3, 1)), ONES, r"got \(2, 3, 1\) and \(2, 3, 2\).*one_hot\(y_true, 2\)"),
        (CROSS(), ONES[..., :1], ONES[..., :1], r"with one channel every probability is 1.*BinaryCrossentropyDice"),
        (CROSS([1, 2, 3]), ONES, ONES, r"class_weights has 3 numbers, the last axis of y_pred.*has 2 classes"),
        (TVERSKY(ignore_false_negatives=(2,)), ONES, ONES, r"\(2,\) names class 2;.*has the classes 0 to 1"),
        (TVERSKY(), ONES[0], ONES[0], r"must both have shape \(batch, \.\.\., classes\), got \(3, 2\)"),
        (BOTH(), ONES, ONES - 1, r"y_pred must lie in \[0, 1\], got values from -0.5 to -0.5"),
    ],
)
def test_data_that_are_refused(loss, y, p, message):
    with pytest.raises(ValueError, match=message):
        loss(np.asarray(y, float), np.asarray(p, float))


def test_shapes_are_checked_in_compiled_steps_too():
    model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(2, 1)])
    model.compile("sgd", loss=SegmentationCrossentropy([1, 2, 3]))
    with pytest.raises(ValueError, match="class_weights has 3 numbers"):
        model.train_on_batch(np.ones((1, 4, 4, 2)), np.ones((1, 4, 4, 2)))


def test_nan_is_shown_and_not_refused():
    assert np.isnan(value(SegmentationCrossentropy(), np.eye(2), np.full((2, 2), np.nan)))
    assert value(SegmentationCrossentropy(), np.eye(2), np.full((2, 2), 0.5) * (1 + 1e-3)) == pytest.approx(np.log(2))


# Explained

SCENE = np.eye(3)[np.random.default_rng(1).integers(0, 3, (2, 4, 5))]
CHANCES = softmax(np.random.default_rng(2).normal(size=SCENE.shape))


@pytest.mark.parametrize(
    "loss, kinds",
    [
        (CROSS(), ["exact"]),
        (CROSS([1, 2, 3], gamma=2), ["exact"]),
        (CROSS(gamma=0.5, ignore_false_negatives=(1,), divisor="counted"), ["exact"]),
        (TVERSKY(), ["ratio"]),
        (TVERSKY(0.3, 0.7, gamma=0.75, class_weights=[1, 2, 3], ignore_false_negatives=(1,)), ["ratio"]),
        (BOTH([1, 2, 3]), ["exact", "ratio"]),
    ],
    ids=lambda argument: argument.name if hasattr(argument, "name") else None,
)
def test_explain_reads_segmentation_losses(loss, kinds):
    for case, p in ((loss, CHANCES), (type(loss)(**{**loss.get_config(), "from_logits": True}), np.log(CHANCES))):
        report = lossviz.explain_loss(case, SCENE, p).check()
        assert sorted(part.exactness for part in report.terms[0].parts) == kinds
        shares = report.by("class")
        assert list(shares) == [0, 1, 2] and sum(shares.values()) == pytest.approx(report.total, rel=1e-5)
        assert sum(report.by("batch").values()) == pytest.approx(report.total, rel=1e-5)
        if case.ignore_false_negatives and isinstance(case, CROSS):
            assert shares[1] == 0 < min(shares[0], shares[2])


@pytest.mark.parametrize("divisor", ["batch", "sample"])
def test_explain_reads_landmarks(divisor):
    loss = LandmarkLoss(2, "mape", 0.5, 2.0, divisor=divisor)
    y = landmarks([[1, 2, np.nan, np.nan], [3, 4, 5, 6]], [[1, 0], [1, 1]])
    p = landmarks([[2, 2, 9, 9], [3, 6, 4, 6]], [[0.5, 0.5], [0.25, 0.75]])
    report = lossviz.explain_loss(loss, y, p).check()
    assert [part.exactness for part in report.terms[0].parts] == ["exact", "exact"]
    per_sample = value(type(loss).from_config({**loss.get_config(), "reduction": None}), y, p) / 2
    assert list(report.by("batch").values()) == pytest.approx(per_sample.tolist())


def test_explain_reads_a_model_with_each():
    for loss in ALL:
        if loss.dtype == "float32":
            model, x, y = small_model(loss)
            report = lossviz.explain(model, x, y).check()
            assert sum(report.by("batch").values()) == pytest.approx(report.total, rel=1e-5)
