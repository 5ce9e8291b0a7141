"""Everything here that is not public Keras, in one place (Keras 3.13 to 3.15, TensorFlow backend).

`explain` needs what Keras has no public name for: the loss object of each output, the owner of each added loss, the
mask and the logits of a tensor, and a way to put a model back as it was. `tests/test_keras_private.py` fails by name
when a new Keras moves one of them.
"""

from __future__ import annotations

import contextlib
import functools
import random
import types
import weakref
from collections.abc import Callable, Iterator

import keras
import numpy as np
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.models import Functional
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.utils.naming import get_object_name

from lossviz.backend.backend import replaced
from lossviz.backend.current import BACKEND
from lossviz.backend.recorded import Added, Crossentropy, Recorded
from lossviz.backend.traced import Recorder, Traced

#: For each model, the layers that a build has left without variables.
_LEFT_UNBUILT: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def layers_of(model: keras.Model) -> list[keras.layers.Layer]:
    """The model and every layer in it, in the order in which `model.losses` asks them."""
    return [model, *model._flatten_layers(include_self=False)]


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer, or a model, holds itself."""
    return layer._layers


def last_layer(model: keras.Model) -> keras.layers.Layer | None:
    """The layer that gives the only output of a functional or sequential model."""
    outputs = keras.tree.flatten(model.outputs)
    made_by = outputs[0]._keras_history.operation if len(outputs) == 1 else None
    return made_by if isinstance(made_by, keras.layers.Layer) and not isinstance(made_by, keras.Model) else None


def set_mask(tensor, mask) -> None:
    """Attach a Keras mask to a tensor, as `Masking` does."""
    backend.set_keras_mask(tensor, mask)


def options_of(loss) -> dict:
    """The arguments that Keras's own losses were made with, such as `from_logits`; empty for other losses."""
    return getattr(loss, "_fn_kwargs", {})


def class_axis(loss, shape) -> int | None:
    """The axis of predictions of this shape that a loss takes for the classes, or None where it does not say.

    It is the loss's `axis`, or, where that lists the axes that are summed (`Dice`, `Tversky`), the one left beside the
    batch.
    """
    rank = len(shape)
    axis = getattr(loss, "axis", None)
    if axis is None:
        axis = options_of(loss).get("axis")
    if isinstance(axis, int) and rank:
        return axis % rank
    if isinstance(axis, (tuple, list)) and all(isinstance(a, int) for a in axis):
        summed = {a % rank for a in axis} if rank else set()
        left = [k for k in range(1, rank) if k not in summed]
        return left[0] if len(left) == 1 else None
    return None


def sample_weight_from_class_weight(y: np.ndarray, class_weight: dict) -> np.ndarray:
    """The weights, shape (batch,), that `fit` makes of a `class_weight` dictionary; missing classes weigh 1."""
    return data_adapter_utils.class_weight_to_sample_weights(y, class_weight)


def compiled_loss(model: keras.Model):
    """The object that applies one loss per output, or None where `compile` got no loss."""
    return model._compile_loss


def compiled_metrics(model: keras.Model):
    """The object that holds the metrics of `compile`, or None."""
    return model._compile_metrics


@contextlib.contextmanager
def recording_outputs(model: keras.Model, recorder: Recorder) -> Iterator[None]:
    """While open, each output's loss value is noted as Keras computes it."""
    compiled = compiled_loss(model)
    if compiled is None:
        yield
        return
    original = compiled._flat_losses

    def recorded(entry) -> Callable:
        def call(y_true, y_pred, sample_weight=None):
            with _recording_elements(entry.loss, recorder) as elements:
                value = recorder.watch(BACKEND.identity(entry.loss(y_true, y_pred, sample_weight)))
            weight = 1.0 if entry.loss_weights is None else entry.loss_weights
            recorder.outputs.append(
                Recorded(
                    name=entry.name,
                    value=value,
                    y_true=y_true,
                    y_pred=y_pred,
                    loss=entry.loss,
                    loss_weight=weight,
                    sample_weight=sample_weight,
                    mask=mask_of(y_pred),
                    elements=elements[0] if elements else None,
                )
            )
            return value

        return call

    def record() -> None:
        nonlocal original
        original = compiled._flat_losses
        compiled._flat_losses = [entry._replace(loss=recorded(entry)) for entry in original]

    def build(y_true, y_pred) -> None:  # Keras builds the compiled loss with the first batch
        type(compiled).build(compiled, y_true, y_pred)
        record()

    if original is None:
        compiled.build = build
    else:
        record()
    try:
        yield
    finally:
        vars(compiled).pop("build", None)
        compiled._flat_losses = original


