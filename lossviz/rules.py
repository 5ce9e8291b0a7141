"""The rules: each looks at tensors and numbers, not at how the model was written, and yields what it sees.

A rule yields `(where, sentence, fix)`. It looks first at what is known without running anything (shapes, the graph,
the report); only a suspicion makes it compute. The order of the rules is the order of their findings.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lossviz import evidence
from lossviz.backend import keras_private as _keras
from lossviz.evidence import Case, Output
from lossviz.report.findings import RULES, Finding, rule

#: Losses are called once a sample only where there are at most this many samples.
_SAMPLES = 256
#: Two numbers that differ by less than this part of the larger are the same to a reader.
_SAME = 1e-3

#: Operations on pairs of numbers, which broadcast.
_PAIRS = {
    *("Sub", "SquaredDifference", "Mul", "MulNoNan", "AddV2", "Add", "RealDiv", "DivNoNan", "Div", "Pow", "Xlogy"),
    *("Maximum", "Minimum", "Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual", "Xdivy"),
}

_Found = Iterator[tuple[str, str, str]]


def check(case: Case) -> tuple[Finding, ...]:
    """The findings of every rule, in the order of the rules."""
    return tuple(finding for one in RULES.values() for finding in one.findings(case))


# -- weights and masks ------------------------------------------------------------------------------------


@rule("weights-axis", "weights", since="3.0")
def _weights_axis(case: Case) -> _Found:
    """Weights or a mask meet the wrong axis of the element losses, because two axes have the same size."""
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
            if np.array_equal(np.broadcast_to(short, long.shape), _leading(short, long)):
                continue  # the same on both axes, such as equal weights
            if array.ndim < values.ndim:
                right = _reduced(values, *(None if a is None else _leading(a, values) for a in (weight, mask)), out)
                yield (
                    out.name,
                    f"{word} of shape {array.shape} is lined up with the last axis of the element losses, shape "
                    f"{shape}, not with the samples: the loss is {_n(case.number(out))}. One weight a sample gives "
                    f"{_n(right)}.",
                    f"Pass {word} of shape {(shape[0], *(1 for _ in shape[1:]))}: "
                    f"{word}.reshape{(-1, *(1 for _ in shape[1:]))}."
                    if word != "the mask"
                    else "Return one loss value a step, of the shape of the mask.",
                )
                continue
            right = _masked_elements(out, array)
            yield (
                out.name,
                f"the loss returns one value a sample, shape {shape}, and {word} of shape {array.shape} meets the "
                f"samples along its last axis, so step t of every sample has the loss of sample t: the loss is "
                f"{_n(case.number(out))}." + (f" Over the steps that count it is {_n(right)}." if right else ""),
                "Return one loss value a step: average the last axis only, and give y_true and the predictions a "
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


def _reduced(values: np.ndarray, weight: np.ndarray | None, mask: np.ndarray | None, out: Output) -> float:
    """The mean (or sum, or weighted mean) that the loss would be with these arrays."""
    from lossviz import regimes

    found = regimes.reduce(values, weight, mask, regime="keras-3", reduction=out.reduction or "sum_over_batch_size")
    return float(np.mean(found.value))


def _masked_elements(out: Output, mask: np.ndarray) -> float | None:
    """The mean of the element losses over the steps that count, where the report has them by step."""
    elements = out.term.elements if out.term is not None else None
    if elements is None or elements.shape[: mask.ndim] != mask.shape or not mask.any():
        return None
    steps = elements.reshape(*mask.shape, -1).mean(axis=-1)
    return float(np.sum(steps * mask) / np.sum(mask))


@rule("scalar-loss", "scalar_or_tensor")
def _scalar_loss(case: Case) -> _Found:
    """A loss returns one number for the batch: weights and masks cannot reach single samples."""
    for out in case.outputs:
        if out.values is None or case.shape(out.values) != () or (case.batch_size or 1) < 2:
            continue
        weight, mask = case.weight_and_mask(out)
        weighted = weight is not None and np.ptp(weight) > 0
        masked = mask is not None and not mask.all()
        alone = case.model is None or case.model.distribute_strategy.num_replicas_in_sync < 2  # or see strategy-scalar
        if not (weighted or masked or (out.is_custom and alone and not _is_ratio(out))):
            continue
        count, scalar = case.batch_size, float(case.value(out.values))
        text = f"the loss returns one number, {_n(scalar)}, for {count} samples"
        if weighted:
            text += f", so {case.weight_word} only scales it, to {_n(case.number(out))}"
            single = _single(case, out)
            if single is not None and _close(single.mean(), scalar) and weight.size == count:
                text += f"; weighting each sample gives {_n(float(np.mean(single * weight.ravel())))}"
            text += "."
        elif masked:
            text += f"; the mask leaves {int(mask.sum())} of {mask.size} positions, and all of them count."
        else:
            text += ": no weight and no mask can reach a single sample, and under a strategy it counts twice or more."
        yield (
            out.name,
            text,
            "Return one value a sample (or step, or pixel): average the last axis only, "
            "keras.ops.mean(..., axis=-1), and leave the rest to Keras.",
        )


def _single(case: Case, out: Output) -> np.ndarray | None:
    """The loss of each sample alone, without weights."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if not 1 < len(y_pred) <= _SAMPLES or len(y_true) != len(y_pred):
        return None
    return np.array([case.call(out, y_true[i : i + 1], y_pred[i : i + 1]) for i in range(len(y_pred))])


