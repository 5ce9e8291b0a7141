"""What `explain` accepts, and what it says when something does not fit.

Keras decides what is refused: these checks only run ahead of it where its message would not help, or after
it, to say which argument is to blame, with the shapes and the way out.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend import tracing
from lossviz.engine.axes import class_axis, default_axes


def compiled(model: Any) -> None:
    """Raise unless `model` is a compiled Keras 3 model on one device."""
    if not isinstance(model, keras.Model):
        raise ValueError(f"model must be a keras.Model (Keras {keras.__version__}), got {type(model).__name__}.")
    if not model.compiled:
        raise ValueError(
            f"model {model.name!r} is not compiled, so it has no loss yet. Call model.compile(loss=...) first, or use "
            "lossviz.explain_loss(loss, y_true, y_pred) for a loss without a model."
        )
    replicas = _keras.replicas(model)
    if replicas > 1:
        raise ValueError(
            f"model {model.name!r} is distributed over {replicas} replicas, each with a loss of its own. Explain the "
            "same model built outside the strategy's scope."
        )


def array(name: str, value: Any) -> np.ndarray | None:
    """One argument as a NumPy array; float64 becomes floatx, as in `fit`."""
    if value is None:
        return None
    try:
        result = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} cannot be made into one array: {error}. Pass a NumPy array or a tensor.") from error
    if result.dtype.kind in "USO" and result.size:
        _check_texts(name, result)
    elif result.dtype.kind not in "USO":
        _check_numbers(name, result)
    if result.dtype == np.float64:
        result = result.astype(keras.config.floatx())
    if result.dtype.kind in "US":
        result = result.astype(object)
    return result


def _check_texts(name: str, values: np.ndarray) -> None:
    """Raise ValueError unless these are texts and inputs: a model may look them up in a vocabulary, a loss may not."""
    example = next(iter(values.flat))
    if not all(isinstance(entry, str | bytes) for entry in values.flat):
        raise ValueError(
            f"{name} is not an array of numbers (dtype object; it holds a value of type {type(example).__name__}). "
            "Pass a NumPy array or a tensor of numbers; for classes their integers."
        )
    if name != "x":
        raise ValueError(
            f"{name} holds text, such as {str(example)!r:.60}, and a loss takes numbers. Pass an integer for each "
            f"class, as np.unique({name}, return_inverse=True)[1] gives them."
        )


def _check_numbers(name: str, values: np.ndarray) -> None:
    """Raise ValueError where Keras has no such numbers."""
    try:
        keras.backend.standardize_dtype(values.dtype)
    except (ValueError, TypeError):
        way_out = f'Pass {name}.astype("float32").'
        if values.dtype.kind in "mM":
            way_out = "Pass numbers, such as days: (dates - dates.min()) / np.timedelta64(1, 'D')."
        elif values.dtype.names:
            way_out = f"Pass one array of numbers, such as {name}[{values.dtype.names[0]!r}]."
        raise ValueError(f"{name} has dtype {values.dtype}, which Keras does not know. {way_out}") from None


def structure(name: str, value: Any) -> Any:
    """A nested structure of arrays, as Keras takes it; a list of plain numbers is one array."""
    if value is None:
        return None
    leaves = keras.tree.flatten(value)
    if leaves and all(np.isscalar(leaf) for leaf in leaves):
        return array(name, value)
    return keras.tree.map_structure(lambda leaf: array(name, leaf), value)


def batch(x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """The three arguments as structures of arrays with one common number of samples."""
    if x is None:
        raise ValueError("x is None. Pass the inputs of one batch, as for model.test_on_batch(x, y).")
    found = {name: structure(name, value) for name, value in (("x", x), ("y", y), ("sample_weight", sample_weight))}
    sizes: dict[str, int] = {}
    for name, value in found.items():
        for leaf in keras.tree.flatten(value):
            if leaf is None:
                continue
            if leaf.ndim == 0:
                raise ValueError(f"{name} holds a single number; it needs one entry per sample: shape (batch, ...).")
            if name == "sample_weight" and leaf.size == 0 and leaf.shape[0]:
                raise ValueError(
                    f"sample_weight has shape {leaf.shape}, so it holds no weight. Pass one weight per sample, shape "
                    f"({leaf.shape[0]},), or one per position."
                )
            sizes.setdefault(name, leaf.shape[0])
            if leaf.shape[0] != sizes["x"]:
                raise ValueError(
                    f"{name} has {leaf.shape[0]} samples (shape {leaf.shape}), x has {sizes['x']}. Every array needs "
                    "the same number of samples along its first axis."
                )
    if sizes["x"] == 0:
        raise ValueError("x holds no samples (its first axis has size 0), so there is no loss to explain.")
    return found["x"], found["y"], found["sample_weight"]


def weighted_batch(x: Any, y: Any, sample_weight: Any, classes: Any) -> tuple[Any, Any, Any, str]:
    """x, y, weights, and the name of the argument that the weights came from: `sample_weight` or `class_weight`."""
    x, y, sample_weight = batch(x, y, sample_weight)
    if classes is None:
        return x, y, sample_weight, "sample_weight"
    return x, y, class_weight(y, sample_weight, classes), "class_weight"


def class_weight(y: Any, sample_weight: Any, weights: Mapping[int, float]) -> np.ndarray:
    """The sample weights, shape (batch,), that `fit` makes of `class_weight`; ValueError where `fit` cannot."""
    if not isinstance(weights, Mapping):
        raise ValueError(f"class_weight must be a dictionary of class to weight, got {type(weights).__name__}.")
    if sample_weight is not None:
        raise ValueError(
            "class_weight and sample_weight cannot be given together (Keras 3 refuses both in one call). Multiply them "
            "into one sample_weight."
        )
    if keras.tree.is_nested(y) or y is None:
        raise ValueError(
            "class_weight works for models with one output (Keras 3 refuses it for several). Pass one sample_weight "
            "array per output instead."
        )
    if y.ndim > 2 or (y.ndim == 2 and y.shape[1] > 1 and not np.all((y == 0) | (y == 1))):
        raise ValueError(
            "class_weight needs one class per sample: y of shape (batch,), (batch, 1) or one-hot (batch, classes); y "
            f"has shape {y.shape}. Keras 3 cannot apply it here. Give every position its own weight instead: "
            "sample_weight = np.array([w0, w1, ...])[y.argmax(-1)]."
        )
    return _keras.sample_weight_from_class_weight(y, dict(weights))


def loss_object(loss: Any) -> keras.losses.Loss:
    """A Loss, made as `compile` makes it of a name or a function."""
    if isinstance(loss, type):
        raise ValueError(f"loss is the class {loss.__name__}; pass an instance: {loss.__name__}().")
    found = keras.losses.get(loss)
    if isinstance(found, keras.losses.Loss):
        return found
    if not callable(found):
        raise ValueError(f"loss must be a keras.losses.Loss, a function of (y_true, y_pred) or a name, got {loss!r}.")
    return _keras.wrap_loss_function(found)


def names(
    output_names: Sequence[str],
    predictions: Sequence[Any],
    axes: Sequence[str] | Mapping[str, Sequence[str]] | None,
    class_names: Sequence[Hashable] | Mapping[str, Sequence[Hashable]] | None,
    class_axes: Mapping[str, int],
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[Hashable, ...]]]:
    """Axis names and class names by output; ValueError names the argument and the shapes that it does not fit.

    `class_axes` says for some outputs which axis their loss takes for the classes; for the others it is the last.
    """
    shapes = {name: tuple(p.shape) for name, p in zip(output_names, predictions) if p.shape is not None}
    shown = "; ".join(f"{name} {shape}" for name, shape in shapes.items())
    found_axes = {name: default_axes(len(shape), class_axes.get(name)) for name, shape in shapes.items()}
    for name, given in _by_output("axes", axes, shapes, lambda value, shape: len(value) == len(shape), shown).items():
        if len(given) != len(shapes[name]) or len(set(given)) != len(given):
            raise ValueError(
                f"axes={given} does not name the predictions of output {name!r}, shape {shapes[name]}: give "
                f"{len(shapes[name])} different names, such as {default_axes(len(shapes[name]))}."
            )
        found_axes[name] = tuple(given)
    found_names: dict[str, tuple[Hashable, ...]] = {}
    sizes = {name: shape[class_axis(found_axes[name])] if shape else 0 for name, shape in shapes.items()}
    given_names = _by_output("class_names", class_names, sizes, lambda value, size: len(value) == size, shown)
    for name, given in given_names.items():
        if len(given) != sizes[name] or len(set(given)) != len(given):
            where = "the last axis" if class_axis(found_axes[name]) == len(shapes[name]) - 1 else "the class axis"
            raise ValueError(
                f"class_names has {len(given)} names, but output {name!r} has shape {shapes[name]}: give "
                f"{sizes[name]} different names, one per position along {where}."
            )
        found_names[name] = tuple(given)
    return found_axes, found_names


def _by_output(argument: str, given: Any, shapes: Mapping[str, tuple], fits: Callable, shown: str) -> dict[str, Any]:
    if given is None:
        return {}
    if isinstance(given, str):
        raise ValueError(f"{argument}={given!r} is one string; give a sequence of names, such as ({given!r}, ...).")
    if isinstance(given, Mapping):
        if unknown := [name for name in given if name not in shapes]:
            raise ValueError(f"{argument} names output {unknown[0]!r}, but the outputs are {list(shapes)}.")
        return dict(given)
    chosen = {name: given for name, shape in shapes.items() if fits(tuple(given), shape)}
    if not chosen:
        raise ValueError(
            f"{argument}={tuple(given)} has {len(given)} names and fits no output. The outputs are: {shown}."
        )
    return chosen


#: What TensorFlow and JAX say where Python wants the value of a tensor that is traced.
_UNTRACEABLE = (
    *("has no attribute 'numpy'", "Tracer has no attribute", "as a Python `bool`", "Iterating over"),
    *("must be a string or a real number, not", "only length-1 arrays can be converted", "NotImplementedError"),
    *("object cannot be interpreted as an integer", "Cannot convert a symbolic", "__array__"),
    *("boolean conversion of traced array", "concrete value"),
)
#: What Keras says where the data are not what a layer takes.
_MISFITS = (
    *("is incompatible with the layer", "incompatible with layer", "Missing data for input", "Invalid input shape"),
    *("expects", "structure of `inputs`", "Dimensions must be equal", "Incompatible shapes", "must be compatible"),
    *("Matrix size-incompatible", "Input 0 of", "Cannot convert '", "Invalid dtype"),
)
_COLOURS = re.compile("\x1b\\[[0-9;]*m")

# -- after Keras has refused ------------------------------------------------------------------------------


@contextlib.contextmanager
def model_errors(model: keras.Model, x: Any, y: Any, sample_weight: Any) -> Iterator[None]:
    """Turn what Keras or TensorFlow raise inside into one ValueError that says which argument is to blame."""
    try:
        yield
    except Exception as error:
        with _keras.preserved(model):  # it calls the model again
            message = _diagnose(model, x, y, sample_weight, error)
        raise ValueError(message) from error


@contextlib.contextmanager
def loss_errors(loss, y_true, y_pred, sample_weight, mask) -> Iterator[None]:
    """The same for `explain_loss`."""
    try:
        yield
    except Exception as error:
        shapes = _shapes({"y_true": y_true, "y_pred": y_pred, "sample_weight": sample_weight, "mask": mask})
        advice = ""
        if sample_weight is not None:
            advice = " " + _weight_advice("sample_weight", sample_weight.shape, y_pred.shape)
        if _is_untraceable(error):
            advice = " It uses the value of a tensor in Python, and cannot be traced: write it with keras.ops."
        raise ValueError(
            f"loss {loss.name!r} refuses these arrays: {shapes}.{advice} It says: {_first(error)}"
        ) from error


def _is_untraceable(error: Exception) -> bool:
    return any(word in str(error) for word in _UNTRACEABLE)


def _diagnose(model, x, y, sample_weight, error: Exception) -> str:
    given = _shapes({"x": x, "y": y, "sample_weight": sample_weight})
    said = f"Keras says: {_first(error)}"
    outputs = _output_shapes(model, x)
    if outputs is None:
        return _diagnose_forward(model, given, error)
    shown = "; ".join(f"{name} {shape}" for name, shape in outputs.items())
    if "No loss to compute" in str(error):
        return (
            f"model {model.name!r} has no loss that explain can read: compile got none and no layer adds one. Pass "
            "loss=... to compile; if train_step or test_step computes the loss itself, move it into compute_loss, "
            "which fit calls too."
        )
    if y is None:
        return (
            f"y is missing: model {model.name!r} is compiled with a loss that needs targets. Its outputs are: "
            f"{shown}. Call explain(model, x, y). {said}"
        )
    targets = [leaf for leaf in keras.tree.flatten(y) if leaf is not None]
    if sample_weight is not None and _loss_works(model, x, y):
        return _diagnose_weights(sample_weight, targets, outputs, given, said)
    if len(targets) != len(outputs):
        return (
            f"y holds {len(targets)} target(s), model {model.name!r} has {len(outputs)} output(s): {shown}. Pass one "
            f"target per output that has a loss, as a list in this order or a dictionary by name. {given}. {said}"
        )
    for (name, shape), target in zip(outputs.items(), targets):
        if problem := _label_problem(target, shape):
            return f"y does not fit output {name!r} of shape {shape}: {problem} {said}"
    if _is_untraceable(error):
        return (
            f"the loss of model {model.name!r} cannot be traced into a graph: it uses .numpy(), a Python `if` or a "
            f"loop on the values of a tensor. Write it with keras.ops (ops.where instead of `if`). {said}"
        )
    if all(target.shape in (shape, shape[:-1], (*shape[:-1], 1)) for target, shape in zip(targets, outputs.values())):
        return f"model {model.name!r} cannot compute its loss on this batch: {given}; outputs: {shown}. {said}"
    return (
        f"y does not fit the outputs of model {model.name!r}: {given}; outputs: {shown}. Targets have the shape of the "
        f"output, or that shape without its last axis for integer labels. {said}"
    )


def _diagnose_forward(model, given: str, error: Exception) -> str:
    """The forward pass failed: the data do not fit, or the model's own code has a reason, which is said as it is."""
    said = _reason(error)
    if type(model).call is keras.Model.call:
        return (
            f"model {model.name!r} ({type(model).__name__}) has no call: its train_step works with models inside it. "
            "Pass the one whose call gives the predictions (of a GAN its discriminator or its generator, of a "
            "diffusion model the network that predicts the noise), compiled with the loss that it is trained with."
        )
    if _is_untraceable(error):
        return (
            f"the forward pass of model {model.name!r} cannot be traced into a graph: it uses the value of a tensor in "
            "Python (float(), .numpy(), an `if` or a loop), which runs only with run_eagerly=True. Write it with "
            f"keras.ops (ops.where or ops.cond instead of `if`). {given}. The reason: {said}"
        )
    wanted = getattr(model, "input_shape", None)
    takes = f" Its input is {wanted}." if wanted else ""
    if any(word in str(error) for word in _MISFITS):
        return f"x does not fit model {model.name!r}: {given}.{takes} Keras says: {said}"
    return f"the forward pass of model {model.name!r} fails on this batch: {given}.{takes} The reason: {said}"


