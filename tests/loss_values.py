"""Worked values of the losses and layers, each with its source; `python loss_values.py` prints what a backend gives.

The test runs that once a backend, since Keras takes one a process. Imports nothing of TensorFlow unless it is the
backend.
"""

import json
from dataclasses import dataclass
from math import e, log
from typing import Any

import keras
import numpy as np

from lossviz.layers import CenterLoss, LossEndpoint
from lossviz.losses import BinaryCrossentropyDice, LandmarkLoss, SegmentationCrossentropy, SegmentationTversky

KERAS = "keras losses_test.py"
MONAI_DICE, MONAI_TVERSKY = "MONAI test_dice_loss.py", "MONAI test_tversky_loss.py"
MONAI_SUM = "MONAI test_dice_ce_loss.py"
HAND = "by hand"


@dataclass(frozen=True)
class Case:
    name: str
    source: str
    loss: keras.losses.Loss
    y_true: Any
    y_pred: Any
    expected: Any
    weight: Any = None
    rtol: float = 5e-5  # published values have five or six digits


def sigmoid(x):
    return 1 / (1 + np.exp(-np.asarray(x, float)))


def two_classes(flags, probabilities):
    """Binary targets and probabilities as two channels."""
    y, p = np.asarray(flags, float), np.asarray(probabilities, float)
    return np.stack([1 - y, y], -1), np.stack([1 - p, p], -1)


def landmarks(coordinates, visible=1.0):
    """Rows of x, y, x, y, ... as x, y, visible, ..."""
    points = np.reshape(coordinates, (len(coordinates), -1, 2)).astype(float)
    flags = np.broadcast_to(np.asarray(visible, float), points.shape[:2])
    return np.concatenate([points, flags[..., None]], -1).reshape(len(points), -1)


EYE = np.eye(3)
Q = np.array([[0.9, 0.05, 0.05], [0.5, 0.89, 0.6], [0.05, 0.01, 0.94]])
Z = np.array([[8.0, 1, 1], [0, 9, 1], [2, 3, 5]])
W = np.array([1.2, 3.4, 5.6])
A, A_HAT = [[1, 9, 2, -5, -2, 6]], [[4, 8, 12, 8, 1, 3]]

FOCAL_Y, FOCAL_P = two_classes([[1, 0], [1, 0]], [[0.9, 0.8], [0.7, 0.2]])
SIGMOID_FOCAL = two_classes([1, 1, 0], [0.97, 0.91, 0.03])
SPARSE_P = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.3, 0.1, 0.6]])
SIXTEEN = np.repeat([[1.0, 0, 0]], 16, 0)
SIXTEEN[:2] = [[0.2, 0.8, 0], [0.4, 0, 0.6]]

# checker boards: TP 2, FP 8, FN 6
BOARD_Y = np.array([[1.0, 0, 1, 0], [0, 1, 0, 1], [1, 0, 1, 0], [0, 1, 0, 1]])[None, ..., None]
BOARD_P = np.array([[0.0, 1, 0, 1], [1, 0, 1, 1], [0, 1, 0, 1], [1, 0, 1, 1]])[None, ..., None]
PAIR_Y = np.array([[1.0, 1, 0, 0], [1, 1, 0, 0]]).reshape(2, 2, 2, 1)
PAIR_P = np.array([[0, 1.0, 0, 1], [0.4, 0, 0, 0.9]]).reshape(2, 2, 2, 1)

# MONAI has channels first
MONAI_X, MONAI_Y = np.array([[1.0, -1], [-1, 1]])[None, ..., None], np.array([[1.0, 0], [1, 1]])[None, ..., None]
THREE_Z = np.array([[[-1.0, 0, 1], [1, 0, -1]], [[0, 0, 0], [0, 0, 0]]]).transpose(0, 2, 1)
THREE_Y = np.eye(2)[np.array([[1, 0, 0], [1, 1, 0]])]
PERFECT = EYE[None]

