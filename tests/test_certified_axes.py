"""A share stands at the position of the prediction that its element loss depends on, or along no named axis at all."""

import collections
import threading
import warnings

import keras
import numpy as np
import pytest
import random_losses
from keras import layers, ops
from models import ON_TENSORFLOW, compiled, dense, inputs, only_tensorflow

import lossviz
from lossviz.engine import certify

if ON_TENSORFLOW:
    import tensorflow as tf
else:
    import jax

RNG = np.random.default_rng(5)
Y, P = RNG.uniform(0.05, 0.95, (2, 4, 3)).astype("float32")
CLOSE = {"rtol": 1e-5, "atol": 1e-7}


@pytest.mark.parametrize("first", range(0, 24, 6))
def test_random_losses_that_move_elements(first):
    """Ten thousand of them: `python tests/random_losses.py 0 10000`."""
    count = collections.Counter()
    for seed in range(first, first + 6):
        assert list(random_losses.differences(seed, lossviz.explain_loss, count)) == []
    assert count["shares"] and count["provable and named"] >= 0.95 * count["provable"]


def identity(shape, loss, **options):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layers.Identity(name="o")(inputs))
    model.compile("sgd", loss, jit_compile=False, **options)
    return model


def along(report, axis):
    shares = report.by(axis)
    return [shares[k] for k in sorted(shares)]


SQUARED = np.square(Y - P)
MOVED = {
    "rolled": (lambda y, p: ops.square(ops.roll(y - p, 1, axis=1)), SQUARED / 12),
    "turned round": (lambda y, p: ops.flip(ops.square(y - p), 0), SQUARED / 12),
    "permuted": (lambda y, p: ops.square(ops.take(y, [2, 0, 1], 1) - ops.take(p, [2, 0, 1], 1)), SQUARED / 12),
    "shifted channels": (
        lambda y, p: ops.square(ops.matmul(y - p, np.roll(np.eye(3, dtype="float32"), 1, 1))),
        SQUARED / 12,
    ),
    "sorted": (lambda y, p: ops.sort(ops.square(y - p), axis=0), SQUARED / 12),
    "cumulated": (
        lambda y, p: ops.cumsum(ops.square(y - p), axis=1),
        SQUARED * np.array([3, 2, 1]) / 12,
    ),
    "differences": (
        lambda y, p: ops.square(y - p)[1:] - ops.square(y - p)[:-1],
        SQUARED * np.array([[-1], [0], [0], [1]]) / 9,
    ),
}


@pytest.mark.parametrize("loss, shares", MOVED.values(), ids=MOVED)
def test_moved_elements_stand_at_their_predictions(loss, shares):
    report = lossviz.explain_loss(loss, Y, P).check()
    np.testing.assert_allclose(along(report, "batch"), shares.sum(1), **CLOSE)
    np.testing.assert_allclose(along(report, "class"), shares.sum(0), **CLOSE)


SPELLINGS = {
    "slice": lambda y, p: ops.square(y[..., 1:] - p[..., 1:]),
    "take": lambda y, p: ops.square(ops.take(y, [1, 2], -1) - ops.take(p, [1, 2], -1)),
    "turned": lambda y, p: ops.square(p[..., :0:-1] - y[..., :0:-1]),
    "stacked": lambda y, p: ops.stack([ops.square(y[:, k] - p[:, k]) for k in (1, 2)], axis=-1),
}


@pytest.mark.parametrize("loss", SPELLINGS.values(), ids=SPELLINGS)
def test_classes_keep_their_numbers_however_they_are_picked(loss):
    shares = lossviz.explain_loss(loss, Y, P).by("class")
    assert sorted(shares) == [1, 2]
    np.testing.assert_allclose([shares[1], shares[2]], SQUARED[:, 1:].sum(0) / 8, **CLOSE)


def test_an_element_of_two_samples_belongs_to_neither():
    report = lossviz.explain_loss(lambda y, p: ops.square(p[:, None] - p[None]), Y, P).check()
    assert "batch" not in report.terms[0].axes
    assert "several positions" in report.terms[0].parts[0].note


