"""`explain` and `explain_loss`: from a compiled Keras model, or one loss, to a `Report`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any

from lossviz.backend import quiet as _quiet

_quiet.import_tensorflow()

import keras  # noqa: E402

from lossviz.ask import checks  # noqa: E402

checks.backend()

import tensorflow as tf  # noqa: E402

from lossviz import rules  # noqa: E402
from lossviz.ask import epoch, kept  # noqa: E402
from lossviz.backend import keras_private as _keras  # noqa: E402
from lossviz.backend import tracing  # noqa: E402
from lossviz.backend.tracing import Traced  # noqa: E402
from lossviz.engine.decompose import Decomposition, Plan, decompose, plan  # noqa: E402
from lossviz.engine.labels import first_nonfinite  # noqa: E402
from lossviz.engine.terms import write_terms  # noqa: E402
from lossviz.report.report import Report  # noqa: E402
from lossviz.rules import evidence  # noqa: E402

#: Arrays with more elements than this are kept summed over their largest axes (see `explain`).
MAX_ELEMENTS = 50_000_000

# Allowed rounding, relative to the sum of absolute shares, by the dtype of the loss.
_TOLERANCE = {"float64": 1e-12, "float32": 1e-6, "bfloat16": 2e-2, "float16": 2e-3}


def explain(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: Mapping[int, float] | None = None,
    training: bool = False,
    axes: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    class_names: Sequence[Hashable] | Mapping[str, Sequence[Hashable]] | None = None,
    max_elements: int = MAX_ELEMENTS,
    batch_size: int | None = None,
    steps: int | None = None,
    verbose: str | int = "auto",
) -> Report:
    """Show how the loss of one batch, or of a whole data set, became one number, and who contributed how much.

    Args:
        model: a compiled Keras 3 model (TensorFlow backend). An unbuilt model is built; otherwise nothing in
            it changes: weights, optimizer, metrics and seeds are afterwards what they were.
        x, y, sample_weight: one batch, as for `model.test_on_batch`: arrays, or lists and dictionaries of
            arrays. float64 is cast to `keras.config.floatx()`, as `fit` does. Without `batch_size` all samples are
            one batch. Or x alone: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, or whatever else
            `model.evaluate` takes, that yields batches.
        class_weight: `{class: weight}`, as for `model.fit`; not together with `sample_weight`.
        training: run the forward pass in training mode (dropout, batch statistics).
        axes: names of the axes of the predictions. Default: `batch, ..., class`, for rank 4
            `("batch", "row", "col", "class")`. For models with several outputs a dictionary by output name, or
            one tuple for all outputs of that rank.
        class_names: what the positions along the last axis are called; a dictionary by output name, or one
            sequence for all outputs with that many classes. Default: 0, 1, 2, ...
        max_elements: arrays with more elements are kept summed over their largest axes (the part's note says
            so), which leaves `by` for the remaining axes.
        batch_size: take the samples in batches of this size, as `model.evaluate` does, and explain the number of
            the whole: see "Whole data sets".
        steps: explain only this many batches; needed for data without an end.
        verbose: 0 shows no progress bar, 1 shows one, "auto" only where the batches take longer than a few seconds.

    Returns:
        A `Report`. `report.reported` is what `model.test_on_batch` returned, or, with `class_weight`,
        `training=True` or a random forward pass, what `model.compute_loss` gave on the same forward pass.

    Whole data sets: with `batch_size` or a data set the report explains what `model.evaluate` returns: the mean of
    the batches' losses, each weighted by its samples. The batches are read once, one after the other, and none is
    kept: shares along pixels, steps and classes are summed over the samples, and beside them there is one
    share per sample (and class). `report.batches` holds the samples and the loss of each batch.

    Raises:
        ValueError: the model is not compiled, data and model do not fit, or Keras refuses the weights; the
            message names the argument, the shapes and the way out.
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    checks.compiled(model)
    options = {"class_weight": class_weight, "training": training, "axes": axes, "class_names": class_names}
    options["max_elements"] = max_elements
    if batch_size is None and steps is None and not epoch.is_dataset(x):
        return explain_batch(model, x, y, sample_weight, **options)
    data = epoch.read(x, y, sample_weight, batch_size, steps)
    return epoch.explain_epoch(model, data, verbose, partial(explain_batch, model, **options), options)


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
    x, y, sample_weight, word = checks.weighted_batch(x, y, sample_weight, class_weight)
    errors = partial(checks.model_errors, model, x, y, sample_weight)
    with errors():
        if not _keras.is_built(model):
            _keras.build(model, x, y, sample_weight)
    while True:
        memory = kept.of(model)
        old = bool(memory)
        planned = _planned(memory, model, x, y, sample_weight, training, word, errors)
        traced, reported = planned.traced, None
        if begin is not None:
            begin(traced)
        elif not training and class_weight is None and not traced.random:
            with errors():
                reported = _ask(memory, model, x, y, sample_weight, traced)
        leaves = tracing.leaves([x, y, sample_weight])
        with errors():
            values = planned.program(leaves)
        named, labels = checks.names(traced.prediction_names, traced.predictions, axes, class_names)
        notes = _model_notes(model, traced)
        source = "test_on_batch" if type(model).test_step is _keras.plain_test_step() else "evaluate"
        about = {"model": model, "x": x, "y": y, "class_weight": class_weight, "batches_of": batches_of}
        decomposition = decompose(planned, leaves, values)
        report = _report(decomposition, reported, source, notes, named, labels, max_elements, about)
        if report.adds_up or not old:
            return report
        kept.forget(model)  # something has changed that nobody could see: once more, from the start