def _diagnose_weights(sample_weight, targets, outputs: Mapping[str, tuple], given: str, said: str) -> str:
    weights = keras.tree.flatten(sample_weight)
    if keras.tree.is_nested(sample_weight) and len(weights) != len(targets):
        return (
            f"sample_weight holds {len(weights)} entries, y holds {len(targets)}: Keras 3 wants one per target, in "
            f"the same structure (a list may hold None; a dictionary must be complete). {given}. {said}"
        )
    weights = weights if len(weights) == len(outputs) else weights * len(outputs)
    advice = [
        _weight_advice(f"sample_weight for output {name!r}", weight.shape, shape)
        for (name, shape), weight in zip(outputs.items(), weights)
        if weight is not None
    ]
    return f"Keras refuses sample_weight. {' '.join(advice)} {said}"


def _weight_advice(what: str, weight: tuple, prediction: tuple) -> str:
    """Which weights would work for a loss that averages the last axis of these predictions away."""
    values = tuple(prediction[:-1]) if len(prediction) > 1 else tuple(prediction)
    per_sample = (values[0], *(1 for _ in values[1:])) if values else ()
    text = f"{what} has shape {tuple(weight)}."
    if not values:
        return text
    if len(values) == 1:
        return (
            f"{text} Predictions of shape {tuple(prediction)} have one loss value per sample: weights need "
            f"shape {values}."
        )
    return (
        f"{text} A loss over the last axis of predictions of shape {tuple(prediction)} has values of shape {values}, "
        f"and Keras 3 lines weights up with the *last* axes of that. Use shape {per_sample} for one weight per sample "
        f"(weights.reshape{per_sample}), or {values} for one weight per position."
    )


