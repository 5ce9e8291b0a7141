"""`lint(..., try_fixes=True)`: what came of a fix on a copy of the model, and that the model is as it was."""

import random
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models import ON_TENSORFLOW, compiled, inputs, labels, onehot, weights

import lossviz
from lossviz import rules
from lossviz.ask import fixes

X = inputs(32, 4)
LARGE = 20 + 30 * weights(32, 1)
BINARY = (X[:, :1] > 0).astype("float32")
CLASSES = labels(32, classes=3)


class OwnLoss(keras.losses.Loss):
    """Not registered, and without the reshaping that Keras does for functions."""

    def call(self, y_true, y_pred):
        return keras.ops.square(y_true - y_pred)


def net(units: int, activation: str | None, loss, *, take: tuple = (4,), **options) -> keras.Model:
    """Two dense layers, the last of them "o"."""
    entry = keras.Input(take)
    hidden = layers.Dropout(0.2)(layers.Dense(8, activation="relu")(entry))
    model = keras.Model(entry, layers.Dense(units, activation=activation, name="o")(hidden))
    model.compile(keras.optimizers.SGD(0.01), loss, **options)
    return model


def named_outputs() -> keras.Model:
    entry = keras.Input((4,))
    model = keras.Model(entry, {name: layers.Dense(1, name=name)(entry) for name in ("b", "a")})
    return compiled(model, {"b": "mse", "a": "mae"}, loss_weights=[1.0, 5.0])


#: By rule: a model, its data, and the words of the change.
CASES = {
    "out-of-reach": (lambda: net(1, "sigmoid", "mse"), (X, LARGE), "activation=None"),
    "cannot-change": (lambda: net(1, "softmax", "mse"), (X, BINARY), "activation='sigmoid'"),
    "double-activation": (
        lambda: net(3, "softmax", keras.losses.SparseCategoricalCrossentropy(from_logits=True)),
        (X, CLASSES),
        "from_logits=False in the loss",
    ),
    "swapped-activation": (
        lambda: net(3, "sigmoid", "categorical_crossentropy"),
        (X, onehot(32, classes=3)),
        "activation='softmax'",
    ),
    "unnormalised": (
        lambda: net(3, None, "sparse_categorical_crossentropy"),
        (X, CLASSES),
        "from_logits=True in the loss",
    ),
    "broadcast": (lambda: net(1, None, OwnLoss()), (X, LARGE[:, 0]), "y.reshape(-1, 1)"),
    "reduction-none": (
        lambda: net(1, None, keras.losses.MeanSquaredError(reduction=None)),
        (X, LARGE),
        "reduction='sum_over_batch_size' in the loss",
    ),
    "weights-axis": (
        lambda: net(3, None, "mse", take=(32, 4)),
        (inputs(32, 32, 4), inputs(32, 32, 3), weights(32)),
        "sample_weight.reshape(-1, 1)",
    ),
    "loss-weights-order": (
        named_outputs,
        (X, {"b": BINARY, "a": LARGE}),
        "loss_weights={'b': 1.0, 'a': 5.0}",
    ),
    "unused-option": (
        lambda: net(1, "sigmoid", keras.losses.BinaryFocalCrossentropy(alpha=0.6)),
        (X, BINARY),
        "apply_class_balancing=True in the loss",
    ),
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("rule", CASES)
def test_a_fix_of_one_change_is_tried_and_what_came_of_it_is_said(rule):
    if rule == "swapped-activation" and not ON_TENSORFLOW:
        pytest.skip("TensorFlow's own")
    make, data, change = CASES[rule]
    (finding,) = [finding for finding in lossviz.lint(make(), *data, try_fixes=True) if finding.rule == rule]
    assert finding.tried.startswith(f"{change}: ") and finding.tried.endswith("; finding gone")
    trains = ON_TENSORFLOW or rule != "reduction-none"  # JAX differentiates no array
    before = r"\S+" if trains else "refused by Keras"
    assert re.search(rf"loss after 20 steps {before} → \S+;", finding.tried)
    assert str(finding).splitlines()[2] == f"Tried: {finding.tried}"


def test_the_numbers_are_the_floor_and_losses_after_twenty_steps():
    model = net(1, "sigmoid", "mse")
    (finding,) = lossviz.lint(model, X, LARGE, try_fixes=True)
    lowest, without = re.search(r"floor (\S+) → (\S+),", finding.tried).groups()
    assert float(lowest) == pytest.approx(float(np.square(LARGE - 1).mean()), rel=1e-3) and without == "0"
    before, after = map(float, re.search(r"steps (\S+) → (\S+);", finding.tried).groups())
    assert after < 0.2 * float(lowest) < 0.2 * before * 1.001


def test_nothing_is_different_afterwards():
    def everything() -> list:
        variables = [*model.variables, *model.optimizer.variables]
        generator = keras.src.backend.common.global_state.get_global_attribute("global_seed_generator")
        return [
            *(np.asarray(variable).tolist() for variable in variables),
            *(random.getstate(), np.random.get_state()[1].tolist(), generator and np.asarray(generator.state).tolist()),
            *(model.train_function, model.test_function, model.loss, sorted(set(vars(model)) - {"_lossviz_kept"})),
        ]

    keras.utils.set_random_seed(5)
    tf.random.uniform(())
    model = net(1, "sigmoid", "mse", metrics=["mae"])
    model.fit(X, LARGE, verbose=0)
    name = layers.Dense(1).name
    before = everything()
    assert lossviz.lint(model, X, LARGE, try_fixes=True)[0].tried
    assert everything() == before
    assert layers.Dense(1).name == f"dense_{int(name.rpartition('_')[2]) + 1}"


def test_a_model_that_is_more_than_its_layers_is_not_copied():
    class Own(keras.Model):
        def train_step(self, data):
            return super().train_step(data)

    entry = keras.Input((4,))
    model = compiled(Own(entry, layers.Dense(1, activation="sigmoid")(entry)), "mse")
    (finding,) = lossviz.lint(model, X, LARGE, try_fixes=True)
    assert finding.tried == "" and "tried" not in finding.to_dict()


def test_a_layer_that_cannot_be_copied_is_said():
    class Own(layers.Layer):
        def __init__(self, rate):
            super().__init__()
            self.rate = rate

        def call(self, x):
            return self.rate * x

        def get_config(self):
            return {}

    entry = keras.Input((4,))
    model = compiled(keras.Model(entry, layers.Dense(1, activation="sigmoid")(Own(2.0)(entry))), "mse")
    (finding,) = lossviz.lint(model, X, LARGE, try_fixes=True)
    assert finding.tried.startswith("not tried: TypeError") and str(finding).splitlines()[2] == finding.tried


def test_every_fix_is_of_a_rule():
    assert set(fixes.FIXES) <= set(rules.RULES)
    assert set(CASES) <= set(fixes.FIXES)


def test_without_it_nothing_is_tried():
    (finding,) = lossviz.lint(net(1, "sigmoid", "mse"), X, LARGE)
    assert finding.tried == "" and "Tried" not in str(finding)
