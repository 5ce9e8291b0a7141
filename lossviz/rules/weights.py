"""Weights and masks: what they meet, and what they are divided by."""

from __future__ import annotations

import math

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import close, counted, first, n


@rule("weights-axis", "weights", since="3.0")
def weights_axis(case: Case) -> Faults:
    """Weights or a mask meet the wrong axis of the element losses, because two axes have the same size.

    Way out: weights of shape (batch, 1, ...), or a loss that keeps the axis that the mask is about.
    """
    for out in case.outputs:
        if out.values is None or (out.weight is None and out.mask is None):
            continue
        shape = case.shape(out.values)
        words = (("sample_weight", None if case.class_weight else out.weight), ("the mask", out.mask))
        suspects = [(word, t) for word, t in words if t is not None and shape and _misaligned(shape, case.shape(t))]
        if not suspects or not shape:
            continue
        values = case.value(out.values).astype(np.float64)
        weight, mask = case.weight_and_mask(out)
        for word, tensor in suspects:
            array = case.value(tensor).astype(np.float64)
            short, long = (array, values) if array.ndim < values.ndim else (values, array)
            both = np.broadcast_shapes(short.shape, long.shape)
            meant = _leading(short, long)
            if np.ptp(long) == 0 or np.array_equal(np.broadcast_to(short, both), np.broadcast_to(meant, both)):
                continue  # the same on both axes, such as equal weights
            if array.ndim < values.ndim:
                right = _reduced(values, *(None if a is None else _leading(a, values) for a in (weight, mask)), out=out)
                yield (
                    out.name,
                    f"{word} of shape {array.shape} is lined up with the last axis of the element losses, shape "
                    f"{shape}, not with the samples: the loss is {n(case.number(out))}. One weight per sample gives "
                    f"{n(right)}.",
                    f"Pass {word} of shape {(shape[0], *(1 for _ in shape[1:]))}: "
                    f"{word}.reshape{(-1, *(1 for _ in shape[1:]))}."
                    if word != "the mask"
                    else "Return one loss value per step, of the shape of the mask.",
                )
                continue
            right = _masked_elements(out, array)
            yield (
                out.name,
                f"the loss returns one value per sample, shape {shape}, and {word} of shape {array.shape} meets the "
                f"samples along its last axis, so step t of every sample has the loss of sample t: the loss is "
                f"{n(case.number(out))}." + (f" Over the steps that count it is {n(right)}." if right else ""),
                "Return one loss value per step: average the last axis only, and give y_true and the predictions a "
                "last axis, such as shape (batch, steps, 1).",
            )


