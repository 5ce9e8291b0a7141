"""What `explain` keeps with a model where Keras's steps note their state with it: KERAS_BACKEND=jax."""

import keras
import pytest
from keras import layers
from models import ON_TENSORFLOW, compiled, dense, inputs, targets, two_outputs

import lossviz
from lossviz.ask import kept

pytestmark = pytest.mark.skipif(ON_TENSORFLOW, reason="JAX's own; see test_kept.py")

X, Y = inputs(6, 4), targets(6, 3)


def test_a_plan_is_kept_while_keras_takes_steps():
    model = compiled(dense(), "mse")
    lossviz.explain(model, X, Y)
    before = list(kept.of(model).plans.values())
    for step in (model.test_on_batch, model.train_on_batch, lambda x, y: model.fit(x, y, verbose=0)):
        step(X, Y)
        report = lossviz.explain(model, X, Y).check()
        assert list(kept.of(model).plans.values()) == before
        assert report.total == pytest.approx(model.test_on_batch(X, Y), rel=1e-6)


def test_and_renewed_where_something_changes():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="o")])
    factor = {"factor": 1.0}
    compiled(model, lambda y, p: factor["factor"] * keras.ops.mean(keras.ops.square(y - p), -1))
    before = lossviz.explain(model, X, Y).total
    factor["factor"] = 2.0
    assert lossviz.explain(model, X, Y).check().total == pytest.approx(2 * before, rel=1e-6)


def test_a_report_has_the_loss_weight_of_now_and_keras_once_it_compiles_again():
    weight = keras.Variable(1.0)
    model, y = two_outputs(), [targets(6, 3), targets(6, 2)]
    options = {"loss": ["mse", "mae"], "loss_weights": [1.0, weight]}
    model.compile(**options)
    before = model.evaluate(X, y, verbose=0)[0]
    assert lossviz.explain(model, X, y).check().reported == pytest.approx(before)
    weight.assign(5.0)
    now = lossviz.explain(model, X, y).check().reported
    assert model.evaluate(X, y, verbose=0)[0] == before < now
    model.compile(**options)
    assert model.evaluate(X, y, verbose=0)[0] == pytest.approx(now)
