"""What `guard` costs: `fit` of a small network inside it, from the second epoch on, and its look at the first batch."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

import lossviz
from benchmarks.timing import alternately, compare, side_by_side

BACKENDS = ("tensorflow",)
AT_MOST = 1.01  # times the fit without it, once it has looked
SECONDS = 2.0  # for the look itself


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    samples, pairs = (64, 2) if tiny else (16384, 30)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(samples, 16)).astype("float32"), rng.random((samples, 1)).astype("float32")

    def network() -> keras.Model:
        model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    def fit(model: keras.Model) -> None:
        model.fit(x, y, batch_size=64, verbose=0, shuffle=False)

    def first_step() -> None:
        network().train_on_batch(x[:64], y[:64])

    def with_a_look() -> None:
        with lossviz.guard():
            first_step()

    inside, outside, watch = network(), network(), lossviz.guard()

    def again() -> None:
        with watch:  # the first time it looks, and then knows these batches
            fit(inside)

    epoch = side_by_side(
        f"an epoch of {samples // 64} steps inside guard, after its look",
        again,
        "the same outside",
        lambda: fit(outside),
        AT_MOST,
        pairs=pairs,
        warm_up=1 if tiny else 3,
    )
    looking, plain = alternately(with_a_look, first_step, pairs=2 if tiny else 10, warm_up=1)
    allowed = np.full_like(plain, 1000 * SECONDS)
    return [
        epoch,
        compare("the look of guard at a first batch", "2 s", looking - plain, allowed, unit="ms", target=1.0),
    ]