TINY = {"smooth": 1e-7}
TVERSKY_4 = [[0.210961, 0.295339], [0.599952, 0.428547]]
CROSS, TVERSKY = SegmentationCrossentropy, SegmentationTversky


def weights_of(cls, index, **options):
    """The loss of one class of two, alone: the class mean divides by 2."""
    return cls(class_weights=np.eye(2)[index] * 2, reduction=None, **options)


CASES = [
    Case("1 mse", KERAS, LandmarkLoss(3, "mse", 1, 0), landmarks(A), landmarks(A_HAT), 49.5),
    Case("4 mape", KERAS, LandmarkLoss(3, "mape", 1, 0), landmarks(A), landmarks(A_HAT), 211.8518),
    Case("4 mae", HAND, LandmarkLoss(3, "mae", 1, 0), landmarks(A), landmarks(A_HAT), (3 + 1 + 10 + 13 + 3 + 3) / 6),
    Case("huber", HAND, LandmarkLoss(1, "huber", 1, 0), [[0, 0, 1]], [[0.5, 3, 1]], (0.125 + 2.5) / 2),
    Case(
        "5 binary crossentropy of visible",
        KERAS,
        LandmarkLoss(),
        landmarks(np.ones((3, 6)), EYE),
        landmarks(np.ones((3, 6)), [[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.1, 0.2, 0.7]]),
        0.20046903,
    ),
    Case(
        "7 the same from logits, weighted",
        KERAS,
        LandmarkLoss(from_logits=True),
        landmarks(np.ones((2, 6)), [[1, 0, 1], [0, 1, 1]]),
        landmarks(np.ones((2, 6)), [[10, -10, 10], [10, 10, -10]]),
        10.0,
        weight=[4, 3],
    ),
    Case(
        "5 binary crossentropy without Dice",
        KERAS,
        BinaryCrossentropyDice(dice_weight=0),
        EYE[:, None],
        np.array([[0.9, 0.1, 0.2], [0.3, 0.8, 0.1], [0.1, 0.2, 0.7]])[:, None],
        0.20046903,
    ),
    Case(
        "7 the same from logits",
        KERAS,
        BinaryCrossentropyDice(dice_weight=0, from_logits=True, reduction=None),
        np.array([[1.0, 0, 1], [0, 1, 1]])[:, None],
        np.array([[10.0, -10, 10], [10, 10, -10]])[:, None],
        [4.54e-5, 6.66671],
        rtol=1e-4,
    ),
    Case("8 crossentropy", KERAS, CROSS(), EYE, Q, 0.32396, rtol=1e-4),
    Case("8 crossentropy, weighted", KERAS, CROSS(), EYE, Q, 1.0696, W),
    Case(
        "9 crossentropy of logits",
        KERAS,
        CROSS(from_logits=True, reduction=None),
        EYE,
        Z,
        [0.001822, 0.000459, 0.169846],
        rtol=5e-4,
    ),
    Case("9 the same, weighted", KERAS, CROSS(from_logits=True), EYE, Z, 0.31829, W),
    Case("12 two wrong of 16", KERAS, CROSS(), SIXTEEN * 0 + EYE[0], SIXTEEN, -(log(0.2) + log(0.4)) / 16),
    Case(
        "13 binary focal as two channels",
        KERAS,
        CROSS(gamma=2, reduction=None),
        FOCAL_Y,
        FOCAL_P,
        [[0.001054, 1.030041], [0.032101, 0.008926]],  # row means .515547, .020513
        rtol=5e-4,
    ),
    Case("13 its mean", KERAS, CROSS(gamma=2), FOCAL_Y, FOCAL_P, 0.26803),
    Case("13 weighted", KERAS, CROSS(gamma=2), FOCAL_Y, FOCAL_P, 0.34415, [[1.2], [3.4]], rtol=2e-4),
    Case("14 categorical focal", KERAS, CROSS([0.25] * 3, gamma=2), EYE, Q, 0.02059, rtol=5e-4),
    Case("14 weighted", KERAS, CROSS([0.25] * 3, gamma=2), EYE, Q, 0.06987, W, rtol=5e-4),
    Case(
        "15 categorical focal",
        "keras losses.py",
        CROSS([0.25] * 3, gamma=2, reduction=None),
        EYE[1:],
        [[0.05, 0.9, 0.05], [0.1, 0.85, 0.05]],
        [2.63401e-4, 0.675912],
    ),
    Case(
        "16 sigmoid focal, alpha as class weights",
        "tensorflow/addons focal_loss.py",
        CROSS([0.75, 0.25], gamma=2, reduction=None),
        *SIGMOID_FOCAL,
        [6.8533e-6, 1.90979e-4, 2.05598e-5],
    ),
    Case(
        "17 sparse focal",
        "artemmavrin/focal-loss _categorical_focal_loss.py",
        CROSS(gamma=2, reduction=None),
        EYE,
        SPARSE_P,
        [0.00892574, 0.0321006, 0.0817321],
    ),
    Case("18 Dice", KERAS, TVERSKY(**TINY), BOARD_Y, BOARD_P, 0.777778),
    Case("19 Tversky fp .2", HAND, TVERSKY(fp=0.2, fn=0.8, **TINY), BOARD_Y, BOARD_P, 0.761905),
    Case("19 Tversky fp .8", KERAS, TVERSKY(fp=0.8, fn=0.2, **TINY), BOARD_Y, BOARD_P, 0.791667),
    Case("19 Jaccard", HAND, TVERSKY(fp=1, fn=1, **TINY), BOARD_Y, BOARD_P, 0.875),
    Case("19 no misses", HAND, TVERSKY(fp=0.5, fn=0, **TINY), BOARD_Y, BOARD_P, 0.666667),
    Case("19 focal Tversky", HAND, TVERSKY(fp=0.2, fn=0.8, gamma=0.75, **TINY), BOARD_Y, BOARD_P, 0.815503),
    Case("20 Dice per sample", KERAS, TVERSKY(reduction=None, **TINY), PAIR_Y, PAIR_P, [0.5, 0.757576]),
    Case(
        "20 Dice of the whole batch",
        "keras losses.py",
        TVERSKY(**TINY),
        PAIR_Y.reshape(1, 4, 2, 1),
        PAIR_P.reshape(1, 4, 2, 1),
        0.616438,
    ),
    Case(
        "21 Tversky per sample",
        HAND,
        TVERSKY(fp=0.2, fn=0.8, reduction=None, **TINY),
        PAIR_Y,
        PAIR_P,
        [0.5, 0.784946],
    ),
    Case("22 Dice of logits", MONAI_DICE, TVERSKY(from_logits=True, **TINY), MONAI_Y, MONAI_X, 0.307576),
    Case("23 Jaccard of logits", MONAI_DICE, TVERSKY(1, 1, from_logits=True, **TINY), MONAI_Y, MONAI_X, 0.470451),
    Case("24 Tversky", MONAI_TVERSKY, TVERSKY(0.3, 0.7, from_logits=True, **TINY), MONAI_Y, MONAI_X, 0.3589, rtol=2e-4),
    Case("24 reversed", MONAI_TVERSKY, TVERSKY(0.7, 0.3, from_logits=True, **TINY), MONAI_Y, MONAI_X, 0.247366),
    *(
        Case(
            f"25 Dice of class {c}",
            MONAI_DICE,
            weights_of(TVERSKY, c, smooth=5e-5),  # MONAI writes (2 TP + smooth) / (2 TP + FP + FN + smooth)
            THREE_Y,
            sigmoid(THREE_Z),
            [[0.296529, 0.599976], [0.415136, 0.428559]][c],
        )
        for c in (0, 1)
    ),
    Case("25 mean", MONAI_DICE, TVERSKY(smooth=5e-5), THREE_Y, sigmoid(THREE_Z), 0.43505),
    Case("26 Dice of a softmax", MONAI_DICE, TVERSKY(from_logits=True, smooth=5e-5), THREE_Y, THREE_Z, 0.383713),
    *(
        Case(
            f"26 Tversky of class {c}",
            MONAI_TVERSKY,
            weights_of(TVERSKY, c, smooth=1e-4, from_logits=True),
            THREE_Y,
            THREE_Z,
            np.array(TVERSKY_4)[:, c],
        )
        for c in (0, 1)
    ),
    Case(
        "27 focal of a softmax",
        "MONAI test_focal_loss.py",
        CROSS([1 / 3] * 3, gamma=2, from_logits=True),
        EYE[[[0, 1], [2, 0]]],
        np.array([[1.0, 1], [0.5, 0]])[..., None].repeat(3, -1),
        0.16276,
    ),
    Case(
        "28 crossentropy part",
        "MONAI test_dice_ce_loss.py",
        CROSS(from_logits=True),
        np.eye(2),
        np.eye(2),
        log(1 + e) - 1,
    ),
    Case("28 Dice part", MONAI_SUM, TVERSKY(), PERFECT, PERFECT, 0.0),
    *(
        Case(
            f"29 {word}",
            "segmentation_models.pytorch test_losses.py",
            TVERSKY(fp, fn, **TINY),
            np.array([1.0, 1, 1, 1]).reshape(1, 4, 1),
            np.array([1.0, 1, 0, 0]).reshape(1, 4, 1),
            expected,
        )
        for word, fp, fn, expected in (("Jaccard", 1, 1, 0.5), ("Dice", 0.5, 0.5, 1 / 3), ("Tversky", 0.5, 0.5, 1 / 3))
    ),
    Case(
        "landmarks, divisor batch",
        HAND,
        LandmarkLoss(2, "mae", reduction=None, visibility_weight=0),
        [[1, 2, 1, np.nan, -1, 0], [3, 4, 1, 5, 6, 1]],
        [[2, 2, 0.5, 77, 77, 0.5], [3, 6, 0.5, 8, 6, 0.5]],
        [2 / 6 * 1, 2 / 6 * (2 + 3)],
    ),
    Case(
        "landmarks, divisor sample",
        HAND,
        LandmarkLoss(2, "mae", divisor="sample", reduction=None, visibility_weight=0),
        [[1, 2, 1, np.nan, -1, 0], [3, 4, 1, 5, 6, 1]],
        [[2, 2, 0.5, 77, 77, 0.5], [3, 6, 0.5, 8, 6, 0.5]],
        [1 / 2, 5 / 4],
    ),
    Case("mape at a true 0", HAND, LandmarkLoss(1, "mape", 1, 0), [[0, 0.5, 1]], [[2, 0, 1]], (200 + 50) / 2),
    Case(
        "ignored class, counted",
        HAND,
        CROSS(ignore_false_negatives=(0,), divisor="counted"),
        EYE,
        [[0.1, 0.8, 0.1], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]],
        (log(4) + log(2)) / 2,
    ),
    Case(
        "ignored class, all",
        HAND,
        CROSS(ignore_false_negatives=(0,)),
        EYE,
        [[0.1, 0.8, 0.1], [0.5, 0.25, 0.25], [0.25, 0.25, 0.5]],
        (log(4) + log(2)) / 3,
    ),
    Case(
        "Tversky with an ignored class",  # pixel 0 is seen as correct: class 0 TP 1, FP .5; class 1 TP .5, FN .5
        HAND,
        TVERSKY(1, 1, ignore_false_negatives=(0,), **TINY),
        [[[1.0, 0], [0, 1]]],
        [[[0.0, 1], [0.5, 0.5]]],
        (1 - 1 / 1.5 + 1 - 0.5) / 2,
    ),
    Case(
        "binary crossentropy and Dice, weighted",
        HAND,
        BinaryCrossentropyDice([2, 0], dice_weight=3, **TINY),
        [[[1.0, 0], [0, 1]]],
        [[[0.5, 0.1], [0.5, 0.2]]],
        log(2) + 3 * (1 - 0.5),  # class 0: TP .5, FP .5, FN .5
    ),
]


