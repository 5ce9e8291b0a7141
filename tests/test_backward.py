"""What `find_nonfinite` asks of a program, on the backend that Keras runs on: a backward pass of operations that know
what they differentiate, how many numbers are not finite, where an operation was made."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import compiled, targets, weights

from lossviz.backend import tracing
from lossviz.backend.program import ancestors

X, Y = 1.0 + weights(5, 3), targets(5, 1)


class Logarithm(layers.Layer):
    def call(self, x):
        return ops.log(x)  # the line that made it


def lowered():
    """A model of one weight w, its loss mean((log(x) w - y)²) as a program, and the function of it."""
    x = keras.Input((3,))
    model = compiled(keras.Model(x, layers.Dense(1, use_bias=False, name="o")(Logarithm(name="mine")(x))), "mse")
    loss = tracing.lower(tracing.trace_model(model, X, Y, None, True, "sample_weight"), expanded=False)
    return model, loss


def logarithm(loss):
    return next(op for op in ancestors([loss.root]) if op.info.get("how") == "log")


def slope(model):
    """The gradient by w, in NumPy."""
    z = np.log(X)
    return 2 * z.T @ (z @ model.get_layer("o").kernel.numpy() - Y) / len(X)


@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_a_backward_pass_gives_the_gradient_and_can_be_fed(scale):
    model, loss = lowered()
    backward = loss.program.backward(loss.root, loss.trainable, scale)
    (gradient,) = backward.gradients
    run = loss.program.runner([gradient], loss.program.feeds)
    np.testing.assert_allclose(run([X, Y])[0], scale * slope(model), rtol=1e-5)
    seeded = loss.program.runner([gradient], [*loss.program.feeds, backward.seed])
    np.testing.assert_allclose(seeded([X, Y, np.float32(3)])[0], 3 * slope(model), rtol=1e-5)


def test_each_operation_of_a_backward_pass_knows_what_it_differentiates():
    _, loss = lowered()
    x = loss.inputs["x"][0]
    (gradient,) = loss.program.backward(loss.root, [x], 1.0).gradients
    made = [op for op in ancestors([gradient]) if op.backward]
    known = set(ancestors([loss.root]))
    originals = {op.original for op in made} - {None}
    assert logarithm(loss) in originals and not any(op.backward for op in originals)
    assert not any(op.backward or op.original for op in known)
    log = logarithm(loss)
    parts = loss.program.derivatives(log)
    assert parts and all(op.original is log and op.backward for op in parts)
    (incoming,) = {v for op in parts for v in op.inputs if v.op.backward and v.op not in parts and v.shape == (5, 3)}
    handed_back = parts[-1].outputs[0]
    a, b, c = loss.program.runner([incoming, handed_back, gradient], loss.program.feeds)([X, Y])
    np.testing.assert_allclose(b, a / X, rtol=1e-5)
    np.testing.assert_array_equal(c, b)


def test_no_gradient_where_the_loss_does_not_depend():
    _, loss = lowered()
    assert loss.program.backward(loss.inputs["y_true"][0], loss.trainable, 1.0).gradients == [None]


def test_what_is_not_finite_is_counted_also_where_others_stand_in():
    _, loss = lowered()
    value = logarithm(loss).outputs[0]
    x = np.array(X)
    x[0, 0], x[1, :2], x[2, 1] = 0, -1, np.inf
    found = loss.program.summary([value, loss.root], loss.program.feeds)([x, Y])
    assert found[0].tolist() == [1, 1, 2] and found[1].any()
    stood_in = loss.program.summary([value, loss.root], [*loss.program.feeds, value])([x, Y, np.log(X)])
    assert not stood_in.any()


def test_an_operation_knows_its_place_its_layer_and_its_line():
    _, loss = lowered()
    log = logarithm(loss)
    places = [loss.program.place(op) for op in ancestors([loss.root]) if op.inputs]
    assert len(set(places)) == len(places) and places.index(loss.program.place(log)) < len(places) - 1
    assert loss.layers[log.region] == "mine"
    lines = Path(__file__).read_text().splitlines()
    own = [number for path, number in loss.program.frames(log) if path == __file__]
    assert "the line that made it" in lines[own[-1] - 1]


def test_what_a_weight_is_read_from_has_its_path():
    model, loss = lowered()
    paths = loss.program.paths(model.variables)
    assert [paths[weight] for weight in loss.trainable] == ["o/kernel"]
