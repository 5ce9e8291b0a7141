"""`explain` against Keras: model x loss x weight x mask. Each row says which terms, exactness and axes are shown.

For every row: the parts add up, their sum is what Keras itself computes on the same batch, shares along every axis
sum to their term, and explaining again gives the same numbers.

The steps, shares and findings are those of `golden/explained.json`, whatever the backend. Run as a script, on
TensorFlow, this file writes it anew.
"""

import copy
import json
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import (
    ON_TENSORFLOW,
    compiled,
    dense,
    inputs,
    labels,
    onehot,
    pixels,
    sequence,
    targets,
    told,
    two_outputs,
    weights,
)

import lossviz

if ON_TENSORFLOW:
    import tensorflow as tf
else:
    import jax
    import jax.numpy as jnp

CASES: dict[str, tuple] = {}
FILE = Path(__file__).parent / "golden" / "explained.json"
GOLDEN = json.loads(FILE.read_text()) if FILE.exists() else {}
PLAIN = "output o: exact along batch, class"
STEPS = "output o: exact along batch, step, class"


def case(shows: str, name: str | None = None):
    """Register a function that makes (model, x, y[, sample_weight[, arguments of explain]])."""

    def register(make):
        key = name or make.__name__.replace("_", " ")
        assert key not in CASES, key
        CASES[key] = (make, shows)
        return make

    return register


def tensorflow_alone(shows: str, name: str | None = None):
    """The same for what only TensorFlow has."""
    return case(shows, name) if ON_TENSORFLOW else lambda make: make


def shown(report: lossviz.Report) -> str:
    """The terms of a report as the rows below write them: the axes of each part, "-" for a single number."""
    axes = {term.name: " + ".join(", ".join(part.axes) or "-" for part in term.parts) for term in report.terms}
    return "; ".join(
        f"{term.kind} {term.name}: {term.exactness} along {axes[term.name] or 'nothing'}" for term in report.terms
    )


def keras_says(model, x, y, sample_weight=None, arguments=None) -> float:
    """The loss of this batch from Keras alone."""
    arguments = arguments or {}
    if "class_weight" in arguments:
        classes = y.argmax(-1) if y.ndim == 2 and y.shape[1] > 1 else y.reshape(-1)
        sample_weight = np.array([arguments["class_weight"].get(int(c), 1.0) for c in classes])
    if arguments.get("training"):
        x, y = map(ops.convert_to_tensor, (x, y))
        return float(model.compute_loss(x, y, model(x, training=True), training=True))
    return model.test_on_batch(x, y, sample_weight=sample_weight, return_dict=True)["loss"]


# -- built-in losses, by name ------------------------------------------------------------------------------------

for word in ("mse", "mae", "mape", "msle", "huber", "log_cosh", "hinge", "squared_hinge", "poisson", "kl_divergence"):

    @case(PLAIN, name=f"{word} by name")
    def built_in(word=word):
        return compiled(dense(activation="softmax"), word), inputs(6, 4), np.abs(targets(6, 3))


for loss, exactly in {
    keras.losses.CosineSimilarity: PLAIN,
    keras.losses.CategoricalHinge: "output o: exact along batch",  # a maximum over the classes
    keras.losses.BinaryFocalCrossentropy: PLAIN,
    keras.losses.CategoricalFocalCrossentropy: PLAIN,
    keras.losses.CategoricalGeneralizedCrossEntropy: "output o: exact along batch, class",  # that of the true class
    keras.losses.Dice: "output o: ratio along -",
    keras.losses.Tversky: "output o: ratio along -",
}.items():

    @case(exactly, name=f"{loss.__name__} object")
    def built_in_object(loss=loss):
        y = labels(6, classes=3) if "Generalized" in loss.__name__ else onehot(6, classes=3)
        return compiled(dense(activation="softmax"), loss()), inputs(6, 4), y


@case("output o: ratio along batch, class")
def dice_per_sample_and_class():
    return (
        compiled(pixels(activation="softmax"), keras.losses.Dice(axis=(1, 2))),
        inputs(2, 4, 4, 3),
        onehot(2, 4, 4, classes=5),
    )


@case(PLAIN)
def binary_crossentropy_of_a_sigmoid():
    return compiled(dense(activation="sigmoid"), "binary_crossentropy"), inputs(6, 4), onehot(6, classes=3)


@case(PLAIN)
def binary_crossentropy_of_logits_smoothed():
    loss = keras.losses.BinaryCrossentropy(from_logits=True, label_smoothing=0.1)
    return compiled(dense(), loss), inputs(6, 4), onehot(6, classes=3)


@case(PLAIN)
def categorical_crossentropy_of_a_softmax():
    return compiled(dense(activation="softmax"), "categorical_crossentropy"), inputs(6, 4), onehot(6, classes=3)


@case(PLAIN)
def categorical_crossentropy_of_logits_smoothed():
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    return compiled(dense(), loss), inputs(6, 4), onehot(6, classes=3)


@case(PLAIN)
def sparse_crossentropy_of_a_softmax():
    return compiled(dense(activation="softmax"), "sparse_categorical_crossentropy"), inputs(6, 4), labels(6, classes=3)


@case(PLAIN)
def sparse_crossentropy_of_logits():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(dense(), loss), inputs(6, 4), labels(6, classes=3)


@case(PLAIN)
def sparse_crossentropy_that_ignores_a_class():
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=1)
    return compiled(dense(), loss), inputs(6, 4), labels(6, classes=3)


@case("output o: exact along batch, class")
def crossentropy_as_metrics_name_it():
    return compiled(dense(activation="softmax"), "crossentropy"), inputs(6, 4), onehot(6, classes=3)


@case("output o: opaque along batch" if ON_TENSORFLOW else "output o: opaque along batch, axis1")
def ctc():
    return compiled(sequence(out=4, steps=6), keras.losses.CTC()), inputs(3, 6, 4), 1 + labels(3, 2, classes=3)


