"""What the last operations allow, by brute force: ranges, the floor of the loss, and who must not be spoken of."""

from unittest import mock

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops
from models import compiled, inputs

import lossviz
from lossviz.backend.tracing import lower, trace_model
from lossviz.rules import reach
from lossviz.rules.bounds import Bounds
from lossviz.rules.floor import floor

X = inputs(6, 3)


def trained(last, loss="mse", units=2, **more):
    """A trained layer, and `last` of what it gives."""
    x = keras.Input((3,))
    return compiled(keras.Model(x, last(layers.Dense(units, name="d")(x))), loss, **more)


def allowed(model, x=X, data=False):
    """The range of the only prediction."""
    traced = trace_model(model, x, np.zeros(tuple(model(x).shape), "float32"), None, False, "sample_weight")
    loss = lower(traced)
    fed = dict(zip(loss.program.feeds, traced.leaves)) if data else None
    return Bounds(loss.trainable, fed).of(loss.predictions[0])


LAST = {
    "linear": (lambda h: h, -np.inf, np.inf),
    "sigmoid": (ops.sigmoid, 0, 1),
    "hard_sigmoid": (ops.hard_sigmoid, 0, 1),
    "tanh": (ops.tanh, -1, 1),
    "relu": (ops.relu, 0, np.inf),
    "relu6": (ops.relu6, 0, 6),
    "softplus": (ops.softplus, 0, np.inf),
    "exp": (ops.exp, 0, np.inf),
    "elu": (ops.elu, -1, np.inf),
    "softsign": (ops.softsign, -1, 1),
    "square": (ops.square, 0, np.inf),
    "abs": (ops.abs, 0, np.inf),
    "softmax": (ops.softmax, 0, 1),
    "softmax over the batch": (lambda h: ops.softmax(h, axis=0), 0, 1),
    "clip": (lambda h: ops.clip(h, -2, 3), -2, 3),
    "scaled sigmoid": (lambda h: 10 - 4 * ops.sigmoid(h), 6, 10),
    "sigmoid times 255": (lambda h: layers.Rescaling(255.0)(ops.sigmoid(h)), 0, 255),
    "negative": (lambda h: -ops.relu(h), -np.inf, 0),
    "mean of sigmoids": (lambda h: ops.mean(ops.sigmoid(h), axis=-1, keepdims=True), 0, 1),
    "means of windows of sigmoids": (
        lambda h: layers.Reshape((1,))(layers.AveragePooling1D(2)(layers.Reshape((2, 1))(ops.sigmoid(h)))),
        0,
        1,
    ),
    "largest of windows of sigmoids": (
        lambda h: layers.Reshape((1,))(layers.MaxPooling1D(2)(layers.Reshape((2, 1))(ops.sigmoid(h)))),
        0,
        1,
    ),
    "product of sigmoids": (lambda h: ops.sigmoid(h) * ops.sigmoid(2 * h + 1), 0, 1),
    "part of a sum": (lambda h: ops.exp(h) / ops.sum(ops.exp(h), axis=-1, keepdims=True), 0, np.inf),
    "part of its own sum": (lambda h: (lambda e: e / ops.sum(e, axis=-1, keepdims=True))(ops.exp(h)), 0, 1),
    "reshaped": (lambda h: layers.Reshape((1, 2))(ops.sigmoid(h)), 0, 1),
    "maximum": (lambda h: ops.maximum(ops.tanh(h), 0.25), 0.25, 1),
    "trained scale": (lambda h: layers.Dense(1)(ops.sigmoid(h)), -np.inf, np.inf),
}


@pytest.mark.parametrize("name", LAST)
def test_a_range(name):
    """As it should be, and nothing that the model gives for large weights lies outside."""
    last, low, high = LAST[name]
    model = trained(last)
    found = allowed(model)
    assert (np.min(found.low), np.max(found.high)) == (low, high)
    rng = np.random.default_rng(0)
    for size in (0.1, 1, 10, 100):
        model.get_layer("d").set_weights([rng.normal(0, size, (3, 2)), rng.normal(0, size, 2)])
        values = ops.convert_to_numpy(model(X))
        assert np.all(((values >= found.low) & (values <= found.high)) | np.isnan(values))


def test_ranges_of_two_parts():
    model = trained(lambda h: ops.concatenate([ops.sigmoid(h), h, 3 * ops.tanh(h)], axis=-1))
    found = allowed(model)
    assert found.low.ravel().tolist() == [0, 0, -np.inf, -np.inf, -3, -3]
    assert found.high.ravel().tolist() == [1, 1, np.inf, np.inf, 3, 3]


def test_what_is_not_trained_does_not_count():
    """A layer that is frozen gives what it gives, and its inputs may be anything: no limit is known, nor its lack."""
    x = keras.Input((3,))
    frozen = compiled(keras.Model(x, layers.Dense(2, trainable=False)(x)), "mse")
    assert not allowed(frozen).free and not allowed(frozen).limited
    assert allowed(trained(lambda h: h)).free
    same = compiled(keras.Model(x, layers.Identity()(x)), "mse")
    assert not allowed(same, data=True).free and allowed(same, data=True).bounded


