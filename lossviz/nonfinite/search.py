"""`find_nonfinite`: the operation, and the first index, at which a NaN or an infinity enters a loss or its gradient.

Forward pass, loss and gradient are put into one program. One run asks every floating value in it whether it is
finite. From the loss (or the gradients), walk back through values that are not finite, to the operations of
which all inputs are finite: the *entries*. To know which of them does the harm, and at which index, the program is
run again with finite numbers in their place, and with one of the values put back: an infinity that a mask, a softmax
or `where` takes out again changes nothing, and is not reported.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from lossviz.ask import checks
from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.backend import tracing
from lossviz.backend.program import Loss, Value
from lossviz.backend.tracing import lower
from lossviz.nonfinite.entries import choose, entries
from lossviz.nonfinite.looking import Bad, Batch
from lossviz.nonfinite.naming import Names
from lossviz.nonfinite.optimizer import in_optimizer, loss_scale, scaled
from lossviz.nonfinite.result import NonFinite
from lossviz.nonfinite.words import Words
from lossviz.report import formatting as f


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
                        loss = lower(tracing.trace_model(model, x, y, sample_weight, mode, word), expanded=False)
                    targets = [loss.root, *_gradients(loss, loss_scale(model))]
                    runs[mode, last - first] = loss.program.summary(targets, loss.program.feeds)
                if runs[mode, last - first](tracing.leaves(list(given))).any():
                    found.add((first, last))
    return sorted(found)


def _gradients(loss: Loss, scale: float) -> list[Value]:
    try:
        gradients = loss.program.backward(loss.root, loss.trainable, scale).gradients
    except loss.program.underivable:  # an operation without a gradient
        return []
    return [value for value in gradients if value is not None]


def _in_batch(model, x, y, sample_weight, word: str, training: bool | None) -> NonFinite:
    """Where a value that is not finite enters the loss of these samples as one batch, or its gradient."""
    given = {"x": x, "y_true": y, word: sample_weight}
    modes = (False, True) if training is None else (bool(training),)
    scale = loss_scale(model)
    for mode in modes:
        with checks.model_errors(model, x, y, sample_weight), _quiet.retracing():
            if not _keras.is_built(model):
                _keras.build(model, x, y, sample_weight)
            with _keras.preserved(model):
                traced = tracing.trace_model(model, x, y, sample_weight, mode, word)
            with _keras.preserved(model, traced):
                batch = Batch(lower(traced, expanded=False), traced.leaves)
                value = float(batch.run([batch.loss.root])[0])
        with _keras.preserved(model, traced), _quiet.retracing():
            search = _Search(model, batch, given, mode, value, scale)
            found = None if np.isfinite(value) else search.in_loss()
            if found is None and mode is modes[-1]:
                found = search.in_gradient()
        if found is not None:
            return found
    return in_optimizer(model) or NonFinite(loss=value, training=modes[-1], looked_at=search.looked_at(modes))


class _Search:
    """One traced batch, and the two questions."""

    def __init__(self, model, batch: Batch, given: dict, training: bool, value: float, scale: float):
        self.scale = scale  # by which the optimizer multiplies the loss before the gradient is taken
        self.batch, self.value = batch, value
        names = Names(batch.loss, given, batch.program.paths(model.variables))
        self.words = Words(model, batch, names, training, value)
        self.weights = 0  # how many have a gradient
        self.skipped = ""

    def in_loss(self) -> NonFinite | None:
        return self._find([self.batch.loss.root])

    def in_gradient(self) -> NonFinite | None:
        loss, program = self.batch.loss, self.batch.program
        try:
            backward = program.backward(loss.root, loss.trainable, self.scale)
        except program.underivable as error:  # an operation without a gradient: then fit cannot train the model either
            self.skipped = f"the gradient was not looked at ({str(error).splitlines()[0]})"
            return None
        paths = self.words.names.paths
        reached = {slope: paths[w] for w, slope in zip(loss.trainable, backward.gradients) if slope is not None}
        self.weights, targets = len(reached), list(reached)
        bad = [slope for slope, spoiled in zip(targets, self._spoiled(targets)) if spoiled]
        if not bad:
            return None
        found = self._find(bad, tuple(reached[slope] for slope in bad))
        if found is not None and self.scale != 1:
            self.batch.fed = {backward.seed: np.ones(())}
            if not any(self._spoiled(targets)):
                return scaled(found, self.scale)
        return found

    def _spoiled(self, targets: Sequence[Value]) -> list[bool]:
        return self.batch.spoiled(targets) if targets else []

    def _find(self, targets: Sequence[Value], weights: tuple[str, ...] = ()) -> NonFinite | None:
        bad = Bad(self.batch, targets)
        found = entries(self.batch, bad, [target for target in targets if target in bad], self.words.names.paths)
        if not found:  # random numbers: this run was finite
            return None
        return self.words.describe(bad, *choose(self.batch, found, targets), weights)

    def looked_at(self, modes: Sequence[bool]) -> str:
        how = "as evaluate and as fit run it" if len(modes) > 1 else f"as {'fit' if modes[0] else 'evaluate'} runs it"
        size = "" if self.batch.loss.batch_size is None else f" of {self.batch.loss.batch_size}"
        gradients = "the gradient" if self.weights == 1 else f"the {self.weights} gradients"
        gradients = f"and {gradients} of its trainable weights" if self.weights else "which has no gradient"
        rest = f"; {self.skipped}" if self.skipped else ""
        return f"the loss {f.plain(self.value)} of this batch{size}, {how}, {gradients}{rest}"
