"""`LossParts`: the parts of the loss beside the loss itself, while `fit` runs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

from lossviz.backend.quiet import import_tensorflow, require_backend
from lossviz.backend.serial import lock

import_tensorflow()

import keras  # noqa: E402
import numpy as np  # noqa: E402

if keras.backend.backend() == "tensorflow":  # elsewhere LossParts() says that it needs it
    import tensorflow as tf

    from lossviz.backend import keras_private as _keras
    from lossviz.backend.recorded import Recorded
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
        RuntimeError: Keras runs on another backend than TensorFlow.
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
        self.means = _Means()
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

        def once(iterator):
            setattr(model, attribute, original)
            if self.kind == "train" and getattr(model, "history", None) is not history:  # by now another `fit` runs
                return original(iterator)
            self.logs = extended(iterator)
            return self.logs

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
        self.means = _Means()
        step = f"{self.kind}_step"
        with _keras.replaced(model, step, self._step(model, getattr(model, step))):
            try:
                getattr(model, f"make_{self.kind}_function")(force=True)
                self.extended = getattr(model, attribute)
            finally:
                setattr(model, attribute, original)
        self.original = original

    def _step(self, model: keras.Model, step: Callable) -> Callable:
        means, options = self.means, self.options
        if isinstance(step, tf.types.experimental.PolymorphicFunction):  # what it has traced knows no parts
            step = tf.function(step.python_function)

        def with_parts(data):
            seen: list[tf.Graph | None] = []
            with lock, _keras.recording_activity(model) as activity:
                compute_loss = _recording(model, activity, means, options, seen)
                with _keras.replaced(model, "compute_loss", compute_loss):
                    logs = step(data)
            if not seen:
                raise ValueError(
                    f"LossParts: the {self.kind}_step of {type(model).__name__} does not call compute_loss, which is "
                    "where the parts of a loss are seen. Compute the loss in an override of compute_loss, and call "
                    "self.compute_loss(x, y, y_pred, sample_weight) in the step."
                )
            parts = means.results()
            taken = sorted(set(_names(logs)) & set(parts))
            if taken:
                raise ValueError(
                    f"LossParts logs {taken}, but model {model.name!r} has a metric of that name. Give the parts "
                    'other names: LossParts(prefix="part_").'
                )
            return {**logs, **parts}

        return tf.autograph.experimental.do_not_convert(with_parts)


class _Means:
    """Means over batches, weighted by samples, in variables that a graph adds to: one vector for a set of names."""

    def __init__(self):
        self.samples: tf.Variable | None = None
        self.totals: dict[tuple[str, ...], tf.Variable] = {}
        self.last: dict[tuple[str, ...], tf.Variable] = {}

    @property
    def batch_names(self) -> list[str]:
        return [name for names in self.last for name in names]

    def reset(self) -> None:
        for variable in [] if self.samples is None else [self.samples, *self.totals.values()]:
            variable.assign(tf.zeros_like(variable))

    def add(self, values: Mapping[str, tf.Tensor], samples: tf.Tensor) -> None:
        """The values of a batch of so many samples."""
        names, vector = tuple(values), tf.stack(list(values.values()))
        samples = tf.cast(samples, vector.dtype)
        if self.samples is None:
            self.samples = _variable(samples)
        if names not in self.totals:
            self.totals[names] = _variable(vector)
        self.samples.assign_add(samples)
        self.totals[names].assign_add(samples * vector)

    def note(self, values: Mapping[str, tf.Tensor]) -> None:
        """The values of a batch, as they are."""
        names, vector = tuple(values), tf.stack(list(values.values()))
        if names not in self.last:
            self.last[names] = _variable(vector)
        self.last[names].assign(vector)

    def results(self) -> dict[str, tf.Tensor]:
        """The mean of each name over all samples; a batch without the name counts as zero."""
        found: dict[str, tf.Tensor] = {}
        for names, total in self.totals.items():
            for name, value in zip(names, tf.unstack(tf.math.divide_no_nan(total, self.samples))):
                found[name] = found[name] + value if name in found else value
        for names, vector in self.last.items():
            found.update(zip(names, tf.unstack(vector)))
        return found


def _recording(
    model: keras.Model, activity: set[int], means: _Means, options: LossParts, seen: list[tf.Graph | None]
) -> Callable[..., tf.Tensor]:
    """The model's `compute_loss`, which also adds the parts of what it returns to `means`.

    `seen` collects the graphs that call it: a `tf.function` inside the step may be traced more than once.
    """
    compute_loss = model.compute_loss
    own = getattr(compute_loss, "__func__", None) is not keras.Model.compute_loss

    def recorded(*args, **kwargs):
        graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        if graph in seen:
            raise ValueError(
                f"LossParts: {type(model).__name__} calls compute_loss twice for one batch, so the batch has two "
                "losses, and LossParts can follow only one."
            )
        seen.append(graph)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            recorder = _keras.Recorder(
                lambda t: t.dtype.is_floating and tape.watch(t), elements=bool(options.per_class)
            )
            with _keras.recording_added(model, recorder, activity), _keras.recording_outputs(model, recorder):
                loss = compute_loss(*args, **kwargs)
            total = tf.reduce_mean(loss)  # a vector, without reduction, is logged as its mean
        parts = _shares(recorder, total, tape, options, own)
        arguments = dict(zip(("x", "y", "y_pred"), args)) | kwargs
        leaves = keras.tree.flatten([arguments.get(name) for name in ("x", "y_pred", "y")])
        samples = next((tf.shape(leaf)[0] for leaf in leaves if leaf is not None), 1)  # as Keras counts them
        means.add({options.prefix + name: value for name, value in parts.items()}, samples)
        if options.per_batch:
            batch = {"loss": tf.cast(total, keras.config.floatx()), **parts}
            means.note({f"batch_{options.prefix}{name}": value for name, value in batch.items()})
        return loss

    return recorded


def _shares(
    recorder: _keras.Recorder, total: tf.Tensor, tape: tf.GradientTape, options: LossParts, own: bool
) -> dict[str, tf.Tensor]:
    """What each recorded tensor contributes to the total: its elements times the gradient of the total.

    The total is linear in them, so the contributions sum to it. In an `own` `compute_loss` more may enter.
    """
    outputs, added = recorder.outputs, recorder.added
    sources = [entry.value for entry in (*outputs, *added)]
    sources += [entry.elements for entry in outputs if entry.elements is not None]
    slopes = {id(s): slope for s, slope in zip(sources, tape.gradient(total, sources))}

    def share(tensor) -> tf.Tensor:
        slope = slopes[id(tensor)] if tensor.dtype.is_floating else 1.0  # an integer is added as it is
        value = tf.stop_gradient(tf.cast(tensor, keras.config.floatx()))
        return tf.zeros_like(value) if slope is None else value * tf.cast(slope, value.dtype)

    zero = tf.zeros((), keras.config.floatx())
    regularization, extra = zero, {}
    for entry in added:
        value = tf.reduce_sum(share(entry.value))
        if entry.kind == "regulariser":
            regularization += value
        else:
            extra[naming.free(f"{ADDED}/{entry.name}", extra)] = value
    reaching = [entry for entry in outputs if slopes[id(entry.value)] is not None]
    values = [tf.reduce_sum(share(entry.value)) for entry in reaching]
    below: dict[str, tf.Tensor] = {}
    names = naming.distinct(entry.name for entry in outputs)
    names = [name for name, entry in zip(names, outputs) if any(entry is other for other in reaching)]
    for name, entry, value in zip(names, reaching, values):
        place = DATA
        if len(reaching) > 1:
            place = f"{DATA}/{name}"
            below[place] = value
        if options.per_class is True or (options.per_class and entry.name in options.per_class):
            below.update(_classes(entry, share, place, options))
    _check_fit(reaching, options)
    data = tf.add_n(values) if values else zero
    if own:
        others = tf.add_n([regularization, *extra.values()])
        if below:
            below[f"{DATA}/other"] = tf.cast(total, zero.dtype) - others - data
        data = tf.cast(total, zero.dtype) - others
    return {DATA: data, **below, REGULARIZATION: regularization, **extra}


def _classes(entry: Recorded, share: Callable, place: str, options: LossParts) -> dict[str, tf.Tensor]:
    """The share of each true class in that of an output; empty where there are none."""
    names = _class_names(entry, options)
    found = None
    if entry.elements is not None:
        axis = _keras.class_axis(entry.loss, entry.y_pred.shape)
        found = _true_classes(entry.y_true, entry.y_pred, entry.elements, axis)
    if found is None or not _in_place(entry, axis):
        options._warn(
            f"per_class: the loss of output {entry.name!r} has no shares by class. Its targets are not classes, or "
            "the loss gives no number per position (sample, step or pixel) that depends on the prediction there alone."
        )
        return {}
    shares = tf.cast(tf.reshape(share(entry.elements), [-1]), tf.float64)  # many small numbers, one after the other
    sums = tf.math.unsorted_segment_sum(shares, tf.reshape(found, [-1]), len(names) + 1)
    return dict(zip((f"{place}/{name}" for name in (*names, "no_class")), tf.unstack(tf.cast(sums, tf.float32))))


def _in_place(entry: Recorded, axis: int | None) -> bool:
    """Is each element loss that of the position where it stands? A loss may roll, shift or mix them.

    Proven on arbitrary numbers, of which `explain_loss` finds by derivatives which positions the elements belong to.
    """
    from lossviz.ask.explain import explain_loss

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
    y_true = y_true.astype(entry.y_true.dtype.as_numpy_dtype)
    y_pred = rng.uniform(0.1, 0.9, shape).astype(entry.y_pred.dtype.as_numpy_dtype)
    with tf.init_scope(), _keras.unnoticed():
        try:
            term = explain_loss(entry.loss, y_true, y_pred).terms[0]
            elements = np.asarray(entry.loss.call(tf.constant(y_true), tf.constant(y_pred)), np.float64)
        except Exception:  # a loss that refuses arbitrary numbers: nothing is proven
            return False
    names = default_axes(len(shape), place)
    kept = [name for k, name in enumerate(names) if k != place and shape[k] > 1]
    if len(term.parts) != 1 or term.exactness != "exact" or not set(kept) <= set(term.axes) or not elements.any():
        return False
    shares = term.parts[0].sum_to(kept)
    found, there = shares / shares.sum(), elements.reshape(shares.shape) / elements.sum()
    return bool(np.allclose(found, there, rtol=1e-3, atol=1e-6))


def _true_classes(y_true: tf.Tensor, y_pred: tf.Tensor, elements: tf.Tensor, axis: int | None) -> tf.Tensor | None:
    """The true class of each element loss, an int32 of the same size; one more than the last if it has none.

    The graph's version of `labels.true_classes`. It decides at each position, not for the whole batch.
    """
    rank, target = y_pred.shape.rank, y_true.shape.rank
    if rank is not None and axis is not None and 0 < axis < rank - 1:  # classes last, as everywhere below
        order = [*(k for k in range(rank) if k != axis), axis]
        y_pred = tf.transpose(y_pred, order)
        y_true = tf.transpose(y_true, order) if target == rank else y_true
    if rank is None or target is None or rank < 2 or elements.shape.rank != rank - 1 or y_pred.shape[-1] is None:
        return None
    if not elements.shape.is_compatible_with(y_pred.shape[:-1]):
        return None
    count, y = y_pred.shape[-1], tf.cast(y_true, tf.float32)
    if count > 1 and target == rank and y_true.shape[-1] == count:
        largest = tf.reduce_max(y, -1)
        marks = tf.reduce_all((y == 0) | (y == 1), -1) & (largest > 0)
        distribution = tf.reduce_all(y >= 0, -1) & (tf.abs(tf.reduce_sum(y, -1) - 1) < 1e-3)
        return tf.where(marks | distribution, tf.argmax(y, -1, tf.int32), count)
    if target == rank - 1 or (target == rank and y_true.shape[-1] == 1):
        last = max(count, 2)
        return tf.where((y == tf.round(y)) & (y >= 0) & (y < last), tf.cast(y, tf.int32), last)
    return None


def _count(entry: Recorded) -> int:
    """How many classes an output has: the size of its class axis, and 2 for one column of 0 and 1."""
    shape = entry.y_pred.shape
    if not shape.rank:
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
        if not any(_count(entry) == len(given) for entry in outputs if entry.y_pred.shape.rank):
            raise ValueError(f"class_names has {len(given)} names, which fits none of the predictions: {shapes}.")


def _check_class_names(given) -> None:
    groups = given.values() if isinstance(given, Mapping) else [given]
    for names in groups:
        if isinstance(names, str) or not isinstance(names, Sequence) or len(set(map(str, names))) != len(names):
            raise ValueError(
                "class_names must be a sequence of different names, or a dictionary of them by output name, got "
                f"{given!r}."
            )


def _variable(like: tf.Tensor) -> tf.Variable:
    """Zeros of the shape and dtype of a tensor, outside the graph that is being traced."""
    with tf.init_scope():
        return tf.Variable(tf.zeros(like.shape, like.dtype), trainable=False)


def _names(logs: Mapping) -> Iterator[str]:
    """All names in logs; Keras flattens what is nested."""
    for name, value in logs.items():
        if isinstance(value, Mapping):
            yield from _names(value)
        else:
            yield name
