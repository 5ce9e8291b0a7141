"""Tiny models and data for the tests of `explain`: deterministic, and named so that reports are readable."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers

KERAS = tuple(map(int, keras.__version__.split(".")[:2]))

#: Keras 3.13 leaves what an activity regulariser returns undivided; 3.14 divides it by the batch (measured in both).
DIVIDES_ACTIVITY = KERAS >= (3, 14)

#: Tests of what TensorFlow alone has or does are left out on other backends.
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
only_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="TensorFlow's own")


def on_another_backend(code: str, name: str = "torch") -> str:
    """What the code prints in a process of its own, in which Keras is a stub that runs on this backend, and there is no
    TensorFlow."""
    stub = f"""
        import sys, types
        sys.modules["tensorflow"] = None  # importing it fails
        keras = sys.modules["keras"] = types.ModuleType("keras")
        keras.backend = types.SimpleNamespace(backend=lambda: {name!r})
        keras.callbacks, keras.ops = types.SimpleNamespace(Callback=object), None
    """
    command = [sys.executable, "-c", textwrap.dedent(stub) + textwrap.dedent(code)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def inputs(*shape: int) -> np.ndarray:
    """Normal numbers, float32."""
    return np.random.default_rng([1, *shape]).normal(size=shape).astype("float32")


def targets(*shape: int) -> np.ndarray:
    """Normal numbers, float32; others than `inputs` of the same shape."""
    return np.random.default_rng([2, *shape]).normal(size=shape).astype("float32")


def weights(*shape: int) -> np.ndarray:
    """Numbers between 0 and 1, float32."""
    return np.random.default_rng([3, *shape]).random(size=shape).astype("float32")


def labels(*shape: int, classes: int) -> np.ndarray:
    """Integers from 0 to classes - 1, each class at least once where there is room."""
    numbers = np.arange(np.prod(shape)) % classes
    return np.random.default_rng([4, *shape]).permutation(numbers).reshape(shape)


def onehot(*shape: int, classes: int) -> np.ndarray:
    """`labels` as float32 rows."""
    return np.eye(classes, dtype="float32")[labels(*shape, classes=classes)]


def dense(
    out: int = 3, activation: str | None = None, *, take: int = 4, kind: type = keras.Model, **more
) -> keras.Model:
    """One dense layer, called "o"; `kind` is the class of the model."""
    x = keras.Input((take,))
    return kind(x, layers.Dense(out, activation=activation, name="o", **more)(x))


def sequence(out: int = 3, activation: str | None = None, *, masked: bool = False, steps: int = 5) -> keras.Model:
    """A dense layer "o" at every step, behind Masking if `masked`."""
    x = keras.Input((steps, 4))
    hidden = layers.Masking()(x) if masked else x
    return keras.Model(x, layers.TimeDistributed(layers.Dense(out, activation=activation), name="o")(hidden))


def pixels(out: int = 5, activation: str | None = None, *, size: int = 4) -> keras.Model:
    """A 1x1 convolution "o" on images of 3 channels."""
    x = keras.Input((size, size, 3))
    return keras.Model(x, layers.Conv2D(out, 1, activation=activation, name="o")(x))


def two_outputs(kind: type = keras.Model, as_dict: bool = False) -> keras.Model:
    """Outputs "a", of 3 numbers, and "b", of 2 classes."""
    x = keras.Input((4,))
    a, b = layers.Dense(3, name="a")(x), layers.Dense(2, activation="softmax", name="b")(x)
    return kind(x, {"a": a, "b": b} if as_dict else [a, b])


def compiled(model: keras.Model, loss=None, **more) -> keras.Model:
    """The model compiled without XLA, which would take longer than all the rest of a test."""
    model.compile(loss=loss, **{"jit_compile": False, **more})
    return model


def told(report) -> dict:
    """What of a report is the same on every backend: steps and shares of each term, and findings."""
    terms = {}
    for term in report.terms:
        axes = dict.fromkeys(axis for part in term.parts for axis in part.axes)
        terms[term.name] = {
            "steps": [[step.text for step in part.steps] for part in term.parts],
            "shares": {axis: list(term.by(axis).values()) for axis in axes},
        }
    findings = [[finding.rule, finding.where, finding.severity] for finding in report.findings]
    return {"terms": terms, "findings": findings}


def believe(monkeypatch, word: str, linear: str | None = None) -> None:
    """Have the engine take the operations that TensorFlow calls so for linear: in their first input, if not told
    otherwise."""
    from lossviz.engine import ops

    honest = ops.linear_in
    monkeypatch.setattr(ops, "linear_in", lambda op: (linear or ops.FIRST) if op.word == word else honest(op))