@contextlib.contextmanager
def _recording_elements(loss: Callable, recorder: Recorder) -> Iterator[list]:
    """While open, the yielded list collects what `loss.call` returns, if the recorder wants it."""
    found: list = []
    if not recorder.wants_elements or not isinstance(loss, keras.losses.Loss):
        yield found
        return
    call = loss.call

    def recorded(y_true, y_pred):
        elements = call(y_true, y_pred)
        if BACKEND.is_tensor(elements):
            mask = backend.get_keras_mask(elements)
            elements = recorder.watch(BACKEND.identity(elements))
            if mask is not None:
                backend.set_keras_mask(elements, mask)
            found.append(elements)
        return elements

    with replaced(loss, "call", recorded):
        yield found


@contextlib.contextmanager
def recording_activity(model: keras.Model) -> Iterator[set[int]]:
    """While open, the yielded set collects the ids of the losses that layers add for their activity regulariser."""
    seen: set[int] = set()
    kept: list = []
    wrapped = [layer for layer in layers_of(model) if layer.activity_regularizer is not None]
    originals = [layer.activity_regularizer for layer in wrapped]

    def record(layer, regulariser) -> None:
        """The next `add_loss` after a call of the regulariser adds its value, by then divided by the batch size."""
        called = False

        def call(output):
            nonlocal called
            called = True
            return regulariser(output)

        def add_loss(loss):
            nonlocal called
            if called:
                kept.append(loss)  # alive, so that no other tensor can have its id
                seen.add(id(loss))
                called = False
            return type(layer).add_loss(layer, loss)

        layer.activity_regularizer = call
        vars(layer)["add_loss"] = add_loss

    for layer, regulariser in zip(wrapped, originals):
        record(layer, regulariser)
    try:
        yield seen
    finally:
        for layer, regulariser in zip(wrapped, originals):
            del vars(layer)["add_loss"]
            layer.activity_regularizer = regulariser


@contextlib.contextmanager
def recording_calls(model: keras.Model) -> Iterator[list[types.SimpleNamespace]]:
    """While open, the yielded list collects each call of a layer (see `Backend.call`)."""
    calls: list[types.SimpleNamespace] = []
    layers = layers_of(model)

    def recorded(layer) -> Callable:
        inner = layer.call

        @functools.wraps(inner)
        def call(*args, **kwargs):
            with BACKEND.call(calls, layer):
                return inner(*args, **kwargs)

        return call

    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(replaced(layer, "call", recorded(layer)))
        yield calls


