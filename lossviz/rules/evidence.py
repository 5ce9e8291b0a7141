"""What the rules look at: the outputs of a loss with their tensors, what was added, and the graph between them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lossviz.backend import graph
from lossviz.backend import keras_private as _keras
from lossviz.backend.recorded import Added, Recorded
from lossviz.backend.tracing import Traced
from lossviz.engine.decompose import Decomposition
from lossviz.report.records import Term
from lossviz.report.report import Report
from lossviz.rules.bounds import ANYTHING, Bounds, Range

_SHAPING = {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "EnsureShape", "SelectV2"}
_SQUASHING = {"Softmax", "Sigmoid"}

#: Losses are called once a sample only where there are at most this many samples.
_SAMPLES = 256


@dataclass(eq=False)
class Output:
    """One output and the loss on it. Tensors are those of the graph, or eager ones; `Case.value` makes arrays.

    `values` is what the loss function returned, before weights, mask and mean; None where it cannot be known.
    """

    name: str
    loss: keras.losses.Loss | None
    y_true: tf.Tensor
    y_pred: tf.Tensor
    weight: tf.Tensor | None
    mask: tf.Tensor | None
    values: tf.Tensor | None
    tensor: tf.Tensor | None  # what Keras made of the values
    reaches: bool = True  # False: computed, and then not part of the total
    term: Term | None = None

    @property
    def reduction(self) -> str | None:
        return getattr(self.loss, "reduction", "sum_over_batch_size")

    @property
    def is_custom(self) -> bool:
        """Was the loss written by the user (a function or a class that is neither of Keras nor of lossviz)?"""
        function = getattr(self.loss, "fn", None)
        module = getattr(function or type(self.loss), "__module__", None) or ""
        return module.split(".")[0] not in ("keras", "lossviz")


@dataclass(eq=False)
class Case:
    """One loss on one batch, with everything that a rule may ask for.

    `model` is None for `explain_loss`; `report` and `traced` are None where the loss could not be traced, and `error`
    is then what was raised.
    """

    outputs: list[Output]
    crossentropies: list[_keras.Crossentropy]
    added: list[Added] = field(default_factory=list)
    model: keras.Model | None = None
    x: Any = None
    y: Any = None
    given: Any = None  # y as it was before Keras's dtype
    class_weight: Mapping[int, float] | None = None
    weight_word: str = "sample_weight"
    has_sample_weight: bool = False
    report: Report | None = None
    traced: Traced | None = None
    known: dict = field(default_factory=dict)  # tensor reference -> array
    batch_size: int | None = None  # how many samples there are
    batches_of: int | None = None  # how many of them fit would take at a time; None: all
    error: Exception | None = None
    _operations: dict = field(default_factory=dict)
    _bounds: dict = field(default_factory=dict)

    def output(self, name: str) -> Output | None:
        return next((out for out in self.outputs if out.name == name), None)

    # -- values -------------------------------------------------------------------------------------------

    def value(self, tensor: tf.Tensor) -> np.ndarray:
        """The tensor as an array; the graph is run again where it is not known yet."""
        return self.all_values([tensor])[0]

    def all_values(self, tensors: list[tf.Tensor]) -> list[np.ndarray]:
        missing = []
        for tensor in tensors:
            if self.traced is None or tensor.ref() in self.known:
                continue
            leaf = self.traced.value_of(tensor)
            if leaf is not None:
                self.known[tensor.ref()] = leaf
            else:
                missing.append(tensor)
        if missing:
            self.known.update(zip((tensor.ref() for tensor in missing), self.traced.run(missing)))
        return [tensor.numpy() if self.traced is None else self.known[tensor.ref()] for tensor in tensors]

    def shape(self, tensor: tf.Tensor) -> tuple[int, ...]:
        if tensor.shape.is_fully_defined():
            return tuple(tensor.shape.as_list())
        return self.value(tensor).shape

    def number(self, output: Output) -> float:
        """What Keras made of the output's loss: its mean, where that is an array."""
        return float(np.mean(self.value(output.tensor).astype(np.float64)))

    def call(self, output: Output, y_true=None, y_pred=None, weight=None, mask=None) -> float:
        """The output's loss on other arrays; `number`'s arrays where none are given. Weight and mask: none."""
        y_true = self.value(output.y_true) if y_true is None else y_true
        y_pred = self.value(output.y_pred) if y_pred is None else y_pred
        with _keras.untouched(self.model, self.traced.trace.graph if self.traced is not None else None):
            prediction = tf.identity(y_pred)
            if mask is not None:
                _keras.set_mask(prediction, tf.constant(np.asarray(mask, bool)))
            found = output.loss(tf.convert_to_tensor(y_true), prediction, sample_weight=weight)
        return float(np.mean(np.asarray(found, np.float64)))

    def call_again(self, output: Output) -> float:
        """The output's loss, called once more with the very arrays that Keras gave it."""
        return self.call(output, None, None, *self.weight_and_mask(output))

    def weight_and_mask(self, output: Output) -> tuple[np.ndarray | None, np.ndarray | None]:
        tensors = [t for t in (output.weight, output.mask) if t is not None]
        arrays = iter(self.all_values(tensors))
        return (next(arrays) if output.weight is not None else None), (
            next(arrays) if output.mask is not None else None
        )

    # -- graph --------------------------------------------------------------------------------------------

    def operations(self, output: Output | None = None) -> list[tf.Operation]:
        """The operations that lead to one output's loss, or to the total; inputs before consumers. Empty without
        a graph."""
        if self.traced is None:
            return []
        root = self.traced.root if output is None else output.tensor
        if root.ref() not in self._operations:
            self._operations[root.ref()] = graph.ancestors([root])
        return self._operations[root.ref()]

    def once(self, what: Hashable, read: Callable[[], Any]) -> Any:
        """`read()`, which looks at the graph alone: once for all batches that are run in it."""
        if self.traced is None:
            return read()
        notes = self.traced.trace.notes
        if what not in notes:
            notes[what] = read()
        return notes[what]

    def reaching(self, tensors: list[tf.Tensor], operations: list[tf.Operation]) -> set:
        """References of all tensors in `operations` that are computed from one of `tensors`."""
        found = {tensor.ref() for tensor in tensors}
        for operation in operations:
            if any(tensor.ref() in found for tensor in operation.inputs):
                found.update(out.ref() for out in operation.outputs)
        return found

    def range_of(self, tensor: tf.Tensor, data: bool = False) -> Range:
        """What the model can make of `tensor`, for any weights that training moves; with `data` for this very batch,
        otherwise for any."""
        if self.traced is None or isinstance(tensor, tf.__internal__.EagerTensor):
            return ANYTHING
        if data not in self._bounds:

            def known(one: tf.Tensor) -> np.ndarray | None:
                if one.op.type == "Placeholder" and data:
                    return self.traced.value_of(one)
                return tf.get_static_value(one) if one.op.type == "Const" else None

            made = partial(Bounds, self.traced.trainable, known)
            self._bounds[data] = made() if data else self.once("bounds", made)
        return self._bounds[data].of(tensor)

    def fed(self, fetch: tf.Tensor, tensor: tf.Tensor, array: np.ndarray) -> np.ndarray:
        """`fetch`, computed with `array` in place of `tensor`."""
        trace = self.traced.trace
        return trace.run([fetch], [*trace.feeds, tensor], [*self.traced.leaves, array])[0]