@case(PLAIN)
def two_losses_with_xla():  # compile's default, jit_compile="auto"
    return (
        compiled(dense(activation="softmax"), "categorical_crossentropy", jit_compile="auto"),
        inputs(6, 4),
        onehot(6, classes=3),
    )


@case(PLAIN)
def mse_with_xla():
    return compiled(dense(), "mse", jit_compile=True), inputs(6, 4), targets(6, 3)


# -- own losses ---------------------------------------------------------------------------------------------------


class SquaredElements(keras.losses.Loss):
    """A loss whose values still have the class axis."""

    def call(self, y_true, y_pred):
        return ops.square(y_true - y_pred)


def scaled(alpha):
    def scaled_mse(y_true, y_pred):
        return alpha * ops.mean(ops.square(y_true - y_pred), axis=-1)

    return scaled_mse


def inside_a_function(y, p):
    return ops.mean(ops.square(y - p), -1)


def three_roads(y, p):
    squared = ops.square(y - p)
    return ops.mean(squared, -1) + ops.sum(squared, -1) + squared[:, 0]


def three_times(y, p):
    def step(k, total):
        return k + 1, total + ops.mean(ops.square(y - p), -1)

    return ops.while_loop(lambda k, total: k < 3, step, (0, ops.zeros(6)))[1]


def branches(y, p):
    squared, absolute = (lambda: ops.mean(ops.square(y - p), -1)), (lambda: ops.mean(ops.abs(y - p), -1))
    return ops.cond(ops.mean(y) > 0, squared, absolute)


def mapped(y, p):
    return tf.map_fn(lambda one: tf.reduce_mean(tf.square(one[0] - one[1])), (y, p), fn_output_signature=tf.float32)


def mean_over_some(y, p):
    some = ops.cast(y > 0, "float32")
    return ops.sum(ops.where(y > 0, ops.abs(y - p), 0.0)) / ops.sum(some)


def by_segment(y, p):
    return ops.segment_sum(ops.sum(ops.square(y - p), -1), ops.convert_to_tensor([0, 0, 1, 1, 2, 2]), num_segments=3)


def hardest_five(y, p):
    return ops.mean(ops.top_k(ops.reshape(ops.square(y - p), [-1]), 5)[0])


def lovasz_hinge(y, p):
    """Berman et al. 2018: errors in sorted order times the gradient of the Jaccard index."""
    y, p = ops.reshape(y, [-1]), ops.reshape(p, [-1])
    errors, order = ops.top_k(1 - p * (2 * y - 1), k=18)
    y = ops.take(y, order)
    jaccard = 1 - (ops.sum(y) - ops.cumsum(y)) / (ops.sum(y) + ops.cumsum(1 - y))
    return ops.sum(ops.relu(errors) * ops.concatenate([jaccard[:1], jaccard[1:] - jaccard[:-1]], 0))


BATCH = "output o: exact along batch"
TWO_PARTS = "output o: exact along batch, class + batch, class"
WITH_CONSTANT = f"{PLAIN}; constant constant in o: exact along -"
ONLY_CONSTANT = "output o: exact along nothing; constant constant in o: exact along -"
OWN = {
    # closures, keras.ops, raw tf
    "closure": (scaled(0.3), PLAIN),
    "Loss subclass that returns elements": (SquaredElements(), PLAIN),
    "function that returns elements": (lambda y, p: ops.square(y - p), PLAIN),
    "function that returns a scalar": (lambda y, p: ops.mean(ops.square(y - p)), PLAIN),
    "function that returns (batch, 1)": (lambda y, p: ops.mean(ops.square(y - p), -1, keepdims=True), PLAIN),
    # linear ends of every kind
    "sum of two losses": (lambda y, p: ops.mean(ops.square(y - p), -1) + ops.mean(ops.abs(y - p), -1), TWO_PARTS),
    "weights within": (lambda y, p: ops.mean(ops.square(y - p) * np.float32([1, 5, 9]), -1), PLAIN),
    "matvec": (lambda y, p: ops.matmul(ops.square(y - p), np.float32([0.2, 0.3, 0.5])), PLAIN),
    "einsum": (lambda y, p: ops.einsum("bc,c->b", ops.square(y - p), np.float32([0.2, 0.3, 0.5])), PLAIN),
    "cumulative": (lambda y, p: ops.mean(ops.cumsum(ops.square(y - p), axis=-1), -1), PLAIN),
    "one tensor on three roads": (three_roads, PLAIN),
    "slices with a loss each": (
        lambda y, p: ops.mean(ops.square(y[:, :2] - p[:, :2]), -1) + ops.mean(ops.abs(y[:, 2:] - p[:, 2:]), -1),
        TWO_PARTS,
    ),
    "where": (lambda y, p: ops.mean(ops.where(y > 0, ops.square(y - p), 0.1 * ops.abs(y - p)), -1), PLAIN),
    "mean over some": (mean_over_some, PLAIN),
    "segments": (by_segment, PLAIN),
    "constant": (lambda y, p: ops.mean(ops.square(y - p), -1) + 3.0, WITH_CONSTANT),
    "targets alone": (lambda y, p: ops.mean(y, -1) - ops.mean(p, -1), WITH_CONSTANT),
    "no predictions": (lambda y, p: ops.mean(y, -1), ONLY_CONSTANT),
    "error rate": (lambda y, p: ops.mean(ops.cast((p > 0.5) != (y > 0.5), "float32")), ONLY_CONSTANT),
    # nonlinear ends
    "rmse of the batch": (lambda y, p: ops.sqrt(ops.mean(ops.square(y - p))), "output o: opaque along -"),
    "rmse of a sample": (lambda y, p: ops.sqrt(ops.mean(ops.square(y - p), -1)), BATCH),
    "sum + log1p(mean)": (
        lambda y, p: ops.sum(ops.square(y - p), -1) + ops.log1p(ops.mean(ops.abs(y - p))),
        "output o: opaque along - + batch, class",
    ),
    "maximum over classes": (lambda y, p: ops.max(ops.square(y - p), -1), PLAIN),
    "logsumexp": (
        lambda y, p: ops.logsumexp(p, -1) - ops.sum(y * p, -1),
        "output o: exact along batch, class + batch",  # the logarithm is one number per sample
    ),
    "product": (lambda y, p: ops.prod(ops.abs(y - p), -1), BATCH),
    "correlation": (
        lambda y, p: 1 - ops.sum(y * p) / ops.sqrt(ops.sum(ops.square(y)) * ops.sum(ops.square(p))),
        "output o: ratio along -",
    ),
    "pairs of samples": (
        lambda y, p: ops.mean(ops.exp(-ops.sum(ops.square(p[:, None] - p[None]), -1))),
        "output o: exact along axis0, axis1",  # an element of two samples belongs to neither
    ),
    "sorted errors": (lovasz_hinge, "output o: exact along batch, class"),
    "hardest five": (hardest_five, "output o: exact along batch, class"),
    "stop_gradient": (lambda y, p: ops.mean(ops.stop_gradient(ops.abs(y - p)) * ops.square(y - p), -1), PLAIN),
    "branch of the graph": (branches, "output o: opaque along batch"),
    "loop": (three_times, "output o: opaque along batch"),
}  # fmt: skip
if ON_TENSORFLOW:
    OWN |= {
        "tf ops": (lambda y, p: tf.reduce_mean(tf.math.squared_difference(y, p), -1), PLAIN),
        "tf.function with XLA": (tf.function(inside_a_function, jit_compile=True), PLAIN),
        "l2_loss": (lambda y, p: tf.nn.l2_loss(y - p), PLAIN),
        "boolean mask": (lambda y, p: tf.reduce_mean(tf.boolean_mask(tf.square(y - p), y > 0)), PLAIN),
        "custom gradient": (
            tf.custom_gradient(lambda y, p: (tf.reduce_mean((y - p) ** 2, -1), lambda g: (None, 7 * p * g[:, None]))),
            BATCH,
        ),
        "map_fn": (mapped, "output o: opaque along batch"),
        "numpy_function": (
            lambda y, p: tf.reshape(tf.numpy_function(lambda a, b: np.square(a - b).mean(), [y, p], tf.float32), ()),
            "output o: opaque along -",
        ),
    }  # fmt: skip
