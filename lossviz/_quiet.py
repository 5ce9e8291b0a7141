"""Import TensorFlow and Keras without the lines that TensorFlow's C++ code writes to stderr."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


def import_tensorflow() -> None:
    """Import keras (and TensorFlow, if that is its backend) with file descriptor 2 muted, unless it was done before.

    The messages come from C++, some with the first operation, so Python's warnings and logging do not reach them.
    """
    if "keras" in sys.modules and "tensorflow" in sys.modules:
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


@contextlib.contextmanager
def retracing() -> Iterator[None]:
    """While open, TensorFlow does not warn about tracing again, which `explain` does on purpose."""
    logger = logging.getLogger("tensorflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
