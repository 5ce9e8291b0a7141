"""The loss of a whole data set, as `model.evaluate` computes it: the mean of its batches, weighted by their samples.

Batches are read once, explained one by one, and added up. None is kept: the memory needed is that of one batch, of
one array of shares summed over the samples, and of one share per sample (and class).
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import sys
import time
import types
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np

from lossviz import rules
from lossviz.ask import checks, kept
from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.engine.labels import NO_CLASS
from lossviz.report import findings
from lossviz.report import formatting as f
from lossviz.report.records import EXACTNESS, TRUE_CLASS, UNSPLIT, Part, Step, Term, sum_to
from lossviz.report.report import Report

#: Without a word about it, a progress bar appears after this many seconds.
PATIENCE = 3.0
#: The batch size of `model.evaluate`.
BATCH_SIZE = 32
#: What `tf.data` says instead of a number of batches.
_INFINITE, _UNKNOWN = -1, -2
#: At most this many batches have a note of their own.
NOTES = 3


class Data(NamedTuple):
    """Batches `(x, y, sample_weight)`, and how many there are (None where nobody knows)."""

    batches: Iterable[tuple[Any, Any, Any]]
    count: int | None


def is_dataset(x: Any) -> bool:
    """Does x yield batches by itself, as far as `model.evaluate` is concerned?"""
    torch_loader = any(kind.__name__ == "DataLoader" for kind in type(x).__mro__)
    return torch_loader or _is_tf_data(x) or isinstance(x, (keras.utils.PyDataset, types.GeneratorType))


def _is_tf_data(x: Any) -> bool:
    """Is it a `tf.data.Dataset`? They are read on every backend."""
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(x, tensorflow.data.Dataset)


def read(x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None) -> Data:
    """The batches that `model.evaluate` would read or cut; ValueError where it cannot, or where there is no end."""
    for name, value in (("batch_size", batch_size), ("steps", steps)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1):
            raise ValueError(f"{name}={value!r}, but it must be a whole number, at least 1.")
    if not is_dataset(x):
        return _cut(*checks.batch(x, y, sample_weight), batch_size, steps)
    kind = type(x).__name__
    for name, value in (("y", y), ("sample_weight", sample_weight)):
        if value is not None:
            raise ValueError(
                f"x is a data set ({kind}), so {name} must not be given: let it yield (x, y) or (x, y, sample_weight)."
            )
    if batch_size is not None:
        raise ValueError(
            f"x is a data set ({kind}) and yields batches by itself, so batch_size={batch_size} must not be given. If "
            "it is a tf.data.Dataset of single samples, pass x.batch(batch_size)."
        )
    count = _count(x)
    if count == math.inf and steps is None:
        raise ValueError(f"x is a data set ({kind}) without an end. Say how many batches to explain: steps=...")
    counts = [number for number in (count, steps) if number is not None]
    return Data(_unpacked(x, steps), int(min(counts)) if counts else None)


def explain_epoch(model: keras.Model, data: Data, verbose: str | int, explain_batch: Callable, options: dict) -> Report:
    """The report of all batches; `options` are the keywords of `explain`, `explain_batch` does one batch."""
    if verbose not in ("auto", 0, 1, 2):
        raise ValueError(f'verbose={verbose!r}, but it must be "auto", 0, 1 or 2.')
    sums = {True: _Sums(options, by_samples=True)}
    if type(model).test_step is not _keras.plain_test_step():  # its loss may be a mean in which batches count alike
        sums[False] = _Sums(options, by_samples=False)
    progress = _Progress(data.count, verbose)
    kept.forget(model)  # what `evaluate` traces now, and what is explained, are of one moment
    reported, evaluate = None, None
    with contextlib.ExitStack() as stack:

        def begin(traced) -> None:
            nonlocal evaluate
            if evaluate is None:
                asks = not (options["training"] or options["class_weight"] or traced.random)
                run = stack.enter_context(_keras.evaluation(model, traced))
                evaluate = run if asks else lambda *batch: None

        for raw in data.batches:
            with _where(model, raw, sums[True].samples):
                batch = checks.batch(*raw)
                report = explain_batch(*batch, begin=begin)
                with checks.model_errors(model, *batch), _quiet.retracing():
                    reported = evaluate(*batch)
            for one in sums.values():
                one.add(report)
            progress(len(sums[True].batches), reported)
        progress.end()
    if not sums[True].batches:
        raise ValueError("x yields no batch, so there is no loss to explain.")
    reports = [one.report(reported) for one in sums.values()]
    report = next((report for report in reports if report.adds_up), reports[0])
    found = rules.of_epoch(model, sums[True].outputs, [samples for samples, _ in report.batches])
    return dataclasses.replace(report, findings=rules.union((*report.findings, *found)))


# -- reading ----------------------------------------------------------------------------------------------


def _cut(x: Any, y: Any, sample_weight: Any, batch_size: int | None, steps: int | None) -> Data:
    samples = next(leaf for leaf in keras.tree.flatten(x) if leaf is not None).shape[0]
    size = batch_size or (math.ceil(samples / steps) if steps else BATCH_SIZE)
    count = min(math.ceil(samples / size), steps or math.inf)

    def batches() -> Iterator:
        for start in range(0, count * size, size):
            part = partial(_slice, start=start, stop=start + size)
            yield keras.tree.map_structure(part, (x, y, sample_weight))

    return Data(batches(), count)


def _slice(array: np.ndarray | None, start: int, stop: int) -> np.ndarray | None:
    return None if array is None else array[start:stop]


def _count(x: Any) -> float | None:
    """How many batches a data set has; infinity, or None where it does not say."""
    if _is_tf_data(x):
        count = int(x.cardinality())
        return {_INFINITE: math.inf, _UNKNOWN: None}.get(count, count)
    if isinstance(x, keras.utils.PyDataset):
        return math.inf if x.num_batches is None else x.num_batches
    return len(x) if hasattr(x, "__len__") else None


def _unpacked(x: Iterable, steps: int | None) -> Iterator[tuple]:
    for k, batch in enumerate(x, start=1):
        if isinstance(batch, (tuple, list)) and not 1 <= len(batch) <= 3:
            raise ValueError(
                f"x yields a {type(batch).__name__} of {len(batch)} entries, not (x, y) or (x, y, sample_weight)."
            )
        yield keras.utils.unpack_x_y_sample_weight(batch)
        if k == steps:
            return


@contextlib.contextmanager
def _where(model: keras.Model, raw: tuple, start: int) -> Iterator[None]:
    """Errors inside say which batch they are about."""
    try:
        yield
    except ValueError as error:
        advice, wanted = "", getattr(model, "input_shape", None)
        got = getattr(raw[0], "shape", None)
        if start == 0 and isinstance(wanted, tuple) and got is not None and len(got) == len(wanted) - 1:
            advice = f"x yields single samples of shape {tuple(got)}? Then batch it: x.batch({BATCH_SIZE}). "
        raise ValueError(f"in the batch that begins at sample {start}: {advice}{error}") from error


class _Progress:
    """Keras's own progress bar, shown at once or, with "auto", when it has taken a while."""

    def __init__(self, count: int | None, verbose: str | int):
        shown = 1 if verbose == "auto" else verbose
        self.bar = keras.utils.Progbar(count, verbose=shown, stateful_metrics=["loss"], unit_name="batch")
        self.patience = {"auto": PATIENCE, 0: math.inf}.get(verbose, 0.0)
        self.start, self.seen, self.shown = time.monotonic(), 0, False

    def __call__(self, seen: int, loss: float | None) -> None:
        self.seen, self.loss = seen, [] if loss is None else [("loss", loss)]
        late = time.monotonic() - self.start >= self.patience and (seen != self.bar.target or self.patience == 0)
        if late or self.shown:
            self.bar.update(seen, self.loss, finalize=seen == self.bar.target)
            self.shown = True

    def end(self) -> None:
        if self.shown and self.seen != self.bar.target:
            self.bar.update(self.seen, self.loss, finalize=True)