def _is_ratio(out: Output) -> bool:
    return out.term is not None and out.term.exactness == "ratio"


@rule("weights-divisor", "weights", since="3.7")
def _weights_divisor(case: Case) -> _Found:
    """`mean_with_sample_weight` divides by the weights as they were before they were broadcast."""
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
        if not _close(right, case.number(out)):
            yield (
                out.name,
                f"{case.weight_word} of shape {weight.shape} is spread over element losses of shape {shape}, but their "
                f"sum is divided by the {weight.size} weights alone, {_n(float(weight.sum()))}: the loss is "
                f"{_n(case.number(out))}, the weighted mean is {_n(right)}.",
                f"Pass weights of the full shape: np.broadcast_to(sample_weight, {shape}).",
            )


@rule("zero-weight-nan", "weights")
def _zero_weight_nan(case: Case) -> _Found:
    """A weight of 0 or a mask does not remove a NaN: 0 times NaN is NaN."""
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
            f"{_count(len(places), 'element loss')} of weight 0 {verb} not finite, first at index "
            f"{tuple(places[0].tolist())}; 0 × NaN is NaN, so the loss is {_n(case.number(out))}."
        )
        if (without == bad).all():
            text += f" With 0 in their place it is {_n(_reduced_like(case, out, np.where(bad, 0.0, spread)))}."
        yield (
            out.name,
            text,
            "Replace the values that do not count before the loss sees them, such as np.nan_to_num(y), or with "
            "keras.ops.where inside the loss.",
        )


def _reduced_like(case: Case, out: Output, values: np.ndarray) -> float:
    weight, mask = case.weight_and_mask(out)
    return _reduced(values, weight, mask, out)


@rule("class-weight", "weights", since="3.0")
def _class_weight(case: Case) -> _Found:
    """`class_weight` is refused, misread, or silently 1 for a class that it does not name."""
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
        counts = ", ".join(f"{label} ({_count(int(np.sum(classes == label)), 'sample')})" for label in missing)
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
        f"the position of its largest value, {_first(y.argmax(-1).tolist())}, so the weights are "
        f"{_first(taken.tolist())}"
    )
    if losses is not None and np.all(y == np.round(y)):
        right = float(np.mean(losses * np.vectorize(lambda label: weights.get(int(label), 1.0))(y)))
        fits = y.shape[0] == y.shape[1]
        text += f": the loss is {_n(float(np.mean(losses * taken)))}" if fits else ": fit fails"
        text += f". With the weight of each label it is {_n(right)}"
    return "class_weight", f"{text}.", f"{way_out}, of the shape of the element losses."


# -- what the loss computes -------------------------------------------------------------------------------


