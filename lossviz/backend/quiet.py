"""Import TensorFlow and Keras without the lines that TensorFlow's C++ code writes to stderr."""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import sys
from collections.abc import Iterator, MutableMapping

#: The backends of Keras whose losses can be read.
BACKENDS = ("tensorflow", "jax")


def import_tensorflow() -> None:
    """Import keras (and TensorFlow, if that is its backend) with file descriptor 2 muted, unless it was done before.

    The messages come from C++, some with the first operation, so Python's warnings and logging do not reach them.
    """
    if "keras" in sys.modules and (os.environ.get("KERAS_BACKEND") == "jax" or "tensorflow" in sys.modules):
        return
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        import keras

        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            tf.constant(0.0) + 1.0
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def require_backend(who: str) -> None:
    """Import Keras and its backend quietly; RuntimeError, in the name of `who`, where that is none that we can read."""
    import_tensorflow()
    import keras

    if (name := keras.backend.backend()) not in BACKENDS:
        raise RuntimeError(
            f"{who} reads the graphs of TensorFlow and JAX, and Keras runs on {name!r} here. Set "
            "KERAS_BACKEND=tensorflow or KERAS_BACKEND=jax before the first `import keras` (the number is the same on "
            "every backend up to rounding, where Keras computes the same)."
        )


@contextlib.contextmanager
def retracing() -> Iterator[None]:
    """While open, TensorFlow does not warn about tracing again, which `explain` does on purpose; nor does it count
    these traces, or it would warn of the caller's own ones earlier."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    detectors = _tracing_detectors()
    before = {code: copy.deepcopy(detector) for code, detector in detectors.items()}
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
        detectors.clear()
        detectors.update(before)


def _tracing_detectors() -> MutableMapping:
    """TensorFlow's count of recent traces, by the code of the function that is traced; empty where it has moved."""
    if "tensorflow" not in sys.modules:
        return {}
    with contextlib.suppress(ImportError, AttributeError):
        from tensorflow.python.eager.polymorphic_function import polymorphic_function

        return polymorphic_function._frequent_tracing_detector_manager._detectors
    return {}