@contextlib.contextmanager
def recording_added(model: keras.Model, recorder: Recorder, activity: set[int]) -> Iterator[None]:
    """While open, `model.losses` is a list of known tensors, each noted with its owner.

    Call after the forward pass and compute the loss inside. Each is made a tensor of its own, so that one
    tensor added twice is two terms.
    """
    handed_on = model._losses_override  # by a step on JAX, which computes predictions and loss in two scopes
    for layer in layers_of(model):
        for value in layer._get_own_losses() or [one for one in handed_on if id(one) in layer._loss_ids]:
            from_activity = id(value) in activity
            kind = "regulariser" if from_activity else "add_loss"
            name = f"{layer.name}/activity" if from_activity else layer.name
            recorder.added.append(Added(name, kind, BACKEND.identity(value)))
    owners = [variable for variable in model.trainable_weights if variable.regularizer is not None]
    for variable, value in zip(owners, model._get_regularization_losses(), strict=True):
        recorder.added.append(Added(variable.path, "regulariser", BACKEND.identity(value)))
    for entry in recorder.added:
        entry.value = recorder.watch(entry.value)
    before = model._losses_override
    model._losses_override = [entry.value for entry in recorder.added]
    try:
        yield
    finally:
        model._losses_override = before


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Inside a scope that collects what Keras computes without changing a variable: what happens inside is not
    collected, and begins with the values and the added losses that the scope has."""
    scope = backend.get_stateless_scope() if backend.in_stateless_scope() else None
    if scope is None:
        yield
        return
    inner = keras.StatelessScope(collect_losses=scope.collect_losses, initialize_variables=False)
    inner.state_mapping, inner.losses = dict(scope.state_mapping), list(scope.losses)
    with inner:
        yield


def wrap_loss_function(function: Callable) -> keras.losses.Loss:
    """A loss function as the Loss that `compile` makes of it."""
    return LossFunctionWrapper(function, name=get_object_name(function))


def build(model: keras.Model, x, y, sample_weight) -> None:
    """Make the variables of model, metrics and compiled loss, as the first batch of `evaluate` would."""

    def known(leaf):  # Keras knows TensorFlow's strings here, but not those of NumPy
        return BACKEND.text(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype.hasobject else leaf

    batch = keras.tree.map_structure(known, (x, y, sample_weight))
    with _without_slots(model.optimizer), name_scopes():
        if not _build_loss_alone(model, *batch):
            model._symbolic_build(data_batch=batch)
    _LEFT_UNBUILT[model] = _unbuilt(model)


def _build_loss_alone(model: keras.Model, x, y, sample_weight) -> bool:
    """Build loss and metrics from the shapes of the outputs, where a functional model has all its layers built and
    knows them: nothing is passed through the layers. False where that cannot be done."""
    if type(model) not in (Functional, keras.Sequential) or _unbuilt(model):
        return False
    try:
        x, y, sample_weight = keras.tree.map_structure(_spec, (x, y, sample_weight))
        y_pred = model.compute_output_spec(x)
        if (metrics := compiled_metrics(model)) is not None and not metrics.built:
            backend.compute_output_spec(model.compute_metrics, x, y, y_pred, sample_weight=sample_weight)
        if (loss := compiled_loss(model)) is not None and not loss.built:
            arguments = {"sample_weight": sample_weight, "training": False}
            backend.compute_output_spec(model._compute_loss, x, y, y_pred, **arguments)
    except Exception:  # what is wrong with the batch is said where the whole model is built
        return False
    return True


def _spec(leaf) -> keras.KerasTensor | None:
    return None if leaf is None else keras.KerasTensor(leaf.shape, backend.standardize_dtype(leaf.dtype))


def plain_test_step():
    """The `test_step` of models that do not override it."""
    return keras.Model.test_step


def tests_plainly(model: keras.Model) -> bool:
    """Is what `test_on_batch` returns Keras's own doing?"""
    return all(getattr(type(model), n) is getattr(keras.Model, n) for n in ("test_step", "test_on_batch"))


def evaluates_plainly(model: keras.Model) -> bool:
    """Is an evaluation the forward pass, `compute_loss` and the metrics, and nothing besides?"""
    names = ("test_step", "compute_metrics")
    return all(getattr(type(model), n) is getattr(keras.Model, n) and n not in vars(model) for n in names)


def replicas(model: keras.Model) -> int:
    """Over how many replicas a strategy of TensorFlow distributes the model, each with a loss of its own."""
    strategy = getattr(model, "distribute_strategy", None)
    return 1 if strategy is None else strategy.num_replicas_in_sync


def prints_means_of_batches(model: keras.Model) -> bool:
    """Does Keras print beside each of several outputs the mean of the losses of batches, whatever their sizes? On
    TensorFlow it does, unless it runs its steps eagerly; on JAX it prints the mean over the samples."""
    return backend.backend() == "tensorflow" and not model.run_eagerly


def trains_on_arrays() -> bool:
    """Does Keras train on a loss that is an array? TensorFlow differentiates its sum, JAX nothing but one number."""
    return backend.backend() == "tensorflow"


def counts_labels_outside_as_zero() -> bool:
    """Has a label that no class stands for the sparse crossentropy 0? On JAX, whose one-hot row is all zeros then."""
    return backend.backend() == "jax"