@rule("broadcast", "scalar_or_tensor", since="3.0")
def _broadcast(case: Case) -> _Found:
    """Targets of shape (N,) against predictions of shape (N, 1): every target meets every prediction."""
    crossed = [operation for operation in case.operations() if _crosses(operation)]
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
        if numbers and not _close(*numbers):
            text += f". The loss is {_n(numbers[0])}; with equal shapes it is {_n(numbers[1])}"
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


@rule("several-losses", "many_outputs", since="3.0")
def _several_losses(case: Case) -> _Found:
    """Several losses on one output: only the first counts."""
    for out in case.outputs:
        first = next((o for o in case.outputs if o.reaches and o.y_pred is out.y_pred), None)
        if out.reaches or first is None:
            continue
        yield (
            first.name,
            f"the loss {_loss_name(out)}, {_n(case.number(out))}, is computed and dropped: of several losses on one "
            f"output Keras takes the first, {_loss_name(first)}, {_n(case.number(first))}.",
            "Write one function that adds them: lambda y_true, y_pred: "
            f"{_loss_name(first)}(y_true, y_pred) + {_loss_name(out)}(y_true, y_pred).",
        )


def _loss_name(out: Output) -> str:
    return getattr(getattr(out.loss, "fn", None), "__name__", None) or type(out.loss).__name__


@rule("double-activation", "scalar_or_tensor")
def _double_activation(case: Case) -> _Found:
    """Softmax or sigmoid is applied twice, or would be on another backend (`from_logits`)."""
    seen = set()
    for where, outer, inner, tensor in _twice(case):
        if where in seen:
            continue
        seen.add(where)
        out = case.output(where)
        text = f"the loss takes a {outer.lower()} of what is already a {inner.lower()}"
        if out is not None and outer == inner:
            p = case.value(tensor).astype(np.float64)
            with np.errstate(divide="ignore"):
                undone = np.log(p) - (np.log1p(-p) if inner == "Sigmoid" else 0.0)
            undone = np.clip(undone, -80, 80).astype(tensor.dtype.as_numpy_dtype)
            right = float(np.mean(case.fed(out.tensor, tensor, undone).astype(np.float64)))
            text += f": it is {_n(case.number(out))}, with one {inner.lower()} {_n(right)}"
        yield (
            where,
            f"{text}.",
            f"Take one away: no activation in the last layer and from_logits=True, or one {inner.lower()} and "
            "from_logits=False.",
        )
    for entry in case.crossentropies:
        where = _owner(case, entry)
        chain = evidence.squashes(entry.output)
        expected = "Sigmoid" if entry.kind == "binary" else "Softmax"
        if not entry.from_logits or where in seen or not _undone(entry.output, expected):
            continue
        seen.add(where)
        word = chain[0][0].lower() if chain else expected.lower()
        text = f"from_logits=True, but the predictions are already a {word}"
        out = case.output(where)
        if out is not None and out.loss is not None:
            elsewhere = case.call_again(out)
            text += (
                f". On TensorFlow Keras takes it out again, so the loss, {_n(case.number(out))}, is right here; on "
                f"JAX, or with a layer between, it is applied twice: {_n(elsewhere)}."
            )
        else:
            text += ": Keras takes it out again on TensorFlow, and applies it twice on JAX."
        yield (
            where,
            text,
            "Take one away: no activation in the last layer, or from_logits=False.",
        )


def _twice(case: Case) -> Iterator[tuple[str, str, str, tf.Tensor]]:
    """Where a softmax or sigmoid is taken of another: the output, the two, and the result of the inner one."""
    for out in case.outputs if case.traced is not None else ():
        chain = evidence.squashes(out.y_pred)
        if len(chain) > 1:
            yield out.name, chain[0][0], chain[1][0], chain[1][1]
    if case.traced is None:
        return
    forward = case.traced.trace.forward
    for operation in case.traced.trace.graph.get_operations():
        if operation.type in ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits", "LogSoftmax"):
            outer = "Softmax"
        elif operation.type == "GreaterEqual" and operation.name.split("/")[-2:-1] == ["logistic_loss"]:
            outer = "Sigmoid"
        elif operation.type in ("Softmax", "Sigmoid") and operation.name not in forward:
            outer = operation.type
        else:
            continue
        chain = evidence.squashes(operation.inputs[0]) or _squashed_by_hand(case, operation.inputs[0], outer)
        if chain:
            inner, tensor = chain[0]
            name = next((out.name for out in case.outputs if tensor.op in case.operations(out)), "compute_loss")
            yield name, outer, inner, tensor


