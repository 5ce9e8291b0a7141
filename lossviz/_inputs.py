"""What `losses` and `layers` take and refuse. An error names the argument, what it got, and the way out."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

#: How far a probability may be outside [0, 1]: beyond the rounding of half precision, far below a logit.
SLACK = 1e-2


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> Any:
    """`value`, which must be one of `allowed`."""
    if not any(value is choice or (isinstance(value, str) and value == choice) for choice in allowed):
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}.")
    return value


def number(name: str, value: Any, low: float = 0.0, high: float = math.inf, above: bool = False) -> float:
    """`value` as a finite float in [low, high], or in (low, high] with `above`."""
    wanted = f"a finite number {'above' if above else 'of at least'} {low:g}"
    if high < math.inf:
        wanted = f"a number from {low:g} to {high:g}"
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    if not (math.isfinite(result) and low <= result <= high) or (above and result == low):
        raise ValueError(f"{name} must be {wanted}, got {value!r}.")
    return result


def whole(name: str, value: Any, low: int) -> int:
    """`value` as an int of at least `low`."""
    try:
        result = operator.index(value)
    except TypeError:
        result = low - 1
    if isinstance(value, bool) or result < low:
        raise ValueError(f"{name} must be a whole number of at least {low}, got {value!r}.")
    return result


def class_weights(value: Any) -> tuple[float, ...] | None:
    """One weight a class as floats; None where there are none."""
    if value is None:
        return None
    if isinstance(value, Mapping):
        raise ValueError(
            f"class_weights is a dictionary, {value!r}; it must be one number a class in the order of the channels "
            "(a dictionary that is taken for a list gives its keys). Pass [weights[c] for c in range(classes)]."
        )
    if isinstance(value, str) or np.ndim(value) != 1 or len(value) == 0:
        raise ValueError(f"class_weights must be a list of one number a class, or None, got {value!r}.")
    return tuple(number(f"class_weights[{index}]", weight) for index, weight in enumerate(value))


def class_indices(name: str, value: Any) -> tuple[int, ...]:
    """Different class indices as ints."""
    if np.ndim(value) != 1:
        raise ValueError(f"{name} must be a tuple of class indices, such as (0,), or () for none, got {value!r}.")
    result = tuple(whole(f"{name}[{position}]", index, 0) for position, index in enumerate(value))
    if len(set(result)) < len(result):
        raise ValueError(f"{name} names a class twice: {value!r}. Name each class once.")
    return result


def same_shape(y_true: Any, y_pred: Any, layout: str, rank: int) -> int:
    """The size of the last axis of two tensors that must have one shape, of `rank` axes or more."""
    true, pred = tuple(y_true.shape), tuple(y_pred.shape)
    fits = len(true) == len(pred) and all(None in (a, b) or a == b for a, b in zip(true, pred))
    if not fits or len(pred) < rank or pred[-1] is None:
        hint = ""
        if len(true) == len(pred) - 1 or (len(true) == len(pred) and true[-1] == 1 != pred[-1]):
            hint = f" For class indices pass keras.ops.one_hot(y_true, {pred[-1]})."
        raise ValueError(f"y_true and y_pred must both have shape {layout}, got {true} and {pred}.{hint}")
    return pred[-1]


def concrete(value: Any) -> np.ndarray | None:
    """The numbers of a tensor; None while a step is being compiled, when there are none yet."""
    if keras.backend.backend() == "tensorflow" and not hasattr(value, "numpy"):
        return None
    try:
        return keras.ops.convert_to_numpy(value)
    except (NotImplementedError, TypeError, ValueError, RuntimeError):
        return None


def unit_interval(name: str, value: Any, why: str) -> None:
    """Raise where numbers that must lie in [0, 1] do not; nothing is known while a step is compiled."""
    numbers = concrete(value)
    if numbers is None or not numbers.size:
        return
    low, high = float(np.min(numbers)), float(np.max(numbers))
    if low < -SLACK or high > 1 + SLACK:  # False for NaN, which the loss then shows
        raise ValueError(f"{name} must lie in [0, 1], got values from {low:g} to {high:g}: {why}")


def wide(values: Any) -> Any:
    """Half precision as float32, everything else as it is."""
    half = keras.backend.standardize_dtype(values.dtype) in ("float16", "bfloat16")
    return keras.ops.cast(values, "float32") if half else values