def of_trace(
    traced: Traced, decomposition: Decomposition, report: Report, model: keras.Model | None = None, **about
) -> Case:
    """The evidence of a loss that was traced and run. `about` are further fields of `Case`."""
    recorded = traced.recorder.outputs
    terms = {term.name: term for term in report.terms if term.kind == "output"}
    # decompose makes one branch of each recorded output, in this order
    branches = [branch for branch in decomposition.branches if branch.kind == "output" and not branch.own]
    outputs = []
    for entry, branch in zip(recorded, branches, strict=True):
        output = _output(entry)
        output.name, output.reaches, output.term = branch.name, branch.reaches, terms.get(branch.name)
        outputs.append(output)
    weight_word = "class_weight" if "class_weight" in traced.inputs else "sample_weight"
    return Case(
        outputs,
        traced.recorder.crossentropies,
        traced.recorder.added,
        model=model,
        weight_word=weight_word,
        report=report,
        traced=traced,
        known={value.source.ref(): array for value, array in decomposition.values.items()},
        _operations=traced.trace.orders,
        batch_size=traced.batch_size,
        **about,
    )


def of_call(model: keras.Model, batch: tuple, training: bool, **about) -> Case:
    """The evidence of a loss that cannot be traced, as far as it comes when Keras computes it at once."""
    recorder = _keras.Recorder(elements=True)
    x, y, sample_weight = (keras.tree.map_structure(_tensor, value) for value in batch)
    with (
        _keras.untouched(model, None),
        _keras.recording_outputs(model, recorder),
        _keras.recording_crossentropies(recorder),
        contextlib.suppress(Exception),  # what Keras refuses is in `error` already
    ):
        y_pred = model(x, training=training)
        model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
    outputs = [_output(entry) for entry in recorder.outputs]
    sizes = {len(leaf) for leaf in keras.tree.flatten(x)}
    return Case(outputs, recorder.crossentropies, model=model, x=x, batch_size=max(sizes), **about)