else:

    @jax.custom_vjp
    def seven_times(y, p):
        return jnp.mean(jnp.square(y - p), -1)

    seven_times.defvjp(lambda y, p: (seven_times(y, p), (y, p)), lambda kept, g: (None, 7 * kept[1] * g[:, None]))

    def scanned(y, p):
        return jax.lax.scan(lambda total, one: (total, jnp.mean(jnp.square(one[0] - one[1]))), 0.0, (y, p))[1]

    def called_back(y, p):
        return jax.pure_callback(lambda a, b: np.square(a - b).mean(), jax.ShapeDtypeStruct((), "float32"), y, p)

    OWN |= {
        "jnp": (lambda y, p: jnp.mean((y - p) ** 2, -1), PLAIN),
        "jax.jit": (jax.jit(inside_a_function), PLAIN),
        "vmap": (jax.vmap(lambda y, p: jnp.mean(jnp.square(y - p))), PLAIN),
        "checkpoint": (jax.checkpoint(inside_a_function), PLAIN),
        "boolean mask": (lambda y, p: jnp.mean(jnp.square(y - p), where=y > 0), PLAIN),
        "custom_vjp": (seven_times, BATCH),
        "scan": (scanned, "output o: opaque along batch"),
        "fori_loop": (
            lambda y, p: jax.lax.fori_loop(0, 3, lambda k, total: total + inside_a_function(y, p), jnp.zeros(6)),
            "output o: opaque along batch",
        ),
    }
for label, (loss, shows) in OWN.items():

    @case(shows, name=f"own: {label}")
    def own(loss=loss):
        return compiled(dense(), loss), inputs(6, 4), targets(6, 3)


@case("output o: exact along batch")
def triplets():
    def triplet(y, p):
        anchor, near, far = p[:, 0], p[:, 1], p[:, 2]
        margin = ops.sum(ops.square(anchor - near), -1) - ops.sum(ops.square(anchor - far), -1) + 0.2
        return ops.maximum(margin, 0.0)

    return compiled(sequence(out=2, steps=3), triplet), inputs(5, 3, 4), np.zeros(5, "float32")


@case(PLAIN)
def weights_packed_into_the_targets():
    def packed(y, p):
        return ops.mean(ops.square(y[:, :3] - p), -1) * y[:, 3]

    return compiled(dense(), packed), inputs(6, 4), weights(6, 4)


@tensorflow_alone("output o: ratio along batch, axis1, axis2, class; constant constant in o: exact along -")
def structural_similarity():
    y = weights(2, 12, 12, 1)
    return compiled(pixels(1, "sigmoid", size=12), lambda y, p: 1 - tf.image.ssim(y, p, 1.0)), inputs(2, 12, 12, 3), y


# -- ranks, weights, masks, reductions ------------------------------------------------------------------------------


@case("output o: exact along batch")
def rank_1():
    x = keras.Input(())
    return compiled(keras.Model(x, layers.Rescaling(2.0, name="o")(x)), "mse"), inputs(6), targets(6)


@case(STEPS)
def rank_3():
    return compiled(sequence(), "mse"), inputs(4, 5, 4), targets(4, 5, 3)


@case("output o: exact along batch, row, col, class")
def rank_4():
    return compiled(pixels(), "mse"), inputs(2, 4, 4, 3), targets(2, 4, 4, 5)


