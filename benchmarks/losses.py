"""The losses of `lossviz.losses` against the same arithmetic from Keras's built-ins."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.compiled import forward_backward, one_hot, probabilities
from benchmarks.timing import side_by_side
from lossviz.losses import BinaryCrossentropyDice, LandmarkLoss, SegmentationCrossentropy, SegmentationTversky

AT_MOST = 1.2  # times the built-in


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    shape, faces = ((1, 8, 8, 6), 8) if tiny else ((8, 128, 128, 6), 4096)
    settings = {"pairs": 2, "warm_up": 1} if tiny else {"pairs": 40, "warm_up": 5}
    y, p = one_hot(shape), probabilities(shape)
    t, q = landmarks(faces, 0), landmarks(faces, 1)
    ignoring = {"ignore_false_negatives": (0,)}
    rows = [
        (
            *("SegmentationCrossentropy ignoring a class", SegmentationCrossentropy(**ignoring)),
            *("CategoricalCrossentropy", keras.losses.CategoricalCrossentropy(), y, p),
        ),
        (
            *(
                "SegmentationCrossentropy ignoring a class, from logits",
                SegmentationCrossentropy(**ignoring, from_logits=True),
            ),
            *("CategoricalCrossentropy", keras.losses.CategoricalCrossentropy(from_logits=True), y, np.log(p)),
        ),
        (
            *("SegmentationTversky", SegmentationTversky(fp=0.3, fn=0.7)),
            # its alpha weighs the misses, beta the false alarms
            *("Tversky per sample and class", keras.losses.Tversky(alpha=0.7, beta=0.3, axis=(1, 2)), y, p),
        ),
        (
            *("BinaryCrossentropyDice", BinaryCrossentropyDice()),
            *("BinaryCrossentropy and Tversky(0.5, 0.5)", crossentropy_dice, y, p),
        ),
        ("LandmarkLoss", LandmarkLoss(), "binary crossentropy and masked MAPE", crossentropy_mape, t, q),
    ]
    return [
        side_by_side(
            f"{what}, {size(y_true)}",
            forward_backward(loss, y_true, y_pred),
            f"Keras: {against}",
            forward_backward(built_in, y_true, y_pred),
            AT_MOST,
            **settings,
        )
        for what, loss, against, built_in, y_true, y_pred in rows
    ]


def size(values: np.ndarray) -> str:
    return " × ".join(map(str, values.shape))


def landmarks(faces: int, seed: int) -> np.ndarray:
    """Three points of `faces` faces: x, y in pixels and a flag, which is a probability for seed 1."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(10, 250, (faces, 3, 3)).astype("float32")
    points[..., 2] = rng.integers(0, 2, (faces, 3)) if seed == 0 else rng.uniform(0.1, 0.9, (faces, 3))
    return points.reshape(faces, 9)


def crossentropy_dice(y_true: Any, y_pred: Any) -> Any:
    """Binary crossentropy, and Dice for each sample and class from the same three sums, in Keras's functions."""
    dice = keras.losses.tversky(y_true, y_pred, alpha=0.5, beta=0.5, axis=(1, 2))
    return ops.mean(keras.losses.binary_crossentropy(y_true, y_pred)) + ops.mean(dice)


def crossentropy_mape(y_true: Any, y_pred: Any) -> Any:
    """The landmark loss in Keras's functions, as safe from placeholders at invisible points."""
    target, prediction = (ops.reshape(values, (-1, 3, 3)) for values in (y_true, y_pred))
    visible = target[..., 2:] > 0.5
    known = (ops.where(visible, values[..., :2], 0.0) for values in (target, prediction))
    error = ops.sum(keras.losses.mean_absolute_percentage_error(*known))
    error = error / ops.maximum(ops.sum(ops.cast(visible, error.dtype)), 1.0)
    return ops.mean(keras.losses.binary_crossentropy(target[..., 2], prediction[..., 2])) + error
