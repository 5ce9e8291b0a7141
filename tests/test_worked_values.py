"""Worked values from outside: what other projects computed by hand, or hold in their own tests.

K is Keras's `keras/src/losses/losses_test.py`; the others name the project and its test file. "Arithmetic" is a line
of definition. Each row: loss, targets, predictions, weights, the total, and where the source has them the value of
each sample, which the shares along "batch" must give times the number of samples.
"""

from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import ops

import lossviz

A, B = [[1, 9, 2], [-5, -2, 6]], [[4, 8, 12], [8, 1, 3]]
TIMESTEPS = [[3, 6, 5], [0, 4, 2]]
EYE = np.eye(3)
Q = [[0.9, 0.05, 0.05], [0.5, 0.89, 0.6], [0.05, 0.01, 0.94]]
Z = [[8, 1, 1], [0, 9, 1], [2, 3, 5]]
THREE = [1.2, 3.4, 5.6]
CHECKER = [[1, 0, 1, 0], [0, 1, 0, 1]] * 2  # against CHECKED: TP 2, FP 8, FN 6
CHECKED = [[0, 1, 0, 1], [1, 0, 1, 1]] * 2
HALVES = [[[[1.0], [1.0]], [[0.0], [0.0]]]] * 2
GUESSES = [[[[0.0], [1.0]], [[0.0], [1.0]]], [[[0.4], [0.0]], [[0.0], [0.9]]]]
PIXELS = [[0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 0, 1]]
PROBABILITIES = np.eye(2)[PIXELS]
PROBABILITIES[0, 3], PROBABILITIES[3, 3] = [0.2, 0.8], [0.6, 0.4]  # the two that are wrong
MONAI_X, MONAI_Y = [[[[1.0], [-1.0]], [[-1.0], [1.0]]]], [[[[1.0], [0.0]], [[1.0], [1.0]]]]
MONAI_Z = np.swapaxes([[[-1, 0, 1], [1, 0, -1]], [[0, 0, 0], [0, 0, 0]]], 1, 2)  # 2 samples, 3 pixels, 2 classes
MONAI_L = np.eye(2)[[[1, 0, 0], [1, 1, 0]]]
FOCAL_Z = np.moveaxis(np.broadcast_to([[1, 1], [0.5, 0]], (3, 2, 2)), 0, -1)[None]  # the same for each of 3 classes
FOCAL_L = np.eye(3)[[[[0, 1], [2, 0]]]]


def overlap(*, fp, fn, activation=None, axis=None, smooth=0.0, square=False, power=1.0):
    """1 - Tversky index: fp = fn = 0.5 is Dice, 1 and 1 is Jaccard. `square`: the sums of V-Net."""

    def loss(y, p):
        p = activation(p) if activation else p
        tp = ops.sum(y * p, axis)
        over_p, over_y = ops.sum(p * p if square else p, axis), ops.sum(y * y if square else y, axis)
        return ops.power(1 - (tp + smooth) / (tp + fp * (over_p - tp) + fn * (over_y - tp) + smooth), power)

    return loss


def dice(smooth, **more):
    """MONAI adds its smoothing to 2 TP; half of it goes to TP."""
    return overlap(fp=0.5, fn=0.5, smooth=smooth / 2, **more)


def sigmoid_focal(alpha=None, gamma=2.0, softmax=False):
    """Lin et al. 2017, one value an element; with a softmax, alpha weighs every class alike here."""

    def loss(y, z):
        p = ops.softmax(z) if softmax else ops.sigmoid(z)
        right = p if softmax else y * p + (1 - y) * (1 - p)
        weight = 1.0 if alpha is None else y * alpha + (1 - y) * (1 - alpha)
        return -weight * (y if softmax else 1.0) * ops.power(1 - right, gamma) * ops.log(right)

    return loss


def center_loss(y, features):
    centers = ops.convert_to_tensor([[1.0] * 3, [2.0] * 3, [3.0] * 3, [5.0] * 3])
    return 0.5 * ops.sum(ops.square(features - ops.take(centers, ops.cast(y, "int32"), axis=0)), -1)


class Summed(keras.losses.Loss):
    """A function, summed: what a loss of the book says without dividing."""

    def __init__(self, function):
        super().__init__(reduction="sum")
        self.call = function


class Row(NamedTuple):
    source: str
    loss: object
    y_true: object
    y_pred: object
    total: float
    samples: object = None
    weight: object = None
    exactness: str = "exact"