def _tensor(leaf: Any) -> tf.Tensor | None:
    return None if leaf is None else tf.convert_to_tensor(leaf)


def _output(entry: Recorded) -> Output:
    return Output(
        name=str(entry.name),
        loss=entry.loss,
        y_true=entry.y_true,
        y_pred=entry.y_pred,
        weight=_one(entry.sample_weight),
        mask=entry.mask,
        values=_one(entry.elements),
        tensor=entry.value,
    )


def _one(tensor: Any) -> tf.Tensor | None:
    """The tensor, if it is one and not a structure of several."""
    return tensor if tf.is_tensor(tensor) else None


def squashes(tensor: tf.Tensor) -> list[tuple[str, tf.Tensor]]:
    """The softmax and sigmoid operations that made `tensor`, last one first, with nothing but casts and reshapes
    between them and after them; each with its result."""
    found: list[tuple[str, tf.Tensor]] = []
    if isinstance(tensor, tf.__internal__.EagerTensor):
        return found
    while True:
        operation = tensor.op
        if operation.type in _SQUASHING:
            found.append((operation.type, tensor))
        elif operation.type not in _SHAPING:
            return found
        tensor = operation.inputs[1 if operation.type == "SelectV2" else 0]  # what `where` takes if true


def same_rank(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as Keras 3 brings them together: a last axis of size 1 goes or comes where the ranks differ by one."""
    if values.ndim == weight.ndim + 1 and values.shape[-1] == 1:
        return (values, weight[:, None]) if weight.ndim == 1 else (values[..., 0], weight)
    if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1:
        return (values[:, None], weight) if values.ndim == 1 else (values, weight[..., 0])
    return values, weight


def finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)


def single(case: Case, out: Output) -> np.ndarray | None:
    """The loss of each sample alone, without weights."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if not 1 < len(y_pred) <= _SAMPLES or len(y_true) != len(y_pred):
        return None
    return np.array([case.call(out, y_true[i : i + 1], y_pred[i : i + 1]) for i in range(len(y_pred))])


def is_ratio(out: Output) -> bool:
    return out.term is not None and out.term.exactness == "ratio"


def loss_name(out: Output) -> str:
    return getattr(getattr(out.loss, "fn", None), "__name__", None) or type(out.loss).__name__


def owner(case: Case, entry: _keras.Crossentropy) -> str:
    if entry.owner < len(case.outputs):
        return case.outputs[entry.owner].name
    names = [loss.name for loss in _keras.flat_losses(case.model)] if case.model is not None else []
    return str(names[entry.owner]) if entry.owner < len(names) and names[entry.owner] else "compute_loss"


def narrow(tensor: tf.Tensor) -> bool:
    """Was it computed in half precision and cast since?"""
    if isinstance(tensor, tf.__internal__.EagerTensor):
        return False
    while tensor.op.type in ("Identity", "Cast", "Reshape"):
        tensor = tensor.op.inputs[0]
        if tensor.dtype in (tf.float16, tf.bfloat16):
            return True
    return False
