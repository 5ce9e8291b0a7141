"""`guard` where Keras's step takes the state of the model and gives it back: KERAS_BACKEND=jax.

The same training, bit for bit, with a guard and without; and its findings.
"""

import keras
import numpy as np
import pytest
from keras import layers
from models import ON_TENSORFLOW, compiled, inputs, labels

import lossviz

pytestmark = pytest.mark.skipif(ON_TENSORFLOW, reason="JAX's own; see test_guard.py")

X, Y = inputs(20, 4), labels(20, classes=2)[:, None].astype("float32")


def model(loss="binary_crossentropy", **options) -> keras.Model:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, activation="relu"), layers.BatchNormalization(), layers.Dropout(0.5)]
    made = keras.Sequential([keras.Input((4,)), *hidden, layers.Dense(1, name="o")])
    return compiled(made, loss, optimizer="adam", metrics=["accuracy"], **options)


def trained(made: keras.Model, **more) -> tuple[dict, list[np.ndarray]]:
    options = {"batch_size": 8, "epochs": 2, "verbose": 0, "validation_data": (X, Y)}
    history = made.fit(X, Y, **options | more).history
    return history, [np.asarray(variable.value) for variable in (*made.variables, *made.optimizer.variables)]


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}, {"steps_per_execution": 2}, {"jit_compile": False}])
def test_training_is_the_same_bit_for_bit(options, capsys):
    history, values = trained(model(**options))
    with lossviz.guard() as watch:
        again, other = trained(model(**options))
    assert again == history
    assert all(np.array_equal(a, b) for a, b in zip(values, other, strict=True))
    assert [finding.rule for finding in watch.findings] == ["unnormalised"]
    assert "unnormalised" in capsys.readouterr().err


def test_evaluate_and_train_on_batch_are_looked_at(capsys):
    plain, watched = model(), model()
    expected = plain.train_on_batch(X, Y), plain.evaluate(X, Y, verbose=0)
    with lossviz.guard() as watch:
        found = watched.train_on_batch(X, Y), watched.evaluate(X, Y, verbose=0)
    np.testing.assert_array_equal(np.concatenate(found), np.concatenate(expected))
    assert watch.findings


def test_what_a_sound_model_gets_is_nothing(capsys):
    with lossviz.guard() as watch:
        trained(model(keras.losses.BinaryCrossentropy(from_logits=True)))
    assert watch.findings == () and "error" not in capsys.readouterr().err


def test_an_error_of_a_step_is_that_of_keras():
    made = model()
    with lossviz.guard(), pytest.raises(ValueError) as watched:
        made.fit(X, Y[:, [0, 0, 0]], verbose=0)
    with pytest.raises(ValueError) as plain:
        model().fit(X, Y[:, [0, 0, 0]], verbose=0)
    assert str(watched.value).splitlines()[0] == str(plain.value).splitlines()[0]


def test_a_model_without_a_loss_which_keras_trains_on_0_is_told(capsys):
    entry = keras.Input((4,))
    model = compiled(keras.Model(entry, layers.Dense(1)(entry)))
    before = model.get_weights()
    with lossviz.guard():
        assert model.fit(X, Y, verbose=0).history == {"loss": [0.0]}
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert "has no loss that explain can read: compile got none" in capsys.readouterr().err