def is_built(model: keras.Model) -> bool:
    """Have the model, its layers and its compiled loss made their variables?

    A layer that the model never calls, such as one for prediction only, makes none: what a build has left unbuilt
    counts as built.
    """
    compiled = compiled_loss(model)
    return _unbuilt(model) <= _LEFT_UNBUILT.get(model, set()) and (compiled is None or compiled.built)


def _unbuilt(model: keras.Model) -> set[int]:
    return {id(layer) for layer in layers_of(model) if not layer.built}


def numbers_of(variable: keras.Variable) -> np.ndarray:
    """A copy: on JAX a step overwrites the memory of its variables. (`Variable.numpy` there warns of NumPy 2.)"""
    value = variable.value
    return np.array(value.numpy() if hasattr(value, "numpy") else value)


@contextlib.contextmanager
def preserved(model: keras.Model, traced: Traced | None = None) -> Iterator[None]:
    """Whatever happens inside, the model is afterwards as it was: weights, metrics, seeds, optimizer, functions.

    With `traced`, what runs inside is its forward pass and its loss, and so is every variable that it moves, whoever
    owns it: the state of a stateful RNN, a tf.Variable in a layer or in a loss.
    """
    own = traced is None or not evaluates_plainly(model)
    variables = [*(model.variables if own else ()), *model.metrics_variables]
    seed_generator = global_state.get_global_attribute("global_seed_generator")
    if seed_generator is not None:
        variables.append(seed_generator.state)
    variables = list({id(variable): variable for variable in variables}.values())
    values = [numbers_of(variable) for variable in variables]
    layers = layers_of(model)
    losses = [(layer, list(layer._losses), set(layer._loss_ids)) for layer in layers]
    functions = {name: getattr(model, name, None) for name in ("train_function", "test_function", "predict_function")}
    steps = model.steps_per_execution
    numpy_state, python_state = np.random.get_state(), random.getstate()
    model.steps_per_execution = 1
    try:
        with BACKEND.state_put_back(traced), _without_slots(model.optimizer), name_scopes():
            yield
    finally:
        model.steps_per_execution = steps
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for name, function in functions.items():
            setattr(model, name, function)
        for layer, own, ids in losses:
            layer._losses[:] = own
            layer._loss_ids.clear()
            layer._loss_ids.update(ids)
        for variable, value in zip(variables, values):
            variable.assign(value)


@contextlib.contextmanager
def name_scopes() -> Iterator[None]:
    """While open, Keras may leave a name scope that TensorFlow refused; it is gone afterwards.

    Keras enters the scope of a layer before TensorFlow looks at its name, and then never leaves it: every weight
    made later in this process would bear that name.
    """
    open_scopes = list(global_state.get_global_attribute("name_scope_stack", default=[]))
    try:
        yield
    finally:
        global_state.set_global_attribute("name_scope_stack", open_scopes)


@contextlib.contextmanager
def unnoticed() -> Iterator[None]:
    """Whatever happens inside, random numbers and automatic names go on afterwards as if nothing had been."""
    names = global_state.get_global_attribute("object_name_uids")
    names = None if names is None else dict(names)
    seed_generator = global_state.get_global_attribute("global_seed_generator")
    seed = None if seed_generator is None else numbers_of(seed_generator.state)
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with BACKEND.random_put_back(), name_scopes():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        global_state.set_global_attribute("global_seed_generator", seed_generator)
        if seed_generator is not None:
            seed_generator.state.assign(seed)
        counts = global_state.get_global_attribute("object_name_uids")
        if counts is not None:
            counts.clear()
            counts.update(names or {})


@contextlib.contextmanager
def _without_slots(optimizer) -> Iterator[None]:
    """While open, Keras does not create the variables of an optimizer that has none yet."""
    fresh = optimizer is not None and not optimizer.built
    if fresh:
        optimizer.built = True
    try:
        yield
    finally:
        if fresh:
            optimizer.built = False


