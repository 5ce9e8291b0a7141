"""The last activation and what the loss takes its result for."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend.program import Op, Value, ancestors
from lossviz.backend.recorded import Crossentropy
from lossviz.engine import ops
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output, Tensor, loss_name
from lossviz.rules.floor import OfPredictions
from lossviz.rules.reach import words_of
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import close, n

#: Losses of Keras that take the logarithm of the predictions themselves.
_OWN_LOGARITHM = ("categorical_focal_crossentropy", "kl_divergence")
#: Operations that take, or may be part of, a softmax or a sigmoid.
_SQUASHING = ("softmax", "log_softmax", "sigmoid", "softplus", "log1p")

#: Losses of more predictions are not called at other points.
_LARGEST = 200_000


@rule("double-activation", "custom_loss")
def double_activation(case: Case) -> Faults:
    """Softmax or sigmoid is applied twice, or would be on another backend (`from_logits`).

    Way out: one activation: none in the last layer and `from_logits=True`, or the activation and
    `from_logits=False`.
    """
    seen = set()
    for where, outer, inner, tensor in _twice(case):
        if where in seen:
            continue
        seen.add(where)
        out = case.output(where)
        text = f"the loss takes a {outer} of what is already a {inner}"
        if out is not None and outer == inner:
            p = case.value(tensor).astype(np.float64)
            with np.errstate(divide="ignore"):
                undone = np.log(p) - (np.log1p(-p) if inner == "sigmoid" else 0.0)
            undone = np.clip(undone, -80, 80).astype(case.value(tensor).dtype)
            right = float(np.mean(case.fed(out.tensor, tensor, undone).astype(np.float64)))
            text += f": it is {n(case.number(out))}, with one {inner} {n(right)}"
        yield (
            where,
            f"{text}.",
            f"Take one away: no activation in the last layer and from_logits=True, or one {inner} and "
            "from_logits=False."
            if out is None
            or not out.is_custom
            or any(case.output(evidence.owner(case, e)) is out for e in case.crossentropies)
            else f"Take one away: no activation in the last layer, or no {outer} in the loss.",
        )
    for entry in case.crossentropies:
        where = evidence.owner(case, entry)
        chain = evidence.squashes(entry.output)
        if not entry.from_logits or where in seen or not entry.takes_logits:
            continue
        seen.add(where)
        word = chain[0][0] if chain else "sigmoid" if entry.kind == "binary" else "softmax"
        text = f"from_logits=True, but the predictions are already a {word}"
        out = case.output(where)
        if out is not None and out.loss is not None:
            elsewhere = case.call_again(out)
            text += (
                f". On TensorFlow Keras takes it out again, so the loss, {n(case.number(out))}, is right here; on "
                f"JAX, or with a layer between, it is applied twice: {n(elsewhere)}."
            )
        else:
            text += ": Keras takes it out again on TensorFlow, and applies it twice on JAX."
        yield (
            where,
            text,
            "Take one away: no activation in the last layer, or from_logits=False.",
        )


def _twice(case: Case) -> Iterator[tuple[str, str, str, Value]]:
    """Where a softmax or sigmoid is taken of another: the output, the two, and the result of the inner one."""
    if case.loss is None:
        return
    for out in case.outputs:
        chain = evidence.squashes(out.y_pred)
        if len(chain) > 1:
            yield out.name, chain[0][0], chain[1][0], chain[1][1]
    for out in case.outputs:
        outer = case.once(("by value", out.name), partial(_by_value, case, out))
        if outer is not None:
            inner = evidence.squashes(out.y_pred)
            yield out.name, outer, inner[0][0] if inner else outer, out.y_pred
    for op in case.once("squashing", partial(_squashing, case)):
        found = _squashed(case, op)
        if found is not None:
            outer, inner, value = found
            name = next((out.name for out in case.outputs if value.op in case.operations(out)), "compute_loss")
            yield name, outer, inner, value
    for entry in case.crossentropies:
        if entry.from_logits and not entry.takes_logits:
            outer = "sigmoid" if entry.kind == "binary" else "softmax"
            for inner, value in _already(case, entry.output, outer)[:1]:
                yield evidence.owner(case, entry), outer, inner, value


def _squashing(case: Case) -> list[Op]:
    """The operations of the loss that take a softmax or a sigmoid, or may be part of one."""
    order = ancestors([case.loss.root, *(out.tensor for out in case.outputs)])
    inside = ("log_softmax", "log1p")  # also in a loss that a layer adds
    return [op for op in order if (how := op.info.get("how")) in _SQUASHING and (how in inside or not op.forward)]


def _squashed(case: Case, op: Op) -> tuple[str, str, Value] | None:
    """Which of both the operation takes, and which its argument is already, with the result of that one."""
    value, outer, plain = op.inputs[0], "softmax" if "softmax" in op.info["how"] else "sigmoid", op.kind == "squash"
    if op.info["how"] == "softplus":  # of p, and of -p, it is the logarithm of a sigmoid
        value = value.op.inputs[0] if value.op.kind == "neg" else value
    elif op.info["how"] == "log1p":  # as TensorFlow has it: log1p(exp(-abs(p))), or with where(p >= 0, -p, p)
        power = value.op.inputs[0].op if value.op.info.get("how") == "exp" else value.op
        one, *others = power.inputs or [value]
        if power is value.op:
            return None
        if power.kind == "neg" and one.op.info.get("how") == "abs" and not op.forward:
            value = one.op.inputs[0]
        elif power.kind == "select" and others[0].op.kind == "neg" and others[0].op.inputs[0] is others[1]:
            value, plain = others[1], True
        else:
            return None
    chain = _already(case, value, outer) if plain else evidence.squashes(value)
    if not plain and chain and chain[0][0] != outer:
        return None
    return (outer, *chain[0]) if chain else None


def _already(case: Case, value: Value, outer: str) -> list[tuple[str, Value]]:
    """What a softmax or sigmoid is taken of, where it is one already, however it was made."""
    found = evidence.squashes(value)
    return found or _squashed_by_hand(case, value, outer) or _squashed_by_range(case, value, outer)


def _squashed_by_hand(case: Case, value: Value, outer: str) -> list[tuple[str, Value]]:
    """As `squashes`, for a quotient that is a softmax or a sigmoid by its values."""
    value = ops.behind(value)
    if (value.op.kind != "div" and value.op.info.get("how") != "reciprocal") or not value.rank:
        return []
    p = case.value(value).astype(np.float64)
    inside = bool(np.all((p > 0) & (p < 1)))
    if outer == "softmax":
        inside = bool(np.all((p >= 0) & (p <= 1))) and p.shape[-1] > 1 and np.allclose(p.sum(-1), 1, atol=1e-4)
    return [(outer, value)] if inside else []


def _squashed_by_range(case: Case, value: Value, outer: str) -> list[tuple[str, Value]]:
    """As `squashes`, for what the model keeps between 0 and 1, however it does so."""
    allowed = case.range_of(value)
    if not value.op.forward or allowed.constant or not allowed.within(0, 1):
        return []
    p = case.value(value).astype(np.float64)
    rows = outer == "sigmoid" or (p.shape[-1] > 1 and np.allclose(p.sum(-1), 1, atol=1e-4))
    return [(outer, value)] if rows and p.size and np.all((p > 0) & (p < 1)) else []


#: Points at which a loss shows that it takes a sigmoid or softmax of what it is given.
_POINTS = (-2.0, 0.0, 0.4, 1.0, 3.0)


def _by_value(case: Case, out: Output) -> str | None:
    """ "sigmoid" or "softmax", if the slope of a loss of one's own moves with the predictions as that of a crossentropy
    of logits does: by the sigmoid (softmax) of them, times something positive that does not depend on them."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if not out.is_custom or out.loss is None or not 0 < y_pred.size <= _LARGEST or y_pred.dtype.kind != "f":
        return None
    if not case.range_of(out.y_pred).within(0, 1) or case.range_of(out.y_pred).constant:
        return None
    rng = np.random.default_rng(0)
    points = [point + 0.5 * rng.random(y_pred.shape) for point in _POINTS]
    with case.untouched():
        loss = OfPredictions(case, out, y_true, y_pred)
        slopes = [loss(point)[1] for point in points]
    if not all(np.all(np.isfinite(slope)) for slope in slopes):
        return None
    moved = [slope - slopes[0] for slope in slopes[1:]]
    for kind, function in (("softmax", _softmax), ("sigmoid", _sigmoid)):
        if kind == "softmax" and (y_pred.shape[-1] < 2 or not np.allclose(y_pred.sum(-1), 1, atol=1e-3)):
            continue  # such as pairs that are ranked
        meant = [function(point) - function(points[0]) for point in points[1:]]
        axis = -1 if kind == "softmax" else None
        factor = sum(a * b for a, b in zip(moved, meant))
        size = sum(b * b for b in meant)
        if axis is not None:
            factor, size = factor.sum(axis, keepdims=True), size.sum(axis, keepdims=True)
        factor = factor / size
        largest = float(np.abs(factor).max())
        fits = all(np.allclose(a, factor * b, rtol=0, atol=2e-3 * largest) for a, b in zip(moved, meant))
        if largest > 0 and fits and factor.min() > -1e-3 * largest:
            return kind
    return None


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _softmax(z: np.ndarray) -> np.ndarray:
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@rule("swapped-activation", "custom_loss")
def swapped_activation(case: Case) -> Faults:
    """A sigmoid before a categorical crossentropy, or a softmax before a binary one: Keras swaps it.

    Way out: softmax with the categorical crossentropies (one class per position), sigmoid with the binary one
    (independent labels).
    """
    for entry in case.crossentropies:
        binary = entry.kind == "binary"
        chain = evidence.squashes(entry.output)
        wrong = "softmax" if binary else "sigmoid"
        if not chain or chain[0][0] != wrong or not entry.takes_logits:
            continue
        where = evidence.owner(case, entry)
        out = case.output(where)
        right = "sigmoid" if binary else "softmax"
        text = (
            f"the predictions are a {wrong}, but the {entry.kind.replace('_', ' ')} crossentropy takes the "
            f"{right} of what is behind it"
        )
        if out is not None and out.loss is not None:
            elsewhere = case.call_again(out)
            text += f": {n(case.number(out))}. Of the predictions themselves, as on JAX, it is {n(elsewhere)}"
        if wrong == "softmax" and case.shape(entry.output)[-1] == 1:
            text += "; a softmax of one unit is always 1, whatever the loss comes to"
        fix = (
            "Use activation='sigmoid' for labels that are independent, or categorical_crossentropy for one class."
            if binary
            else "Use activation='softmax' for one class per position, or binary_crossentropy for independent labels."
        )
        yield where, f"{text}.", fix


