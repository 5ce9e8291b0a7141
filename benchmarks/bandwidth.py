"""How near a loss comes to the least it can do: the bytes that must move, at the speed of a copy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from benchmarks.compiled import forward_backward, gpu, one_hot, probabilities
from benchmarks.timing import compare, stopwatch, wait
from lossviz.losses import BinaryCrossentropyDice, SegmentationCrossentropy, SegmentationTversky

AT_LEAST = 0.8  # of the copy's bandwidth, on a GPU

# How often targets or predictions are read, or the gradient written. The gradient of a crossentropy at a pixel needs
# that pixel only: read both, write one. That of a ratio needs sums over all pixels first: both are read twice.
LOSSES = [
    (SegmentationCrossentropy(), 3),
    (SegmentationCrossentropy(ignore_false_negatives=(0,)), 3),
    (SegmentationTversky(), 5),
    (BinaryCrossentropyDice(), 5),
]


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    batches, size = ((2,), 8) if tiny else ((16, 256), 256) if gpu() else ((16,), 128)
    return [record(loss, passes, (batch, size, size, 5), tiny) for batch in batches for loss, passes in LOSSES]


def record(loss: keras.losses.Loss, passes: int, shape: tuple[int, ...], tiny: bool) -> dict[str, Any]:
    rounds, calls = (2, 1) if tiny else (20, 50 if gpu() else 1)
    y, p = one_hot(shape), probabilities(shape)
    step, copy = forward_backward(loss, y, p, jit=True), copier(p)
    for _ in range(3):
        wait(step())
        wait(copy())
    seconds = np.array([[stopwatch(function, calls) for function in (step, copy)] for _ in range(rounds)])
    loss_speed, copy_speed = np.array([[passes], [2]]) * p.nbytes / 1e9 / seconds.T
    kind = f"{type(loss).__name__}{' ignoring a class' if getattr(loss, 'ignore_false_negatives', ()) else ''}"
    return compare(
        f"{kind}, {' × '.join(map(str, shape))}",
        "copy",
        loss_speed,
        copy_speed,
        unit="GB/s",
        target=AT_LEAST if gpu() else None,
        at_least=True,
        note=f"forward + backward; {passes * p.nbytes / 1e6:.3g} MB must move{fusion(loss, y, p)}",
    )


def copier(values: np.ndarray) -> Callable[[], Any]:
    """A function that reads and writes as many bytes as `values` has, and next to nothing else."""
    tensor = ops.convert_to_tensor(values)
    if keras.backend.backend() == "jax":
        import jax

        copy = jax.jit(lambda x: x + 1.0)
    else:
        import tensorflow as tf

        copy = tf.function(lambda x: x + 1.0, jit_compile=True)
    return lambda: copy(tensor)


def fusion(loss: keras.losses.Loss, y_true: np.ndarray, y_pred: np.ndarray) -> str:
    """What XLA says that it reads and writes for this loss, and in how many kernels: more of both is fusion lost."""
    if keras.backend.backend() != "jax":
        return ""  # TensorFlow does not tell
    import jax

    step = jax.jit(jax.value_and_grad(lambda p, y: loss(y, p))).lower(y_pred, y_true).compile()
    text = step.as_text()
    kernels = [line for line in text[text.index("\nENTRY") :].splitlines() if "fusion(" in line or "call(" in line]
    return f", XLA moves {step.cost_analysis()['bytes accessed'] / 1e6:.3g} MB in {len(kernels)} kernels"
