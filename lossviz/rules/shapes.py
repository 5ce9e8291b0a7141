"""Shapes: what becomes one number too early, too late, or by meeting what it should not."""

from __future__ import annotations

import math

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend.program import Op, Value
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import close, n

#: Functions of pairs of numbers, and kinds of operations on pairs, which broadcast.
_PAIRS = {
    *("add", "mul", "div", "squared_difference", "power", "xlogy", "xdivy", "maximum", "minimum", "equal"),
    *("not_equal", "greater", "greater_equal", "less", "less_equal"),
}


@rule("scalar-loss", "scalar_or_tensor", severity="warning")
def scalar_loss(case: Case) -> Faults:
    """A loss returns one number for the batch: weights and masks cannot reach single samples.

    Way out: return one value per sample, and leave the mean to Keras.
    """
    for out in case.outputs:
        if out.values is None or case.shape(out.values) != () or (case.batch_size or 1) < 2:
            continue
        weight, mask = case.weight_and_mask(out)
        weighted = weight is not None and np.ptp(weight) > 0
        masked = mask is not None and not mask.all()
        alone = case.replicas < 2  # or see strategy-scalar
        if not (weighted or masked or (out.is_custom and alone and not evidence.is_ratio(out))):
            continue
        count, scalar = case.batch_size, float(case.value(out.values))
        text = f"the loss returns one number, {n(scalar)}, for {count} samples"
        if weighted:
            text += f", so {case.weight_word} only scales it, to {n(case.number(out))}"
            single = evidence.single(case, out)
            if single is not None and close(single.mean(), scalar) and weight.size == count:
                text += f"; weighting each sample gives {n(float(np.mean(single * weight.ravel())))}"
            text += "."
        elif masked:
            text += f"; the mask leaves {int(mask.sum())} of {mask.size} positions, and all of them count."
        else:
            text += ": no weight and no mask can reach a single sample, and under a strategy it counts twice or more."
        fix = (
            "Return one value per sample (or step or pixel): average the last axis only, keras.ops.mean(..., axis=-1), "
            "and leave the rest to Keras."
        )
        single = evidence.single(case, out)
        if single is not None and np.isfinite(single.mean()) and not close(single.mean(), scalar):
            fix += (
                f" That changes the number here: the samples' own losses have the mean {n(float(single.mean()))}. To "
                "keep it, if it is a mean over what counts: give the mask as sample_weight, of the shape of these "
                "values, and compile with reduction='mean_with_sample_weight'."
            )
        yield out.name, text, fix, "error" if weighted or masked else "hint"


@rule("broadcast", "custom_loss", since="3.0")
def broadcast(case: Case) -> Faults:
    """Targets of shape (N,) against predictions of shape (N, 1): every target meets every prediction.

    Way out: the same shape for both: `y.reshape(-1, 1)`, or `keras.ops.squeeze(y_pred, -1)` inside the loss.
    """
    crossed = case.once("broadcast", lambda: [op for op in case.operations() if _crosses(op)])
    if not crossed:
        return
    order, inputs = case.operations(), case.loss.inputs
    predicted = case.reaching([*case.loss.predictions, *case.loss.trainable], order)
    given = case.reaching([value for word in ("y_true", "x") for value in inputs.get(word, [])], order)
    for op in crossed:
        one, other = map(_given, op.inputs)
        if (one in predicted) == (other in predicted) or not {one, other} & (given - predicted):
            continue
        target, prediction = (other, one) if one in predicted else (one, other)
        out = next((out for out in case.outputs if op in case.operations(out)), None)
        text = (
            f"targets of shape {target.shape} meet predictions of shape {prediction.shape} and make "
            f"{op.outputs[0].shape}: every target is compared with every prediction"
        )
        numbers = _squeezed(case, out)
        if numbers and not close(*numbers):
            text += f". The loss is {n(numbers[0])}; with equal shapes it is {n(numbers[1])}"
        text += "."
        yield (
            out.name if out is not None else "compute_loss",
            text,
            "Give both the same shape: y.reshape(-1, 1), or keras.ops.squeeze(y_pred, -1) inside the loss. (Keras does "
            "so itself for its own losses and for functions, not for a Loss class of yours.)",
        )
        return


