"""From numbers to words: the terms of a report, with named axes, steps, true classes and exactness."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from lossviz.backend.program import Op, Value, ancestors
from lossviz.engine import axes as axis_names
from lossviz.engine import ops
from lossviz.engine.certify import Certifier, Placement, Point
from lossviz.engine.decompose import Branch, Decomposition, counted
from lossviz.engine.labels import first_nonfinite, true_classes
from lossviz.engine.steps import Narrator, show_number
from lossviz.engine.tail import Cut
from lossviz.report.records import Part, Step, Term

_WEIGHT_AXES = {1: ("out",), 2: ("in", "out"), 3: ("step", "in", "out"), 4: ("row", "col", "in", "out")}
_SOURCES = ("sample_weight", "class_weight", "mask", "y_true", "x")


def write_terms(
    decomposition: Decomposition,
    axes: Mapping[str, Sequence[str]],
    class_names: Mapping[str, Sequence[Hashable]],
    max_elements: int,
) -> tuple[Term, ...]:
    """All terms; their contributions sum to the loss. `axes` and `class_names` go by output name."""
    return _Writer(decomposition, axes, class_names, max_elements).terms()


class _Writer:
    def __init__(self, decomposition: Decomposition, axes, class_names, max_elements: int):
        self.loss = loss = decomposition.loss
        self.decomposition, self.max_elements = decomposition, max_elements
        self.values = decomposition.values
        self.classes: dict = {}  # (targets, predictions) -> what `true_classes` says of them
        # positions are numbers here, and are called what the user calls them when a part is written
        self.named = {
            tensor: axis_names.named(tensor.shape, axes[name])
            for name, tensor in zip(loss.prediction_names, loss.predictions)
            if name in axes
        }
        self.labels = {
            tensor: {axes[name][axis_names.class_axis(axes[name])]: tuple(class_names[name])}
            for name, tensor in zip(loss.prediction_names, loss.predictions)
            if name in class_names and name in axes
        }
        key = repr(axes), *axes.items()
        if key not in decomposition.words:
            decomposition.words.clear()
            decomposition.words[key] = self._read_off()
        self.dims, self.sources, self.certifiers = decomposition.words[key]
        self.narrator = Narrator(self.dims, self.values, decomposition.shapes, self.sources)

    def _read_off(self) -> tuple[dict, dict, dict]:
        """Axis names of every tensor, where each comes from, and the proof of where the elements of each cut belong."""
        branches = self.decomposition.branches
        tails = [branch.tail for branch in branches]
        tensors = [self.loss.root, *(t for tail in tails for t in (tail.root, *(cut.tensor for cut in tail.cuts)))]
        order = ancestors(tensors)
        known = self._known_axes(order)
        proposed = ops.propagate(order, known)
        certifiers, proven = {}, {}
        for branch in branches:
            points = self._points(branch)
            class_axes = {self._class_axis(point.names) for point in points}
            for cut in branch.tail.cuts:
                dims = proposed.get(cut.tensor)
                if (branch.kind != "output" or branch.y_pred is None) and points:
                    start = {p.tensor: axis_names.named(list(p.sizes.values()), p.names) for p in points}
                    dims = ops.propagate(ancestors([cut.tensor]), start).get(cut.tensor)
                certifier = Certifier(cut.tensor, points, dims, class_axes)
                placement = certifier.of(self.decomposition.leaves, self.values)
                certifiers[branch.name, cut.tensor] = certifier
                proven[cut.tensor] = placement.dims
                if branch.y_true is not None and not placement.spread:
                    certifier.known = self._second_batch(certifier, branch.y_true)
                    proven[cut.tensor] = certifier.of(self.decomposition.leaves, self.values).dims
        below = set(proven)
        for operation in order:
            if any(tensor in below for tensor in operation.inputs):
                below.update(out for out in operation.outputs)
        kept = {ref: dims for ref, dims in proposed.items() if ref not in below}
        return ops.propagate(order, {**kept, **proven}), self._sources(order), certifiers

    def _second_batch(self, certifier: Certifier, target: Value) -> Placement | None:
        """Where targets were spread across predictions by accident, (N, 1) against (N,), the second axis is that of the
        targets, if their derivative says so."""
        placement, dims = certifier.known, certifier.proposal
        if placement is None or dims is None or len(dims) != len(placement.dims):
            return placement
        names = {atom.name for dim in placement.dims for atom in dim}
        twice = [
            k
            for k, (proven, dim) in enumerate(zip(placement.dims, dims))
            if not proven and len(dim) == 1 and dim[0].size > 1 and dim[0].name in names
        ]
        if not twice or target.rank != 1:
            return placement
        point = Point(target, (dims[twice[0]][0].name,))
        of_target = Certifier(certifier.cut, [point], None, set()).of(self.decomposition.leaves, self.values)
        return replace(
            placement,
            dims=tuple(of_target.dims[k] if k in twice else dim for k, dim in enumerate(placement.dims)),
        )

    def _points(self, branch: Branch) -> list[Point]:
        """The tensors whose positions the shares of this branch are filed under."""
        if branch.kind == "output":
            points = [Point(prediction, names) for prediction, names in self._predicted(branch).items()]
            for point in list(points):
                logits = self.loss.logits.get(point.tensor)
                if logits is not None and logits.shape == point.tensor.shape:
                    points.append(Point(logits, point.names))
            return points
        return [*self._entering(branch), *self._weights(branch)]

    @staticmethod
    def _class_axis(names: Sequence[str]) -> str:
        return names[axis_names.class_axis(names)] if len(names) > 1 else ""

    def _predicted(self, branch: Branch) -> dict[Value, tuple[str, ...]]:
        """The predictions that an output's loss is about, and the names of their axes.

        A compute_loss of the user's may read several outputs: they share the samples, and every other axis is that of
        one output, called after it.
        """
        if branch.y_pred is not None:
            return {branch.y_pred: self._names(branch.y_pred)} if branch.y_pred in self.named else {}
        found = {
            prediction: self._names(prediction) for prediction in self.loss.predictions if prediction in self.named
        }
        if len(found) < 2:
            return found
        called = dict(zip(self.loss.predictions, self.loss.prediction_names))
        return {p: (*names[:1], *(f"{called[p]}/{name}" for name in names[1:])) for p, names in found.items()}

    def _names(self, prediction: Value) -> tuple[str, ...]:
        return tuple(atom.name for dim in self.named[prediction] for atom in dim)

    def _entering(self, branch: Branch) -> list[Point]:
        """What a layer computes its added loss from: its own inputs, and what the layers inside it gave back."""
        if branch.kind == "regulariser" and not branch.name.endswith("/activity"):
            return []
        root = branch.tail.root
        while root.op.kind == "identity" and root.op.region is None:
            root = root.op.inputs[0]
        here, found = root.op.region, {}
        stack, seen = [root], {root}
        while stack:
            value = stack.pop()
            batch = value.rank and value.is_static and value.shape[0] == self.loss.batch_size
            if value.op.region != here:
                if batch and value.is_floating and value.op.kind != "read":
                    names = axis_names.default_axes(value.rank)
                    found[value] = Point(value, tuple(name.replace("class", "feature") for name in names))
                continue
            for other in value.op.inputs:
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        return list(reversed(found.values()))

    def _weights(self, branch: Branch) -> list[Point]:
        """The weights that a penalty is computed from."""
        return [
            Point(value, _WEIGHT_AXES[value.rank])
            for op in ancestors([branch.tail.root])
            if op.kind == "read"
            for value in op.outputs
            if value.rank in _WEIGHT_AXES and value.is_floating
        ]

    def terms(self) -> tuple[Term, ...]:
        branches = self.decomposition.branches
        # in a compute_loss of the user's, what is not added may enter in another way: it has no row of its own then
        rewritten = any(branch.own for branch in branches)
        if any(branch.own and not branch.certified for branch in branches):
            loss = self.values[self.loss.root]
            return (Term(self.loss.name, "output", float(loss), 1.0, (_opaque_part(loss, np.ones(()), ()),)),)
        terms, constants = [], []
        for branch in branches:
            if branch.reaches or not rewritten:
                term, constant = self._term(branch, several=len(branches) > 1)
                terms.append(term)
                constants += [constant] if constant is not None else []
        if self.decomposition.constant:
            constants.append(_constant("constant", self.decomposition.constant, 1.0))
        return (*terms, *constants)

    def _term(self, branch: Branch, several: bool) -> tuple[Term, Term | None]:
        """The branch as a term, and its constant, if it has one."""
        zero = branch.zero if branch.certified else np.zeros_like(branch.value)
        value, weight = _value_and_weight(branch, branch.value.astype(np.float64) - zero)
        end = []
        if branch.value.ndim and branch.reaches and not branch.own:
            end.append(self.narrator.last("mean" if branch.kind == "output" else "sum", branch.tail.root))
        if weight != 1.0:
            end.append(Step("multiply", f"× loss weight {show_number(weight)}", (), (), factor=weight))
        if several and branch.reaches:
            end.append(Step("add", "added to the total", (), ()))
        if branch.certified:
            parts = [self._part(branch, *cut, end) for cut in zip(branch.tail.cuts, branch.elements, branch.slopes)]
        else:
            parts = [_opaque_part(branch.value, branch.scale, end)]
        note = "" if branch.reaches else "computed, but it does not reach the total"
        constant = float(np.sum(branch.scale * zero))
        if constant and not branch.tail.cuts and branch.kind != "output":
            parts = [Part((), branch.value, branch.scale * branch.value, "exact", tuple(end), ())]
            value, constant = constant / weight if weight else 0.0, 0.0
        if branch.own:
            value = float(sum(part.contribution for part in parts))
        term = Term(branch.name, branch.kind, value, weight, tuple(parts), note, self._gradient(branch))
        if not constant:
            return term, None
        return term, _constant(f"constant in {branch.name}", constant / weight if weight else 0.0, weight)

    def _part(self, branch: Branch, cut: Cut, elements: np.ndarray, slope: np.ndarray, end: list[Step]) -> Part:
        placement = self.certifiers[branch.name, cut.tensor].of(self.decomposition.leaves, self.values)
        if sum(op.kind == "neg" for op in cut.path) % 2:  # -sum(e) is sum(-e): the loss of an element is what it adds
            elements, slope = 0 - elements, -slope
        slope = np.broadcast_to(slope, elements.shape)
        counts, notes = counted(elements, slope, branch.value), []
        scattered = _scattered(elements, counts, slope, placement)
        if scattered is not None:
            spread, counts, atoms = scattered
            slope = np.ones((), counts.dtype)
        else:
            spread, atoms = axis_names.unfold(elements, placement.dims)
            counts, slope = counts.reshape(spread.shape), slope.reshape(spread.shape)
            (spread, counts, slope), atoms = _in_order([spread, counts, slope], atoms)
        if cut.opaque and atoms and atoms[0].name == "axis0" and atoms[0].size == self.loss.batch_size:
            atoms = (axis_names.Atom("batch", atoms[0].labels), *atoms[1:])
            notes.append("its first axis is taken to be the batch")
        if (where := first_nonfinite(spread)) is not None:
            called = zip(atoms, self._called(branch, atoms), where)
            place = ", ".join(f"{atom.name} {labels[i]}" for atom, labels, i in called) or "the number"
            count = show_number(int(np.sum(~np.isfinite(spread))))
            notes.append(f"{count} of {show_number(spread.size)} element losses are not finite, first at {place}")
        axes = tuple(atom.name for atom in atoms)
        lost = self._lost(branch, axes, placement)
        exactness, why = _exactness(cut, lost, axes, branch.kind, placement)
        steps = [self.narrator.element(axes, spread.shape, elements.shape)]
        sums: dict[str, np.ndarray] = {}
        if exactness == "ratio":
            sums = self._ratio_sums(branch, cut, axes)
            over = ", ".join(lost) or "the elements"
            shape = branch.y_pred.shape if branch.y_pred is not None else ()
            steps.insert(0, Step("ratio", f"quotient of sums over {over}", shape, elements.shape, lost))
        steps += [*self.narrator.road(cut), *end]
        spread, contributions, kept, summed = _shares(spread, counts, slope, axes, self.max_elements)
        atoms = tuple(atom for atom in atoms if atom.name in kept)
        classes, class_axes, class_labels = self._true_class(branch, atoms)
        return Part(
            axes=kept,
            elements=spread,
            contributions=contributions,
            exactness=exactness,
            steps=tuple(steps),
            labels=self._called(branch, atoms),
            true_class=classes,
            true_class_axes=class_axes,
            class_labels=class_labels,
            sums=sums,
            note="; ".join(text for text in (summed, why, *notes) if text),
        )

    def _gradient(self, branch: Branch) -> Part | None:
        """How strongly the loss pulls at each prediction of an output."""
        predictions = self.loss.predictions if branch.own and len(self.loss.predictions) == 1 else [branch.y_pred]
        ref = predictions[0] if branch.kind == "output" and predictions[0] is not None else None
        if ref not in self.decomposition.gradients or ref not in self.named:
            return None
        point, slope = self.decomposition.gradients[ref]
        array, atoms = self.values[slope], [atom for dim in self.named[ref] for atom in dim]
        if array.shape != tuple(atom.size for atom in atoms):
            return None
        names = tuple(atom.name for atom in atoms)
        amounts, kept, note = np.abs(array), names, ""
        if array.size > self.max_elements:
            one = np.ones((), array.dtype)
            array, amounts, kept, note = _shares(array, amounts, one, names, self.max_elements)
        atoms = [atom for atom in atoms if atom.name in kept]
        classes, class_axes, class_labels = self._true_class(branch, atoms)
        what = "predictions" if point == ref else "logits, which the loss reads instead of the predictions"
        return Part(
            axes=kept,
            elements=array,
            contributions=amounts,
            exactness="exact",
            steps=(),
            labels=self._called(branch, atoms),
            true_class=classes,
            true_class_axes=class_axes,
            class_labels=class_labels,
            note="; ".join(text for text in (f"with respect to the {what}", note) if text),
        )

    def _prediction_axes(self, branch: Branch) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for names in self._predicted(branch).values() for name in names))

    def _lost(self, branch: Branch, axes: Sequence[str], placement: Placement) -> tuple[str, ...]:
        """The axes of the predictions along which these elements have no place. Of several outputs, those that they
        depend on count alone."""
        if branch.kind != "output":
            return ()
        predicted = self._predicted(branch)
        seen = {*axes, *placement.mixed}
        involved = [names for names in predicted.values() if len(predicted) < 2 or seen.intersection(names[1:])]
        names = dict.fromkeys(name for names in involved or predicted.values() for name in names)
        return tuple(name for name in names if name not in axes)

    def _ratio_sums(self, branch: Branch, cut: Cut, axes: Sequence[str]) -> dict[str, np.ndarray]:
        """What the ratio is made of: TP, FP and FN where targets and predictions are masks, and its two sides."""
        sums = {}
        target = None if branch.y_true is None else self.decomposition.fed(branch.y_true)
        if target is not None and branch.y_pred is not None:
            target, predicted = np.asarray(target, np.float64), self.values[branch.y_pred].astype(np.float64)
            masks = all(np.all((a >= 0) & (a <= 1)) for a in (target, predicted))
            if target.shape == predicted.shape and masks:
                over = tuple(k for k, name in enumerate(self._prediction_axes(branch)) if name not in axes)
                sums["TP"] = np.sum(target * predicted, axis=over)
                sums["FP"] = np.sum((1 - target) * predicted, axis=over)
                sums["FN"] = np.sum(target * (1 - predicted), axis=over)
        for side, tensor in zip(("numerator", "denominator"), cut.quotient.inputs):
            sums[side] = self.values[tensor].astype(np.float64)
        return sums

    def _called(self, branch: Branch, atoms: Sequence[axis_names.Atom]) -> tuple[tuple[Hashable, ...], ...]:
        """What the positions along each axis are called."""
        names = {
            called: self.labels[prediction][own]
            for prediction, all_called in (self._predicted(branch).items() if branch.kind == "output" else ())
            for own, called in zip(self._names(prediction), all_called)
            if own in self.labels.get(prediction, {})
        }
        return tuple(
            tuple(names[atom.name][i] for i in atom.labels) if atom.name in names else tuple(atom.labels)
            for atom in atoms
        )

    def _true_class(self, branch: Branch, atoms: Sequence[axis_names.Atom]):
        """The true class of each position that these axes keep."""
        nothing = None, (), None
        if branch.y_true is None or branch.y_pred is None:
            return nothing
        dims = self.named.get(branch.y_pred)
        key = branch.y_true, branch.y_pred
        if key not in self.classes:
            target = self.decomposition.fed(branch.y_true)
            if target is None or not dims:
                return nothing
            names = self._names(branch.y_pred)
            axis, shape = axis_names.class_axis(names), branch.y_pred.shape
            called = self.labels.get(branch.y_pred, {}).get(names[axis], range(shape[axis]))
            channels = called if len(dims) > 1 else (0,)
            left = names if len(dims) == 1 else tuple(name for k, name in enumerate(names) if k != axis)
            self.classes[key] = true_classes(np.asarray(target), shape, channels, axis), left
        found, axes = self.classes[key]
        if found is None:
            return nothing
        classes, labels = found
        positions = {atom.name: list(atom.labels) for atom in atoms}
        if not set(axes) <= positions.keys():
            return nothing
        return classes[np.ix_(*(positions[name] for name in axes))], axes, labels

    # -- where names come from ----------------------------------------------------------------------------

    def _known_axes(self, order: list[Op]) -> dict[Value, axis_names.Dims]:
        """Axis names to start from: predictions, their logits, targets, sample weights, layer outputs, weights."""
        loss, known = self.loss, dict(self.named)
        for prediction, logits in loss.logits.items():
            if prediction in known:
                known[logits] = known[prediction]
        beside = ("y_true", "sample_weight", "mask")
        pairs = [(entry.y_pred, getattr(entry, name)) for entry in loss.outputs for name in beside]
        targets = loss.inputs.get("y_true", [])
        if len(loss.predictions) == len(targets) == 1:
            pairs.append((loss.predictions[0], targets[0]))
        for prediction, target in pairs:
            if prediction in known and target is not None and target.shape is not None:
                known.setdefault(target, _align(known[prediction], prediction.shape, target.shape))
        for op in order:
            weights = op.kind == "read"
            for output in op.outputs if weights or op.forward else ():
                if output in known or not output.is_static or not output.shape:
                    continue
                if weights and output.rank in _WEIGHT_AXES:
                    known[output] = axis_names.named(output.shape, _WEIGHT_AXES[output.rank])
                elif not weights and output.shape[0] == loss.batch_size and output.is_floating:
                    names = [n.replace("class", "feature") for n in axis_names.default_axes(output.rank)]
                    known[output] = axis_names.named(output.shape, names)
        return known

    def _sources(self, order: list[Op]) -> dict:
        """In a word, where each independent tensor comes from: sample_weight, mask, y_true, x."""
        words: dict = {}
        for word, fed in self.loss.inputs.items():
            words.update((value, {word}) for value in fed)
        for op in order:
            union = set().union(*(words.get(value, set()) for value in op.inputs))
            for output in op.outputs:
                masks = output.dtype == "bool" and op.forward
                words.setdefault(output, {"mask"} if masks else union)
        return {value: " × ".join(sorted(found, key=_SOURCES.index)) for value, found in words.items()}


def _align(dims: axis_names.Dims, prediction: Sequence, target: Sequence) -> axis_names.Dims:
    """Axis names of targets or weights from those of the predictions they go with."""
    same = (k < len(dims) and size == prediction[k] for k, size in enumerate(target))
    return tuple(dims[k] if fits else () for k, fits in enumerate(same))


def _value_and_weight(branch: Branch, value: np.ndarray) -> tuple[float, float]:
    """Value before the loss weight, and the weight: measured in the graph where the branch is one number."""
    if branch.own:
        return float(np.sum(value)), 1.0
    if not branch.reaches:
        return float(np.mean(value)), 0.0
    if value.ndim == 0:
        return float(value), float(branch.scale)
    total = float(np.sum(branch.scale * value))
    if branch.kind == "output":  # reduction=None: the progress bar shows the mean of the vector
        return total / (branch.declared_weight or 1.0), branch.declared_weight
    return total, 1.0


def _shares(elements: np.ndarray, counts: np.ndarray, slope: np.ndarray, axes: tuple[str, ...], limit: int):
    """Element losses and their shares in float64, summed over the largest axes if there are too many to keep."""
    if elements.size <= limit:
        return elements.astype(np.float64), _product(counts, slope), axes, ""
    sizes = dict(zip(axes, elements.shape))
    dropped: list[str] = []
    while sizes and math.prod(sizes.values()) > limit:
        largest = max(sizes, key=lambda name: (sizes[name], name not in ("batch", "class")))
        dropped.append(largest)
        del sizes[largest]
    kept = tuple(name for name in axes if name in sizes)
    every = list(range(len(axes)))
    left = [axes.index(name) for name in kept]
    shares = np.einsum(counts, every, np.broadcast_to(slope, counts.shape), every, left, dtype=np.float64)
    summed = np.einsum(elements, every, left, dtype=np.float64)
    note = (
        f"summed over {', '.join(dropped)}: {show_number(elements.size)} elements are more than "
        f"max_elements={show_number(limit)}"
    )
    return np.asarray(summed), np.asarray(shares), kept, note


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a * b in float64, which holds every product of two smaller numbers exactly."""
    product = a.astype(np.float64)
    product *= b
    return product