# -- adding up --------------------------------------------------------------------------------------------


class _Sums:
    """The sum of what the batches' reports hold, each times its samples or, without `by_samples`, times 1."""

    def __init__(self, options: dict, by_samples: bool):
        given = options["axes"] or ()
        named = given.values() if isinstance(given, dict) else [given]
        self.sample_axes = {"batch", *(axes[0] for axes in named if axes)}
        self.class_axes = {"class", *(axes[-1] for axes in named if axes)}
        self.limit, self.by_samples = options["max_elements"], by_samples
        self.batches: list[tuple[int, float]] = []
        self.terms: dict[tuple[str, str], _TermSum] = {}
        self.notes = _Notes()
        self.findings: tuple[findings.Finding, ...] = ()
        self.outputs: dict[str, list[float]] = {}  # the loss of each batch, for each output
        self.samples = 0
        self.tolerance = 0.0

    def add(self, report: Report) -> None:
        samples = report.batch_size
        place = _Place(self.samples, samples, samples if self.by_samples else 1)
        for term in report.terms:
            found = self.terms.setdefault((term.name, term.kind), _TermSum(term))
            found.add(term, place, self)
            if term.kind == "output":
                self.outputs.setdefault(term.name, []).append(term.value)
        self.notes.add(report.notes, place)
        self.findings = rules.union((*self.findings, *report.findings))
        self.batches.append((samples, report.reported))
        self.samples += samples
        self.tolerance = max(self.tolerance, report.tolerance)
        self.versions = report.versions

    def report(self, reported: float | None) -> Report:
        sizes = np.array([samples if self.by_samples else 1 for samples, _ in self.batches], float)
        losses = np.array([loss for _, loss in self.batches])
        source = "compute_loss" if reported is None else "evaluate"
        if reported is None:
            reported = float(np.sum(sizes * losses) / np.sum(sizes))
        # Keras keeps the running sum in floatx: each batch may add half a unit in its last place
        rounding = len(self.batches) * float(np.finfo(keras.config.floatx()).eps) / 2
        return Report(
            reported=reported,
            terms=tuple(term.result(self, float(np.sum(sizes))) for term in self.terms.values()),
            source=source,
            versions=self.versions,
            tolerance=self.tolerance + rounding,
            batch_size=self.batches[0][0],
            notes=self.notes.result(self),
            batches=tuple(self.batches),
            findings=self.findings,
        )

    def last_step(self, same: bool) -> Step | None:
        count = len(self.batches)
        if count == 1:
            return None
        sizes = [samples for samples, _ in self.batches]
        alike = len(set(sizes)) == 1
        text = f"mean over {f.plain(count)} batches"
        if not alike:
            text += ", weighted by their samples" if self.by_samples else ", each counted once whatever its samples"
        text += f": {f.batches_text(sizes)}"
        if not same:
            text += "; the numbers above are the first batch's"
        return Step("mean", text, (count,), (), (), float(count) if alike or not self.by_samples else None)