ENDS = {
    "sigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "relu": (0.0, np.inf),
    "softplus": (0.0, np.inf),
    "relu6": (0.0, 6.0),
}
LOSSES = {
    "mse": lambda y, p: (y - p) ** 2,
    "mae": lambda y, p: np.abs(y - p),
    "huber": lambda y, p: np.where(np.abs(y - p) <= 1, 0.5 * (y - p) ** 2, np.abs(y - p) - 0.5),
    "log_cosh": lambda y, p: np.logaddexp(y - p, p - y) - np.log(2),
    "hinge": lambda y, p: np.maximum(1 - y * p, 0),
    "squared_hinge": lambda y, p: np.maximum(1 - y * p, 0) ** 2,
    "dear_below": lambda y, p: np.where(p < y, 3.0, 1.0) * (y - p) ** 2,
}
OWN = {"dear_below": lambda y, p: ops.mean(ops.where(p < y, 3.0, 1.0) * ops.square(y - p), axis=-1)}
NEVER_QUITE = {"sigmoid", "tanh", "softplus"}  # at the ends that bound them
MODELS = {}


def brute(y, loss, low, high, weight):
    """The lowest mean of weighted element losses, one prediction at a time, on a grid that is made finer and finer."""
    total = 0.0
    for target, w in zip(y.ravel(), np.broadcast_to(weight, y.shape).ravel()):
        left, right = max(low, -200.0), min(high, 200.0)
        for _ in range(12):
            grid = np.linspace(left, right, 201)
            best = int(np.argmin(LOSSES[loss](target, grid)))
            left, right = grid[max(best - 1, 0)], grid[min(best + 1, 200)]
        total += w * float(LOSSES[loss](target, grid[best]))
    return total / y.size


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from(list(ENDS)), st.sampled_from(list(LOSSES)), st.sampled_from([1.0, 3.0, 50.0]),
    st.sampled_from([0.0, -20.0, 20.0]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_the_floor_is_that_of_brute_force(activation, loss, scale, shift, weighted, seed):
    rng = np.random.default_rng(seed)
    y = (rng.normal(size=(6, 2)) * scale + shift).astype("float32")
    if "hinge" in loss:
        y = np.where(y > shift, 1.0, -1.0).astype("float32")
    weight = rng.random(6).astype("float32") if weighted else np.ones(6, "float32")
    key = activation, loss
    if key not in MODELS:
        MODELS[key] = trained(layers.Activation(activation), OWN.get(loss, loss))
    floors = []
    with mock.patch.object(reach, "floor", lambda *args: floors.append(floor(*args)) or floors[-1]):
        found = [f for f in lossviz.lint(MODELS[key], X, y, weight) if f.rule == "out-of-reach"]
    lowest = brute(y, loss, *ENDS[activation], weight[:, None])
    now = MODELS[key].test_on_batch(X, y, weight)
    if found:
        said = float(found[0].sentence.split("never below ")[1].split(";")[0].split(",")[0].rstrip("."))
        assert said == pytest.approx(lowest, rel=1e-3)
        # a float32 log_cosh has lost digits below 1e-7
        assert floors[0].lowest == pytest.approx(lowest, rel=1e-6, abs=1e-7) and floors[0].without < 1e-6 * now
        assert ("never quite reaches" in found[0].sentence) == (activation in NEVER_QUITE)
    assert bool(found) == (lowest >= 0.01 * now)


def sentence_of_the_floor(model, x, y, weight=None):
    (found,) = [f for f in lossviz.lint(model, x, y, weight) if f.rule == "out-of-reach"]
    return float(found.sentence.split("never below ")[1].split(";")[0].split(",")[0].rstrip("."))


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_the_floor_of_the_steps_that_count(loss):
    x = np.ones((4, 3, 3), "float32")
    x[0, 1:] = x[2, 2:] = 0
    y = (20 + 5 * np.random.default_rng(0).random((4, 3, 2))).astype("float32")
    y[2, 2] = 1000  # at a step that is masked
    entry = keras.Input((3, 3))
    out = layers.Dense(2, "sigmoid")(layers.Masking()(entry))
    counts = np.any(x != 0, axis=-1)
    expected = brute(y[counts], loss, 0.0, 1.0, 1.0)
    assert sentence_of_the_floor(compiled(keras.Model(entry, out), loss), x, y) == pytest.approx(expected, rel=1e-3)


@settings(max_examples=8, deadline=None, derandomize=True, database=None)
@given(st.sampled_from(list(ENDS)), st.sampled_from([3.0, 20.0]), st.integers(0, 99))
def test_the_floor_under_a_root(activation, scale, seed):
    """The slope of each prediction depends on all of them; its sign does not."""
    key = activation, "root"
    if key not in MODELS:
        root = lambda y, p: ops.sqrt(ops.mean(ops.square(y - p)))  # noqa: E731
        MODELS[key] = trained(layers.Activation(activation), root)
    y = (np.random.default_rng(seed).normal(size=(6, 2)) * scale - 20).astype("float32")
    lowest = np.sqrt(brute(y, "mse", *ENDS[activation], 1.0))
    assert sentence_of_the_floor(MODELS[key], X, y) == pytest.approx(lowest, rel=1e-3)


def projected(rows: np.ndarray) -> np.ndarray:
    """The nearest rows that are at least 0 and sum to 1 (Held, Wolfe and Crowder 1974: sort, find the threshold)."""
    ordered = -np.sort(-rows, axis=-1)
    excess = np.cumsum(ordered, -1) - 1
    count = np.sum(ordered * np.arange(1, rows.shape[-1] + 1) > excess, -1, keepdims=True)
    return np.maximum(rows - np.take_along_axis(excess, count - 1, -1) / count, 0)


@settings(max_examples=6, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([1.0, 3.0, 30.0]), st.sampled_from([0.0, -4.0, 25.0]), st.booleans(), st.integers(0, 99))
def test_the_floor_under_a_softmax(scale, shift, weighted, seed):
    rng = np.random.default_rng(seed)
    y = (rng.normal(size=(6, 3)) * scale + shift).astype("float32")
    weight = rng.random(6).astype("float32") if weighted else np.ones(6, "float32")
    if "softmax" not in MODELS:
        MODELS["softmax"] = trained(layers.Dense(3, "softmax"), "mse")
    floors = []
    with mock.patch.object(reach, "floor", lambda *args: floors.append(floor(*args)) or floors[-1]):
        found = [f for f in lossviz.lint(MODELS["softmax"], X, y, weight) if f.rule == "out-of-reach"]
    target = y.astype(float)
    lowest = float(np.mean(np.square(projected(target) - target).mean(-1) * weight))
    now = MODELS["softmax"].test_on_batch(X, y, weight)
    if found:
        assert floors[0].lowest == pytest.approx(lowest, rel=1e-6)
    assert bool(found) == (lowest >= 0.01 * now)


def test_a_loss_of_pairs_claims_nothing():
    """The best place of each prediction depends on the others."""

    def pairs(y, p):
        return ops.mean(ops.square((y - ops.transpose(y)) - (p - ops.transpose(p))))

    model = trained(layers.Activation("sigmoid"), pairs, units=1)
    y = 20 * inputs(6, 1)
    assert "out-of-reach" not in [f.rule for f in lossviz.lint(model, X, y)]


NEW_ENDS = {
    "swish": (ops.silu, -0.2784645427610738, np.inf),
    "gelu": (lambda h: ops.gelu(h, approximate=False), -0.16997120747990369, np.inf),
    "gelu by tanh": (lambda h: ops.gelu(h, approximate=True), -0.17004075057125412, np.inf),
    "unit length": (lambda h: layers.UnitNormalization()(h), -1, 1),
    "blend": (lambda h: (lambda z: z * 5 + (1 - z) * ops.tanh(h))(ops.sigmoid(h)), -1, 5),
}


@pytest.mark.parametrize("name", NEW_ENDS)
def test_a_range_of_a_function_of_one_number(name):
    last, low, high = NEW_ENDS[name]
    found = allowed(trained(last))
    assert float(np.min(found.low)) == pytest.approx(low, abs=1e-7) and float(np.max(found.high)) == high


@pytest.mark.parametrize("layer", [layers.LSTM(2), layers.GRU(2, return_sequences=True), layers.SimpleRNN(2)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_range_of_a_recurrent_layer(layer, masked):
    entry = keras.Input((4, 3))
    hidden = layers.Masking()(entry) if masked else entry
    model = compiled(keras.Model(entry, layer.from_config(layer.get_config())(hidden)), "mse")
    found = allowed(model, inputs(5, 4, 3))
    assert (float(np.min(found.low)), float(np.max(found.high))) == (-1, 1)


def test_a_range_of_a_recurrent_layer_without_a_limit():
    entry = keras.Input((4, 3))
    model = compiled(keras.Model(entry, layers.SimpleRNN(2, activation="relu")(entry)), "mse")
    assert not allowed(model, inputs(5, 4, 3)).bounded and float(np.min(allowed(model, inputs(5, 4, 3)).low)) == 0
    model = compiled(keras.Model(entry, layers.LSTM(2, activation="linear")(entry)), "mse")
    assert not allowed(model, inputs(5, 4, 3)).limited


def test_a_range_of_a_state_that_grows_with_the_steps():
    """The cell of an LSTM adds up to 1 at each of 50 steps."""
    entry = keras.Input((50, 3))
    model = compiled(keras.Model(entry, layers.LSTM(2, return_state=True)(entry)[2]), "mse")
    assert not allowed(model, inputs(5, 50, 3)).limited
