"""No finding where nothing is wrong: ordinary models as people write them, each of another kind."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops
from models import compiled, dense, inputs, labels, onehot, pixels, sequence, targets, two_outputs, weights

import lossviz
from lossviz.layers import CenterLoss
from lossviz.losses import BinaryCrossentropyDice, LandmarkLoss, SegmentationCrossentropy

X, Y = inputs(40, 4), targets(40, 3)
STEPS, STEP_TARGETS = inputs(6, 5, 4), targets(6, 5, 3)
SCENES = inputs(6, 4, 4, 3)


def regression():
    return compiled(dense(), "mse"), X, Y


def regression_of_one_number_with_flat_targets():
    return compiled(dense(1), "mse"), X, Y[:, 0]


def regression_by_a_function_with_flat_targets():
    return compiled(dense(1), lambda y, p: ops.mean(ops.abs(y - p), axis=-1)), X, Y[:, 0]


def regression_by_a_class_with_equal_shapes():
    class Absolute(keras.losses.Loss):
        def call(self, y_true, y_pred):
            return ops.mean(ops.abs(y_true - y_pred), axis=-1)

    return compiled(dense(), Absolute()), X, Y


def a_sequential_model_with_dropout_and_batch_normalisation():
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8, "relu"), layers.BatchNormalization(), layers.Dropout(0.5), layers.Dense(3)]
    )
    return compiled(model, keras.losses.Huber()), X, Y


def a_subclass_with_compute_loss():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.o = layers.Dense(3)

        def call(self, x):
            return self.o(x)

        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.square(y - y_pred)) + sum(self.losses)

    return compiled(Own()), X, Y


def per_cent_errors_of_numbers_far_from_zero():
    return compiled(dense(), "mape"), X, np.abs(Y) + 1


def cosine_similarity():
    return compiled(dense(), keras.losses.CosineSimilarity(axis=-1)), X, Y


def binary():
    return compiled(dense(1, "sigmoid"), "binary_crossentropy"), X, labels(40, classes=2)


def binary_from_logits():
    return compiled(dense(1), keras.losses.BinaryCrossentropy(from_logits=True)), X, labels(40, classes=2)


def one_in_ten_is_positive():
    many = inputs(300, 4)
    return compiled(dense(1, "sigmoid"), "binary_crossentropy"), many, (np.arange(300) % 10 == 0).astype(int)


def several_labels_at_once():
    return compiled(dense(3, "sigmoid"), "binary_crossentropy"), X, (Y > 0).astype("float32")


def integer_labels():
    return compiled(dense(3, "softmax"), "sparse_categorical_crossentropy"), X, labels(40, classes=3)


def integer_labels_in_a_column_of_floats():
    y = labels(40, 1, classes=3).astype("float32")
    return compiled(dense(3, "softmax"), "sparse_categorical_crossentropy"), X, y


def onehot_from_logits():
    return compiled(dense(3), keras.losses.CategoricalCrossentropy(from_logits=True)), X, onehot(40, classes=3)


def a_softmax_layer_of_its_own_and_label_smoothing():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Softmax()])
    return compiled(model, keras.losses.CategoricalCrossentropy(label_smoothing=0.1)), X, onehot(40, classes=3)


def a_focal_loss():
    return compiled(dense(3, "sigmoid"), keras.losses.BinaryFocalCrossentropy()), X, onehot(40, classes=3)


def a_crossentropy_in_a_lambda():
    def loss(y, p):
        return keras.losses.sparse_categorical_crossentropy(y, p, from_logits=True)

    return compiled(dense(3), loss), X, labels(40, classes=3)


def a_class_weight_for_every_class():
    y = labels(40, classes=3)
    return compiled(dense(3, "softmax"), "sparse_categorical_crossentropy"), X, y, None, {0: 1.0, 1: 2.0, 2: 0.5}


def classes_in_a_ratio_of_one_to_five():
    many = inputs(240, 4)
    y = np.array([0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2] * 20)
    return compiled(dense(3, "softmax"), "sparse_categorical_crossentropy"), many, y


def segmentation_with_much_background():
    y = np.zeros((6, 4, 4), int)
    y[:, :1, :1] = np.arange(1, 7)[:, None, None] % 4 + 1
    return compiled(pixels(5, "softmax"), "sparse_categorical_crossentropy"), SCENES, y


def segmentation_with_pixel_weights():
    return (
        compiled(pixels(5, "softmax"), "categorical_crossentropy"),
        SCENES,
        onehot(6, 4, 4, classes=5),
        weights(6, 4, 4),
    )


def dice_of_each_image():
    model = compiled(pixels(1, "sigmoid"), keras.losses.Dice(axis=(1, 2, 3)))
    return model, SCENES, labels(6, 4, 4, 1, classes=2).astype("float32")


def dice_and_crossentropy_of_each_class():
    return compiled(pixels(3), BinaryCrossentropyDice(from_logits=True)), SCENES, onehot(6, 4, 4, classes=3)


def an_ignored_class():
    y = labels(6, 4, 4, classes=5)
    y[:, 0] = -1
    loss = keras.losses.SparseCategoricalCrossentropy(ignore_class=-1)
    return compiled(pixels(5, "softmax"), loss), SCENES, y


def forgiven_classes():
    return (
        compiled(pixels(5, "softmax"), SegmentationCrossentropy(ignore_false_negatives=[1])),
        SCENES,
        onehot(6, 4, 4, classes=5),
    )


def landmarks():
    y = targets(6, 12)
    y[:, 2::3] = (y[:, 2::3] > 0).astype("float32")
    return compiled(dense(12), LandmarkLoss(4, coordinate="mse", from_logits=True)), inputs(6, 4), y


def sequences_with_a_mask_and_step_weights():
    x = STEPS.copy()
    x[:, 3:] = 0
    return compiled(sequence(masked=True), "mse"), x, STEP_TARGETS, weights(6, 5)


def as_many_steps_as_samples_with_one_weight_a_sample():
    return compiled(sequence(steps=6), "mse"), inputs(6, 6, 4), targets(6, 6, 3), weights(6, 1)


def as_many_steps_as_samples_with_equal_weights():
    return compiled(sequence(steps=6), "mse"), inputs(6, 6, 4), targets(6, 6, 3), np.full(6, 2.0)


def an_embedding_with_a_mask_and_an_lstm():
    words = np.array([[1, 2, 0, 0], [3, 1, 2, 0], [2, 2, 1, 3], [1, 0, 0, 0]])
    model = keras.Sequential(
        [keras.Input((4,)), layers.Embedding(5, 3, mask_zero=True), layers.LSTM(3), layers.Dense(1, "sigmoid")]
    )
    return compiled(model, "binary_crossentropy"), words, labels(4, classes=2)


def attention():
    x = keras.Input((5, 4))
    hidden = layers.MultiHeadAttention(2, 4)(x, x)
    return compiled(keras.Model(x, layers.Dense(3, "softmax")(hidden)), "sparse_categorical_crossentropy"), *(
        STEPS,
        labels(6, 5, classes=3),
    )


def two_outputs_with_loss_weights():
    model = compiled(two_outputs(), ["mse", "categorical_crossentropy"], loss_weights=[1.0, 0.1])
    return model, X[:32], [Y[:32], onehot(32, classes=2)]


def two_outputs_by_name_with_weights_for_each():
    model = compiled(two_outputs(as_dict=True), {"a": "mse", "b": "categorical_crossentropy"})
    return (
        model,
        X[:32],
        {"a": Y[:32], "b": onehot(32, classes=2)},
        {"a": weights(32), "b": np.ones(32, "float32")},
    )


def an_added_loss_and_regularisers():
    class Small(layers.Layer):
        def call(self, x):
            self.add_loss(0.1 * ops.mean(ops.square(x)))
            return x

    x = keras.Input((4,))
    hidden = layers.Dense(8, "relu", kernel_regularizer="l2", activity_regularizer="l1")(x)
    return compiled(keras.Model(x, layers.Dense(3)(Small()(hidden))), "mse"), X, Y


def a_frozen_layer_without_regulariser():
    x = keras.Input((4,))
    hidden = layers.Dense(8, trainable=False)(x)
    return compiled(keras.Model(x, layers.Dense(3, kernel_regularizer="l2")(hidden)), "mse"), X, Y


def a_center_loss():
    x, label = keras.Input((4,)), keras.Input((), dtype="int32")
    features = layers.Dense(2)(x)
    features = CenterLoss(3)(features, label)
    model = keras.Model([x, label], layers.Dense(3, "softmax")(features))
    y = labels(40, classes=3)
    return compiled(model, "sparse_categorical_crossentropy"), [X, y], y


def half_precision_with_a_float32_head():
    x = keras.Input((4,), dtype="float32")
    hidden = layers.Activation("relu", dtype="mixed_bfloat16")(x)
    model = keras.Model(x, layers.Dense(3, "softmax", dtype="float32")(hidden))
    return compiled(model, "sparse_categorical_crossentropy"), X, labels(40, classes=3)


def soft_targets():
    rows = np.abs(targets(40, 3)) + 0.1
    y = rows / rows.sum(-1, keepdims=True)
    return compiled(dense(3, "softmax"), keras.losses.KLDivergence()), X, y


def missing_values_left_out_by_the_loss():
    def loss(y, p):
        known = ops.logical_not(ops.isnan(y))
        return ops.sum(ops.where(known, ops.square(ops.where(known, y, 0.0) - p), 0.0), axis=-1)

    y = Y.copy()
    y[0, 0] = np.nan
    return compiled(dense(), loss), X, y, weights(40)


def distances_of_all_pairs():
    def loss(y, p):
        far = ops.sum(ops.square(p[:, None] - p[None]), axis=-1)
        same = ops.cast(ops.equal(y, ops.transpose(y)), "float32")
        return ops.mean(same * far + (1 - same) * ops.maximum(1 - far, 0), axis=-1)

    return compiled(dense(), loss), X, labels(40, 1, classes=3)


def a_metric_and_a_sum_over_the_batch():
    return compiled(dense(), keras.losses.MeanSquaredError(reduction="sum"), metrics=["mae"]), X, Y, weights(40)


def weighted_means_of_samples():
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    return compiled(dense(), loss), X, Y, weights(40)


SOUND = [
    regression, regression_of_one_number_with_flat_targets, regression_by_a_function_with_flat_targets,
    regression_by_a_class_with_equal_shapes, a_sequential_model_with_dropout_and_batch_normalisation,
    a_subclass_with_compute_loss, per_cent_errors_of_numbers_far_from_zero, cosine_similarity, binary,
    binary_from_logits, one_in_ten_is_positive, several_labels_at_once, integer_labels,
    integer_labels_in_a_column_of_floats, onehot_from_logits, a_softmax_layer_of_its_own_and_label_smoothing,
    a_focal_loss, a_crossentropy_in_a_lambda, a_class_weight_for_every_class, classes_in_a_ratio_of_one_to_five,
    segmentation_with_much_background, segmentation_with_pixel_weights, dice_of_each_image,
    dice_and_crossentropy_of_each_class, an_ignored_class, forgiven_classes, landmarks,
    sequences_with_a_mask_and_step_weights, as_many_steps_as_samples_with_one_weight_a_sample,
    as_many_steps_as_samples_with_equal_weights, an_embedding_with_a_mask_and_an_lstm, attention,
    two_outputs_with_loss_weights, two_outputs_by_name_with_weights_for_each, an_added_loss_and_regularisers,
    a_frozen_layer_without_regulariser, a_center_loss, half_precision_with_a_float32_head, soft_targets,
    missing_values_left_out_by_the_loss, distances_of_all_pairs, a_metric_and_a_sum_over_the_batch,
    weighted_means_of_samples,
]  # fmt: skip


@pytest.mark.parametrize("make", SOUND, ids=lambda make: make.__name__)
def test_nothing_is_found(make):
    keras.utils.set_random_seed(0)
    model, x, y, sample_weight, class_weight = (*make(), None, None)[:5]
    assert lossviz.lint(model, x, y, sample_weight, class_weight=class_weight) == ()


def test_a_rare_class_that_is_found():
    """One sample of a hundred, of a class that the model knows as well as the others."""
    y = np.array([1, *[0] * 99] * 3)
    x = np.where(y == 1, 0.9, 0.1)[:, None].astype("float32")
    model = compiled(keras.Sequential([keras.Input((1,)), layers.Identity()]), "binary_crossentropy")
    assert lossviz.lint(model, x, y) == ()


def test_nothing_is_found_in_arrays():
    rng = np.random.default_rng(0)
    probabilities = tf.nn.softmax(rng.normal(size=(8, 5, 3))).numpy()
    report = lossviz.explain_loss(
        "sparse_categorical_crossentropy", labels(8, 5, classes=3), probabilities, weights(8, 5)
    )
    assert report.findings == ()
