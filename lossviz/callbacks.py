"""`LossParts`: the parts of the loss beside the loss itself, while `fit` runs."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from lossviz.backend.quiet import BACKENDS, import_tensorflow, require_backend
from lossviz.backend.serial import lock

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

if keras.backend.backend() in BACKENDS:  # elsewhere LossParts() says that it needs one of them
    from lossviz.backend import keras_private as _keras
    from lossviz.backend.backend import Means
    from lossviz.backend.current import BACKEND
    from lossviz.backend.recorded import Recorded
    from lossviz.backend.traced import Recorder
    from lossviz.engine import naming
    from lossviz.engine.axes import default_axes

DATA, REGULARIZATION, ADDED = "data_loss", "regularization", "add_loss"

# How far the parts may sum from the loss that Keras logs, relative to the sum of their absolute values: both are
# added up in float32 over the batches of an epoch.
_ROUNDING = 1e-4


class LossParts(keras.callbacks.Callback):
    """Log the parts of the loss in `fit` and `evaluate`: data loss, regularisation, added losses, outputs, classes.

        model.fit(x, y, validation_data=(x_val, y_val), callbacks=[lossviz.LossParts()])

    The parts stand wherever Keras puts its own numbers: progress bar, `History`, `CSVLogger`, `TensorBoard`,
    `EarlyStopping(monitor="val_data_loss", mode="min")` (Keras asks for the mode of whatever is not a metric given to
    `compile`), in whatever order the callbacks are, and with `val_` for validation.

        data_loss               the loss without regularisation and added losses
        data_loss/<output>      the share of each output, where there are several
        data_loss/<class>       the share of each true class, with `per_class` (data_loss/<output>/<class>)
        regularization          weight and activity regularisers
        add_loss/<layer>        what a layer added with `add_loss`; its second one is add_loss/<layer>_1

    `loss = data_loss + regularization + every add_loss/...`, and what stands below a name sums to it: each number is
    a share of the loss, after sample weights, class weights, masks and loss weights. In a model with a `compute_loss`
    of its own, what that adds is in `data_loss` (and `data_loss/other`, where there is something below it).

    Each is the true value of the epoch so far: the mean of the batches, weighted by their samples. So is Keras's
    `loss`, but not `<output>_loss`, the loss of an output before its loss weight: in a graph, Keras 3.15 takes the
    plain mean of the batches, which is wrong where the last batch is short. A `train_step` of your own may log
    another `loss`: where the parts do not sum to it, a warning at the end of the epoch says so.

    The model computes the parts in a training function of its own, made with the first batch. Weights, metrics,
    Keras's functions and what is saved stay as they are without it, also when `fit` is interrupted. One `LossParts`
    for several calls of `fit` is traced once; each new one is traced again.

    Args:
        per_class: also log the share of each true class: the largest of one-hot targets, the integer of sparse
            ones, the 0 or 1 of a single output; `no_class` is what has none of these. They are the shares that
            `explain(...).by_label()` gives for one batch. A loss that is no sum over positions with a class,
            such as Dice, has none: a warning says so. True stands for all outputs; where only some have classes,
            give their names.
        class_names: what the classes are called: one sequence for all outputs with that many classes, or a
            dictionary of sequences by output name. Default: class_0, class_1, ...
        per_batch: callbacks, progress bar and `TensorBoard(update_freq="batch")` also get the values of each batch
            alone, as `batch_loss`, `batch_data_loss`, ...; with `steps_per_execution`, of the last batch. The logs
            of an epoch are without them.
        prefix: goes before every name, for models that have a metric of the same name.

    Raises:
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
        ValueError: an argument does not fit. With the first batch, before anything is trained: `class_names` fit
            no output; the model is distributed over several replicas; it has a metric of the same name; its
            `train_step` or `test_step` does not call `compute_loss`, or calls it twice.
    """

    def __init__(
        self,
        *,
        per_class: bool | str | Sequence[str] = False,
        class_names: Sequence[Hashable] | Mapping[str, Sequence[Hashable]] | None = None,
        per_batch: bool = False,
        prefix: str = "",
    ):
        require_backend("lossviz.LossParts")
        super().__init__()
        if not isinstance(per_class, bool):
            per_class = [per_class] if isinstance(per_class, str) else list(per_class)
        if class_names is not None:
            if not per_class:
                raise ValueError("class_names says how to call the classes that per_class=True logs: give both.")
            _check_class_names(class_names)
        if not isinstance(prefix, str):
            raise ValueError(f"prefix must be a string, got {prefix!r}.")
        self.per_class, self.class_names, self.per_batch, self.prefix = per_class, class_names, per_batch, prefix
        self._train, self._test = _Function("train", self), _Function("test", self)
        self._warned: set[str] = set()

    @property
    def async_safe(self) -> bool:
        """Keras may call `on_train_batch_end` from a thread: it has something to do only for `per_batch`."""
        return not self.per_batch

    def on_epoch_begin(self, epoch, logs=None):
        self._train.means.reset()

    def on_train_batch_begin(self, batch, logs=None):
        self._train.arm(self.model)

    def on_train_batch_end(self, batch, logs=None):
        self._train.forget_batch()

    def on_epoch_end(self, epoch, logs=None):
        self._compare(logs or {}, "train_step")

    def on_test_begin(self, logs=None):
        self._test.means.reset()

    def on_test_batch_begin(self, batch, logs=None):
        self._test.arm(self.model)

    def on_test_batch_end(self, batch, logs=None):
        self._test.forget_batch()

    def on_test_end(self, logs=None):
        self._test.logs.update(logs or {})  # numbers: before Keras 3.15, `evaluate` returns these logs as they are
        self._compare(logs or {}, "test_step")

    def _warn(self, message: str) -> None:
        """Warn, but not twice of the same."""
        if message not in self._warned:
            self._warned.add(message)
            warnings.warn(f"LossParts: {message}", stacklevel=2)

    def _compare(self, logs: Mapping[str, float], step: str) -> None:
        names = [name for name in logs if name.startswith(f"{self.prefix}{ADDED}/")]
        names += [f"{self.prefix}{DATA}", f"{self.prefix}{REGULARIZATION}"]
        if "loss" not in logs or not set(names) <= set(logs):
            return
        loss, parts = logs["loss"], [logs[name] for name in names]
        if abs(loss - sum(parts)) > _ROUNDING * sum(map(abs, parts)):
            self._warn(
                f"the parts sum to {sum(parts):.6g}, the mean of the batches weighted by their samples, but the loss "
                f"in the logs is {loss:.6g}. The {step} of this model counts in another way: it may give a short "
                "batch the weight of a full one, start its count anew within the epoch, or log another number than "
                "compute_loss returns."
            )


class _Function:
    """A training or test function that computes the parts as well, and stands in for Keras's own, call by call."""

    def __init__(self, kind: str, options: LossParts):
        self.kind, self.options = kind, options
        self.means: Means = BACKEND.means()
        self.original: Callable | None = None
        self.extended: Callable | None = None
        self.logs: dict = {}

    def arm(self, model: keras.Model) -> None:
        """Let the next call of the model's function be one of ours. The call itself puts Keras's own back."""
        attribute = f"{self.kind}_function"
        original = getattr(model, attribute)
        original = getattr(original, "stands_in_for", original)  # ours, but an exception came before its call
        if self.extended is None or original is not self.original:  # made anew, as after `compile`
            self._extend(model, attribute, original)
        extended, history = self.extended, getattr(model, "history", None)

        def once(*arguments):
            setattr(model, attribute, original)
            if self.kind == "train" and getattr(model, "history", None) is not history:  # by now another `fit` runs
                return original(*arguments)
            result = extended(*arguments)
            self.logs = BACKEND.logs_of(result)
            return result

        once.stands_in_for = original
        setattr(model, attribute, once)

    def forget_batch(self) -> None:
        """Take the values of the batch out of what Keras will hand on as the logs of the epoch."""
        for name in self.means.batch_names:
            self.logs.pop(name, None)

    def _extend(self, model: keras.Model, attribute: str, original: Callable) -> None:
        """Have Keras make its function around a step of ours."""
        replicas = _keras.replicas(model)
        if replicas > 1:
            raise ValueError(
                f"LossParts: model {model.name!r} is distributed over {replicas} replicas, each with a loss of its "
                "own. Train without LossParts, or build the model outside the strategy's scope."
            )
        self.means = BACKEND.means()
        around, check = partial(self._around, model), partial(self._check, model)
        self.extended = BACKEND.with_parts(model, self.kind, around, self.means, check)
        self.original = original

    def _around(self, model: keras.Model, step: Callable) -> Any:
        """`step()`, in which the model's `compute_loss` notes its parts."""
        seen: list[Any] = []
        with lock, _keras.recording_activity(model) as activity:
            compute_loss = _recording(model, activity, self.means, self.options, seen)
            with _keras.replaced(model, "compute_loss", compute_loss):
                result = step()
        if not seen:
            raise ValueError(
                f"LossParts: the {self.kind}_step of {type(model).__name__} does not call compute_loss, which is "
                "where the parts of a loss are seen. Compute the loss in an override of compute_loss, and call "
                "self.compute_loss(x, y, y_pred, sample_weight) in the step."
            )
        return result

    @staticmethod
    def _check(model: keras.Model, logs: Mapping, parts: Mapping) -> None:
        taken = sorted(set(_names(logs)) & set(parts))
        if taken:
            raise ValueError(
                f"LossParts logs {taken}, but model {model.name!r} has a metric of that name. Give the parts "
                'other names: LossParts(prefix="part_").'
            )


