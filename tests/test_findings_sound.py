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


def a_variational_autoencoder():
    class Latent(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed = keras.random.SeedGenerator(1)

        def call(self, mean, spread):
            self.add_loss(-0.5 * ops.mean(1 + spread - ops.square(mean) - ops.exp(spread)))
            return mean + ops.exp(0.5 * spread) * keras.random.normal(ops.shape(mean), seed=self.seed)

    x = keras.Input((8,))
    latent = Latent()(layers.Dense(2)(x), layers.Dense(2)(x))
    data = weights(40, 8)
    return compiled(keras.Model(x, layers.Dense(8, "sigmoid")(latent)), "binary_crossentropy"), data, data


def a_discriminator():
    y = labels(40, 1, classes=2).astype("float32")
    model = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.LeakyReLU(), layers.Dropout(0.3), layers.Dense(1)]
    )
    return compiled(model, keras.losses.BinaryCrossentropy(from_logits=True)), X, 0.9 * y


def a_critic():
    return compiled(dense(1), lambda y, p: ops.mean(y * p, axis=-1)), X, 2.0 * labels(40, 1, classes=2) - 1


def a_generator_before_a_frozen_discriminator():
    x = keras.Input((4,))
    judge = layers.Dense(1, "sigmoid", trainable=False)
    return compiled(keras.Model(x, judge(layers.Dense(4, "tanh")(x))), "binary_crossentropy"), X, np.ones((40, 1))


def a_detector_with_nested_outputs():
    x = keras.Input((4, 4, 3))
    hidden = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    heads = [
        {
            "box": layers.Conv2D(4, 1, name=f"box{k}")(hidden),
            "object": layers.Conv2D(1, 1, activation="sigmoid", name=f"object{k}")(hidden),
        }
        for k in range(2)
    ]
    y = [{"box": targets(6, 4, 4, 4), "object": labels(6, 4, 4, 1, classes=2)} for _ in heads]
    losses = [{"box": "huber", "object": "binary_crossentropy"} for _ in heads]
    return compiled(keras.Model(x, heads), losses), SCENES, y


def a_ranking_loss_of_pairs():
    def loss(y, p):
        return ops.softplus(-(2 * y - 1) * (p[:, :1] - p[:, 1:]))[:, 0]

    return compiled(dense(2), loss), X, labels(40, 1, classes=2).astype("float32")


