"""What a training step compiles, for a loss alone: its value and the gradient of the predictions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops


def forward_backward(loss: Callable[[Any, Any], Any], y_true: Any, y_pred: Any, jit: bool | None = None) -> Callable:
    """A function without arguments: `loss(y_true, y_pred)` and its gradient, compiled as Keras compiles a step.

    Arrays, or lists of them; they stay on the device. `jit=True` asks TensorFlow for XLA; None does as Keras does,
    which is XLA where there is a GPU. JAX always uses XLA.
    """
    y_true, y_pred = keras.tree.map_structure(ops.convert_to_tensor, (y_true, y_pred))
    if keras.backend.backend() == "jax":
        import jax

        step = jax.jit(jax.value_and_grad(lambda p, y: loss(y, p)))
        return lambda: step(y_pred, y_true)
    import tensorflow as tf

    @tf.function(jit_compile=gpu() if jit is None else jit)
    def value_and_gradient(p, y):
        with tf.GradientTape() as tape:
            tape.watch(p)
            value = loss(y, p)
        return value, tape.gradient(value, p)

    return lambda: value_and_gradient(y_pred, y_true)


def gpu() -> bool:
    """Whether this process has a GPU."""
    if keras.backend.backend() == "jax":
        import jax

        return jax.default_backend() == "gpu"
    import tensorflow as tf

    return bool(tf.config.list_physical_devices("GPU"))


@functools.lru_cache(maxsize=1)
def one_hot(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Random true classes, one-hot in the last axis of `shape`, float32. Kept until the next: that takes seconds."""
    labels = np.random.default_rng(seed).integers(0, shape[-1], shape[:-1])
    return np.eye(shape[-1], dtype="float32")[labels]


@functools.lru_cache(maxsize=1)
def probabilities(shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Random positive numbers whose sum over the last axis is 1, float32."""
    raw = np.random.default_rng(seed).uniform(0.05, 1.0, shape).astype("float32")
    return raw / raw.sum(-1, keepdims=True)
