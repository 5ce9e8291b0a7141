"""What `explain` keeps with a model: used again while the model is the same, never when anything has changed."""

import argparse
import copy
import gc
import os
import pickle
import types
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from models import believe, compiled, dense, inputs, onehot, sequence, targets, two_outputs, weights

import lossviz
from lossviz.ask import kept
from lossviz.backend import graph
from lossviz.backend import keras_private as _keras

X, Y = inputs(6, 4), targets(6, 3)


@pytest.fixture
def traces(monkeypatch):
    """Counts the traces that `explain` makes."""
    count = types.SimpleNamespace(made=0)
    original = graph.trace

    def trace(*arguments):
        count.made += 1
        return original(*arguments)

    monkeypatch.setattr(graph, "trace", trace)
    return count


def fresh(model) -> float:
    """The loss from Keras, traced anew: what a report must follow."""
    model.make_test_function(force=True)
    return model.test_on_batch(X, Y, return_dict=True)["loss"]


class Scaled(keras.losses.Loss):
    factor = 1.0  # of the class

    def __init__(self, alpha=0.5, table=(1.0, 1.0, 1.0)):
        super().__init__()
        self.alpha, self.inner = alpha, types.SimpleNamespace(beta=[2.0])
        self.table = np.array(table, "float32")
        self.by_name = {"gamma": 1.0}

    def call(self, y_true, y_pred):
        scale = self.alpha * self.factor * self.inner.beta[0] * self.by_name["gamma"]
        return ops.mean(ops.square(y_true - y_pred) * self.table, axis=-1) * scale


class Rate(layers.Layer):
    rate = 2.0

    def call(self, x):
        return x * self.rate


GLOBAL = 1.0


