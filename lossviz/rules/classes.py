"""Classes and objects that the mean hides."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import n, percent


@rule("dice-batch", "ratios", severity="warning")
def dice_batch(case: Case) -> Faults:
    """A quotient of sums over the whole batch, such as Keras's default Dice: small objects drown in large ones.

    Way out: a Dice per sample: `axis` of all axes but the batch and, for several classes, the class.
    """
    for out in case.outputs:
        if not evidence.is_ratio(out) or out.loss is None or out.tensor is None or (case.batch_size or 1) < 2:
            continue
        ratios = [part for part in out.term.parts if part.exactness == "ratio"]
        if not ratios or any("batch" in part.axes for part in ratios):
            continue
        y_true, y_pred = case.all_values([out.y_true, out.y_pred])
        if y_true.min() < -1e-6 or y_true.max() > 1 + 1e-6 or y_pred.size == len(y_pred):
            continue  # no areas: a correlation, a ratio of amounts
        single = evidence.single(case, out)
        if single is None:
            continue
        whole, mean = case.call(out), float(single.mean())
        if not evidence.finite(whole, mean) or abs(whole - mean) <= 0.01 * max(abs(whole), abs(mean)):
            continue
        worst = int(np.argmax(single))
        axes = tuple(range(1, len(out.y_pred.shape)))
        yield (
            out.name,
            f"the {case.batch_size} samples are added up before the quotient: the loss is {n(whole)}, the mean of the "
            f"samples' own losses is {n(mean)}, and that of sample {worst} is {n(float(single[worst]))}.",
            f"Take the quotient of each sample: keras.losses.Dice(axis={axes}), or reduce over these axes only.",
        )


@rule("dice-background", "ratios", severity="warning")
def dice_background(case: Case) -> Faults:
    """A Dice over several classes at once: the background hides that no object is found.

    Way out: the quotient of each class, as `keras.losses.Dice(axis=...)` takes it over the positions alone; or no
    background in targets and predictions.
    """
    for out in case.outputs:
        if not evidence.is_ratio(out) or out.loss is None or out.tensor is None:
            continue
        y_true, y_pred = case.all_values([out.y_true, out.y_pred])
        if y_true.shape != y_pred.shape or y_true.ndim < 3 or not 2 <= y_true.shape[-1] <= 64:
            continue
        if not np.all((y_true == 0) | (y_true == 1)) or not np.all(y_true.sum(-1) == 1):
            continue
        present = [c for c in range(y_true.shape[-1]) if np.any(y_true[..., c])]
        own = {c: case.call(out, y_true[..., c : c + 1], y_pred[..., c : c + 1]) for c in present}
        lost = [c for c in present if own[c] >= 0.9]
        whole = case.call(out)
        if not lost or not evidence.finite(whole, *own.values()) or whole > 0.5 * np.mean(list(own.values())):
            continue
        each = ", ".join(f"{n(value)} of class {c}" for c, value in own.items())
        axes = tuple(range(1, y_true.ndim - 1))
        apart = case.call(dataclasses.replace(out, loss=keras.losses.Dice(axis=axes)))
        yield (
            out.name,
            f"the classes are added up before the quotient, and the largest hides the others: the loss is {n(whole)}, "
            f"and the classes' own are {each}.",
            f"Take the quotient of each class: keras.losses.Dice(axis={axes}), which is {n(apart)} here, or leave "
            "the background out of y and of the predictions.",
        )


@rule("imbalance", "one_number", severity="hint")
def imbalance(case: Case) -> Faults:
    """A rare class that is not found, or could be lost unseen: the mean hides it.

    Way out: look at `report.by_label()` beside the mean; give the class more weight, or use a loss per class, such as
    Dice with an axis.
    """
    for out in case.outputs:
        parts = [part for part in (out.term.parts if out.term is not None else ()) if part.true_class is not None]
        if len(parts) != 1 or parts[0].exactness != "exact" or not set(parts[0].true_class_axes) <= set(parts[0].axes):
            continue
        part, total = parts[0], out.term.contribution
        classes, labels = part.true_class, part.class_labels or ()
        known = [k for k, label in enumerate(labels) if str(label) != "(no class)"]
        if len(known) < 2 or classes.size < 100 or classes.size / len(known) < 20 or not total > 0:
            continue
        weight = _position_weights(case, out, classes.shape).ravel()
        flat = classes.ravel()
        sums = np.bincount(flat, weights=weight, minlength=len(labels))[known]
        shares = np.bincount(flat, weights=part.sum_to(part.true_class_axes).ravel(), minlength=len(labels))[known]
        if not sums.sum() > 0:  # no position with a class has weight
            continue
        parts_of = sums / sums.sum()
        rare = [k for k in range(len(known)) if 0 < parts_of[k] <= 0.5 / len(known)]
        if not rare or not _one_class_each(case, out, classes):
            continue
        k = min(rare, key=lambda k: parts_of[k])
        suspects = [j for j in rare if shares[j] / parts_of[j] >= 3 * total]
        if suspects:
            k = max(suspects, key=lambda j: shares[j] / parts_of[j])
        elif parts_of[k] > 0.01 or shares[k] < 0.5 * parts_of[k] * total:
            continue
        found = _found(case, out, classes, classes == known[k])
        missed = found is None or float(np.mean(found)) < 0.5
        everywhere = None
        if suspects and found is not None and missed:
            everywhere = float(np.sum(_found(case, out, classes, ...).ravel() * weight) / np.sum(weight))
        name = labels[known[k]]
        text = f"class {name!r} has {percent(parts_of[k])} of the positions"
        text += f" ({int(np.sum(flat == known[k]))} of {flat.size})" if np.ptp(weight) == 0 else " by weight"
        if everywhere is not None and everywhere >= 0.8:
            text += (
                f": {percent(float(np.mean(found)))} of them are found, of all positions {percent(everywhere)}, and "
                f"the mean hides it. The loss is {n(total)}, over this class alone {n(shares[k] / parts_of[k])}."
            )
        elif missed and parts_of[k] <= 0.01 and parts_of[k] * len(known) <= 0.05:
            text += (
                f" and carries {percent(shares[k] / total)} of the loss, {n(total)}: the number hardly shows whether "
                "it is found."
            )
        else:
            continue
        yield (
            out.name,
            text,
            "Look at report.by_label() beside the mean, and give the class more weight (class_weight, sample_weight), "
            "or use a loss per class, such as Dice with an axis.",
        )


def _position_weights(case: Case, out: Output, shape: tuple[int, ...]) -> np.ndarray:
    weights = np.ones(shape)
    for array in case.weight_and_mask(out):
        if array is None:
            continue
        if array.ndim == len(shape) + 1 and array.shape[-1] == 1:
            array = array[..., 0]
        if array.ndim <= len(shape) and all(a in (1, s) for a, s in zip(array.shape, shape)):
            weights = weights * array.astype(np.float64).reshape(*array.shape, *(1 for _ in shape[array.ndim :]))
    return weights if np.sum(weights) > 0 else np.ones(shape)


def _one_class_each(case: Case, out: Output, classes: np.ndarray) -> bool:
    """Are the targets one class per position, and not several labels at once?"""
    y_true = case.value(out.y_true)
    wide = y_true if y_true.dtype == np.float32 else y_true.astype(np.float64)
    return y_true.size != classes.size * max(2, case.shape(out.y_pred)[-1]) or bool(
        np.all(wide @ np.ones(y_true.shape[-1], wide.dtype) <= 1 + 1e-3)
    )


def _found(case: Case, out: Output, classes: np.ndarray, where: Any) -> np.ndarray | None:
    """Whether the largest prediction names the class rightly, at the positions that the index `where` selects."""
    y_pred = case.value(out.y_pred)
    if y_pred.size == classes.size:
        middle = 0.5 if y_pred.min() >= 0 and y_pred.max() <= 1 else 0.0
        return (y_pred.reshape(classes.shape)[where] > middle) == classes[where]
    if y_pred.shape[:-1] == classes.shape:
        return y_pred[where].argmax(-1) == classes[where]
    return None