@case("output o: exact along batch, depth, row, col, class")
def rank_5():
    x = keras.Input((2, 3, 3, 2))
    return (
        compiled(keras.Model(x, layers.Conv3D(2, 1, name="o")(x)), "mse"),
        inputs(2, 2, 3, 3, 2),
        targets(2, 2, 3, 3, 2),
    )


@case(PLAIN)
def targets_without_the_axis_of_one_column():
    return compiled(dense(1, "sigmoid"), "binary_crossentropy"), inputs(6, 4), labels(6, classes=2)


@case("output o: exact along batch, row, col, class")
def sparse_labels_of_pixels():
    return (
        compiled(pixels(activation="softmax"), "sparse_categorical_crossentropy"),
        inputs(2, 4, 4, 3),
        labels(2, 4, 4, classes=5),
    )


@case("output o: exact along batch, row, col, class")
def sparse_labels_of_pixels_with_a_last_axis():
    y = labels(2, 4, 4, 1, classes=5)
    return compiled(pixels(activation="softmax"), "sparse_categorical_crossentropy"), inputs(2, 4, 4, 3), y


@case(PLAIN)
def integer_targets():
    return compiled(dense(), "mse"), inputs(6, 4), labels(6, 3, classes=5)


@case(PLAIN)
def batch_of_one():
    return compiled(dense(), "mse"), inputs(1, 4), targets(1, 3)


WEIGHTS = {
    "one a sample": weights(6, 1),
    "one a step": weights(1, 5).repeat(6, 0),
    "zeros and ones": np.tile(np.float32([0, 1, 1, 0, 1]), (6, 1)),
    "all zero": np.zeros((6, 5), "float32"),
    "negative": -weights(6, 5),
    "huge": weights(6, 5) * np.float32(1e8),
}
for masked in (False, True):
    for label, weight in {"none": None, **WEIGHTS}.items():

        @case(STEPS, name=f"weights {label}{', masked' if masked else ''}")
        def weighted(masked=masked, weight=weight):
            x = inputs(6, 5, 4)
            x[0, 2:] = x[3, 4:] = 0
            return compiled(sequence(masked=masked), "mse"), x, targets(6, 5, 3), weight


for reduction in ("sum_over_batch_size", "sum", "mean", "mean_with_sample_weight", "none", None):

    @case(STEPS, name=f"reduction {reduction}, masked and weighted")
    def reduced(reduction=reduction):
        x = inputs(6, 5, 4)
        x[0, 2:] = 0
        loss = keras.losses.MeanSquaredError(reduction=reduction)
        return compiled(sequence(masked=True), loss), x, targets(6, 5, 3), weights(6, 5)


@case(PLAIN)
def weights_one_a_sample_of_rank_1():
    return compiled(dense(), "mse"), inputs(6, 4), targets(6, 3), weights(6)


@case("output o: exact along batch, row, col, class")
def weights_one_a_pixel():
    model = compiled(pixels(activation="softmax"), "categorical_crossentropy")
    return model, inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5), weights(2, 4, 4)


@case("output o: exact along batch, row, col, class")
def weights_one_an_image():
    model = compiled(pixels(activation="softmax"), "categorical_crossentropy")
    return model, inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5), weights(2, 1, 1)


@case("output o: exact along batch, row, col, class")
def weights_one_an_element():
    return compiled(pixels(), SquaredElements()), inputs(2, 4, 4, 3), targets(2, 4, 4, 5), weights(2, 4, 4, 5)


@case(STEPS)
def every_step_masked():
    return compiled(sequence(masked=True), "mse"), np.zeros((6, 5, 4), "float32"), targets(6, 5, 3)


@case(STEPS)
def embedding_mask_through_an_lstm():
    x = keras.Input((5,))
    hidden = layers.LSTM(3, return_sequences=True)(layers.Embedding(7, 3, mask_zero=True)(x))
    model = compiled(
        keras.Model(x, layers.Dense(3, activation="softmax", name="o")(hidden)), "categorical_crossentropy"
    )
    return model, np.where(np.arange(5) < 3, labels(4, 5, classes=7), 0), onehot(4, 5, classes=3)


@case(STEPS)
def attention_with_a_mask():
    x = keras.Input((5,))
    hidden = layers.Embedding(7, 4, mask_zero=True)(x)
    hidden = layers.MultiHeadAttention(2, 2)(hidden, hidden)
    model = keras.Model(x, layers.Dense(3, activation="softmax", name="o")(hidden))
    compiled(model, "sparse_categorical_crossentropy")
    return model, np.where(np.arange(5) < 4, labels(4, 5, classes=7), 0), labels(4, 5, classes=3)


@case(PLAIN)
def class_weights_of_labels():
    model = compiled(dense(activation="softmax"), "sparse_categorical_crossentropy")
    return model, inputs(6, 4), labels(6, classes=3), None, {"class_weight": {0: 1.0, 2: 9.0}}


@case(PLAIN)
def class_weights_of_rows():
    model = compiled(dense(activation="softmax"), "categorical_crossentropy")
    return model, inputs(6, 4), onehot(6, classes=3), None, {"class_weight": {0: 0.5, 1: 1.0, 2: 1000.0}}


# -- several outputs ------------------------------------------------------------------------------------------------

BOTH = "output a: exact along batch, class; output b: exact along batch, class"


@case(BOTH)
def outputs_in_a_list():
    model = compiled(two_outputs(), ["mse", "categorical_crossentropy"], loss_weights=[1, 10.0])
    return model, inputs(6, 4), [targets(6, 3), onehot(6, classes=2)]


@case(BOTH)
def outputs_in_a_dictionary():
    model = compiled(two_outputs(as_dict=True), {"a": "mse", "b": "mae"}, loss_weights={"a": 0.5, "b": 2.0})
    return model, inputs(6, 4), {"a": targets(6, 3), "b": targets(6, 2)}, {"a": weights(6), "b": weights(6)}