def _label_problem(target: np.ndarray, shape: tuple) -> str:
    integers = np.issubdtype(target.dtype, np.integer) or np.all(target == np.round(target))
    sparse = target.shape in (shape[:-1], (*shape[:-1], 1)) and len(shape) > 1
    if sparse and integers and shape[-1] > 1 and target.size:
        low, high = target.min(), target.max()
        if low < 0 or high >= shape[-1]:
            return (
                f"it holds labels from {low:g} to {high:g}, but there are {shape[-1]} classes (0 to {shape[-1] - 1})."
            )
    return ""


def _output_shapes(model, x) -> dict[str, tuple] | None:
    try:
        spec = model(keras.tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, str(leaf.dtype)), x))
    except Exception:
        return None
    flat = keras.tree.flatten(spec)
    names = list(getattr(model, "output_names", None) or [])
    if len(names) != len(flat):
        names = [f"output_{k}" if k else "output" for k in range(len(flat))]
    shapes: dict[str, tuple] = {}
    for k, (name, tensor) in enumerate(zip(names, flat), start=1):  # a layer that is shared gives two outputs one name
        shapes[f"{name}_{k}" if name in shapes else name] = tuple(tensor.shape)
    return shapes


def _loss_works(model, x, y) -> bool:
    """Does the loss compute without sample_weight?"""
    try:
        tracing.trace_model(model, x, y, None, False, "sample_weight")
    except Exception:
        return False
    return True


def _shapes(arguments: Mapping[str, Any]) -> str:
    def shape(value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{key!r}: {shape(item)}" for key, item in value.items()) + "}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(shape, value)) + "]"
        return "None" if value is None else str(tuple(value.shape))

    return ", ".join(f"{name} {shape(value)}" for name, value in arguments.items() if value is not None)


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {_reason(error)[:300]}"


def _reason(error: Exception) -> str:
    """What is wrong, in the words of whoever raised it: without the frame that Keras puts around an error of a layer,
    and without colours."""
    text = _COLOURS.sub("", str(error)).strip()
    while text.startswith("Exception encountered"):
        inner = [part.strip() for part in re.split(r"\n\s*\n", text)[1:]]
        text = "\n\n".join(inner) if inner else text.partition(":")[2].strip() or type(error).__name__
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = list(itertools.takewhile(lambda line: not line.startswith("Arguments received by"), lines))
    return " ".join(lines)[:1000] or type(error).__name__
