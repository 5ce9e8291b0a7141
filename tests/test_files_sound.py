"""Sound models of every kind load from a file as they were: the same predictions, the same compiled loss."""

import importlib
import sys

import keras
import numpy as np
import pytest
from keras import layers
from models import compiled, dense, inputs, two_outputs

import lossviz
from lossviz.files import Limits, Refused, load_model

x4, x54, image = inputs(3, 4), inputs(3, 5, 4), inputs(2, 8, 8, 3)
words = np.array([[1, 2, 0], [3, 0, 0]])


def functional(shape, *stack, dtype=None):
    out = entry = keras.Input(shape, dtype=dtype)
    for layer in stack:
        out = layer(out)
    return keras.Model(entry, out)


def operations():
    entry = keras.Input((4,))
    out = keras.ops.concatenate([entry * 2 + 1, keras.ops.exp(-entry)[:, :2]], axis=-1)
    out = keras.ops.where(out > 0, out, keras.ops.relu(keras.ops.transpose(out, (0, 1))))
    out = keras.ops.clip(out, -3.0, 3.0) + np.arange(6, dtype="float32")
    return keras.Model(entry, keras.ops.matmul(out, keras.ops.ones((6, 2))))


def shared_and_nested():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, "relu")], name="inner")
    entry = keras.Input((4,))
    return keras.Model(entry, layers.Add()([inner(entry), inner(inner(entry))]))


def lora():
    model = dense()
    model.get_layer("o").enable_lora(2)
    model.get_layer("o").lora_kernel_b.assign(inputs(2, 3))
    return model


def quantized():
    model = dense()
    model(x4)
    model.quantize("int8")
    return model


def endpoint():
    entry, target = keras.Input((4,)), keras.Input((3,))
    out = layers.Dense(3)(entry)
    out = lossviz.layers.LossEndpoint("mean_squared_error", "end")(target, out)
    return keras.Model([entry, target], out)


def looked_up():
    lookup = layers.StringLookup(output_mode="one_hot")
    lookup.adapt(np.array(["a", "b", "b"]))
    return functional((1,), lookup, layers.Dense(2), dtype="string")


def vectorized():
    text = layers.TextVectorization(output_sequence_length=3)
    text.adapt(np.array(["a b", "b"]))
    return functional((1,), text, layers.Embedding(5, 2), layers.Flatten(), dtype="string")


def normalized():
    layer = layers.Normalization()
    layer.adapt(x4)
    return functional((4,), layer, layers.Dense(1))


def everything_of_dense():
    return functional(
        (4,),
        layers.Dense(
            3, keras.activations.gelu, kernel_initializer=keras.initializers.HeNormal(1), kernel_regularizer="l2",
            bias_regularizer=keras.regularizers.L1(0.1), activity_regularizer=keras.regularizers.L1L2(0.1, 0.2),
            kernel_constraint=keras.constraints.MaxNorm(2), bias_initializer=keras.initializers.Constant(0.5),
        ),
        layers.Dense(2, keras.ops.tanh), layers.Activation(keras.ops.silu), layers.Dropout(0.1, seed=1),
    )  # fmt: skip


MODELS = {
    "functional": (dense, x4),
    "sequential": (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(2)]), x4),
    "outputs as a list": (two_outputs, x4),
    "outputs by name": (lambda: two_outputs(as_dict=True), x4),
    "operations": (operations, x4),
    "shared and nested": (shared_and_nested, x4),
    "arguments of Dense": (everything_of_dense, x4),
    "masking, recurrent": (
        lambda: functional(
            (5, 4), layers.Masking(), layers.Bidirectional(layers.LSTM(3, return_sequences=True)), layers.GRU(2)
        ),
        x54,
    ),
    "embedding with a mask": (
        lambda: functional((3,), layers.Embedding(5, 4, mask_zero=True), layers.LSTM(2), dtype="int32"),
        words,
    ),
    "cells": (lambda: functional((5, 4), layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)])), x54),
    "time distributed": (lambda: functional((5, 4), layers.TimeDistributed(layers.Dense(2))), x54),
    "attention": (
        lambda: functional((5, 4), lambda t: layers.MultiHeadAttention(2, 3)(t, t), layers.LayerNormalization()),
        x54,
    ),
    "convolutions": (
        lambda: functional(
            (8, 8, 3), layers.RandomFlip(seed=1), layers.Rescaling(0.5), layers.Conv2D(4, 3, padding="same"),
            layers.BatchNormalization(), layers.GroupNormalization(2), layers.ReLU(), layers.MaxPooling2D(),
            layers.SpatialDropout2D(0.2), layers.Conv2DTranspose(2, 2, strides=2), layers.UpSampling2D(),
            layers.SpectralNormalization(layers.Conv2D(2, 1)), layers.GlobalAveragePooling2D(),
        ),
        image,
    ),
    "mixed precision": (lambda: functional((4,), layers.Dense(3, dtype="mixed_float16")), x4),
    "mixed_bfloat16": (lambda: functional((4,), layers.Dense(3, dtype=keras.DTypePolicy("mixed_bfloat16"))), x4),
    "LoRA": (lora, x4),
    "int8": (quantized, x4),
    "LossEndpoint": (endpoint, [x4, inputs(3, 3)]),
    "StringLookup with its own vocabulary": (looked_up, np.array([["a"], ["c"]], dtype=object)),
    "TextVectorization with its own vocabulary": (vectorized, np.array([["a b"], ["c"]], dtype=object)),
    "Normalization": (normalized, x4),
}  # fmt: skip

