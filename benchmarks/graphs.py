"""Models with many operations and little data: what a call costs beside the numbers."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

VOCABULARY = 1000


def gpt(depth: int = 6, steps: int = 32, batch: int = 2, width: int = 128) -> tuple[keras.Model, Any, Any]:
    """A language model like GPT: causal attention, one class per word of the vocabulary."""
    words = keras.Input((steps,), dtype="int32")
    places = layers.Embedding(steps, width)(ops.arange(steps))
    x = layers.Embedding(VOCABULARY, width)(words) + places
    for _ in range(depth):
        normal = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(normal, normal, use_causal_mask=True)
        normal = layers.LayerNormalization()(x)
        x = x + layers.Dense(width)(layers.Dense(4 * width, activation="gelu")(normal))
    model = keras.Model(words, layers.Dense(VOCABULARY)(layers.LayerNormalization()(x)))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    text = np.random.default_rng(0).integers(0, VOCABULARY, (batch, steps + 1))
    return model, text[:, :-1].astype("int32"), text[:, 1:].astype("int32")


def masked_lstm(steps: int = 20, batch: int = 4, width: int = 32) -> tuple[keras.Model, Any, Any]:
    """An LSTM over padded words, with a class at each of them."""
    words = keras.Input((steps,), dtype="int32")
    x = layers.LSTM(width, return_sequences=True)(layers.Embedding(100, width, mask_zero=True)(words))
    model = keras.Model(words, layers.Dense(5, activation="softmax")(x))
    model.compile("adam", "sparse_categorical_crossentropy")
    random = np.random.default_rng(0)
    padded = random.integers(1, 100, (batch, steps)) * (np.arange(steps) < random.integers(3, steps, (batch, 1)))
    return model, padded.astype("int32"), random.integers(0, 5, (batch, steps))


def tcn(blocks: int = 8, steps: int = 64, batch: int = 4, width: int = 32) -> tuple[keras.Model, Any, Any]:
    """A temporal convolutional network: residual blocks of two causal convolutions, each dilated twice as far."""
    series = keras.Input((steps, 8))
    x = layers.Dense(width)(series)
    for block in range(blocks):
        before = x
        for _ in range(2):
            x = layers.Conv1D(width, 3, padding="causal", dilation_rate=2**block)(x)
            x = layers.SpatialDropout1D(0.1)(layers.ReLU()(layers.LayerNormalization()(x)))
        x = layers.ReLU()(layers.Add()([before, x]))
    model = keras.Model(series, layers.Dense(3)(x))
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    return model, random.normal(size=(batch, steps, 8)).astype("float32"), random.normal(size=(batch, steps, 3))


class WithSpare(keras.Model):
    """A few layers, and with `spare` one more that is never called, as many published models have."""

    def __init__(self, spare: bool):
        super().__init__()
        self.hidden = [layers.Dense(32, activation="relu") for _ in range(4)]
        self.last = layers.Dense(3)
        self.spare = layers.Dense(3) if spare else None

    def call(self, inputs):
        for layer in self.hidden:
            inputs = layer(inputs)
        return self.last(inputs)


def with_spare(spare: bool) -> tuple[keras.Model, Any, Any]:
    model = WithSpare(spare)
    model.compile("adam", "mse")
    random = np.random.default_rng(0)
    return model, random.normal(size=(8, 4)).astype("float32"), random.normal(size=(8, 3)).astype("float32")