def _in_order(arrays: list[np.ndarray], atoms: Sequence[axis_names.Atom]):
    """Arrays and axes with positions in ascending order, and what belongs to one position added up: a loss may turn
    an axis round, roll it, or take a position twice. The slope (the last array) goes with its elements."""
    atoms = list(atoms)
    for k, atom in enumerate(atoms):
        labels = np.asarray(atom.labels)
        if labels.dtype.kind != "i" or (labels[1:] > labels[:-1]).all():
            continue
        order = np.argsort(labels, kind="stable")
        arrays = [np.take(array, order, axis=k) for array in arrays]
        places, starts = np.unique(labels[order], return_index=True)
        if len(places) < len(labels):
            elements, counts, slope = arrays
            shares = np.add.reduceat(counts.astype(np.float64) * slope, starts, axis=k)
            arrays = [np.add.reduceat(elements, starts, axis=k), shares, np.ones_like(shares)]
        atoms[k] = axis_names.Atom(atom.name, tuple(places.tolist()))
    return arrays, tuple(atoms)


def _scattered(elements: np.ndarray, counts: np.ndarray, slope: np.ndarray, placement: Placement):
    """Elements and shares filed under the positions of the proven axes, where some of those lie along no axis of the
    elements. None where none does, of those that have a position for every share."""
    shares = _product(counts, slope)
    places = {name: place for name, place in placement.spread.items() if not shares[place < 0].any()}
    if places.keys() <= {atom.name for dim in placement.dims for atom in dim}:
        return None
    shape = tuple(placement.sizes[name] for name in places)
    index = np.stack([place.ravel() for place in places.values()])
    seen = (index >= 0).all(axis=0)
    filed = [np.zeros(shape), np.zeros(shape)]
    for array, total in zip((elements, shares), filed):
        np.add.at(total, tuple(index[:, seen]), array.ravel()[seen].astype(np.float64))
    return (*filed, tuple(axis_names.Atom(name, tuple(range(placement.sizes[name]))) for name in places))