def _recording(
    model: keras.Model, activity: set[int], means: Means, options: LossParts, seen: list[Any]
) -> Callable[..., Any]:
    """The model's `compute_loss`, which also adds the parts of what it returns to `means`.

    `seen` collects the graphs that call it: a `tf.function` inside the step may be traced more than once.
    """
    compute_loss = model.compute_loss
    own = getattr(compute_loss, "__func__", None) is not keras.Model.compute_loss

    def recorded(*args, **kwargs):
        graph = BACKEND.graph()
        if graph in seen:
            raise ValueError(
                f"LossParts: {type(model).__name__} calls compute_loss twice for one batch, so the batch has two "
                "losses, and LossParts can follow only one."
            )
        seen.append(graph)
        noted: list[Any] = []

        def compute(watch: Callable) -> tuple[Any, list]:
            recorder = Recorder(watch, elements=bool(options.per_class))
            with (
                _keras.apart() if BACKEND.differentiates_apart else contextlib.nullcontext(),
                _keras.recording_added(model, recorder, activity),
                _keras.recording_outputs(model, recorder),
            ):
                loss = compute_loss(*args, **kwargs)
            noted[:] = recorder, loss
            entries, outputs = [*recorder.outputs, *recorder.added], recorder.outputs
            tensors = [entry.value for entry in entries] + [one.elements for one in outputs if one.elements is not None]
            return ops.mean(loss), tensors  # a vector, without reduction, is logged as its mean

        total, tensors, slopes = BACKEND.differentiated(compute)
        recorder, loss = noted
        parts = _shares(recorder, total, tensors, slopes, options, own)
        if BACKEND.differentiates_apart:
            loss = compute_loss(*args, **kwargs)
        arguments = dict(zip(("x", "y", "y_pred"), args)) | kwargs
        leaves = keras.tree.flatten([arguments.get(name) for name in ("x", "y_pred", "y")])
        samples = next((ops.shape(leaf)[0] for leaf in leaves if leaf is not None), 1)  # as Keras counts them
        means.add({options.prefix + name: value for name, value in parts.items()}, samples)
        if options.per_batch:
            batch = {"loss": ops.cast(total, keras.config.floatx()), **parts}
            means.note({f"batch_{options.prefix}{name}": value for name, value in batch.items()})
        return loss

    return recorded