COMPILED = {
    "names": {"optimizer": "adam", "loss": "mse", "metrics": ["mae", "accuracy"]},
    "objects": {
        "optimizer": keras.optimizers.AdamW(keras.optimizers.schedules.CosineDecay(0.1, 10), clipnorm=1.0),
        "loss": keras.losses.Huber(0.5),
        "metrics": [keras.metrics.RootMeanSquaredError(), keras.metrics.MeanMetricWrapper(keras.losses.log_cosh)],
        "weighted_metrics": [keras.metrics.MeanSquaredError()],
    },
    "functions": {"optimizer": keras.optimizers.SGD(0.1), "loss": keras.losses.cosine_similarity, "metrics": ["mape"]},
    "a scaled loss": {"optimizer": keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam()), "loss": ["mse"]},
    "LandmarkLoss": {"loss": lossviz.losses.LandmarkLoss(1, "mse", epsilon=0.5)},
    "SegmentationCrossentropy": {"loss": lossviz.losses.SegmentationCrossentropy(class_weights=[1, 2, 3])},
    "SegmentationTversky": {"loss": lossviz.losses.SegmentationTversky(0.3, 0.7)},
    "BinaryCrossentropyDice": {"loss": lossviz.losses.BinaryCrossentropyDice()},
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_sound_model_loads_as_it_was(kind, tmp_path):
    build, x = MODELS[kind]
    model = build()
    compiled(model, "mse")
    before = model(x)
    model.save(tmp_path / "sound.keras")
    loaded = load_model(tmp_path / "sound.keras", Limits())
    assert type(loaded) is type(model) and loaded.compiled
    for one, other in zip(keras.tree.flatten(before), keras.tree.flatten(loaded(x)), strict=True):
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sound.keras"]


@pytest.mark.parametrize("kind", COMPILED)
def test_what_a_model_is_compiled_with_loads_too(kind, tmp_path):
    model = compiled(dense(), **COMPILED[kind])
    model.save(tmp_path / "sound.keras")
    loaded = load_model(tmp_path / "sound.keras", Limits())
    assert loaded.get_compile_config() == model.get_compile_config()


def test_a_model_of_ones_own_loads_with_its_module_and_without_it_does_not(tmp_path, monkeypatch):
    (tmp_path / "their_module.py").write_text(
        "import keras\nregister = keras.saving.register_keras_serializable('theirs')\n"
        "@register\nclass Mine(keras.Model):\n"
        "    def __init__(self, **more):\n        super().__init__(**more)\n        self.d = keras.layers.Dense(3)\n"
        "    def build(self, shape):\n        self.d.build(shape)\n"
        "    def call(self, x):\n        return self.d(x)\n"
        "@register\ndef my_loss(y_true, y_pred):\n    return keras.ops.abs(y_true - y_pred)\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("their_module")
    model = compiled(module.Mine(), module.my_loss)
    before = model(x4)
    model.save("mine.keras")
    with pytest.raises(Refused, match="needs class 'Mine', which is no part of Keras"):
        load_model(tmp_path / "mine.keras", Limits())
    loaded = load_model(tmp_path / "mine.keras", Limits(), ["their_module"])
    np.testing.assert_array_equal(before, loaded(x4))
    assert loaded.loss is module.my_loss
    with pytest.raises(Refused, match="needs class 'Mine'"):  # the permission was for that call
        load_model(tmp_path / "mine.keras", Limits())
    assert "theirs>Mine" in keras.saving.get_custom_objects()  # and Keras still knows it
    del sys.modules["their_module"]
