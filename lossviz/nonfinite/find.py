"""`find_nonfinite`: what is called; `search` does it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lossviz.backend.quiet import require_backend
from lossviz.backend.serial import serial
from lossviz.nonfinite.result import NonFinite

if TYPE_CHECKING:
    import keras


@serial
def find_nonfinite(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    class_weight: Mapping[int, float] | None = None,
    training: bool | None = None,
    batch_size: int | None = 32,
) -> NonFinite:
    """Find where a NaN or an infinity enters the loss of one batch, or its gradient.

    All samples are taken as one batch first. Where that is finite, the batches that `fit` (unshuffled) and `evaluate`
    make of them are looked at, the short last one too: what divides by a sum over the batch may fail in one of them.

    Looks at the loss first, then at the gradient of each trainable weight (with the scale that a
    `LossScaleOptimizer` puts on the loss), then at the state and the learning rate of the optimizer. Only what reaches
    the loss, or a gradient, counts: the -inf of an attention mask that the softmax turns into 0 is no finding, and
    neither is log(0) behind `ops.where` while the gradient is finite too.

    Not looked at: metrics (a NaN metric beside a finite loss), other data, and the step of the optimizer itself
    (a huge learning rate shows with the next batch, as a weight that is not finite).

    Args:
        model: a compiled Keras 3 model (on TensorFlow or JAX), with or without an optimizer. It is not changed.
        x, y, sample_weight: one batch, as for `model.test_on_batch`: arrays, or lists and dictionaries of arrays.
        class_weight: `{class: weight}`, as for `model.fit`; not together with `sample_weight`.
        training: True runs the forward pass as `fit` does (dropout, batch statistics), False as `evaluate`
            does. None: the loss both ways, then the gradient as `fit` does.
        batch_size: the batches that `fit` and `evaluate` make of these samples. Default: 32, as theirs. None: one
            batch.

    Returns:
        A `NonFinite`: the step, term, layer, operation, first index with named axes, likely cause and a way out. It is
        false where all is finite. Of one batch among several, `samples` says which, and `index` counts within it.

    Raises:
        ValueError: the model is not compiled, data and model do not fit, Keras refuses the weights, or `batch_size` is
            no whole number from 1 on; the message names the argument, the shapes and the way out.
        RuntimeError: Keras runs on a backend other than TensorFlow and JAX.
    """
    require_backend("lossviz.find_nonfinite")
    from lossviz.nonfinite import search

    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise ValueError(f"batch_size must be a whole number from 1 on, or None, got {batch_size!r}.")
    return search.search(model, x, y, sample_weight, class_weight, training, batch_size)
