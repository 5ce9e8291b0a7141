"""Trace a model's forward pass and loss, or one loss alone, note where each tensor comes from, and lower it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import keras

from lossviz.backend import keras_private as _keras
from lossviz.backend.current import BACKEND
from lossviz.backend.program import Loss, Value
from lossviz.backend.recorded import Recorded
from lossviz.backend.traced import Found, Recorder, Traced, leaves

__all__ = ["Traced", "call_loss", "leaves", "lower", "trace_loss", "trace_model"]


def lower(traced: Traced, expanded: bool = True) -> Loss:
    """The traced loss as a program. If `expanded`, fused operations are taken apart first, so that the axes that they
    hide are there."""
    program, of = BACKEND.program(traced, expanded)

    def value(tensor: Any) -> Value | None:
        return of(tensor) if BACKEND.is_tensor(tensor) else None

    def values(tensors: Iterable) -> list[Value]:
        return [of(tensor) for tensor in tensors if BACKEND.is_tensor(tensor)]

    predictions = [of(tensor) for tensor in traced.predictions]
    logits = {p: value(BACKEND.logits_of(tensor)) for p, tensor in zip(predictions, traced.predictions)}
    recorder = traced.recorder
    return Loss(
        program=program,
        root=of(traced.root),
        predictions=predictions,
        prediction_names=traced.prediction_names,
        logits={p: one for p, one in logits.items() if one is not None},
        inputs={word: values(placeholders) for word, placeholders in traced.inputs.items()},
        outputs=[
            replace(
                one, value=value(one.value), y_true=value(one.y_true), y_pred=value(one.y_pred), mask=value(one.mask),
                sample_weight=value(one.sample_weight), elements=value(one.elements),
            )
            for one in recorder.outputs
        ],
        added=[replace(one, value=value(one.value)) for one in recorder.added],
        crossentropies=[
            one._replace(target=of(one.target), output=of(one.output))
            for one in recorder.crossentropies
            if BACKEND.is_tensor(one.target) and BACKEND.is_tensor(one.output)
        ],
        trainable=[of(tensor) for tensor in traced.trainable],
        captured=[of(tensor) for tensor in traced.captured],
        layers=[call.layer.name for call in traced.found.calls],
        name=traced.name,
        batch_size=traced.batch_size,
    )  # fmt: skip


def trace_model(model, x, y, sample_weight, training: bool, weight_word: str) -> Traced:
    def compute(found: Found, structure: Sequence):
        (x, y, sample_weight), recorder = structure, found.recorder
        with _keras.recording_calls(model) as found.calls:
            with _keras.recording_activity(model) as activity, BACKEND.forward(found):
                options = {"training": training} if _accepts(model.call, "training") else {}
                y_pred = BACKEND.predicted(model, x, **options)
            found.predictions = [tensor for tensor in keras.tree.flatten(y_pred) if tensor is not None]
            for word, value in (("x", x), ("y_true", y), (weight_word, sample_weight)):
                found.inputs[word] = [tensor for tensor in keras.tree.flatten(value) if tensor is not None]
            arguments = {"x": x, "y": y, "y_pred": y_pred, "sample_weight": sample_weight}
            if _accepts(model.compute_loss, "training"):
                arguments["training"] = training
            with (
                _keras.recording_added(model, recorder, activity),
                _keras.recording_outputs(model, recorder),
                _keras.recording_crossentropies(recorder),
            ):
                loss = model.compute_loss(**arguments)
        if not (recorder.outputs or recorder.added) and type(model).compute_loss is keras.Model.compute_loss:
            raise ValueError("No loss to compute.")  # so says Keras on TensorFlow; on JAX it takes none for 0
        found.prediction_names = _prediction_names(model, recorder, found.predictions)
        return loss

    return BACKEND.trace(compute, [x, y, sample_weight], model, "compute_loss")


def trace_loss(loss, y_true, y_pred, sample_weight, mask) -> Traced:
    def compute(found: Found, structure: Sequence):
        y_true, y_pred, sample_weight, mask = structure
        with _keras.recording_loss(loss, found.recorder) as elements:
            value = BACKEND.identity(call_loss(loss, y_true, y_pred, sample_weight, mask))
        found.recorder.outputs.append(
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
        found.predictions, found.prediction_names = [y_pred], [loss.name]
        words = (("y_true", y_true), ("sample_weight", sample_weight), ("mask", mask))
        found.inputs = {word: [tensor] for word, tensor in words if tensor is not None}
        return value

    return BACKEND.trace(compute, [y_true, y_pred, sample_weight, mask], None, loss.name)


def call_loss(loss, y_true, y_pred, sample_weight, mask) -> Any:
    """The loss of two arrays, or of two tensors, as a tensor."""
    y_true, y_pred = keras.ops.convert_to_tensor(y_true), BACKEND.identity(y_pred)
    if mask is not None:
        _keras.set_mask(y_pred, keras.ops.cast(mask, "bool"))
    return keras.ops.convert_to_tensor(loss(y_true, y_pred, sample_weight=sample_weight))


def _prediction_names(model, recorder: Recorder, predictions) -> list[str]:
    """A name for each prediction: that of the loss on it, else the output's own."""
    own = list(getattr(model, "output_names", None) or [])
    if len(own) != len(predictions):
        own = [f"output_{k}" if k else "output" for k in range(len(predictions))]
    used = {id(entry.y_pred): entry.name for entry in reversed(recorder.outputs)}
    return [used.get(id(tensor), name) for tensor, name in zip(predictions, own)]


def _accepts(function: Callable, argument: str) -> bool:
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == argument or p.kind is p.VAR_KEYWORD for p in parameters)