def compute(cases):
    """Value and gradient of each of the named losses: `{name: (loss, y_true, y_pred, weight)}` to `{name: (v, g)}`.

    The gradient is that of the sum of the values. On JAX in one compiled step, elsewhere one after the other.
    """

    def tensors(case):
        loss, y_true, y_pred, weight = case
        y_true, y_pred = (keras.ops.convert_to_tensor(np.asarray(y, "float32")) for y in (y_true, y_pred))
        return lambda p: loss(y_true, p, sample_weight=weight), y_pred

    given = {name: tensors(case) for name, case in cases.items()}
    if keras.backend.backend() == "jax":
        import jax

        def both(predictions):
            def summed(function):
                return lambda p: ((value := function(p)).sum(), value)

            return {name: jax.grad(summed(given[name][0]), has_aux=True)(p) for name, p in predictions.items()}

        found = jax.jit(both)({name: y_pred for name, (_, y_pred) in given.items()})
        return {name: (np.asarray(value), np.asarray(grad)) for name, (grad, value) in found.items()}
    if keras.backend.backend() == "torch":

        def one(function, y_pred):
            y_pred.requires_grad_(True)
            value = function(y_pred)
            value.sum().backward()
            return value.detach().cpu().numpy(), y_pred.grad.cpu().numpy()
    else:
        import tensorflow as tf

        def one(function, y_pred):
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                value = function(y_pred)
                total = tf.reduce_sum(value)
            return value.numpy(), tape.gradient(total, y_pred).numpy()

    return {name: one(*case) for name, case in given.items()}