def _shares(
    recorder: Recorder, total: Any, tensors: Sequence, slopes: Sequence, options: LossParts, own: bool
) -> dict[str, Any]:
    """What each recorded tensor contributes to the total: its elements times the gradient of the total (`slopes`).

    `tensors` are the values of all outputs and of all added losses, then the elements of the outputs that have some.
    The total is linear in them, so the contributions sum to it. In an `own` `compute_loss` more may enter.
    """
    outputs, added = recorder.outputs, recorder.added
    waiting = iter(zip(tensors, slopes, strict=True))
    pairs = {id(entry): next(waiting) for entry in (*outputs, *added)}
    elements = {id(entry): next(waiting) for entry in outputs if entry.elements is not None}
    floatx = keras.config.floatx()

    def share(tensor: Any, slope: Any) -> Any:
        value = ops.stop_gradient(ops.cast(tensor, floatx))
        if not keras.backend.is_float_dtype(keras.backend.standardize_dtype(tensor.dtype)):
            return value  # an integer is added as it is
        return ops.zeros_like(value) if slope is None else value * ops.cast(slope, floatx)

    zero = ops.zeros((), floatx)
    regularization, extra = zero, {}
    for entry in added:
        value = ops.sum(share(*pairs[id(entry)]))
        if entry.kind == "regulariser":
            regularization += value
        else:
            extra[naming.free(f"{ADDED}/{entry.name}", extra)] = value
    reaching = [entry for entry in outputs if pairs[id(entry)][1] is not None]
    values = [ops.sum(share(*pairs[id(entry)])) for entry in reaching]
    below: dict[str, Any] = {}
    names = naming.distinct(entry.name for entry in outputs)
    names = [name for name, entry in zip(names, outputs) if any(entry is other for other in reaching)]
    for name, entry, value in zip(names, reaching, values):
        place = DATA
        if len(reaching) > 1:
            place = f"{DATA}/{name}"
            below[place] = value
        if options.per_class is True or (options.per_class and entry.name in options.per_class):
            shares = share(*elements[id(entry)]) if id(entry) in elements else None
            below.update(_classes(entry, shares, place, options))
    _check_fit(reaching, options)
    data = sum(values, zero)
    if own:
        others = sum(extra.values(), regularization)
        if below:
            below[f"{DATA}/other"] = ops.cast(total, floatx) - others - data
        data = ops.cast(total, floatx) - others
    return {DATA: data, **below, REGULARIZATION: regularization, **extra}


