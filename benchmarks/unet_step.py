"""One training step of the U-Net with a loss of `lossviz.losses` against the same step with the built-in loss."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from benchmarks.compiled import gpu
from benchmarks.timing import side_by_side
from lossviz import examples
from lossviz.losses import BinaryCrossentropyDice, SegmentationCrossentropy

AT_MOST = 1.05  # times the step with the built-in loss, on a GPU


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    batch, size = (2, 8) if tiny else (16, 256) if gpu() else (8, 64)
    levels = {"filters": (2,), "bottleneck": 2} if tiny else {}
    settings = {"pairs": 2, "warm_up": 1} if tiny else {"pairs": 30, "warm_up": 3}
    x, y = (ops.convert_to_tensor(values[:, :size, :size]) for values in examples.scenes(batch, max(size, 16)))

    def step(loss: keras.losses.Loss) -> Callable[[], Any]:
        model = examples.unet(size, **levels)
        model.compile("adam", loss)
        return lambda: model.train_on_batch(x, y)

    rows = [
        (BinaryCrossentropyDice(), keras.losses.BinaryCrossentropy()),
        (SegmentationCrossentropy(ignore_false_negatives=(0,)), keras.losses.CategoricalCrossentropy()),
    ]
    return [
        side_by_side(
            f"U-Net step, {batch} × {size} × {size} × 5, {type(loss).__name__}",
            step(loss),
            f"Keras: {type(built_in).__name__}",
            step(built_in),
            AT_MOST if gpu() else None,
            note="" if gpu() else "the target is for a GPU",
            **settings,
        )
        for loss, built_in in (rows[:1] if tiny else rows)
    ]
