"""Which values of a traced batch are not finite, also where others stand in for some of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from lossviz.backend.program import Loss, Op, Value, ancestors

Fed = Mapping[Value, np.ndarray]


class Batch:
    """A traced loss with the numbers of one batch."""

    def __init__(self, loss: Loss, leaves: Sequence[np.ndarray]):
        self.loss, self.program, self.leaves = loss, loss.program, leaves
        self.fed: dict[Value, np.ndarray] = {}  # what every run is given beside the batch

    def run(self, fetches: Sequence[Value]) -> list[np.ndarray]:
        if not fetches:
            return []
        feeds = self._feeds({})
        return self.program.runner(fetches, list(feeds))(list(feeds.values()))

    def counts(self, values: Sequence[Value], fed: Fed | None = None) -> np.ndarray:
        """How many numbers of each are -inf, inf and NaN, shape (values, 3), with `fed` in place of what those are."""
        feeds = self._feeds(fed or {})
        return self.program.summary(values, list(feeds))(list(feeds.values()))

    def spoiled(self, values: Sequence[Value], fed: Fed | None = None) -> list[bool]:
        """Which of the values are not finite."""
        return self.counts(values, fed).any(axis=1).tolist()

    def _feeds(self, fed: Fed) -> dict[Value, np.ndarray]:
        return {**dict(zip(self.program.feeds, self.leaves, strict=True)), **self.fed, **fed}


class Bad:
    """What is not finite in one run, among all that some targets are computed from."""

    def __init__(self, batch: Batch, targets: Iterable[Value]):
        above = [value for op in ancestors(targets) for value in op.outputs]
        values = [v for v in above if v.is_floating or v.dtype.startswith("complex")]
        counts = batch.counts(values)
        self.values = {value for value, row in zip(values, counts) if row.any()}
        self.nan = {value for value, row in zip(values, counts) if row[2]}
        self._lists: dict[Value, bool] = {}

    def __contains__(self, value: Value) -> bool:
        """Not finite; of a list of tensors: made by a loop, or of something that is not finite."""
        if value.dtype != "variant":
            return value in self.values
        if value not in self._lists:
            self._lists[value] = False
            op = value.op
            inputs = [other for other in op.inputs if other.op.backward or not op.backward]
            self._lists[value] = op.info.get("how") == "loop" or any(other in self for other in inputs)
        return self._lists[value]

    def of(self, values: Iterable[Value]) -> list[Value]:
        return [value for value in values if value in self]

    def turns(self, op: Op) -> bool:
        """Does the operation make a NaN of infinities?"""
        makes = not self.nan.isdisjoint(op.outputs)
        return makes and not self.values.isdisjoint(op.inputs) and self.nan.isdisjoint(op.inputs)


def first(array: np.ndarray) -> tuple[int, ...] | None:
    """The first index at which the array is not finite."""
    bad = ~np.isfinite(array)
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(bad)), bad.shape)) if bad.any() else None
