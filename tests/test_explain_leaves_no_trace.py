"""`explain` leaves a model, its optimizer, its metrics and every random generator alone, also when it fails."""

import random

import keras
import numpy as np
import pytest
from keras import layers, ops
from keras.src.backend.common import global_state
from models import ON_TENSORFLOW, compiled, dense, inputs, only_tensorflow, targets

import lossviz

if ON_TENSORFLOW:
    import tensorflow as tf


class Counts(layers.Layer):
    """State that moves on every call, in evaluation too: one variable that Keras knows, and one that it does not
    (on JAX there is none such: only what Keras knows comes out of a step)."""

    def build(self, shape):
        self.calls = self.add_weight(shape=(), initializer="zeros", trainable=False, name="calls")
        self.hidden = tf.Variable(0.0) if ON_TENSORFLOW else None

    def call(self, x):
        self.calls.assign_add(1.0)
        if self.hidden is None:
            return x + self.calls
        self.hidden.assign_add(1.0)
        return x + self.calls + self.hidden


class Centers(layers.Layer):
    """The centers of a center loss, which an unwise layer moves in evaluation too."""

    def build(self, shape):
        self.centers = self.add_weight(shape=(2, shape[-1]), initializer="zeros", trainable=False, name="centers")

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x - self.centers[0])))
        self.centers.assign(self.centers + 0.1 * (ops.mean(x, axis=0) - self.centers))
        return x


LOSS_CALLS = tf.Variable(0.0) if ON_TENSORFLOW else None


def counting_loss(y_true, y_pred):
    loss = ops.mean(ops.square(y_true - y_pred), axis=-1)
    return loss if LOSS_CALLS is None else loss * LOSS_CALLS.assign_add(1.0)


def everything() -> keras.Model:
    """A model with every kind of state, trained for a step."""
    x = keras.Input(batch_shape=(6, 5, 4))
    hidden = layers.LSTM(4, stateful=True, name="lstm")(x)
    hidden = layers.Dropout(0.5, seed=1)(layers.BatchNormalization()(hidden))
    hidden = Counts(name="counts")(Centers(name="centers")(layers.GaussianNoise(0.1)(hidden)))
    hidden = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l2", name="o")(hidden)
    model = compiled(keras.Model(x, hidden), counting_loss, optimizer="adam", metrics=["mae"])
    model.train_on_batch(inputs(6, 5, 4), targets(6, 3))
    model.test_on_batch(inputs(6, 5, 4), targets(6, 3))
    model.predict_on_batch(inputs(6, 5, 4))
    return model


def state_of(model) -> dict[str, np.ndarray]:
    """All numbers that training, evaluation or chance could depend on."""
    state = {f"{k} {v.path}": v.numpy() for k, v in enumerate([*model.variables, *model.metrics_variables])}
    state |= {f"optimizer {k} {v.path}": v.numpy() for k, v in enumerate(model.optimizer.variables)}
    if "lstm" in [layer.name for layer in model.layers]:
        state |= {f"lstm state {k}": v.numpy() for k, v in enumerate(model.get_layer("lstm").states)}
    if "lstm" in [layer.name for layer in model.layers] and ON_TENSORFLOW:
        state["tf.Variable of a layer"] = model.get_layer("counts").hidden.numpy()
        state["tf.Variable of the loss"] = LOSS_CALLS.numpy()
    generator = global_state.get_global_attribute("global_seed_generator")
    state["seed of keras"] = np.array(-1) if generator is None else generator.state.numpy()
    state["seed of numpy"] = np.array([*np.random.get_state()[1], *np.random.get_state()[2:]])
    state["seed of python"] = np.array(random.getstate()[1])
    return state


def python_state_of(model) -> dict:
    """Objects that must be the same ones afterwards."""
    names = (
        "train_function",
        "test_function",
        "predict_function",
        "optimizer",
        "loss",
        "steps_per_execution",
        "stop_training",
    )
    return {
        **{name: getattr(model, name) for name in names},
        "losses": [id(loss) for layer in model.layers for loss in layer._losses],
        "activity": [layer.activity_regularizer for layer in model.layers],
        "metrics": [metric.name for metric in model.metrics],
        "optimizer built": model.optimizer.built,
        "flat losses": list(model._compile_loss._flat_losses or []),
        "override": model._losses_override,
    }


def assert_same(before: dict, after: dict):
    assert list(before) == list(after)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(5)
    return everything()