def test_what_the_gradient_does_not_see_is_a_constant():
    report = lossviz.explain_loss(lambda y, p: ops.square(p - ops.stop_gradient(ops.roll(p, 1, 0))), Y, P)
    shares = np.square(P - np.roll(P, 1, 0)) / 12
    np.testing.assert_allclose(along(report, "batch"), shares.sum(1), **CLOSE)


@pytest.mark.parametrize("axis", [1, 2])
def test_only_a_normalisation_over_the_classes_keeps_them(axis):
    y, p = RNG.uniform(0.1, 0.9, (2, 2, 4, 3)).astype("float32")
    report = lossviz.explain_loss(lambda y, p: ops.square(ops.softmax(p, axis=axis) - y), y, p)
    named = {"batch", "step", "class"} if axis == 2 else {"batch", "class"}
    assert {name for name in report.terms[0].axes if not name.startswith("axis")} == named


@pytest.mark.parametrize("name", ["categorical_crossentropy", "kl_divergence", "cosine_similarity"])
def test_built_in_losses_keep_their_classes(name):
    y = np.eye(3, dtype="float32")[[0, 1, 2, 1]]
    assert lossviz.explain_loss(name, y, P).terms[0].axes == ("batch", "class")


def test_positions_by_data_are_found_anew_for_each_batch():
    model = identity((3,), lambda y, p: ops.take(ops.square(p), ops.cast(y, "int32"), axis=0))
    for order in ([0, 1, 2, 3], [3, 3, 0, 1], [2, 0, 0, 0]):
        report = lossviz.explain(model, P, np.array(order)).check()
        shares = np.bincount(order, np.square(P).sum(1)[order] / 12, minlength=4)
        assert "batch" not in report.terms[0].axes or np.allclose(along(report, "batch"), shares, **CLOSE)


def test_classes_that_no_label_names_are_proven_once_for_all_batches(monkeypatch):
    model = identity((50,), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    logits, labels = RNG.normal(size=(2, 4, 50)).astype("float32"), RNG.integers(0, 50, (2, 4))
    lossviz.explain(model, logits[0], labels[0]).check()
    monkeypatch.setattr(certify._Probe, "move", lambda *arguments: pytest.fail("proven once more"))
    report = lossviz.explain(model, logits[1], labels[1]).check()
    losses = -np.log(np.exp(logits[1]) / np.exp(logits[1]).sum(-1, keepdims=True))[range(4), labels[1]] / 4
    np.testing.assert_allclose(along(report, "batch"), losses, rtol=1e-5)
    np.testing.assert_allclose(along(report, "class"), np.bincount(labels[1], losses, minlength=50), rtol=1e-5)


def test_an_element_that_moves_in_a_later_batch_only():
    """Nothing of a dead ReLU is believed, also on a kept plan."""
    model = identity((3,), lambda y, p: ops.relu(ops.roll(p, 1, 0) - 100.0))
    lossviz.explain(model, P, Y)
    report = lossviz.explain(model, 100 + P, Y).check()
    np.testing.assert_allclose(along(report, "batch"), P.sum(1) / 12, rtol=1e-4)


@pytest.mark.parametrize("sizes", [(4, 4), (4, 7)], ids=str)
def test_a_penalty_on_a_weight_has_no_batch_axis(sizes):
    class Penalty(layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=sizes)

        def call(self, x):
            self.add_loss(ops.mean(ops.square(self.w)))
            return x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1, kernel_regularizer="l2")(Penalty(name="penalty")(inputs)))
    model.compile("sgd", "mse", jit_compile=False)
    report = lossviz.explain(model, P, np.zeros((4, 1), "float32")).check()
    for term in report.terms[1:]:
        assert "batch" not in term.axes


def test_an_added_loss_is_filed_under_the_input_of_its_layer():
    class Rolled(layers.Layer):
        def call(self, x):
            self.add_loss(ops.mean(ops.square(ops.roll(x, 1, axis=0))))
            return x

    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(1)(Rolled(name="rolled")(inputs)))
    model.compile("sgd", "mse", jit_compile=False)
    report = lossviz.explain(model, P, np.zeros((4, 1), "float32")).check()
    shares = report.term("rolled").by("batch")
    np.testing.assert_allclose([shares[k] for k in range(4)], np.square(P).sum(1) / 12, **CLOSE)


