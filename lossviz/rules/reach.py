"""What the output can never be, and losses that cannot move: faults that no training mends."""

from __future__ import annotations

from functools import partial

import numpy as np

from lossviz.backend.program import Op, ancestors
from lossviz.engine import ops
from lossviz.rules import evidence
from lossviz.rules.bounds import Range
from lossviz.rules.evidence import Case, Output, Tensor, loss_name
from lossviz.rules.floor import floor
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import counted, n

_MARGINS = "A hinge wants predictions from -1 to 1 and beyond: activation='tanh', or none, in the last layer."

#: A floor that is less than this part of what the loss has to lose is no news; from the other on it is an error.
_NEWS, _BAD = 0.01, 0.1


#: Functions and kinds of operations through which no gradient goes, and words for them.
_STOPS = {
    **dict.fromkeys(("round", "floor", "ceil"), "a rounding"),
    **dict.fromkeys(("greater", "greater_equal", "less", "less_equal", "equal", "not_equal"), "a comparison"),
    "argmax": "an argmax",
    "argmin": "an argmin",
    "sign": "a sign",
    "stop": "a stop_gradient",
    "one_hot": "a one-hot code",
}


@rule("out-of-reach", "one_number")
def out_of_reach(case: Case) -> Faults:
    """Targets that the last operations of the model can never give: the loss has a floor.

    Way out: no activation in the last layer, as regression does, or targets scaled into its range.
    """
    crossed = {entry.owner for entry in case.crossentropies}
    for owner, out in enumerate(case.outputs):
        if case.loss is None or case.model is None or owner in crossed or out.tensor is None or not out.reaches:
            continue
        allowed = case.range_of(out.y_pred)
        if not allowed.limited or allowed.constant or not _outside(case, out, allowed):
            continue
        found, now = floor(case, out, allowed), case.number(out)
        if found is None or not evidence.finite(found.lowest, now) or now < found.lowest * (1 - 1e-5):
            continue
        share = (found.lowest - found.without) / max(now - found.without, 1e-30)
        if share < _NEWS:
            continue
        targets = case.value(out.y_true).astype(np.float64)
        beyond = _beyond(targets.reshape(case.shape(out.y_pred)), allowed)
        limit = "" if found.reached else ", a limit that it never quite reaches"
        outside = int(beyond.sum())
        span = f"{n(targets.min())} to {n(targets.max())}"
        text = f"the last operations give numbers {words_of(allowed)}"
        text += f", and {outside} of {targets.size} targets, which go from {span}, are out of reach" if outside else ""
        text += f". The loss is {n(now)} now, and with any weights never below {n(found.lowest)}{limit}"
        text += f"; without that limit it could come to {n(found.without)}."
        fix = _MARGINS if "hinge" in loss_name(out) else _way_out(allowed, targets, _recurrent(out.y_pred))
        yield out.name, text, fix, "error" if share >= _BAD else "warning"


def _outside(case: Case, out: Output, allowed: Range) -> bool:
    """Is there reason to look? A target beyond the range, or a loss that wants a margin."""
    y_true = case.value(out.y_true)
    shape = case.shape(out.y_pred)
    if y_true.size != int(np.prod(shape)) or y_true.dtype.kind not in "fiub":
        return False
    targets = y_true.reshape(shape).astype(np.float64)
    if "hinge" in loss_name(out):
        return True
    off = allowed.rows and np.any(np.abs(targets.sum(-1) - 1) > 1e-3)
    return bool(off or np.any(_beyond(targets, allowed)))


def _beyond(targets: np.ndarray, allowed: Range) -> np.ndarray:
    slack = 1e-6 * max(1.0, float(np.abs(targets[np.isfinite(targets)]).max(initial=0.0)))
    return (targets < allowed.low - slack) | (targets > allowed.high + slack)


def words_of(allowed: Range) -> str:
    low, high = float(np.min(allowed.low)), float(np.max(allowed.high))
    if allowed.rows:
        return "between 0 and 1 that sum to 1"
    if not np.isfinite(high):
        return f"above {n(low)}" if allowed.open_low else f"from {n(low)} on"
    if not np.isfinite(low):
        return f"up to {n(high)}"
    return f"between {n(low)} and {n(high)}"


def _recurrent(tensor: Tensor) -> bool:
    """Is the last layer a recurrent one, which fills a list step by step?"""
    op = ops.behind(tensor, "slice", "transpose", "concat", "move").op
    return "list" in op.info or (op.kind == "opaque" and op.info.get("how") == "loop")


def _way_out(allowed: Range, targets: np.ndarray, recurrent: bool) -> str:
    plain = "Leave the last activation out (activation=None), as regression does"
    if recurrent:
        plain = "Add a layer without activation after the recurrent one, such as Dense"
    if not allowed.bounded:
        return f"{plain}, or bring the targets into the range."
    low, high = float(np.min(allowed.low)), float(np.max(allowed.high))
    lowest = float(targets.min())
    shifted = f"(y {'-' if lowest >= 0 else '+'} {n(abs(lowest))})" if lowest else "y"
    scaled = f"{shifted} / {n(float(np.ptp(targets)))}"
    if allowed.rows or np.ptp(targets) == 0:
        return f"{plain}."
    if (low, high) != (0, 1):
        scaled = f"{n(low)} + {n(high - low)} * {scaled}"
    return f"{plain}, or scale the targets: {scaled}, and undo it for the predictions."