def _squashed_by_hand(case: Case, tensor: tf.Tensor, outer: str) -> list[tuple[str, tf.Tensor]]:
    """As `squashes`, for a quotient that is a softmax or a sigmoid by its values."""
    while tensor.op.type in ("Identity", "Cast", "Reshape"):
        tensor = tensor.op.inputs[0]
    if tensor.op.type not in ("RealDiv", "Reciprocal") or not tensor.shape.rank:
        return []
    p = case.value(tensor).astype(np.float64)
    inside = bool(np.all((p > 0) & (p < 1)))
    if outer == "Softmax":
        inside = bool(np.all((p >= 0) & (p <= 1))) and p.shape[-1] > 1 and np.allclose(p.sum(-1), 1, atol=1e-4)
    return [(outer, tensor)] if inside else []


def _undone(output: tf.Tensor, expected: str) -> bool:
    """Does Keras take the logits from behind this softmax or sigmoid?"""
    if isinstance(output, tf.__internal__.EagerTensor):
        return hasattr(output, "_keras_logits")
    return hasattr(output, "_keras_logits") or output.op.type == expected


def _owner(case: Case, entry: _keras.Crossentropy) -> str:
    if entry.owner < len(case.outputs):
        return case.outputs[entry.owner].name
    names = [loss.name for loss in _keras.flat_losses(case.model)] if case.model is not None else []
    return str(names[entry.owner]) if entry.owner < len(names) and names[entry.owner] else "compute_loss"


@rule("swapped-activation", "scalar_or_tensor")
def _swapped_activation(case: Case) -> _Found:
    """A sigmoid before a categorical crossentropy, or a softmax before a binary one: Keras swaps it."""
    for entry in case.crossentropies:
        binary = entry.kind == "binary"
        chain = evidence.squashes(entry.output)
        wrong = "Softmax" if binary else "Sigmoid"
        if not chain or chain[0][0] != wrong or not hasattr(entry.output, "_keras_logits"):
            continue
        where = _owner(case, entry)
        out = case.output(where)
        right = "sigmoid" if binary else "softmax"
        text = (
            f"the predictions are a {wrong.lower()}, but the {entry.kind.replace('_', ' ')} crossentropy takes the "
            f"{right} of what is behind it"
        )
        if out is not None and out.loss is not None:
            elsewhere = case.call_again(out)
            text += f": {_n(case.number(out))}. Of the predictions themselves, as on JAX, it is {_n(elsewhere)}"
        fix = (
            "Use activation='sigmoid' for labels that are independent, or categorical_crossentropy for one class."
            if binary
            else "Use activation='softmax' for one class per position, or binary_crossentropy for independent labels."
        )
        yield where, f"{text}.", fix


@rule("unnormalised", "one_number")
def _unnormalised(case: Case) -> _Found:
    """A crossentropy of numbers that are no probabilities: rows that do not sum to 1, values outside 0 to 1."""
    others = list(_other_crossentropies(case))
    for entry in (*case.crossentropies, *others):
        binary = entry.kind == "binary"
        chain = evidence.squashes(entry.output)
        if entry.from_logits or _undone(entry.output, "Sigmoid" if binary else "Softmax"):
            continue
        if chain and (binary or chain[0][0] == "Softmax"):
            continue
        p = case.value(entry.output).astype(np.float64)
        if not p.size or not np.all(np.isfinite(p)):
            continue
        low, high = p.min(), p.max()
        sums = p.sum(axis=-1)
        sums = sums[sums != 0]  # Keras puts zeros where a class is ignored
        if not sums.size:
            continue
        slack = 0.03 if entry.output.dtype.name == "bfloat16" or _narrow(entry.output) else 0.01
        if low >= -1e-6 and high <= 1 + slack and (binary or np.all(np.abs(sums - 1) <= slack)):
            continue
        where = _owner(case, entry)
        out = case.output(where)
        if low < 0 or high > 1:
            text = f"the predictions lie between {_n(low)} and {_n(high)}"
        else:
            several = f"between {_n(sums.min())} and " if not _close(sums.min(), sums.max()) else ""
            text = f"the predictions of a position sum to {several}{_n(sums.max())}"
        clips = binary or (out is not None and _loss_name(out) == "kl_divergence")
        text += ", but the loss takes them for probabilities: " + (
            "it clips them to between 0 and 1" if clips else "it divides each row by its sum and clips it"
        )
        if out is not None and out.loss is not None and not any(entry is other for other in others):
            with _keras.crossentropies_as(from_logits=True):
                logits = case.call_again(out)
            text += f", and the loss is {_n(case.number(out))}. If they are logits, it is {_n(logits)}"
        activation = "sigmoid" if binary else "softmax"
        yield where, f"{text}.", f"Use from_logits=True, or activation='{activation}' in the last layer."


