"""The four ways in which Keras has turned a loss function's values into the one number, in plain NumPy.

`reduce` is the wrapper around every loss function, as a direct call; `compare` shows all four regimes side by
side; `epoch` is what became of the losses of an epoch's batches. A *score array* is what the loss function
returns: for the built-in losses one number per sample, step or pixel, because they average over the last axis.

| regime          | versions                        | mask divides by                | weights divide by         |
|-----------------|---------------------------------|--------------------------------|---------------------------|
| "keras-2.2"     | Keras up to 2.2.5               | number of unmasked steps       | number of weights not 0   |
| "keras-2.3"     | Keras 2.3.x, tf.keras up to 2.9 | number of all steps            | number of elements        |
| "tf-keras-2.10" | tf.keras 2.10 to 2.15, tf_keras | number of unmasked steps       | number of elements        |
| "keras-3"       | Keras 3                         | number of unmasked steps       | number of elements        |

Every rule here was compared with what the real packages give: Keras 2.1.5, 2.2.4 and 2.3.1, tf.keras 2.9 and 2.15,
tf_keras 2.21 and Keras 3.15 (tests/golden/regimes.json, made by scripts/make_regime_goldens.py). This module needs
NumPy and nothing else.
"""

from __future__ import annotations

import contextlib
import math
import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from lossviz.report import formatting as f
from lossviz.report.records import Part, Step, Term
from lossviz.report.report import Report

#: The names of the four regimes, the oldest first.
REGIMES = ("keras-2.2", "keras-2.3", "tf-keras-2.10", "keras-3")

#: What each is called in sentences. The last is keras-2.3 but for the weights, which it aligns as tf-keras-2.10 does.
_TITLES = {
    "keras-2.2": "Keras up to 2.2.5",
    "keras-2.3": "Keras 2.3",
    "tf-keras-2.10": "tf.keras since 2.10",
    "keras-3": "Keras 3",
    "tf-keras-2.9": "tf.keras up to 2.9",
}
_REDUCTIONS = {
    "keras-2.2": ("sum_over_batch_size",),
    "keras-2.3": ("sum_over_batch_size", "sum", "none"),
    "tf-keras-2.9": ("sum_over_batch_size", "auto", "sum", "none"),
    "tf-keras-2.10": ("sum_over_batch_size", "auto", "sum", "none"),
    "keras-3": ("sum_over_batch_size", "mean", "mean_with_sample_weight", "sum", "none", None),
}
_AXES = {
    0: (), 1: ("batch",), 2: ("batch", "step"), 3: ("batch", "row", "col"), 4: ("batch", "depth", "row", "col"),
}  # fmt: skip
_STAGES = ("mask", "mask divisor", "weights", "weights divisor", "mean")
_TIMES, _OVER = "\N{MULTIPLICATION SIGN}", "\N{DIVISION SIGN}"


@dataclass(frozen=True, eq=False)
class Reduction:
    """How one regime makes one number of a score array.

    `value` is the number (an array where `reduction` leaves one). `steps` are the operations in their order, each
    with its shapes and its divisor; `divisors` are those divisors by name, and `divisor` is their product: `value`
    is the sum of the masked and weighted scores over `divisor`. `contributions` has the shape of the score array
    `elements` and holds the share of each element in `value` (in its sum, where it is an array).

    Prints as `lossviz.explain`'s reports do; `to_report()` is that report, for `plots` and for `by("batch")`.
    """

    regime: str
    value: float | np.ndarray
    steps: tuple[Step, ...]
    divisors: dict[str, float]
    axes: tuple[str, ...]
    elements: np.ndarray
    contributions: np.ndarray
    loss_weight: float = 1.0
    _unweighted: float = math.nan
    _effects: dict[str, tuple[np.ndarray, str]] = field(default_factory=dict)

    @property
    def divisor(self) -> float:
        """The product of all divisors."""
        return math.prod(self.divisors.values())

    def to_report(self) -> Report:
        """The same as a `Report` of one term, which every writer and figure takes.

        Raises ValueError where the value is an array.
        """
        if np.ndim(self.value):
            raise ValueError(
                f"this reduction left an array of shape {np.shape(self.value)}, not one number, so no report can show "
                "how it came about. Reduce with reduction='sum_over_batch_size' or 'sum'."
            )
        labels = tuple(tuple(range(size)) for size in self.elements.shape)
        part = Part(self.axes, self.elements, self.contributions, "exact", self.steps, labels)
        term = Term("loss", "output", self._unweighted, self.loss_weight, (part,))
        return Report(self.value, (term,), f"the rules of {_TITLES[self.regime]}", {"regime": self.regime})

    def __str__(self) -> str:
        if np.ndim(self.value):
            lines = [
                f"{self.regime} leaves an array of shape {_shape(np.shape(self.value))}",
                *(f"  {f.step_text(step)}" for step in self.steps),
            ]
            return "\n".join([*lines, str(self.value)])
        return str(self.to_report())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        if np.ndim(self.value):
            return f"<pre>{escape(str(self))}</pre>"
        return self.to_report()._repr_html_()