L = keras.losses
WEIGHTED_MEAN = {"reduction": "mean_with_sample_weight"}
ROWS = {
    "1 MSE": Row("K", "mse", A, B, 49.5, [36.6667, 62.3333]),
    "1 MSE, weight 2.3, none": Row("K", L.MeanSquaredError(reduction="none"), A, B, 113.85, [84.3333, 143.3667], 2.3),
    "1 MSE, weight 2.3, sum": Row("K", L.MeanSquaredError(reduction="sum"), A, B, 227.7, None, 2.3),
    "2 MSE, weights (2,1)": Row("K", "mse", A, B, 767.8 / 6, [44.0, 211.9333], [[1.2], [3.4]]),
    "2 MSE, mean_with_sample_weight": Row(
        "K", L.MeanSquaredError(**WEIGHTED_MEAN), A, B, 767.8 / 13.8, None, [[1.2], [3.4]]
    ),
    "3 MSE, weights of steps": Row(
        "K", "mse", np.reshape(A, (2, 3, 1)), np.reshape(B, (2, 3, 1)), 587 / 6, None, TIMESTEPS
    ),
    "4 MAPE": Row("K", "mape", A, B, 211.8518),
    "4 MAPE, weights (2,1)": Row("K", "mape", A, B, 422.8888, None, [[1.2], [3.4]]),
    "4 MAPE, mean_with_sample_weight": Row(
        "K", L.MeanAbsolutePercentageError(**WEIGHTED_MEAN), A, B, 183.865, None, [[1.2], [3.4]]
    ),
    "4 MAPE, weights of steps": Row(
        "K", "mape", np.reshape(A, (2, 3, 1)), np.reshape(B, (2, 3, 1)), 694.4444, None, TIMESTEPS
    ),
    "5 BCE": Row("K", "binary_crossentropy", EYE, [[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.1, 0.2, 0.7]], 0.20046903),
    "6 BCE, clipped": Row(
        "K; log(1e-7) once", "binary_crossentropy", [[1, 0], [1, 0]], [[1, 1], [1, 0]], 3.98559, [7.97118, 0]
    ),
    "7 BCE of logits": Row(
        "K; 20/3",
        L.BinaryCrossentropy(from_logits=True),
        [[1, 0, 1], [0, 1, 1]],
        [[10, -10, 10], [10, 10, -10]],
        10 / 3,
        [0, 20 / 3],
    ),
    "7 BCE of logits, weights": Row(
        "K",
        L.BinaryCrossentropy(from_logits=True),
        [[1, 0, 1], [0, 1, 1]],
        [[10, -10, 10], [10, 10, -10]],
        10.0,
        [0, 20],
        [4, 3],
    ),
    "8 CCE": Row(
        "K; -ln of 0.9, 0.89/1.99, 0.94", "categorical_crossentropy", EYE, Q, 0.3239, -np.log([0.9, 0.89 / 1.99, 0.94])
    ),
    "8 CCE, weights": Row("K", "categorical_crossentropy", EYE, Q, 1.0696, None, THREE),
    "9 CCE of logits": Row(
        "K", L.CategoricalCrossentropy(from_logits=True), EYE, Z, 0.0573757, [0.001822, 0.000459, 0.169846]
    ),
    "9 CCE of logits, weights": Row("K", L.CategoricalCrossentropy(from_logits=True), EYE, Z, 0.31829, None, THREE),
    "10 CCE, smoothed": Row(
        "K; 400 * 0.1 / 3",
        L.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1),
        [[1, 0, 0]],
        [[100, -100, -100]],
        40 / 3,
    ),
    "11 SCCE, a class ignored": Row(
        "K",
        L.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1, reduction="none"),
        [[-1, 2]],
        [[[0.854, 0.698, 0.598], [0.088, 0.86, 0.018]]],
        1.480129 / 2,
    ),
    "12 SCCE, two of 16 pixels wrong": Row(
        "K", "sparse_categorical_crossentropy", PIXELS, PROBABILITIES, -np.log(0.2 * 0.4) / 16
    ),
    "13 binary focal": Row(
        "K",
        L.BinaryFocalCrossentropy(gamma=2),
        [[1, 0], [1, 0]],
        [[0.9, 0.8], [0.7, 0.2]],
        0.26803,
        [0.515547, 0.020513],
    ),
    "13 binary focal, weights": Row(
        "K",
        L.BinaryFocalCrossentropy(gamma=2),
        [[1, 0], [1, 0]],
        [[0.9, 0.8], [0.7, 0.2]],
        0.34415,
        None,
        [[1.2], [3.4]],
    ),
    "14 categorical focal": Row("K", L.CategoricalFocalCrossentropy(), EYE, Q, 0.02059),
    "14 categorical focal, weights": Row("K", L.CategoricalFocalCrossentropy(), EYE, Q, 0.06987, None, THREE),
    "15 categorical focal": Row(
        "Keras docstring",
        L.CategoricalFocalCrossentropy(),
        [[0, 1, 0], [0, 0, 1]],
        [[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]],
        0.3380875,
        [2.634e-4, 0.675912],
    ),
    "16 sigmoid focal, alpha 0.25": Row(
        "TensorFlow Addons losses/focal_loss.py",
        lambda y, p: -(0.25 * y * (1 - p) ** 2 * ops.log(p) + 0.75 * (1 - y) * p**2 * ops.log(1 - p)),
        [[1.0], [1.0], [0.0]],
        [[0.97], [0.91], [0.03]],
        2.183921e-4 / 3,
        [6.8533e-6, 1.90979e-4, 2.05598e-5],
    ),
    "17 focal of the true class": Row(
        "focal-loss _categorical_focal_loss.py",
        lambda y, p: -y * (1 - p) ** 2 * ops.log(p),
        [[1, 0, 0]] * 3,
        [[0.8, 0.1, 0.1], [0.7, 0.2, 0.1], [0.6, 0.2, 0.2]],
        0.0409166 / 3,
        np.array([0.0089257, 0.0321008, 0.0817321]) / 3,
    ),
    "18 Dice": Row("K", L.Dice(), CHECKER, CHECKED, 0.777778, exactness="ratio"),
    "19 Tversky": Row("1 - 2/8.4", overlap(fp=0.2, fn=0.8), CHECKER, CHECKED, 0.761905, exactness="ratio"),
    "19 Tversky, turned": Row(
        "K (its alpha weighs misses); 1 - 2/9.6", overlap(fp=0.8, fn=0.2), CHECKER, CHECKED, 0.791667, exactness="ratio"
    ),
    "19 Jaccard": Row("1 - 2/16", overlap(fp=1, fn=1), CHECKER, CHECKED, 0.875, exactness="ratio"),
    "19 Tversky, no false negatives": Row("1 - 2/6", overlap(fp=0.5, fn=0), CHECKER, CHECKED, 2 / 3, exactness="ratio"),
    "19 focal Tversky": Row(
        "0.761905 ** 0.75", overlap(fp=0.2, fn=0.8, power=0.75), CHECKER, CHECKED, 0.815503, exactness="ratio"
    ),
    "20 Dice of a sample": Row(
        "K", L.Dice(axis=(1, 2, 3), reduction="none"), HALVES, GUESSES, 0.6287879, [0.5, 0.757576], exactness="ratio"
    ),
    "20 Dice of the batch": Row("K docstring", L.Dice(), HALVES, GUESSES, 0.616438, exactness="ratio"),
    "21 Tversky of a sample": Row(
        "the formula; K has the two weights turned",
        overlap(fp=0.2, fn=0.8, axis=(1, 2, 3)),
        HALVES,
        GUESSES,
        (0.5 + 0.784946) / 2,
        [0.5, 0.784946],
        exactness="ratio",
    ),
    "22 Dice of sigmoids": Row(
        "MONAI tests/losses/test_dice_loss.py",
        dice(1e-6, activation=ops.sigmoid, axis=(1, 2)),
        MONAI_Y,
        MONAI_X,
        0.307576,
        exactness="ratio",
    ),
    "23 Jaccard of sigmoids": Row(
        "MONAI tests/losses/test_dice_loss.py",
        overlap(fp=1, fn=1, activation=ops.sigmoid, axis=(1, 2)),
        MONAI_Y,
        MONAI_X,
        0.470451,
        exactness="ratio",
    ),
    "23 Dice of squares": Row(
        "MONAI tests/losses/test_dice_loss.py",
        dice(1e-5, activation=ops.sigmoid, axis=(1, 2), square=True),
        MONAI_Y,
        MONAI_X,
        0.178337,
        exactness="ratio",
    ),
    "24 Tversky of sigmoids": Row(
        "MONAI tests/losses/test_tversky_loss.py",
        overlap(fp=0.3, fn=0.7, activation=ops.sigmoid, axis=(1, 2)),
        MONAI_Y,
        MONAI_X,
        0.3589,
        exactness="ratio",
    ),
    "24 Tversky of sigmoids, turned": Row(
        "MONAI tests/losses/test_tversky_loss.py",
        overlap(fp=0.7, fn=0.3, activation=ops.sigmoid, axis=(1, 2)),
        MONAI_Y,
        MONAI_X,
        0.247366,
        exactness="ratio",
    ),
    "25 Dice of sample and class, sigmoid": Row(
        "MONAI tests/losses/test_dice_loss.py",
        dice(1e-4, activation=ops.sigmoid, axis=1),
        MONAI_L,
        MONAI_Z,
        0.43505,
        [(0.296529 + 0.415136) / 2, (0.599976 + 0.428559) / 2],
        exactness="ratio",
    ),
    "26 Dice of sample and class, softmax": Row(
        "MONAI tests/losses/test_dice_loss.py",
        Summed(dice(1e-4, activation=ops.softmax, axis=1)),
        MONAI_L,
        MONAI_Z,
        1.534853,
        exactness="ratio",
    ),
    "26 Tversky of sample and class, softmax": Row(
        "MONAI tests/losses/test_tversky_loss.py",
        overlap(fp=0.5, fn=0.5, activation=ops.softmax, axis=1, smooth=1e-4),
        MONAI_L,
        MONAI_Z,
        (0.210961 + 0.295339 + 0.599952 + 0.428547) / 4,
        [(0.210961 + 0.295339) / 2, (0.599952 + 0.428547) / 2],
        exactness="ratio",
    ),
    "27 focal of sigmoids": Row("MONAI tests/losses/test_focal_loss.py", sigmoid_focal(), FOCAL_L, FOCAL_Z, 0.34959),
    "27 focal of sigmoids, alpha 0.8": Row(
        "MONAI tests/losses/test_focal_loss.py", sigmoid_focal(alpha=0.8), FOCAL_L, FOCAL_Z, 0.08423
    ),
    "27 focal of softmax": Row(
        "MONAI tests/losses/test_focal_loss.py", sigmoid_focal(softmax=True), FOCAL_L, FOCAL_Z, 0.16276
    ),
    "28 Dice + CE, perfect": Row(
        "MONAI tests/losses/test_dice_ce_loss.py; ln(1 + e) - 1",
        lambda y, p: keras.losses.categorical_crossentropy(y, p, from_logits=True) + keras.losses.dice(y, y),
        [[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]],
        [[[[1, 0], [0, 1]], [[0, 1], [1, 0]]]],
        np.log(1 + np.e) - 1,
    ),
    "29 Dice of halves": Row(
        "SMP tests/test_losses.py; score 0.6667", L.Dice(), [[1, 1, 1, 1]], [[1, 1, 0, 0]], 1 / 3, exactness="ratio"
    ),
    "29 Jaccard of halves": Row(
        "SMP tests/test_losses.py; score 0.5",
        overlap(fp=1, fn=1),
        [[1, 1, 1, 1]],
        [[1, 1, 0, 0]],
        0.5,
        exactness="ratio",
    ),
    "30 center loss": Row(
        "Wen et al. 2016, Eq. 2, on louis-she/center-loss.pytorch tests/center_loss_test.py",
        Summed(center_loss),
        [1, 3, 1],
        [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
        57.0,
    ),
    # Keras 3 against older versions: sum_over_batch_size divides by all elements, the Keras of 2019 by non-zero weights
    "weights with a zero": Row(
        "Keras 3.15.1: 0.4 / 3", "mse", [[1], [4], [5]], [[1], [2], [3]], 0.4 / 3, [0, 0, 0.4], [0.1, 0, 0.1]
    ),
    "the same, divided by the weights": Row(
        "Keras 3.15.1: 0.4 / 0.2",
        L.MeanSquaredError(**WEIGHTED_MEAN),
        [[1], [4], [5]],
        [[1], [2], [3]],
        2.0,
        [0, 0, 6],
        [0.1, 0, 0.1],
    ),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=[f"{name} ({row.source})" for name, row in ROWS.items()])