def _exactness(cut: Cut, lost: Sequence[str], axes: Sequence[str], kind: str, placement: Placement) -> tuple[str, str]:
    """ "exact", "ratio" or "opaque", and why."""
    if cut.opaque is not None:
        return "opaque", f"{cut.opaque} cannot be read"
    if kind != "output" or not lost or not placement.depends:
        return "exact", ""
    if cut.quotient is not None:
        return "ratio", f"a quotient of sums over {', '.join(lost)}: no share exists along them"
    if not axes:
        return "opaque", f"{cut.curved or 'a nonlinear step'} comes after the sums: no shares exist below this number"
    unproven = [name for name in lost if name not in placement.mixed]
    reasons = []
    if mixed := [name for name in lost if name in placement.mixed]:
        reasons.append(
            f"no shares along {', '.join(mixed)}: an element loss depends on the predictions at several positions there"
        )
    if unproven:
        reasons.append(f"no shares along {', '.join(unproven)}: where the element losses belong there is not proven")
    return "exact", "; ".join(reasons)


def _opaque_part(value: np.ndarray, scale: np.ndarray, end: Sequence[Step]) -> Part:
    step = Step("opaque", "this part of the graph could not be certified as linear, so it is not taken apart", (), ())
    share = np.asarray(np.sum(scale * value.astype(np.float64)))
    note = "not certified"
    if not np.all(np.isfinite(value)):
        note += ": it is not finite though no element loss is (a mean over nothing, or too large a sum)"
    return Part((), np.asarray(np.sum(value)), share, "opaque", (step, *end), (), note=note)


def _constant(name: str, value: float, weight: float) -> Term:
    step = Step("constant", "no small change of a prediction or a weight changes it", (), ())
    part = Part((), np.asarray(value), np.asarray(value * weight), "exact", (step,), ())
    return Term(name, "constant", value, weight, (part,))