@case("output x/a: exact along batch, class; output y/b: exact along batch, class")
def outputs_in_nests():
    x = keras.Input((4,))
    model = keras.Model(x, {"x": {"a": layers.Dense(3, name="a")(x)}, "y": [layers.Dense(2, name="b")(x)]})
    return compiled(model, "mse"), inputs(6, 4), {"x": {"a": targets(6, 3)}, "y": [targets(6, 2)]}


@case("output a: exact along batch, class")
def output_skipped_by_none():
    return compiled(two_outputs(), ["mse", None]), inputs(6, 4), [targets(6, 3), targets(6, 2)]


@case("output a: exact along batch, class")
def output_skipped_in_the_dictionary():
    return compiled(two_outputs(as_dict=True), {"a": "mse"}), inputs(6, 4), {"a": targets(6, 3)}


@case(BOTH)
def loss_weight_of_zero_and_a_negative_one():
    return (
        compiled(two_outputs(), ["mse", "mae"], loss_weights=[0.0, -2.0]),
        inputs(6, 4),
        [targets(6, 3), targets(6, 2)],
    )


@case(BOTH)
def loss_weight_in_a_variable():
    model = compiled(two_outputs(), ["mse", "mae"], loss_weights=[keras.Variable(3.0), 1.0])
    return model, inputs(6, 4), [targets(6, 3), targets(6, 2)]


@case(PLAIN)
def loss_weight_of_a_single_output():
    return compiled(dense(), "mse", loss_weights=3.0), inputs(6, 4), targets(6, 3)


@case(BOTH)
def weights_for_one_of_two_outputs():
    return compiled(two_outputs(), "mse"), inputs(6, 4), [targets(6, 3), targets(6, 2)], [weights(6), None]


@case(BOTH)
def reduction_none_on_two_outputs():
    losses = [keras.losses.MeanSquaredError(reduction=None), keras.losses.MeanAbsoluteError(reduction="none")]
    return compiled(two_outputs(), losses, loss_weights=[2.0, 3.0]), inputs(6, 4), [targets(6, 3), targets(6, 2)]


@case("output o: exact along batch, class; output o_1: exact along batch, class")
def one_tensor_as_two_outputs():
    x = keras.Input((4,))
    o = layers.Dense(3, name="o")(x)
    return compiled(keras.Model(x, [o, o]), ["mse", "mae"]), inputs(6, 4), [targets(6, 3), inputs(6, 3)]


@case("output o: exact along batch, class; output o_1: exact along batch, class")
def one_layer_for_two_inputs():
    x, z, o = keras.Input((4,)), keras.Input((4,)), layers.Dense(3, name="o")
    model = compiled(keras.Model([x, z], [o(x), o(z)]), ["mse", "mae"], loss_weights=[1.0, 2.0])
    return model, [inputs(6, 4), targets(6, 4)], [targets(6, 3), inputs(6, 3)]


@case("output a: exact along batch, class; output a_1: exact along batch, class")
def two_losses_for_one_output():  # T3 of the traps: Keras drops the second
    x = keras.Input((4,))
    return compiled(keras.Model(x, layers.Dense(3, name="a")(x)), ["mse", "mae"]), inputs(6, 4), targets(6, 3)


@case("output u/a: exact along batch, class; output u/b: exact along batch, class; output v: exact along batch, class")
def dictionary_of_lists_of_losses():
    x = keras.Input((4,))
    a, b, c = (layers.Dense(n, name=name)(x) for n, name in ((3, "a"), (2, "b"), (1, "c")))
    model = compiled(keras.Model(x, {"u": [a, b], "v": c}), {"u": ["mse", "mae"], "v": "huber"})
    return model, inputs(6, 4), {"u": [targets(6, 3), targets(6, 2)], "v": targets(6, 1)}


@case("output o: exact along batch, class")
def inputs_in_a_dictionary():
    x = {"p": keras.Input((4,), name="p"), "q": keras.Input((2,), name="q")}
    model = keras.Model(x, layers.Dense(3, name="o")(layers.Concatenate()([x["p"], x["q"]])))
    return compiled(model, "mse"), {"p": inputs(6, 4), "q": inputs(6, 2)}, targets(6, 3)


# -- add_loss, regularisers, compute_loss ---------------------------------------------------------------------------


class Endpoint(layers.Layer):
    """Adds the squared error of its two inputs, and something small on its own."""

    def __init__(self, vector, **more):
        super().__init__(**more)
        self.vector = vector

    def call(self, truth, prediction):
        squared = ops.square(truth - prediction)
        self.add_loss(ops.mean(squared, axis=-1) if self.vector else ops.mean(squared))
        self.add_loss(0.1 * ops.mean(ops.abs(prediction)))
        return prediction


for vector in (False, True):

    @case(
        "add_loss end: exact along batch, feature; add_loss end_1: exact along batch, feature",
        name=f"add_loss of a {'vector' if vector else 'scalar'}",
    )
    def endpoint(vector=vector):
        x, truth = keras.Input((4,)), keras.Input((3,))
        model = keras.Model([x, truth], Endpoint(vector, name="end")(truth, layers.Dense(3)(x)))
        return compiled(model), [inputs(6, 4), targets(6, 3)], None


class Adds(layers.Layer):
    """Adds the mean square of what it is given, `times` times the same tensor."""

    def __init__(self, times=1, **more):
        super().__init__(**more)
        self.times = times

    def call(self, x):
        loss = ops.mean(ops.square(x))
        for _ in range(self.times):
            self.add_loss(loss)
        return x


