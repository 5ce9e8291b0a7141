"""The lowest value that a loss can have where the last operations of the model limit its predictions.

It is found without knowing the loss: where each prediction has a slope whose sign is its own, and the slope changes its
sign once from minus to plus, the lowest point of each lies where it does, or at an end of its range. That point is
found by halving. The size of the slope may depend on the others, as under a square root of a mean. Both conditions are
tested at points; where they do not hold (a cosine, a ratio, pairs of samples) nothing is claimed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.rules.bounds import Range
from lossviz.rules.evidence import Case, Output

#: Larger predictions are not searched: it would take long.
_LARGEST = 200_000
_HALVINGS = 60
_PRICES = 50
_DRAWS = 12


@dataclass(frozen=True)
class Floor:
    """`lowest`: what the loss can come to inside the range; `without`: without the limit; `reached`: can it get there,
    or only as near as you like?"""

    lowest: float
    without: float
    reached: bool


def floor(case: Case, out: Output, allowed: Range) -> Floor | None:
    """The floor of the output's loss, with its weights and mask, or None where it cannot be known."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    weight, mask = case.weight_and_mask(out)
    if out.loss is None or y_true.size != y_pred.size or y_true.dtype.kind not in "fiub" or y_pred.size > _LARGEST:
        return None
    if not np.all(np.isfinite(y_true.astype(np.float64))) or (weight is not None and np.any(weight < 0)):
        return None
    targets = y_true.reshape(y_pred.shape).astype(np.float64)
    ends = [end[np.isfinite(end)] for end in (allowed.low, allowed.high)]
    far = 4 * max(1.0, *(float(np.abs(a).max()) for a in (targets, y_pred, *ends) if a.size))
    with case.untouched():
        loss = OfPredictions(case, out, y_true, y_pred, weight, mask)
        low, high = (np.broadcast_to(np.clip(end, -far, far), y_pred.shape) for end in (allowed.low, allowed.high))
        infinite = [np.broadcast_to(np.isinf(end), y_pred.shape) for end in (allowed.low, allowed.high)]
        inside = loss.lowest(low, high, allowed.rows, infinite)
        everywhere = np.full(y_pred.shape, far)
        outside = loss.lowest(-everywhere, everywhere, False, [np.ones(y_pred.shape, bool)] * 2)
        if outside is None and targets.min() >= 0:  # a loss that takes a logarithm of the predictions, as of counts
            outside = loss.lowest(0 * everywhere, everywhere, False, [everywhere < 0, everywhere > 0])
        if inside is None or outside is None:
            return None
        lowest, point = inside
        without = min(outside[0], loss(targets)[0])
    touched = [
        bool(np.any(np.isclose(point, end) & np.isfinite(end) & loss.counts)) and never
        for end, never in ((allowed.low, allowed.open_low), (allowed.high, allowed.open_high))
    ]
    return Floor(lowest, without, not any(touched))


