"""LossParts against Keras's own loss, against `explain` batch by batch, and against NumPy; and what it leaves behind.

Where parts are compared with numbers of another source, the learning rate is 0: the model of every batch is known.
"""

import csv
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf  # its data sets feed every backend
from keras import layers, ops
from models import (
    DIVIDES_ACTIVITY,
    ON_TENSORFLOW,
    compiled,
    dense,
    inputs,
    labels,
    on_another_backend,
    onehot,
    only_tensorflow,
    pixels,
    sequence,
    targets,
    two_outputs,
    weights,
)

import lossviz
from lossviz import LossParts

if not ON_TENSORFLOW:
    import jax

N, BATCH = 7, 3  # two batches of 3 and one of 1
SIZES = np.array([3, 3, 1])


class Penalty(layers.Layer):
    """Adds the mean square of what it sees, and then twice its mean."""

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        self.add_loss(2 * ops.mean(x))
        return x


def full(**more) -> keras.Model:
    """Two outputs, a weight and an activity regulariser, a layer with two added losses."""
    keras.utils.set_random_seed(1)
    x = keras.Input((4,))
    hidden = layers.Dense(5, name="h", kernel_regularizer="l2", activity_regularizer="l1")(x)
    hidden = Penalty(name="kl")(hidden)
    outputs = [layers.Dense(3, name="a")(hidden), layers.Dense(2, activation="softmax", name="b")(hidden)]
    options = {"loss_weights": [0.5, 3.0], "optimizer": keras.optimizers.SGD(0.0), **more}
    return compiled(keras.Model(x, outputs), ["mse", "categorical_crossentropy"], **options)


X, Y = inputs(N, 4), [targets(N, 3), onehot(N, classes=2)]


def history(model, *data, parts=None, **more) -> dict[str, float]:
    """The last epoch of a fit with LossParts; a warning of it is an error."""
    if isinstance(data[0], np.ndarray):
        more = {"batch_size": BATCH, "shuffle": False, **more}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "LossParts")
        found = model.fit(*data, verbose=0, callbacks=[parts or LossParts()], **more).history
    return {name: values[-1] for name, values in found.items()}


def children(logs: dict[str, float], parent: str) -> dict[str, float]:
    """The names one level below the parent."""
    level = parent.count("/") + 1
    return {name: v for name, v in logs.items() if name.startswith(f"{parent}/") and name.count("/") == level}


def assert_adds_up(logs: dict[str, float], start: str = "") -> None:
    """The parts sum to Keras's loss, and what stands below a name to its number."""
    top = {name: logs[start + name] for name in ("data_loss", "regularization")}
    top |= children(logs, f"{start}add_loss")
    size = sum(map(abs, top.values()))
    assert sum(top.values()) == pytest.approx(logs[f"{start}loss"], abs=2e-6 * size)
    for name in logs:
        if below := children(logs, name):
            assert sum(below.values()) == pytest.approx(logs[name], abs=2e-6 * size), name


def batches(*arrays):
    """The batches of a fit without shuffling: one tuple of arrays, or lists of arrays, each."""
    for k in range(0, N, BATCH):
        yield tuple([a[k : k + BATCH] for a in arg] if isinstance(arg, list) else arg[k : k + BATCH] for arg in arrays)


def epoch_mean(values) -> float:
    """The mean of one number a batch, weighted by samples, in float64."""
    return float(np.average(np.array(values, float), weights=SIZES))


# -- the parts sum to the loss that Keras prints ----------------------------------------------------------------------


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 0.5 * super().compute_loss(x, y, y_pred, sample_weight) + ops.mean(ops.square(y_pred))


class OwnStep(keras.Model):
    """TensorFlow's; on JAX a step takes and returns the state, as in `OwnStepOnJax`."""

    def train_step(self, data):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            y_pred = self(x, training=True)
            loss = self.compute_loss(x, y, y_pred, sample_weight)
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        self._loss_tracker.update_state(loss, sample_weight=tf.shape(x)[0])
        return self.compute_metrics(x, y, y_pred, sample_weight)