def reduce(
    score_array,
    sample_weight=None,
    mask=None,
    *,
    regime: str,
    reduction: str | None = "sum_over_batch_size",
    loss_weight: float | None = None,
    axes: Sequence[str] | None = None,
) -> Reduction:
    """What `regime` makes of the values of a loss function, step by step.

    `score_array` is what the loss function returned, of any rank; l below. `sample_weight` (w) and `mask` (m: what
    is not 0 counts) are arrays, or None. `loss_weight` multiplies the result. `axes` names the dimensions of the
    score array (default: batch, step; batch, row, col). |x| is the number of elements of x.

    "keras-2.2" (`weighted_masked_objective`; engine/training.py in 2.1.5, engine/training_utils.py in 2.2.4):
        1. l · m, broadcast as NumPy does; then ÷ mean(m).
        2. the mean of that over every axis from rank(w) on; · w, broadcast as NumPy does; ÷ mean(w != 0).
        3. the mean over what is left. There is no other `reduction`. 0 / 0 is NaN.
    "keras-2.3" (`Loss.__call__`; utils/losses_utils.py and `_prepare_total_loss` of engine/training.py in 2.3.1):
        1. The mask becomes weights: w · m, where w first loses a last axis of size 1 or gains one, if its rank is
           one more or one less than that of m.
        2. l · w, where w is fitted to the rank of l in the same way and then gains axes at its end; every axis of
           w must be as long as that of l, or 1.
        3. the sum, ÷ the number of elements of l · w ("sum": no division; "none": no sum either).
    "tf-keras-2.10" (`Loss.__call__` in losses.py, utils/losses_utils.py of tf.keras 2.10 to 2.15 and tf_keras):
        1. m ÷ mean(m) (not for "sum" and "none"; 0 / 0 is NaN), times w fitted to the rank of m as above.
        2. l · w, where w is fitted to the rank of l as above, then broadcast as NumPy does.
        3. as in 2.3; "auto" means "sum_over_batch_size". The sum of nothing ÷ 0 is 0.
    "keras-3" (`Loss.__call__` in src/losses/loss.py, 3.15.1):
        1. m ÷ mean(m) (for "sum_over_batch_size" and "mean"; 0 / 0 is 0), times w; of two arrays whose ranks differ
           by one, the longer loses a last axis of size 1, or gives one to the other if that has rank 1.
        2. l · w with the same rule; no axis is ever appended to w for another reason. Broadcast as NumPy does.
        3. the sum, ÷ |l · w|; "mean" is the same. "mean_with_sample_weight" divides by sum(w) as it was before
           broadcasting. "sum": no division; "none" or None: no sum either. x / 0 is 0. One number or no number at
           all is returned as it is.

    In Keras 2.3 and tf.keras up to 2.9 the model, not the loss object, turns the mask into weights; that step is
    part of "keras-2.3" here. The arithmetic is float64; a weight is 0 where it is 0 in float32.

    Raises ValueError where the wrapper itself fails: shapes that it cannot bring together, or a `reduction` that
    the regime does not know. What `fit` refuses beyond that stands in the notes of `compare`.
    """
    if regime not in REGIMES:
        raise ValueError(f"regime={regime!r} is not a regime. The regimes are {', '.join(map(repr, REGIMES))}.")
    return _reduce(score_array, sample_weight, mask, regime, reduction, loss_weight, axes)


def _reduce(score, weight, mask, rules: str, reduction="sum_over_batch_size", loss_weight=None, axes=None) -> Reduction:
    known = _REDUCTIONS[rules]
    if reduction not in known:
        raise ValueError(
            f"reduction={reduction!r} is unknown to {rules} ({_TITLES[rules]}), which has "
            f"{', '.join(map(repr, known))}" + (": its wrapper always takes the mean." if len(known) == 1 else ".")
        )
    mask = None if mask is None else np.asarray(mask).astype(bool).astype(np.float64)
    call = _Call(rules, reduction, _array(score), _array(weight), mask, axes)
    with np.errstate(all="ignore"):
        _RULES[rules](call)
        return call.result(loss_weight)


def _array(values) -> np.ndarray | None:
    return None if values is None else np.asarray(values, np.float64)


