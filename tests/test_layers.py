"""LossEndpoint and CenterLoss: what they add, what they show, what moves and what does not, and at which cost."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_values import CENTERS_AFTER, center_example

import lossviz
from lossviz.layers import CenterLoss, LossEndpoint

pytestmark = pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
few = settings(max_examples=10, deadline=None, derandomize=True)


@keras.saving.register_keras_serializable(package="lossviz_tests")
def weighted_square(target, prediction, importance):
    """A loss with three arguments: (batch, features) values."""
    return importance * keras.ops.square(target - prediction)


def numbers(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype("float32")


# CenterLoss


def after_by_hand(centers, features, labels, alpha):
    """Equation 4 of the paper, class by class."""
    centers = centers.astype(float)
    moved = centers.copy()
    for j in set(labels.tolist()):
        mine = features[labels == j].astype(float)
        moved[j] -= alpha * (centers[j] - mine).sum(0) / (1 + len(mine))
    return moved


def center_model(classes=4, width=3, **options):
    """Features through an identity, so that a gradient has a weight to reach; labels; the layer."""
    features, labels = keras.Input((width,)), keras.Input((), dtype="int32")
    layer = CenterLoss(classes, **{"weight": 1.0, **options})
    dense = keras.layers.Dense(width, kernel_initializer="identity", name="dense")
    return keras.Model([features, labels], layer(dense(features), labels)), layer


@pytest.mark.parametrize("alpha", CENTERS_AFTER)
@pytest.mark.parametrize("compiling", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=["graph", "xla", "eager"])
def test_the_published_example(alpha, compiling):
    model, layer, data = center_example(alpha=alpha)
    model.compile("sgd", **compiling)
    assert model.fit(data, batch_size=3, verbose=0).history["loss"] == [19.0]  # with the centers before the step
    np.testing.assert_allclose(layer.centers, CENTERS_AFTER[alpha], rtol=1e-6)


def test_without_a_divisor_it_is_equation_2():
    model, _, data = center_example(divisor=None)
    assert model.evaluate(data, verbose=0) == 57.0
    model, _, data = center_example(divisor=None, weight=0.5)
    assert model.evaluate(data, verbose=0) == 28.5


@few
@given(st.integers(1, 6), st.integers(1, 12), st.integers(0, 2**32), st.sampled_from([0.0, 0.3, 1.0]))
def test_steps_are_those_of_numpy_with_duplicates_and_any_form_of_labels(classes, batch, seed, alpha):
    rng = np.random.default_rng(seed)
    start, features = rng.normal(size=(classes, 2)), rng.normal(size=(batch, 2)).astype("float32")
    labels = rng.integers(0, classes, batch)
    forms = [labels, labels[:, None].astype("uint8"), labels.astype("float32")]
    if classes > 1:
        forms += [np.eye(classes)[labels], np.eye(classes, dtype="int32")[labels]]
    for form in forms:
        layer = CenterLoss(classes, alpha=alpha, weight=2.0)
        layer.build((None, 2), form.shape)
        layer.centers.assign(start)
        returned = layer(features, form, training=True)
        assert np.array_equal(returned, features)
        expected = ((features - start[labels]) ** 2).sum() / batch
        np.testing.assert_allclose(layer.losses[0], expected, rtol=1e-5)
        np.testing.assert_allclose(layer.centers, after_by_hand(start, features, labels, alpha), rtol=1e-4, atol=1e-6)


def test_evaluation_and_prediction_move_nothing():
    model, layer = center_model()
    data = [numbers(8, 3), np.arange(8) % 4]
    model.compile("sgd")
    model.fit(data, verbose=0)
    before = layer.centers.numpy()
    assert np.abs(before).min() > 0
    model.evaluate(data, verbose=0)
    model.predict(data, verbose=0)
    model(data)
    assert np.array_equal(layer.centers, before)
    model.fit(data, verbose=0)
    assert not np.array_equal(layer.centers, before)


def test_no_gradient_reaches_the_centers_and_features_get_equation_3():
    layer = CenterLoss(3, weight=0.5)
    features, labels = numbers(4, 2), np.array([0, 2, 2, 1])
    layer.build((None, 2), (None,))
    layer.centers.assign(numbers(3, 2, seed=1))
    assert layer.trainable_weights == [] and len(layer.non_trainable_weights) == 1
    x = tf.constant(features)
    with tf.GradientTape() as tape:
        tape.watch([x, layer.centers.value])
        layer(x, labels, training=True)
        loss = layer.losses[0]
    slope, of_centers = tape.gradient(loss, [x, layer.centers.value])
    assert of_centers is None
    np.testing.assert_allclose(slope, 0.5 * (features - numbers(3, 2, seed=1)[labels]) / 4, rtol=1e-5)


def test_the_weight_scales_the_loss_and_not_the_step():
    losses, centers = [], []
    for weight in (0.0, 1.0, 8.0):
        model, layer, data = center_example(weight=weight)
        losses += model.fit(data, batch_size=3, shuffle=False, verbose=0).history["loss"]
        centers.append(layer.centers.numpy())
    assert losses == [0, 19, 8 * 19]
    assert np.array_equal(centers[0], centers[1]) and np.array_equal(centers[1], centers[2])


def test_the_loss_does_not_grow_with_the_batch_unless_asked_to():
    features, labels = numbers(6, 3), np.arange(6) % 4
    values = {}
    for divisor in ("batch", None):
        layer = CenterLoss(4, divisor=divisor)
        found = []
        for times in (1, 5):
            layer(np.tile(features, (times, 1)), np.tile(labels, times))
            found.append(float(layer.losses[0]))
        values[divisor] = found[1] / found[0]
    assert values == {"batch": pytest.approx(1), None: pytest.approx(5)}


def test_centers_are_saved_and_loaded_and_go_on_from_there(tmp_path):
    model, layer = center_model(alpha=0.25, divisor=None)
    data = [numbers(8, 3), np.arange(8) % 4]
    model.compile("sgd")
    model.fit(data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    again = loaded.get_layer(layer.name)
    assert again.get_config() == layer.get_config()
    assert np.array_equal(again.centers, layer.centers)
    assert loaded.evaluate(data, verbose=0) == model.evaluate(data, verbose=0)
    one, other = (m.fit(data, shuffle=False, verbose=0).history for m in (loaded, model))
    assert one == other
    assert np.array_equal(again.centers, layer.centers)


def test_mixed_precision_keeps_labels_centers_and_the_term_in_full(mixed):
    classes, labels = 70_000, np.array([4099, 69_999, 4099, 0])  # none is a float16, two are no bfloat16
    features, label = keras.Input((3,)), keras.Input(())  # float32 labels, as generators often give them
    layer = CenterLoss(classes, weight=1.0)
    hidden = keras.layers.Dense(3, kernel_initializer="identity")(features)
    model = keras.Model([features, label], layer(hidden, label))
    assert hidden.dtype == mixed.removeprefix("mixed_") and layer.centers.dtype == "float32"
    model.compile("sgd")
    x = np.round(numbers(4, 3) * 8) / 8
    history = model.fit([x, labels.astype("float32")], verbose=0).history
    assert history["loss"] == [pytest.approx((x**2).sum() / 2 / 4, rel=1e-6)]
    moved = np.flatnonzero(np.any(layer.centers.numpy() != 0, axis=1))
    assert moved.tolist() == [0, 4099, 69_999]
    np.testing.assert_allclose(layer.centers.numpy()[4099], 0.5 * (x[0] + x[2]) / 3, rtol=1e-5, atol=1e-7)


def test_a_step_with_100_000_classes_makes_nothing_of_that_size():
    classes = 100_000
    model, layer = center_model(classes)
    model.compile("sgd", jit_compile=False)
    data = [numbers(8, 3), np.arange(8) * 12_345]
    model.fit(data, verbose=0)
    moved = np.any(layer.centers.numpy() != 0, axis=1)
    assert np.flatnonzero(moved).tolist() == data[1].tolist()
    step = tf.function(lambda x, y: model.train_step(((x, y),))).get_concrete_function(*map(tf.constant, data))
    graphs = [step.graph, *(f.graph for f in step.graph._functions.values() if hasattr(f, "graph"))]
    operations = [operation for graph in graphs for operation in graph.get_operations()]
    assert {"ResourceGather", "ResourceScatterNdAdd"} <= {operation.type for operation in operations}
    sizes = [out.shape.num_elements() or 0 for operation in operations for out in operation.outputs]
    assert max(sizes) <= 8 * 8
    assert classes not in {
        size for operation in operations for out in operation.outputs for size in out.shape.as_list()
    }


@pytest.mark.parametrize(
    "labels, message",
    [
        ([0, 4, 1], r"labels must be classes from 0 to num_classes - 1 = 3.*1 of 3 are not, first sample 1: 4"),
        ([0, 1, -1], r"1 of 3 are not, first sample 2: -1"),
        ([0.5, 1, np.nan], r"2 of 3 are not, first sample 0: 0\.5"),
        ([[0, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], r"or one-hot rows; 2 of 3 are not, first sample 0: \[0 0 0 0\]"),
        ([[0.2, 0.8, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0]], r"1 of 3 are not, first sample 0: \[0\.2 0\.8"),
        (
            [[0, 1], [0, 1], [0, 1]],
            r"labels must have shape \(batch,\), \(batch, 1\) or, one-hot, \(batch, 4\), got \(3, 2",
        ),
    ],
)
def test_labels_that_are_no_class_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        CenterLoss(4)(numbers(3, 2), np.array(labels))


@pytest.mark.parametrize("jit", [False, True], ids=["graph", "xla"])
@pytest.mark.parametrize("bad", [4, -1, 2**31 - 1])
def test_in_a_compiled_step_such_a_label_gives_nan_and_moves_no_center(bad, jit):
    model, layer = center_model()
    model.compile("sgd", jit_compile=jit)
    data = [numbers(4, 3), np.array([0, bad, 0, 3])]  # the bad one must not count for class 0
    good = center_model()[1]
    good(data[0][[0, 2, 3]], data[1][[0, 2, 3]], training=True)
    assert np.isnan(model.fit(data, verbose=0).history["loss"][0])
    np.testing.assert_allclose(layer.centers, good.centers, rtol=1e-6)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: CenterLoss(0), r"num_classes must be a whole number of at least 1, got 0"),
        (lambda: CenterLoss(True), r"num_classes must be a whole number"),
        (lambda: CenterLoss(3, alpha=1.5), r"alpha must be a number from 0 to 1, got 1\.5"),
        (lambda: CenterLoss(3, weight=-1), r"weight must be a finite number of at least 0, got -1"),
        (lambda: CenterLoss(3, divisor="sample"), r"divisor must be one of 'batch', None, got 'sample'"),
        (
            lambda: CenterLoss(3)(numbers(2, 3, 4), np.array([0, 1])),
            r"features must have shape \(batch, features\), got",
        ),
        (
            lambda: LossEndpoint("mse", name="loss"),
            r'name must be a word .* other than "loss" \(the total\), got \'loss\'',
        ),
        (lambda: LossEndpoint("mse", name=None), r"name must be a word for the progress bar"),
        (lambda: LossEndpoint(None, name="a"), r"loss must be the name of a Keras loss.*got None"),
        (lambda: LossEndpoint(keras.losses.Huber, name="a"), r"loss must be .*got <class"),
        (lambda: LossEndpoint("msee", name="a"), r"msee"),
        (lambda: LossEndpoint("mse", name="a", weight=-1), r"weight must be a finite number of at least 0, got -1"),
    ],
)
def test_arguments_that_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_explain_reads_the_center_term():
    model, layer = center_model()
    data = [numbers(6, 3), np.array([0, 1, 1, 1, 3, 0])]
    model.compile("sgd")
    layer.centers.assign(numbers(4, 3, seed=1))
    before = layer.centers.numpy()
    for training in (False, True):
        report = lossviz.explain(model, data, training=training).check()
        (term,) = report.terms
        assert (term.name, term.kind, term.parts[0].exactness) == (layer.name, "add_loss", "exact")
        squares = (data[0] - before[data[1]]) ** 2 / 2 / 6
        assert list(report.by("batch").values()) == pytest.approx(squares.sum(1).tolist(), rel=1e-5)
        assert list(report.by("feature").values()) == pytest.approx(squares.sum(0).tolist(), rel=1e-5)
        assert np.array_equal(layer.centers, before)


# LossEndpoint


def endpoints(*made):
    """A model of x and a target for each endpoint, whose prediction is a dense layer."""
    x = keras.Input((3,))
    targets = [keras.Input((2,)) for _ in made]
    predictions = [keras.layers.Dense(2, name=f"dense_{k}")(x) for k in range(len(made))]
    outputs = [endpoint(t, p) for endpoint, t, p in zip(made, targets, predictions)]
    keras.utils.set_random_seed(1)
    model = keras.Model([x, *targets], outputs)
    for weight in model.trainable_weights:
        weight.assign(numbers(*weight.shape, seed=2))
    return model


DATA = [numbers(7, 3), numbers(7, 2, seed=1), numbers(7, 2, seed=2)]


@pytest.mark.parametrize("compiling", [{}, {"jit_compile": True}, {"run_eagerly": True}], ids=["graph", "xla", "eager"])
def test_parts_add_up_to_the_loss_after_a_short_last_batch(compiling):
    model = endpoints(LossEndpoint("mse", name="first"), LossEndpoint("mae", name="second", weight=0.25))
    model.compile(keras.optimizers.SGD(0.1), **compiling)
    logs = model.evaluate(DATA, batch_size=3, verbose=0, return_dict=True)  # 3 + 3 + 1 samples
    assert set(logs) == {"loss", "first", "second"}
    predictions = model.predict(DATA, verbose=0)
    assert logs["first"] == pytest.approx(((predictions[0] - DATA[1]) ** 2).mean(), rel=1e-5)
    assert logs["second"] == pytest.approx(0.25 * abs(predictions[1] - DATA[2]).mean(), rel=1e-5)
    assert logs["first"] + logs["second"] == pytest.approx(logs["loss"], rel=1e-6)
    history = model.fit(DATA, batch_size=3, epochs=2, verbose=0).history
    np.testing.assert_allclose(np.add(history["first"], history["second"]), history["loss"], rtol=1e-6)


def test_it_trains_as_the_same_loss_in_compile():
    ours = endpoints(LossEndpoint("mse", name="part"))
    x = keras.Input((3,))
    plain = keras.Model(x, keras.layers.Dense(2)(x))
    plain.set_weights(ours.get_weights())
    ours.compile(keras.optimizers.SGD(0.1))
    plain.compile(keras.optimizers.SGD(0.1), loss="mse")
    one = ours.fit(DATA[:2], batch_size=3, epochs=3, shuffle=False, verbose=0).history["loss"]
    other = plain.fit(DATA[0], DATA[1], batch_size=3, epochs=3, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(one, other, rtol=1e-6)


def test_a_loss_of_three_arguments_and_a_sample_weight():
    target, prediction, third = numbers(5, 2), numbers(5, 2, seed=1), np.abs(numbers(5, 1, seed=2))
    endpoint = LossEndpoint(weighted_square, name="three")
    assert np.array_equal(endpoint(target, prediction, third), prediction)
    assert float(endpoint.losses[0]) == pytest.approx((third * (target - prediction) ** 2).mean(), rel=1e-6)
    assert float(endpoint.part.result()) == pytest.approx(float(endpoint.losses[0]))
    weighted = LossEndpoint(keras.losses.MeanSquaredError(), name="weighted")
    weighted(target, prediction, third[:, 0])
    expected = keras.losses.MeanSquaredError()(target, prediction, sample_weight=third[:, 0])
    assert float(weighted.losses[0]) == pytest.approx(float(expected))


def test_what_is_not_a_number_is_averaged_and_a_number_stays():
    target, prediction = numbers(5, 2), numbers(5, 2, seed=1)
    mean = ((target - prediction) ** 2).mean()
    for loss, expected in (
        ("mean_squared_error", mean),
        (keras.losses.MeanSquaredError(), mean),
        (keras.losses.MeanSquaredError(reduction=None), mean),
        (keras.losses.MeanSquaredError(reduction="sum"), 5 * mean),
        (lambda t, p: keras.ops.sum(t * p), (target * prediction).sum()),
    ):
        endpoint = LossEndpoint(loss, name="part")
        endpoint(target, prediction)
        assert float(endpoint.losses[0]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shapes", [((4,), (4, 1)), ((4, 1), (4,)), ((4, 1), (4, 1))])
def test_a_missing_last_axis_is_not_broadcast(shapes):
    for loss in ("mse", lambda target, prediction: keras.ops.square(target - prediction)):
        endpoint = LossEndpoint(loss, name="part")
        endpoint(np.array([1.0, 2, 3, 4]).reshape(shapes[0]), np.array([1.0, 2, 3, 6]).reshape(shapes[1]))
        assert float(endpoint.losses[0]) == 1.0


def test_targets_are_not_autocast(mixed):
    target, x = keras.Input((1,)), keras.Input((1,))
    prediction = keras.layers.Dense(1, kernel_initializer="zeros")(x)
    endpoint = LossEndpoint("mae", name="part")
    model = keras.Model([target, x], endpoint(target, prediction))
    model.compile("sgd")
    data = [np.array([[100_001.0]], "float32"), np.ones((1, 1), "float32")]  # beyond float16, between two bfloat16
    assert model.evaluate(data, verbose=0, return_dict=True) == {"loss": 100_001.0, "part": 100_001.0}
    assert model(data).dtype.name == mixed.removeprefix("mixed_")


def test_saved_and_loaded(tmp_path):
    target, importance, x = keras.Input((2,)), keras.Input((1,)), keras.Input((3,))
    three = LossEndpoint(weighted_square, name="three", weight=0.5)(target, keras.layers.Dense(2)(x), importance)
    named = LossEndpoint(lossviz.losses.LandmarkLoss(1, "mse"), name="points")
    flags = keras.layers.Dense(3, activation="sigmoid")(x)
    model = keras.Model([x, target, importance], [three, named(keras.ops.ones_like(flags), flags)])
    model.compile("sgd")
    data = [DATA[0], DATA[1], np.abs(numbers(7, 1))]
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    logs = model.evaluate(data, verbose=0, return_dict=True)
    assert loaded.evaluate(data, verbose=0, return_dict=True) == logs
    assert set(logs) == {"loss", "three", "points"}
    for layer in (model.get_layer(name) for name in ("three", "points")):
        assert loaded.get_layer(layer.name).get_config() == layer.get_config()


def test_a_model_that_predicts_shares_the_weights():
    x, target = keras.Input((3,)), keras.Input((2,))
    prediction = keras.layers.Dense(2)(x)
    training = keras.Model([x, target], LossEndpoint("mse", name="part")(target, prediction))
    predicting = keras.Model(x, prediction)
    training.compile(keras.optimizers.SGD(0.1))
    training.fit(DATA[:2], verbose=0)
    assert predicting.losses == []
    np.testing.assert_allclose(predicting(DATA[0]), training.predict(DATA[:2], verbose=0), rtol=1e-5)


def test_explain_reads_every_endpoint():
    model = endpoints(LossEndpoint("mse", name="first"), LossEndpoint(keras.losses.Huber(), name="second", weight=0.25))
    model.compile("sgd")
    report = lossviz.explain(model, DATA).check()
    assert [(term.name, term.kind, term.parts[0].exactness) for term in report.terms] == [
        ("first", "add_loss", "exact"),
        ("second", "add_loss", "exact"),
    ]
    logs = model.evaluate(DATA, verbose=0, return_dict=True)
    for term in report.terms:
        assert term.contribution == pytest.approx(logs[term.name], rel=1e-5)
        assert len(term.by("batch")) == 7
        assert sum(term.by("batch").values()) == pytest.approx(term.contribution, rel=1e-6)