def with_global(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * GLOBAL


def with_default(y_true, y_pred, scale=1.0):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * scale


OPTIONS, NESTED = types.ModuleType("options"), types.ModuleType("nested")
OPTIONS.nested, NESTED.beta = NESTED, 1.0
ARGUMENTS = argparse.Namespace(gamma=1.0)


def with_environment(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * float(os.environ.get("LOSSVIZ_TEST_SCALE", "1"))


def with_modules(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * OPTIONS.nested.beta * ARGUMENTS.gamma


def with_names_in_strings(y_true, y_pred):
    return ops.mean(ops.square(y_true - y_pred), axis=-1) * getattr(NESTED, "beta") * globals()["GLOBAL"]  # noqa: B009


def taught():
    teacher = layered()

    def distilled(y_true, y_pred):
        return ops.mean(ops.square(y_pred - teacher(ops.ones((6, 4)))), axis=-1)

    model = layered(distilled)
    model.loss.teacher = teacher
    return model


def in_closure():
    box = [1.0]

    def loss(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * box[0]

    return loss, box


def change_global(model):
    globals()["GLOBAL"] = 3.0


def change_default(model):
    with_default.__defaults__ = (3.0,)


def layered(loss="mse", **more):
    x = keras.Input((4,))
    return compiled(keras.Model(x, Rate(name="rate")(layers.Dense(3, name="o", **more)(x))), loss)


CLOSURE, BOX = in_closure()
CHANGES = {
    "attribute of the loss": (lambda: layered(Scaled()), lambda m: setattr(m.loss, "alpha", 0.7)),
    "attribute of the loss's class": (lambda: layered(Scaled()), lambda m: setattr(Scaled, "factor", 3.0)),
    "object in the loss": (lambda: layered(Scaled()), lambda m: m.loss.inner.beta.__setitem__(0, 5.0)),
    "dictionary in the loss": (lambda: layered(Scaled()), lambda m: m.loss.by_name.update(gamma=4.0)),
    "array in the loss, in place": (lambda: layered(Scaled()), lambda m: m.loss.table.__setitem__(1, 9.0)),
    "closure": (lambda: layered(CLOSURE), lambda m: BOX.__setitem__(0, 3.0)),
    "global of a loss": (lambda: layered(with_global), change_global),
    "default of a loss": (lambda: layered(with_default), change_default),
    "attribute of a layer": (layered, lambda m: setattr(m.get_layer("rate"), "rate", 5.0)),
    "attribute of a layer's class": (layered, lambda m: setattr(Rate, "rate", 3.0)),
    "call of a layer": (layered, lambda m: setattr(m.get_layer("rate"), "call", lambda x: x * 7.0)),
    "regulariser": (
        lambda: layered(kernel_regularizer=keras.regularizers.L2(0.1)),
        lambda m: setattr(m.get_layer("o").kernel_regularizer, "l2", 0.2),
    ),
    "frozen layer": (
        lambda: layered(kernel_regularizer=keras.regularizers.L2(0.1)),
        lambda m: setattr(m.get_layer("o"), "trainable", False),
    ),
    "compiled anew": (layered, lambda m: m.compile(loss="mae", jit_compile=False)),
    "loss weights": (layered, lambda m: m.compile(loss="mse", loss_weights=3.0, jit_compile=False)),
    "activation": (layered, lambda m: setattr(m.get_layer("o"), "activation", ops.tanh)),
    "environment": (lambda: layered(with_environment), lambda m: os.environ.update(LOSSVIZ_TEST_SCALE="3")),
    "module in a module": (lambda: layered(with_modules), lambda m: setattr(NESTED, "beta", 3.0)),
    "arguments of a program": (lambda: layered(with_modules), lambda m: setattr(ARGUMENTS, "gamma", 3.0)),
    "name in a string": (lambda: layered(with_names_in_strings), lambda m: setattr(NESTED, "beta", 3.0)),
    "global by its name": (lambda: layered(with_names_in_strings), change_global),
    "layer of another model": (taught, lambda m: setattr(m.loss.teacher.get_layer("rate"), "rate", 5.0)),
    "attribute of a loss of lossviz": (
        lambda: layered(lossviz.losses.LandmarkLoss(1, "mae", from_logits=True)),
        lambda m: setattr(m.loss, "visibility_weight", 3.0),
    ),
    "epsilon": (lambda: layered("msle"), lambda m: keras.config.set_epsilon(1e-2)),
}


@pytest.fixture
def restored():
    saved = Scaled.factor, Rate.rate, keras.config.epsilon()
    yield
    Scaled.factor, Rate.rate = saved[:2]
    keras.config.set_epsilon(saved[2])
    os.environ.pop("LOSSVIZ_TEST_SCALE", None)
    NESTED.beta = ARGUMENTS.gamma = 1.0
    globals()["GLOBAL"], BOX[0], with_default.__defaults__ = 1.0, 1.0, (1.0,)


@pytest.mark.parametrize("make, change", CHANGES.values(), ids=CHANGES)
def test_the_report_follows_a_change(make, change, traces, restored):
    model = make()
    before = lossviz.explain(model, X, Y).check()
    assert lossviz.explain(model, X, Y).check().total == before.total
    assert traces.made == 1
    change(model)
    after = lossviz.explain(model, X, Y).check()
    assert traces.made == 2
    assert after.total == pytest.approx(fresh(model), rel=1e-6)
    assert abs(after.total - before.total) > 1e-4 * abs(before.total)


def test_variables_are_read_anew(traces):
    class Variable(keras.losses.Loss):
        def __init__(self):
            super().__init__()
            self.alpha = tf.Variable(1.0)

        def call(self, y_true, y_pred):
            return ops.mean(ops.square(y_true - y_pred), axis=-1) * self.alpha

    model = compiled(dense(), Variable())
    first = lossviz.explain(model, X, Y).check()
    model.loss.alpha.assign(3.0)
    assert lossviz.explain(model, X, Y).check().total == pytest.approx(3 * first.total, rel=1e-6)
    model.layers[-1].set_weights([np.zeros((4, 3)), np.zeros(3)])
    assert lossviz.explain(model, X, Y).check().total == pytest.approx(3 * np.mean(Y**2), rel=1e-6)
    weight = keras.Variable(2.0)
    model = compiled(two_outputs(), ["mse", "mae"], loss_weights=[weight, 1.0])
    y = [targets(6, 3), targets(6, 2)]
    one = lossviz.explain(model, X, y).check()
    weight.assign(5.0)
    other = lossviz.explain(model, X, y).check()
    assert (one.term("a").loss_weight, other.term("a").loss_weight) == (2.0, 5.0)
    assert other.term("a").contribution == pytest.approx(2.5 * one.term("a").contribution, rel=1e-6)
    assert traces.made == 2


def test_training_goes_on_from_the_same_trace(traces):
    model = compiled(dense(kernel_regularizer="l2"), "mse", optimizer="sgd")
    totals = []
    for _ in range(3):
        totals.append(lossviz.explain(model, X, Y).check().total)
        model.train_on_batch(X, Y)
    assert totals[0] > totals[1] > totals[2]
    assert traces.made <= 2  # the first step makes the optimizer's variables


def test_other_data_are_another_report_and_certified_anew(traces):
    model = compiled(sequence(masked=True), "mse")
    x, y = inputs(6, 5, 4), targets(6, 5, 3)
    dead = lossviz.explain(model, x, y, np.zeros((6, 5), "float32")).check()
    w = weights(6, 5)
    alive = lossviz.explain(model, x, y, w).check()
    error = np.square(model.predict_on_batch(x) - y).mean(-1)
    assert dead.total == 0
    np.testing.assert_allclose(alive.terms[0].contributions.sum(-1), error * w / 30, rtol=1e-4)
    assert traces.made == 1


def test_a_branch_that_the_first_batch_did_not_show_is_caught(traces, monkeypatch):
    """With all weights zero nothing is proved; the next batch must not profit from it."""
    believe(monkeypatch, "Sqrt")

    def rooted(y_true, y_pred):
        return ops.sqrt(ops.mean(ops.square(y_true - y_pred), axis=-1))

    model = compiled(dense(), rooted)
    lossviz.explain(model, X, Y, np.zeros(6, "float32")).check()
    assert lossviz.explain(model, X, Y, np.ones(6, "float32")).check().terms[0].exactness == "opaque"
    assert traces.made == 1


def test_other_shapes_dtypes_and_modes_are_traces_of_their_own_and_only_few_are_kept(traces):
    model = compiled(dense(activation="softmax"), "categorical_crossentropy")
    y = onehot(6, classes=3)
    calls = [
        lambda: lossviz.explain(model, X, y),
        lambda: lossviz.explain(model, X[:4], y[:4]),
        lambda: lossviz.explain(model, X, y, training=True),
        lambda: lossviz.explain(model, X, y, weights(6)),
    ]
    totals = [call().check().total for call in calls]
    assert traces.made == 4
    assert [call().check().total for call in calls] == totals
    assert traces.made == 4
    for size in range(1, 6):
        lossviz.explain(model, X[:size], y[:size]).check()
    assert len(kept.of(model).plans) <= kept.LIMIT


def test_what_no_list_knows_is_read_anew_when_asked_for(tmp_path):
    file = tmp_path / "scale.npy"

    def from_file(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1) * float(np.load(file))

    np.save(file, 1.0)
    model = compiled(dense(), from_file)
    first = lossviz.explain(model, X, Y).check()
    np.save(file, 2.0)
    second = lossviz.explain(model, X, Y, fresh=True).check()
    assert second.total == pytest.approx(2 * first.total, rel=1e-6)


def test_a_number_that_was_confirmed_costs_one_forward_pass(monkeypatch):
    model = compiled(dense(), "mse")
    first = lossviz.explain(model, X, Y).check()
    monkeypatch.setattr(_keras, "test_on_batch", lambda *args, **options: pytest.fail("Keras was asked again"))
    second = lossviz.explain(model, X, Y).check()
    assert (first.source, second.source) == ("test_on_batch", "compute_loss")
    assert second.reported == pytest.approx(first.reported, rel=1e-6)


def test_an_explained_model_is_saved_copied_and_cloned_as_any_other(tmp_path):
    model = compiled(dense(kernel_regularizer="l2"), "mse", optimizer="sgd")
    total = lossviz.explain(model, X, Y).total
    model.save(tmp_path / "m.keras")
    model.save_weights(tmp_path / "m.weights.h5")
    copies = [keras.models.load_model(tmp_path / "m.keras"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    clone = keras.models.clone_model(model)
    clone.compile(loss="mse", jit_compile=False)
    clone.load_weights(tmp_path / "m.weights.h5")
    for other in [*copies, clone]:
        assert not kept.of(other)
        assert lossviz.explain(other, X, Y).check().total == pytest.approx(total, rel=1e-6)


def test_what_is_kept_goes_with_the_model():
    model = compiled(dense(), "mse")
    lossviz.explain(model, X, Y)
    plan = weakref.ref(next(iter(kept.of(model).plans.values())))
    assert plan() is not None
    del model
    keras.backend.clear_session()
    gc.collect()
    assert plan() is None


@pytest.mark.parametrize("explained", [True, False])
def test_automatic_names_are_left_alone(explained):
    """The list of Keras's own attributes is made with layers and models, which must not be counted."""
    keras.backend.clear_session()
    kept._bookkeeping.cache_clear()
    model = compiled(keras.Sequential([layers.Dense(3)]), "mse")
    if explained:
        lossviz.explain(model, X, Y)
    names = [layers.Dense(1).name, keras.Sequential().name, keras.Model().name, layers.Layer().name]
    assert names == ["dense_1", "sequential_1", "model", "layer"]


def test_names_are_read_anew_with_every_call(traces):
    """What the graph says is kept by the names that were asked for, and for those alone."""
    model = compiled(dense(activation="softmax"), keras.losses.Huber(reduction="sum"))
    for axes in [None, ("batch", "colour"), ("sample", "colour"), None]:
        for names in [None, "abc", [1, 2, 3], [True, 2, 3], [1.0, 2, 3]]:
            report = lossviz.explain(model, X, onehot(6, classes=3), axes=axes, class_names=names and list(names))
            for part in (report.terms[0].parts[0], report.terms[0].gradient):
                assert part.axes == (axes or ("batch", "class"))
                assert [repr(label) for label in part.labels[-1]] == [repr(name) for name in names or range(3)]
    assert traces.made == 1