def test_the_total_is_the_published_value(row):
    y, p = np.asarray(row.y_true), np.asarray(row.y_pred, "float32")
    y = y if y.dtype.kind == "i" and y.shape != p.shape else y.astype("float32")
    weight = None if row.weight is None else np.asarray(row.weight, "float32")
    report = lossviz.explain_loss(row.loss, y, p, weight).check()
    assert report.total == pytest.approx(row.total, rel=5e-4, abs=1e-8)  # the sources give three to seven digits
    if row.samples is not None:
        shares = np.array(list(report.by("batch").values()))
        np.testing.assert_allclose(shares * len(shares), row.samples, rtol=5e-4, atol=1e-4 * abs(row.total))
    assert report.terms[0].exactness == row.exactness


def test_dice_says_what_it_is_made_of():
    sums = lossviz.explain_loss("dice", np.float32(CHECKER), np.float32(CHECKED)).terms[0].parts[0].sums
    assert (sums["TP"], sums["FP"], sums["FN"]) == (2, 8, 6)


def test_shares_of_dice_by_sample_and_class():
    loss = dice(1e-4, activation=ops.sigmoid, axis=1)
    report = lossviz.explain_loss(loss, np.float32(MONAI_L), np.float32(MONAI_Z))
    shares = report.by(("batch", "class"))
    monai = {(0, 0): 0.296529, (0, 1): 0.415136, (1, 0): 0.599976, (1, 1): 0.428559}
    assert {key: 4 * share for key, share in shares.items()} == pytest.approx(monai, rel=1e-4)