class _Call:
    """One reduction while it runs: the values so far, what was done to them, and how to go back to the elements.

    `places` says, for each dimension of the values, which axis of the score array it is, or None for a dimension
    that broadcasting has added. `effects` holds what each stage does to each element, so that regimes compare.
    """

    def __init__(self, rules, reduction, score, weight, mask, axes):
        self.rules, self.reduction, self.score, self.weight, self.mask = rules, reduction, score, weight, mask
        default = _AXES.get(score.ndim, ("batch", *(f"axis{k}" for k in range(1, score.ndim))))
        self.axes = default if axes is None else tuple(axes)
        if len(self.axes) != score.ndim:
            raise ValueError(f"axes={self.axes} names {len(self.axes)} axes, but score_array has {score.ndim}.")
        self.values, self.places = score, tuple(range(score.ndim))
        self.back: list[Callable[[np.ndarray], np.ndarray]] = []
        self.steps: list[Step] = []
        self.divisors: dict[str, float] = {}
        self.effects: dict[str, tuple[np.ndarray, str]] = {}
        where = f" ({', '.join(self.axes)})" if self.axes else ""
        text = f"element loss{where}: {_shape(score.shape)}"
        self.steps.append(Step("element loss", text, score.shape, score.shape, self.axes))
        #: What the errors after merging are about: the weights where there are some.
        self.weights_name = "mask" if weight is None else "sample_weight"
        self.weights_shape = () if weight is None and mask is None else (mask if weight is None else weight).shape

    def change_axis(self, change: str) -> None:
        """Append or drop a last axis of size 1."""
        if not change:
            return
        shape = self.values.shape
        self.values = _last_axis(self.values, change)
        self.places = (*self.places, None) if change == "append" else self.places[:-1]
        self.back.append(lambda gradient: gradient.reshape(shape))

    def weigh(self, factors: dict[str, np.ndarray], rule: str, mask_divisor: bool = False, safe: bool = False) -> None:
        """Multiply by mask and weights, of one rank, which must broadcast; divide by the mean of the mask between.

        Keras merges the two first and multiplies once, which is the same. `rule` are the words for a refusal.
        """
        shape = _shape_of(factors)
        if not _broadcasts(shape, self.values.shape):
            as_ = f"as {_shape(shape)} " if shape != self.weights_shape else ""
            raise self.refuse(
                self.weights_name, self.weights_shape, f"{rule}then they are multiplied {as_}with last axes aligned"
            )
        for name in ("mask", "weights"):
            if name in factors:
                self.multiply(name, factors[name])
            if name == "mask" and name in factors and mask_divisor:
                self.divide("mask", _mean(self.mask), f"the mean of the mask: {_kept(self.mask)}", safe)

    def multiply(self, name: str, factor: np.ndarray) -> None:
        """Multiply by the mask or the weights, as NumPy broadcasts."""
        shape = self.values.shape
        self.values = np.asarray(self.values * factor)
        new = self.values.ndim - len(shape)
        before = ((None, 1),) * new + tuple(zip(self.places, shape))
        self.places = tuple(p if n == size else None for (p, n), size in zip(before, self.values.shape))
        self.back.append(lambda gradient: _unbroadcast(gradient * factor, shape))
        offset = self.values.ndim - factor.ndim
        along = tuple(self._name(k + offset) for k, n in enumerate(factor.shape) if n != 1)
        given = self.mask if name == "mask" else self.weight
        text = f"{_TIMES} {'mask' if name == 'mask' else 'sample weights'} {_shape(given.shape)}"
        text += f" as {_shape(factor.shape)}" if factor.shape != given.shape else ""
        text += f" along {', '.join(along)}: " if along else ": "
        text += _kept(given) if name == "mask" else _range(given)
        if self.values.shape != shape:
            text += f"; broadcast {_shape(shape)} → {_shape(self.values.shape)}"
        self.effects[name] = self._effect(factor), text
        self._step("multiply", text, shape, along)

    def divide(self, name: str, divisor: float, text: str, safe: bool = False) -> None:
        """Divide by one number; with `safe` a divisor of 0 leaves the values, which are then 0 or NaN."""
        if safe and not divisor:
            text, factor = f"{text}; 0 / 0 counts as 0", 1.0
        else:
            factor = np.divide(1.0, divisor)
            self.values = np.asarray(np.divide(self.values, divisor))
        self.back.append(lambda gradient: gradient * factor)
        self.divisors[name] = divisor
        text = f"{_OVER} {f.plain(divisor)}, {text}"
        self.effects[f"{name} divisor"] = np.asarray(factor), text
        self._step("divide", text, self.values.shape, divisor=divisor)

    def mean(self, first: int = 0, safe: bool = False) -> None:
        """The mean over the axes from `first` on."""
        shape = self.values.shape
        self._collapse(first, "mean", float(math.prod(shape[first:])), safe)

    def finish(self, safe: bool, weight_sum: float | None = None) -> None:
        """What `reduction` says: the sum, and what it is divided by. With `safe`, x / 0 is 0."""
        if self.reduction == "sum":
            self._collapse(0, "sum", None, safe)
        elif weight_sum is not None:
            self._collapse(0, "weighted mean", weight_sum, safe)
        elif self.reduction not in ("none", None):
            self.mean(safe=safe)

    def _collapse(self, first: int, op: str, divisor: float | None, safe: bool) -> None:
        shape, gone = self.values.shape, range(first, self.values.ndim)
        zero = safe and divisor == 0
        factor = 0.0 if zero else np.divide(1.0, 1.0 if divisor is None else divisor)
        summed = self.values.sum(axis=tuple(gone))
        self.values = np.asarray(np.zeros_like(summed) if zero else summed if divisor is None else summed / divisor)
        spread = self.values.shape + (1,) * len(gone)
        self.back.append(lambda gradient: np.broadcast_to((gradient * factor).reshape(spread), shape))
        names = tuple(self.axes[self.places[k]] for k in gone if self.places[k] is not None)
        over = ", ".join(names) if len(names) == len(gone) else f"{len(gone)} ax{'e' if len(gone) > 1 else 'i'}s"
        text = f"{op} over {over}: {_shape(shape)} → {_shape(self.values.shape)}"
        if divisor is not None:
            text += f", {_OVER} {f.plain(divisor)}" + (", the sum of the weights" if op == "weighted mean" else "")
            text += "; x / 0 counts as 0" if zero else ""
            self.divisors[f"{op} over {over}"] = divisor
            added = math.prod(shape[k] for k in gone if self.places[k] is None)
            before = self.effects.get("mean", (np.ones(()), ""))[0]
            self.effects["mean"] = before * factor * added, text
        self.places = self.places[:first]
        if gone or divisor != 1:
            self._step(op, text, shape, names, divisor)

    def result(self, loss_weight: float | None) -> Reduction:
        weight = 1.0 if loss_weight is None else float(loss_weight)
        unweighted = math.nan if self.values.ndim else float(self.values)
        if loss_weight is not None:
            shape = self.values.shape
            self.values = np.asarray(self.values * weight)
            self.back.append(lambda gradient: gradient * weight)
            self._step("multiply", f"{_TIMES} {f.plain(weight)} (loss weight)", shape, factor=weight)
        gradient = np.ones(self.values.shape)
        for step in reversed(self.back):
            gradient = step(gradient)
        value = self.values if self.values.ndim else float(self.values)
        return Reduction(
            self.rules, value, tuple(self.steps), self.divisors, self.axes, self.score, self.score * gradient,
            weight, unweighted, self.effects,
        )  # fmt: skip

    def refuse(self, argument: str, shape: tuple, rule: str, other: str = "the score array", fits=None) -> ValueError:
        """The error for an argument that cannot be brought together with the score array, or with the mask."""
        target = self.mask.shape if other == "the mask" else self.score.shape
        fits = _fitting(self.rules, target) if fits is None else fits
        where = f"{self.rules} ({_TITLES[self.rules]})" if self.rules in REGIMES else _TITLES[self.rules]
        return ValueError(
            f"{argument} of shape {_shape(shape)} does not fit {other} of shape {_shape(target)} in {where}: {rule}. "
            f"Give it the shape {' or '.join(map(_shape, dict.fromkeys(fits)))}."
        )

    def _effect(self, factor: np.ndarray) -> np.ndarray:
        """What `factor`, which was just multiplied, does to each element; the mean over added dimensions."""
        factor = np.broadcast_to(factor, self.values.shape)
        added = tuple(k for k, place in enumerate(self.places) if place is None)
        left = {place for place in self.places if place is not None}
        shape = [size if k in left else 1 for k, size in enumerate(self.score.shape)]
        return np.broadcast_to((factor.mean(axis=added) if added else factor).reshape(shape), self.score.shape)

    def _name(self, k: int) -> str:
        place = self.places[k]
        return self.axes[place] if place is not None else f"axis {k}"

    def _step(self, op, text, shape, axes=(), divisor=None, factor=None) -> None:
        self.steps.append(Step(op, text, shape, self.values.shape, axes, divisor, factor))