class OwnStepOnJax(keras.Model):
    times = 1

    def train_step(self, state, data):
        def computed(trainable, others, counts, *batch):
            for _ in range(self.times):
                found = self.compute_loss_and_updates(trainable, others, counts, *batch, True, optimizer)
            return found

        trainable, others, optimizer, counts = state
        batch = keras.utils.unpack_x_y_sample_weight(data)
        (_, aux), slopes = jax.value_and_grad(computed, has_aux=True)(trainable, others, counts, *batch)
        loss, y_pred, others, counts = aux
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, slopes, trainable)
        logs, counts = self._update_metrics_variables(counts, loss, batch[0], batch[1], y_pred, batch[2])
        return logs, (trainable, others, optimizer, counts)


class TracedStep(keras.Model):
    @tf.function
    def train_step(self, data):
        return super().train_step(data)


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__()
        self.inner = layers.Dense(3, kernel_regularizer="l2", activity_regularizer="l1")

    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        return self.inner(x)


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        return list(batches(X, Y[0]))[index]


def generated():
    while True:
        yield from batches(X, Y[0])


def dataset():
    return tf.data.Dataset.from_tensor_slices((X, Y[0])).batch(BATCH)


def trained(**more):
    """`full`, with weights that move."""
    return full(optimizer="adam", **more)


def dense_mse(**more):
    return compiled(dense(), "mse", optimizer=keras.optimizers.SGD(0.0), **more)


def regular(loss="mse", **more):
    return compiled(dense(kernel_regularizer="l2"), loss, **{"optimizer": "adam", **more})


CASES = {
    "two outputs, added losses, regularisers": lambda: history(trained(), X, Y, epochs=2),
    "validation": lambda: history(trained(), X, Y, validation_data=(X[:5], [y[:5] for y in Y])),
    "run eagerly": lambda: history(trained(run_eagerly=True), X, Y, epochs=2),
    "XLA": lambda: history(regular(jit_compile=True), X, Y[0], parts=LossParts(per_batch=True)),
    "jit_compile auto": lambda: history(dense_mse(jit_compile="auto"), X, Y[0]),
    "two steps an execution": lambda: history(regular(steps_per_execution=2), X, Y[0], epochs=2),
    "two steps an execution of a generator": lambda: history(
        regular(steps_per_execution=2), generated(), steps_per_epoch=3, epochs=2
    ),
    "gradient accumulation": lambda: history(
        compiled(dense(), "mse", optimizer=keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)), X, Y[0]
    ),
    "tf.data": lambda: history(regular(), dataset(), epochs=2),
    "PyDataset": lambda: history(regular(), Batches()),
    "generator": lambda: history(regular(), generated(), steps_per_epoch=3),
    "sample weights": lambda: history(
        compiled(two_outputs(), ["mse", "mae"]), X, Y, sample_weight=[weights(N), 2 * weights(N)]
    ),
    "class weights": lambda: history(
        compiled(dense(3, "softmax"), "sparse_categorical_crossentropy"),
        *(X, labels(N, classes=3)),
        parts=LossParts(per_class=True),
        class_weight={0: 0.5, 1: 0.0, 2: 4.0},
    ),
    "mask": lambda: history(
        compiled(sequence(masked=True), "mse"),
        np.where(np.arange(5)[:, None] < 3, inputs(N, 5, 4), 0).astype("float32"),
        targets(N, 5, 3),
    ),
    "images by class": lambda: history(
        compiled(pixels(3, "softmax"), "categorical_crossentropy"),
        *(inputs(N, 4, 4, 3), onehot(N, 4, 4, classes=3)),
        parts=LossParts(per_class=True),
    ),
    "sum over the batch": lambda: history(regular(keras.losses.MeanSquaredError(reduction="sum")), X, Y[0]),
    "mean with sample weight": lambda: history(
        compiled(dense(), keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")),
        *(X, Y[0]),
        sample_weight=weights(N),
    ),
    "loss of the whole batch": lambda: history(compiled(dense(3, "sigmoid"), "dice"), X, onehot(N, classes=3)),
    "a function as loss": lambda: history(regular(lambda y, p: ops.mean(ops.abs(y - p), axis=-1)), X, Y[0]),
    "two losses for one output, of which Keras takes the first": lambda: history(regular(["mse", "mae"]), X, Y[0]),
    "outputs in a dictionary": lambda: history(
        compiled(two_outputs(as_dict=True), {"a": "mse", "b": "mae"}), X, {"a": Y[0], "b": Y[1]}
    ),
    "added losses alone": lambda: history(
        compiled(keras.Sequential([keras.Input((4,)), layers.Dense(2), Penalty(name="kl")])), X
    ),
    "subclass, not built": lambda: history(compiled(Unbuilt(), "mse"), X, Y[0], epochs=2),
    "own compute_loss": lambda: history(compiled(dense(kind=OwnLoss, kernel_regularizer="l2"), "mse"), X, Y[0]),
    "own train_step": lambda: history(
        compiled(dense(kind=OwnStep if ON_TENSORFLOW else OwnStepOnJax, kernel_regularizer="l2"), "mse"), X, Y[0]
    ),
    "own names": lambda: history(
        compiled(two_outputs(), ["mse", "mae"]), X, Y, parts=LossParts(per_class="b", class_names={"b": ["no", "yes"]})
    ),
}

