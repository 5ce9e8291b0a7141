"""From a traced loss, or from one that cannot be traced, to its evidence and its findings."""

from __future__ import annotations

from lossviz import _quiet

_quiet.import_tensorflow()

import keras  # noqa: E402

from lossviz import checks  # noqa: E402

checks.backend()

from lossviz import _explain, evidence, rules  # noqa: E402
from lossviz.findings import Finding, union  # noqa: E402


def lint(model, x, y, sample_weight, class_weight, training, batch_size) -> tuple[Finding, ...]:
    """See `findings.lint`."""
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number from 1 on, or None, got {batch_size!r}.")
    try:
        checks.compiled(model)
        found = _explain.explain_batch(
            model,
            x,
            y,
            sample_weight,
            class_weight=class_weight,
            training=training,
            axes=None,
            class_names=None,
            max_elements=_explain.MAX_ELEMENTS,
            begin=lambda traced: None,  # the number of compute_loss will do; Keras need not trace it once more
            batches_of=batch_size,
        ).findings
    except ValueError as error:
        if not isinstance(model, keras.Model) or not model.compiled:
            raise
        found = _of_refused(model, x, y, sample_weight, class_weight, training, error)
        if not found and model.distribute_strategy.num_replicas_in_sync < 2:
            raise
    return union(found)


def _of_refused(model, x, y, sample_weight, class_weight, training, error) -> tuple[Finding, ...]:
    """The findings where no report can be made: what Keras refuses, and models with several replicas."""
    batch = checks.batch(x, y, sample_weight)
    about = {"class_weight": class_weight, "has_sample_weight": sample_weight is not None, "error": error}
    return rules.check(evidence.of_call(model, batch, training, y=batch[1], **about))
