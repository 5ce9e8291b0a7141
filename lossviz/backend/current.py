"""The backend that Keras runs on. It is decided when Keras is first imported, and stays."""

from __future__ import annotations

import keras

from lossviz.backend.backend import Backend


def _current() -> Backend:
    name = keras.backend.backend()
    if name == "tensorflow":
        from lossviz.backend.tensorflow_backend import TensorFlow

        return TensorFlow()
    if name == "jax":
        from lossviz.backend.jax_backend import Jax

        return Jax()
    raise RuntimeError(f"lossviz reads losses on TensorFlow and on JAX, and Keras runs on {name!r} here.")


BACKEND = _current()