@case(f"{PLAIN}; add_loss twice: exact along batch, feature; add_loss twice_1: exact along batch, feature")
def one_tensor_added_twice():
    x = keras.Input((4,))
    return (
        compiled(keras.Model(x, layers.Dense(3, name="o")(Adds(2, name="twice")(layers.Dense(3)(x)))), "mse"),
        inputs(6, 4),
        targets(6, 3),
    )


@case(f"{PLAIN}; add_loss adds: exact along batch, feature")
def added_loss_of_the_inputs_alone():
    x = keras.Input((4,))
    return compiled(keras.Model(x, layers.Dense(3, name="o")(Adds(name="adds")(x))), "mse"), inputs(6, 4), targets(6, 3)


@case("output o: exact along batch, class; add_loss o/add_loss: exact along batch, feature")
def added_loss_of_the_layer_that_gives_the_output():
    x = keras.Input((4,))
    return compiled(keras.Model(x, Adds(name="o")(layers.Dense(3)(x))), "mse"), inputs(6, 4), targets(6, 3)


@case(
    f"{PLAIN}; regulariser o/activity: exact along batch, feature; "
    "regulariser o/kernel: exact along in, out + in, out; regulariser o/bias: exact along out"
)
def regularisers_of_kernel_bias_and_activity():
    kernel = keras.regularizers.L1L2(0.1, 0.2)
    model = dense(kernel_regularizer=kernel, bias_regularizer="l1", activity_regularizer="l2", bias_initializer="ones")
    return compiled(model, "mse"), inputs(6, 4), targets(6, 3)


@case(f"{PLAIN}; regulariser shared/kernel: exact along in, out")
def regulariser_of_a_shared_layer():
    x, shared = keras.Input((4,)), layers.Dense(4, kernel_regularizer="l2", name="shared")
    return compiled(keras.Model(x, layers.Dense(3, name="o")(shared(shared(x)))), "mse"), inputs(6, 4), targets(6, 3)


@case(PLAIN)
def regulariser_of_a_frozen_layer():  # T15: Keras leaves it out
    x = keras.Input((4,))
    hidden = layers.Dense(4, kernel_regularizer="l2", trainable=False, name="frozen")(x)
    return compiled(keras.Model(x, layers.Dense(3, name="o")(hidden)), "mse"), inputs(6, 4), targets(6, 3)


@case(f"{PLAIN}; regulariser o/kernel: exact along axis0, axis1")
def regulariser_of_pairs_of_weights():
    return (
        compiled(dense(kernel_regularizer=keras.regularizers.OrthogonalRegularizer()), "mse"),
        inputs(6, 4),
        targets(6, 3),
    )


@case(f"{PLAIN}; regulariser dense/activity: exact along batch, feature; regulariser dense/kernel: exact along in, out")
def regularisers_inside_a_nested_model():
    x = keras.Input((4,))
    hidden = layers.Dense(5, kernel_regularizer="l2", activity_regularizer="l1", name="dense")
    inner, z = keras.Model(x, hidden(x), name="inner"), keras.Input((4,))
    return compiled(keras.Model(z, layers.Dense(3, name="o")(inner(z))), "mse"), inputs(6, 4), targets(6, 3)


@tensorflow_alone(
    f"{PLAIN}; add_loss variation: exact along batch, row, axis2, feature + batch, axis1, col, feature".replace(
        "batch, class", "batch, row, col, class"
    )
)
def total_variation_added():
    class Variation(layers.Layer):
        def call(self, x):
            self.add_loss(1e-3 * tf.reduce_mean(tf.image.total_variation(x)))
            return x

    x = keras.Input((4, 4, 3))
    model = keras.Model(x, layers.Conv2D(2, 1, name="o")(Variation(name="variation")(layers.Conv2D(1, 1)(x))))
    return compiled(model, "mse"), inputs(2, 4, 4, 3), targets(2, 4, 4, 2)


@case(f"{PLAIN}; add_loss sampling: exact along batch, feature")
def variational_autoencoder():
    class Sampling(layers.Layer):
        def __init__(self, **more):
            super().__init__(**more)
            self.seed = keras.random.SeedGenerator(3)

        def call(self, mean, log_variance):
            divergence = 1 + log_variance - ops.square(mean) - ops.exp(log_variance)
            self.add_loss(-0.5 * ops.mean(ops.sum(divergence, axis=-1)))
            return mean + ops.exp(log_variance / 2) * keras.random.normal(ops.shape(mean), seed=self.seed)

    x = keras.Input((4,))
    code = Sampling(name="sampling")(layers.Dense(2)(x), layers.Dense(2)(x))
    return compiled(keras.Model(x, layers.Dense(4, name="o")(code)), "mse"), inputs(6, 4), inputs(6, 4)