def value(loss, y_true, y_pred, weight=None):
    """What one loss gives, as NumPy."""
    return compute({"": (loss, y_true, y_pred, weight)})[""][0]


def gradient(loss, y_true, y_pred):
    """The gradient of one loss, summed over what it returns, with respect to the predictions."""
    return compute({"": (loss, y_true, y_pred, None)})[""][1]


def center_example(**options):
    """The centers, features and labels that louis-she/center-loss.pytorch tests with, as model, arrays."""
    features, labels = keras.Input((3,)), keras.Input((), dtype="int32")
    layer = CenterLoss(4, **{"weight": 1.0, **options})
    model = keras.Model([features, labels], layer(features, labels))
    layer.centers.assign([[1.0, 1, 1], [2, 2, 2], [3, 3, 3], [5, 5, 5]])
    model.compile("sgd")
    return model, layer, [np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]], "float32"), np.array([1, 3, 1])]


#: |x - c|**2 is 114 in all: 57 by equation 2 of the paper, 19 in the authors' layer; the step by equation 4
CENTERS_AFTER = {
    0.5: [[1, 1, 1], [8 / 3, 3, 10 / 3], [3, 3, 3], [4.75, 5, 5.25]],
    0.1: [[1, 1, 1], [2 + 2 / 15, 2.2, 2 + 4 / 15], [3, 3, 3], [4.95, 5, 5.05]],
}


def measure():
    """What this backend gives for every case and both layers."""
    found = {}
    cases = {case.name: (case.loss, case.y_true, case.y_pred, case.weight) for case in CASES}
    for name, (result, slope) in compute(cases).items():
        found[name], found[f"gradient: {name}"] = result, slope
    for alpha in CENTERS_AFTER:
        model, layer, data = center_example(alpha=alpha)
        found[f"center loss {alpha}"] = model.fit(data, batch_size=3, verbose=0).history["loss"][0]
        found[f"centers {alpha}"] = layer.centers.numpy()
    target, x = keras.Input((1,)), keras.Input((1,))
    model = keras.Model([target, x], LossEndpoint("mse", name="part", weight=0.5)(target, x))
    model.compile("sgd")
    data = [np.array([[1.0], [2], [5]], "float32"), np.zeros((3, 1), "float32")]
    found["endpoint"] = model.evaluate(data, batch_size=2, verbose=0, return_dict=True)["loss"]
    return {name: np.asarray(numbers, float).tolist() for name, numbers in found.items()}


if __name__ == "__main__":
    print(json.dumps(measure()))
