"""Targets and predictions whose values the loss has no good use for."""

from __future__ import annotations

import math

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend.program import Op
from lossviz.backend.recorded import Crossentropy
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output, loss_name
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import counted, n


@rule("labels-range", "debugging")
def labels_range(case: Case) -> Faults:
    """Labels that the predictions have no place for.

    Way out: count the classes from 0, use `ignore_class` for a mark, give the last layer enough classes, or bring
    targets to 0 and 1.
    """
    for entry in case.crossentropies:
        where = evidence.owner(case, entry)
        out = case.output(where)
        if entry.kind == "sparse_categorical":
            classes = entry.output.shape[entry.axis]
            labels = _labels(case, entry, out)
            if labels is None or not labels.size or classes is None:
                continue
            outside = (labels < 0) | (labels >= classes)
            if not outside.any():
                continue
            low, high = labels.min(), labels.max()
            what = "raises an error" if case.error is not None else f"makes the loss {n(case.report.reported)}"
            elsewhere = "on a GPU or under XLA it is NaN"
            if _keras.counts_labels_outside_as_zero():
                elsewhere = "each of them counts as 0, and on TensorFlow it is an error or NaN"
            if low >= 1 and high == classes:
                fix = "Count the classes from 0: y - 1."
            elif np.unique(labels[outside]).size == 1:
                mark = np.unique(labels[outside])[0]
                fix = (
                    f"If {n(mark)} marks what does not count, use SparseCategoricalCrossentropy(ignore_class="
                    f"{n(mark)}); else the last layer needs more classes."
                )
            else:
                fix = f"Check the labels, or give the last layer {int(high) + 1} classes."
            yield (
                where,
                f"y holds labels from {n(low)} to {n(high)}, but the predictions have {classes} classes, 0 to "
                f"{classes - 1}: {int(outside.sum())} of {labels.size} labels are outside. Here that {what}; "
                f"{elsewhere}.",
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
            shown = f": the loss is {n(number)}, and its smallest value is not at y_true" if number is not None else ""
            word = "binary" if entry.kind == "binary" else "categorical"
            yield (
                where,
                f"y holds values from {n(low)} to {n(high)}, and {outside} of {target.size} lie outside 0 to 1, "
                f"where the {word} crossentropy is no crossentropy{shown}.",
                "Bring the targets to 0 and 1: (y + 1) / 2 for -1 and 1, y / 255 for bytes."
                if entry.kind == "binary"
                else "Bring the targets to rows of 0 and 1 that sum to 1, such as keras.utils.to_categorical(labels).",
            )


def _labels(case: Case, entry: Crossentropy, out: Output | None) -> np.ndarray | None:
    try:
        return case.value(entry.target)
    except (TypeError, ValueError, NotImplementedError):  # inside a function that Keras compiles
        return None if out is None else case.value(out.y_true)


def _divisions(case: Case, out: Output) -> list[Op]:
    return case.once(("divisions", out.name), lambda: [op for op in case.operations(out) if op.kind == "div"])


@rule("mape-zeros", "landmarks", severity="warning")
def mape_zeros(case: Case) -> Faults:
    """A loss divides by true values that are 0, as the mean absolute percentage error does.

    Way out: weight 0 at those positions, the mean absolute error, or a scale of your own.
    """
    for out in case.outputs:
        if out.tensor is None or case.loss is None:
            continue
        size = math.prod(case.shape(out.y_true))
        divisions = [op for op in _divisions(case, out) if evidence.size(op.inputs[1]) == size > 1]
        if not divisions:
            continue
        order = case.operations(out)
        predicted = case.reaching(case.loss.predictions, order)
        given = case.reaching([out.y_true], order)
        for op in divisions:
            (_, divisor), (result,) = op.inputs, op.outputs
            if divisor in predicted or divisor not in given or result not in predicted:
                continue
            bottom, quotient = case.all_values([divisor, result])
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
                f"they carry {100 * share:.4g} % of it, and it is {n(case.number(out))}.",
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


@rule("fp16-overflow", "gpu")
def fp16_overflow(case: Case) -> Faults:
    """A number grew beyond 65504, the largest that half precision holds.

    Way out: `dtype="float32"` for the last layer and the loss.
    """
    if case.report is None or math.isfinite(case.report.reported):
        return
    narrow = [op for op in case.operations() if any(out.dtype == "float16" for out in op.outputs)]
    case.all_values(list({v: None for op in narrow for v in (*op.outputs, *op.inputs) if v.is_floating}))
    for op in narrow:
        inputs = [case.value(value).astype(np.float64) for value in op.inputs if value.is_floating]
        result = op.outputs[0]
        if result.dtype != "float16" or not inputs or not np.any(np.isinf(case.value(result))):
            continue
        if any(not np.all(np.isfinite(array)) for array in inputs):
            continue
        text = f"{op.word} overflows float16, of which the largest number is 65504"
        largest = max(float(np.max(np.abs(array))) for array in inputs if array.size)
        true = {"sum": float(np.sum(inputs[0])), "cast": largest, "square": largest**2}
        how = op.kind if op.kind == "cast" else op.info.get("how")
        text += f": its result is {n(true[how])}" if how in true else f": its inputs reach {n(largest)}"
        owner = next((out.name for out in case.outputs if op in case.operations(out)), "")
        yield (
            owner or "compute_loss",
            f"{text}, so the loss is {n(case.report.reported)}.",
            "Compute the last layer and the loss in float32: dtype='float32' for both (Keras's losses do so by "
            "default).",
        )
        return


@rule("float32-targets", "progress_bar")
def float32_targets(case: Case) -> Faults:
    """Targets that differ by less than float32 can tell apart, such as times in seconds.

    Way out: take the mean away from the targets, and divide them by their spread, in float64.
    """
    leaves = [leaf for leaf in keras.tree.flatten(case.given) if leaf is not None]
    for number, leaf in enumerate(leaves):
        y = np.asarray(leaf) if isinstance(leaf, (np.ndarray, list)) else None
        if y is None or y.size < 2 or y.dtype not in (np.float64, np.int64, np.uint64, np.int32, np.uint32):
            continue
        wide, spread = y.astype(np.float64), float(np.std(y))
        if not np.all(np.isfinite(wide)) or spread == 0 or keras.config.floatx() == "float64":
            continue
        moved = float(np.max(np.abs(wide.astype(np.float32).astype(np.float64) - wide)))
        if moved <= 1e-3 * spread or not any(_compares(case, out, wide) for out in case.outputs):
            continue
        name = "y" if len(leaves) == 1 else f"y {number}"
        yield (
            name,
            f"Keras computes in float32, which moves these targets by up to {n(moved)}: they lie near {n(wide.mean())} "
            f"and differ among each other by {n(spread)} only.",
            "Take away what they have in common before Keras sees them: y - y.mean(), divided by y.std(), in float64.",
        )


def _compares(case: Case, out: Output, y: np.ndarray) -> bool:
    """Is this the target of the output, and a number and no label?"""
    return evidence.size(out.y_true) == y.size == evidence.size(out.y_pred) and not any(
        entry.kind == "sparse_categorical" and entry.owner == number
        for number, other in enumerate(case.outputs)
        if other is out
        for entry in case.crossentropies
    )


@rule("hinge-labels", "symptoms")
def hinge_labels(case: Case) -> Faults:
    """Labels that a hinge loss of Keras converts or leaves as they are by what the batch happens to hold.

    Way out: labels of -1 and 1 alone.
    """
    for out in case.outputs:
        if loss_name(out) not in ("hinge", "squared_hinge") or out.tensor is None:
            continue
        y = case.value(out.y_true).astype(np.float64)
        if not y.size or not np.all(np.isfinite(y)):
            continue
        held = np.unique(y)
        if np.all(np.isin(held, (0, 1))) or np.all(np.isin(held, (-1, 1))):
            continue
        size = case.batches_of or len(y)
        batches = [y[k : k + size] for k in range(0, len(y), size)]
        taken = sum(bool(np.all(np.isin(batch, (0, 1)))) for batch in batches)
        text = f"y holds values from {n(held[0])} to {n(held[-1])}, and a hinge is meant for -1 and 1"
        if 0 in held or 0 < taken < len(batches):
            text += (
                ": Keras turns 0 into -1 where a batch holds nothing but 0 and 1, here in "
                f"{taken} of {counted(len(batches), 'batch')}, and leaves all labels as they are elsewhere"
            )
        if len(held) <= 2:
            fix = f"Give it -1 and 1: y = np.where(y == {n(held[-1])}, 1, -1)."
        else:
            fix = (
                "Give it -1 and 1, and weight 0 where there is no label. For several classes: "
                "loss='categorical_hinge' with one-hot y."
            )
        yield out.name, f"{text}. The loss is {n(case.number(out))}.", fix


#: Losses of Keras for numbers.
_REGRESSION = {
    "mean_squared_error", "mean_absolute_error", "huber", "log_cosh", "mean_squared_logarithmic_error",
    "mean_absolute_percentage_error",
}  # fmt: skip


@rule("class-labels", "symptoms", severity="hint")
def class_labels(case: Case) -> Faults:
    """Whole numbers that look like class labels under a loss for numbers.

    Way out: a crossentropy for classes; nothing for counts or amounts.
    """
    for out in case.outputs:
        if loss_name(out) not in _REGRESSION or out.tensor is None:
            continue
        y = case.value(out.y_true)
        if y.size != case.value(out.y_pred).size or y.size < 8 or case.shape(out.y_pred)[-1:] != (1,):
            continue
        labels = np.unique(y)
        start = int(labels[0] == 1)
        steps = np.arange(start, start + len(labels))
        whole = len(labels) >= 2 and y.size >= 4 * len(labels) and np.array_equal(labels, steps)
        if not whole or (len(labels) == 2 and not start and case.range_of(out.y_pred).within(0, 1)):
            continue  # 0 and 1 and a sigmoid: the Brier score
        classes = len(labels)
        how = (
            "activation='sigmoid' and loss='binary_crossentropy'"
            if classes == 2
            else f"{classes} units, activation='softmax' and loss='sparse_categorical_crossentropy'"
        )
        if start:
            how += ", with y - 1, so that they begin at 0"
        span = f"{start} to {start + classes - 1}"
        text = f"the targets are the whole numbers {span}, and {loss_name(out)} takes them for amounts"
        yield (
            out.name,
            f"{text}: if they are labels, there is no order between them to measure.",
            f"For classes: {how}. For counts or amounts: nothing.",
        )


@rule("kl-targets", "symptoms", severity="warning")
def kl_targets(case: Case) -> Faults:
    """Targets of a Kullback-Leibler divergence that are no distributions.

    Way out: divide each row of the targets by its sum.
    """
    for out in case.outputs:
        if loss_name(out) != "kl_divergence" or out.tensor is None:
            continue
        y = case.value(out.y_true).astype(np.float64)
        if y.ndim < 2 or y.shape[-1] < 2 or not np.all(np.isfinite(y)):
            continue
        sums = y.sum(-1)
        if np.all(np.abs(sums - 1) <= 0.01) and y.min() >= -1e-6:
            continue
        yield (
            out.name,
            f"the targets of a position sum to {n(sums.min())} to {n(sums.max())}, and a divergence compares "
            f"distributions: the loss is {n(case.number(out))}, and no predictions of 0 to 1 make it the distance 0.",
            f"Divide each row by its sum: y / y.sum(-1, keepdims=True).{_of_distributions(case, out, y)}",
        )


def _of_distributions(case: Case, out: Output, y: np.ndarray) -> str:
    """What the divergence is of the targets divided by their sums."""
    sums = y.sum(-1, keepdims=True)
    if y.min() < 0 or sums.min() <= 0:
        return ""
    found = case.call(out, (y / sums).astype(case.value(out.y_true).dtype), None, *case.weight_and_mask(out))
    return f" The loss is {n(found)} then."