@BACKEND.apart
def test_on_batch(model: keras.Model, x, y, sample_weight, function: Callable | None) -> tuple:
    """The "loss" that `model.test_on_batch` returns, None where it returns none by that name, and the test function.

    Of a model with a `test_step` or `test_on_batch` of its own, what `evaluate` returns of one batch: such a step may
    say `x, y = data`, which fails on the `(x, y, None)` of `test_on_batch`. With `function`, one that was returned
    before, nothing is traced. The one that the model may have traced itself stays as it was (see `preserved`).
    """
    model.test_function = function
    if tests_plainly(model):
        model.reset_metrics()  # before 3.15 Keras does not, and gives the mean since the last epoch
        logs = model.test_on_batch(x, y, sample_weight=sample_weight, return_dict=True)
    else:
        logs = BACKEND.evaluated(model, x, y, sample_weight)
    return logs.get("loss"), model.test_function


@contextlib.contextmanager
def evaluation(model: keras.Model, traced: Traced | None) -> Iterator[Callable]:
    """While open, a function that does for one batch `(x, y, sample_weight)` what `model.evaluate` does.

    It returns the "loss" that `evaluate` would print then, the mean so far, or None where there is none by that
    name. Afterwards the model is as it was before (see `preserved`).
    """
    with preserved(model, traced), BACKEND.evaluation(model) as evaluated:

        def run(x, y, sample_weight) -> float | None:
            logs = evaluated(x, y, sample_weight)
            return float(logs["loss"]) if "loss" in logs else None

        yield run


_CROSSENTROPIES = ("binary", "categorical", "sparse_categorical")


@contextlib.contextmanager
def recording_crossentropies(recorder: Recorder) -> Iterator[None]:
    """While open, every crossentropy that goes through `keras.ops`, as all of Keras's losses do, is noted."""

    def noted(kind: str, original: Callable, target, output, from_logits=False, **more):
        owner, axis, takes = len(recorder.outputs), more.get("axis", -1), BACKEND.takes_logits(kind, output)
        recorder.crossentropies.append(Crossentropy(kind, target, output, bool(from_logits), owner, axis, takes))
        return original(target, output, from_logits=from_logits, **more)

    with _replaced_crossentropies(noted):
        yield


@contextlib.contextmanager
def recording_loss(loss: keras.losses.Loss, recorder: Recorder) -> Iterator[list]:
    """While open, its crossentropies are noted, and the yielded list collects what the loss gives before weights."""
    with _recording_elements(loss, recorder) as elements, recording_crossentropies(recorder):
        yield elements


@contextlib.contextmanager
def crossentropies_as(from_logits: bool) -> Iterator[None]:
    """While open, every crossentropy of Keras takes its predictions as logits, or as probabilities."""

    def forced(kind: str, original: Callable, target, output, **more):
        return original(target, output, **{**more, "from_logits": from_logits})

    with _replaced_crossentropies(forced):
        yield


@contextlib.contextmanager
def _replaced_crossentropies(replacement: Callable) -> Iterator[None]:
    names = {kind: f"{kind}_crossentropy" for kind in _CROSSENTROPIES}
    originals = {kind: getattr(backend.nn, name) for kind, name in names.items()}
    for kind, name in names.items():
        setattr(backend.nn, name, functools.partial(replacement, kind, originals[kind]))
    try:
        yield
    finally:
        for kind, name in names.items():
            setattr(backend.nn, name, originals[kind])


def declared_losses(model: keras.Model) -> tuple:
    """`loss` and `loss_weights` as they were given to `compile`."""
    compiled = compiled_loss(model)
    return (None, None) if compiled is None else (compiled._user_loss, compiled._user_loss_weights)


def other_metrics(model: keras.Model) -> list:
    """The metrics of a model but for Keras's own mean of the loss."""
    return [metric for metric in model.metrics if metric is not model._loss_tracker]


def mask_of(tensor):
    """The Keras mask of a tensor, or None."""
    return backend.get_keras_mask(tensor)


def flat_losses(model: keras.Model) -> list:
    """The compiled losses in the order in which they are computed; empty before the first batch."""
    compiled = compiled_loss(model)
    return list(compiled._flat_losses or []) if compiled is not None else []


@contextlib.contextmanager
def untouched(model: keras.Model | None, traced: Traced | None) -> Iterator[None]:
    """`preserved` where there is a model; else the variables that the loss moves are put back."""
    with preserved(model, traced) if model is not None else BACKEND.state_put_back(traced):
        yield