class Override(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean(ops.square(y - y_pred)) + 0.5 * ops.mean(ops.abs(y_pred)) + sum(self.losses)


class Extra(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return 0.3 * super().compute_loss(x, y, y_pred, sample_weight) + 0.5 * ops.mean(ops.abs(y_pred)) + 7.0


class Logarithm(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):  # Keras still takes it without training=
        return ops.log(super().compute_loss(x, y, y_pred, sample_weight))


class GradientPenalty(keras.Model):
    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        with tf.GradientTape() as tape:
            tape.watch(x)
            score = self(x)
        gradient = tape.gradient(score, x)
        return ops.mean(y_pred) + 10 * ops.mean(ops.square(ops.sqrt(ops.sum(gradient * gradient, -1)) - 1))


@case("regulariser o/kernel: exact along in, out; output compute_loss: exact along batch, class + batch, class")
def compute_loss_of_its_own():
    return compiled(dense(kind=Override, kernel_regularizer="l2")), inputs(6, 4), targets(6, 3)


@case(
    f"{PLAIN}; regulariser o/kernel: exact along in, out; output compute_loss: exact along batch, class; "
    "constant constant: exact along -"
)
def compute_loss_super_and_more():
    return compiled(dense(kind=Extra, kernel_regularizer="l2"), "mse"), inputs(6, 4), targets(6, 3)


@case("output compute_loss: opaque along -")
def compute_loss_nonlinear():
    return compiled(dense(kind=Logarithm, kernel_regularizer="l2"), "mse"), inputs(6, 4), targets(6, 3)


@tensorflow_alone("output compute_loss: exact along axis0 + batch, class")
def compute_loss_with_a_gradient_inside():
    x = keras.Input((4,))
    model = GradientPenalty(x, layers.Dense(1, name="o")(layers.Dense(3, activation="tanh")(x)))
    return compiled(model), inputs(6, 4), targets(6, 1)


# -- kinds of models ----------------------------------------------------------------------------------------------


@case("output mse: exact along batch, class")
def unbuilt_sequential():
    return compiled(keras.Sequential([layers.Dense(3)]), "mse"), inputs(6, 4), targets(6, 3)


@case("output mse: exact along batch, class; output mae: exact along batch, class")
def unbuilt_subclass_of_two_outputs():
    class Two(keras.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dense(3), layers.Dense(2)

        def call(self, x):
            return self.a(x), self.b(x)

    return compiled(Two(), ("mse", "mae")), inputs(6, 4), (targets(6, 3), targets(6, 2))


@case(PLAIN)
def frozen_model():
    model = dense(activation="softmax")
    model.trainable = False
    return compiled(model, "categorical_crossentropy"), inputs(6, 4), onehot(6, classes=3)


@case(PLAIN)
def run_eagerly():
    return compiled(dense(), "mse", run_eagerly=True), inputs(6, 4), targets(6, 3)


@case(PLAIN)
def several_steps_an_execution_and_metrics():
    model = compiled(dense(), "mse", steps_per_execution=4, metrics=["mae"], weighted_metrics=["mse"])
    return model, inputs(6, 4), targets(6, 3)


@case(PLAIN)
def dropout_and_batch_normalisation_in_training():
    x = keras.Input((4,))
    hidden = layers.BatchNormalization()(layers.Dense(3)(x))
    model = compiled(keras.Model(x, layers.Dropout(0.5, seed=1, name="o")(hidden)), "mse")
    return model, inputs(6, 4), targets(6, 3), None, {"training": True}


@case(PLAIN)
def weights_that_move_in_training():  # the kernel is divided by its norm, and then used
    x = keras.Input((4,))
    model = keras.Model(x, layers.SpectralNormalization(layers.Dense(3), name="o")(x))
    return compiled(model, "mse"), inputs(6, 4), targets(6, 3), None, {"training": True}


@case(STEPS)
def stateful_lstm():
    x = keras.Input(batch_shape=(4, 5, 2))
    model = compiled(keras.Model(x, layers.LSTM(3, stateful=True, return_sequences=True, name="o")(x)), "mse")
    model.predict_on_batch(inputs(4, 5, 2))
    return model, inputs(4, 5, 2), targets(4, 5, 3)


@case(PLAIN)
def two_draws_from_one_seed():
    class Noise(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(3)

        def call(self, x):
            return x + keras.random.normal(ops.shape(x), seed=self.seed) * keras.random.normal(
                ops.shape(x), seed=self.seed
            )

    x = keras.Input((4,))
    return compiled(keras.Model(x, layers.Dense(3, name="o")(Noise()(x))), "mse"), inputs(6, 4), targets(6, 3)


@tensorflow_alone(PLAIN)
def strings_as_inputs():
    x = keras.Input((1,), dtype="string")
    hidden = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(x)
    return (
        compiled(keras.Model(x, layers.Dense(3, name="o")(hidden)), "mse"),
        np.array([["a"], ["b"], ["c"]]),
        targets(3, 3),
    )


@pytest.fixture
def policy():
    """Set a dtype policy for the layers made in the test."""
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


class Scale(layers.Layer):
    """One weight a class. A matrix product would do, but in half precision oneDNN cannot imitate an older CPU."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal")

    def call(self, x):
        return ops.sigmoid(x * self.scale)


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16", "float64"])
def test_dtype_policies_add_up(policy, name):
    policy(name)
    x = keras.Input((3,))
    model = compiled(keras.Model(x, Scale(name="o")(x)), "binary_crossentropy")
    assert model.layers[-1].compute_dtype == name.removeprefix("mixed_")
    report = lossviz.explain(model, inputs(6, 3), onehot(6, classes=3)).check()
    assert shown(report) == PLAIN
    # The loss itself is computed in float32. XLA compiles the half-precision operations before it into one and leaves
    # out their roundings: other operations around them, other digits.
    half = keras.backend.backend() == "jax" and "float16" in name
    assert report.tolerance == 1e-6 or (
        half and report.tolerance < 0.05 and "holds this loss" in " ".join(report.notes)
    )
    told = keras_says(model, inputs(6, 3), onehot(6, classes=3))
    assert report.total == pytest.approx(told, rel=max(1e-6, report.tolerance))


@pytest.mark.parametrize("dtype, tolerance", [("float16", 2e-3), ("bfloat16", 2e-2), ("float64", 1e-6)])
def test_a_loss_with_its_own_dtype_has_that_tolerance(dtype, tolerance):
    model = compiled(dense(), keras.losses.MeanSquaredError(dtype=dtype))
    report = lossviz.explain(model, inputs(6, 4), targets(6, 3)).check()
    assert report.tolerance == tolerance
    assert report.total == pytest.approx(keras_says(model, inputs(6, 4), targets(6, 3)), rel=tolerance)


def test_a_model_from_a_file(tmp_path):
    model = dense(activation="softmax", kernel_regularizer="l2")
    compiled(model, "categorical_crossentropy", optimizer="sgd", metrics=["acc"])
    x, y = inputs(6, 4), onehot(6, classes=3)
    lossviz.explain(model, x, y)  # an explained model can be saved
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    report = lossviz.explain(loaded, x, y).check()
    assert shown(report) == f"{PLAIN}; regulariser o/kernel: exact along in, out"
    assert report.total == pytest.approx(keras_says(loaded, x, y), rel=1e-6)


def test_the_number_follows_a_change_that_keras_has_baked_in():
    model = compiled(dense(kernel_regularizer=keras.regularizers.L2(0.1)), "mse")
    first = lossviz.explain(model, inputs(6, 4), targets(6, 3)).check()
    model.layers[-1].kernel_regularizer.l2 = 0.2
    second = lossviz.explain(model, inputs(6, 4), targets(6, 3)).check()
    assert second.term("o/kernel").contribution == pytest.approx(2 * first.term("o/kernel").contribution)


def test_weights_of_another_rank_on_the_same_model():
    """A function that TensorFlow traces anew for another rank knows no rank at all, and the loss fails in it."""
    model, x, y = compiled(sequence(), "mse"), inputs(5, 5, 4), targets(5, 5, 3)
    by_step = lossviz.explain(model, x, y, weights(5)).check()
    by_sample = lossviz.explain(model, x, y, weights(5).reshape(5, 1)).check()
    assert by_step.reported != by_sample.reported


#: Rows with numbers that each backend draws for itself: random ones, and weights that are made in the first call.
DRAWN = {
    *("variational autoencoder", "dropout and batch normalisation in training", "two draws from one seed"),
    *("unbuilt sequential", "unbuilt subclass of two outputs", "stateful lstm"),
}
#: Rows that Keras, or what it calls, computes in other operations on JAX: the same number, in other steps.
OTHER_STEPS = {
    "ctc": "TensorFlow has one operation for it, and Keras a loop for JAX",
    "own: matvec": "a product of matrices and a squeeze on TensorFlow",
    "own: einsum": "the same",
    "own: one tensor on three roads": "another of the three is told",
    "own: boolean mask": "JAX needs a static shape: Keras multiplies",
}
#: Rows that have another loss on JAX.
OTHER_LOSS = {"BinaryFocalCrossentropy object": "TensorFlow takes what is behind the softmax"}


def made(name: str) -> tuple:
    """The row, with weights that depend on no backend."""
    keras.utils.set_random_seed(7)
    model, x, y, *more = CASES[name][0]()
    if model.built and name not in DRAWN:
        draw = np.random.default_rng(5).normal
        drawn = [(weight.path, draw(0, 0.5, weight.shape)) for weight in model.weights]
        model.set_weights([abs(array) if "variance" in path else array for path, array in drawn])
    return model, x, y, *[*more, None, None][:2]


def rounded(report: lossviz.Report, name: str) -> dict:
    """What is told of the row, as it is recorded."""
    found = told(report)
    for term in found["terms"].values():
        shares = {axis: [float(f"{share:.6g}") for share in along] for axis, along in term.pop("shares").items()}
        if name not in DRAWN:
            term["shares"] = shares
    return found


def assert_as_recorded(report: lossviz.Report, name: str) -> None:
    seen, stored = rounded(report, name), copy.deepcopy(GOLDEN[name])
    scale = report.magnitude
    for called, term in stored["terms"].items():
        here, there = (one.pop("shares", {}) for one in (seen["terms"][called], term))
        assert here.keys() == there.keys() or name in OTHER_STEPS
        for axis, shares in there.items():
            np.testing.assert_allclose(here[axis], shares, rtol=1e-4, atol=1e-5 * scale, err_msg=f"{called}, {axis}")
        if not ON_TENSORFLOW and name in OTHER_STEPS:
            del term["steps"], seen["terms"][called]["steps"]
    assert seen == stored


@pytest.mark.parametrize("name", list(CASES))
def test_the_parts_are_what_keras_computes(name):
    model, x, y, sample_weight, arguments = made(name)
    report = lossviz.explain(model, x, y, sample_weight, **(arguments or {}))
    assert shown(report) == CASES[name][1]
    if ON_TENSORFLOW or (name in GOLDEN and name not in OTHER_LOSS):  # JAX has rows of its own
        assert_as_recorded(report, name)

    report.check()
    parts = [part for term in report.terms for part in term.parts]
    scale = sum(np.abs(part.contributions).sum() for part in parts)
    assert abs(report.reported - report.total) <= 1e-6 * scale
    assert sum(term.contribution for term in report.terms) == pytest.approx(report.total, rel=1e-12)
    for term in report.terms:
        assert term.contribution == pytest.approx(term.loss_weight * term.value, rel=1e-6, abs=1e-6 * scale)
        for axis in {axis for part in term.parts for axis in part.axes}:
            assert sum(term.by(axis).values()) == pytest.approx(term.contribution, rel=1e-9, abs=1e-12 * scale)

    if not name.startswith("own: ") and not name.endswith(" by name"):  # the rows with masks, state, several terms
        again = lossviz.explain(model, x, y, sample_weight, **(arguments or {}))
        assert again.reported == pytest.approx(report.reported, rel=1e-6)
        for one, other in zip(parts, [part for term in again.terms for part in term.parts], strict=True):
            np.testing.assert_array_equal(one.contributions, other.contributions)

    assert report.total == pytest.approx(keras_says(model, x, y, sample_weight, arguments), rel=1e-6, abs=1e-6 * scale)


def test_the_table_is_long_enough():
    assert len(CASES) >= 80


if __name__ == "__main__":

    def recorded(name: str) -> str:
        model, x, y, sample_weight, arguments = made(name)
        report = lossviz.explain(model, x, y, sample_weight, **(arguments or {}))
        return f"{json.dumps(name)}: {json.dumps(rounded(report, name), ensure_ascii=False)}"

    FILE.write_text("{\n" + ",\n".join(map(recorded, CASES)) + "\n}\n")
