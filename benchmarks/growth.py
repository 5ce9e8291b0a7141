"""How cost grows with batch, pixels, classes and outputs: of a loss with its gradient, and of `explain`.

The records have another form than those of `timing`, since nothing is compared:

    what, along, sizes         what was measured, what grew, and how large it was
    unit, median, quartiles    "ms", one median and one pair of quartiles for each size
    slope                      of log(median) over log(size), fitted to all sizes: 1 is twice the cost for twice the
                               size, 0 is the same cost for any size
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import keras
import numpy as np

from benchmarks.compiled import forward_backward, one_hot, probabilities
from benchmarks.timing import stopwatch, wait
from lossviz.losses import SegmentationCrossentropy

USUAL = {"batch": 8, "pixels": 64 * 64, "classes": 5, "outputs": 1}
GROWING = {
    "batch": (2, 4, 8, 16, 32, 64),
    "pixels": tuple(side * side for side in (16, 32, 64, 96, 128, 192)),
    "classes": (2, 4, 8, 16, 32),
    "outputs": (1, 2, 4, 8),
}
TINY_USUAL, TINY_GROWING = {**USUAL, "pixels": 16}, {"batch": (1, 2)}


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    subjects = {"SegmentationCrossentropy, forward + backward": (loss_step, 2 if tiny else 15)}
    if keras.backend.backend() == "tensorflow":
        subjects["explain, second call"] = (explanation, 1 if tiny else 3)
    usual, growing = (TINY_USUAL, TINY_GROWING) if tiny else (USUAL, GROWING)
    return [
        growth(what, along, sizes, partial(at, prepare, usual, along), rounds)
        for what, (prepare, rounds) in subjects.items()
        for along, sizes in growing.items()
    ]


def at(prepare: Callable, usual: dict[str, int], along: str, size: int) -> Callable[[], Any]:
    return prepare(**{**usual, along: size})


def growth(what: str, along: str, sizes: tuple, prepare: Callable[[int], Callable], rounds: int) -> dict[str, Any]:
    """All sizes take turns, so that a machine that grows slower meanwhile does not bend the line."""
    functions = [prepare(size) for size in sizes]
    for function in functions:
        wait(function())
    milliseconds = 1000 * np.array([[stopwatch(function) for function in functions] for _ in range(rounds)])
    low, median, high = np.percentile(milliseconds, [25, 50, 75], axis=0)
    slope = np.polyfit(np.log(sizes), np.log(median), 1)[0]
    return {
        "what": what,
        "along": along,
        "sizes": list(sizes),
        "unit": "ms",
        "median": median.round(3).tolist(),
        "quartiles": np.stack([low, high], -1).round(3).tolist(),
        "slope": round(float(slope), 2),
    }


def data(batch: int, pixels: int, classes: int, outputs: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Targets and predictions of each output."""
    side = round(pixels**0.5)
    shape = (batch, side, side, classes)
    return [one_hot(shape) for _ in range(outputs)], [probabilities(shape) for _ in range(outputs)]


def loss_step(**sizes: int) -> Callable[[], Any]:
    loss = SegmentationCrossentropy(ignore_false_negatives=(0,))
    return forward_backward(lambda y, p: sum(loss(a, b) for a, b in zip(y, p, strict=True)), *data(**sizes))


def explanation(**sizes: int) -> Callable[[], Any]:
    """`explain` of a model with one 1 × 1 convolution an output: as little model as there can be."""
    import lossviz

    y, p = data(**sizes)
    image = keras.Input(p[0].shape[1:])
    convolutions = [keras.layers.Conv2D(sizes["classes"], 1, activation="softmax") for _ in y]
    model = keras.Model(image, [convolution(image) for convolution in convolutions])
    model.compile("sgd", [SegmentationCrossentropy() for _ in y])
    return lambda: lossviz.explain(model, p[0], y)
