"""Does a CenterLoss training step cost more with more classes? 100 000 classes against 240, side by side.

    python benchmarks/center_loss.py

Both models take turns, one `train_on_batch` each, after a warm-up that compiles them; the ratio is taken pair by pair,
so a machine that grows slower in the meantime slows both. Prints the medians and the ratio with its quartiles, and
writes them with device and versions to benchmarks/results/center_loss.json. The aim is a ratio of at most 1.3.
"""

import json
import platform
import time
from pathlib import Path

import keras
import numpy as np

from lossviz.layers import CenterLoss

FEATURES, BATCH, PAIRS, WARM_UP = 128, 256, 60, 5
CLASSES = (240, 100_000)
AIM = 1.3


def model_with(classes: int) -> keras.Model:
    """A layer of features with a center loss and nothing else, so that the step is the loss."""
    inputs, labels = keras.Input((FEATURES,)), keras.Input((), dtype="int32")
    features = keras.layers.Dense(FEATURES)(inputs)
    model = keras.Model([inputs, labels], CenterLoss(classes)(features, labels))
    model.compile("sgd")
    return model


def main() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH, FEATURES)).astype("float32")
    labels = rng.integers(0, min(CLASSES), BATCH).astype("int32")
    models = [model_with(classes) for classes in CLASSES]
    seconds: list[list[float]] = [[], []]
    for turn in range(WARM_UP + PAIRS):
        for model, times in zip(models, seconds, strict=True):
            start = time.perf_counter()
            model.train_on_batch([x, labels])
            if turn >= WARM_UP:
                times.append(time.perf_counter() - start)
    few, many = np.array(seconds) * 1000
    low, middle, high = np.percentile(many / few, [25, 50, 75])
    result = {
        "what": f"one training step, batch {BATCH}, {FEATURES} features, {PAIRS} pairs",
        "milliseconds": {str(classes): round(float(np.median(t)), 3) for classes, t in zip(CLASSES, (few, many))},
        "ratio": {"median": round(middle, 3), "quartiles": [round(low, 3), round(high, 3)], "aim": AIM},
        "met": bool(middle <= AIM),
        "device": f"{platform.machine()} CPU",
        "versions": {"keras": keras.__version__, "backend": keras.backend.backend(), "numpy": np.__version__},
    }
    path = Path(__file__).parent / "results" / "center_loss.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