# -- the class axis where the loss says ---------------------------------------------------------------------------


def channels_first():
    z = RNG.normal(size=(2, 3, 4)).astype("float32")
    label = np.array([[0, 1, 2, 1], [2, 2, 0, 1]])
    y = np.moveaxis(np.eye(3, dtype="float32")[label], -1, 1)
    inputs = keras.Input((3, 4))
    model = keras.Model(inputs, layers.Softmax(axis=1, name="o")(inputs))
    model.compile(keras.optimizers.SGD(0.0), keras.losses.CategoricalCrossentropy(axis=1), jit_compile=False)
    p = model.predict(z, verbose=0)
    e = -np.log(np.take_along_axis(p, label[:, None], 1)[:, 0])
    return model, z, y, {k: e[label == k].sum() / e.size for k in range(3)}


def test_true_classes_along_axis_1():
    model, z, y, wanted = channels_first()
    report = lossviz.explain(model, z, y, class_names=["a", "b", "c"]).check()
    assert set(report.terms[0].axes) == {"batch", "class", "step"}
    np.testing.assert_allclose(list(report.by_label().values()), list(wanted.values()), rtol=1e-5)
    np.testing.assert_allclose(list(report.by("class").values()), list(wanted.values()), rtol=1e-5)


def test_parts_by_class_along_axis_1_while_fitting():
    model, z, y, wanted = channels_first()
    history = model.fit(z, y, verbose=0, callbacks=[lossviz.LossParts(per_class=True)]).history
    found = [history[f"data_loss/class_{k}"][0] for k in range(3)]
    np.testing.assert_allclose(found, list(wanted.values()), rtol=1e-5)


# -- what was wrong once ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [True, False])
def test_a_learned_weight_reads_the_same_inside_and_outside_the_mean(inside):
    class Weighted(keras.Model):
        def __init__(self):
            super().__init__()
            self.s = self.add_weight(shape=(), initializer="ones", name="s")

        def call(self, x):
            return x

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            e = ops.square(y_pred - y)
            return (ops.mean(ops.exp(-self.s) * e) if inside else ops.exp(-self.s) * ops.mean(e)) + self.s

    model = Weighted()
    model.compile("sgd", jit_compile=False)
    term = lossviz.explain(model, P, Y).check().terms[0]
    assert term.exactness == "exact"
    shares = next(part for part in term.parts if part.axes == ("batch", "class")).contributions
    np.testing.assert_allclose(shares, np.exp(-1) * SQUARED / 12, **CLOSE)


def test_sample_shares_of_a_data_set_are_those_of_the_samples():
    model = identity((3,), lambda y, p: ops.flip(ops.square(y - p), 0))
    report = lossviz.explain(model, P, Y, batch_size=2).check()
    np.testing.assert_allclose(along(report, "batch"), SQUARED.sum(1) / 12, **CLOSE)


def test_a_loss_that_float32_rounds_away_adds_up_within_what_it_can_hold():
    near = Y + 1e-3 * (P - Y)
    report = lossviz.explain_loss(lambda y, p: ops.log(1.0 + ops.square(y - p)), Y, near).check()
    near = 0 if ON_TENSORFLOW else 1e-6 * report.magnitude
    assert abs(report.residual) <= near or "float32 holds this loss only to" in report.notes[0]
    assert report.tolerance * report.magnitude < 1e-6


def test_threads_wait_for_each_other_and_nothing_stays_replaced():
    from keras.src import backend

    before = backend.nn.categorical_crossentropy
    y = np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    models = []
    for _ in range(3):
        models.append(keras.Sequential([keras.Input((3,)), layers.Dense(3, activation="softmax")]))
        models[-1].compile("sgd", "categorical_crossentropy", jit_compile=False)
    failed: list[Exception] = []

    def work(model):
        try:
            lossviz.explain(model, P, y).check()
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(model,)) for model in models]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert not (ON_TENSORFLOW and tf.config.functions_run_eagerly())
    assert backend.nn.categorical_crossentropy is before


