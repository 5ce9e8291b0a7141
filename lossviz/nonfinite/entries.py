"""Where values that are not finite enter: the operations of which all inputs are finite, and which of them do harm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from lossviz.backend.program import Op, Value
from lossviz.nonfinite.looking import Bad, Batch, Fed, first

#: What stands in for a value that is not finite: the first with which the loss is finite.
_STAND_INS = (0.5, 1.0, 0.0)
SEVERAL = 8  # other entries that are named


@dataclass
class Entry:
    """Where values that are not finite enter: values that can be fed, and what they were."""

    op: Op
    values: list[Value]
    weight: Value | None = None  # what it is read from, where it is a weight
    arrays: list[np.ndarray] = field(default_factory=list)


def entries(batch: Batch, bad: Bad, targets: Sequence[Value], weights: Mapping[Value, str]) -> list[Entry]:
    """The operations where finite numbers go in and others come out: the data first, then `weights` in their order,
    then operations as they were made."""
    found: dict[Op, None] = {}
    seen: dict[Op, None] = {}
    stack = [target.op for target in targets]
    backward = any(op.backward for op in stack)
    while stack:
        op = stack.pop()
        if op in seen:
            continue
        seen[op] = None
        inputs = bad.of(op.inputs)
        if backward:  # a value of the forward pass may be hidden by a mask there, and does harm only here
            inputs = [value for value in inputs if value.op.backward]
        if inputs:
            stack.extend(value.op for value in inputs)
        else:
            found[op] = None
    constants = [op for op in found if op.info.get("how") == "constant" and bad.nan.isdisjoint(op.outputs)]
    if constants:  # an infinity that the code asks for is no fault; the operation that makes NaN of it is
        turns = [op for op in seen if bad.turns(op) and op not in found]
        if turns:
            found = dict.fromkeys([*(op for op in found if op not in constants), *turns])
    whole: dict[Op | Value, Entry] = {}
    for op in found:
        outputs = [value for value in op.outputs if value in bad.values]
        sources = (*op.inputs, *op.outputs) if op.kind == "read" else ()
        weight = next((value for value in sources if value in weights), None)
        entry = whole.setdefault(weight or op, Entry(op, [], weight))
        entry.values += outputs
    order = list(weights)

    def place(entry: Entry) -> tuple[int, float]:
        if any(value in batch.program.feeds for value in entry.values):
            return 0, batch.program.place(entry.op)
        if entry.weight is not None:
            return 1, order.index(entry.weight)
        return 2, np.inf if entry.op.backward else batch.program.place(entry.op)

    return sorted(whole.values(), key=place)


def choose(
    batch: Batch, found: list[Entry], targets: Sequence[Value]
) -> tuple[Entry, tuple[int, ...] | None, list[Entry]]:
    """The first entry that spoils a target by itself, the first index that does, and the other such entries.

    Proved by running the program with finite numbers in all entries but one.
    """
    arrays = iter(batch.run([value for entry in found for value in entry.values]))
    for entry in found:
        entry.arrays = [next(arrays) for _ in entry.values]
    able = [e for e in found if e.values and all(len(value.op.outputs) == 1 for value in e.values)]
    fed = _without(batch, able, targets) if len(able) == len(found) else None
    if fed is None:  # what makes all finite is not known: the first is the best guess
        return found[0], first(found[0].arrays[0]) if found[0].arrays else None, found[1:]
    harmful = []
    for entry in able[: 4 * SEVERAL]:
        if any(batch.spoiled(targets, {**fed, **dict(zip(entry.values, entry.arrays))})):
            harmful.append(entry)
            if len(harmful) > SEVERAL + 1:
                break
    if not harmful:
        return able[0], first(able[0].arrays[0]), able[1:]
    return harmful[0], _first_harmful(batch, harmful[0], targets, fed), harmful[1:]


def _without(batch: Batch, found: list[Entry], targets: Sequence[Value]) -> Fed | None:
    """Finite numbers in place of all entries, with which the targets are finite."""
    for number in _STAND_INS:
        fed = {
            value: np.where(np.isfinite(array), array, np.asarray(number, array.dtype))
            for entry in found
            for value, array in zip(entry.values, entry.arrays)
        }
        if not any(batch.spoiled(targets, fed)):
            return fed
    return None


def _first_harmful(batch: Batch, entry: Entry, targets: Sequence[Value], fed: Fed) -> tuple[int, ...]:
    """The first index of the entry's value at which its number, alone or with those before, spoils a target."""
    value, array = entry.values[0], entry.arrays[0]
    clean, flat = fed[value], array.reshape(-1)
    places = np.flatnonzero(~np.isfinite(array).reshape(-1))

    def spoils(count: int) -> bool:
        trial = clean.copy().reshape(-1)
        trial[places[:count]] = flat[places[:count]]
        return any(batch.spoiled(targets, {**fed, value: trial.reshape(array.shape)}))

    low, high = 0, len(places)
    if spoils(1):
        high = 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if spoils(middle) else (middle, high)
    return tuple(int(k) for k in np.unravel_index(int(places[high - 1]), array.shape))
