"""What `LossParts` costs: `fit` of a U-Net with it, progress bar and all, against the same `fit` without."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import tensorflow as tf

from benchmarks.compiled import gpu
from benchmarks.timing import side_by_side
from lossviz import LossParts, examples

BACKENDS = ("tensorflow",)
AT_MOST = 1.1  # times the step without it


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    batch, size, steps = (2, 16, 2) if tiny else (16, 256, 8) if gpu() else (8, 64, 4)
    settings = {"pairs": 2, "warm_up": 1} if tiny else {"pairs": 20, "warm_up": 2}
    data = tf.data.Dataset.from_tensors(examples.scenes(batch, size)).repeat()

    def fit(*callbacks: LossParts):
        model = examples.unet(size)
        model.compile("adam", "binary_crossentropy")

        def run() -> None:
            with contextlib.redirect_stdout(io.StringIO()):
                model.fit(data, steps_per_epoch=steps, callbacks=list(callbacks), shuffle=False)

        return run

    rows = {
        "LossParts()": LossParts(),
        "LossParts(per_class=True, per_batch=True)": LossParts(per_class=True, per_batch=True),
    }
    return [
        side_by_side(
            f"{steps} U-Net steps, {batch} × {size} × {size} × 5, {name}",
            fit(callback),
            "fit without it",
            fit(),
            AT_MOST,
            **settings,
        )
        for name, callback in rows.items()
    ]
