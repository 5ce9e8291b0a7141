"""Does a CenterLoss training step cost more with more classes? 100 000 against 240."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from benchmarks.timing import side_by_side
from lossviz.layers import CenterLoss

FEATURES, BATCH = 128, 256
AT_MOST = 1.3  # times the step with few classes


def measure(tiny: bool = False) -> dict[str, Any]:
    few, many = (3, 30) if tiny else (240, 100_000)
    settings = {"pairs": 2, "warm_up": 1} if tiny else {"pairs": 60, "warm_up": 5}
    rng = np.random.default_rng(0)
    batch = [rng.normal(size=(BATCH, FEATURES)).astype("float32"), rng.integers(0, few, BATCH).astype("int32")]

    def step(classes: int):
        model = model_with(classes)
        return lambda: model.train_on_batch(batch)

    what = f"CenterLoss step, {many} classes × {FEATURES} features, batch {BATCH}"
    return side_by_side(what, step(many), f"the same with {few} classes", step(few), AT_MOST, **settings)


def model_with(classes: int) -> keras.Model:
    """A layer of features with a center loss and nothing else, so that the step is the loss."""
    inputs, labels = keras.Input((FEATURES,)), keras.Input((), dtype="int32")
    features = keras.layers.Dense(FEATURES)(inputs)
    model = keras.Model([inputs, labels], CenterLoss(classes)(features, labels))
    model.compile("sgd")
    return model
