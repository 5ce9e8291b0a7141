"""One call at a time.

While `lossviz` traces, TensorFlow runs functions eagerly and Keras's crossentropies are recorded, in the whole
process; and a model is put back as it was afterwards. Two calls at once would undo each other's.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

#: Held by every call that traces or replaces something; one call may make others.
lock = threading.RLock()

_depth = threading.local()


def serial(function: Callable[P, R]) -> Callable[P, R]:
    """The function, of which only one call runs at a time in this process; another thread waits."""

    @functools.wraps(function)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        with lock:
            _depth.calls = getattr(_depth, "calls", 0) + 1
            try:
                return function(*args, **kwargs)
            finally:
                _depth.calls -= 1

    return alone


def running() -> bool:
    """Is this thread inside a call of `lossviz`?"""
    return getattr(_depth, "calls", 0) > 0
