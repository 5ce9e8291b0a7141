"""Models that nobody wrote: layers, outputs, losses, weights and masks drawn from a seed, the same on every backend.

Run as a script, this prints what `explain` tells of the models of some seeds, one line each.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from models import told

import lossviz

N = 6
L = keras.losses

OWN: dict[str, Callable] = {
    "quantile": lambda y, p: ops.mean(ops.maximum(0.3 * (y - p), -0.7 * (y - p)), axis=-1),
    "root": lambda y, p: ops.sqrt(ops.mean(ops.square(y - p), axis=-1)),
    "sum": lambda y, p: ops.sum(ops.abs(y - p), axis=-1),
    "scalar": lambda y, p: ops.mean(ops.square(y - p)),
    "elements": lambda y, p: ops.square(y - p),
    "weighted": lambda y, p: ops.einsum("...c,c->...", ops.square(y - p), ops.arange(1.0, 1.0 + p.shape[-1])),
    "steps": lambda y, p: ops.sum(ops.abs((y - p)[..., 1:] - (y - p)[..., :-1]), axis=-1) + ops.mean(p, axis=-1),
    "cumulative": lambda y, p: ops.mean(ops.abs(ops.cumsum(y - p, axis=-1)), axis=-1),
    "ratio": lambda y, p: 1 - ops.sum(y * p) / (ops.sum(ops.square(y)) + ops.sum(ops.square(p))),
}


class Adds(layers.Layer):
    def call(self, x):
        self.add_loss(0.1 * ops.mean(ops.square(x)))
        return x


def model_of(seed: int) -> tuple[keras.Model, Any, Any, Any]:
    """A compiled model, x, y and sample weights."""
    rng = np.random.default_rng(seed)
    keras.utils.set_random_seed(seed)
    x, hidden, data = _body(rng)
    several = 1 + (rng.random() < 0.3)
    heads = [_head(rng, hidden, f"o{k}") for k in range(several)]
    outputs, losses, targets, weights = (list(one) for one in zip(*heads))
    if rng.random() < 0.2:
        outputs[0] = Adds(name="added")(outputs[0])
    model = keras.Model(x, outputs if several > 1 else outputs[0])
    drawn = [(weight.path, rng.normal(0, 0.5, weight.shape)) for weight in model.weights]
    model.set_weights([abs(array) if "variance" in path else array for path, array in drawn])
    factors = rng.choice([1.0, 0.5, 2.0], several).tolist()
    if several == 1:
        model.compile("sgd", losses[0], jit_compile=False)
        return model, data, targets[0], weights[0]
    model.compile("sgd", losses, loss_weights=factors, jit_compile=False)
    return model, data, targets, None if all(weight is None for weight in weights) else weights


def _body(rng) -> tuple[Any, Any, np.ndarray]:
    kind = rng.choice(["rows", "steps", "words", "images"])
    if kind == "words":
        data = rng.integers(1, 9, (N, 7))
        data[:3, 4:] = 0
        x = keras.Input((7,), dtype="int32")
        hidden = layers.Embedding(9, 4, mask_zero=bool(rng.random() < 0.6))(x)
        return x, _one(rng, [layers.LSTM(4, return_sequences=True), layers.GRU(4), layers.Dense(3)])(hidden), data
    shape = {"rows": (5,), "steps": (7, 3), "images": (8, 8, 3)}[kind]
    data = rng.normal(size=(N, *shape)).astype("float32")
    x = hidden = keras.Input(shape)
    if kind == "steps":
        data[:3, 4:] = 0
        hidden = layers.Masking()(x) if rng.random() < 0.5 else x
    for _ in range(rng.integers(1, 3)):
        hidden = _one(rng, _LAYERS[kind]())(hidden)
    if kind != "rows" and rng.random() < 0.3:
        pool = layers.GlobalAveragePooling1D if kind == "steps" else layers.GlobalAveragePooling2D
        hidden = pool()(hidden)
    return x, hidden, data


_LAYERS = {
    "rows": lambda: [
        *(layers.Dense(4, name) for name in ("relu", "tanh", "gelu", "selu", "softplus")),
        *(layers.LayerNormalization(), layers.BatchNormalization(), layers.Dropout(0.3), layers.PReLU()),
        layers.ActivityRegularization(0.01),
    ],
    "steps": lambda: [
        *(layers.LSTM(4, return_sequences=True), layers.GRU(3, return_sequences=True), layers.Dense(4, "relu")),
        layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
        *(layers.TimeDistributed(layers.Dense(4, "tanh")), layers.LayerNormalization(), layers.SpatialDropout1D(0.2)),
    ],
    "images": lambda: [
        *(layers.Conv2D(4, 3, padding="same", activation="relu"), layers.SeparableConv2D(4, 3, padding="same")),
        *(layers.DepthwiseConv2D(3, padding="same"), layers.BatchNormalization(), layers.GroupNormalization(1)),
        *(layers.Rescaling(0.5), layers.UpSampling2D(), layers.MaxPooling2D()),
    ],
}


def _head(rng, hidden, name: str) -> tuple[Any, Any, np.ndarray, np.ndarray | None]:
    """An output, a loss that fits it, targets and weights."""
    kind, classes = rng.choice(["softmax", "sigmoid", "numbers"]), int(rng.integers(2, 5))
    activation = "linear" if kind == "numbers" else str(kind)
    penalty = _one(rng, ["l2", None])
    output = layers.Dense(classes, activation, kernel_regularizer=penalty, name=name)(hidden)
    shape = (N, *output.shape[1:])
    how = {"reduction": _one(rng, ["sum_over_batch_size", "sum", "mean_with_sample_weight"])}
    labels = rng.integers(0, classes, shape[:-1])
    if kind == "softmax":
        y = np.eye(classes, dtype="float32")[labels]
        loss = _one(
            rng, [L.CategoricalCrossentropy(**how), L.KLDivergence(**how), L.CategoricalFocalCrossentropy(**how)]
        )
        if rng.random() < 0.3:
            y, loss = labels, L.SparseCategoricalCrossentropy(ignore_class=_one(rng, [None, 0]), **how)
    elif kind == "sigmoid":
        y = rng.integers(0, 2, shape).astype("float32")
        loss = _one(rng, [L.BinaryCrossentropy(**how), L.BinaryCrossentropy(label_smoothing=0.2), L.Dice(), "mse"])
    else:
        y = rng.normal(size=shape).astype("float32")
        built_in = [L.MeanSquaredError(**how), L.Huber(**how), L.LogCosh(**how), L.CosineSimilarity(**how)]
        loss = _one(rng, [*built_in, *OWN.values()])
    per_sample = rng.random((N, *(1 for _ in shape[1:-1])))
    weight = _one(rng, [None, None, per_sample, rng.random(shape[:-1])])
    return output, loss, y, None if weight is None else weight.astype("float32")


def _one(rng, choices: list) -> Any:
    return choices[rng.integers(len(choices))]


def of_seed(seed: int) -> dict[str, Any]:
    """What `explain` tells of the model, and what Keras says."""
    model, x, y, weight = model_of(seed)
    said = model.test_on_batch(x, y, sample_weight=weight, return_dict=True)["loss"]
    report = lossviz.explain(model, x, y, sample_weight=weight)
    found = told(report)
    for term in report.terms:
        found["terms"][term.name] |= {"kind": term.kind, "exactness": term.exactness}
    numbers = {"said": float(said), "total": report.total, "magnitude": report.magnitude, "adds_up": report.adds_up}
    return {**found, **numbers}


if __name__ == "__main__":
    for number in map(int, sys.argv[1:]):
        print(json.dumps(of_seed(number)), flush=True)