@rule("cannot-change", "the_step")
def cannot_change(case: Case) -> Faults:
    """A loss that no step of the optimizer changes: the output is constant, or every gradient is exactly 0.

    Way out: two units with softmax or one with sigmoid; predictions where the loss has a slope, and weights that
    are not all dead.
    """
    if case.loss is None or case.model is None or not case.loss.trainable:
        return
    crossed = {entry.owner for entry in case.crossentropies}
    for owner, out in enumerate(case.outputs):
        if out.tensor is None or not out.reaches:
            continue
        now = case.number(out)
        constant = case.range_of(out.y_pred).constant and case.range_of(out.y_pred, data=True).constant
        if now == 0 and not constant:
            continue
        cut = None if constant else case.once(("cut", out.name), partial(_cut, case, out))
        if cut is not None and not _any_slope(case, out):
            yield (
                out.name,
                f"{cut}: every gradient is exactly 0, whatever the weights are, and the loss stays {n(now)}.",
                "Give the loss the numbers before that step (the probabilities, not what is decided by them), and keep "
                "the step for metrics and for predictions.",
            )
            continue
        if not constant and not _suspect(case, out):
            continue
        sure = constant and owner not in crossed  # Keras's crossentropies may read what is behind the activation
        if not np.isfinite(now) or (not sure and _any_slope(case, out)):
            continue
        if constant:
            value = n(float(np.mean(case.range_of(out.y_pred).low)))
            yield (
                out.name,
                f"the output is {value} for every input and all weights: the loss is {n(now)} and cannot change. "
                + ("A softmax of one unit is always 1." if _softmax_of_one(case, out) else ""),
                _for_one_unit(case, out),
            )
        elif _flat(out):
            if owner in crossed:
                continue  # it clips what is no probability: see "unnormalised"
            y_pred = case.value(out.y_pred).astype(np.float64)
            better = _better(case, out)
            if better is None or not better < now - 1e-6 * abs(now):
                continue
            span = f"{n(y_pred.min())} to {n(y_pred.max())}"
            clips = " (it clips what is below 0)" if loss_name(out) == "mean_squared_logarithmic_error" else ""
            yield (
                out.name,
                f"the loss, {n(now)}, has no slope at any of these predictions, {span}{clips}: every gradient is "
                f"exactly 0, and nothing moves. Predictions equal to the targets would give {n(better)}.",
                "Keep the predictions where the loss has a slope: activation='softplus' in the last layer, or another "
                "start of its weights.",
            )
        else:
            value = case.value(out.y_pred)
            yield (
                out.name,
                f"all {counted(value.size, 'prediction')} are {n(float(value.flat[0]))}, where the model has no slope: "
                f"every gradient is exactly 0 on this data, and the loss stays {n(now)}.",
                "Leave the last activation out (activation=None), or start again with other weights.",
            )


def _cut(case: Case, out: Output) -> str | None:
    """What stops every gradient between the trained weights and the loss, or None where nothing does."""
    through = set(case.loss.trainable)
    passed, last = set(through), ""
    for op in ancestors([out.y_pred, out.tensor]):
        if through.isdisjoint(op.inputs):
            continue
        through.update(op.outputs)
        if passed.isdisjoint(op.inputs[1:] if op.kind == "select" else op.inputs):
            continue
        word = _stop(op)
        whole = op.kind == "cast" and not op.outputs[0].is_floating
        if word or whole:
            last = word or last or "a cast to whole numbers"
        else:
            passed.update(op.outputs)
    if out.tensor in passed or out.y_pred not in through:
        return None
    if out.tensor not in through:
        return "the loss does not depend on the predictions"
    return f"between the weights and the loss stands {last}, through which no gradient goes"


def _stop(op: Op) -> str:
    return _STOPS.get(op.info["how"] if op.kind in ("elementwise", "reduce") else op.kind, "")


def _suspect(case: Case, out: Output) -> bool:
    """Are all predictions the same, or does the loss have no slope at any of them?"""
    values = case.value(out.y_pred)
    return _flat(out) or (values.size > 0 and bool(np.all(values == values.flat[0])))


def _flat(out: Output) -> bool:
    slope = out.term.gradient if out.term is not None else None
    return slope is not None and slope.elements is not None and not np.any(slope.elements)


def _any_slope(case: Case, out: Output) -> bool:
    """Does any trained weight have a gradient that is not exactly 0?"""
    trainable = case.loss.trainable
    slopes = case.once(("slopes", out.tensor), lambda: case.loss.program.gradients(out.tensor, trainable))
    return any(np.any(slope) for slope in case.all_values(slopes))


def _better(case: Case, out: Output) -> float | None:
    """The loss of predictions that are the targets."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if out.loss is None or y_true.size != y_pred.size or y_true.dtype.kind not in "fiub":
        return None
    weight, mask = case.weight_and_mask(out)
    return case.call(out, y_true, y_true.reshape(y_pred.shape).astype(y_pred.dtype), weight, mask)


def _softmax_of_one(case: Case, out: Output) -> bool:
    return case.range_of(out.y_pred).rows and case.shape(out.y_pred)[-1] == 1


def _for_one_unit(case: Case, out: Output) -> str:
    y_true = case.value(out.y_true)
    labels = y_true.dtype.kind in "fiub" and bool(np.all((y_true == np.round(y_true)) & (y_true >= 0)))
    classes = int(y_true.max()) + 1 if labels and y_true.size else 0
    if labels and classes <= 2:
        return (
            "For two classes and one unit use activation='sigmoid' and loss='binary_crossentropy'; for softmax, two "
            "units and loss='sparse_categorical_crossentropy'."
        )
    if labels and classes <= 100 and "crossentropy" in loss_name(out):
        return f"Give the last layer {classes} units, and use loss='sparse_categorical_crossentropy'."
    return "Leave the last activation out (activation=None) for regression."