def _crosses(op: Op) -> bool:
    """Does it bring together two tensors of as many elements and of different rank, and make more of them?"""
    values = (*map(_given, op.inputs), *op.outputs)
    if (op.info.get("how") if op.kind == "elementwise" else op.kind) not in _PAIRS or len(values) != 3:
        return False
    if not all(value.is_static for value in values):
        return False
    one, other, both = (math.prod(value.shape) for value in values)
    ranks = sorted(len(value.shape) for value in values[:2])
    return one == other > 1 and both > one and 0 < ranks[0] == ranks[1] - 1


def _given(value: Value) -> Value:
    """What was given to a function of pairs, where a backend first brings both to one rank."""
    return value.op.inputs[0] if value.op.info.get("promotes") else value


def _squeezed(case: Case, out: Output | None) -> tuple[float, float] | None:
    """The loss as it is, and with targets of the shape of the predictions."""
    if out is not None and out.loss is not None:
        y_true, y_pred = case.all_values([out.y_true, out.y_pred])
        if y_true.size != y_pred.size:
            return None
        weight, mask = case.weight_and_mask(out)
        return case.number(out), case.call(out, y_true.reshape(y_pred.shape), y_pred, weight, mask)
    if case.model is None or keras.tree.is_nested(case.y) or len(case.loss.predictions) != 1:
        return None
    prediction = case.loss.predictions[0]
    if np.size(case.y) != math.prod(case.shape(prediction)) or not case.loss.inputs.get("y_true"):
        return None
    y_pred = case.value(prediction)
    with case.untouched():
        x, y_true, y_pred = keras.tree.map_structure(
            keras.ops.convert_to_tensor, (case.x, np.reshape(case.y, y_pred.shape), y_pred)
        )
        found = float(np.sum(case.model.compute_loss(x=x, y=y_true, y_pred=y_pred)))
    return case.report.reported, found


@rule("vector-add-loss", "beyond_outputs", severity="warning", since="3.0")
def vector_add_loss(case: Case) -> Faults:
    """`add_loss` of an array is summed, so the loss grows with the batch.

    Way out: give `add_loss` one number, such as a mean.
    """
    for entry in case.added:
        tensor = entry.value
        shape = case.shape(tensor)
        if entry.kind != "add_loss" or not shape or math.prod(shape) < 2:
            continue
        values = case.value(tensor).astype(np.float64)
        grows = " It grows with the batch size." if shape[0] == case.batch_size else ""
        yield (
            entry.name,
            f"add_loss gets {values.size} numbers, shape {shape}, and Keras adds them up: {n(float(values.sum()))} "
            f"enters the loss, their mean is {n(float(values.mean()))}.{grows}",
            "Give add_loss one number: self.add_loss(keras.ops.mean(...)).",
        )


@rule("reduction-none", "scalar_or_tensor")
def reduction_none(case: Case) -> Faults:
    """Without a reduction Keras prints the mean and trains on the sum.

    Way out: compile with `reduction="sum_over_batch_size"`, the default.
    """
    if case.model is None:
        return
    for out in case.outputs:
        if out.tensor is None:
            continue
        shape = case.shape(out.tensor)
        if not shape or math.prod(shape) < 2 or not out.reaches:
            continue
        values = case.value(out.tensor).astype(np.float64)
        training = f"trains on its sum, {n(float(values.sum()))}, with gradients {values.size} times as large"
        if not _keras.trains_on_arrays():
            training = "cannot train on it, because on JAX only one number has a gradient"
        yield (
            out.name,
            f"the loss has no reduction and stays an array of shape {shape}: Keras prints its mean, "
            f"{n(float(values.mean()))}, and {training}.",
            "Compile with reduction='sum_over_batch_size', the default; keep reduction=None for calls of your own.",
        )


@rule("strategy-scalar", "scalar_or_tensor", since="3.8")
def strategy_scalar(case: Case) -> Faults:
    """Under a distribution strategy a loss that returns one number counts once per replica.

    Way out: return one value per sample, so that Keras divides by the replicas.
    """
    replicas = case.replicas
    if replicas < 2:
        return
    for out in case.outputs:
        if out.values is None or case.shape(out.values) != ():
            continue
        number = float(case.value(out.values))
        yield (
            out.name,
            f"the loss returns one number, {n(number)}, which Keras does not divide by the {replicas} replicas: fit "
            f"prints {replicas} times that, {n(replicas * number)}, if all replicas see the same, and the gradient is "
            f"{replicas} times as large.",
            "Return one value per sample (for Dice and Tversky: an axis that keeps the batch), so that Keras divides "
            "by the replicas.",
        )
