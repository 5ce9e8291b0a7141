"""`explain` and `explain_loss`: from a compiled Keras model, or one loss, to a `Report`."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from lossviz.backend.quiet import require_backend
from lossviz.backend.serial import serial

if TYPE_CHECKING:
    import keras

    from lossviz.report.report import Report

#: Arrays with more elements than this are kept summed over their largest axes (see `explain`).
MAX_ELEMENTS = 50_000_000


@serial
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
    fresh: bool = False,
) -> Report:
    """Show how the loss of one batch, or of a whole data set, became one number, and who contributed how much.

    Args:
        model: a compiled Keras 3 model, on TensorFlow or JAX. An unbuilt model is built; otherwise nothing in
            it changes: weights, optimizer, metrics and seeds are afterwards what they were.
        x, y, sample_weight: one batch, as for `model.test_on_batch`: arrays, or lists and dictionaries of
            arrays. float64 is cast to `keras.config.floatx()`, as `fit` does. Without `batch_size` all samples are
            one batch. Or x alone: a `tf.data.Dataset`, a `keras.utils.PyDataset`, a generator, or whatever else
            `model.evaluate` takes, that yields batches.
        class_weight: `{class: weight}`, as for `model.fit`; not together with `sample_weight`.
        training: run the forward pass in training mode (dropout, batch statistics).
        axes: names of the axes of the predictions. Default: `batch, ..., class`, for rank 4
            `("batch", "row", "col", "class")`; where the loss says that its classes are on another axis (`axis=1`),
            "class" is there. The one called "class", else the last, holds the classes.
            For models with several outputs a dictionary by output name, or
            one tuple for all outputs of that rank.
        class_names: what the positions along the class axis are called; a dictionary by output name, or one
            sequence for all outputs with that many classes. Default: 0, 1, 2, ...
        max_elements: arrays with more elements are kept summed over their largest axes (the part's note says
            so), which leaves `by` for the remaining axes.
        batch_size: take the samples in batches of this size, as `model.evaluate` does, and explain the number of
            the whole: see "Whole data sets".
        steps: explain only this many batches; needed for data without an end.
        verbose: 0 shows no progress bar, 1 shows one, "auto" only where the batches take longer than a few seconds.
        fresh: forget what was traced in an earlier call. Changes of layers, losses, weights, closures and globals are
            noticed without it; those of a file that the loss reads, or inside a C library, are not.

    Returns:
        A `Report`. `report.reported` is what `model.test_on_batch` returned, or, with `class_weight`,
        `training=True` or a random forward pass, what `model.compute_loss` gave on the same forward pass. Once the
        parts of a batch have summed to what Keras returned, later batches of the same shapes are run once: their
        number is what `compute_loss` gave in the run that the parts come from, until something in the model changes.
        `report.source` says which of these it is.

    Calls from several threads run one after the other: while a model is traced, TensorFlow and Keras are switched in
    the whole process.

    Whole data sets: with `batch_size` or a data set the report explains what `model.evaluate` returns: the mean of
    the batches' losses, each weighted by its samples. The batches are read once, one after the other, and none is
    kept: shares along pixels, steps and classes are summed over the samples, and beside them there is one
    share per sample (and class). `report.batches` holds the samples and the loss of each batch.

    Raises:
        ValueError: the model is not compiled, data and model do not fit, or Keras refuses the weights; the
            message names the argument, the shapes and the way out.
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
    """
    require_backend("lossviz.explain")
    from lossviz.ask import batch, checks, epoch, kept

    checks.compiled(model)
    if fresh:
        kept.forget(model)
    options = {"class_weight": class_weight, "training": training, "axes": axes, "class_names": class_names}
    options["max_elements"] = max_elements
    if batch_size is None and steps is None and not epoch.is_dataset(x):
        return batch.explain_batch(model, x, y, sample_weight, **options)
    data = epoch.read(x, y, sample_weight, batch_size, steps)
    return epoch.explain_epoch(model, data, verbose, partial(batch.explain_batch, model, **options), options)


@serial
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
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
    """
    require_backend("lossviz.explain_loss")
    from lossviz.ask import batch

    return batch.explain_arrays(loss, y_true, y_pred, sample_weight, mask, axes, class_names, max_elements)