class _Place(NamedTuple):
    """A batch: its first sample, how many there are, and what it counts."""

    start: int
    samples: int
    weight: int


class _TermSum:
    def __init__(self, term: Term):
        self.term, self.value, self.weights = term, 0.0, []
        self.parts: list[_PartSum] = []
        self.gradient: _PartSum | None = None
        self.notes = _Notes()

    def add(self, term: Term, place: _Place, sums: _Sums) -> None:
        self.value += place.weight * term.value
        self.weights.append(term.loss_weight)
        for k, part in enumerate(term.parts):
            if k == len(self.parts):
                self.parts.append(_PartSum(part))
            self.parts[k].add(part, place, sums)
        if term.gradient is not None:
            self.gradient = self.gradient or _PartSum(term.gradient)
            self.gradient.add(term.gradient, place, sums)
        self.notes.add([term.note], place)

    def result(self, sums: _Sums, total: float) -> Term:
        parts = tuple(part.result(sums, total) for part in self.parts)
        value, weight, note = self.value / total, self.weights[0], self.notes.result(sums)
        if len(set(self.weights)) > 1:
            value, weight = float(sum(part.contribution for part in parts)), 1.0
            note = (*note, "its loss weight differs between batches, so it is part of the value")
        gradient = self.gradient and self.gradient.result(sums, total)
        return Term(self.term.name, self.term.kind, value, weight, parts, "; ".join(note), gradient)