if ON_TENSORFLOW:
    CASES["train_step in a tf.function"] = lambda: history(compiled(dense(kind=TracedStep), "mse"), X, Y[0], epochs=2)


@pytest.mark.parametrize("case", CASES)
def test_parts_sum_to_the_loss_of_keras(case):
    logs = CASES[case]()
    assert_adds_up(logs)
    assert ("val_loss" in logs) == (case == "validation")
    if "val_loss" in logs:
        assert_adds_up(logs, "val_")


def test_parts_sum_to_the_loss_of_keras_in_half_precision(mixed):
    model = regular()
    assert model.layers[-1].compute_dtype != "float32"
    assert_adds_up(history(model, X, Y[0], epochs=2))


@only_tensorflow
def test_parts_sum_to_the_loss_of_keras_under_a_strategy_of_one_device():
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        model = regular()
    assert_adds_up(history(model, X, Y[0]))


# -- and each part is the right one -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def reports():
    """`explain` of `full`, batch by batch."""
    model = full()
    return [lossviz.explain(model, *batch) for batch in batches(X, Y)]


@pytest.mark.parametrize("start", ["", "val_"])
def test_parts_are_what_explain_says_of_each_batch(reports, start):
    if start:
        every = history(full(), X[:2], [y[:2] for y in Y], validation_data=(X, Y), parts=LossParts(per_class="b"))
    else:
        every = history(full(), X, Y, parts=LossParts(per_class="b"))
    logs = {name.removeprefix(start): value for name, value in every.items() if name.startswith(start)}
    for name in ("a", "b"):
        mean = epoch_mean([report.term(name).contribution for report in reports])
        assert logs[f"data_loss/{name}"] == pytest.approx(mean, rel=1e-5)
    regularisers = [[t.contribution for t in report.terms if t.kind == "regulariser"] for report in reports]
    assert [len(found) for found in regularisers] == [2, 2, 2]  # of the weights and of the activity
    assert logs["regularization"] == pytest.approx(epoch_mean([sum(found) for found in regularisers]), rel=1e-5)
    added = [[t.contribution for t in report.terms if t.kind == "add_loss"] for report in reports]
    for k, name in enumerate(("add_loss/kl", "add_loss/kl_1")):
        assert logs[name] == pytest.approx(epoch_mean([found[k] for found in added]), rel=1e-5, abs=1e-7)
    for k in (0, 1):
        share = epoch_mean([report.by_label("b").get(k, 0.0) for report in reports])
        assert logs[f"data_loss/b/class_{k}"] == pytest.approx(share, rel=1e-5)
    assert logs["data_loss/b/no_class"] == 0.0