def a_masked_transformer():
    class Positions(layers.Layer):
        def __init__(self):
            super().__init__()
            self.supports_masking = True
            self.table = layers.Embedding(6, 8)

        def call(self, x):
            return x + self.table(ops.arange(6))

    words = labels(8, 6, classes=9)
    words[:, 4:] = 0
    x = keras.Input((6,), dtype="int32")
    hidden = Positions()(layers.Embedding(9, 8, mask_zero=True)(x))
    hidden = layers.LayerNormalization()(hidden + layers.MultiHeadAttention(2, 4)(hidden, hidden))
    hidden = layers.LayerNormalization()(hidden + layers.Dense(8)(layers.Dense(16, "gelu")(hidden)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(keras.Model(x, layers.Dense(9)(hidden)), loss), words, np.roll(words, -1, axis=1)


def low_rank_adaptation():
    model = dense(3, "softmax")
    model.get_layer("o").enable_lora(2)
    return compiled(model, "sparse_categorical_crossentropy"), X, labels(40, classes=3)


def mixed_precision():
    policy = "mixed_float16"
    x = keras.Input((4,))
    hidden = layers.Dense(8, "relu", dtype=policy)(x)
    return compiled(keras.Model(x, layers.Dense(1, "sigmoid", dtype="float32")(hidden)), "binary_crossentropy"), *(
        X,
        labels(40, classes=2),
    )


def a_connectionist_loss():
    y = labels(6, 3, classes=3) + 1
    y[:, 2] = 0
    return compiled(sequence(4, steps=8), keras.losses.CTC()), inputs(6, 8, 4), y


def contrastive_pairs():
    x, other = keras.Input((4,)), keras.Input((4,))
    tower = layers.Dense(3)
    apart = layers.Lambda(lambda t: ops.sqrt(ops.sum(ops.square(t[0] - t[1]), -1, keepdims=True) + 1e-7))

    def loss(y, d):
        return ops.mean(y * ops.square(d) + (1 - y) * ops.square(ops.maximum(1 - d, 0)), axis=-1)

    model = keras.Model([x, other], apart([tower(x), tower(other)]))
    return compiled(model, loss), [X, inputs(40, 4)[::-1]], labels(40, 1, classes=2).astype("float32")


def similarities_with_a_temperature():
    x, other = keras.Input((4,)), keras.Input((4,))
    tower = keras.Sequential([layers.Dense(3), layers.UnitNormalization()])
    alike = layers.Lambda(lambda t: ops.matmul(t[0], ops.transpose(t[1])) / 0.1)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return compiled(keras.Model([x, other], alike([tower(x), tower(other)])), loss), [X, X[::-1]], np.arange(40)


def triplets():
    x = keras.Input((3, 4))
    towers = layers.Dense(2)(x)
    apart = layers.Lambda(
        lambda t: ops.maximum(
            ops.sum(ops.square(t[:, 0] - t[:, 1]), -1, keepdims=True)
            - ops.sum(ops.square(t[:, 0] - t[:, 2]), -1, keepdims=True) + 1, 0)
    )  # fmt: skip
    return compiled(keras.Model(x, apart(towers)), lambda y, p: ops.mean(p, axis=-1)), inputs(6, 3, 4), np.zeros((6, 1))


def dice_and_crossentropy_of_segments():
    def loss(y, p):
        overlap = 2 * ops.sum(y * p, axis=(1, 2)) / (ops.sum(y, axis=(1, 2)) + ops.sum(p, axis=(1, 2)) + 1e-6)
        return keras.losses.categorical_crossentropy(y, p) + 1 - ops.mean(overlap, axis=-1)[:, None, None]

    return compiled(pixels(3, "softmax"), loss), SCENES, onehot(6, 4, 4, classes=3)


def a_u_net_with_a_sigmoid():
    x = keras.Input((8, 8, 1))
    first = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    deep = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(first))
    up = layers.Concatenate()([layers.UpSampling2D()(deep), first])
    model = keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid")(up))
    return compiled(model, "binary_crossentropy"), inputs(4, 8, 8, 1), labels(4, 8, 8, 1, classes=2).astype("float32")


def a_softplus_head_for_amounts():
    return compiled(dense(1, "softplus"), "mse"), X, np.abs(targets(40, 1)) * 30


def an_exponential_head_for_amounts():
    return compiled(dense(1, "exponential"), "msle"), X, np.abs(targets(40, 1)) * 30


def a_tanh_autoencoder():
    data = 2 * weights(40, 8) - 1
    return compiled(dense(8, "tanh", take=8), "mse"), data, data


def bytes_and_a_scaled_sigmoid():
    x = keras.Input((4, 4, 3))
    out = layers.Rescaling(255.0)(layers.Conv2D(3, 1, activation="sigmoid")(x))
    return compiled(keras.Model(x, out), "mae"), SCENES, 255 * weights(6, 4, 4, 3)


def a_quantile():
    def loss(y, p):
        return ops.mean(ops.maximum(0.9 * (y - p), -0.1 * (y - p)), axis=-1)

    return compiled(dense(1), loss), X, targets(40, 1)


def counts():
    return (
        compiled(dense(1, "exponential"), "poisson"),
        X,
        np.random.default_rng(0).poisson(3, (40, 1)).astype("float32"),
    )


def a_mixture_density():
    def loss(y, p):
        share, mean, spread = ops.log_softmax(p[:, :3]), p[:, 3:6], ops.softplus(p[:, 6:]) + 1e-3
        return -ops.logsumexp(share - 0.5 * ops.square((y - mean) / spread) - ops.log(spread), axis=-1)

    return compiled(dense(9), loss), X, targets(40, 1)


def a_mean_and_its_variance():
    def loss(y, p):
        return ops.square(y[:, 0] - p[:, 0]) * ops.exp(-p[:, 1]) + p[:, 1]

    return compiled(dense(2), loss), X, targets(40, 1)


def survival_by_partial_likelihood():
    def loss(y, p):
        time, event = y[:, :1], y[:, 1:]
        at_risk = ops.cast(time <= ops.transpose(time), "float32")
        return event[:, 0] * (ops.log(ops.matmul(ops.transpose(at_risk), ops.exp(p)) + 1e-7) - p)[:, 0]

    y = np.concatenate([weights(40, 1), labels(40, 1, classes=2).astype("float32")], axis=1)
    return compiled(dense(1), loss), X, y


def survival_in_intervals():
    def loss(y, p):
        return -ops.sum(ops.log(1e-7 + 1 + y[:, :3] * (p - 1)) + ops.log(1e-7 + 1 - y[:, 3:] * p), axis=-1)

    rows = onehot(40, classes=3)
    return compiled(dense(3, "sigmoid"), loss), X, np.concatenate([np.cumsum(rows, -1) - rows, rows], axis=1)


def label_smoothing():
    return compiled(dense(3, "softmax"), keras.losses.CategoricalCrossentropy(label_smoothing=0.2)), *(
        X,
        onehot(40, classes=3),
    )


def distillation():
    teacher = np.exp(targets(40, 3))
    return compiled(dense(3, "softmax"), "kl_divergence"), X, teacher / teacher.sum(-1, keepdims=True)


def distillation_with_a_temperature():
    def loss(y, p):
        return 4 * keras.losses.kl_divergence(ops.softmax(y / 2), ops.softmax(p / 2))

    return compiled(dense(3), loss), X, targets(40, 3)


def convolutions_over_time():
    x = keras.Input((3, 4, 4, 1))
    hidden = layers.ConvLSTM2D(2, 3, padding="same", return_sequences=True)(x)
    out = layers.TimeDistributed(layers.Conv2D(1, 1))(hidden)
    return compiled(keras.Model(x, out), "mse"), inputs(6, 3, 4, 4, 1), 5 * targets(6, 3, 4, 4, 1)


def an_lstm_whose_targets_are_small():
    return compiled(keras.Sequential([keras.Input((5, 4)), layers.LSTM(1)]), "mse"), STEPS, 0.9 * np.tanh(targets(6, 1))


def a_recommender():
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")
    score = layers.Dot(axes=1)([layers.Embedding(9, 4)(user), layers.Embedding(9, 4)(item)])
    return (
        compiled(keras.Model([user, item], score), "mse"),
        [labels(40, classes=9), labels(40, classes=9)[::-1]],
        *(1 + 4 * weights(40, 1),),
    )


def stars_from_one_to_five():
    return compiled(dense(1), "mse"), X, 1.0 + labels(40, 1, classes=5)


def a_support_vector_machine():
    y = 2.0 * labels(40, 1, classes=2) - 1
    return compiled(dense(1, kernel_regularizer="l2"), "hinge"), X, y


def a_mixture_of_experts():
    x = keras.Input((4,))
    gate = layers.Dense(1, "sigmoid")(x)
    out = gate * layers.Dense(1, "sigmoid")(x) + (1 - gate) * layers.Dense(1, "sigmoid")(x)
    return compiled(keras.Model(x, out), "binary_crossentropy"), X, labels(40, classes=2)


def calibrated_by_a_clip():
    x = keras.Input((4,))
    out = ops.clip(layers.Dense(1, "sigmoid")(x), 1e-6, 1 - 1e-6)
    return compiled(keras.Model(x, out), "binary_crossentropy"), X, labels(40, classes=2)


def actions_weighted_by_their_advantage():
    def loss(y, p):
        return -ops.sum(y * ops.log(p + 1e-7), axis=-1)

    return compiled(dense(3, "softmax"), loss), X, onehot(40, classes=3), targets(40)


def values_of_actions_taken():
    def loss(y, p):
        taken = ops.cast(y != 0, "float32")
        return ops.sum(taken * ops.square(y - p), axis=-1)

    return compiled(dense(3), loss), X, onehot(40, classes=3) * targets(40, 1)


def a_straight_through_code():
    class Code(layers.Layer):
        def call(self, x):
            return x + ops.stop_gradient(ops.round(x) - x)

    x = keras.Input((4,))
    return compiled(keras.Model(x, layers.Dense(3)(Code()(layers.Dense(2)(x)))), "mse"), X, Y


def an_adversary_beside_the_task():
    model = compiled(two_outputs(), ["mse", "categorical_crossentropy"], loss_weights=[1.0, -0.1])
    return model, X[:32], [Y[:32], onehot(32, classes=2)]


def ordered_classes():
    y = (labels(40, 1, classes=4) > np.arange(3)).astype("float32")
    return compiled(dense(3, "sigmoid"), "binary_crossentropy"), X, y


def classes_first():
    x = keras.Input((3, 8))
    out = layers.Softmax(axis=1)(layers.Dense(8)(x))
    y = np.moveaxis(onehot(6, 8, classes=3), -1, 1)
    return compiled(keras.Model(x, out), keras.losses.CategoricalCrossentropy(axis=1)), inputs(6, 3, 8), y


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
    a_variational_autoencoder, a_discriminator, a_critic, a_generator_before_a_frozen_discriminator,
    a_detector_with_nested_outputs, a_ranking_loss_of_pairs, a_masked_transformer, low_rank_adaptation,
    mixed_precision, a_connectionist_loss, contrastive_pairs, similarities_with_a_temperature, triplets,
    dice_and_crossentropy_of_segments, a_u_net_with_a_sigmoid, a_softplus_head_for_amounts,
    an_exponential_head_for_amounts, a_tanh_autoencoder, bytes_and_a_scaled_sigmoid, a_quantile, counts,
    a_mixture_density, a_mean_and_its_variance, survival_by_partial_likelihood, survival_in_intervals,
    label_smoothing, distillation, distillation_with_a_temperature, convolutions_over_time,
    an_lstm_whose_targets_are_small, a_recommender, stars_from_one_to_five, a_support_vector_machine,
    a_mixture_of_experts, calibrated_by_a_clip, actions_weighted_by_their_advantage, values_of_actions_taken,
    a_straight_through_code, an_adversary_beside_the_task, ordered_classes, classes_first,
]  # fmt: skip


#: The hints on sound models, and why each stays.
HINTS = {
    ("stars_from_one_to_five", "class-labels"): "whole numbers from 1 to 5 look the same, be they amounts or names",
    (
        "an_adversary_beside_the_task",
        "wrong-direction",
    ): "a loss weight below 0 may be meant, and nothing shows whether",
}


@pytest.mark.parametrize("make", SOUND, ids=lambda make: make.__name__)
def test_nothing_is_found(make):
    keras.utils.set_random_seed(0)
    model, x, y, sample_weight, class_weight = (*make(), None, None)[:5]
    found = lossviz.lint(model, x, y, sample_weight, class_weight=class_weight)
    assert {(finding.rule, finding.severity) for finding in found} == {
        (rule, "hint") for name, rule in HINTS if name == make.__name__
    }


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
