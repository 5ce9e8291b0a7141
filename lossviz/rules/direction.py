"""Losses that do not fall towards the right answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output, loss_name
from lossviz.rules.floor import OfPredictions
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import n

#: Losses of more predictions are not called at other points.
_LARGEST = 200_000
_DRAWS = 6


@rule("wrong-direction", "custom_loss")
def wrong_direction(case: Case) -> Faults:
    """A loss that is largest at the right answer, or falls on and on past it: its sign is wrong.

    Way out: the loss with the other sign, 1 minus what measures agreement, or the size of a difference.
    """
    several = len([out for out in case.outputs if out.reaches]) > 1 or len(case.added) > 0
    severity = "hint" if several else "error"  # of several, one may be meant to be fooled
    for out in case.outputs:
        if out.tensor is None or not out.reaches or case.loss is None or case.model is None:
            continue
        weight = next((w for name, w in _weights(case) if name == out.name), None)
        if weight is not None and weight < 0:
            yield (
                out.name,
                f"its loss weight is {n(weight)}, so what falls in training is {n(weight)} times {loss_name(out)}, "
                f"which is {n(case.number(out))}: training makes that loss grow.",
                "Give it a loss weight above 0, unless this output is meant to be fooled.",
                severity,
            )
            continue
        if out.is_custom:
            with np.errstate(all="ignore"):
                yield from _of_own(case, out, severity)


def _weights(case: Case) -> Iterator[tuple[str, float]]:
    for entry in _keras.flat_losses(case.model):
        if isinstance(entry.loss_weights, (int, float)):
            yield str(entry.name), float(entry.loss_weights)
    if len(case.outputs) == 1 and len(_keras.flat_losses(case.model)) == 1:  # such an entry has no name
        weights = _keras.flat_losses(case.model)[0].loss_weights
        if isinstance(weights, (int, float)):
            yield case.outputs[0].name, float(weights)


def _of_own(case: Case, out: Output, severity: str) -> Faults:
    """The loss at the right answer, beside what it is around it."""
    answer = _answer(case, out)
    if answer is None:
        return
    right, around = answer
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    with case.untouched():
        loss = OfPredictions(case, out, y_true, y_pred)
        there, slope = loss(right)
        points = list(around())
        near, slopes = zip(*(loss(point) for point in points))
        now, slope_now = loss(y_pred.astype(np.float64))
        opposite = _opposite(case, out, right)
        settled = opposite is not None and loss(opposite)[0] > -1e-6 and _flat(loss(opposite)[1], slope)
    if not evidence.finite(there, now, *near):
        return
    size = max(abs(there), *(abs(value) for value in near), 1e-12)
    away = all(_falls(each, point - right) for each, point in zip(slopes, points))
    if there > max(near) + 1e-4 * size and there > now and away and not settled:
        same = np.ptp(y_true) == 0  # all of them said to be real, or fakes
        yield (
            out.name,
            f"the loss is largest where the predictions are the targets: {n(there)} there, {n(now)} now, and down to "
            f"{n(min(near))} at points around. Training moves the predictions away from the targets.",
            _fix(out, there, near),
            "hint" if same else severity,
        )
    elif _on_and_on(case, out, [slope, slope_now, *slopes]):
        further = loss(right - 1e3 * np.sign(slope))[0]
        yield (
            out.name,
            f"the loss does not stop at the targets: it is {n(there)} where the predictions are the targets, and "
            f"{n(further)} where they are 1000 further; its slope is the same for every prediction.",
            "Take the size of the difference: keras.ops.abs(y_true - y_pred), or keras.ops.square of it.",
            severity,
        )


def _falls(slope: np.ndarray, step: np.ndarray) -> bool:
    """Does the loss of every sample fall on and on along its own step, away from the answer?"""
    along = (slope * step).reshape(len(step), -1).sum(-1)
    return bool(np.all(along <= 1e-3 * np.abs(slope * step).max()))


def _opposite(case: Case, out: Output, right: np.ndarray) -> np.ndarray | None:
    allowed = case.range_of(out.y_pred)
    return allowed.low + allowed.high - right if allowed.bounded else None


def _flat(slope: np.ndarray, beside: np.ndarray) -> bool:
    """Does the loss come to rest there, as that of distances does where labels say what is alike?"""
    return bool(np.max(np.abs(slope)) <= 1e-3 * np.max(np.abs(beside)))


def _fix(out: Output, there: float, near: tuple[float, ...]) -> str:
    name = loss_name(out) if loss_name(out).isidentifier() else "the loss"
    if abs(there - 1) < 1e-3:
        return f"If it measures agreement, which is 1 at best: return 1 - {name}. The loss is 0 there then."
    return f"Change its sign: return -{name}. The loss is {n(-there)} there then, and up to {n(-min(near))} around."


def _answer(case: Case, out: Output) -> tuple[np.ndarray, Callable[[], Iterator[np.ndarray]]] | None:
    """Predictions that are the targets, and points around them that the model can give; None where the targets are
    nothing that predictions could be."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if y_true.dtype.kind not in "fiub" or y_pred.dtype.kind != "f" or not 0 < y_pred.size <= _LARGEST:
        return None
    allowed = case.range_of(out.y_pred)
    classes = y_pred.shape[-1] if y_pred.ndim else 0
    if y_true.size * classes == y_pred.size and classes > 1 and allowed.within(0, 1):
        labels = y_true.astype(np.float64).reshape(y_pred.shape[:-1])
        if not np.all((labels == np.round(labels)) & (labels >= 0) & (labels < classes)):
            return None
        right = np.eye(classes)[labels.astype(int)]
    elif y_true.size == y_pred.size:
        right = y_true.astype(np.float64).reshape(y_pred.shape)
    else:
        return None
    if not np.all(np.isfinite(right)) or np.any((right < allowed.low - 1e-6) | (right > allowed.high + 1e-6)):
        return None
    rows = allowed.rows or (allowed.within(0, 1) and np.allclose(right.sum(-1), 1) and classes > 1)
    spread = max(float(np.std(right)), 1e-3)

    def around() -> Iterator[np.ndarray]:
        rng = np.random.default_rng(0)
        for _ in range(_DRAWS):
            if rows:
                other = rng.dirichlet(np.ones(classes), right.shape[:-1])
                yield 0.7 * right + 0.3 * other
            elif allowed.bounded:
                other = allowed.low + rng.random(right.shape) * (allowed.high - allowed.low)
                yield 0.7 * right + 0.3 * other
            else:
                step = 0.3 * spread * rng.normal(size=right.shape)
                yield np.clip(right + step, allowed.low, allowed.high)
                yield np.clip(right - step, allowed.low, allowed.high)

    return right, around


def _on_and_on(case: Case, out: Output, slopes: list[np.ndarray]) -> bool:
    """Is the slope one number, whatever prediction and target, in a loss of targets that differ?"""
    first = slopes[0].flat[0]
    if case.range_of(out.y_pred).limited or not first:
        return False
    if any(not np.allclose(slope, first, rtol=1e-5, atol=0) for slope in slopes):
        return False
    y_true = case.value(out.y_true)
    if len(np.unique(y_true)) <= 2:  # -1 and 1, as critics have them
        return False
    return any(out.y_true in (*op.inputs, *op.outputs) for op in case.operations(out))