@only_tensorflow  # on JAX Keras prints the means over samples
def test_outputs_are_the_means_over_samples_where_keras_prints_those_over_batches():
    model = full()
    logs = history(model, X, Y)
    a, b = model.predict(X, verbose=0)
    assert logs["data_loss/a"] == pytest.approx(0.5 * np.mean((a - Y[0]) ** 2), rel=1e-5)
    assert logs["data_loss/b"] == pytest.approx(3.0 * np.mean(-np.log(np.sum(Y[1] * b, -1))), rel=1e-5)
    of_batches = np.mean([np.mean((p - y) ** 2) for p, y in batches(a, Y[0])])
    assert logs["a_loss"] == pytest.approx(of_batches, rel=1e-5)  # the fault of Keras that this test is about
    assert abs(0.5 * logs["a_loss"] - logs["data_loss/a"]) > 0.01


TARGETS = {
    "one-hot": (3, "softmax", "categorical_crossentropy", onehot(N, classes=3)),
    "integers": (3, "softmax", "sparse_categorical_crossentropy", labels(N, classes=3)),
    "a column of integers": (3, "softmax", "sparse_categorical_crossentropy", labels(N, 1, classes=3)),
    "integers with one to ignore": (
        *(3, "softmax", keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)),
        np.where(np.arange(N) % 3, labels(N, classes=3), -1),
    ),
    "0 and 1": (1, "sigmoid", "binary_crossentropy", labels(N, 1, classes=2).astype("float32")),
    "0 and 1 without a column": (1, "sigmoid", "binary_crossentropy", labels(N, classes=2).astype("float32")),
    "several labels": (3, "sigmoid", "binary_crossentropy", onehot(N, classes=3)),
    "smoothed": (3, "softmax", "categorical_crossentropy", 0.9 * onehot(N, classes=3) + np.float32(0.1 / 3)),
    "void rows": (3, "sigmoid", "mse", onehot(N, classes=3) * (np.arange(N) % 2)[:, None].astype("float32")),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_shares_of_classes(kind):
    """Each sample's loss, as Keras computes it alone, summed by its true class."""
    out, activation, loss, y = TARGETS[kind]
    model = compiled(dense(out, activation), loss, optimizer=keras.optimizers.SGD(0.0))
    w = weights(N)
    logs = history(model, X, y, sample_weight=w, parts=LossParts(per_class=True))
    loss = keras.losses.get(loss)
    predicted = model.predict(X, verbose=0)
    each = w * [np.mean(loss(y[[i]].reshape(1, -1), predicted[[i]])) for i in range(N)]
    if "ignore" in kind:  # Keras divides by the samples that count
        counted = [max(1, np.sum(batch >= 0)) for (batch,) in batches(y)]
        each *= np.repeat(SIZES / counted, SIZES)
    if out == 1 or y.ndim < 2 or y.shape[1] == 1:
        classes = np.where(y < 0, max(out, 2), y).reshape(N)
    else:
        classes = np.where(y.max(-1) > 0, y.argmax(-1), out)
    expected = [float(np.sum(each[classes == k])) / N for k in range(max(out, 2) + 1)]
    found = list(children(logs, "data_loss").values())
    assert list(children(logs, "data_loss")) == [
        *(f"data_loss/class_{k}" for k in range(max(out, 2))),
        "data_loss/no_class",
    ]
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert_adds_up(logs)


def test_targets_that_are_no_classes_are_no_class():
    logs = history(compiled(dense(), "mse"), X, Y[0], parts=LossParts(per_class=True))
    assert logs["data_loss/no_class"] == pytest.approx(logs["data_loss"], rel=1e-6)
    assert logs["data_loss"] > 0 == logs["data_loss/class_0"]