def _planned(memory: kept.Kept, model, x, y, sample_weight, training: bool, word: str, errors: Callable) -> Plan:
    """The plan of this batch: the one kept with the model, or a new one."""
    structure = [x, y, sample_weight]
    specs = keras.tree.map_structure(lambda leaf: None if leaf is None else (leaf.shape, str(leaf.dtype)), structure)
    key = repr((specs, training, word))
    found = memory.plans.get(key)
    if found is None:
        with errors(), _quiet.retracing(), _keras.preserved(model):
            traced = tracing.trace_model(model, x, y, sample_weight, training, word)
        found = plan(traced)
        memory.keep(memory.plans, key, found)
        memory.settle(model)
    return found


def _ask(memory: kept.Kept, model, x, y, sample_weight, traced: Traced) -> float | None:
    """What `model.test_on_batch` reports."""
    ranks = tuple(placeholder.shape.rank for placeholder in traced.trace.feeds)
    found = memory.functions.get(ranks)  # one for each: TensorFlow traces a new rank with none known
    with _quiet.retracing(), _keras.preserved(model, traced.trace.graph):
        reported, function = _keras.test_on_batch(model, x, y, sample_weight, found)
    if found is None:
        memory.keep(memory.functions, ranks, function)
        memory.settle(model)
    return reported


def explain_loss(
    loss: keras.losses.Loss | Callable | str,
    y_true: Any,
    y_pred: Any,
    sample_weight: Any = None,
    *,
    mask: Any = None,
    axes: Sequence[str] | None = None,
    class_names: Sequence[Hashable] | None = None,
    max_elements: int = MAX_ELEMENTS,
) -> Report:
    """Show how one loss reduces two arrays to one number; no model needed.

    Args:
        loss: a `keras.losses.Loss`, a function of `(y_true, y_pred)`, or a name that Keras knows. A function
            is wrapped as `compile` does: its values are weighted and averaged.
        y_true, y_pred: arrays. float64 is cast to `keras.config.floatx()`.
        sample_weight: weights, as for `loss(y_true, y_pred, sample_weight)`.
        mask: boolean array, attached to `y_pred` as Keras attaches the mask of a masked input.
        axes, class_names, max_elements: as for `explain`.

    Returns:
        A `Report` with one output term (and a constant, if the loss has one). `report.reported` is what calling
        the loss returned, or its mean where it returned an array, which is what the progress bar shows.

    Raises:
        ValueError: the shapes do not fit, naming the argument, the shapes and the way out.
        RuntimeError: Keras runs on another backend than TensorFlow.
    """
    loss = checks.loss_object(loss)
    y_true, y_pred, sample_weight, mask = (
        checks.array(name, value)
        for name, value in (("y_true", y_true), ("y_pred", y_pred), ("sample_weight", sample_weight), ("mask", mask))
    )
    with checks.loss_errors(loss, y_true, y_pred, sample_weight, mask):
        reported = tracing.call_loss(loss, y_true, y_pred, sample_weight, mask).numpy().mean()
        traced = tracing.trace_loss(loss, y_true, y_pred, sample_weight, mask)
    named, labels = checks.names([loss.name], traced.predictions, axes, class_names)
    planned = plan(traced)
    decomposition = decompose(planned, traced.leaves, planned.program(traced.leaves))
    return _report(decomposition, reported, "the loss itself", [], named, labels, max_elements)


def _report(
    decomposition: Decomposition, reported, source, notes, named, labels, max_elements, about: dict | None = None
) -> Report:
    """The report of one batch. Without `reported`, its number is what `compute_loss` gave in the same run."""
    traced = decomposition.traced
    if reported is None:
        reported, source = decomposition.values[traced.root.ref()], "compute_loss"
    terms = write_terms(decomposition, named, labels, max_elements)
    for words, placeholders in traced.inputs.items():
        for placeholder in placeholders:
            if (where := first_nonfinite(traced.value_of(placeholder))) is not None:
                notes.append(f"{words} holds a value that is not finite, first at index {where}")
    computed = [entry["value"] for entry in (*traced.recorder.outputs, *traced.recorder.added)]
    dtypes = {tensor.dtype.name for tensor in (traced.root, *computed)}
    report = Report(
        reported=float(reported),
        terms=terms,
        source=source,
        versions={"Keras": keras.__version__, "backend": f"tensorflow {tf.__version__}"},
        tolerance=max(_TOLERANCE.get(dtype, 1e-6) for dtype in dtypes),
        batch_size=traced.batch_size,
        notes=tuple(notes),
    )
    findings = rules.check(evidence.of_trace(decomposition, report, **(about or {})))
    return dataclasses.replace(report, findings=findings)


def _model_notes(model, traced: Traced) -> list[str]:
    notes = []
    if type(model).test_step is not _keras.plain_test_step():
        notes.append(f"{type(model).__name__} overrides test_step: this report follows its compute_loss")
    if traced.random:
        notes.append("the forward pass draws random numbers: another call of Keras gives another number")
    return notes
