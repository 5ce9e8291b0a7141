"""`find_nonfinite`: the operation, and the first index, at which a NaN or an infinity enters a loss or its gradient.

Forward pass, loss and gradient are put into one graph. One run asks every floating tensor in it whether it is
finite. From the loss (or the gradients), walk back through tensors that are not finite, to the operations of
which all inputs are finite: the *entries*. To know which of them does the harm, and at which index, the graph is run
again with finite numbers in their place, and with one of the values put back: an infinity that a mask, a softmax or
`where` takes out again changes nothing, and is not reported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import linecache
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lossviz.ask import checks
from lossviz.backend import graph, tracing
from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.backend.program import ancestors
from lossviz.backend.tensorflow_program import TensorFlowProgram
from lossviz.backend.tracing import Traced
from lossviz.engine import axes, naming, ops
from lossviz.nonfinite import causes
from lossviz.nonfinite.result import NonFinite
from lossviz.report import formatting as f

_SCOPE = "lossviz_gradient"
#: What stands in for a value that is not finite: the first with which the loss is finite.
_STAND_INS = (0.5, 1.0, 0.0)
#: Operations through which a divisor still is what it was.
_SAME = {"Identity", "Cast", "Reshape", "Squeeze", "ExpandDims", "BroadcastTo", "Maximum", "AddV2"}
_SEVERAL = 8  # other entries that are named
_TOTAL = "sum of the terms"  # stands for a term where an operation comes after all of them


def search(model, x, y, sample_weight, class_weight, training, batch_size) -> NonFinite:
    """`find_nonfinite`."""
    checks.compiled(model)
    x, y, sample_weight, word = checks.weighted_batch(x, y, sample_weight, class_weight)
    found = _in_batch(model, x, y, sample_weight, word, training)
    count = min(len(leaf) for leaf in tracing.leaves([x]))
    if found or batch_size is None or count <= batch_size:
        return found
    batches = [(start, min(start + batch_size, count) - 1) for start in range(0, count, batch_size)]

    def batch(first: int, last: int) -> tuple[Any, Any, Any]:
        def part(leaf):
            return None if leaf is None else leaf[first : last + 1]

        return tuple(keras.tree.map_structure(part, given) for given in (x, y, sample_weight))

    for first, last in _suspects(model, batches, batch, word, training):
        bad = _in_batch(model, *batch(first, last), word, training)
        if bad:
            return dataclasses.replace(bad, samples=(first, last))
    also = f"; the same of its {len(batches)} batches of {batch_size}"
    return dataclasses.replace(found, looked_at=found.looked_at + also)


def _suspects(model, batches, batch, word: str, training: bool | None) -> list[tuple[int, int]]:
    """Which of these batches have a loss or a gradient that is not finite. Each size is traced once."""
    found, runs = set(), {}
    for mode in (False, True) if training is None else (bool(training),):
        for first, last in batches:
            x, y, sample_weight = given = batch(first, last)
            with checks.model_errors(model, x, y, sample_weight), _quiet.retracing():
                if (mode, last - first) not in runs:
                    with _keras.preserved(model):
                        traced = tracing.trace_model(model, x, y, sample_weight, mode, word)
                    finite = _all_finite(traced, _loss_scale(model))
                    runs[mode, last - first] = traced.trace.runner([finite], traced.trace.feeds)
                if not runs[mode, last - first](tracing.leaves(list(given)))[0]:
                    found.add((first, last))
    return sorted(found)


def _all_finite(traced: Traced, scale: float) -> tf.Tensor:
    with traced.trace.graph.as_default():
        seed = tf.constant(scale, traced.root.dtype)
        try:
            gradients = tf.gradients(traced.root, traced.trainable, grad_ys=seed) if traced.trainable else []
        except LookupError:  # an operation without a gradient
            gradients = []
        numbers = [g.values if isinstance(g, tf.IndexedSlices) else g for g in gradients if g is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(one)) for one in (traced.root, *numbers)])


def _in_batch(model, x, y, sample_weight, word: str, training: bool | None) -> NonFinite:
    """Where a value that is not finite enters the loss of these samples as one batch, or its gradient."""
    given = {"x": x, "y_true": y, word: sample_weight}
    modes = (False, True) if training is None else (bool(training),)
    scale = _loss_scale(model)
    for mode in modes:
        with checks.model_errors(model, x, y, sample_weight), _quiet.retracing():
            if not _keras.is_built(model):
                _keras.build(model, x, y, sample_weight)
            with _keras.preserved(model), _keras.recording_calls(model) as calls:
                traced = tracing.trace_model(model, x, y, sample_weight, mode, word)
            with _keras.preserved(model, traced.trace.graph):
                loss = np.asarray(traced.run([traced.root])[0])
        with _keras.preserved(model, traced.trace.graph), _quiet.retracing():
            search = _Search(model, traced, calls, given, mode, float(loss), scale)
            found = None if np.isfinite(loss) else search.in_loss()
            if found is None and mode is modes[-1]:
                found = search.in_gradient()
        if found is not None:
            return found
    return _in_optimizer(model) or NonFinite(loss=float(loss), training=modes[-1], looked_at=search.looked_at(modes))


@dataclass
class _Entry:
    """Where values that are not finite enter: tensors that can be fed, and what they were."""

    operation: tf.Operation
    tensors: list[tf.Tensor]
    handle: tf.Tensor | None = None  # of the variable, where it is one that is read
    arrays: list[np.ndarray] = field(default_factory=list)


class _Search:
    """One traced batch, and the questions that are put to its graph."""

    def __init__(self, model, traced: Traced, calls, given: dict, training: bool, loss: float, scale: float):
        self.scale = scale  # by which the optimizer multiplies the loss before the gradient is taken
        self.model, self.traced, self.given, self.training, self.loss = model, traced, given, training, loss
        self.graph = traced.trace.graph
        self.program = TensorFlowProgram(traced.trace)
        self.place = {operation.name: k for k, operation in enumerate(self.graph.get_operations())}
        self.calls = [call for call in calls if call.graph is self.graph]
        self.paths = {id(variable.value.handle): variable.path for variable in model.variables}
        self.captured = {inner.ref(): outer for outer, inner in self.graph.captures}
        self.terms = _terms(traced)
        self.above = {name: {op.name for op in graph.ancestors([tensor])} for name, tensor in self.terms}
        self.fed: dict = {}  # what every run is given beside the batch
        self.runners: dict = {}
        self.weights = 0  # how many have a gradient
        self.skipped = ""

    # -- the two questions --------------------------------------------------------------------------------

    def in_loss(self) -> NonFinite | None:
        return self._find([self.traced.root])

    def in_gradient(self) -> NonFinite | None:
        handles = self.traced.trainable
        if not handles:
            return None
        with self.graph.as_default():
            seed = tf.constant(self.scale, self.traced.root.dtype)
            try:
                gradients = tf.gradients(self.traced.root, handles, grad_ys=seed, name=_SCOPE)
            except LookupError as error:  # an operation without a gradient: then fit cannot train the model either
                self.skipped = f"the gradient was not looked at ({str(error).splitlines()[0]})"
                return None
        pairs = [
            (self._path(handle), gradient.values if isinstance(gradient, tf.IndexedSlices) else gradient)
            for handle, gradient in zip(handles, gradients)
            if gradient is not None
        ]
        self.weights = len(pairs)
        targets = [gradient for _, gradient in pairs]
        bad = self._spoiled(targets)
        if not any(bad):
            return None
        reached = tuple(path for (path, _), is_bad in zip(pairs, bad) if is_bad)
        found = self._find([target for target, is_bad in zip(targets, bad) if is_bad], reached)
        if found is not None and self.scale != 1:
            self.fed = {seed.ref(): (seed, np.ones((), seed.dtype.as_numpy_dtype))}
            if not any(self._spoiled(targets)):
                return _scaled(found, self.scale)
        return found

    def looked_at(self, modes: Sequence[bool]) -> str:
        how = "as evaluate and as fit run it" if len(modes) > 1 else f"as {'fit' if modes[0] else 'evaluate'} runs it"
        size = "" if self.traced.batch_size is None else f" of {self.traced.batch_size}"
        gradients = "the gradient" if self.weights == 1 else f"the {self.weights} gradients"
        gradients = f"and {gradients} of its trainable weights" if self.weights else "which has no gradient"
        rest = f"; {self.skipped}" if self.skipped else ""
        return f"the loss {f.plain(self.loss)} of this batch{size}, {how}, {gradients}{rest}"

    # -- looking at the graph -----------------------------------------------------------------------------

    def _run(self, fetches: Sequence[tf.Tensor], fed: Mapping | None = None) -> list[np.ndarray]:
        """The fetches of this batch, with `fed` (reference -> (tensor, array)) in place of what those tensors are."""
        feeds = {t.ref(): (t, leaf) for t, leaf in zip(self.traced.trace.feeds, self.traced.leaves)}
        feeds |= {**self.fed, **(fed or {})}
        key = (tuple(t.ref() for t in fetches), tuple(feeds))
        if key not in self.runners:
            self.runners[key] = self.traced.trace.runner(fetches, [tensor for tensor, _ in feeds.values()])
        return self.runners[key]([value for _, value in feeds.values()])

    def _summary(self, tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        """A tensor (len(tensors), 3): how many values are -inf, inf and NaN. Reduced inside the graph."""
        with self.graph.as_default():
            rows = []
            for tensor in tensors:
                if tensor.dtype.is_complex:
                    tensor = tf.abs(tensor)
                elif tensor.dtype not in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
                    tensor = tf.cast(tensor, tf.float32)
                rows.append(
                    tf.raw_ops.DebugNumericSummaryV2(input=tensor, output_dtype=tf.float64, tensor_debug_mode=3)[2:]
                )
            return tf.stack(rows)

    def _spoiled(self, targets: Sequence[tf.Tensor], fed: Mapping | None = None) -> list[bool]:
        """Which of the targets are not finite."""
        key = tuple(target.ref() for target in targets)
        if getattr(self, "_asked", None) != key:
            self._asked, self._answer = key, self._summary(targets)
        return self._run([self._answer], fed)[0].any(axis=1).tolist()

    def _find(self, targets: Sequence[tf.Tensor], weights: tuple[str, ...] = ()) -> NonFinite | None:
        order = graph.ancestors(targets)
        tensors = [t for operation in order for t in operation.outputs if t.dtype.is_floating or t.dtype.is_complex]
        counts = self._run([self._summary(tensors)])[0]
        self.bad = {tensor.ref() for tensor, row in zip(tensors, counts) if row.any()}
        self.nan = {tensor.ref() for tensor, row in zip(tensors, counts) if row[2]}
        entries = self._entries([target for target in targets if target.ref() in self.bad], bool(weights))
        if not entries:  # random numbers: this run was finite
            return None
        arrays = iter(self._run([tensor for entry in entries for tensor in entry.tensors]))
        for entry in entries:
            entry.arrays = [next(arrays) for _ in entry.tensors]
        chosen, index, others = self._choose(entries, targets)
        return self._describe(chosen, index, others, weights)

    def _is_bad(self, tensor: tf.Tensor) -> bool:
        """Not finite; for a list of tensors: made by a loop, or of something that is not finite."""
        if tensor.dtype != tf.variant:
            return tensor.ref() in self.bad
        if tensor.ref() not in self.lists:
            self.lists[tensor.ref()] = False
            inputs = [t for t in tensor.op.inputs if _is_backward(t.op) or not _is_backward(tensor.op)]
            looped = tensor.op.type in causes.LOOPS
            self.lists[tensor.ref()] = looped or any(self._is_bad(other) for other in inputs)
        return self.lists[tensor.ref()]

    def _entries(self, targets: Sequence[tf.Tensor], backward: bool) -> list[_Entry]:
        """The operations where finite numbers go in and others come out, in the order in which they were made."""
        self.lists: dict = {}
        found: dict[str, tf.Operation] = {}
        seen: set[str] = set()
        stack = [target.op for target in targets]
        while stack:
            operation = stack.pop()
            if operation.name in seen:
                continue
            seen.add(operation.name)
            inputs = [tensor for tensor in operation.inputs if self._is_bad(tensor)]
            if backward:  # a value of the forward pass may be hidden by a mask there, and does harm only here
                inputs = [tensor for tensor in inputs if _is_backward(tensor.op)]
            if inputs:
                stack.extend(tensor.op for tensor in inputs)
            else:
                found[operation.name] = operation
        constants = [
            op for op in found.values() if op.type in ("Const", "Fill") and op.outputs[0].ref() not in self.nan
        ]
        if constants:  # an infinity that the code asks for is no fault; the operation that makes NaN of it is
            turns = [op for op in self._turns(seen) if not any(t.op.name in found for t in op.outputs)]
            if turns:
                for operation in constants:
                    del found[operation.name]
                found.update((op.name, op) for op in turns)
        whole: dict = {}
        for operation in found.values():
            outputs = [tensor for tensor in operation.outputs if tensor.ref() in self.bad]
            handle = next((t for t in operation.inputs if t.dtype == tf.resource and t.ref() in self.captured), None)
            handle = None if handle is None or operation.type not in ("ReadVariableOp", "ResourceGather") else handle
            key = operation.name if handle is None else handle.ref()
            if key in whole:
                whole[key].tensors += outputs
            else:
                whole[key] = _Entry(operation, outputs, handle)
        feeds = {tensor.ref() for tensor in self.traced.trace.feeds}

        paths = list(self.paths.values())

        def order(entry: _Entry) -> tuple[int, int]:
            """The data first, then the weights in the model's order, then operations as they were made."""
            if any(tensor.ref() in feeds for tensor in entry.tensors):
                return 0, self._creation(entry.operation)
            if entry.handle is not None:
                path = self._path(entry.handle)
                return 1, paths.index(path) if path in paths else len(paths)
            return 2, self._creation(entry.operation)

        return sorted(whole.values(), key=order)

    def _turns(self, seen: Iterable[str]) -> list[tf.Operation]:
        """Operations among `seen` that make the first NaN of infinities."""
        operations = [self.graph.get_operation_by_name(name) for name in seen]
        return [
            operation
            for operation in operations
            if any(tensor.ref() in self.nan for tensor in operation.outputs)
            and any(tensor.ref() in self.bad for tensor in operation.inputs)
            and not any(tensor.ref() in self.nan for tensor in operation.inputs)
        ]

    def _creation(self, operation: tf.Operation) -> int:
        return self.place.get(operation.name, len(self.place))

    # -- which entry does the harm ------------------------------------------------------------------------

    def _choose(self, entries: list[_Entry], targets: Sequence[tf.Tensor]) -> tuple[_Entry, tuple | None, list[_Entry]]:
        """The first entry that spoils a target by itself, the first index that does, and the other such entries.

        Proved by running the graph with finite numbers in all entries but one.
        """
        able = [e for e in entries if e.tensors and all(len(t.op.outputs) == 1 for t in e.tensors)]
        fed = self._without(able, targets) if len(able) == len(entries) else None
        if fed is None:  # what makes all finite is not known: the first is the best guess
            first = entries[0]
            return first, (_first_bad(first.arrays[0]) if first.arrays else None), entries[1:]
        chosen = None
        others = []
        for entry in able[: 4 * _SEVERAL]:
            whole = {t.ref(): (t, array) for t, array in zip(entry.tensors, entry.arrays)}
            if not any(self._spoiled(targets, {**fed, **whole})):
                continue
            if chosen is None:
                chosen = entry, self._first_harmful(entry, targets, fed)
            else:
                others.append(entry)
                if len(others) > _SEVERAL:
                    break
        if chosen is None:
            return able[0], _first_bad(able[0].arrays[0]), able[1:]
        return *chosen, others

    def _without(self, entries: list[_Entry], targets: Sequence[tf.Tensor]) -> dict | None:
        """Feeds with finite numbers in place of all entries, with which the targets are finite."""
        for number in _STAND_INS:
            fed = {
                tensor.ref(): (tensor, _replaced(array, number))
                for entry in entries
                for tensor, array in zip(entry.tensors, entry.arrays)
            }
            if not any(self._spoiled(targets, fed)):
                return fed
        return None

    def _first_harmful(self, entry: _Entry, targets: Sequence[tf.Tensor], fed: dict) -> tuple[int, ...]:
        """The first index of the entry's tensor at which its value, alone or with those before, spoils a target."""
        tensor, array = entry.tensors[0], entry.arrays[0]
        clean, flat = fed[tensor.ref()][1], array.reshape(-1)
        places = np.flatnonzero(~np.isfinite(array).reshape(-1))

        def spoils(count: int) -> bool:
            trial = clean.copy().reshape(-1)
            trial[places[:count]] = flat[places[:count]]
            return any(self._spoiled(targets, {**fed, tensor.ref(): (tensor, trial.reshape(array.shape))}))

        low, high = 0, len(places)
        if spoils(1):
            high = 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if spoils(middle) else (middle, high)
        return tuple(int(k) for k in np.unravel_index(int(places[high - 1]), array.shape))

    # -- words --------------------------------------------------------------------------------------------

    def _describe(self, entry: _Entry, index: tuple | None, others: list[_Entry], weights: tuple) -> NonFinite:
        array = entry.arrays[0] if entry.arrays else np.zeros(0)
        bad = ~np.isfinite(array)
        known = {
            "value": float(array[index]) if index is not None else math.nan,
            "count": int(bad.sum()),
            "size": int(array.size),
            "training": self.training,
            "loss": self.loss,
            "also": tuple(self._short(other) for other in others[:_SEVERAL])
            + ((f"{len(others) - _SEVERAL} more",) if len(others) > _SEVERAL else ()),
        }
        operation = entry.operation
        if _is_backward(operation):
            return self._of_gradient(entry, index, known, weights)
        known["terms"] = self._terms_of(operation, *(tensor.op for tensor in entry.tensors))
        if (word := self._leaf(entry)) is not None:
            return self._of_leaf(entry, index, word, known)
        known["index"], known["axes"] = (
            self._named(entry.tensors[0], array.shape, index) if entry.tensors else (None, ())
        )
        if entry.handle is not None:
            return self._of_weight(entry, index, known)
        made = self._made(operation, array.shape, index, known["value"])
        cause, way_out = causes.of_value(made)
        if operation.type == "Const" and known["terms"] == (_TOTAL,):
            cause, way_out = "a loss weight is not finite", "Check loss_weights in compile."
        step, layer = self._step(operation), self._layer(operation)
        return NonFinite(
            step=step,
            layer=layer,
            operation=operation.type,
            what=causes.call(made),
            cause=cause + self._unweighted(known),
            way_out=way_out,
            line=_line(operation),
            **known,
        )

    def _of_leaf(self, entry: _Entry, index, word: str, known: dict) -> NonFinite:
        shape = entry.arrays[0].shape
        names = self._leaf_axes(entry.tensors[0], word, shape)
        known |= {"index": index, "axes": names}
        way = {
            "x": "Replace such values before training: np.nan_to_num(x), or leave their samples out.",
            "y_true": "Replace them, ops.where(ops.isnan(y_true), 0.0, y_true), and weigh these places 0.",
        }.get(word.split("[")[0], "Give every position a finite weight, 0 to leave it out.")
        return NonFinite(
            step="input",
            what=word,
            cause=f"{word} holds this value: it is in the data" + self._unweighted(known),
            way_out=way,
            **known,
        )

    def _of_weight(self, entry: _Entry, index, known: dict) -> NonFinite:
        path = self._path(entry.handle)
        variables = {variable.path: variable for variable in self.model.variables}
        variable = variables.get(path)
        if variable is not None:  # the weight itself, not the rows that were looked up in it
            array = np.asarray(variable.numpy(), np.float64)
            index = _first_bad(array) or index
            bad = ~np.isfinite(array)
            names = tuple(f"axis{k}" for k in range(array.ndim))
            known |= {"index": index, "axes": names, "count": int(bad.sum()), "size": int(array.size)}
        spoiled = tuple(p for p, v in variables.items() if _floating(v) and not np.isfinite(v.numpy()).all())
        known["also"] = tuple(words for words in known["also"] if not words.startswith("weight "))
        inner = next(filter(None, (self._layer(tensor.op) for tensor in entry.tensors)), "")
        return NonFinite(
            step="weight",
            layer=inner,
            what=f"weight {path}",
            cause=f"the weight is not finite already before this batch ({len(spoiled)} of {len(variables)} weights "
            "of the model are not): an earlier step put it there, by a gradient that was not finite or by too large a "
            "step",
            way_out="Load or make the weights anew, and train again with a lower learning rate or clipnorm=1.0. To see "
            "where it began, stop at the first bad batch (keras.callbacks.TerminateOnNaN), and call find_nonfinite "
            "on it with the weights from before that step.",
            weights=spoiled,
            **known,
        )

    def _of_gradient(self, entry: _Entry, index, known: dict, weights: tuple) -> NonFinite:
        forward = entry.operation._original_op or _first_original(entry.operation)
        if forward is None:
            forward = entry.operation
        known["terms"] = self._terms_of(forward)
        array = self._outgoing(entry, forward)
        if array is not None and array is not entry.arrays[0]:
            index = _first_bad(array)
            bad = ~np.isfinite(array)
            known |= {"value": float(array[index]), "count": int(bad.sum()), "size": int(array.size)}
        whose = next((t for t in forward.inputs if array is not None and tuple(t.shape) == array.shape), None)
        shape = array.shape if array is not None else ()
        known["index"], known["axes"] = self._named(whose, shape, index) if whose is not None else (index, ())
        if whose is None and index is not None:
            known["axes"] = tuple(f"axis{k}" for k in range(len(index)))
        made = self._made(forward, shape if whose is not None else None, index, known["value"])
        incoming = self._incoming(entry, forward, shape, index)
        cause, way_out = causes.of_gradient(made, incoming)
        hidden = [t for t in entry.operation.inputs if not _is_backward(t.op) and t.ref() in self.bad]
        if hidden:
            source = self._entries([hidden[0]], False)
            origin = source[0].operation if source else hidden[0].op
            layer = self._layer(origin)
            cause = (
                f"the gradient that comes in is finite, but it is multiplied by a value that is not: {origin.type}"
                f"{f' in layer {layer!r}' if layer else ''} gave it, and ops.where or a mask hides it from the loss "
                "(0 × inf is NaN)"
            )
            way_out = causes.GUARD
        numbers = [operand for operand in made.operands[:2] if operand is not None]
        numbers = numbers[: 1 if forward.type == "IdentityN" else 2]
        at = f" at {', '.join(map(causes.number, numbers))}" if numbers and not hidden else ""
        return NonFinite(
            step="gradient",
            layer=self._layer(forward),
            operation=forward.type,
            what=f"derivative of {forward.type}{at} = {causes.number(known['value'])}",
            cause=cause + self._unweighted(known),
            way_out=way_out,
            line=_line(forward),
            weights=weights,
            **known,
        )

    def _outgoing(self, entry: _Entry, forward: tf.Operation) -> np.ndarray | None:
        """What the derivative of `forward` passes on: its first tensor with the shape of an input of `forward`."""
        if not entry.tensors:
            return None
        shapes = [tensor.shape.as_list() for tensor in forward.inputs if tensor.shape.rank is not None]
        if entry.arrays[0].shape in map(tuple, shapes):
            return entry.arrays[0]
        group = [
            out
            for operation in self.graph.get_operations()
            if _is_backward(operation) and operation._original_op is forward
            for out in operation.outputs
            if out.ref() in self.bad and out.shape.rank is not None and out.shape.as_list() in shapes
        ]
        return self._run([group[0]])[0] if group else entry.arrays[0]

    def _incoming(self, entry: _Entry, forward: tf.Operation, shape, index) -> float | None:
        """The gradient that comes in from behind, at the index; None where it has none there."""
        group = [
            operation
            for operation in self.graph.get_operations()
            if _is_backward(operation) and operation._original_op is forward
        ]
        inside = {operation.name for operation in group}
        for tensor in (t for operation in group for t in operation.inputs):
            outside = _is_backward(tensor.op) and tensor.op.name not in inside and tensor.dtype.is_floating
            if outside and index is not None and tuple(tensor.shape) == tuple(shape):
                return float(self._run([tensor])[0][index])
        return None

    def _made(self, operation: tf.Operation, shape: tuple | None, index, value: float) -> causes.Made:
        """The operation with its numbers: at `index` of an array of this shape, where it works element by element."""
        inputs = [tensor for tensor in operation.inputs if tensor.dtype.is_floating]
        arrays = [np.asarray(array, np.float64) for array in self._run(inputs)] if inputs else []
        operands: list[float | None] = []
        for array in arrays:
            operand = None
            if shape is not None and index is not None and self.program.kind_of(operation) != "reduce":
                with contextlib.suppress(ValueError, IndexError):
                    operand = float(np.broadcast_to(array, shape)[index])
            operands.append(operand)
        dtype = operation.outputs[0].dtype if operation.outputs else tf.float32
        limit = float(dtype.max) if dtype.is_floating else math.inf
        source = ""
        if operation.type in ("RealDiv", "Div"):
            source = _source_of(operation.inputs[1]).type
        return causes.Made(operation.type, arrays, operands, value, dtype.name, limit, source)

    def _terms_of(self, *operations: tf.Operation) -> tuple[str, ...]:
        made = {operation.name for operation in operations}
        return tuple(name for name, above in self.above.items() if made & above) or (_TOTAL,)

    def _layer(self, operation: tf.Operation) -> str:
        place = self._creation(operation)
        inside = [call for call in self.calls if call.start <= place < call.stop]
        return min(inside, key=lambda call: call.stop - call.start).layer.name if inside else ""

    def _step(self, operation: tf.Operation) -> str:
        if operation.name in self.traced.trace.forward:
            return "forward pass"
        above = [operation, *graph.ancestors(operation.inputs)]
        forward = self.traced.trace.forward
        reduced = any(op.type in ("Sum", "Mean") and op.name not in forward and _reduces(op) for op in above)
        return "reduction" if reduced else "element loss"

    def _leaf(self, entry: _Entry) -> str | None:
        """The user's word for the tensor, if it is one of the batch."""
        for word, placeholders in self.traced.inputs.items():
            for k, placeholder in enumerate(placeholders):
                if entry.tensors and entry.tensors[0] is placeholder:
                    return word + _entry_path(self.given.get(word), k)
        return None

    def _path(self, handle: tf.Tensor) -> str:
        outer = self.captured.get(handle.ref())
        return self.paths.get(id(outer), getattr(outer, "name", "") or "variable")

    def _short(self, entry: _Entry) -> str:
        if (word := self._leaf(entry)) is not None:
            return word
        if entry.handle is not None:
            return f"weight {self._path(entry.handle)}"
        operation = entry.operation
        if _is_backward(operation):
            operation = operation._original_op or operation
        layer = self._layer(operation)
        return operation.type + (f" in layer {layer!r}" if layer else "")

    def _unweighted(self, known: dict) -> str:
        """A remark where the sample has weight 0, which does not take NaN away."""
        sample = dict(zip(known.get("axes", ()), known.get("index") or ())).get("batch")
        weights = [w for word in ("sample_weight", "class_weight") for w in self.traced.inputs.get(word, [])]
        if sample is None or not weights:
            return ""
        arrays = [self.traced.value_of(weight) for weight in weights]
        if all(array is not None and len(array) > sample and not np.any(array[sample]) for array in arrays):
            return "; the weight of this sample is 0, but 0 × NaN is NaN: a weight is not a mask"
        return ""

    # -- names of axes ------------------------------------------------------------------------------------

    def _leaf_axes(self, tensor: tf.Tensor, word: str, shape: tuple[int, ...]) -> tuple[str, ...]:
        rank = len(shape)
        if word.startswith("x"):
            return self._hidden_axes(shape)
        for prediction in self.traced.predictions:
            whole = axes.default_axes(prediction.shape.rank or 0)
            if word.startswith("y") and tuple(shape) == tuple(prediction.shape):
                return whole
            if tuple(shape[: rank - 1]) == tuple(prediction.shape)[: rank - 1] and rank <= len(whole):
                return whole[:rank]
        return self._hidden_axes(shape)

    def _hidden_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Names for a tensor of the forward pass: by its rank, if it begins with the batch."""
        rank = len(shape)
        if not rank or self.traced.batch_size is None or shape[0] != self.traced.batch_size:
            return tuple(f"axis{k}" for k in range(rank))
        names = axes.default_axes(rank)
        return (*names[:-1], {2: "unit", 3: "unit"}.get(rank, "channel")) if rank > 1 else names

    def _named(self, tensor: tf.Tensor, shape: tuple[int, ...], index) -> tuple[tuple | None, tuple[str, ...]]:
        """The index with one number an axis, and their names: those of the predictions and targets in the loss."""
        if index is None:
            return None, ()
        known: dict = {}
        for prediction in self.traced.predictions:
            if prediction.shape.is_fully_defined():
                names = axes.default_axes(prediction.shape.rank)
                known[self.program.value(prediction)] = axes.named(prediction.shape.as_list(), names)
        for entry in self.traced.recorder.outputs:
            for side in ("y_pred", "y_true"):
                value = getattr(entry, side)
                if isinstance(value, tf.Tensor) and value.shape.is_fully_defined():
                    names = self._leaf_axes(value, "y", tuple(value.shape.as_list()))
                    known.setdefault(self.program.value(value), axes.named(value.shape.as_list(), names))
        value = self.program.value(tensor)
        if value in known:
            dims = known[value]
        elif tensor.op.name in self.traced.trace.forward:
            return index, self._hidden_axes(tuple(shape))
        else:
            dims = ops.propagate([op for op in ancestors([value]) if not op.forward], known).get(value)
            if not any(dims or ()):  # an operation that tells nothing of axes, such as a condition
                same = (names for names in known.values() if tuple(len(dim[0].labels) for dim in names) == tuple(shape))
                dims = next(same, None)
        marks = np.zeros(shape, bool)
        marks[index] = True
        unfolded, atoms = axes.unfold(marks, dims)
        place = tuple(int(k) for k in np.unravel_index(int(np.argmax(unfolded)), unfolded.shape)) if atoms else ()
        return place, tuple(atom.name for atom in atoms)


def _in_optimizer(model) -> NonFinite | None:
    """A learning rate, or a moving average of gradients, that is not finite: the next step spoils the weights."""
    optimizer = model.optimizer
    if optimizer is None:
        return None
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        if not math.isfinite(rate):
            return NonFinite(
                step="optimizer",
                what="learning_rate",
                value=rate,
                index=(),
                count=1,
                size=1,
                cause="the learning rate of this step is not finite (a schedule that divides by 0 steps, for example)",
                way_out="Print optimizer.learning_rate, and give the schedule the number of steps you train.",
                training=True,
            )
    for variable in optimizer.variables:
        if not _floating(variable):
            continue
        array = np.asarray(variable.numpy(), np.float64)
        if (index := _first_bad(array)) is not None:
            return NonFinite(
                step="optimizer",
                what=f"{variable.path}",
                value=float(array[index]),
                index=index,
                axes=tuple(f"axis{k}" for k in range(array.ndim)),
                count=int((~np.isfinite(array)).sum()),
                size=int(array.size),
                cause="the state of the optimizer is not finite: a gradient of an earlier step was not",
                way_out="Compile the model anew, which makes a fresh optimizer, and find the batch that spoiled it.",
                training=True,
            )
    return None


def _scaled(found: NonFinite, scale: float) -> NonFinite:
    return dataclasses.replace(
        found,
        cause=f"the loss is multiplied by the loss scale {f.plain(scale)} before the gradient is taken, and the "
        "product does not fit into half precision; without the scale the gradient is finite",
        way_out="Nothing, if it is rare: LossScaleOptimizer leaves out such a step and halves its scale. If every step "
        "has it, scale the inputs or the loss down, or give this layer dtype='float32'.",
    )


def _loss_scale(model) -> float:
    """What the optimizer multiplies the loss by before the gradient is taken."""
    if model.optimizer is None:
        return 1.0
    return float(keras.ops.convert_to_numpy(model.optimizer.scale_loss(1.0)))


def _terms(traced: Traced) -> list[tuple[str, tf.Tensor]]:
    """The terms of the loss, with the names that `explain` gives them."""
    outputs, added = traced.recorder.outputs, traced.recorder.added
    names, more = naming.terms([entry.name for entry in outputs], [entry.name for entry in added])
    found = [(name, entry.value) for name, entry in zip([*names, *more], [*outputs, *added])]
    return found or [(traced.name, traced.root)]


def _is_backward(operation: tf.Operation) -> bool:
    return operation.name.startswith(_SCOPE)


def _first_original(operation: tf.Operation) -> tf.Operation | None:
    """The operation of the forward pass of the first gradient that goes into a sum of gradients."""
    originals = (tensor.op._original_op for tensor in operation.inputs)
    return next((original for original in originals if original is not None), None)


def _reduces(operation: tf.Operation) -> bool:
    return operation.inputs[0].shape != operation.outputs[0].shape and operation.inputs[0].dtype.is_floating


def _source_of(tensor: tf.Tensor) -> tf.Operation:
    operation = tensor.op
    while operation.type in _SAME and operation.inputs:
        operation = operation.inputs[0].op
    return operation


def _first_bad(array: np.ndarray) -> tuple[int, ...] | None:
    bad = ~np.isfinite(array)
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(bad)), bad.shape)) if bad.any() else None


def _replaced(array: np.ndarray, number: float) -> np.ndarray:
    return np.where(np.isfinite(array), array, np.asarray(number, array.dtype))


def _floating(variable) -> bool:
    return "float" in keras.backend.standardize_dtype(variable.dtype)


def _entry_path(structure: Any, k: int) -> str:
    """How the k-th array of what the user gave is written: "", "[1]", "['left']"."""
    if not keras.tree.is_nested(structure):
        return ""
    paths = [path for path, leaf in _flatten(structure) if leaf is not None]
    return "".join(f"[{key!r}]" for key in paths[k]) if k < len(paths) else ""


def _flatten(structure: Any) -> list[tuple[tuple, Any]]:
    """(path, leaf) of every leaf, in the order of `keras.tree.flatten`."""
    if isinstance(structure, Mapping):
        items: Iterable = ((key, structure[key]) for key in sorted(structure))
    elif isinstance(structure, (list, tuple)):
        items = enumerate(structure)
    else:
        return [((), structure)]
    return [((key, *path), leaf) for key, value in items for path, leaf in _flatten(value)]


def _line(operation: tf.Operation) -> str:
    """The innermost line of the user's own code that made the operation, and where it stands."""
    modules = [keras, tf, np, *(sys.modules[name] for name in ("optree",) if name in sys.modules)]
    packages = tuple(os.path.dirname(os.path.abspath(module.__file__)) for module in modules)
    own = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
    frames = list(operation.traceback)
    inner = [k for k, frame in enumerate(frames) if os.path.abspath(frame.filename).startswith(own)]
    for frame in reversed(frames[inner[-1] + 1 :] if inner else []):
        if not os.path.abspath(frame.filename).startswith(packages):
            code = linecache.getline(frame.filename, frame.lineno).strip()
            named = os.path.basename(frame.filename)
            where = "" if "ipykernel" in frame.filename or named.startswith("<") else f"{named}, line {frame.lineno}"
            return f"{code}  ({where})" if code and where else code or where
    return ""