def _fitting(rules: str, target: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Shapes of weights that fit anything of shape `target`: one weight per sample, and one per element."""
    if not target:
        return [()]
    sample = target[:1] if rules == "keras-2.2" else target[:1] + (1,) * (len(target) - 1)
    return [sample, target]


def _unbroadcast(gradient: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum what broadcasting has repeated, back to `shape`."""
    gradient = gradient.sum(axis=tuple(range(gradient.ndim - len(shape))))
    repeated = tuple(k for k, size in enumerate(shape) if size == 1 and gradient.shape[k] != 1)
    return gradient.sum(axis=repeated, keepdims=True) if repeated else gradient


def _shape(shape: Sequence[int]) -> str:
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def _broadcasts(*shapes: tuple[int, ...]) -> bool:
    with contextlib.suppress(ValueError):
        np.broadcast_shapes(*shapes)
        return True
    return False


def _mean(array: np.ndarray) -> float:
    return float(array.mean()) if array.size else math.nan


def _range(weight: np.ndarray) -> str:
    low, high = (float(weight.min()), float(weight.max())) if weight.size else (0.0, 0.0)
    zeros = int(np.sum(weight == 0))
    text = f.plain(low) if low == high else f"{f.plain(low)} … {f.plain(high)}"
    return text + (f", {zeros} of {weight.size} are 0" if zeros and low != high else "")


def _kept(mask: np.ndarray) -> str:
    return f"{f.plain(float(mask.sum()))} of {f.plain(mask.size)} are unmasked"


# --- the rules


def _keras_2_2(call: _Call) -> None:
    mask, weight = call.mask, call.weight
    if mask is not None:
        if not _broadcasts(mask.shape, call.values.shape):
            rule = "the two are multiplied as they are, last axes aligned"
            raise call.refuse("mask", mask.shape, rule, fits=[call.score.shape])
        call.multiply("mask", mask)
        call.divide("mask", _mean(mask), f"the mean of the mask: {_kept(mask)}")
    if weight is not None:
        if call.values.ndim > weight.ndim:
            call.mean(weight.ndim)
        if not _broadcasts(weight.shape, call.values.shape):
            rule = (
                f"that is first averaged to the rank of the weights, which leaves {_shape(call.values.shape)}, "
                "then multiplied by them with last axes aligned"
            )
            raise call.refuse("sample_weight", weight.shape, rule)
        call.multiply("weights", weight)
        present = weight.astype(np.float32) != 0
        words = f"the share of weights that are not 0 ({int(present.sum())} of {present.size})"
        call.divide("weights", _mean(present), words)
    call.mean()


def _keras_2_3(call: _Call) -> None:
    factors = _merge(call)
    if factors:
        shape = _shape_of(factors)
        if not call.values.shape and len(shape) == 1:
            call.change_axis("append")
        else:
            factors = _apply(_fitted(call, call.weights_name, shape, call.values.shape), factors)
        shape, target = _shape_of(factors), call.values.shape
        rule = "missing axes are added at its end, then each must be as long as that of the other, or 1"
        if shape != target:
            if len(shape) > len(target) or any(a != b and a != 1 for a, b in zip(shape, target)):
                raise call.refuse(call.weights_name, call.weights_shape, rule)
            more = (1,) * (len(target) - len(shape))
            factors = {name: x.reshape(x.shape + more) for name, x in factors.items()}
        call.weigh(factors, rule)
    call.finish(safe=False)


def _tf_keras_2_9(call: _Call) -> None:
    _tf_keras(call, divides_mask=False)


def _tf_keras_2_10(call: _Call) -> None:
    _tf_keras(call, divides_mask=call.reduction in ("auto", "sum_over_batch_size"))


def _tf_keras(call: _Call, divides_mask: bool) -> None:
    factors = _merge(call)
    if factors:
        factors = _apply(_fitted(call, call.weights_name, _shape_of(factors), call.values.shape), factors)
        rule = "a last axis of size 1 is dropped or appended where the ranks differ by one, "
        call.weigh(factors, rule, divides_mask)
    call.finish(safe=True)


def _keras_3(call: _Call) -> None:
    factors = _merge(call)
    total = float(math.prod(factors.values()).sum()) if factors else None
    if factors:
        own, theirs = _same_rank(call.values.shape, _shape_of(factors))
        call.change_axis(own)
        divides_mask = call.reduction in ("sum_over_batch_size", "mean")
        call.weigh(_apply(theirs, factors), "no axis is appended to it, ", divides_mask, safe=True)
    if call.values.shape not in ((), (0,)):
        call.finish(safe=True, weight_sum=total if call.reduction == "mean_with_sample_weight" else None)


_RULES: dict[str, Callable[[_Call], None]] = {
    "keras-2.2": _keras_2_2,
    "keras-2.3": _keras_2_3,
    "tf-keras-2.9": _tf_keras_2_9,
    "tf-keras-2.10": _tf_keras_2_10,
    "keras-3": _keras_3,
}


def _merge(call: _Call) -> dict[str, np.ndarray]:
    """Weights and mask, brought to one rank by the rules after 2.2; their product goes on."""
    mask, weight = call.mask, call.weight
    if mask is None or weight is None:
        return {name: x for name, x in (("weights", weight), ("mask", mask)) if x is not None}
    if call.rules == "keras-3":
        own, theirs = _same_rank(mask.shape, weight.shape)
        mask, fitted = _last_axis(mask, own), _last_axis(weight, theirs)
    elif call.rules == "keras-2.3" and mask.ndim == 0 and weight.ndim == 1:
        mask, fitted = mask[None], weight
    else:
        fitted = _last_axis(weight, _fitted(call, "sample_weight", weight.shape, mask.shape, "the mask"))
    if not _broadcasts(fitted.shape, mask.shape):
        as_ = f", as {_shape(fitted.shape)}," if fitted.shape != weight.shape else ""
        rule = f"mask and weights{as_} are multiplied first, with last axes aligned"
        raise call.refuse("sample_weight", weight.shape, rule, "the mask")
    rank = max(fitted.ndim, mask.ndim)
    pair = {"weights": fitted, "mask": mask}
    return {name: x.reshape((1,) * (rank - x.ndim) + x.shape) for name, x in pair.items()}


def _fitted(call: _Call, name: str, shape: tuple, target: tuple, other: str = "the score array") -> str:
    """losses_utils.squeeze_or_expand_dimensions: drop or append a last axis where the ranks differ by one."""
    if not shape or abs(len(shape) - len(target)) != 1:
        return ""
    if len(shape) < len(target):
        return "append"
    if shape[-1] != 1:
        rule = f"it has one axis more than {other}, and only a last axis of size 1 is dropped"
        raise call.refuse(name, call.weights_shape if name == call.weights_name else shape, rule, other)
    return "drop"


def _shape_of(factors: dict[str, np.ndarray]) -> tuple[int, ...]:
    return np.broadcast_shapes(*(x.shape for x in factors.values()))


def _same_rank(one: tuple, two: tuple) -> tuple[str, str]:
    """squeeze_or_expand_to_same_rank of Keras 3: what to do with the last axis of either."""
    if len(one) == len(two) + 1 and one[-1] == 1:
        return ("", "append") if len(two) == 1 else ("drop", "")
    if len(two) == len(one) + 1 and two[-1] == 1:
        return ("append", "") if len(one) == 1 else ("", "drop")
    return "", ""


def _last_axis(array: np.ndarray, change: str) -> np.ndarray:
    return array[..., None] if change == "append" else array[..., 0] if change == "drop" else array


def _apply(change: str, factors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: _last_axis(array, change) for name, array in factors.items()}


# --- side by side


@dataclass(frozen=True, eq=False)
class Row:
    """One regime in a `Comparison`.

    `reduction` is None where the regime refuses, and then `refusal` says why. `difference` is the first step that
    acts on the elements otherwise than in the regime compared with; empty where every step does the same. `notes`
    say what `fit` and `compile` of these versions do beyond the wrapper.
    """

    regime: str
    reduction: Reduction | None = field(repr=False)
    refusal: str = ""
    difference: str = ""
    notes: tuple[str, ...] = ()

    @property
    def value(self) -> float | np.ndarray | None:
        """What this regime makes of the score array; None where it refuses."""
        return None if self.reduction is None else self.reduction.value

    @property
    def divisor(self) -> float | None:
        """The product of all divisors; None where the regime refuses."""
        return None if self.reduction is None else self.reduction.divisor


@dataclass(frozen=True, eq=False)
class Comparison:
    """The four regimes on the same arrays: `rows` in the order of REGIMES, and `comparison["keras-3"]`.

    `reference` is the regime that the differences are told from: Keras 3, or the newest that does not refuse.
    """

    rows: tuple[Row, ...]
    reference: str
    title: str

    def __getitem__(self, regime: str) -> Row:
        for row in self.rows:
            if row.regime == regime:
                return row
        raise KeyError(f"{regime!r} is not a regime. The regimes are {', '.join(map(repr, REGIMES))}.")

    def __str__(self) -> str:
        value, divisor = self._columns()
        lines = [self.title, "", f"{'regime':<15}{'value':>11}{'divisor':>12}  {self._head()}".rstrip()]
        for row in self.rows:
            start = f"{row.regime:<15}{value(row):>11}{divisor(row):>12}  "
            lines += _wrapped(start + self._remark(row), len(start))
        return "\n".join([*lines, *(line for row, note in self._notes() for line in _wrapped(f"{row}: {note}", 4))])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from lossviz.report import html

        value, divisor = self._columns()
        left = ' style="text-align:left;white-space:normal"'
        head = (f"<th scope=col{style}>{escape(text)}</th>" for text, style in (
            ("regime", left), ("value", ""), ("divisor", ""), (self._head(), left),
        ))  # fmt: skip
        return html.block(
            [
                f'<div class="o" tabindex=0><table><caption>{escape(self.title)}</caption>',
                f"<thead><tr>{' '.join(head)}</tr></thead><tbody>",
                *(
                    f"<tr><th scope=row>{row.regime}</th> <td{' class=x' if row.refusal else ''}>{value(row)}</td> "
                    f"<td>{divisor(row)}</td> <td{left}>{escape(self._remark(row))}</td></tr>"
                    for row in self.rows
                ),
                "</tbody></table></div>",
                *(f"<p><b>{regime}</b>: {escape(note)}</p>" for regime, note in self._notes()),
            ]
        )

    def _head(self) -> str:
        return f"first step that differs from {self.reference}" if self.reference else ""

    def _notes(self) -> list[tuple[str, str]]:
        """What is said below the table, and of which regimes; the same words once."""
        said: dict[str, list[str]] = {}
        for row in self.rows:
            for note in (row.refusal, *row.notes):
                said.setdefault(note, []).append(row.regime)
        said.pop("", None)
        return [(", ".join(regimes), note) for note, regimes in said.items()]

    def _columns(self) -> tuple[Callable[[Row], str], Callable[[Row], str]]:
        column = f.Column.of([row.value for row in self.rows if row.value is not None and not np.ndim(row.value)])
        return (
            lambda row: "refused" if row.reduction is None else "empty" if np.ndim(row.value) else column(row.value),
            lambda row: "" if row.reduction is None else f.plain(row.divisor),
        )

    def _remark(self, row: Row) -> str:
        return row.difference or ("" if row.refusal or row.regime == self.reference else "none")


def _wrapped(line: str, indent: int) -> list[str]:
    pieces = textwrap.wrap(line, 100, subsequent_indent=" " * indent, break_on_hyphens=False)
    return [piece.rstrip() for piece in pieces]


def compare(score_array, sample_weight=None, mask=None) -> Comparison:
    """`reduce` in all four regimes, side by side: value, divisor, the first step that differs, and notes.

    The arguments are those of `reduce`. The notes tell what `fit`, `evaluate` and `compile` of a version refuse
    or do beyond the wrapper, in that version's words, for a built-in loss (whose target has one axis more than the
    score array); and where tf.keras up to 2.9 aligns weights otherwise than Keras 2.3.
    """
    score, weight = np.asarray(score_array, np.float64), _array(sample_weight)
    mask = None if mask is None else np.asarray(mask).astype(bool)
    found = {regime: _attempt(score, weight, mask, regime) for regime in REGIMES}
    accepted = [regime for regime in REGIMES if isinstance(found[regime], Reduction)]
    reference = accepted[-1] if accepted else ""
    rows = []
    for regime, result in found.items():
        notes = tuple(_NOTES[regime](score, weight, mask, result))
        if isinstance(result, Reduction):
            difference = "" if regime == reference else _first_difference(result, found[reference])
            rows.append(Row(regime, result, "", difference, notes))
        else:
            rows.append(Row(regime, None, str(result), "", notes))
    words = [f"score array {_shape(score.shape)}"]
    words += [] if weight is None else [f"sample weights {_shape(weight.shape)}"]
    words += [] if mask is None else [f"mask {_shape(mask.shape)}"]
    return Comparison(tuple(rows), reference, ", ".join(words))


def _attempt(score, weight, mask, rules: str) -> Reduction | ValueError:
    try:
        return _reduce(score, weight, mask, rules)
    except ValueError as error:
        return error


def _first_difference(one: Reduction, other: Reduction) -> str:
    """The first stage at which an element fares otherwise in `one` than in `other`; empty where there is none."""
    nothing = np.ones(()), ""
    for stage in _STAGES:
        (mine, text), (theirs, other_text) = one._effects.get(stage, nothing), other._effects.get(stage, nothing)
        if not np.allclose(mine, theirs, rtol=1e-9, atol=0, equal_nan=True):
            return text or f"no {other_text}"
    if not np.allclose(one.value, other.value, rtol=1e-9, atol=0, equal_nan=True):
        widest = max((step.output_shape for step in one.steps), key=math.prod)
        return f"broadcasting to {_shape(widest)}"
    return ""


def _notes_standalone(score, weight, mask, result) -> Iterator[str]:
    """Keras 2.2 and 2.3: `standardize_weights`, and the ones that every compiled model is fed."""
    if weight is None:
        return
    if not weight.ndim:
        yield 'fit refuses one number as weights: "len() of unsized object".'
        return
    target = f"({', '.join(map(str, score.shape))}, ...)"
    plain = _shape(weight.shape)
    untimed = (
        f'"Found a sample_weight array with shape {plain}. In order to use timestep-wise sample weights, you should '
        'specify sample_weight_mode="temporal" in compile(). If you just mean to use sample-wise weights, make sure '
        'your sample_weight array is 1D."'
    )
    if weight.ndim == 2 and weight.shape == score.shape[:2] and isinstance(result, Reduction):
        yield f'fit takes these weights only after compile(sample_weight_mode="temporal"). Otherwise: {untimed}'
    elif weight.ndim != 1:
        yield f"fit refuses these weights: {untimed}"
    elif score.ndim and weight.shape != score.shape[:1]:
        yield (
            f'fit refuses these weights: "Found a sample_weight array with shape {plain} for an input with shape '
            f'{target}. sample_weight cannot be broadcast."'
        )


def _notes_2_3(score, weight, mask, result) -> Iterator[str]:
    yield from _notes_standalone(score, weight, mask, result)
    if weight is None and mask is not None and score.ndim:
        ones = np.ones(score.shape[:1])
        fed = _attempt(score, ones, mask, "keras-2.3")
        if _differ(fed, result):
            said = ""
            if not _broadcasts(mask.shape, ones.shape):
                said = f'"Incompatible shapes: {list(mask.shape)} vs. {list(ones.shape)}"'.replace(", ", ",")
            elif mask.ndim == score.ndim + 1:  # too long for the ones, and by their product no longer of size 1
                last = np.broadcast_shapes(mask.shape, ones.shape)[-1]
                said = f'"Can not squeeze dim[{score.ndim}], expected a dimension of 1, got {last}"'
            yield f"fit always feeds weights, here ones of shape {_shape(ones.shape)}, and {_outcome(fed, said)}."
            timed = np.ones(score.shape[:2])
            if score.ndim > 1 and not _differ(_attempt(score, timed, mask, "keras-2.3"), result):
                shape = _shape(timed.shape)
                yield f'After compile(sample_weight_mode="temporal") fit feeds ones of shape {shape} instead: they fit.'
    if not score.ndim and weight is not None and weight.ndim == 1 and not isinstance(result, Reduction):
        value = f.plain(float(score * weight.mean()), 6)
        yield f"fit takes these weights, because it checks before it knows the batch size, and gives {value}."
    tf_keras = _attempt(score, weight, mask, "tf-keras-2.9")
    if score.size and _differ(tf_keras, result):
        yield f"tf.keras up to 2.9 aligns the last axes instead of the first, and {_outcome(tf_keras)}."


def _notes_tf_keras(score, weight, mask, result) -> Iterator[str]:
    yield from _notes_cardinality(score, weight, "Data cardinality is ambiguous:")
    if not score.ndim and weight is not None and weight.ndim == 1 and not isinstance(result, Reduction):
        column = _attempt(score, weight[:, None], mask, "tf-keras-2.10")
        yield f"where the prediction has two axes, fit makes the weights a column first, and {_outcome(column)}."


def _notes_keras_3(score, weight, mask, result) -> Iterator[str]:
    words = "Data cardinality is ambiguous. Make sure all arrays contain the same number of samples."
    yield from _notes_cardinality(score, weight, words)


def _notes_cardinality(score, weight, words: str) -> Iterator[str]:
    if weight is not None and not weight.ndim:
        yield 'fit refuses one number as weights: "tuple index out of range".'
    elif weight is not None and score.ndim and weight.shape[0] != score.shape[0]:
        yield f'fit refuses {weight.shape[0]} weights for {score.shape[0]} samples: "{words}"'


_NOTES = {
    "keras-2.2": _notes_standalone,
    "keras-2.3": _notes_2_3,
    "tf-keras-2.10": _notes_tf_keras,
    "keras-3": _notes_keras_3,
}


def _differ(one: Reduction | ValueError, other: Reduction | ValueError) -> bool:
    if isinstance(one, Reduction) and isinstance(other, Reduction):
        return not np.allclose(one.value, other.value, rtol=1e-9, atol=0, equal_nan=True)
    return isinstance(one, Reduction) != isinstance(other, Reduction)


def _outcome(result: Reduction | ValueError, words: str = "") -> str:
    if isinstance(result, Reduction):
        return f"gives {f.plain(result.value, 6)}"
    return f"refuses: {words or result}".rstrip(".")


# --- epochs


@dataclass(frozen=True)
class Epoch:
    """What became of the losses of an epoch's batches.

    `history` is the epoch's number in `History` and what `evaluate` returns; `bar` the one at which the progress
    bar ends, `bars` what it shows after each batch; `callback` is `logs["loss"]` in `on_batch_end` of each batch.
    """

    regime: str
    history: float
    bar: float
    callback: tuple[float, ...]
    bars: tuple[float, ...]

    def __str__(self) -> str:
        column = f.Column.of([self.history, self.bar, *self.callback, *self.bars])
        return "\n".join(
            [
                f"{self.regime}: history and evaluate {column(self.history)}, progress bar {column(self.bar)}",
                f"  logs in callbacks, batch by batch: {', '.join(map(column, self.callback))}",
                f"  progress bar, batch by batch:      {', '.join(map(column, self.bars))}",
            ]
        )

    __repr__ = __str__


def epoch(
    batch_losses: Sequence[float], batch_sizes: Sequence[int], *, regime: str, fit_generator: bool = False
) -> Epoch:
    """The number of an epoch, from the losses L of its batches and the numbers of samples n in them.

    In every regime `history = sum(n · L) / sum(n)`. What else is seen:

    "keras-2.2", "keras-2.3" (`BaseLogger` and `ProgbarLogger` of callbacks.py; callbacks/callbacks.py in 2.3.1):
        Callbacks see the loss of each batch alone. The bar shows the mean so far, weighted by n. With
        `fit_generator=True` (the old method of that name) it counts steps instead: the plain mean so far, and at
        the end `(sum(L) + history) / (number of batches + 1)`, because the epoch's mean is added as one more step.
    "tf-keras-2.10", "keras-3" (a `Mean` metric, weighted by n: engine/compile_utils.py; src/trainers/trainer.py):
        Callbacks and the bar see the mean so far. `fit` takes generators and does the same with them. So does
        tf.keras 2.9, although it reduces like "keras-2.3".

    One batch of NaN makes the epoch NaN. This is about `loss`, not about the losses of single outputs beside it:
    Keras 2.3 and Keras 3 (with TensorFlow, where the last batch is short) give each batch of those the same weight.

    Raises ValueError where the two sequences do not match, or a regime has no `fit_generator` of its own.
    """
    if regime not in REGIMES:
        raise ValueError(f"regime={regime!r} is not a regime. The regimes are {', '.join(map(repr, REGIMES))}.")
    losses, sizes = np.asarray(batch_losses, np.float64), np.asarray(batch_sizes, np.float64)
    if losses.ndim != 1 or losses.shape != sizes.shape or not losses.size:
        raise ValueError(
            f"batch_losses has shape {_shape(losses.shape)} and batch_sizes {_shape(sizes.shape)}: "
            "give one loss and one number of samples for each batch, at least one."
        )
    if not np.all(sizes > 0):
        raise ValueError(f"batch_sizes={list(batch_sizes)}: every batch has at least one sample.")
    old = regime in ("keras-2.2", "keras-2.3")
    if fit_generator and not old:
        raise ValueError(f"fit_generator=True: {regime} has no such method; its fit takes generators. Leave it out.")
    with np.errstate(all="ignore"):
        running = np.cumsum(losses * sizes) / np.cumsum(sizes)
        history, bars = running[-1], running
        if fit_generator:
            bars = np.cumsum(losses) / np.arange(1, losses.size + 1)
            bars[-1] = (losses.sum() + history) / (losses.size + 1)
    callback = losses if old else running
    return Epoch(regime, float(history), float(bars[-1]), tuple(callback.tolist()), tuple(bars.tolist()))