def test_own_compute_loss_counts_the_standard_part_once_and_the_rest_as_other():
    model = compiled(two_outputs(OwnLossOfTwo), ["mse", "mae"], optimizer=keras.optimizers.SGD(0.0))
    logs = history(model, X, Y)
    a, b = model.predict(X, verbose=0)
    assert logs["data_loss/a"] == pytest.approx(0.5 * np.mean((a - Y[0]) ** 2), rel=1e-5)
    assert logs["data_loss/b"] == pytest.approx(0.5 * np.mean(np.abs(b - Y[1])), rel=1e-5)
    assert logs["data_loss/other"] == pytest.approx(np.mean(a**2), rel=1e-4)
    assert_adds_up(logs)


class OwnLossOfTwo(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 0.5 * super().compute_loss(x, y, y_pred, sample_weight) + ops.mean(ops.square(y_pred[0]))


def test_frozen_weights_are_not_regularised_and_activity_is():
    model = full()
    model.get_layer("h").trainable = False
    model.compile(keras.optimizers.SGD(0.0), ["mse", "categorical_crossentropy"], jit_compile=False)
    hidden = keras.Model(model.inputs, model.get_layer("h").output).predict(X, verbose=0)
    logs = history(model, X, Y)
    sums = [0.01 * np.sum(np.abs(batch)) for (batch,) in batches(hidden)]
    expected = epoch_mean(np.array(sums) / SIZES if DIVIDES_ACTIVITY else sums)
    assert logs["regularization"] == pytest.approx(expected, rel=1e-5)


def test_losses_that_are_not_floats_or_not_scalars():
    class Odd(layers.Layer):
        def call(self, x):
            self.add_loss(2 * ops.shape(x)[0] * ops.ones((), "int32"))
            self.add_loss(x)
            return x

    x = keras.Input((4,))
    logs = history(compiled(keras.Model(x, layers.Dense(3)(Odd(name="odd")(x))), "mse"), X, Y[0])
    assert logs["add_loss/odd"] == pytest.approx(2 * epoch_mean(SIZES))
    assert logs["add_loss/odd_1"] == pytest.approx(epoch_mean([batch.sum() for (batch,) in batches(X)]), rel=1e-5)
    assert_adds_up(logs)


def test_one_part_that_is_nan_leaves_the_others_readable():
    y = Y[0].copy()
    y[0] = np.nan
    logs = history(regular(), X, y, batch_size=N)
    assert np.isnan(logs["data_loss"]) and np.isfinite(logs["regularization"])


# -- batches ----------------------------------------------------------------------------------------------------------


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.batches, self.tests = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.batches.append(dict(logs))

    def on_test_batch_end(self, batch, logs=None):
        self.tests.append(dict(logs))


def test_values_of_the_batch(reports):
    """For callbacks before it in the list, too, and not in what the epoch hands on."""
    before, after = Seen(), Seen()
    found = full().fit(
        X, Y, batch_size=BATCH, shuffle=False, verbose=0, callbacks=[before, LossParts(per_batch=True), after]
    )
    assert before.batches == after.batches
    assert [logs["batch_loss"] for logs in before.batches] == pytest.approx([r.total for r in reports], rel=1e-5)
    values = [r.term("a").contribution for r in reports]
    assert [logs["batch_data_loss/a"] for logs in before.batches] == pytest.approx(values, rel=1e-5)
    running = [np.average(values[:k], weights=SIZES[:k]) for k in (1, 2, 3)]
    assert [logs["data_loss/a"] for logs in before.batches] == pytest.approx(running, rel=1e-5)
    assert not [name for name in found.history if "batch_" in name]


def test_values_of_the_batch_in_evaluate():
    model, seen = dense_mse(), Seen()
    callbacks = [seen, LossParts(per_batch=True)]
    found = model.evaluate(X, Y[0], batch_size=BATCH, verbose=0, callbacks=callbacks, return_dict=True)
    expected = [np.mean((p - y) ** 2) for p, y in batches(model.predict(X, verbose=0), Y[0])]
    assert [logs["batch_loss"] for logs in seen.tests] == pytest.approx(expected, rel=1e-5)
    assert set(found) == {"loss", "data_loss", "regularization"}


def test_with_several_steps_an_execution_the_values_are_those_of_the_last_batch():
    model, seen = dense_mse(steps_per_execution=2), Seen()
    model.fit(X, Y[0], batch_size=BATCH, shuffle=False, verbose=0, callbacks=[LossParts(per_batch=True), seen])
    expected = [np.mean((p - y) ** 2) for p, y in batches(model.predict(X, verbose=0), Y[0])]
    assert [logs["batch_loss"] for logs in seen.batches] == pytest.approx(expected[1:], rel=1e-5)


# -- where the reader sees them ---------------------------------------------------------------------------------------


def test_progress_bar(capsys):
    model = compiled(two_outputs(), ["mse", "mae"])
    found = model.fit(X, Y, batch_size=BATCH, verbose=2, callbacks=[LossParts()]).history
    line = capsys.readouterr().out
    for name in ("data_loss", "data_loss/a", "data_loss/b", "loss"):
        assert f" {name}: {found[name][0]:.4f}" in line


def test_csv_and_tensorboard_before_and_after_it(tmp_path):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    before, after = (keras.callbacks.CSVLogger(tmp_path / name) for name in ("before.csv", "after.csv"))
    board = keras.callbacks.TensorBoard(tmp_path / "logs")
    callbacks = [before, board, LossParts(per_batch=True), after]
    found = full(optimizer="adam").fit(X, Y, epochs=2, verbose=0, callbacks=callbacks, validation_data=(X, Y)).history
    assert (tmp_path / "before.csv").read_text() == (tmp_path / "after.csv").read_text()
    with (tmp_path / "before.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = {"data_loss/a", "data_loss", "regularization", "add_loss/kl_1", "val_regularization", "val_data_loss/b"}
    assert names <= set(found) and set(rows[0]) == {"epoch", *found}
    for name in names:
        assert [float(row[name]) for row in rows] == found[name]
        events = accumulators.EventAccumulator(str(tmp_path / "logs" / ("validation" if "val_" in name else "train")))
        events.Reload()
        tag = f"epoch_{name.removeprefix('val_')}"
        assert [float(tf.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)] == pytest.approx(found[name])


def test_other_callbacks_can_watch_a_part(tmp_path):
    model = regular()
    stop = keras.callbacks.EarlyStopping(monitor="val_regularization", mode="max", patience=0)
    keep = keras.callbacks.ModelCheckpoint(
        tmp_path / "{epoch}-{regularization:.3f}.keras", monitor="regularization", mode="min", save_best_only=True
    )
    model.layers[-1].set_weights([np.full((4, 3), 2.0), np.zeros(3)])
    callbacks = [stop, keep, LossParts()]
    found = model.fit(X, Y[0], epochs=4, verbose=0, callbacks=callbacks, validation_data=(X, Y[0])).history
    assert len(found["loss"]) == 2  # the penalty shrinks, which is worse for `stop`, and better for `keep`
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{k + 1}-{found['regularization'][k]:.3f}.keras" for k in (0, 1)
    ]


def test_evaluate():
    model = regular(optimizer=keras.optimizers.SGD(0.0))
    logs = model.evaluate(X, Y[0], batch_size=BATCH, verbose=0, return_dict=True, callbacks=[LossParts()])
    assert_adds_up(logs)
    assert logs == pytest.approx(history(model, X, Y[0]), rel=1e-5)


# -- nothing else changes ---------------------------------------------------------------------------------------------


def random_model() -> keras.Model:
    keras.utils.set_random_seed(3)
    x = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dropout(0.4)(layers.Dense(5, kernel_regularizer="l2")(x)))
    return compiled(keras.Model(x, layers.Dense(3)(hidden)), "mse", optimizer="adam", metrics=["mae"])