def _misaligned(values: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Do ranks differ, after Keras has brought them together?"""
    one, other = evidence.same_rank(np.empty(values, bool), np.empty(weight, bool))
    return one.ndim != other.ndim and min(one.ndim, other.ndim) > 0 and min(one.size, other.size) > 1


def _leading(short: np.ndarray, long: np.ndarray) -> np.ndarray:
    """`short` lined up with the first axes of `long`, as samples are."""
    if short.ndim > long.ndim or short.shape != long.shape[: short.ndim]:
        return short
    return np.broadcast_to(short.reshape(*short.shape, *(1 for _ in range(long.ndim - short.ndim))), long.shape)


def _masked_elements(out: Output, mask: np.ndarray) -> float | None:
    """The mean of the element losses over the steps that count, where the report has them by step."""
    elements = out.term.elements if out.term is not None else None
    if elements is None or elements.shape[: mask.ndim] != mask.shape or not mask.any():
        return None
    steps = elements.reshape(*mask.shape, -1).mean(axis=-1)
    return float(np.sum(steps * mask) / np.sum(mask))


@rule("weights-divisor", "weights", since="3.7")
def weights_divisor(case: Case) -> Faults:
    """`mean_with_sample_weight` divides by the weights as they were before they were broadcast.

    Way out: weights of the full shape of the element losses.
    """
    for out in case.outputs:
        if out.values is None or out.reduction != "mean_with_sample_weight" or out.weight is None:
            continue
        shape = case.shape(out.values)
        if not shape or math.prod(shape) <= math.prod(case.shape(out.weight)) or out.mask is not None:
            continue
        values, weight = evidence.same_rank(case.value(out.values), case.value(out.weight).astype(np.float64))
        spread = np.broadcast_to(weight, np.broadcast_shapes(weight.shape, values.shape))
        if values.ndim != weight.ndim or not spread.sum():
            continue
        right = float(np.sum(values * spread) / np.sum(spread))
        if not close(right, case.number(out)):
            yield (
                out.name,
                f"{case.weight_word} of shape {weight.shape} is spread over element losses of shape {shape}, but their "
                f"sum is divided by the {weight.size} weights alone, {n(float(weight.sum()))}: the loss is "
                f"{n(case.number(out))}, the weighted mean is {n(right)}.",
                f"Pass weights of the full shape: np.broadcast_to(sample_weight, {shape}).",
            )


@rule("zero-weight-nan", "weights")
def zero_weight_nan(case: Case) -> Faults:
    """A weight of 0 or a mask does not remove a NaN: 0 times NaN is NaN.

    Way out: replace the values that do not count before the loss sees them: `np.nan_to_num(y)`, or `keras.ops.where`
    inside the loss.
    """
    for out in case.outputs:
        if out.values is None or (out.weight is None and out.mask is None) or math.isfinite(case.number(out)):
            continue
        values = case.value(out.values).astype(np.float64)
        factor = np.ones(values.shape)
        for array in case.weight_and_mask(out):
            if array is not None:
                _, array = evidence.same_rank(values, array.astype(np.float64))
                factor = factor * array
        spread, factor = np.broadcast_arrays(evidence.same_rank(values, factor)[0], factor)
        bad = ~np.isfinite(spread)
        without = bad & (factor == 0)
        if not without.any():
            continue
        places = np.argwhere(without)
        verb = "is" if len(places) == 1 else "are"
        text = (
            f"{counted(len(places), 'element loss')} of weight 0 {verb} not finite, first at index "
            f"{tuple(places[0].tolist())}; 0 × NaN is NaN, so the loss is {n(case.number(out))}."
        )
        if (without == bad).all():
            text += f" With 0 in their place it is {n(_reduced_like(case, out, np.where(bad, 0.0, spread)))}."
        yield (
            out.name,
            text,
            "Replace the values that do not count before the loss sees them, such as np.nan_to_num(y), or with "
            "keras.ops.where inside the loss.",
        )


def _reduced_like(case: Case, out: Output, values: np.ndarray) -> float:
    weight, mask = case.weight_and_mask(out)
    return _reduced(values, weight, mask, out)


def _reduced(values: np.ndarray, weight: np.ndarray | None, mask: np.ndarray | None, out: Output) -> float:
    """The mean (or sum, or weighted mean) that the loss would be with these arrays."""
    from lossviz import regimes

    found = regimes.reduce(values, weight, mask, regime="keras-3", reduction=out.reduction or "sum_over_batch_size")
    return float(np.mean(found.value))


@rule("class-weight", "weights", since="3.0")
def class_weight(case: Case) -> Faults:
    """`class_weight` is refused, misread, or silently 1 for a class that it does not name.

    Way out: name every class; for several outputs or positions, `sample_weight` in place of `class_weight`.
    """
    weights = case.class_weight
    if weights is None:
        return
    way_out = "Give every position its weight: sample_weight = np.array([w0, w1, ...])[labels]"
    if case.has_sample_weight:
        yield (
            "class_weight",
            "class_weight and sample_weight are given together, and Keras refuses both in one call.",
            "Multiply them into one sample_weight.",
        )
        return
    if keras.tree.is_nested(case.y) or case.y is None:
        count = len(keras.tree.flatten(case.y))
        yield (
            "class_weight",
            f"class_weight is given for {count} targets, and Keras takes it for one output only.",
            f"{way_out}, one array per output.",
        )
        return
    y = np.asarray(case.y)
    if y.ndim > 2:
        yield (
            "class_weight",
            f"class_weight needs one class per sample, and y has shape {y.shape}: fit fails with a TypeError.",
            f"{way_out}, with labels = y.argmax(-1) for one-hot y.",
        )
        return
    rows = y.ndim == 2 and y.shape[1] > 1
    one_hot = rows and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=-1) == 1)
    losses = _losses_of_labels(case, y)
    if rows and (losses is not None or not one_hot):
        yield _class_weight_of_rows(y, losses, weights, way_out)
        return
    classes = y.argmax(-1) if rows else np.round(y.ravel()).astype(int)
    named = [key for key in weights if isinstance(key, (int, float, np.integer, np.floating))]
    missing = sorted({int(label) for label in np.unique(classes)} - {int(key) for key in named if key == int(key)})
    if missing:
        counts = ", ".join(f"{label} ({counted(int(np.sum(classes == label)), 'sample')})" for label in missing)
        yield (
            "class_weight",
            f"class_weight names {list(weights)}, but not {'class' if len(missing) == 1 else 'classes'} {counts} of y: "
            f"Keras silently gives {'it' if len(missing) == 1 else 'them'} the weight 1.",
            "Name every class: class_weight={" + ", ".join(f"{label}: ..." for label in np.unique(classes)) + "}.",
        )


def _losses_of_labels(case: Case, y: np.ndarray) -> np.ndarray | None:
    """The element losses where there is one for each entry of y, which then are labels; else None."""
    out = case.outputs[0] if case.outputs else None
    if out is None or out.values is None or case.shape(out.values) != y.shape:
        return None
    return case.value(out.values).astype(np.float64)


def _class_weight_of_rows(y: np.ndarray, losses: np.ndarray | None, weights, way_out: str) -> tuple[str, str, str]:
    taken = _keras.sample_weight_from_class_weight(y, dict(weights))
    text = (
        f"y of shape {y.shape} has no single class per sample, but class_weight gives each sample one weight: that of "
        f"the position of its largest value, {first(y.argmax(-1).tolist())}, so the weights are "
        f"{first(taken.tolist())}"
    )
    if losses is not None and np.all(y == np.round(y)):
        right = float(np.mean(losses * np.vectorize(lambda label: weights.get(int(label), 1.0))(y)))
        fits = y.shape[0] == y.shape[1]
        text += f": the loss is {n(float(np.mean(losses * taken)))}" if fits else ": fit fails"
        text += f". With the weight of each label it is {n(right)}"
    return "class_weight", f"{text}.", f"{way_out}, of the shape of the element losses."