if ON_TENSORFLOW:
    DRAWS = {
        "gamma": lambda y, p: tf.square(y - p) * tf.random.gamma(tf.shape(p), 1.0),
        "normal": lambda y, p: tf.square(y - p) * tf.random.normal(tf.shape(p)),
        "candidates": lambda y, p: tf.square(y - p) * tf.cast(tf.random.log_uniform_candidate_sampler(
            tf.zeros((1, 1), tf.int64), 1, 1, False, 50)[0][0], tf.float32),
        "python": lambda y, p: tf.square(y - p) * tf.ensure_shape(
            tf.py_function(lambda: np.random.random(), [], tf.float32), ()),
    }  # fmt: skip
else:  # Keras refuses draws without a generator; one that no model has draws the same at each step
    DRAWS = {
        "python": lambda y, p: ops.square(y - p) * jax.pure_callback(
            lambda: np.float32(np.random.random()), jax.ShapeDtypeStruct((), "float32")),
    }  # fmt: skip


@pytest.mark.parametrize("loss", DRAWS.values(), ids=DRAWS)
def test_random_losses_are_explained_with_their_own_draw(loss):
    report = lossviz.explain(identity((3,), loss), P, Y).check()
    assert report.source == "compute_loss" and any("draws random numbers" in note for note in report.notes)


def test_terms_are_called_the_same_everywhere():
    head = layers.Dense(1, name="score")
    a, b = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([a, b], [head(a), head(b), head(a * b)])
    model.compile("sgd", ["mse"] * 3, jit_compile=False)
    z = np.zeros((4, 1), "float32")
    names = [term.name for term in lossviz.explain(model, [P, P], [z] * 3).terms]
    history = model.fit([P, P], [z] * 3, verbose=0, callbacks=[lossviz.LossParts()]).history
    assert names == ["score", "score_1", "score_2"]
    assert {f"data_loss/{name}" for name in names} <= history.keys()


def test_a_mask_switched_off_is_noticed():
    inputs = keras.Input((3,))
    hidden = layers.Embedding(5, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(1)(hidden))
    model.compile("sgd", "mse", jit_compile=False)
    x, y = np.array([[1, 2, 0], [3, 0, 0]]), np.arange(6.0, dtype="float32").reshape(2, 3, 1)
    lossviz.explain(model, x, y)
    model.layers[2].supports_masking = False
    report = lossviz.explain(model, x, y)
    assert report.reported == pytest.approx(model.evaluate(x, y, verbose=0), rel=1e-6)


@only_tensorflow
def test_inside_a_gradient_tape():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(3)(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    outside = lossviz.explain(model, P, Y).check()
    with tf.GradientTape():  # which watches the weights
        for _ in range(2):
            assert lossviz.explain(model, P, Y).check().by("batch") == pytest.approx(outside.by("batch"), rel=1e-6)
        assert lossviz.explain(model, P[:2], Y[:2]).check().batch_size == 2


class Window(layers.Layer):
    def call(self, x):
        raise ValueError("the window of 5 steps is longer than the 3 steps of the input")


class Branch(keras.Model):
    def call(self, x):
        return x if float(ops.mean(x)) > 0 else -x


class NoCall(keras.Model):
    pass


REASONS = {
    "its own": (lambda: keras.Sequential([Window()]), "the window of 5 steps is longer than the 3 steps of the input"),
    "a Python if": (Branch, "cannot be traced into a graph" if ON_TENSORFLOW else "Unable to automatically build"),
    "no call": (NoCall, "has no call"),
}


@pytest.mark.parametrize("make, reason", REASONS.values(), ids=REASONS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_forward_pass_that_fails_gives_its_own_reason(make, reason):
    model = make()
    model.compile("sgd", "mse", run_eagerly=True)
    with pytest.raises(ValueError) as caught:
        lossviz.explain(model, P, Y)
    assert reason in str(caught.value)
    assert "x does not fit" not in str(caught.value)


@only_tensorflow  # Keras itself builds it anew at each batch on JAX
def test_a_layer_that_is_never_called_does_not_build_the_model_anew(monkeypatch):
    class Spare(keras.Model):
        def __init__(self):
            super().__init__()
            self.body, self.spare = layers.Dense(3), layers.Dense(3)

        def call(self, x):
            return self.body(x)

    model = Spare()
    model.compile("sgd", "mse", jit_compile=False)
    lossviz.explain(model, P, Y)
    monkeypatch.setattr(model, "_symbolic_build", lambda *args, **kwargs: pytest.fail("built again"))
    lossviz.explain(model, P, Y).check()


def test_a_test_on_batch_of_its_own_that_does_not_take_what_evaluate_takes():
    class Pipe(keras.Model):
        def test_on_batch(self, x, y=None, sample_weight=None, **options):
            return super().test_on_batch(x, ops.convert_to_tensor(y), sample_weight, **options)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y["boxes"] - y_pred))

    inputs = keras.Input((3,))
    model = Pipe(inputs, layers.Identity()(inputs))
    model.compile("sgd", "mse", jit_compile=False)
    report = lossviz.explain(model, P, {"boxes": Y, "labels": np.ones(4, "int32")}).check()
    assert report.total == pytest.approx(SQUARED.mean(), rel=1e-5)