def test_training_is_the_same_with_and_without_it():
    plain, watched = random_model(), random_model()
    more = {"batch_size": BATCH, "epochs": 2, "verbose": 0}
    keras.utils.set_random_seed(3)
    expected = plain.fit(X, Y[0], **more).history
    keras.utils.set_random_seed(3)
    found = watched.fit(X, Y[0], callbacks=[LossParts(per_class=True, per_batch=True)], **more).history
    assert {name: found[name] for name in expected} == expected
    for a, b in zip(plain.get_weights(), watched.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_model_is_afterwards_as_it_was(tmp_path):
    model, fit = regular(), {"verbose": 0, "batch_size": BATCH, "validation_data": (X, Y[0])}
    model.fit(X, Y[0], **fit)
    before = {name: value for name, value in vars(model).items() if name not in ("history", "_tracker")}
    names, config, count = model.metrics_names, model.get_config(), len(model.variables)
    model.fit(X, Y[0], **fit, callbacks=[LossParts(per_class=True, per_batch=True)])
    assert {name: vars(model)[name] for name in before} == before
    assert set(vars(model)) == {*before, "history", "_tracker"}
    assert (model.metrics_names, model.get_config(), len(model.variables)) == (names, config, count)
    assert list(model.fit(X, Y[0], **{**fit, "validation_data": None}).history) == ["loss"]
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    assert again.evaluate(X, Y[0], verbose=0) == pytest.approx(model.evaluate(X, Y[0], verbose=0))


class Interrupts(keras.callbacks.Callback):
    def __init__(self, when):
        super().__init__()
        setattr(self, when, self.interrupt)

    def interrupt(self, batch, logs=None):
        if batch == 1:
            raise KeyboardInterrupt


@pytest.mark.parametrize("when", ["on_train_batch_begin", "on_train_batch_end"])
def test_after_an_interrupt_the_next_fit_is_right_with_it_and_without(when):
    model = regular()
    model.fit(X, Y[0], verbose=0, batch_size=BATCH)
    function, parts = model.train_function, LossParts()
    for callbacks in ([], [parts]):
        with pytest.raises(KeyboardInterrupt):
            model.fit(X, Y[0], verbose=0, batch_size=BATCH, callbacks=[parts, Interrupts(when)])
        found = model.fit(X, Y[0], verbose=0, batch_size=N, callbacks=callbacks).history
        assert ("data_loss" in found) == bool(callbacks)
        assert model.train_function is function
    assert_adds_up({name: values[-1] for name, values in found.items()})


def test_one_callback_is_traced_once_for_several_fits_and_anew_after_compile():
    calls = []

    class Counts(keras.Model):
        def compute_loss(self, *args, **kwargs):
            calls.append(1)
            return super().compute_loss(*args, **kwargs)

    options = {"optimizer": keras.optimizers.SGD(0.0), "jit_compile": not ON_TENSORFLOW}  # JAX traces only with it
    model, parts = compiled(dense(kind=Counts), "mse", **options), LossParts()
    first = history(model, X, Y[0], parts=parts)
    traced = len(calls)
    assert history(model, X, Y[0], parts=parts) == first and len(calls) == traced
    compiled(model, "mae", optimizer=keras.optimizers.SGD(0.0))
    logs = history(model, X, Y[0], parts=parts)
    mean = np.mean(np.abs(model.predict(X, verbose=0) - Y[0]))
    assert logs["data_loss"] == pytest.approx(mean, rel=1e-5) and logs["data_loss"] != first["data_loss"]


# -- clear errors and warnings ----------------------------------------------------------------------------------------


class OutsideStep(keras.Model):
    def train_step(self, *data):
        if not ON_TENSORFLOW:
            return {"loss": 0.0}, data[0]
        (data,) = data
        x, y = data
        return {"loss": ops.mean(ops.square(y - self(x)))}


class TwiceStep(keras.Model):
    def train_step(self, data):
        x, y = data
        return {"loss": self.compute_loss(x, y, self(x)) + self.compute_loss(x, y, self(x))}


class TwiceStepOnJax(OwnStepOnJax):
    times = 2


class CountsBatches(keras.Model):
    def train_step(self, data):
        x, y = data
        loss = self.compute_loss(x, y, self(x, training=True))
        self._loss_tracker.update_state(loss)
        return {"loss": self._loss_tracker.result()}


ERRORS = {
    "train_step of OutsideStep does not call compute_loss": lambda: history(
        compiled(dense(kind=OutsideStep), "mse"), X, Y[0]
    ),
    "TwiceStep.* calls compute_loss twice": lambda: history(
        compiled(dense(kind=TwiceStep if ON_TENSORFLOW else TwiceStepOnJax), "mse"), X, Y[0]
    ),
    "'data_loss'.*has a metric of that name.*prefix": lambda: history(
        compiled(dense(), "mse", metrics=[keras.metrics.MeanSquaredError(name="data_loss")]), X, Y[0]
    ),
    "per_class=True.*give both": lambda: LossParts(class_names=["a", "b"]),
    "sequence of different names.*got 'abc'": lambda: LossParts(per_class=True, class_names="abc"),
    "sequence of different names.*got .'a', 'a'.": lambda: LossParts(per_class=True, class_names=["a", "a"]),
    "prefix must be a string, got 3": lambda: LossParts(prefix=3),
    "class_names has 2 names.*'o': .(None|3), 3.": lambda: history(
        compiled(dense(), "mse"), X, Y[0], parts=LossParts(per_class=True, class_names=["a", "b"])
    ),
    "class_names has the outputs .'c'., but the outputs with a loss are .'a', 'b'.": lambda: history(
        full(), X, Y, parts=LossParts(per_class=True, class_names={"c": ["u", "v"]})
    ),
    "class_names names 3 classes for output 'b', which has 2": lambda: history(
        full(), X, Y, parts=LossParts(per_class=True, class_names={"b": ["u", "v", "w"]})
    ),
    "per_class names the outputs .'c'.": lambda: history(full(), X, Y, parts=LossParts(per_class="c")),
}


@pytest.mark.parametrize("message", ERRORS)
def test_errors(message):
    with pytest.raises(ValueError, match=message):
        ERRORS[message]()


def test_an_error_comes_before_anything_is_trained():
    model = compiled(dense(), "mse", optimizer="sgd", metrics=[keras.metrics.MeanSquaredError(name="data_loss")])
    before = model.get_weights()
    with pytest.raises(ValueError, match="prefix"):
        history(model, X, Y[0])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    logs = history(model, X, Y[0], parts=LossParts(prefix="part_"))
    assert logs["part_data_loss"] + logs["part_regularization"] == pytest.approx(logs["loss"])


@only_tensorflow
def test_a_train_step_that_counts_in_another_way_is_told():
    model = compiled(dense(kind=CountsBatches), "mse", optimizer=keras.optimizers.SGD(0.0))
    with pytest.warns(UserWarning, match="train_step of this model counts in another way") as seen:
        found = model.fit(
            X, Y[0], batch_size=BATCH, shuffle=False, verbose=0, epochs=2, callbacks=[LossParts()]
        ).history
    assert len(seen) == 1
    each = [np.mean((p - y) ** 2) for p, y in batches(model.predict(X, verbose=0), Y[0])]
    assert found["loss"][0] == pytest.approx(np.mean(each), rel=1e-5)
    assert found["data_loss"][0] == pytest.approx(epoch_mean(each), rel=1e-5)


def test_a_loss_without_shares_by_class_is_told():
    model = compiled(dense(3, "sigmoid"), "dice")
    with pytest.warns(UserWarning, match="output 'o' has no shares by class"):
        found = model.fit(X, onehot(N, classes=3), verbose=0, callbacks=[LossParts(per_class=True)]).history
    assert not children(found, "data_loss")


@only_tensorflow
def test_several_replicas_are_refused():
    model, parts = regular(), LossParts()

    class Strategy:
        num_replicas_in_sync = 2

    model._distribute_strategy = Strategy()
    parts.set_model(model)
    with pytest.raises(ValueError, match=r"distributed over 2 replicas.*Train without LossParts"):
        parts.on_train_batch_begin(0)


def test_another_backend_is_refused():
    found = on_another_backend("""
        import lossviz
        try:
            lossviz.LossParts()
        except RuntimeError as error:
            print(error)
    """)
    assert found.startswith("lossviz.LossParts reads the graphs of TensorFlow and JAX, and Keras runs on 'torch' here.")
