"""What is said of an entry: its place, the operation on its numbers, the cause and the way out."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import keras
import ml_dtypes
import numpy as np

from lossviz.backend.program import Op, Value
from lossviz.nonfinite import causes
from lossviz.nonfinite.entries import SEVERAL, Entry, entries
from lossviz.nonfinite.lines import user_line
from lossviz.nonfinite.looking import Bad, Batch, first
from lossviz.nonfinite.naming import TOTAL, Names
from lossviz.nonfinite.optimizer import numbers
from lossviz.nonfinite.result import NonFinite

Index = tuple[int, ...] | None


class Words:
    """Tells of one traced batch. `training` and `value` are how it was run, and its loss."""

    def __init__(self, model: keras.Model, batch: Batch, names: Names, training: bool, value: float):
        self.model, self.batch, self.names, self.training, self.value = model, batch, names, training, value

    def describe(self, bad: Bad, entry: Entry, index: Index, others: list[Entry], weights: tuple[str, ...]):
        """The entry as a `NonFinite`; `weights` are those whose gradient is not finite."""
        array = entry.arrays[0] if entry.arrays else np.zeros(0)
        known = {
            **_counted(array, index),
            "training": self.training,
            "loss": self.value,
            "also": tuple(self._short(other) for other in others[:SEVERAL])
            + ((f"{len(others) - SEVERAL} more",) if len(others) > SEVERAL else ()),
        }
        if entry.op.backward:
            return self._of_gradient(bad, entry, index, known, weights)
        known["terms"] = self.names.terms(entry.op, *(value.op for value in entry.values))
        if (word := self._leaf(entry)) is not None:
            return self._of_leaf(array.shape, index, word, known)
        known["index"], known["axes"] = (
            self.names.index(entry.values[0], array.shape, index) if entry.values else (None, ())
        )
        if entry.weight is not None:
            return self._of_weight(entry, index, known)
        made = self._made(entry.op, array.shape, index, known["value"])
        cause, way_out = causes.of_value(made)
        if causes.done_by(entry.op) == "constant" and known["terms"] == (TOTAL,):
            cause, way_out = "a loss weight is not finite", "Check loss_weights in compile."
        return NonFinite(
            step=self.names.step(entry.op),
            layer=self.names.layer(entry.op),
            operation=entry.op.word,
            what=causes.call(made),
            cause=cause + self._unweighted(known),
            way_out=way_out,
            line=self._line(entry.op),
            **known,
        )

    def _of_leaf(self, shape: tuple[int, ...], index: Index, word: str, known: dict) -> NonFinite:
        known |= {"index": index, "axes": self.names.leaf_axes(word, shape)}
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

    def _of_weight(self, entry: Entry, index: Index, known: dict) -> NonFinite:
        path = self.names.paths[entry.weight]
        arrays = {variable.path: numbers(variable) for variable in self.model.variables}
        array = arrays.get(path)
        if array is not None:  # the weight itself, not the rows that were looked up in it
            index = first(array) or index
            known |= {**_counted(array, index), "value": known["value"], "index": index, "axes": _unnamed(array.ndim)}
        spoiled = tuple(p for p, array in arrays.items() if array is not None and not np.isfinite(array).all())
        known["also"] = tuple(words for words in known["also"] if not words.startswith("weight "))
        return NonFinite(
            step="weight",
            layer=self.names.reader(entry.values),
            what=f"weight {path}",
            cause=f"the weight is not finite already before this batch ({len(spoiled)} of {len(arrays)} weights "
            "of the model are not): an earlier step put it there, by a gradient that was not finite or by too large a "
            "step",
            way_out="Load or make the weights anew, and train again with a lower learning rate or clipnorm=1.0. To see "
            "where it began, stop at the first bad batch (keras.callbacks.TerminateOnNaN), and call find_nonfinite "
            "on it with the weights from before that step.",
            weights=spoiled,
            **known,
        )

    def _of_gradient(self, bad: Bad, entry: Entry, index: Index, known: dict, weights: tuple[str, ...]) -> NonFinite:
        op = _differentiated(entry.op)
        known["terms"] = self.names.terms(op)
        array = self._handed_back(bad, entry, op)
        if array is not None and array is not entry.arrays[0]:
            index = first(array)
            known |= _counted(array, index)
        shape = array.shape if array is not None else ()
        whose = next((value for value in op.inputs if array is not None and value.shape == shape), None)
        known["index"], known["axes"] = (index, _unnamed(len(index or ())))
        if whose is not None:
            known["index"], known["axes"] = self.names.index(whose, shape, index)
        made = self._made(op, shape if whose is not None else None, index, known["value"])
        cause, way_out = causes.of_gradient(made, self._incoming(op, shape, index))
        hidden = [value for value in entry.op.inputs if not value.op.backward and value in bad.values]
        if hidden:
            source = entries(self.batch, bad, hidden[:1], self.names.paths)
            cause = (
                "the gradient that comes in is finite, but it is multiplied by a value that is not: "
                f"{self._called(source[0].op if source else hidden[0].op)} gave it, and ops.where or a mask hides it "
                "from the loss (0 × inf is NaN)"
            )
            way_out = causes.GUARD
        operands = [operand for operand in made.operands[:2] if operand is not None]
        operands = operands[: 1 if op.kind == "custom" else 2]
        at = f" at {', '.join(map(causes.number, operands))}" if operands and not hidden else ""
        return NonFinite(
            step="gradient",
            layer=self.names.layer(op),
            operation=op.word,
            what=f"derivative of {op.word}{at} = {causes.number(known['value'])}",
            cause=cause + self._unweighted(known),
            way_out=way_out,
            line=self._line(op),
            weights=weights,
            **known,
        )

    def _handed_back(self, bad: Bad, entry: Entry, op: Op) -> np.ndarray | None:
        """What the derivative of the operation hands back: the first that has the shape of an input of it."""
        if not entry.values:
            return None
        shapes = [value.shape for value in op.inputs if value.shape is not None]
        if entry.arrays[0].shape in shapes:
            return entry.arrays[0]
        found = (value for part in self.batch.program.derivatives(op) for value in part.outputs)
        value = next((value for value in found if value in bad.values and value.shape in shapes), None)
        return entry.arrays[0] if value is None else self.batch.run([value])[0]

    def _incoming(self, op: Op, shape: tuple[int, ...], index: Index) -> float | None:
        """The gradient that comes in from behind, at the index; None where it has none there."""
        parts = self.batch.program.derivatives(op)
        for value in (value for part in parts for value in part.inputs):
            outside = value.op.backward and value.op not in parts and value.is_floating
            if outside and index is not None and value.shape == shape:
                return float(self.batch.run([value])[0][index])
        return None

    def _made(self, op: Op, shape: tuple[int, ...] | None, index: Index, value: float) -> causes.Made:
        """The operation with its numbers: at `index` of an array of this shape, where it works element by element."""
        inputs = [one for one in op.inputs if one.is_floating]
        arrays = [np.asarray(array, np.float64) for array in self.batch.run(inputs)]
        operands: list[float | None] = []
        for array in arrays:
            operand = None
            if shape is not None and index is not None and op.kind != "reduce":
                with contextlib.suppress(ValueError, IndexError):
                    operand = float(np.broadcast_to(array, shape)[index])
            operands.append(operand)
        if "exponent" in op.info:
            operands.append(op.info["exponent"])
        result = op.outputs[0] if op.outputs else None
        limit = float(ml_dtypes.finfo(result.dtype).max) if result is not None and result.is_floating else math.inf
        source = causes.done_by(_source(op.inputs[1])) if op.kind == "div" else ""
        return causes.Made(op, arrays, operands, value, "float32" if result is None else result.dtype, limit, source)

    def _leaf(self, entry: Entry) -> str | None:
        return self.names.leaf(entry.values[0]) if entry.values else None

    def _line(self, op: Op) -> str:
        return user_line(self.batch.program.frames(op))

    def _called(self, op: Op) -> str:
        layer = self.names.layer(op)
        return op.word + (f" in layer {layer!r}" if layer else "")

    def _short(self, entry: Entry) -> str:
        if (word := self._leaf(entry)) is not None:
            return word
        if entry.weight is not None:
            return f"weight {self.names.paths[entry.weight]}"
        return self._called(entry.op.original or entry.op)

    def _unweighted(self, known: dict) -> str:
        """A remark where the sample has weight 0, which does not take NaN away."""
        loss = self.batch.loss
        sample = dict(zip(known.get("axes", ()), known.get("index") or ())).get("batch")
        weights = [w for word in ("sample_weight", "class_weight") for w in loss.inputs.get(word, [])]
        if sample is None or not weights:
            return ""
        arrays = [leaf for feed, leaf in zip(loss.program.feeds, self.batch.leaves) if feed in weights]
        if all(len(array) > sample and not np.any(array[sample]) for array in arrays):
            return "; the weight of this sample is 0, but 0 × NaN is NaN: a weight is not a mask"
        return ""


def _counted(array: np.ndarray, index: Index) -> dict[str, Any]:
    value = float(array[index]) if index is not None else math.nan
    return {"value": value, "count": int((~np.isfinite(array)).sum()), "size": int(array.size)}


def _unnamed(rank: int) -> tuple[str, ...]:
    return tuple(f"axis{k}" for k in range(rank))


def _differentiated(op: Op) -> Op:
    """The operation that this one of the backward pass differentiates; of a sum of gradients, that of the first."""
    originals = (value.op.original for value in op.inputs)
    return op.original or next(filter(None, originals), op)


def _source(value: Value) -> Op:
    """What made the value, behind all through which a divisor still is what it was."""
    op = value.op
    while op.inputs and (
        op.kind in ("identity", "cast", "reshape", "broadcast")
        or op.info.get("how") == "maximum"
        or op.info.get("signs") == (1, 1)
    ):
        op = op.inputs[0].op
    return op
