"""`lint(..., try_fixes=True)`: a way out that is one change is made to a copy of the model.

`FIXES` has, for each rule whose way out is an argument of the loss or of `compile`, the last activation or the shape of
an array, the change to make. Only plain functional and sequential models are copied.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.report.findings import Finding
from lossviz.rules.words import n

#: How many steps of the optimizer the model and its mended copy are compared after.
STEPS = 20

_SAME: Any = object()
#: What `out_of_reach` says of the floor and of what the loss could come to without it.
_FLOOR = re.compile(r"never below (\S+?)(?:,|;| ).*could come to (\S+?)\.$")
_CLASSES = {
    "binary_crossentropy": keras.losses.BinaryCrossentropy,
    "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
    "sparse_categorical_crossentropy": keras.losses.SparseCategoricalCrossentropy,
    "binary_focal_crossentropy": keras.losses.BinaryFocalCrossentropy,
    "categorical_focal_crossentropy": keras.losses.CategoricalFocalCrossentropy,
    "dice": keras.losses.Dice,
}


@dataclasses.dataclass(frozen=True)
class Change:
    """One change, and how you would write it; what is not named stays as it is."""

    words: str
    activation: Any = _SAME
    loss: Any = _SAME
    loss_weights: Any = _SAME
    y: Any = _SAME
    sample_weight: Any = _SAME


@dataclasses.dataclass(frozen=True)
class Situation:
    """A finding, and the model and batch it was found on."""

    finding: Finding
    model: keras.Model
    y: Any
    sample_weight: Any

    @property
    def loss(self) -> keras.losses.Loss | None:
        """The loss of the model's only output."""
        losses = _keras.flat_losses(self.model)
        return losses[0].loss if len(losses) == 1 and len(self.model.outputs) == 1 else None

    @property
    def loss_name(self) -> str:
        return getattr(getattr(self.loss, "fn", None), "__name__", None) or type(self.loss).__name__

    @property
    def shape(self) -> tuple:
        """The shape of the only output, without the batch."""
        return tuple(self.model.outputs[0].shape[1:])

    def with_option(self, **options: Any) -> Change | None:
        """The loss with other options, if it has these."""
        kind = _CLASSES.get(self.loss_name) if self.loss is not None else None
        kind = type(self.loss) if kind is None or isinstance(self.loss, kind) else kind
        if self.loss is None or not set(options) <= set(inspect.signature(kind).parameters):
            return None
        config = self.loss.get_config() if type(self.loss) is kind else {}
        words = ", ".join(f"{name}={value!r}" for name, value in options.items())
        return Change(f"{words} in the loss", loss=kind.from_config({**config, **options}))


def _without_activation(it: Situation) -> Change | None:
    if "hinge" in it.loss_name:
        return Change("activation='tanh'", activation="tanh")
    return Change("activation=None", activation="linear")


def _once(it: Situation) -> Change | None:
    if _keras.options_of(it.loss).get("from_logits"):
        return it.with_option(from_logits=False)
    return _without_activation(it)


def _probabilities(it: Situation) -> Change | None:
    last = _keras.last_layer(it.model)
    bare = last is not None and last.get_config().get("activation", "linear") == "linear"
    if bare and it.loss_name != "kl_divergence" and (found := it.with_option(from_logits=True)) is not None:
        if it.shape[-1:] != (1,) or it.loss_name.startswith("binary"):
            return found
    return _other_activation(it)


def _other_activation(it: Situation) -> Change | None:
    if it.shape[-1:] == (1,) and not it.loss_name.startswith("binary"):
        return None  # one unit has no second class: that is more than one change
    name = "sigmoid" if it.loss_name.startswith("binary") else "softmax"
    return Change(f"activation={name!r}", activation=name)


def _of_one_unit(it: Situation) -> Change | None:
    if it.shape[-1:] != (1,) or "softmax of one unit" not in it.finding.sentence:
        return None
    return Change("activation='sigmoid'", activation="sigmoid")


def _same_shape(it: Situation) -> Change | None:
    if not isinstance(it.y, np.ndarray) or it.y.size != it.y.shape[0] * math.prod(it.shape):
        return None
    shape = (-1, *it.shape)
    return Change(f"y.reshape{shape}", y=it.y.reshape(shape))


def _weights_of_samples(it: Situation) -> Change | None:
    weight = it.sample_weight
    if not isinstance(weight, np.ndarray) or weight.ndim != 1 or len(it.shape) < 2:
        return None
    shape = (-1, *(1 for _ in it.shape[:-1]))
    return Change(f"sample_weight.reshape{shape}", sample_weight=weight.reshape(shape))


def _weights_of_elements(it: Situation) -> Change | None:
    weight, shape = it.sample_weight, it.shape[:-1]
    if not isinstance(weight, np.ndarray) or None in shape:
        return None
    shape = (len(weight), *shape)
    try:
        return Change(f"np.broadcast_to(sample_weight, {shape})", sample_weight=np.broadcast_to(weight, shape).copy())
    except ValueError:
        return None


def _loss_weights(it: Situation) -> Change | None:
    _, given = _keras.declared_losses(it.model)
    named = re.search(r"Give loss_weights by name: (\{.*\})\.$", it.finding.fix)
    names = re.findall(r"'([^']+)': ", named[1]) if named else []
    if not isinstance(given, (list, tuple)) or sorted(names) != sorted(it.model.output_names):
        return None
    weights = dict(zip(names, given))
    return Change(f"loss_weights={weights}", loss_weights=weights)


