"""`lint`: from a traced loss, or from one that cannot be traced, to its findings."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossviz.ask.explain import MAX_ELEMENTS
from lossviz.backend.quiet import require_backend
from lossviz.backend.serial import serial
from lossviz.report.findings import Finding

if TYPE_CHECKING:
    import keras


@serial
def lint(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: Mapping[int, float] | None = None,
    training: bool = False,
    batch_size: int | None = 32,
    try_fixes: bool = False,
) -> tuple[Finding, ...]:
    """What is wrong with the loss of this model on this data; an empty tuple where nothing is.

    Args:
        model, x, y, sample_weight, class_weight, training: as for `lossviz.explain`; all samples are taken as one
            batch. Nothing in the model changes.
        batch_size: the batches that `fit` and `evaluate` would make of these samples, for the one rule that looks
            at more than one batch ("short-last-batch"). Default: 32, as theirs. None: one batch.
        try_fixes: where the way out is one change (an argument of the loss or of `compile`, the last activation, the
            shape of an array), make it to a copy of the model, train the copy and an unchanged one for 20 steps on
            this batch, and say in `Finding.tried` what came of it. Only plain functional and sequential models are
            copied; the model, its optimizer and all random numbers stay as they are.

    Returns:
        `Finding`s, the costliest first. Where Keras refuses the data for a reason that a rule knows (a class weight
        on several outputs, labels out of range), the finding says so, and nothing is raised. A model that is
        distributed over several replicas is checked without its graph, by fewer rules.

    Raises:
        ValueError: the model is not compiled, or Keras refuses the data for another reason; as `lossviz.explain`.
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
    """
    require_backend("lossviz.lint")
    import keras

    from lossviz import rules
    from lossviz.ask import batch, checks
    from lossviz.backend import keras_private as _keras

    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number from 1 on, or None, got {batch_size!r}.")
    try:
        checks.compiled(model)
        found = batch.explain_batch(
            model,
            x,
            y,
            sample_weight,
            class_weight=class_weight,
            training=training,
            axes=None,
            class_names=None,
            max_elements=MAX_ELEMENTS,
            begin=lambda traced: None,  # the number of compute_loss will do; Keras need not trace it once more
            batches_of=batch_size,
        ).findings
    except ValueError as error:
        if not isinstance(model, keras.Model) or not model.compiled:
            raise
        found = batch.findings_of_refused(model, x, y, sample_weight, class_weight, training, error)
        if not found and _keras.replicas(model) < 2:
            raise
    found = rules.union(found)
    if try_fixes:
        from lossviz.ask import fixes

        again = functools.partial(lint, class_weight=class_weight, training=training, batch_size=batch_size)
        found = fixes.tried(found, model, x, y, sample_weight, again)
    return found
