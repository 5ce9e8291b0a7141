"""Which class is the true one at each position, read off the targets; and where arrays stop being finite."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

#: The label of positions without a class: an all-zero row, or a label outside the range, such as an ignored one.
NO_CLASS = "(no class)"


def true_classes(
    target: np.ndarray, shape: tuple[int, ...], channels: Sequence[Hashable], axis: int = -1
) -> tuple[np.ndarray, tuple[Hashable, ...]] | None:
    """The true class of each position, and what the classes are called; None where targets are not classes.

    Args:
        target: y_true: one-hot rows, several 0/1 channels (the first 1 counts), rows that sum to 1 (the largest
            counts), integers, or one column of 0 and 1.
        shape: the shape of the predictions.
        channels: what the positions along their class axis are called.
        axis: which axis that is.

    Returns:
        `(classes, labels)`: integers of the predictions' shape without its class axis, and the labels of 0, 1, ...
        If there are positions without a class, the last label is "(no class)".
    """
    count = len(channels)
    if first_nonfinite(target) is not None:
        return None
    if axis % max(len(shape), 1) != len(shape) - 1:
        if target.ndim == len(shape):
            target = np.moveaxis(target, axis, -1)
        shape = (*np.delete(shape, axis).tolist(), shape[axis])
    positions = shape[:-1] if len(shape) > 1 else shape
    if count > 1 and target.shape == shape and len(shape) > 1:
        binary = np.all((target == 0) | (target == 1))
        if not (binary or _are_distributions(target)):
            return None
        return _with_rest(*_largest(target, bool(binary)), channels)
    if count == 1 and math.prod(target.shape) == math.prod(shape):
        if not np.all((target == 0) | (target == 1)):
            return None
        return target.reshape(positions).astype(int), (0, 1)
    if target.shape in (positions, (*positions, 1)) and np.all(target == np.round(target)):
        classes = target.reshape(positions).astype(int)
        return _with_rest(classes, (classes >= 0) & (classes < count), channels)
    return None


def first_nonfinite(array: np.ndarray | None) -> tuple[int, ...] | None:
    """Index of the first NaN or infinity, or None."""
    if array is None or array.dtype.kind not in "fc":
        return None
    bad = ~np.isfinite(array)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)) if bad.any() else None


def _with_rest(classes: np.ndarray, known: np.ndarray, channels: Sequence[Hashable]):
    if np.all(known):
        return classes, tuple(channels)
    return np.where(known, classes, len(channels)), (*channels, NO_CLASS)


def _largest(rows: np.ndarray, binary: bool) -> tuple[np.ndarray, np.ndarray]:
    """Where the first largest number of each row is, and whether it is above 0."""
    if binary and rows.dtype in (np.float32, np.float64):
        ones = rows @ np.ones(rows.shape[-1], rows.dtype)
        if np.all(ones <= 1):  # one product of matrices gives the same as `argmax`, in a fraction of its time
            return (rows @ np.arange(rows.shape[-1], dtype=rows.dtype)).astype(int), ones > 0
    places = np.argmax(rows, axis=-1)
    return places, np.take_along_axis(rows, places[..., None], axis=-1)[..., 0] > 0


def _are_distributions(rows: np.ndarray) -> bool:
    return bool(np.all(rows >= 0) and np.allclose(np.sum(rows, axis=-1), 1, atol=1e-3))
