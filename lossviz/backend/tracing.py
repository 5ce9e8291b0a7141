"""Trace a model's forward pass and loss, or one loss alone, and note where each tensor comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import keras
import numpy as np
import tensorflow as tf

from lossviz.backend import graph
from lossviz.backend import keras_private as _keras
from lossviz.backend.recorded import Recorded


@dataclass
class Traced:
    """A loss in a graph, with everything known about where its tensors come from."""

    trace: graph.Trace
    root: tf.Tensor
    leaves: list[np.ndarray]
    recorder: _keras.Recorder
    predictions: list[tf.Tensor]
    prediction_names: list[str]
    inputs: dict[str, list[tf.Tensor]]  # "x", "y_true", "sample_weight": their placeholders
    trainable: list[tf.Tensor] = field(default_factory=list)  # handles of the trainable weights
    name: str = "compute_loss"  # what a loss is called that Keras did not compute per output
    batch_size: int | None = None
    random: bool = False  # would computing it twice give two different results?

    def run(self, fetches: Sequence[tf.Tensor]) -> list[np.ndarray]:
        return self.trace.run(fetches, self.trace.feeds, self.leaves)

    def value_of(self, placeholder: tf.Tensor) -> np.ndarray | None:
        return next((leaf for feed, leaf in zip(self.trace.feeds, self.leaves) if feed is placeholder), None)


def _trace(structure: list, compute: Callable, **known) -> Traced:
    """Trace `compute(*structure)` with placeholders for the arrays of the nested list `structure`."""
    arrays = leaves(structure)
    specs = [tf.TensorSpec(leaf.shape, tf.as_dtype(leaf.dtype), f"leaf{k}") for k, leaf in enumerate(arrays)]
    found = {
        "recorder": _keras.Recorder(elements=True),
        "predictions": [],
        "prediction_names": [],
        "inputs": {},
        "forward": set(),
        "regions": {},
        "layers": [],
    }

    def traced(*placeholders: tf.Tensor) -> tf.Tensor:
        waiting = iter(placeholders)
        arguments = keras.tree.map_structure(lambda leaf: None if leaf is None else next(waiting), structure)
        loss = tf.convert_to_tensor(compute(found, *arguments))
        return tf.identity(loss) if loss.shape.rank == 0 else tf.reduce_mean(loss)  # the progress bar shows a mean

    trace = graph.trace(traced, specs)
    trace.forward, trace.regions, trace.layers = (found.pop(word) for word in ("forward", "regions", "layers"))
    sizes = {leaf.shape[0] for leaf in arrays if leaf.ndim}
    return Traced(
        trace=trace,
        root=trace.function.outputs[0],
        leaves=arrays,
        batch_size=sizes.pop() if len(sizes) == 1 else None,
        random=graph.is_random(trace.function.outputs[0]),
        **found,
        **known,
    )


def _regions(calls: list) -> dict[str, int]:
    """For each operation that a call of a layer made, by name, the innermost such call."""
    graph = tf.compat.v1.get_default_graph()
    names, regions = [operation.name for operation in graph.get_operations()], {}
    for number, call in reversed(list(enumerate(calls))):  # a call is noted when it ends, so an inner one comes first
        if call.graph is graph:
            regions.update(dict.fromkeys(names[call.start : call.stop], number))
    return regions


def leaves(structure: list) -> list:
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]


def trace_model(model, x, y, sample_weight, training: bool, weight_word: str) -> Traced:
    def compute(found, x, y, sample_weight):
        recorder = found["recorder"]
        with _keras.recording_calls(model) as calls:
            with _keras.recording_activity(model) as activity:
                y_pred = model(x, training=training) if _accepts(model.call, "training") else model(x)
            found["forward"].update(op.name for op in tf.compat.v1.get_default_graph().get_operations())
            found["predictions"] = [tensor for tensor in keras.tree.flatten(y_pred) if tensor is not None]
            for word, value in (("x", x), ("y_true", y), (weight_word, sample_weight)):
                found["inputs"][word] = [tensor for tensor in keras.tree.flatten(value) if tensor is not None]
            arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            if _accepts(model.compute_loss, "training"):
                arguments["training"] = training
            with (
                _keras.recording_added(model, recorder, activity),
                _keras.recording_outputs(model, recorder),
                _keras.recording_crossentropies(recorder),
            ):
                loss = model.compute_loss(**arguments)
        found["regions"], found["layers"] = _regions(calls), [call.layer.name for call in calls]
        found["prediction_names"] = _prediction_names(model, recorder, found["predictions"])
        return loss

    traced = _trace([x, y, sample_weight], compute)
    handles = {id(variable.value.handle) for variable in model.trainable_variables}
    traced.trainable = [inner for outer, inner in traced.trace.graph.captures if id(outer) in handles]
    return traced


def trace_loss(loss, y_true, y_pred, sample_weight, mask) -> Traced:
    def compute(found, y_true, y_pred, sample_weight, mask):
        with _keras.recording_loss(loss, found["recorder"]) as elements:
            value = tf.identity(call_loss(loss, y_true, y_pred, sample_weight, mask))
        found["recorder"].outputs.append(
            Recorded(
                name=loss.name,
                value=value,
                y_true=y_true,
                y_pred=y_pred,
                loss=loss,
                sample_weight=sample_weight,
                mask=mask,
                elements=elements[0] if elements else None,
            )
        )
        found["predictions"], found["prediction_names"] = [y_pred], [loss.name]
        words = (("y_true", y_true), ("sample_weight", sample_weight), ("mask", mask))
        found["inputs"] = {word: [tensor] for word, tensor in words if tensor is not None}
        return value

    return _trace([y_true, y_pred, sample_weight, mask], compute, name=loss.name)


def call_loss(loss, y_true, y_pred, sample_weight, mask) -> tf.Tensor:
    y_true, y_pred = tf.convert_to_tensor(y_true), tf.identity(y_pred)
    if mask is not None:
        _keras.set_mask(y_pred, tf.cast(mask, tf.bool))
    return tf.convert_to_tensor(loss(y_true, y_pred, sample_weight=sample_weight))


def _prediction_names(model, recorder: _keras.Recorder, predictions) -> list[str]:
    """A name for each prediction: that of the loss on it, else the output's own."""
    own = list(getattr(model, "output_names", None) or [])
    if len(own) != len(predictions):
        own = [f"output_{k}" if k else "output" for k in range(len(predictions))]
    used = {id(entry.y_pred): entry.name for entry in reversed(recorder.outputs)}
    return [used.get(id(tensor), name) for tensor, name in zip(predictions, own)]


def _accepts(function: Callable, argument: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)