def _other_crossentropies(case: Case) -> Iterator[_keras.Crossentropy]:
    """Keras's losses that take the logarithm of the predictions themselves."""
    for owner, out in enumerate(case.outputs):
        if _loss_name(out) in ("categorical_focal_crossentropy", "kl_divergence"):
            options = getattr(out.loss, "_fn_kwargs", {})
            yield _keras.Crossentropy(
                "categorical", out.y_true, out.y_pred, bool(options.get("from_logits", False)), owner
            )


def _narrow(tensor: tf.Tensor) -> bool:
    """Was it computed in half precision and cast since?"""
    if isinstance(tensor, tf.__internal__.EagerTensor):
        return False
    while tensor.op.type in ("Identity", "Cast", "Reshape"):
        tensor = tensor.op.inputs[0]
        if tensor.dtype in (tf.float16, tf.bfloat16):
            return True
    return False


@rule("labels-range", "ignore_class")
def _labels_range(case: Case) -> _Found:
    """Labels that the predictions have no place for."""
    for entry in case.crossentropies:
        where = _owner(case, entry)
        out = case.output(where)
        if entry.kind == "sparse_categorical":
            classes = entry.output.shape[-1]
            labels = _labels(case, entry, out)
            if labels is None or not labels.size or classes is None:
                continue
            outside = (labels < 0) | (labels >= classes)
            if not outside.any():
                continue
            low, high = labels.min(), labels.max()
            what = "raises an error" if case.error is not None else f"makes the loss {_n(case.report.reported)}"
            if low >= 1 and high == classes:
                fix = "Count the classes from 0: y - 1."
            elif np.unique(labels[outside]).size == 1:
                mark = np.unique(labels[outside])[0]
                fix = (
                    f"If {_n(mark)} marks what does not count, use SparseCategoricalCrossentropy(ignore_class="
                    f"{_n(mark)}); else the last layer needs more classes."
                )
            else:
                fix = f"Check the labels, or give the last layer {int(high) + 1} classes."
            yield (
                where,
                f"y holds labels from {_n(low)} to {_n(high)}, but the predictions have {classes} classes, 0 to "
                f"{classes - 1}: {int(outside.sum())} of {labels.size} labels are outside. Here that {what}; on a GPU "
                "or under XLA it is NaN.",
                fix,
            )
        else:
            target = case.value(entry.target)
            if target.dtype.kind not in "fiu" or not target.size or not np.all(np.isfinite(target)):
                continue
            low, high = float(target.min()), float(target.max())
            if low >= -1e-6 and high <= 1 + 1e-6:
                continue
            outside = int(np.sum((target < 0) | (target > 1)))
            number = case.number(out) if out is not None and out.tensor is not None else None
            shown = f": the loss is {_n(number)}, and its smallest value is not at y_true" if number is not None else ""
            word = "binary" if entry.kind == "binary" else "categorical"
            yield (
                where,
                f"y holds values from {_n(low)} to {_n(high)}, and {outside} of {target.size} lie outside 0 to 1, "
                f"where the {word} crossentropy is no crossentropy{shown}.",
                "Bring the targets to 0 and 1: (y + 1) / 2 for -1 and 1, y / 255 for bytes."
                if entry.kind == "binary"
                else "Bring the targets to rows of 0 and 1 that sum to 1, such as keras.utils.to_categorical(labels).",
            )