class OfPredictions:
    """The loss of an output as a function of its predictions alone, with its slopes."""

    def __init__(self, case: Case, out: Output, y_true, y_pred, weight=None, mask=None):
        run = case.once(("of predictions", out.name), lambda: case.loss.program.slopes(partial(_mean, out.loss)))
        mask = None if mask is None else mask.astype(bool)
        self.run = lambda point: run(y_true, point.astype(y_pred.dtype), weight, mask)
        self.counts = np.ones(y_pred.shape, bool)

    def __call__(self, point: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = self.run(point)
        return float(value), slope.astype(np.float64)

    def lowest(self, low, high, rows: bool, infinite) -> tuple[float, np.ndarray] | None:
        """The lowest value between the ends, and where; None where the tests fail."""
        slopes = self._tested(low, high)
        if slopes is None or np.any((slopes[0] > 0) & infinite[0]) or np.any((slopes[1] < 0) & infinite[1]):
            return None  # it falls on and on
        *slopes, own = slopes
        self.counts = np.any(np.stack(slopes) != 0, axis=0)
        if rows:
            return self._lowest_rows(low, high) if own else None
        point = self._halved(low, high, np.zeros(low.shape))
        if not own and not self._turns_at(point, low, high):
            return None
        return self._checked(self(point)[0], point, low, high)

    def _turns_at(self, point, low, high) -> bool:
        """Does every prediction, wherever the others are, fall towards `point` and rise behind it?"""
        rng = np.random.default_rng(2)
        for _ in range(_DRAWS):
            other = low + rng.random(low.shape) * (high - low)
            slope = self(other)[1]
            slack = 1e-6 * np.max(np.abs(slope))
            if not np.all(np.isfinite(slope)) or np.any(np.sign(other - point) * slope < -slack):
                return False
        return True

    def _tested(self, low, high) -> tuple[np.ndarray, np.ndarray, bool] | None:
        """The slopes at both ends, if each prediction's turns once, and whether it is the prediction's own."""
        parts = (0.0, 1.0, 1e-3, 0.2, 0.5, 0.7, 0.999)
        points = {part: low + part * (high - low) for part in parts}
        slopes = {part: self(point)[1] for part, point in points.items()}
        if not all(np.all(np.isfinite(slope)) for slope in slopes.values()):
            return None
        order = np.stack([slopes[part] for part in sorted(parts)])
        size = np.max(np.abs(order), axis=0)
        if np.any((np.maximum.accumulate(order, axis=0) > 1e-6 * size) & (order < -1e-6 * size)):
            return None
        rng, alone = np.random.default_rng(0), True
        for _ in range(2):
            drawn = rng.choice(parts, low.shape)
            mixed = self(np.choose(np.vectorize(parts.index)(drawn), [points[part] for part in parts]))[1]
            own = np.choose(np.vectorize(parts.index)(drawn), [slopes[part] for part in parts])
            alone &= np.allclose(mixed, own, rtol=1e-3, atol=1e-6 * (np.max(size) + 1e-30))
        return slopes[0.0], slopes[1.0], alone

    def _halved(self, low, high, price: np.ndarray) -> np.ndarray:
        """Where each slope, less the price, changes its sign."""
        left, right = low.astype(np.float64).copy(), high.astype(np.float64).copy()
        at_low, at_high = self(left)[1] > price, self(right)[1] < price
        for _ in range(_HALVINGS):
            middle = 0.5 * (left + right)
            rising = self(middle)[1] > price
            right, left = np.where(rising, middle, right), np.where(rising, left, middle)
        return np.where(at_low, low, np.where(at_high, high, left))

    def _lowest_rows(self, low, high) -> tuple[float, np.ndarray] | None:
        """Where the predictions of a row sum to 1: a price for their sum, one for each row, makes them do so."""
        slopes = np.stack([self(low)[1], self(high)[1]])
        least, most = (extreme((0, -1))[..., None] for extreme in (slopes.min, slopes.max))
        beyond = np.maximum(np.abs(least), np.abs(most)) + 1e-9
        cheap, dear = least - beyond, most + beyond
        for _ in range(_PRICES):
            price = 0.5 * (cheap + dear)
            point = self._halved(low, high, np.broadcast_to(price, low.shape))
            over = point.sum(-1, keepdims=True) > 1
            dear, cheap = np.where(over, price, dear), np.where(over, cheap, price)
        # weak duality: no point whose rows sum to 1 has less than this, and for a convex loss one has no more
        price = 0.5 * (cheap + dear)
        point = self._halved(low, high, np.broadcast_to(price, low.shape))
        bound = self(point)[0] + float(np.sum(price * (1 - point.sum(-1, keepdims=True))))
        return self._checked(bound, _normalised(point), low, high, rows=True)

    def _checked(self, value: float, point, low, high, rows: bool = False) -> tuple[float, np.ndarray] | None:
        """None if some other point is lower after all."""
        rng = np.random.default_rng(1)
        for _ in range(3):
            other = low + rng.random(low.shape) * (high - low)
            other = _normalised(other) if rows else other
            if self(other)[0] < value - 1e-6 * abs(value) - 1e-12:
                return None
        return (value, point) if np.isfinite(value) else None


def _mean(loss: keras.losses.Loss, y_true, y_pred, weight, mask):
    if mask is not None:
        _keras.set_mask(y_pred, mask)
    return keras.ops.mean(loss(y_true, y_pred, sample_weight=weight))


def _normalised(point: np.ndarray) -> np.ndarray:
    """With rows that sum to 1; a row of zeros is shared out evenly."""
    sums = point.sum(-1, keepdims=True)
    return np.where(sums > 0, point / np.where(sums > 0, sums, 1.0), 1.0 / point.shape[-1])
