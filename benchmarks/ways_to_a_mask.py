"""The loop and the scatter of "Ignore the false negatives of one class" against the mask that the chapter ends with."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from benchmarks.compiled import forward_backward, one_hot, probabilities
from benchmarks.timing import compare, side_by_side, stopwatch

BACKENDS = ("tensorflow",)  # the scatter's number of indices is not known while JAX compiles


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    small, large = ((1, 4, 4, 6), (1, 8, 8, 6)) if tiny else ((1, 16, 16, 6), (8, 128, 128, 6))
    settings = {"pairs": 2, "warm_up": 1} if tiny else {"pairs": 40, "warm_up": 5}
    looped, scattered = (
        f"{way}, {' × '.join(map(str, shape))}" for way, shape in (("loop over pixels", small), ("scatter", large))
    )
    return [
        first_call(looped, small),
        side_by_side(looped, step(loop, small), "mask", step(mask, small), **settings),
        side_by_side(scattered, step(scatter, large), "mask", step(mask, large), **settings),
    ]


def step(way, shape):
    """Crossentropy and its gradient, the prediction made right by `way` where the truth is class 0."""

    def loss(y_true, y_pred):
        return tf.reduce_mean(keras.losses.categorical_crossentropy(y_true, way(y_true, y_pred)))

    return forward_backward(loss, one_hot(shape), probabilities(shape))


def first_call(what: str, shape: tuple[int, ...]) -> dict[str, Any]:
    step(mask, shape)()  # what TensorFlow does once belongs to neither
    looped, masked = ([stopwatch(step(way, shape)) for _ in range(2)] for way in (loop, mask))
    return compare(f"{what}, first call", "mask", looped, masked, unit="s")


def mask(y_true, y_pred):
    return tf.where(tf.argmax(y_true, -1)[..., None] == 0, y_true, y_pred)


def scatter(y_true, y_pred):
    where = tf.where(tf.argmax(y_true, -1) == 0)
    return tf.tensor_scatter_nd_update(y_pred, where, tf.gather_nd(y_true, where))


def loop(y_true, y_pred):
    classes = y_true.shape[-1]
    truths, predictions = (tf.unstack(tf.reshape(values, (-1, classes))) for values in (y_true, y_pred))
    chosen = [tf.where(t[0] == 1, t, p) for t, p in zip(truths, predictions, strict=True)]
    return tf.reshape(tf.stack(chosen), y_true.shape)