@rule("unnormalised", "one_number")
def unnormalised(case: Case) -> Faults:
    """A crossentropy of numbers that are no probabilities: rows that do not sum to 1, values outside 0 to 1.

    Way out: `from_logits=True` for logits; else the activation that the loss expects, in the last layer.
    """
    for entry in _probabilities(case):
        text = _missed(case, entry)
        if text is None:
            continue
        where = evidence.owner(case, entry)
        out = case.output(where)
        own = out is not None and loss_name(out) in _OWN_LOGARITHM
        clips = entry.kind == "binary" or (out is not None and loss_name(out) == "kl_divergence")
        text += ", but the loss takes them for probabilities: " + (
            "it clips them to between 0 and 1" if clips else "it divides each row by its sum and clips it"
        )
        if out is not None and out.loss is not None and not own:
            with _keras.crossentropies_as(from_logits=True):
                logits = case.call_again(out)
            text += f", and the loss is {n(case.number(out))}. If they are logits, it is {n(logits)}"
        elif out is not None and out.tensor is not None:
            text += f", and the loss is {n(case.number(out))}"
        yield where, f"{text}.", _way_out(case, entry, where)


def _probabilities(case: Case) -> Iterator[Crossentropy]:
    """The crossentropies that take the output for probabilities, where no activation of their kind makes it."""
    for entry in case.crossentropies:
        binary = entry.kind == "binary"
        chain = evidence.squashes(entry.output)
        last = entry.axis in (-1, len(entry.output.shape) - 1)
        made = chain and (binary or (chain[0][0] == "softmax" and last))
        undone = entry.takes_logits and (binary or last)
        if not entry.from_logits and not made and not undone:
            yield entry
    for entry in _other_crossentropies(case):  # these never look behind the activation
        chain = evidence.squashes(entry.output)
        if not entry.from_logits and not (chain and chain[0][0] == "softmax" and entry.axis == -1):
            yield entry