def _axis(it: Situation) -> Change | None:
    return it.with_option(axis=tuple(range(1, len(it.shape))) or None) if len(it.shape) > 1 else None


#: The change for each rule that has one; each gives None where this model and batch need more than that.
FIXES: Mapping[str, Callable[[Situation], Change | None]] = {
    "out-of-reach": _without_activation,
    "cannot-change": _of_one_unit,
    "double-activation": _once,
    "swapped-activation": _other_activation,
    "unnormalised": _probabilities,
    "unbounded-output": _probabilities,
    "broadcast": _same_shape,
    "weights-axis": _weights_of_samples,
    "weights-divisor": _weights_of_elements,
    "loss-weights-order": _loss_weights,
    "reduction-none": lambda it: it.with_option(reduction="sum_over_batch_size"),
    "dice-background": _axis,
    "unused-option": lambda it: it.with_option(apply_class_balancing=True),
}


def tried(
    findings: tuple[Finding, ...], model: keras.Model, x: Any, y: Any, sample_weight: Any, lint: Callable
) -> tuple[Finding, ...]:
    """The findings, each with what came of its fix, where one was tried; the model is as it was.

    `lint(model, x, y, sample_weight)` finds what is left.
    """
    if not any(finding.rule in FIXES for finding in findings):
        return findings
    with _keras.unnoticed(), _quiet.retracing():
        before: list[float | None] = []  # after STEPS steps of the model as it is, once for all findings
        return tuple(
            dataclasses.replace(finding, tried=_try(finding, model, x, y, sample_weight, lint, before))
            for finding in findings
        )


def _try(finding: Finding, model, x, y, sample_weight, lint: Callable, before: list) -> str:
    if finding.rule not in FIXES:
        return ""
    try:
        change = FIXES[finding.rule](Situation(finding, model, _array(y), _array(sample_weight)))
        if change is None or not _is_plain(model):
            return ""
        mended = _copy(model, change)
        if mended is None:
            return ""
        weight = sample_weight if change.sample_weight is _SAME else change.sample_weight
        batch = (x, y if change.y is _SAME else change.y, weight)
        found = lint(mended, *batch)
        if not before:
            before.append(_trained(_copy(model, Change("")), x, y, sample_weight))
        return _words(change, finding, found, before[0], _trained(mended, *batch))
    except Exception as error:
        return f"not tried: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _array(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, (np.ndarray, list)) or hasattr(value, "numpy") else value


def _is_plain(model: keras.Model) -> bool:
    """Is it nothing but its layers, with Keras's own steps?"""
    own = ("train_step", "test_step", "compute_loss", "call")
    plain = type(keras.Model(model.inputs, model.outputs)) if getattr(model, "inputs", None) else None
    return type(model) in (keras.Sequential, plain) and not set(own) & set(vars(model))


def _copy(model: keras.Model, change: Change) -> keras.Model | None:
    """The model with this change, its weights, and an optimizer that has not moved yet; None where the last layer has
    no activation to change."""
    last = _keras.last_layer(model)

    def clone(layer: keras.layers.Layer) -> keras.layers.Layer:
        if layer is last and change.activation is not _SAME:
            return _with_activation(layer, change.activation)
        return type(layer).from_config(layer.get_config())

    if change.activation is not _SAME and (last is None or not _has_activation(last)):
        return None
    random.seed(0)  # of which Keras makes the seeds of layers: each copy draws the same
    with _keras.replaced(model, "get_compile_config", dict):  # else Keras compiles the copy, and fails on own losses
        copy = keras.models.clone_model(model, clone_function=clone)
    copy.set_weights(model.get_weights())
    loss, loss_weights = _keras.declared_losses(model)
    optimizer = type(model.optimizer).from_config(model.optimizer.get_config()) if model.optimizer else None
    copy.compile(
        optimizer=optimizer or "rmsprop",
        loss=loss if change.loss is _SAME else change.loss,
        loss_weights=loss_weights if change.loss_weights is _SAME else change.loss_weights,
    )
    return copy


def _has_activation(layer: keras.layers.Layer) -> bool:
    alone = (keras.layers.Activation, keras.layers.Softmax, keras.layers.ReLU)
    return isinstance(layer, alone) or "activation" in layer.get_config()


def _with_activation(layer: keras.layers.Layer, name: str) -> keras.layers.Layer:
    config = layer.get_config()
    if "activation" not in config:
        return keras.layers.Activation(name, name=layer.name, dtype=layer.dtype_policy)
    return type(layer).from_config({**config, "activation": name})


def _trained(model: keras.Model, x, y, sample_weight) -> float | None:
    """The loss after `STEPS` steps on this batch; None where Keras refuses it."""
    try:
        for _ in range(STEPS):
            model.train_on_batch(x, y, sample_weight=sample_weight)
        return float(model.test_on_batch(x, y, sample_weight=sample_weight, return_dict=True)["loss"])
    except Exception:
        return None


def _words(change: Change, finding: Finding, found, before: float | None, after: float | None) -> str:
    floor = _FLOOR.search(finding.sentence)
    parts = [f"floor {floor[1]} → {floor[2]}"] if floor else []
    numbers = ["refused by Keras" if number is None else n(number) for number in (before, after)]
    parts.append(f"loss after {STEPS} steps {numbers[0]} → {numbers[1]}")
    left = any((one.rule, one.where) == (finding.rule, finding.where) for one in found)
    new = sorted({one.rule for one in found if one.severity != "hint"} - {finding.rule})
    end = "the finding stays" if left else "finding gone"
    return f"{change.words}: {', '.join(parts)}; {end}" + (f"; also found then: {', '.join(new)}" if new else "")
