"""From a traced loss to terms: cut the graph, run it once, prove that the cut adds up, name everything."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from lossviz import _keras, graph
from lossviz import axes as axis_names
from lossviz.report import Part, Step, Term
from lossviz.steps import Narrator, show_number

#: How far a certified tail may be off, relative to the sum of absolute shares; nonlinearity is far beyond it.
_CERTIFICATE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.1, "float16": 2e-2}

_WEIGHT_AXES = {1: ("out",), 2: ("in", "out"), 3: ("step", "in", "out"), 4: ("row", "col", "in", "out")}


@dataclass
class Traced:
    """A loss in a graph, with everything known about where its tensors come from."""

    trace: graph.Trace
    root: tf.Tensor
    leaves: list[np.ndarray]
    recorder: _keras.Recorder
    predictions: list[tf.Tensor]
    prediction_names: list[str]
    inputs: dict[str, list[tf.Tensor]]  # "x", "y_true", "sample_weight": their placeholders
    trainable: list[tf.Tensor] = field(default_factory=list)  # handles of the trainable weights
    name: str = "compute_loss"  # what a loss is called that Keras did not compute per output
    batch_size: int | None = None

    def run(self, fetches: Sequence[tf.Tensor]) -> list[np.ndarray]:
        return self.trace.run(fetches, self.trace.feeds, self.leaves)

    def value_of(self, placeholder: tf.Tensor) -> np.ndarray | None:
        for feed, leaf in zip(self.trace.feeds, self.leaves):
            if feed is placeholder:
                return leaf
        return None


@dataclass(eq=False)
class _Branch:
    """One summand of the root: where it starts, how it is cut, and (after the run) its numbers."""

    name: str
    kind: str
    tail: graph.Tail
    scale: tf.Tensor | None = None  # gradient of the root with respect to this branch's root
    grads: list[tf.Tensor] = field(default_factory=list)
    y_true: tf.Tensor | None = None
    y_pred: tf.Tensor | None = None
    declared_weight: float = 1.0
    note: str = ""
    own: bool = False  # the rest of the whole loss: what no recorded term accounts for


def decompose(
    traced: Traced,
    axes: dict[str, Sequence[str]],
    class_names: dict[str, Sequence[Hashable]],
    max_elements: int,
) -> list[Term]:
    """All terms of the loss; their contributions sum to it. `axes` and `class_names` go by output name."""
    return _Decomposition(traced, axes, class_names, max_elements).terms()


class _Decomposition:
    def __init__(self, traced: Traced, axes, class_names, max_elements):
        self.traced, self.max_elements, self.class_names = traced, max_elements, class_names
        self.graph = traced.trace.graph
        self.named = {
            tensor.ref(): axis_names.named(
                tensor.shape.as_list(), axes[name], {axes[name][-1]: class_names[name]} if name in class_names else None
            )
            for name, tensor in zip(traced.prediction_names, traced.predictions)
            if name in axes
        }
        self.branches = self._branch()
        self._differentiate()
        self._run()

    # -- cutting ------------------------------------------------------------------------------------------

    def _branch(self) -> list[_Branch]:
        traced, forward = self.traced, self.traced.trace.forward
        outputs, added = traced.recorder.outputs, traced.recorder.added
        marks = [entry["value"] for entry in [*outputs, *added]]
        roots = [traced.root, *marks]
        logits = [_keras.logits_of(tensor) for tensor in traced.predictions]
        sources = [t for t in (*traced.predictions, *logits, *traced.trainable) if t is not None]
        reader = graph.Reader(roots, sources, forward)
        captured = [inner for _, inner in self.graph.captures]
        everything = graph.Reader(roots, [*sources, *traced.inputs.get("x", []), *captured], forward)
        self.order = reader.order
        self.top = graph.Reader(roots, [*sources, *marks], forward).find_tail(traced.root, stops=marks)

        branches, names = [], {}
        for entry in outputs:
            name = _unique(entry["name"], names)
            tail = reader.find_tail(entry["value"])
            weight = float(keras_value(entry["loss_weight"]))
            branch = _Branch(name, "output", tail, None, [], entry["y_true"], entry["y_pred"], weight)
            branches.append(branch)
        outputs_named = {branch.name for branch in branches}
        for entry in added:
            inside = reader if entry["value"].ref() in reader.depends else everything
            tail = inside.find_tail(entry["value"], bounded=False)
            name = entry["name"] if entry["name"] not in outputs_named else f"{entry['name']}/add_loss"
            branches.append(_Branch(_unique(name, names), entry["kind"], tail))
        own = tuple(cut for cut in self.top.cuts if not any(cut.tensor is mark for mark in marks))
        if own or not branches:
            tail = graph.Tail(traced.root, own, self.top.frontier, False)
            branches.append(_Branch(_unique(traced.name, names), "output", tail, own=True))
        return branches

    def _differentiate(self) -> None:
        reached = [cut.tensor for cut in self.top.cuts]
        grads = dict(zip([t.ref() for t in reached], graph.gradients(self.graph, self.traced.root, reached)))
        for branch in self.branches:
            root = branch.tail.root
            cuts = [cut.tensor for cut in branch.tail.cuts]
            if branch.own:
                branch.grads = [grads[tensor.ref()] for tensor in cuts]
            elif root.ref() in grads:
                branch.scale = grads[root.ref()]
                branch.grads = graph.gradients(self.graph, root, cuts, seed=branch.scale)
            else:
                branch.note = "computed, but it does not reach the total"

    # -- running ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        fetches = {self.traced.root.ref(): self.traced.root}

        def want(*tensors):
            fetches.update((t.ref(), t) for t in tensors if t is not None and t.dtype not in (tf.resource, tf.variant))

        self.measured_shapes: dict = {}
        want(*self.top.frontier)
        for branch in self.branches:
            want(branch.tail.root, branch.scale, *branch.grads, *branch.tail.frontier)
            for cut in branch.tail.cuts:
                want(cut.tensor)
                if cut.quotient is not None:
                    want(*cut.quotient.inputs)
                    want(branch.y_pred if branch.y_pred is not None else None)
                for tensor in [cut.tensor, *(out for operation in cut.path for out in operation.outputs)]:
                    if not tensor.shape.is_fully_defined() and tensor.ref() not in self.measured_shapes:
                        with self.graph.as_default():
                            self.measured_shapes[tensor.ref()] = tf.shape(tensor)
        want(*self.measured_shapes.values())
        results = self.traced.run(list(fetches.values()))
        self.values = dict(zip(fetches, results))
        self.shapes = {ref: tuple(self.values[t.ref()].tolist()) for ref, t in self.measured_shapes.items()}

    def value(self, tensor: tf.Tensor) -> np.ndarray:
        return self.values[tensor.ref()]

    # -- certifying ---------------------------------------------------------------------------------------

    def _at(self, tail: graph.Tail, elements: list[np.ndarray], fetch: tf.Tensor) -> np.ndarray:
        """The value of `fetch` with the tail run on other element losses."""
        fixed = [t for t in tail.frontier if t.op.type != "Const" and t.ref() in self.values]
        feeds = [*(cut.tensor for cut in tail.cuts), *fixed]
        values = [*elements, *(self.value(t) for t in fixed)]
        return self.traced.trace.run([fetch], feeds, values)[0]

    def _certify(self, tail: graph.Tail, grads: list[np.ndarray], scale: np.ndarray) -> tuple[bool, np.ndarray]:
        """Is the tail affine with these gradients? Returns that, and its value at zero (its constant).

        It is run on zeros and on arbitrary numbers, and must give what the gradients predict; on the real
        element losses it must give the value of the root.
        """
        root = self.value(tail.root)
        if not tail.cuts:
            return True, root
        elements = [self.value(cut.tensor) for cut in tail.cuts]
        zero = np.zeros_like(root)
        if tail.has_constant:
            zero = self._at(tail, [np.zeros_like(e) for e in elements], tail.root)
        rng = np.random.default_rng(0)
        probes = [rng.uniform(0.5, 1.5, e.shape).astype(e.dtype) for e in elements]
        slack = _CERTIFICATE.get(tail.root.dtype.name, 1e-4)
        pairs = [(probes, self._at(tail, probes, tail.root))]
        if all(np.all(np.isfinite(e)) for e in elements):
            pairs.append((elements, root))
        for point, found in pairs:
            shares = [p.astype(np.float64) * g.astype(np.float64) for p, g in zip(point, grads)]
            expected = sum(float(np.sum(s)) for s in shares) + float(np.sum(scale * zero.astype(np.float64)))
            reality = float(np.sum(scale * found.astype(np.float64)))
            size = sum(float(np.sum(np.abs(s))) for s in shares) + abs(expected)
            judged = math.isfinite(expected) and (math.isfinite(reality) or point is elements)
            if judged and not abs(expected - reality) <= slack * size:  # also where only the reality is NaN
                return False, zero
        return True, zero

    # -- writing ------------------------------------------------------------------------------------------

    def terms(self) -> list[Term]:
        known = self._known_axes()
        tensors = [
            self.traced.root,
            *(t for b in self.branches for t in (b.tail.root, *(c.tensor for c in b.tail.cuts))),
        ]
        order = graph.ancestors(tensors)
        self.dims = axis_names.propagate(order, known)
        self.narrator = Narrator(self.dims, self.values, self.shapes, self._sources(order))
        several = len(self.branches) > 1
        terms: list[Term] = []
        constants: list[Term] = []
        rewritten = any(branch.own for branch in self.branches)  # then what does not add to it enters it otherwise
        for branch in self.branches:
            if not (rewritten and branch.note):
                terms.append(self._term(branch, several, constants))
        if self.top.has_constant:
            at_zero = float(
                self._at(self.top, [np.zeros_like(self.value(c.tensor)) for c in self.top.cuts], self.traced.root)
            )
            if at_zero:
                constants.append(_constant("constant", at_zero, 1.0))
        return [*terms, *constants]

    def _term(self, branch: _Branch, several: bool, constants: list[Term]) -> Term:
        tail = branch.tail
        root = self.value(tail.root).astype(np.float64)
        own = branch.own
        scale = np.ones(()) if own else np.zeros_like(root)
        if branch.scale is not None:
            scale = self.value(branch.scale).astype(np.float64)
        grads = [self.value(g) for g in branch.grads] or [np.zeros_like(self.value(c.tensor)) for c in tail.cuts]
        if own:
            certified, zero = self._certify_own(tail, grads)
        else:
            certified, zero = self._certify(tail, grads, scale)
        value, weight = _value_and_weight(branch, root - zero, scale, own)
        end = []
        if weight != 1.0:
            end.append(Step("multiply", f"× loss weight {show_number(weight)}", (), (), factor=weight))
        if several and not branch.note:
            end.append(Step("add", "added to the total", (), ()))
        if certified:
            parts = [self._part(branch, cut, grad, end) for cut, grad in zip(tail.cuts, grads)]
        else:
            parts = [_opaque_part(root, scale, end)]
            zero = np.zeros_like(root)
        constant = float(np.sum(scale * zero)) if not own else 0.0
        if constant and tail.cuts:
            constants.append(_constant(f"constant in {branch.name}", constant / weight if weight else 0.0, weight))
        elif constant:
            if branch.kind == "output":
                constants.append(_constant(f"constant in {branch.name}", constant / weight if weight else 0.0, weight))
                value = 0.0
            else:
                parts = [Part((), root, scale * root, "exact", tuple(end), ())]
                value = constant / weight if weight else 0.0
        if own:
            value = float(sum(part.contribution for part in parts))
        return Term(branch.name, branch.kind, value, weight, tuple(parts), branch.note)

    def _certify_own(self, tail: graph.Tail, grads: list[np.ndarray]) -> tuple[bool, np.ndarray]:
        """For a loss that was not computed per output: the whole root is affine in its cuts and in the other terms."""
        others = [cut for cut in self.top.cuts if not any(cut is mine for mine in tail.cuts)]
        marks = [branch for branch in self.branches for cut in others if cut.tensor is branch.tail.root]
        scales = [self.value(branch.scale) for branch in marks]
        whole = graph.Tail(self.top.root, (*tail.cuts, *others), self.top.frontier, self.top.has_constant)
        return self._certify(whole, [*grads, *scales], np.ones(()))

    def _part(self, branch: _Branch, cut: graph.Cut, grad: np.ndarray, end: list[Step]) -> Part:
        elements = self.value(cut.tensor)
        dims = self.dims.get(cut.tensor.ref())
        spread, atoms = axis_names.unfold(elements, dims)
        guess = bad = ""
        if (where := first_nonfinite(spread)) is not None:
            place = ", ".join(f"{atom.name} {atom.labels[i]}" for atom, i in zip(atoms, where))
            count = show_number(int(np.sum(~np.isfinite(spread))))
            bad = (
                f"{count} of {show_number(spread.size)} element losses are not finite, first at {place or 'the number'}"
            )
        if cut.opaque and atoms and atoms[0].name == "axis0" and atoms[0].size == self.traced.batch_size:
            atoms = (axis_names.Atom("batch", atoms[0].labels), *atoms[1:])
            guess = "its first axis is taken to be the batch"
        grad = grad.reshape(spread.shape)
        axes = tuple(atom.name for atom in atoms)
        spread, contributions, kept, note = _shares(spread, grad, axes, self.max_elements)
        atoms = tuple(atom for atom in atoms if atom.name in kept)
        lost = self._lost_axes(branch, axes)
        exactness, why = _exactness(cut, lost, axes, branch.kind)
        steps = [self.narrator.element(axes, grad.shape, elements.shape)]
        sums: dict[str, np.ndarray] = {}
        if exactness == "ratio":
            sums = self._ratio_sums(branch, cut, axes)
            over = ", ".join(lost) or "the elements"
            shape = tuple(branch.y_pred.shape.as_list()) if branch.y_pred is not None else ()
            steps.insert(0, Step("ratio", f"quotient of sums over {over}", shape, elements.shape, lost))
        steps += [*self.narrator.road(cut), *end]
        true_class, class_axes, class_labels = self._true_class(branch, contributions, kept)
        return Part(
            axes=kept,
            elements=spread,
            contributions=contributions,
            exactness=exactness,
            steps=tuple(steps),
            labels=tuple(tuple(atom.labels) for atom in atoms),
            true_class=true_class,
            true_class_axes=class_axes,
            class_labels=class_labels,
            sums=sums,
            note="; ".join(text for text in (note, why, guess, bad) if text),
        )

    def _prediction_axes(self, branch: _Branch) -> tuple[str, ...]:
        predictions = [branch.y_pred] if branch.y_pred is not None else self.traced.predictions
        dims = self.named.get(predictions[0].ref(), ()) if predictions else ()
        return tuple(atom.name for dim in dims for atom in dim)

    def _lost_axes(self, branch: _Branch, axes: Sequence[str]) -> tuple[str, ...]:
        return () if branch.kind != "output" else tuple(n for n in self._prediction_axes(branch) if n not in axes)

    def _ratio_sums(self, branch: _Branch, cut: graph.Cut, axes: Sequence[str]) -> dict[str, np.ndarray]:
        sums = {}
        target = None if branch.y_true is None else self.traced.value_of(branch.y_true)
        if target is not None and branch.y_pred is not None:
            predicted = self.value(branch.y_pred).astype(np.float64)
            target = np.asarray(target, np.float64)
            in_range = all(np.all((a >= 0) & (a <= 1)) for a in (target, predicted))
            if target.shape == predicted.shape and in_range:
                have = self._prediction_axes(branch)
                over = tuple(k for k, name in enumerate(have) if name not in axes)
                sums["TP"] = np.sum(target * predicted, axis=over)
                sums["FP"] = np.sum((1 - target) * predicted, axis=over)
                sums["FN"] = np.sum(target * (1 - predicted), axis=over)
        sums["numerator"], sums["denominator"] = (
            self.value(tensor).astype(np.float64) for tensor in cut.quotient.inputs
        )
        return sums

    def _true_class(self, branch: _Branch, contributions: np.ndarray, kept: tuple[str, ...]):
        nothing = None, (), None
        if branch.y_true is None or branch.y_pred is None:
            return nothing
        target = self.traced.value_of(branch.y_true)
        dims = self.named.get(branch.y_pred.ref())
        if target is None or dims is None:
            return nothing
        shape = tuple(branch.y_pred.shape.as_list())
        channels = [dim[0].labels for dim in dims][-1] if dims else ()
        found = true_classes(np.asarray(target), shape, channels if len(shape) > 1 else (0,))
        if found is None:
            return nothing
        classes, labels = found
        axes = tuple(atom.name for dim in dims[: classes.ndim] for atom in dim)
        if not set(axes) <= set(kept) or classes.shape != tuple(contributions.shape[kept.index(n)] for n in axes):
            return nothing
        return classes, axes, labels

    # -- names --------------------------------------------------------------------------------------------

    def _known_axes(self) -> dict:
        """Axis names to start from: predictions, their logits, targets, inputs, layer outputs, weights."""
        traced = self.traced
        known = dict(self.named)
        for tensor in traced.predictions:
            logits = _keras.logits_of(tensor)
            if logits is not None and tensor.ref() in known:
                known[logits.ref()] = known[tensor.ref()]
        for entry in traced.recorder.outputs:
            dims = self.named.get(entry["y_pred"].ref())
            target = entry["y_true"]
            if dims is not None and hasattr(target, "shape"):
                known.setdefault(target.ref(), _align(dims, entry["y_pred"].shape, target.shape))
        if len(traced.predictions) == 1 and len(traced.inputs.get("y_true", [])) == 1:
            prediction, target = traced.predictions[0], traced.inputs["y_true"][0]
            if prediction.ref() in known:
                known.setdefault(target.ref(), _align(known[prediction.ref()], prediction.shape, target.shape))
        for operation in self.graph.get_operations():
            weights = operation.type == "ReadVariableOp"
            if not weights and operation.name not in traced.trace.forward:
                continue
            for output in operation.outputs:
                if output.ref() in known or not output.shape.is_fully_defined() or not output.shape.rank:
                    continue
                shape = output.shape.as_list()
                if weights and len(shape) in _WEIGHT_AXES:
                    known[output.ref()] = axis_names.named(shape, _WEIGHT_AXES[len(shape)])
                elif not weights and shape[0] == traced.batch_size and output.dtype.is_floating:
                    names = [n.replace("class", "feature") for n in axis_names.default_axes(len(shape))]
                    known[output.ref()] = axis_names.named(shape, names)
        return known

    def _sources(self, order: list[tf.Operation]) -> dict:
        """In a word, where each independent tensor comes from: sample_weight, mask, y_true, x."""
        colours: dict = {}
        for word, placeholders in self.traced.inputs.items():
            colours.update((tensor.ref(), {word}) for tensor in placeholders)
        for operation in order:
            union = set().union(*(colours.get(tensor.ref(), set()) for tensor in operation.inputs))
            for output in operation.outputs:
                masks = output.dtype == tf.bool and operation.name in self.traced.trace.forward
                colours.setdefault(output.ref(), {"mask"} if masks else union)
        rank = ["sample_weight", "class_weight", "mask", "y_true", "x"]
        return {
            ref: " × ".join(sorted(words, key=lambda w: rank.index(w) if w in rank else 9))
            for ref, words in colours.items()
        }


def true_classes(target: np.ndarray, shape: tuple[int, ...], channels: Sequence[Hashable]):
    """The true class of each position, and what the classes are called; None where targets are not classes.

    Args:
        target: y_true. `shape`: the shape of the predictions. `channels`: what their last axis is called.

    Returns:
        `(classes, labels)`: an integer array without the class axis (or of the predictions' shape, for one
        0/1 column), and the labels of its values. A position without a class (an all-zero row, a label
        outside the range such as an ignored one) has the last label, "(no class)".
    """
    count = len(channels)
    if not np.all(np.isfinite(np.asarray(target, np.float64))):
        return None
    if target.shape == shape and count > 1 and len(shape) > 1:
        if not (np.all((target == 0) | (target == 1)) or _rows_are_distributions(target)):
            return None
        return _with_rest(np.argmax(target, axis=-1), np.max(target, axis=-1) > 0, channels)
    if count == 1 and math.prod(target.shape) == math.prod(shape):
        if not np.all((target == 0) | (target == 1)):
            return None
        return target.reshape(shape[:-1] if len(shape) > 1 else shape).astype(int), (0, 1)
    if target.shape in (shape[:-1], (*shape[:-1], 1)) and np.all(target == np.round(target)):
        classes = target.reshape(shape[:-1]).astype(int)
        return _with_rest(classes, (classes >= 0) & (classes < count), channels)
    return None


def _with_rest(classes: np.ndarray, known: np.ndarray, channels: Sequence[Hashable]):
    if np.all(known):
        return classes, tuple(channels)
    return np.where(known, classes, len(channels)), (*channels, "(no class)")


def first_nonfinite(array: np.ndarray | None) -> tuple[int, ...] | None:
    """Index of the first NaN or infinity, or None."""
    if array is None or array.dtype.kind not in "fc":
        return None
    bad = ~np.isfinite(array)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(bad)), bad.shape)) if bad.any() else None


def keras_value(weight) -> float:
    """A number, or the number in a Keras or TensorFlow variable."""
    return weight.numpy() if hasattr(weight, "numpy") else weight


def _rows_are_distributions(target: np.ndarray) -> bool:
    return bool(np.all(target >= 0) and np.allclose(np.sum(target, axis=-1), 1, atol=1e-3))


def _align(dims, prediction: tf.TensorShape, target: tf.TensorShape):
    """Axis names of targets from those of the predictions they go with."""
    rank = target.rank
    return tuple(dims[k] if k < len(dims) and target[k] == prediction[k] else () for k in range(rank))


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}_{used[name]}"


def _value_and_weight(branch: _Branch, value: np.ndarray, scale: np.ndarray, own: bool) -> tuple[float, float]:
    """Value before the loss weight, and the weight: measured in the graph where the branch is a number."""
    if own:
        return float(np.sum(value)), 1.0
    if branch.note:
        return float(np.mean(value)), 0.0
    if value.ndim == 0:
        return float(value), float(scale)
    if branch.kind == "output":  # reduction=None: the progress bar shows the mean of the vector
        return float(np.sum(scale * value)) / (branch.declared_weight or 1.0), branch.declared_weight
    return float(np.sum(scale * value)), 1.0


def _shares(elements: np.ndarray, grad: np.ndarray, axes: tuple[str, ...], limit: int):
    """Element losses and their shares in float64, summed over the largest axes if there are too many to keep."""
    if elements.size <= limit:
        elements = elements.astype(np.float64)
        return elements, elements * grad.astype(np.float64), axes, ""
    sizes = dict(zip(axes, elements.shape))
    dropped: list[str] = []
    while math.prod(sizes.values()) > limit and sizes:
        largest = max(sizes, key=lambda name: (sizes[name], name not in ("batch", "class")))
        dropped.append(largest)
        del sizes[largest]
    kept = tuple(name for name in axes if name in sizes)
    letters = list(range(len(axes)))
    out = [letters[axes.index(name)] for name in kept]
    shares = np.einsum(elements, letters, grad, letters, out, dtype=np.float64)
    summed = np.einsum(elements, letters, out, dtype=np.float64)
    note = (
        f"summed over {', '.join(dropped)}: {show_number(elements.size)} elements are more than "
        f"max_elements={show_number(limit)}"
    )
    return np.asarray(summed), np.asarray(shares), kept, note


def _exactness(cut: graph.Cut, lost: Sequence[str], axes: Sequence[str], kind: str) -> tuple[str, str]:
    """ "exact", "ratio" or "opaque", and why."""
    if cut.opaque is not None:
        return "opaque", f"{cut.opaque} cannot be read"
    if kind == "output" and lost and cut.quotient is not None:
        return "ratio", f"a quotient of sums over {', '.join(lost)}: no share exists along them"
    if kind == "output" and lost and not axes:
        return "opaque", f"{cut.curved or 'a nonlinear step'} comes after the sums: no shares exist below this number"
    if kind == "output" and lost:
        return "exact", f"no shares along {', '.join(lost)}: the loss uses it up before its sums"
    return "exact", ""


def _opaque_part(root: np.ndarray, scale: np.ndarray, end: list[Step]) -> Part:
    step = Step("opaque", "this part of the graph could not be certified as linear, so it is not taken apart", (), ())
    contributions = np.asarray(np.sum(scale * root))
    note = "not certified"
    if not np.all(np.isfinite(root)):
        note += ": it is not finite though no element loss is (a mean over nothing, or too large a sum)"
    return Part((), np.asarray(np.sum(root)), contributions, "opaque", (step, *end), (), note=note)


def _constant(name: str, value: float, weight: float) -> Term:
    step = Step("constant", "no small change of a prediction or a weight changes it", (), ())
    part = Part((), np.asarray(value), np.asarray(value * weight), "exact", (step,), ())
    return Term(name, "constant", value, weight, (part,))
