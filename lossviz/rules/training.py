"""What Keras makes of several losses, layers, batches and devices."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.report.findings import Finding
from lossviz.rules import evidence
from lossviz.rules.evidence import Case, Output, loss_name
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import counted, n

#: Two numbers that differ by less than this part of the larger are the same to a reader.
_SAME = 1e-3
#: A loss is called once a batch only where there are at most this many batches.
_BATCHES = 64


@rule("several-losses", "many_outputs", since="3.0")
def several_losses(case: Case) -> Faults:
    """Several losses on one output: only the first counts.

    Way out: one function that adds them.
    """
    for out in case.outputs:
        first = next((o for o in case.outputs if o.reaches and o.y_pred is out.y_pred), None)
        if out.reaches or first is None:
            continue
        yield (
            first.name,
            f"the loss {loss_name(out)}, {n(case.number(out))}, is computed and dropped: of several losses on one "
            f"output Keras takes the first, {loss_name(first)}, {n(case.number(first))}.",
            "Write one function that adds them: lambda y_true, y_pred: "
            f"{loss_name(first)}(y_true, y_pred) + {loss_name(out)}(y_true, y_pred).",
        )


@rule("frozen-regulariser", "beyond_outputs", severity="hint", since="3.0")
def frozen_regulariser(case: Case) -> Faults:
    """The regulariser of a frozen layer is not part of the loss.

    Way out: nothing within one model; compare the data losses of two.
    """
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
                f"the weight is frozen, so its regulariser, {n(value)}, is not part of the loss"
                + (f" {n(case.report.reported)}." if case.report is not None else "."),
                "Nothing, if you compare losses of one model only. To compare with a run that trains the layer, add "
                f"{n(value)}, or compare the data losses: report.term(...).",
            )


@rule("short-last-batch", "many_outputs", severity="hint", since="3.5")
def short_last_batch(case: Case) -> Faults:
    """With several outputs, Keras prints plain means of batch losses, also where the last batch is short.

    Way out: a batch size that divides the number of samples, or the loss as a metric of the output.
    """
    count, size = case.batch_size or 0, case.batches_of
    if not size or case.model is None or len(case.outputs) < 2 or count <= size or not count % size:
        return
    if not _keras.prints_means_of_batches(case.model):
        return
    starts = range(0, count, size)
    samples = np.array([min(size, count - start) for start in starts])
    for out in case.outputs:
        if out.loss is None:
            continue
        yield from _short(out.name, _of_batches(case, out, starts), samples)


@rule("nonfinite-batch", "progress_bar")
def nonfinite_batch(case: Case) -> Faults:
    """A loss that is finite on all samples together and not on a batch that fit and evaluate make of them.

    Way out: keep what the loss divides by away from 0, or choose a batch size that leaves no short batch.
    """
    starts = _starts(case)
    if len(starts) < 2 or len(starts) > _BATCHES:
        return
    for out in case.outputs:
        if out.loss is None or out.values is None or not out.is_custom or not math.isfinite(case.number(out)):
            continue
        losses = _of_batches(case, out, starts)
        bad = [k for k, loss in enumerate(losses) if not math.isfinite(loss)]
        if bad:
            size, k = case.batches_of, bad[0]
            samples = min(size or 0, (case.batch_size or 0) - starts[k])
            yield (
                out.name,
                f"{case.batch_size} samples in batches of {size}: the loss of batch {k}, {counted(samples, 'sample')}, "
                f"is {n(losses[k])}, and with it what evaluate prints. Of all samples together it is "
                f"{n(case.number(out))}.",
                "Keep what the loss divides by away from 0, add a small number to it, or choose a batch size that "
                "leaves no short batch.",
            )


@rule("accumulation", "masks")
def accumulation(case: Case) -> Faults:
    """Accumulated gradients are a plain mean over batches, which may not be the gradient of one large batch.

    Way out: batches that count alike, or `reduction="sum"` with weights divided by what all of them hold.
    """
    steps = getattr(getattr(case.model, "optimizer", None), "gradient_accumulation_steps", None)
    starts = _starts(case)[: steps or 0]
    if not steps or len(starts) < 2:
        return
    size, count = case.batches_of, min(case.batch_size or 0, starts[-1] + case.batches_of)
    for out in case.outputs:
        if out.loss is None or out.reduction in ("sum", None):
            continue
        losses = _of_batches(case, out, starts)
        whole, mean = _of_batches(case, out, [0], count)[0], float(np.mean(losses))
        if not evidence.finite(whole, mean) or abs(mean - whole) <= _SAME * abs(whole):
            continue
        yield (
            out.name,
            f"over {len(starts)} batches of {size} samples the accumulated step follows the mean of their losses, "
            f"{n(mean)}; the same {count} samples in one batch give {n(whole)}: {mean / whole:.3g} times.",
            "Choose batches that count alike (as many unmasked steps or as much weight in each), or reduction='sum' "
            "with weights that are divided by what all of them hold.",
        )


def _starts(case: Case) -> list[int]:
    """Where the batches that fit makes of these samples begin."""
    count, size = case.batch_size or 0, case.batches_of
    return list(range(0, count, size)) if size and case.model is not None else []


def _of_batches(case: Case, out: Output, starts: Sequence[int], size: int | None = None) -> list[float]:
    """The output's loss of each batch."""
    size = size or case.batches_of
    arrays = case.all_values([out.y_true, out.y_pred])
    extra = [a if a is None or len(a) == case.batch_size else None for a in case.weight_and_mask(out)]
    return [
        case.call(out, *(a[s : s + size] for a in arrays), *(None if a is None else a[s : s + size] for a in extra))
        for s in starts
    ]


def of_epoch(model: keras.Model, losses: Mapping[str, Sequence[float]], samples: Sequence[int]) -> tuple[Finding, ...]:
    """What is wrong with the numbers that Keras prints beside each output, from the loss of each batch."""
    if not _keras.prints_means_of_batches(model) or len(losses) < 2 or len(set(samples)) < 2:
        return ()
    found = [fault for name, values in losses.items() for fault in _short(name, values, np.asarray(samples))]
    return tuple(short_last_batch.findings_of(found))


def _short(name: str, losses: Sequence[float], samples: np.ndarray) -> Faults:
    printed, true = float(np.mean(losses)), float(np.average(losses, weights=samples))
    if evidence.finite(printed, true) and abs(printed - true) > _SAME * max(abs(printed), abs(true)):
        count, size = samples.sum(), samples.max()
        yield (
            name,
            f"{count} samples in batches of {size} leave a last batch of {samples[-1]}: fit and evaluate print "
            f"{n(printed)} for this output, the mean over the samples is {n(true)}. The total is right.",
            f"Choose a batch size that divides {count}, or read the output's loss as a metric: "
            "metrics={...: [same loss]}.",
        )
