"""Shapes: what becomes one number too early, too late, or by meeting what it should not."""

from __future__ import annotations

import math

import keras
import numpy as np
import tensorflow as tf

from lossviz.backend import keras_private as _keras
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import close, n

#: Operations on pairs of numbers, which broadcast.
_PAIRS = {
    *("Sub", "SquaredDifference", "Mul", "MulNoNan", "AddV2", "Add", "RealDiv", "DivNoNan", "Div", "Pow", "Xlogy"),
    *("Maximum", "Minimum", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Xdivy"),
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
        alone = case.model is None or case.model.distribute_strategy.num_replicas_in_sync < 2  # or see strategy-scalar
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
    crossed = case.once("broadcast", lambda: [operation for operation in case.operations() if _crosses(operation)])
    if not crossed:
        return
    order = case.operations()
    predicted = case.reaching([*case.traced.predictions, *case.traced.trainable], order)
    given = case.reaching([t for word in ("y_true", "x") for t in case.traced.inputs.get(word, [])], order)
    for operation in crossed:
        one, other = operation.inputs
        if (one.ref() in predicted) == (other.ref() in predicted) or not {one.ref(), other.ref()} & (given - predicted):
            continue
        target, prediction = (other, one) if one.ref() in predicted else (one, other)
        out = next((out for out in case.outputs if operation in set(case.operations(out))), None)
        shape = tuple(operation.outputs[0].shape.as_list())
        text = (
            f"targets of shape {tuple(target.shape)} meet predictions of shape {tuple(prediction.shape)} and make "
            f"{shape}: every target is compared with every prediction"
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


def _crosses(operation: tf.Operation) -> bool:
    """Does it bring together two tensors of as many elements and of different rank, and make more of them?"""
    if operation.type not in _PAIRS:
        return False
    shapes = [tensor.shape for tensor in (*operation.inputs, *operation.outputs)]
    if any(shape.rank is None or not shape.is_fully_defined() for shape in shapes):
        return False
    one, other, both = (math.prod(shape.as_list()) for shape in shapes)
    ranks = sorted(shape.rank for shape in shapes[:2])
    wide = tf.broadcast_static_shape(*shapes[:2]) if _fit(*shapes[:2]) else None
    return one == other > 1 and both > one and ranks[0] > 0 and ranks[0] + 1 == ranks[1] and wide == shapes[2]


def _fit(one: tf.TensorShape, other: tf.TensorShape) -> bool:
    pairs = zip(reversed(one.as_list()), reversed(other.as_list()))
    return all(a == b or 1 in (a, b) for a, b in pairs)


def _squeezed(case: Case, out: Output | None) -> tuple[float, float] | None:
    """The loss as it is, and with targets of the shape of the predictions."""
    if out is not None and out.loss is not None:
        y_true, y_pred = case.all_values([out.y_true, out.y_pred])
        if y_true.size != y_pred.size:
            return None
        weight, mask = case.weight_and_mask(out)
        return case.number(out), case.call(out, y_true.reshape(y_pred.shape), y_pred, weight, mask)
    if case.model is None or keras.tree.is_nested(case.y) or len(case.traced.predictions) != 1:
        return None
    prediction = case.traced.predictions[0]
    if np.size(case.y) != math.prod(case.shape(prediction)) or not case.traced.inputs.get("y_true"):
        return None
    y_pred = case.value(prediction)
    with _keras.untouched(case.model, case.traced.trace.graph):
        y_true = tf.constant(np.reshape(case.y, y_pred.shape))
        x = keras.tree.map_structure(tf.convert_to_tensor, case.x)
        found = float(np.sum(case.model.compute_loss(x=x, y=y_true, y_pred=tf.constant(y_pred))))
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
        yield (
            out.name,
            f"the loss has no reduction and stays an array of shape {shape}: Keras prints its mean, "
            f"{n(float(values.mean()))}, and trains on its sum, {n(float(values.sum()))}, with gradients "
            f"{values.size} times as large.",
            "Compile with reduction='sum_over_batch_size', the default; keep reduction=None for calls of your own.",
        )


@rule("strategy-scalar", "scalar_or_tensor", since="3.8")
def strategy_scalar(case: Case) -> Faults:
    """Under a distribution strategy a loss that returns one number counts once per replica.

    Way out: return one value per sample, so that Keras divides by the replicas.
    """
    if case.model is None or case.model.distribute_strategy.num_replicas_in_sync < 2:
        return
    replicas = case.model.distribute_strategy.num_replicas_in_sync
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