def _classes(entry: Recorded, shares: Any, place: str, options: LossParts) -> dict[str, Any]:
    """The share of each true class in that of an output; empty where there are none. `shares` are those of its
    elements."""
    names = _class_names(entry, options)
    found = None
    if shares is not None:
        axis = _keras.class_axis(entry.loss, entry.y_pred.shape)
        found = _true_classes(entry.y_true, entry.y_pred, _shape(shares), axis)
    if found is None or not BACKEND.outside(partial(_in_place, entry, axis)):
        options._warn(
            f"per_class: the loss of output {entry.name!r} has no shares by class. Its targets are not classes, or "
            "the loss gives no number per position (sample, step or pixel) that depends on the prediction there alone."
        )
        return {}
    flat = ops.cast(ops.reshape(shares, [-1]), BACKEND.widest)  # many small numbers, one after the other
    sums = ops.segment_sum(flat, ops.reshape(found, [-1]), num_segments=len(names) + 1)
    sums = ops.cast(sums, "float32")
    return {f"{place}/{name}": sums[k] for k, name in enumerate((*names, "no_class"))}


def _in_place(entry: Recorded, axis: int | None) -> bool:
    """Is each element loss that of the position where it stands? A loss may roll, shift or mix them.

    Proven on arbitrary numbers, of which `explain_loss` finds by derivatives which positions the elements belong to.
    """
    from lossviz.ask.explain import explain_loss

    alone = explain_loss.__wrapped__  # of calls of ours, this is part of one that holds the lock
    shape = [size or 3 for size in entry.y_pred.shape]
    target = [size or 3 for size in entry.y_true.shape]
    rng = np.random.default_rng(0)
    place = len(shape) - 1 if axis in (None, 0) else axis
    count = shape[place]
    drawn = rng.integers(0, max(count, 2), [size for k, size in enumerate(shape) if k != place])
    if len(target) == len(shape) and target[place] == count > 1:
        y_true = np.moveaxis(np.eye(count)[drawn], -1, place)
    else:
        y_true = drawn.reshape(target)
    dtypes = [keras.backend.standardize_dtype(tensor.dtype) for tensor in (entry.y_true, entry.y_pred)]
    with _keras.unnoticed():
        try:
            y_true, y_pred = (
                ops.convert_to_tensor(array, dtype)
                for array, dtype in zip((y_true, rng.uniform(0.1, 0.9, shape)), dtypes)
            )
            term = alone(entry.loss, *map(ops.convert_to_numpy, (y_true, y_pred))).terms[0]
            elements = ops.convert_to_numpy(entry.loss.call(y_true, y_pred)).astype(np.float64)
        except Exception:  # a loss that refuses arbitrary numbers: nothing is proven
            return False
    names = default_axes(len(shape), place)
    kept = [name for k, name in enumerate(names) if k != place and shape[k] > 1]
    if len(term.parts) != 1 or term.exactness != "exact" or not set(kept) <= set(term.axes) or not elements.any():
        return False
    shares = term.parts[0].sum_to(kept)
    found, there = shares / shares.sum(), elements.reshape(shares.shape) / elements.sum()
    return bool(np.allclose(found, there, rtol=1e-3, atol=1e-6))


