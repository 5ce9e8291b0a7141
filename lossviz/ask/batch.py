"""From one batch, or two arrays, to a `Report`: trace, ask Keras for its number, decompose, name, find faults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial

import keras
import numpy as np

from lossviz import rules
from lossviz.ask import checks, kept
from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.backend import tracing
from lossviz.backend.current import BACKEND
from lossviz.backend.program import Loss
from lossviz.backend.tracing import Traced, lower
from lossviz.engine.decompose import Decomposition, Plan, decompose
from lossviz.engine.decompose import plan as make_plan
from lossviz.engine.labels import first_nonfinite
from lossviz.engine.terms import write_terms
from lossviz.report.findings import Finding
from lossviz.report.report import Report
from lossviz.rules import evidence

# Allowed rounding, relative to the sum of absolute shares, by the dtype of the loss.
_TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3}


@dataclasses.dataclass(frozen=True, eq=False)
class Planned:
    """What is kept with a model for one kind of batch."""

    traced: Traced
    plan: Plan


_DRAWS = (
    "it draws random numbers, so another call of Keras gives another number: this is the number of the draw that the "
    "parts come from, and no independent one"
)


def explain_batch(
    model,
    x,
    y,
    sample_weight,
    *,
    class_weight,
    training,
    axes,
    class_names,
    max_elements,
    begin: Callable[[Traced], None] | None = None,
    batches_of: int | None = None,
) -> Report:
    """`explain` for one batch. With `begin`, which is called with what was traced, the number reported is that of
    `compute_loss` in it: the caller asks Keras."""
    given = y
    x, y, sample_weight, word = checks.weighted_batch(x, y, sample_weight, class_weight)
    errors = partial(checks.model_errors, model, x, y, sample_weight)
    with errors():
        if not _keras.is_built(model):
            _keras.build(model, x, y, sample_weight)
    while True:
        memory = kept.of(model)
        old = bool(memory)
        planned = _planned(memory, model, x, y, sample_weight, training, word, errors)
        traced, plan, reported = planned.traced, planned.plan, None
        if begin is not None:
            begin(traced)
        elif not (training or class_weight is not None or traced.random or plan.confirmed):
            with errors():
                reported = _ask(memory, model, x, y, sample_weight, traced)
        memory.settle(model)
        leaves = tracing.leaves([x, y, sample_weight])
        with errors():
            values = plan.run(leaves)
        predicted = plan.loss.prediction_names, plan.loss.predictions
        named, labels = checks.names(*predicted, axes, class_names, _class_axes(plan.loss))
        notes = _model_notes(model, traced)
        source = "test_on_batch" if _keras.tests_plainly(model) else "evaluate"
        about = {"model": model, "x": x, "y": y, "given": given}
        about |= {"class_weight": class_weight, "batches_of": batches_of}
        traced = dataclasses.replace(traced, leaves=leaves)
        parts = decompose(plan, leaves, values)
        report = _report(traced, parts, reported, source, notes, named, labels, max_elements, about)
        if report.adds_up and reported is not None:
            plan.confirmed = _keras.evaluates_plainly(model)
        if report.adds_up or not old:
            return report
        kept.forget(model)  # something has changed that nobody could see: once more, from the start


def _planned(memory: kept.Kept, model, x, y, sample_weight, training: bool, word: str, errors: Callable) -> Planned:
    """The plan of this batch: the one kept with the model, or a new one."""
    structure = [x, y, sample_weight]
    specs = keras.tree.map_structure(lambda leaf: None if leaf is None else (leaf.shape, str(leaf.dtype)), structure)
    key = repr((specs, training, word))
    found = memory.plans.get(key)
    if found is None:
        with errors(), _quiet.retracing(), _keras.preserved(model):
            traced = tracing.trace_model(model, x, y, sample_weight, training, word)
        found = Planned(traced, make_plan(lower(traced)))
        if traced.python and not traced.random:
            first, second = (found.plan.run(traced.leaves)[found.plan.loss.root] for _ in range(2))
            traced.random = not np.array_equal(first, second, equal_nan=True)
        memory.keep(memory.plans, key, found)
    return found


def _ask(memory: kept.Kept, model, x, y, sample_weight, traced: Traced) -> float | None:
    """What `model.test_on_batch` reports."""
    ranks = tuple(leaf.ndim for leaf in traced.leaves)
    found = memory.functions.get(ranks)  # one for each: TensorFlow traces a new rank with none known
    with _quiet.retracing(), _keras.preserved(model, traced):
        reported, function = _keras.test_on_batch(model, x, y, sample_weight, found)
    if found is None:
        memory.keep(memory.functions, ranks, function)
    return reported


def explain_arrays(loss, y_true, y_pred, sample_weight, mask, axes, class_names, max_elements) -> Report:
    """`explain_loss`."""
    loss = checks.loss_object(loss)
    y_true, y_pred, sample_weight, mask = (
        checks.array(name, value)
        for name, value in (("y_true", y_true), ("y_pred", y_pred), ("sample_weight", sample_weight), ("mask", mask))
    )
    with checks.loss_errors(loss, y_true, y_pred, sample_weight, mask):
        traced = tracing.trace_loss(loss, y_true, y_pred, sample_weight, mask)
        reported = None
        if not traced.random:
            reported = keras.ops.convert_to_numpy(tracing.call_loss(loss, y_true, y_pred, sample_weight, mask)).mean()
    plan = make_plan(lower(traced))
    named, labels = checks.names([loss.name], plan.loss.predictions, axes, class_names, _class_axes(plan.loss))
    decomposition = decompose(plan, traced.leaves, plan.run(traced.leaves))
    notes = [_DRAWS] if traced.random else []
    return _report(traced, decomposition, reported, "the loss itself", notes, named, labels, max_elements)


def _report(
    traced: Traced,
    decomposition: Decomposition,
    reported,
    source,
    notes,
    named,
    labels,
    max_elements,
    about: dict | None = None,
) -> Report:
    """The report of one batch. Without `reported`, its number is what `compute_loss` gave in the same run."""
    loss = decomposition.loss
    if reported is None:
        reported, source = decomposition.values[loss.root], "compute_loss"
    terms = write_terms(decomposition, named, labels, max_elements)
    for words, placeholders in loss.inputs.items():
        for placeholder in placeholders:
            if (where := first_nonfinite(decomposition.fed(placeholder))) is not None:
                notes.append(f"{words} holds a value that is not finite, first at index {where}")
    dtypes = {loss.root.dtype, *(entry.value.dtype for entry in (*loss.outputs, *loss.added))}
    report = Report(
        reported=float(reported),
        terms=terms,
        source=source,
        versions={"Keras": keras.__version__, "backend": f"{BACKEND.name} {BACKEND.version}"},
        tolerance=max(_TOLERANCE.get(dtype, 1e-6) for dtype in dtypes),
        batch_size=loss.batch_size,
        notes=tuple(notes),
    )
    report = _rounded(report, decomposition)
    findings, more = rules.check(evidence.of_trace(traced, decomposition, report, **(about or {})))
    return dataclasses.replace(report, findings=findings, notes=(*report.notes, *more))


def _rounded(report: Report, decomposition: Decomposition) -> Report:
    """The report; where the parts miss the number by no more than its dtype rounds it, with that as its tolerance."""
    if report.adds_up or not (math.isfinite(report.residual) and report.magnitude):
        return report
    program, root = decomposition.loss.program, decomposition.loss.root
    try:
        bound, dtype = program.rounding(root, decomposition.leaves)
    except program.underivable:
        return report
    if abs(report.residual) > bound:
        return report
    note = f"{dtype} holds this loss only to ±{bound:.1g}"
    if dtype == root.dtype:
        note += ": it is small beside the numbers that it is computed from"
    return dataclasses.replace(report, tolerance=bound / report.magnitude, notes=(*report.notes, note))


def _class_axes(loss: Loss) -> dict[str, int]:
    """The axis that the loss of an output takes for its classes, where it says so."""
    found = {}
    for entry in loss.outputs:
        axis = _keras.class_axis(entry.loss, getattr(entry.y_pred, "shape", None) or ())
        if axis is not None:
            found[entry.name] = axis
    return found


def _model_notes(model, traced: Traced) -> list[str]:
    notes = []
    if type(model).test_step is not _keras.plain_test_step():
        notes.append(f"{type(model).__name__} overrides test_step: this report follows its compute_loss")
    if traced.random:
        notes.append(_DRAWS)
    return notes


def findings_of_refused(model, x, y, sample_weight, class_weight, training, error) -> tuple[Finding, ...]:
    """The findings where no report can be made: what Keras refuses, and models with several replicas."""
    found = checks.batch(x, y, sample_weight)
    about = {"class_weight": class_weight, "has_sample_weight": sample_weight is not None, "error": error}
    return rules.check(evidence.of_call(model, found, training, y=found[1], **about))[0]