class _PartSum:
    """One part, added up over the batches; arrays grow where a batch is longer along an axis."""

    def __init__(self, part: Part):
        self.first, self.axes, self.lengths = part, None, {}
        self.contributions = self.elements = None
        self.absolute, self.exactness, self.same = 0.0, "exact", True
        self.sums: dict[str, np.ndarray] = {}
        self.labels: dict[str, tuple[Hashable, ...]] = {}
        self.per_sample: list[tuple[int, np.ndarray]] | None = []
        self.sample_axes: tuple[str, ...] | None = None
        self.kept = 0
        self.classes: dict[Hashable, float] | None = {}
        self.notes = _Notes()

    def add(self, part: Part, place: _Place, sums: _Sums) -> None:
        sizes = dict(zip(part.axes, part.contributions.shape))
        own = next((n for n, size in sizes.items() if n in sums.sample_axes and size == place.samples), None)
        left = tuple(name for name in part.axes if name != own)
        if self.axes is None:
            self.axes = left
        shared = tuple(name for name in self.axes if name in left)
        if shared != self.axes:
            self.contributions = sum_to(self.contributions, self.axes, shared)
            self.elements = sum_to(self.elements, self.axes, shared)
            self.axes = shared
        self.contributions = _plus(self.contributions, place.weight * part.sum_to(shared))
        self.elements = _plus(self.elements, sum_to(part.elements, part.axes, shared))
        self.absolute += place.weight * part.magnitude
        self.exactness = max(self.exactness, part.exactness, key=EXACTNESS.index)
        for name in shared:
            self.lengths.setdefault(name, set()).add(sizes[name])
            self.labels[name] = max(self.labels.get(name, ()), part.labels[part.axes.index(name)], key=len)
        for name, value in part.sums.items():
            value = sum_to(value, part.axes, shared) if value.ndim == len(part.axes) else np.asarray(np.sum(value))
            self.sums[name] = _plus(self.sums.get(name), value)
        if not sums.batches or place.samples == sums.batches[0][0]:
            self.same &= [step.text for step in part.steps] == [step.text for step in self.first.steps]
        self._add_samples(part, own, place, sums)
        self._add_classes(part, place)
        self.notes.add([part.note], place)

    def _add_samples(self, part: Part, own: str | None, place: _Place, sums: _Sums) -> None:
        if own is None or self.per_sample is None:
            self.per_sample = None
            return
        axes = (own, *(name for name in part.axes if name in sums.class_axes and name != own))
        if self.sample_axes is None:
            self.sample_axes = axes
        shares = place.weight * part.sum_to(axes)
        self.kept += shares.size
        if len(self.sample_axes) > 1 and (axes != self.sample_axes or self.kept > sums.limit):
            self.sample_axes = self.sample_axes[:1]
            self.per_sample = [(start, _rows(before)) for start, before in self.per_sample]
        self.per_sample.append((place.start, shares if len(self.sample_axes) > 1 else _rows(shares)))

    def _add_classes(self, part: Part, place: _Place) -> None:
        grouped = part.by_label()
        if grouped is None or self.classes is None:
            self.classes = None
            return
        for label, share in grouped.items():
            self.classes[label] = self.classes.get(label, 0.0) + place.weight * share

    def result(self, sums: _Sums, total: float) -> Part:
        labels = tuple(self.labels[name] for name in self.axes)
        last = sums.last_step(self.same)
        padded = [
            f"the batches differ in size along {name}, from {f.plain(min(found))} to {f.plain(max(found))}: positions "
            "are counted from the start, and a shorter batch has no share beyond its end"
            for name, found in self.lengths.items()
            if name in self.axes and len(found) > 1
        ]
        views = [*self._sample_view(sums, total), *self._class_view(total)]
        return Part(
            axes=self.axes,
            elements=self.elements,
            contributions=self.contributions / total,
            exactness=self.exactness,
            steps=(*self.first.steps, *([] if last is None else [last])),
            labels=labels,
            sums={name: np.asarray(value) for name, value in self.sums.items()},
            note="; ".join((*self.notes.result(sums), *padded)),
            views=tuple(views),
            absolute=self.absolute / total,
        )

    def _sample_view(self, sums: _Sums, total: float) -> list[Part]:
        if not self.per_sample:
            return []
        shape = np.max([shares.shape for _, shares in self.per_sample], axis=0)
        array = np.zeros((sums.samples, *shape[1:]))
        for start, shares in self.per_sample:
            array[(slice(start, start + len(shares)), *(slice(n) for n in shares.shape[1:]))] = shares / total
        labels = (tuple(range(sums.samples)), *(self.labels[name] for name in self.sample_axes[1:]))
        return [Part(self.sample_axes, array, array, self.exactness, (), labels)]

    def _class_view(self, total: float) -> list[Part]:
        if not self.classes:
            return []
        last = [label for label in (NO_CLASS, UNSPLIT) if label in self.classes]
        names = (*(label for label in self.classes if label not in last), *last)
        array = np.array([self.classes[name] for name in names]) / total
        return [Part((TRUE_CLASS,), array, array, self.exactness, (), (names,))]


class _Notes:
    """Notes, and in which batches each was made: what holds for all of them is said once."""

    def __init__(self):
        self.places: dict[str, list[_Place]] = {}

    def add(self, notes: Iterable[str], place: _Place) -> None:
        for note in notes:
            if note:
                self.places.setdefault(note, []).append(place)

    def result(self, sums: _Sums) -> tuple[str, ...]:
        always = [note for note, places in self.places.items() if len(places) == len(sums.batches)]
        some = [(note, places[0]) for note, places in self.places.items() if note not in always]
        found = [f"samples {p.start} to {p.start + p.samples - 1}, counted from 0 there: {note}" for note, p in some]
        rest = [f"{len(found) - NOTES} more notes on single batches"] if len(found) > NOTES else []
        return (*always, *found[:NOTES], *rest)


def _plus(total: np.ndarray | None, array: np.ndarray) -> np.ndarray:
    """Their sum; the shorter one is filled up with zeros."""
    array = np.asarray(array, np.float64)
    if total is None:
        return array
    if total.shape == array.shape:
        return total + array
    if total.ndim != array.ndim:
        return np.asarray(np.sum(total) + np.sum(array))
    shape = np.maximum(total.shape, array.shape)
    return _filled(total, shape) + _filled(array, shape)


def _rows(array: np.ndarray) -> np.ndarray:
    return array.reshape(len(array), -1).sum(axis=1)


def _filled(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return np.pad(array, [(0, full - size) for size, full in zip(array.shape, shape)])