def _true_classes(y_true: Any, y_pred: Any, elements: tuple | None, axis: int | None) -> Any:
    """The true class of each element loss, an integer tensor of the same size; one more than the last if it has none.
    `elements` is their shape.

    The graph's version of `labels.true_classes`. It decides at each position, not for the whole batch.
    """
    predicted, target = _shape(y_pred), _shape(y_true)
    if predicted is None or target is None or elements is None:
        return None
    rank = len(predicted)
    if axis is not None and 0 < axis < rank - 1:  # classes last, as everywhere below
        order = [*(k for k in range(rank) if k != axis), axis]
        predicted = tuple(predicted[k] for k in order)
        y_true = ops.transpose(y_true, order) if len(target) == rank else y_true
        target = _shape(y_true)
    if rank < 2 or len(elements) != rank - 1 or predicted[-1] is None:
        return None
    if any(a != b and None not in (a, b) for a, b in zip(elements, predicted)):
        return None
    count, y = predicted[-1], ops.cast(y_true, "float32")
    if count > 1 and len(target) == rank and target[-1] == count:
        largest = ops.max(y, -1)
        marks = ops.all((y == 0) | (y == 1), -1) & (largest > 0)
        distribution = ops.all(y >= 0, -1) & (ops.abs(ops.sum(y, -1) - 1) < 1e-3)
        return ops.where(marks | distribution, ops.cast(ops.argmax(y, -1), "int32"), count)
    if len(target) == rank - 1 or (len(target) == rank and target[-1] == 1):
        last = max(count, 2)
        return ops.where((y == ops.round(y)) & (y >= 0) & (y < last), ops.cast(y, "int32"), last)
    return None


def _shape(tensor: Any) -> tuple | None:
    """None where not even the rank is known, and None for an unknown size."""
    return None if getattr(tensor.shape, "rank", 0) is None else tuple(tensor.shape)


def _count(entry: Recorded) -> int:
    """How many classes an output has: the size of its class axis, and 2 for one column of 0 and 1."""
    shape = _shape(entry.y_pred)
    if not shape:
        return 2
    axis = _keras.class_axis(entry.loss, shape)
    return max(shape[-1 if axis in (None, 0) else axis] or 0, 2)


def _class_names(entry: Recorded, options: LossParts) -> Sequence[str]:
    """One name a class, for the output of this entry."""
    count = _count(entry)
    given = options.class_names
    if isinstance(given, Mapping):
        given = given.get(entry.name)
        if given is not None and len(given) != count:
            raise ValueError(
                f"class_names names {len(given)} classes for output {entry.name!r}, which has {count} "
                f"(its predictions have the shape {tuple(entry.y_pred.shape)})."
            )
    if given is None or len(given) != count:
        return [f"class_{k}" for k in range(count)]
    return [str(name) for name in given]


def _check_fit(outputs: Sequence[dict], options: LossParts) -> None:
    """Raise ValueError where `per_class` or `class_names` name no output, or as many classes as none has."""
    given, names = options.class_names, [entry.name for entry in outputs]
    if isinstance(options.per_class, list) and not set(options.per_class) <= set(names):
        raise ValueError(f"per_class names the outputs {options.per_class}, but the outputs with a loss are {names}.")
    if isinstance(given, Mapping):
        unknown = sorted(set(map(str, given)) - set(map(str, names)))
        if unknown:
            raise ValueError(f"class_names has the outputs {unknown}, but the outputs with a loss are {names}.")
    elif given is not None and outputs:
        shapes = {entry.name: tuple(entry.y_pred.shape) for entry in outputs}
        if not any(_count(entry) == len(given) for entry in outputs if _shape(entry.y_pred)):
            raise ValueError(f"class_names has {len(given)} names, which fits none of the predictions: {shapes}.")


def _check_class_names(given) -> None:
    groups = given.values() if isinstance(given, Mapping) else [given]
    for names in groups:
        if isinstance(names, str) or not isinstance(names, Sequence) or len(set(map(str, names))) != len(names):
            raise ValueError(
                "class_names must be a sequence of different names, or a dictionary of them by output name, got "
                f"{given!r}."
            )


def _names(logs: Mapping) -> Iterator[str]:
    """All names in logs; Keras flattens what is nested."""
    for name, value in logs.items():
        if isinstance(value, Mapping):
            yield from _names(value)
        else:
            yield name