def _labels(case: Case, entry: _keras.Crossentropy, out: Output | None) -> np.ndarray | None:
    if case.traced is not None or isinstance(entry.target, tf.__internal__.EagerTensor):
        return case.value(entry.target)
    return None if out is None else case.value(out.y_true)


@rule("mape-zeros", "more_questions")
def _mape_zeros(case: Case) -> _Found:
    """A loss divides by true values that are 0, as the mean absolute percentage error does."""
    for out in case.outputs:
        if out.tensor is None or case.traced is None:
            continue
        size = math.prod(case.shape(out.y_true))
        order = case.operations(out)
        divisions = [o for o in order if o.type in ("RealDiv", "Div") and o.inputs[1].shape.num_elements() == size > 1]
        if not divisions:
            continue
        predicted = case.reaching(case.traced.predictions, order)
        given = case.reaching([out.y_true], order)
        for operation in divisions:
            divisor = operation.inputs[1]
            if divisor.ref() in predicted or divisor.ref() not in given or operation.outputs[0].ref() not in predicted:
                continue
            bottom, quotient = case.all_values([divisor, operation.outputs[0]])
            quotient = np.abs(np.broadcast_to(quotient.astype(np.float64), np.shape(quotient)))
            tiny = np.broadcast_to(np.abs(bottom) <= 1e-6, quotient.shape) & ~(quotient == 0)
            tiny &= _counts(case, out, tiny.shape)
            if not tiny.any():
                continue
            share = 1.0 if not np.all(np.isfinite(quotient)) else float(quotient[tiny].sum() / quotient.sum())
            if share < 0.5:
                continue
            zeros = int(np.sum(np.abs(bottom) <= 1e-6))
            yield (
                out.name,
                f"{zeros} of {size} true values are 0, and the loss divides by them (by at most 1e-7 instead of 0): "
                f"they carry {100 * share:.4g} % of it, and it is {_n(case.number(out))}.",
                "Give those positions weight 0, use mean absolute error, or divide by a scale of your own, such as the "
                "mean of |y|.",
            )
            break


def _counts(case: Case, out: Output, shape: tuple[int, ...]) -> np.ndarray:
    """Where a weight or a mask is not 0; all, where it does not say."""
    counts = np.ones(shape, bool)
    for array in case.weight_and_mask(out):
        if array is not None and array.ndim <= len(shape) and array.shape == shape[: array.ndim]:
            counts &= (array != 0).reshape(*array.shape, *(1 for _ in shape[array.ndim :]))
    return counts


@rule("dice-batch", "ratios")
def _dice_batch(case: Case) -> _Found:
    """A quotient of sums over the whole batch, such as Keras's default Dice: small objects drown in large ones."""
    for out in case.outputs:
        if not _is_ratio(out) or out.loss is None or out.tensor is None or (case.batch_size or 1) < 2:
            continue
        ratios = [part for part in out.term.parts if part.exactness == "ratio"]
        if not ratios or any("batch" in part.axes for part in ratios):
            continue
        single = _single(case, out)
        if single is None:
            continue
        whole, mean = case.call(out), float(single.mean())
        if not evidence.finite(whole, mean) or abs(whole - mean) <= 0.01 * max(abs(whole), abs(mean)):
            continue
        worst = int(np.argmax(single))
        axes = tuple(range(1, len(out.y_pred.shape)))
        yield (
            out.name,
            f"the {case.batch_size} samples are added up before the quotient: the loss is {_n(whole)}, the mean of the "
            f"samples' own losses is {_n(mean)}, and that of sample {worst} is {_n(float(single[worst]))}.",
            f"Take the quotient of each sample: keras.losses.Dice(axis={axes}), or reduce over these axes only.",
        )