# -- LossParts stands on the same proof ------------------------------------------------------------------------------


class Rolled(keras.losses.Loss):
    """The error of each sample, one place further on: it is booked to another sample's class, if nobody looks."""

    def call(self, y_true, y_pred):
        return ops.roll(ops.mean(ops.square(y_true - y_pred), axis=-1), 1, axis=0)


@pytest.mark.parametrize("loss, split", [(Rolled(), False), (keras.losses.MeanSquaredError(), True)])
def test_parts_by_class_are_those_of_losses_that_stand_where_their_sample_stands(loss, split):
    model = compiled(dense(activation="softmax"), loss)
    y = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 1]]
    parts = lossviz.LossParts(per_class=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logs = model.fit(inputs(6, 4), y, batch_size=6, epochs=1, verbose=0, callbacks=[parts]).history
    by_class = [name for name in logs if name.startswith("data_loss/class")]
    assert bool(by_class) == split
    if split:
        assert sum(logs[name][0] for name in by_class) == pytest.approx(logs["loss"][0], rel=1e-5)


# -- several outputs in one compute_loss -----------------------------------------------------------------------------


def two_in_one(loss):
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return loss(*y, *y_pred)

    x = keras.Input((4,))
    model = Own(x, [layers.Dense(3, name="a")(x), layers.Dense(3, name="b")(x)])
    model.compile("sgd", jit_compile=False)
    y = list(RNG.normal(size=(2, 5, 3)).astype("float32"))
    x = RNG.normal(size=(5, 4)).astype("float32")
    a, b = model.predict_on_batch(x)
    return lossviz.explain(model, x, y).check(), y, (a, b)


def test_axes_of_two_outputs_are_two_axes_and_never_added():
    report, (ya, yb), (a, b) = two_in_one(
        lambda ya, yb, a, b: ops.mean(ops.square(ya - a)) + 2 * ops.mean(ops.abs(yb - b))
    )
    term = report.terms[0]
    own, other = np.square(ya - a).sum(0) / 15, 2 * np.abs(yb - b).sum(0) / 15
    shares = term.by("a/class")
    np.testing.assert_allclose([shares[k] for k in range(3)], own, **CLOSE)
    assert shares["(not split)"] == pytest.approx(other.sum(), rel=1e-5)
    np.testing.assert_allclose(
        along(report, "batch"), np.square(ya - a).sum(1) / 15 + 2 * np.abs(yb - b).sum(1) / 15, **CLOSE
    )
    with pytest.raises(ValueError, match="axis 'class' is not an axis"):
        term.by("class")


def test_an_element_of_two_outputs_has_a_position_in_each():
    report, (ya, yb), (a, b) = two_in_one(lambda ya, yb, a, b: ops.mean(ops.square(ya - a[:, ::-1]) * ops.abs(yb - b)))
    shares = (np.square(ya - a[:, ::-1]) * np.abs(yb - b)).sum(0) / 15
    np.testing.assert_allclose(along(report, "b/class"), shares, **CLOSE)
    np.testing.assert_allclose(along(report, "a/class"), shares[::-1], **CLOSE)
