"""Names: of what the user gave, of layers, terms and weights, of the axes of a value."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np

from lossviz.backend.program import Loss, Op, Value, ancestors
from lossviz.engine import axes, naming, ops

TOTAL = "sum of the terms"  # stands for a term where an operation comes after all of them


class Names:
    """How parts of one traced loss are called."""

    def __init__(self, loss: Loss, given: Mapping[str, Any], paths: Mapping[Value, str]):
        self.loss, self.given, self.paths = loss, given, paths
        self.above = {name: set(ancestors([value])) for name, value in _terms(loss)}

    def leaf(self, value: Value) -> str | None:
        """The user's word for the value, if it is one of the batch."""
        for word, values in self.loss.inputs.items():
            if value in values:
                return word + _entry_path(self.given.get(word), values.index(value))
        return None

    def terms(self, *made: Op) -> tuple[str, ...]:
        """The terms that these operations reach."""
        return tuple(name for name, above in self.above.items() if not above.isdisjoint(made)) or (TOTAL,)

    def layer(self, op: Op) -> str:
        return "" if op.region is None else self.loss.layers[op.region]

    def reader(self, values: list[Value]) -> str:
        """The first layer that reads these values of a weight."""
        reading = [op for op in ancestors([self.loss.root]) if not set(values).isdisjoint((*op.inputs, *op.outputs))]
        return next(filter(None, map(self.layer, reading)), "")

    @staticmethod
    def step(op: Op) -> str:
        if op.forward:
            return "forward pass"
        above = [op, *ancestors(op.inputs)]
        return "reduction" if any(not other.forward and _adds_up(other) for other in above) else "element loss"

    def leaf_axes(self, word: str, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Names of the axes of an array of the batch."""
        rank = len(shape)
        for prediction in () if word.startswith("x") else self.loss.predictions:
            whole, known = axes.default_axes(prediction.rank or 0), prediction.shape or ()
            if word.startswith("y") and shape == known:
                return whole
            if shape[: rank - 1] == known[: rank - 1] and rank <= len(whole):
                return whole[:rank]
        return self._hidden_axes(shape)

    def _hidden_axes(self, shape: tuple[int, ...]) -> tuple[str, ...]:
        """Names for a value of the forward pass: by its rank, if it begins with the batch."""
        rank = len(shape)
        if not rank or self.loss.batch_size is None or shape[0] != self.loss.batch_size:
            return tuple(f"axis{k}" for k in range(rank))
        names = axes.default_axes(rank)
        return (*names[:-1], {2: "unit", 3: "unit"}.get(rank, "channel")) if rank > 1 else names

    def index(
        self, value: Value, shape: tuple[int, ...], index: tuple[int, ...] | None
    ) -> tuple[tuple | None, tuple[str, ...]]:
        """The index with one number for each axis, and their names: those of predictions and targets in the loss."""
        if index is None:
            return None, ()
        known: dict = {}
        for prediction in self.loss.predictions:
            if prediction.is_static:
                known[prediction] = axes.named(prediction.shape, axes.default_axes(prediction.rank))
        for one in (side for entry in self.loss.outputs for side in (entry.y_pred, entry.y_true)):
            if one is not None and one.is_static:
                known.setdefault(one, axes.named(one.shape, self.leaf_axes("y", one.shape)))
        if value in known:
            dims = known[value]
        elif value.op.forward:
            return index, self._hidden_axes(shape)
        else:
            dims = ops.propagate([op for op in ancestors([value]) if not op.forward], known).get(value)
            if not any(dims or ()):  # an operation that tells nothing of axes, such as a condition
                dims = next((d for d in known.values() if tuple(len(dim[0].labels) for dim in d) == shape), None)
        marks = np.zeros(shape, bool)
        marks[index] = True
        unfolded, atoms = axes.unfold(marks, dims)
        place = tuple(int(k) for k in np.unravel_index(int(np.argmax(unfolded)), unfolded.shape)) if atoms else ()
        return place, tuple(atom.name for atom in atoms)


def _terms(loss: Loss) -> list[tuple[str, Value]]:
    """The terms of the loss, with the names that `explain` gives them."""
    names, more = naming.terms([entry.name for entry in loss.outputs], [entry.name for entry in loss.added])
    found = [(name, entry.value) for name, entry in zip([*names, *more], [*loss.outputs, *loss.added])]
    return [(name, value) for name, value in found if value is not None] or [(loss.name, loss.root)]


def _adds_up(op: Op) -> bool:
    before, after = op.inputs[:1], op.outputs
    if op.kind != "reduce" or op.info["how"] not in ("sum", "mean"):
        return False
    return before[0].shape != after[0].shape and before[0].is_floating


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