@rule("imbalance", "one_number")
def _imbalance(case: Case) -> _Found:
    """A rare class that is not found, or could be lost unseen: the mean hides it."""
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
        text = f"class {name!r} has {_percent(parts_of[k])} of the positions"
        text += f" ({int(np.sum(flat == known[k]))} of {flat.size})" if np.ptp(weight) == 0 else " by weight"
        if everywhere is not None and everywhere >= 0.8:
            text += (
                f": {_percent(float(np.mean(found)))} of them are found, of all positions {_percent(everywhere)}, and "
                f"the mean hides it. The loss is {_n(total)}, over this class alone {_n(shares[k] / parts_of[k])}."
            )
        elif missed and parts_of[k] <= 0.01 and parts_of[k] * len(known) <= 0.05:
            text += (
                f" and carries {_percent(shares[k] / total)} of the loss, {_n(total)}: the number hardly shows whether "
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


# -- beyond the outputs -----------------------------------------------------------------------------------


@rule("vector-add-loss", "beyond_outputs", since="3.0")
def _vector_add_loss(case: Case) -> _Found:
    """`add_loss` of an array is summed, so the loss grows with the batch."""
    for entry in case.added:
        tensor = entry["value"]
        shape = case.shape(tensor)
        if entry["kind"] != "add_loss" or not shape or math.prod(shape) < 2:
            continue
        values = case.value(tensor).astype(np.float64)
        grows = " It grows with the batch size." if shape[0] == case.batch_size else ""
        yield (
            entry["name"],
            f"add_loss gets {values.size} numbers, shape {shape}, and Keras adds them up: {_n(float(values.sum()))} "
            f"enters the loss, their mean is {_n(float(values.mean()))}.{grows}",
            "Give add_loss one number: self.add_loss(keras.ops.mean(...)).",
        )


@rule("frozen-regulariser", "beyond_outputs", since="3.0")
def _frozen_regulariser(case: Case) -> _Found:
    """The regulariser of a frozen layer is not part of the loss."""
    if case.model is None:
        return
    counted = {id(variable) for variable in case.model.trainable_weights}
    for variable in case.model.weights:
        regulariser = getattr(variable, "regularizer", None)
        if regulariser is None or id(variable) in counted:
            continue
        value = float(np.sum(regulariser(variable.value)))
        if value:
            yield (
                variable.path,
                f"the weight is frozen, so its regulariser, {_n(value)}, is not part of the loss"
                + (f" {_n(case.report.reported)}." if case.report is not None else "."),
                "Nothing, if you compare losses of one model only. To compare with a run that trains the layer, add "
                f"{_n(value)}, or compare the data losses: report.term(...).",
            )


@rule("reduction-none", "scalar_or_tensor")
def _reduction_none(case: Case) -> _Found:
    """Without a reduction Keras prints the mean and trains on the sum."""
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
            f"{_n(float(values.mean()))}, and trains on its sum, {_n(float(values.sum()))}, with gradients "
            f"{values.size} times as large.",
            "Compile with reduction='sum_over_batch_size', the default; keep reduction=None for calls of your own.",
        )


@rule("short-last-batch", "many_outputs", since="3.5")
def _short_last_batch(case: Case) -> _Found:
    """With several outputs, Keras prints plain means of batch losses, also where the last batch is short."""
    count, size = case.batch_size or 0, case.batches_of
    if not size or case.model is None or case.model.run_eagerly or len(case.outputs) < 2 or count <= size:
        return
    if not count % size:
        return
    starts = range(0, count, size)
    samples = np.array([min(size, count - start) for start in starts])
    for out in case.outputs:
        if out.loss is None:
            continue
        arrays = case.all_values([out.y_true, out.y_pred])
        extra = [a if a is None or len(a) == count else None for a in case.weight_and_mask(out)]
        losses = [
            case.call(out, *(a[s : s + size] for a in arrays), *(None if a is None else a[s : s + size] for a in extra))
            for s in starts
        ]
        yield from _short(out.name, losses, samples)


def of_epoch(model: keras.Model, losses: Mapping[str, Sequence[float]], samples: Sequence[int]) -> tuple[Finding, ...]:
    """What is wrong with the numbers that Keras prints beside each output, from the loss of each batch."""
    if model.run_eagerly or len(losses) < 2 or len(set(samples)) < 2:
        return ()
    one = RULES["short-last-batch"]
    found = [fault for name, values in losses.items() for fault in _short(name, values, np.asarray(samples))]
    return tuple(one.findings_of(found))