def _missed(case: Case, entry: Crossentropy) -> str | None:
    """How the numbers of this batch miss being probabilities, or None where they are."""
    p = case.value(entry.output).astype(np.float64)
    if not p.size or not np.all(np.isfinite(p)):
        return None
    low, high = p.min(), p.max()
    sums = p.sum(axis=entry.axis)
    sums = sums[sums != 0]  # Keras puts zeros where a class is ignored
    if not sums.size:
        return None
    slack = 0.03 if evidence.narrow(entry.output) else 0.01
    if low < -1e-6 or high > 1 + slack:
        return f"the predictions lie between {n(low)} and {n(high)}"
    if entry.kind == "binary" or np.all(np.abs(sums - 1) <= slack):
        return None
    several = f"between {n(sums.min())} and " if not close(sums.min(), sums.max()) else ""
    return f"the predictions of a position sum to {several}{n(sums.max())}"


@rule("unbounded-output", "one_number")
def unbounded_output(case: Case) -> Faults:
    """A crossentropy takes the output for probabilities, and nothing in the model keeps it between 0 and 1.

    Way out: `from_logits=True`, or sigmoid (binary) or softmax (categorical) in the last layer.
    """
    for entry in _probabilities(case):
        allowed = case.range_of(entry.output, data=True)
        where = evidence.owner(case, entry)
        out = case.output(where)
        spans = (allowed.free and not allowed.bounded) or (
            not allowed.within(-0.01, 1.01) and _spans(case, entry.output)
        )
        if not spans or _missed(case, entry) is not None:
            continue
        low, high = float(np.min(allowed.low)), float(np.max(allowed.high))
        divides = entry.kind != "binary" and (out is None or loss_name(out) != "kl_divergence")
        if divides and low >= 0 and allowed.open_low:
            continue  # positive numbers, which the loss divides by their sum
        values = case.value(entry.output).astype(np.float64)
        if not values.size or not np.all(np.isfinite(values)):
            continue
        reach = "anything" if not np.isfinite(low) and not np.isfinite(high) else f"anything {words_of(allowed)}"
        way_out = _way_out(case, entry, where)
        if (
            "from_logits" in way_out
            and out is not None
            and out.loss is not None
            and loss_name(out) not in _OWN_LOGARITHM
        ):
            with _keras.crossentropies_as(from_logits=True):
                way_out += f" The loss, {n(case.number(out))}, is {n(case.call_again(out))} then."
        yield (
            where,
            f"the loss takes the output for probabilities, but the model can make it {reach}: on this batch it happens "
            f"to lie between {n(values.min())} and {n(values.max())}; what leaves 0 to 1 is clipped, and has no slope.",
            way_out,
        )