CALLS = {
    "explain": lambda model: lossviz.explain(model, inputs(6, 5, 4), targets(6, 3)),
    "explain in training mode": lambda model: lossviz.explain(model, inputs(6, 5, 4), targets(6, 3), training=True),
    "a failing explain (y)": lambda model: lossviz.explain(model, inputs(6, 5, 4), targets(6, 2)),
    "a failing explain (x)": lambda model: lossviz.explain(model, inputs(6, 5, 7), targets(6, 3)),
    "a failing explain (weights)": lambda model: lossviz.explain(
        model, inputs(6, 5, 4), targets(6, 3), np.ones((6, 2))
    ),
    "a failing explain (axes)": lambda model: lossviz.explain(
        model, inputs(6, 5, 4), targets(6, 3), axes=("a", "b", "c")
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_moves(model, call, request):
    numbers, objects = state_of(model), python_state_of(model)
    if "failing" in request.node.name:
        with pytest.raises(ValueError):
            call(model)
    else:
        call(model).check()
    assert_same(numbers, state_of(model))
    assert objects == python_state_of(model)


def test_the_state_in_this_file_does_move_without_explain(model):
    """If it stood still, the tests above would pass for nothing."""
    before = state_of(model)
    model.test_on_batch(inputs(6, 5, 4), targets(6, 3))
    random.random(), np.random.random(), keras.random.normal((1,))
    after = state_of(model)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    for name in (
        # on JAX no step of Keras moves the states of an RNN
        *(("lstm state 0", "tf.Variable of a layer", "tf.Variable of the loss") if ON_TENSORFLOW else ()),
        "seed of numpy",
        "seed of python",
        "seed of keras",
    ):
        assert name in moved
    for part in ("calls", "centers", "total"):  # the last is a metric's
        assert any(part in name for name in moved), part


@pytest.mark.parametrize("training", [False, True])
def test_the_same_input_gives_the_same_report(model, training):
    reports = [lossviz.explain(model, inputs(6, 5, 4), targets(6, 3), training=training).to_dict() for _ in range(4)]
    # on JAX the first asks Keras for the number; this agreed, and the others do not ask again
    reports = reports if ON_TENSORFLOW else reports[1:]
    assert all(report == reports[0] for report in reports)


def test_the_next_training_step_is_the_one_that_would_have_been():
    def train(between):
        keras.utils.set_random_seed(11)
        if ON_TENSORFLOW:
            LOSS_CALLS.assign(0.0)
        model = everything()
        between(model)
        losses = [model.train_on_batch(inputs(6, 5, 4), targets(6, 3), return_dict=True)["loss"] for _ in range(2)]
        return losses, float(keras.random.normal(())), np.random.random(), random.random()

    def explain_twice(model):
        lossviz.explain(model, inputs(6, 5, 4), targets(6, 3), training=True)
        lossviz.explain(model, inputs(6, 5, 4), targets(6, 3))

    assert train(explain_twice) == train(lambda model: None)


@pytest.mark.parametrize("wrong", [False, True])
def test_an_optimizer_without_slots_gets_none(wrong):
    model = compiled(dense(), "mse", optimizer="adam")
    count, built = len(model.optimizer.variables), model.optimizer.built
    if wrong:
        with pytest.raises(ValueError):
            lossviz.explain(model, inputs(6, 4), targets(6, 2))
    lossviz.explain(model, inputs(6, 4), targets(6, 3))
    assert (len(model.optimizer.variables), model.optimizer.built) == (count, built) == (2, False)
    model.fit(inputs(6, 4), targets(6, 3), verbose=0)
    assert len(model.optimizer.variables) == 2 + 2 * 2


def test_metrics_keep_what_they_have_seen():
    model = compiled(dense(), "mse", metrics=["mae"])
    model.test_on_batch(inputs(6, 4), np.zeros((6, 3)))
    before = model.get_metrics_result()
    lossviz.explain(model, inputs(6, 4), 1e6 + np.zeros((6, 3), "float32"))
    assert model.get_metrics_result() == before


def test_several_steps_per_execution_stay_set():
    model = compiled(dense(), "mse", steps_per_execution=7)
    lossviz.explain(model, inputs(6, 4), targets(6, 3))
    assert model.steps_per_execution == 7


@only_tensorflow
def test_global_random_numbers_of_tensorflow_go_on():
    def draw(between):
        tf.random.set_seed(3)
        first = float(tf.random.uniform(()))
        between()
        return first, float(tf.random.uniform(()))

    model = compiled(dense(), "mse")
    assert draw(lambda: lossviz.explain(model, inputs(6, 4), targets(6, 3))) == draw(lambda: None)


def test_an_explained_model_can_be_collected():
    import gc
    import weakref

    def explained():
        model = compiled(dense(), "mse")
        lossviz.explain(model, inputs(6, 4), targets(6, 3))
        return weakref.ref(model)

    reference = explained()
    keras.backend.clear_session()
    gc.collect()
    assert reference() is None


@only_tensorflow
def test_a_name_that_tensorflow_refuses_is_in_no_later_name():
    entry = keras.Input((4,))
    model = compiled(keras.Model(entry, layers.Dense(3)(entry), name="<b>"), "mse")
    with pytest.raises(ValueError, match="<b>"):
        lossviz.explain(model, inputs(6, 4), targets(6, 3))
    assert dense().get_layer("o").kernel.path == "o/kernel"
