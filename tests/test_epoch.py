"""Whole data sets: the number is that of `model.evaluate`, the shares sum to it, and no batch is kept."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
import reports
import tensorflow as tf  # its data sets feed every backend
from keras import layers, losses, ops
from models import (
    KERAS,
    ON_TENSORFLOW,
    compiled,
    dense,
    inputs,
    labels,
    onehot,
    only_tensorflow,
    pixels,
    sequence,
    targets,
    two_outputs,
    weights,
)

import lossviz
from lossviz import examples, plots
from lossviz.ask import epoch

N = 10  # in batches of 4 the last one has 2


class AddsLoss(layers.Layer):
    def call(self, x):
        self.add_loss(ops.mean(ops.square(x)))
        return x


class OwnLoss(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.abs(y - y_pred)) + 0.5


class GuideStep(keras.Model):
    """The test_step of Keras's guide: it wants pairs, and its loss is a mean in which all batches count alike."""

    def test_step(self, data):
        x, y = data
        y_pred = self(x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        for metric in self.metrics:
            if metric.name == "loss":
                metric.update_state(loss)
            else:
                metric.update_state(y, y_pred)
        return {metric.name: metric.result() for metric in self.metrics}


class GuideStepOnJax(keras.Model):
    """The same as JAX wants it: state goes in and comes out."""

    def test_step(self, state, data):
        trainable, others, counts = state
        x, y = data
        y_pred, others = self.stateless_call(trainable, others, x, training=False)
        loss = self.compute_loss(y=y, y_pred=y_pred)
        logs, counted = {}, []
        for metric in self.metrics:
            own = counts[len(counted) : len(counted) + len(metric.variables)]
            own = metric.stateless_update_state(own, *([loss] if metric.name == "loss" else [y, y_pred]))
            logs[metric.name] = metric.stateless_result(own)
            counted += own
        return logs, (trainable, others, counted)


def masked_steps():
    x = inputs(N, 5, 4)
    x[:, 3:] = 0
    x[2] = 0
    return x


def with_added_loss():
    x = keras.Input((4,))
    return keras.Model(x, AddsLoss()(layers.Dense(3)(x)))


def with_dropout():
    x = keras.Input((4,))
    return keras.Model(x, layers.Dense(3)(layers.BatchNormalization()(layers.Dropout(0.5)(x))))


X, Y = inputs(N, 4), targets(N, 3)
CASES = {
    "mse": lambda: (compiled(dense(), "mse"), X, Y, None),
    "weights": lambda: (
        compiled(dense(3, "softmax"), "categorical_crossentropy", metrics=["accuracy"]),
        *(X, onehot(N, classes=3), weights(N)),
    ),
    "sum": lambda: (compiled(dense(), losses.MeanSquaredError(reduction="sum")), X, Y, None),
    "weighted mean": lambda: (
        compiled(dense(), losses.MeanSquaredError(reduction="mean_with_sample_weight")), X, Y, weights(N),
    ),
    "mask": lambda: (compiled(sequence(masked=True), "mse"), masked_steps(), targets(N, 5, 3), weights(N, 1)),
    "two outputs": lambda: (
        compiled(two_outputs(), ["mse", "categorical_crossentropy"], loss_weights=[2.0, 0.5]),
        *(X, [Y, onehot(N, classes=2)], None),
    ),
    "regularisers": lambda: (compiled(dense(kernel_regularizer="l2", activity_regularizer="l1"), "mse"), X, Y, None),
    "add_loss": lambda: (compiled(with_added_loss(), "mse"), X, Y, None),
    "dice": lambda: (
        compiled(pixels(3, "sigmoid"), losses.Dice(axis=(1, 2))), inputs(N, 4, 4, 3), onehot(N, 4, 4, classes=3), None,
    ),
    "own compute_loss": lambda: (compiled(dense(kind=OwnLoss), "mse"), X, Y, None),
    "own test_step": lambda: (
        compiled(dense(kind=GuideStep if ON_TENSORFLOW else GuideStepOnJax), "mse", metrics=["mae"]), X, Y, None,
    ),
    "dropout": lambda: (compiled(with_dropout(), "mse"), X, Y, None),
}  # fmt: skip


def state(model):
    return [variable.numpy().tolist() for variable in (*model.variables, *model.metrics_variables)]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_the_number_is_that_of_evaluate_and_the_shares_sum_to_it(case):
    model, x, y, sample_weight = case()
    logs = model.evaluate(x, y, sample_weight=sample_weight, batch_size=4, verbose=0, return_dict=True)
    before = state(model)
    report = lossviz.explain(model, x, y, sample_weight, batch_size=4).check()
    assert state(model) == before
    assert report.reported == logs["loss"]
    assert report.source == "evaluate"
    counting = (
        "each counted once whatever its samples"
        if isinstance(model, (GuideStep, GuideStepOnJax))
        else "weighted by their samples"
    )
    words = f"mean over 3 batches, {counting}: 10 samples in 3 batches of 4, the last of 2"
    assert report.terms[0].parts[0].steps[-1].text.startswith(words)
    assert [samples for samples, _ in report.batches] == [4, 4, 2]
    for term in report.terms:
        assert term.value * term.loss_weight == pytest.approx(term.contribution, rel=1e-6)
        for axis in {axis for part in term.parts for axis in part.sizes}:
            assert sum(term.by(axis).values()) == pytest.approx(term.contribution, rel=1e-9, abs=1e-12)


def test_shares_of_a_mask_are_those_of_numpy():
    model, x, y, _ = CASES["mask"]()
    report = lossviz.explain(model, x, y, batch_size=4)
    error = (model.predict(x, verbose=0).astype(float) - y) ** 2
    there = np.any(x != 0, axis=-1)
    counted = error.mean(axis=-1) * there
    expected = np.zeros((N, 5))
    for start in (0, 4, 8):  # each batch divides by its own unmasked steps, and counts as many times as it has samples
        batch = slice(start, start + 4)
        size = len(counted[batch])
        expected[batch] = counted[batch] / there[batch].sum() * size / N
    np.testing.assert_allclose(list(report.by("batch").values()), expected.sum(axis=1), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(list(report.by("step").values()), expected.sum(axis=0), rtol=1e-5, atol=1e-9)
    assert list(report.by("batch")) == list(range(N))


def test_shares_are_those_of_one_batch_where_that_has_the_same_loss():
    x, y = inputs(8, 4, 4, 3), onehot(8, 4, 4, classes=5)
    model = compiled(pixels(5, "softmax"), "categorical_crossentropy")
    names = {"axes": ("sample", "row", "col", "kind"), "class_names": tuple("abcde")}
    one = lossviz.explain(model, x, y, **names)
    whole = lossviz.explain(model, x, y, batch_size=3, **names)
    for axes in ("sample", "row", "kind", ("row", "col"), ("col", "row", "kind"), ("sample", "kind")):
        assert whole.by(axes) == pytest.approx(one.by(axes), abs=1e-7)
        assert list(whole.by(axes)) == list(one.by(axes))
    assert whole.by_label() == pytest.approx(one.by_label(), abs=1e-7)
    assert [label for label, _ in whole.top(3, "sample")] == [label for label, _ in one.top(3, "sample")]
    with pytest.raises(ValueError, match=r"\('sample', 'row'\) of term 'o' are not kept together"):
        whole.by(("sample", "row"))


def test_the_puzzle_a_validation_loss_that_looks_fine():
    """Five classes, four found almost perfectly: the loss of the epoch prints below 0.01, and the faint class, which
    covers hardly a pixel, carries a large part of it."""
    model, (x, y) = examples.trained_unet(), examples.validation_scenes()
    report = lossviz.explain(model, x, y, batch_size=6, class_names=examples.CLASS_NAMES).check()
    assert report.reported == model.evaluate(x, y, batch_size=6, verbose=0) < 0.01
    iou = examples.iou(y, model.predict(x, batch_size=6, verbose=0))
    assert min(iou[:4]) > 0.95 and iou[4] < 0.3
    shares = report.by_label()
    rare = shares["pencil"] / report.total
    assert list(shares) == list(examples.CLASS_NAMES)
    assert sum(shares.values()) == pytest.approx(report.total)
    assert y[..., 4].mean() < 0.01 < 20 * y[..., 4].mean() < rare


def padded_batches():
    """Sequences, padded to the longest of their batch."""
    for samples, steps in ((4, 3), (4, 5), (2, 4)):
        yield inputs(samples, steps, 4), targets(samples, steps, 2)


def padded_model():
    x = keras.Input((None, 4))
    return compiled(keras.Model(x, layers.Dense(2, name="o")(x)), "mse")


class Sequences(keras.utils.PyDataset):
    num_batches = 3

    def __getitem__(self, index):
        return list(padded_batches())[index]


def as_dataset():
    signature = tf.TensorSpec((None, None, 4)), tf.TensorSpec((None, None, 2))
    return tf.data.Dataset.from_generator(padded_batches, output_signature=signature)


def test_batches_of_several_lengths_from_any_source():
    model = padded_model()
    found = [lossviz.explain(model, data).check() for data in (as_dataset(), Sequences(), padded_batches())]
    first = found[0]
    assert first.reported == model.evaluate(Sequences(), verbose=0)
    assert all(report.to_dict() == first.to_dict() for report in found)
    assert "the batches differ in size along step, from 3 to 5" in first.terms[0].parts[0].note
    expected = np.zeros(5)
    for x, y in padded_batches():
        error = np.mean((model.predict(x, verbose=0) - y) ** 2, axis=-1)
        expected[: x.shape[1]] += error.sum(axis=0) / error.size * len(x) / N
    np.testing.assert_allclose(list(first.by("step").values()), expected, rtol=1e-5)


@only_tensorflow  # which alone has strings
def test_words_and_dictionaries_as_inputs():
    word, number = keras.Input((), dtype="string", name="word"), keras.Input((2,), name="number")
    known = layers.Embedding(3, 2)(layers.StringLookup(vocabulary=["u", "v"])(word))
    model = compiled(keras.Model([word, number], layers.Dense(3)(layers.Concatenate()([known, number]))), "mse")
    x = {"word": np.array(list("uvuuvvvuuv")), "number": inputs(N, 2)}
    data = tf.data.Dataset.from_tensor_slices((x, Y)).batch(4)
    loss = model.evaluate(data, verbose=0)
    assert lossviz.explain(model, data).check().reported == pytest.approx(loss, rel=1e-6)
    assert lossviz.explain(model, x, Y, batch_size=4).check().reported == pytest.approx(loss, rel=1e-6)


def test_a_data_set_is_read_once_and_as_far_as_steps():
    read = []

    def batches():
        for batch in padded_batches():
            read.append(len(batch[0]))
            yield batch

    model = padded_model()
    assert lossviz.explain(model, batches()).batches[-1][0] == 2
    assert read == [4, 4, 2]
    report = lossviz.explain(model, as_dataset().repeat(), steps=2)
    assert report.reported == model.evaluate(as_dataset().repeat(), steps=2, verbose=0)
    assert lossviz.explain(compiled(dense(), "mse"), X, Y, steps=4).batches[0][0] == 3  # as evaluate: ceil(10 / 4)


def test_memory_does_not_grow_with_the_number_of_batches():
    """Of 64 batches the sums need what those of 4 need, and 7 numbers a sample: 2 to find it by, 5 classes."""

    def peak(batches: int) -> int:
        tracemalloc.start()
        sums = epoch._Sums({"axes": None, "max_elements": 10**6}, by_samples=True)
        for _ in range(batches):
            sums.add(reports.segmentation())  # 16 samples, 20 480 element losses: 164 kB
        report = sums.report(None)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(report.by("batch")) == 16 * batches
        return found

    peak(1)
    assert peak(64) - peak(4) < 60 * 16 * 8 * 40 < 60 * 20_480 * 8 / 10


def test_per_sample_classes_are_dropped_where_they_would_be_too_many():
    model = compiled(dense(3), "mse")
    report = lossviz.explain(model, X, Y, batch_size=4, max_elements=20)
    assert len(report.by("batch")) == N and len(report.by("class")) == 3
    with pytest.raises(ValueError, match="not kept together"):
        report.by(("batch", "class"))


@pytest.mark.skipif(KERAS < (3, 14), reason="Keras 3.13 traces a stateful RNN only with a batch size known in advance")
def test_state_that_runs_on_from_batch_to_batch():
    x = keras.Input(batch_shape=(2, 3, 4))
    recurrent = layers.SimpleRNN(2, stateful=True)
    model = compiled(keras.Model(x, recurrent(x)), "mse")
    data = inputs(8, 3, 4), targets(8, 2)
    report = lossviz.explain(model, *data, batch_size=2).check()
    assert not np.any(recurrent.states[0])
    assert report.reported == model.evaluate(*data, batch_size=2, verbose=0)


def test_an_unbuilt_model_is_left_built_and_clean():
    model = keras.Sequential([layers.Dense(3)])
    compiled(model, "mse", metrics=["mae"])
    lossviz.explain(model, X, Y, batch_size=4).check()
    assert not model.optimizer.built
    assert [variable.numpy() for variable in model.metrics_variables] == [0.0] * 4


def test_class_weights_and_training_mode_follow_compute_loss():
    y = labels(N, classes=3)
    model = compiled(dense(3, "softmax"), "sparse_categorical_crossentropy")
    report = lossviz.explain(model, X, y, class_weight={0: 1, 1: 2, 2: 5}, batch_size=4).check()
    assert report.source == "compute_loss"
    by_hand = np.array([1.0, 2.0, 5.0], "float32")[y]
    assert report.reported == pytest.approx(model.evaluate(X, y, sample_weight=by_hand, batch_size=4, verbose=0))
    assert lossviz.explain(model, X, y, training=True, batch_size=4).check().source == "compute_loss"


def test_nan_of_one_sample_is_found():
    x = X.copy()
    x[5, 1] = np.nan
    report = lossviz.explain(compiled(dense(), "mse"), x, Y, batch_size=4).check()
    assert np.isnan(report.reported)
    assert [sample for sample, share in report.by("batch").items() if np.isnan(share)] == [5]
    assert "the first is at batch 5" in " ".join(str(report).split())
    assert report.notes[0].startswith("samples 4 to 7, counted from 0 there: x holds a value that is not finite")
    json.dumps(report.to_dict(), allow_nan=False)


def test_batches_of_one_size_have_a_divisor():
    alike = lossviz.explain(compiled(dense(), "mse"), X, Y, batch_size=5).terms[0].parts[0].steps[-1]
    assert (alike.op, alike.divisor, alike.text) == ("mean", 2.0, "mean over 2 batches: 10 samples in 2 batches of 5")


def test_it_draws_and_becomes_html():
    model = compiled(pixels(3, "softmax"), "categorical_crossentropy")
    report = lossviz.explain(model, inputs(N, 4, 4, 3), onehot(N, 4, 4, classes=3), batch_size=4)
    page = report._repr_html_()
    for words in ("by class", "by batch", "by row", "by true class", "batch 10 × row 4 × col 4 × class 3"):
        assert words in page
    plots.heatmap(report)
    plots.heatmap(report, axes=("batch", "class"), at=None)
    plots.cascade(report)
    plots.waterfall(report, by="batch")


@pytest.mark.parametrize(
    "data, more, words",
    [
        (lambda: (as_dataset().repeat(),), {}, "without an end. Say how many batches to explain: steps="),
        (lambda: (as_dataset(), Y), {}, "x is a data set.*so y must not be given"),
        (lambda: (as_dataset(),), {"batch_size": 4}, "yields batches by itself, so batch_size=4 must not be given"),
        (lambda: (as_dataset().unbatch(),), {}, r"single samples of shape \(3, 4\)\? Then batch it: x.batch"),
        (lambda: (as_dataset().take(0),), {}, "x yields no batch"),
        (lambda: (as_dataset().map(lambda x, y: (x, y, y, y)),), {}, "x yields a tuple of 4 entries"),
        (lambda: (as_dataset().map(lambda x, y: (x, y[:, :, :1] + y)),), {"steps": 0}, "steps=0, but it must be"),
        (lambda: (inputs(4, 3, 4), targets(3, 3, 2)), {"batch_size": 2}, "y has 3 samples"),
        (lambda: (inputs(4, 3, 4), targets(4, 3, 2)), {"batch_size": 2.5}, "batch_size=2.5, but it must be"),
        (lambda: (inputs(4, 3, 4), targets(4, 3, 2)), {"batch_size": 2, "verbose": "yes"}, "verbose='yes', but"),
        (lambda: (inputs(4, 3, 4), targets(4, 3, 7)), {"batch_size": 3}, "batch that begins at sample 0: y does"),
    ],
)  # fmt: skip
def test_errors_name_the_argument_and_the_way_out(data, more, words):
    model = padded_model()
    before = state(model)
    with pytest.raises(ValueError, match=words):
        lossviz.explain(model, *data(), **more)
    assert state(model) == before


@only_tensorflow  # JAX takes a label that no class stands for
def test_an_error_says_in_which_batch():
    model = compiled(dense(3, "softmax"), "sparse_categorical_crossentropy")
    y = labels(N, classes=3)
    y[5] = 7
    before = state(model)
    with pytest.raises(ValueError, match=r"in the batch that begins at sample 4: .*but there are 3 classes"):
        lossviz.explain(model, X, y, batch_size=4)
    assert state(model) == before


@pytest.mark.parametrize(
    "verbose, patience, shown", [(1, 9, True), ("auto", 9, False), ("auto", 1e-9, True), (0, 0, False)]
)
@pytest.mark.parametrize("count", [3, None])
def test_the_progress_bar_shows_where_it_is_asked_for_or_slow(verbose, patience, shown, count, capsys, monkeypatch):
    monkeypatch.setattr(epoch, "PATIENCE", patience)
    progress = epoch._Progress(count, verbose)
    for seen in (1, 2, 3):
        progress(seen, 0.5)
    progress.end()
    printed = capsys.readouterr().out
    assert "3/3" in printed if count and shown else "3/Unknown" in printed if shown else not printed