def _spans(case: Case, tensor: Tensor) -> bool:
    """Is it an activation of something that training can make anything, so that it takes its whole range?"""
    if case.loss is None:
        return False
    value = ops.behind(tensor)
    how = value.op.info.get("how")
    if how in ("maximum", "minimum", "clip", "relu6"):
        return case.range_of(value).free
    return how in ("tanh", "softsign", "erf", "sin", "cos") and case.range_of(value.op.inputs[0]).free


def _way_out(case: Case, entry: Crossentropy, where: str) -> str:
    """An activation that gives probabilities, and `from_logits=True` where the loss has that argument."""
    out = case.output(where)
    if entry.kind != "binary" and case.shape(entry.output)[entry.axis] == 1:
        return "Use activation='sigmoid' and loss='binary_crossentropy': one unit has no second class."
    activation = "sigmoid" if entry.kind == "binary" else "softmax"
    first = "Use " if out is not None and loss_name(out) == "kl_divergence" else "Use from_logits=True, or "
    return f"{first}activation='{activation}' in the last layer."


def _other_crossentropies(case: Case) -> Iterator[Crossentropy]:
    """Keras's losses that take the logarithm of the predictions themselves."""
    for owner, out in enumerate(case.outputs):
        if loss_name(out) in _OWN_LOGARITHM:
            options = _keras.options_of(out.loss)
            yield Crossentropy(
                "categorical", out.y_true, out.y_pred, bool(options.get("from_logits", False)), owner,
                options.get("axis", -1),
            )  # fmt: skip