def _short(name: str, losses: Sequence[float], samples: np.ndarray) -> _Found:
    printed, true = float(np.mean(losses)), float(np.average(losses, weights=samples))
    if evidence.finite(printed, true) and abs(printed - true) > _SAME * max(abs(printed), abs(true)):
        count, size = samples.sum(), samples.max()
        yield (
            name,
            f"{count} samples in batches of {size} leave a last batch of {samples[-1]}: fit and evaluate print "
            f"{_n(printed)} for this output, the mean over the samples is {_n(true)}. The total is right.",
            f"Choose a batch size that divides {count}, or read the output's loss as a metric: "
            "metrics={...: [same loss]}.",
        )


# -- precision and devices --------------------------------------------------------------------------------


@rule("fp16-overflow", "progress_bar")
def _fp16_overflow(case: Case) -> _Found:
    """A number grew beyond 65504, the largest that half precision holds."""
    if case.report is None or math.isfinite(case.report.reported):
        return
    narrow = [o for o in case.operations() if any(out.dtype == tf.float16 for out in o.outputs)]
    if not narrow:
        return
    kinds = (tf.float16, tf.float32, tf.float64, tf.bfloat16)
    wanted = {t.ref(): t for o in narrow for t in (*o.outputs, *o.inputs) if t.dtype in kinds}
    case.all_values(list(wanted.values()))
    for operation in narrow:
        inputs = [case.value(t).astype(np.float64) for t in operation.inputs if t.dtype in kinds]
        result = case.value(operation.outputs[0])
        if operation.outputs[0].dtype != tf.float16 or not inputs or not np.any(np.isinf(result)):
            continue
        if any(not np.all(np.isfinite(array)) for array in inputs):
            continue
        largest = max(float(np.max(np.abs(array))) for array in inputs if array.size)
        text = f"{operation.type} overflows float16, of which the largest number is 65504"
        if operation.type in ("Sum", "Cast", "Square"):
            true = {
                "Sum": lambda a: np.sum(a),
                "Cast": lambda a: np.max(np.abs(a)),
                "Square": lambda a: np.max(np.abs(a)) ** 2,
            }[operation.type](inputs[0])
            text += f": its result is {_n(float(true))}"
        else:
            text += f": its inputs reach {_n(largest)}"
        owner = next((out.name for out in case.outputs if any(o is operation for o in case.operations(out))), "")
        yield (
            owner or "compute_loss",
            f"{text}, so the loss is {_n(case.report.reported)}.",
            "Compute the last layer and the loss in float32: dtype='float32' for both (Keras's losses do so by "
            "default).",
        )
        return


@rule("strategy-scalar", "scalar_or_tensor", since="3.8")
def _strategy_scalar(case: Case) -> _Found:
    """Under a distribution strategy a loss that returns one number counts once per replica."""
    if case.model is None or case.model.distribute_strategy.num_replicas_in_sync < 2:
        return
    replicas = case.model.distribute_strategy.num_replicas_in_sync
    for out in case.outputs:
        if out.values is None or case.shape(out.values) != ():
            continue
        number = float(case.value(out.values))
        yield (
            out.name,
            f"the loss returns one number, {_n(number)}, which Keras does not divide by the {replicas} replicas: fit "
            f"prints {replicas} times that, {_n(replicas * number)}, if all replicas see the same, and the gradient is "
            f"{replicas} times as large.",
            "Return one value a sample (for Dice and Tversky: an axis that keeps the batch), so that Keras divides by "
            "the replicas.",
        )


def _n(number: float) -> str:
    """Four digits; whole numbers in full."""
    number = float(number)
    whole = math.isfinite(number) and number == int(number) and abs(number) < 1e7
    return f"{int(number)}" if whole else f"{number:.4g}"


def _count(number: int, word: str) -> str:
    """`1 sample`, `3 samples`, `2 element losses`."""
    return f"{number} {word}" + ("" if number == 1 else "es" if word.endswith("s") else "s")


def _percent(part: float) -> str:
    return f"{100 * part:.3g} %"


def _first(items: list, count: int = 4) -> str:
    shown = ", ".join(f"{item:g}" for item in items[:count])
    return f"[{shown}{', ...' if len(items) > count else ''}]"


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9)
