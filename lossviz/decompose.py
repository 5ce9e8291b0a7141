"""From a traced loss to numbers: cut the graph into branches, run it once, and prove that they add up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf

from lossviz import _keras, graph

#: How far a certified tail may be off, relative to the sum of absolute shares; nonlinearity is far beyond it.
_CERTIFICATE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.1, "float16": 2e-2}

#: Lower ends of the arbitrary numbers (the upper end is 1.5): a fold at 0 shows between both signs, one behind a sum
#: where all have the same.
_PROBES = (0.5, -1.5)


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
        return next((leaf for feed, leaf in zip(self.trace.feeds, self.leaves) if feed is placeholder), None)


@dataclass(eq=False)
class Branch:
    """One summand of the loss: how it was cut out of the graph, and its numbers.

    `value` is the tensor that Keras adds (often one number) and `scale` the gradient of the loss with respect to
    it. `elements` are the values of its cuts, `slopes` the gradients of the loss with respect to those, `zero`
    its value with all elements at zero. Where `certified` is False the cuts are not to be trusted.
    """

    name: str
    kind: str  # "output", "add_loss" or "regulariser"
    tail: graph.Tail
    y_true: tf.Tensor | None = None
    y_pred: tf.Tensor | None = None
    declared_weight: float = 1.0
    own: bool = False  # what no recorded term accounts for: a compute_loss of the user's
    reaches: bool = True  # False: computed, and then not part of the total
    scale_tensor: tf.Tensor | None = None
    slope_tensors: list[tf.Tensor] = field(default_factory=list)
    value: np.ndarray = field(default_factory=lambda: np.zeros(()))
    scale: np.ndarray = field(default_factory=lambda: np.ones(()))
    zero: np.ndarray = field(default_factory=lambda: np.zeros(()))
    elements: list[np.ndarray] = field(default_factory=list)
    slopes: list[np.ndarray] = field(default_factory=list)
    certified: bool = True


@dataclass
class Decomposition:
    """The branches, the constant that is added to all of them, and what every tensor they need was."""

    traced: Traced
    branches: list[Branch]
    constant: float
    values: dict  # tensor reference -> array
    shapes: dict  # tensor reference -> shape, where it is not known before the graph runs


def decompose(traced: Traced) -> Decomposition:
    """Cut, differentiate, run once, certify."""
    top, branches = _cut(traced)
    _differentiate(traced, top, branches)
    values, shapes = _run(traced, top, branches)
    for branch in branches:
        branch.value = values[branch.tail.root.ref()]
        branch.elements = [values[cut.tensor.ref()] for cut in branch.tail.cuts]
        if branch.scale_tensor is not None:
            branch.scale = values[branch.scale_tensor.ref()].astype(np.float64)
        elif not branch.own:
            branch.scale = np.zeros(branch.value.shape)
        branch.slopes = [values[slope.ref()] for slope in branch.slope_tensors]
        branch.slopes = branch.slopes or [np.zeros_like(e) for e in branch.elements]
    constant = _certify(traced, top, branches, values)
    return Decomposition(traced, branches, constant, values, shapes)


# -- cutting ----------------------------------------------------------------------------------------------


def _cut(traced: Traced) -> tuple[graph.Tail, list[Branch]]:
    """The top of the loss, down to the terms that Keras adds, and each of those down to its element losses."""
    forward = traced.trace.forward
    outputs, added = traced.recorder.outputs, traced.recorder.added
    marks = [entry["value"] for entry in [*outputs, *added]]
    roots = [traced.root, *marks]
    logits = [_keras.logits_of(tensor) for tensor in traced.predictions]
    sources = [t for t in (*traced.predictions, *logits, *traced.trainable) if t is not None]
    words = ("sample_weight", "class_weight", "mask")
    weights = [tensor for word in words for tensor in traced.inputs.get(word, [])]
    reader = graph.Reader(roots, sources, forward, weights)
    # a term may depend on none of these (on an input, on a frozen weight): then on anything at all
    captured = [inner for _, inner in traced.trace.graph.captures]
    everything = graph.Reader(roots, [*sources, *traced.inputs.get("x", []), *captured], forward)
    top = graph.Reader(roots, [*sources, *marks], forward, weights).find_tail(traced.root, stops=marks)

    names: dict[str, int] = {}
    branches = []
    for entry in outputs:
        weight = float(_number(entry["loss_weight"]))
        tail = reader.find_tail(entry["value"])
        name = _unique(entry["name"], names)
        branches.append(Branch(name, "output", tail, entry["y_true"], entry["y_pred"], weight))
    taken = set(names)
    for entry in added:
        inside = reader if entry["value"].ref() in reader.depends else everything
        name = entry["name"] if entry["name"] not in taken else f"{entry['name']}/add_loss"
        branches.append(Branch(_unique(name, names), entry["kind"], inside.find_tail(entry["value"], bounded=False)))
    own = tuple(cut for cut in top.cuts if not any(cut.tensor is mark for mark in marks))
    if own or not branches:
        tail = graph.Tail(traced.root, own, top.frontier, False, top.inside)
        branches.append(Branch(_unique(traced.name, names), "output", tail, own=True))
    return top, branches


def _differentiate(traced: Traced, top: graph.Tail, branches: list[Branch]) -> None:
    reached = [cut.tensor for cut in top.cuts]
    slopes = dict(zip([t.ref() for t in reached], graph.gradients(traced.trace.graph, traced.root, reached)))
    for branch in branches:
        root, cuts = branch.tail.root, [cut.tensor for cut in branch.tail.cuts]
        if branch.own:
            branch.slope_tensors = [slopes[tensor.ref()] for tensor in cuts]
        elif root.ref() in slopes:
            branch.scale_tensor = slopes[root.ref()]
            branch.slope_tensors = graph.gradients(traced.trace.graph, root, cuts, seed=branch.scale_tensor)
        else:
            branch.reaches = False


# -- running ----------------------------------------------------------------------------------------------


def _run(traced: Traced, top: graph.Tail, branches: list[Branch]) -> tuple[dict, dict]:
    """Everything that is needed of the graph, in one run: one forward pass, one draw of random numbers."""
    wanted = [traced.root, *top.frontier]
    for branch in branches:
        wanted += [branch.tail.root, branch.scale_tensor, *branch.slope_tensors, *branch.tail.frontier]
        for cut in branch.tail.cuts:
            wanted.append(cut.tensor)
            if cut.quotient is not None:
                wanted += [*cut.quotient.inputs, branch.y_pred]
    on_roads = [out for b in branches for cut in b.tail.cuts for step in cut.path for out in step.outputs]
    unknown = {t.ref(): t for t in [*wanted, *on_roads] if t is not None and not t.shape.is_fully_defined()}
    with traced.trace.graph.as_default():
        measured = {ref: tf.shape(tensor) for ref, tensor in unknown.items()}
    fetches = {
        tensor.ref(): tensor
        for tensor in [*wanted, *measured.values()]
        if tensor is not None and tensor.dtype not in (tf.resource, tf.variant)
    }
    values = dict(zip(fetches, traced.run(list(fetches.values()))))
    return values, {ref: tuple(values[shape.ref()].tolist()) for ref, shape in measured.items()}


# -- certifying -------------------------------------------------------------------------------------------


def _certify(traced: Traced, top: graph.Tail, branches: list[Branch], values: dict) -> float:
    """Prove each branch affine in its element losses, and the loss in the branches; returns the loss's constant.

    Each is run on zeros and on arbitrary numbers and must give what the gradients predict; on the real element
    losses it must give its value. Euler's identity alone (the shares sum to the value) has false positives.
    """
    rng = np.random.default_rng(0)
    plain = [branch for branch in branches if not branch.own and branch.tail.cuts]
    zeros = [[np.zeros_like(e) for e in branch.elements] for branch in plain]
    tails = [branch.tail for branch in plain]
    constants = iter(_evaluate(traced, [t for t in tails if t.has_constant], _chosen(tails, zeros), values))
    for branch in plain:
        branch.zero = next(constants) if branch.tail.has_constant else np.zeros_like(branch.value)
        branch.certified = _agrees(branch, branch.elements, branch.value, real=True)
    for low in _PROBES:
        points = [[_probe(rng, low, e) for e in branch.elements] for branch in plain]
        for branch, point, found in zip(plain, points, _evaluate(traced, tails, points, values)):
            branch.certified &= _agrees(branch, point, found)
    for branch in branches:
        if not branch.own and not branch.tail.cuts:
            branch.zero = branch.value  # it depends on nothing that could be cut

    elements = [values[cut.tensor.ref()] for cut in top.cuts]
    constant = 0.0
    if top.has_constant:
        constant = float(_evaluate(traced, [top], [[np.zeros_like(e) for e in elements]], values)[0])
    for own in (branch for branch in branches if branch.own and top.cuts):
        scales = {b.tail.root.ref(): b.scale for b in branches if b.scale_tensor is not None}
        scales.update(zip((cut.tensor.ref() for cut in own.tail.cuts), own.slopes))
        whole = Branch(own.name, own.kind, top, zero=np.asarray(constant))
        whole.slopes = [scales[cut.tensor.ref()] for cut in top.cuts]
        own.certified = _agrees(whole, elements, values[top.root.ref()], real=True)
        for low in _PROBES:
            point = [_probe(rng, low, e) for e in elements]
            own.certified &= _agrees(whole, point, _evaluate(traced, [top], [point], values)[0])
    return constant


def _evaluate(traced: Traced, tails: list[graph.Tail], points: list[list[np.ndarray]], values: dict) -> list:
    """The roots of `tails` with other element losses in place of their cuts; one run for all, if they do not mix."""
    owned = [cut.tensor.ref() for tail in tails for cut in tail.cuts]
    used = {ref for tail in tails for ref in (*tail.inside, *(tensor.ref() for tensor in tail.frontier))}
    if len(tails) > 1 and (len(set(owned)) < len(owned) or used.intersection(owned)):
        return [_evaluate(traced, [tail], [point], values)[0] for tail, point in zip(tails, points)]
    if not tails:
        return []
    frontier = [t for tail in tails for t in tail.frontier if t.op.type != "Const" and t.ref() in values]
    # One output of several (a split) cannot be fed beside the others: it is computed anew, from the leaves.
    feeds = {t.ref(): t for t in frontier if len(t.op.outputs) == 1}
    fed = {ref: values[ref] for ref in feeds}
    if len(feeds) < len({t.ref() for t in frontier}):
        feeds.update((t.ref(), t) for t in traced.trace.feeds)
        fed.update((t.ref(), leaf) for t, leaf in zip(traced.trace.feeds, traced.leaves))
    for tail, point in zip(tails, points):
        feeds.update((cut.tensor.ref(), cut.tensor) for cut in tail.cuts)
        fed.update((cut.tensor.ref(), element) for cut, element in zip(tail.cuts, point))
    return traced.trace.run([tail.root for tail in tails], list(feeds.values()), [fed[ref] for ref in feeds])


def counted(elements: np.ndarray, slope: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The element losses, with 0 for what is not a number and reaches the finite `value` by no road (slope 0).

    A boolean mask leaves such elements out. But NaN times a weight of 0 is NaN: where the value itself is not
    finite, nothing is changed.
    """
    if np.all(np.isfinite(value)) and not np.all(np.isfinite(elements)):
        return np.where((slope == 0) & ~np.isfinite(elements), np.zeros((), elements.dtype), elements)
    return elements


def _agrees(branch: Branch, elements: list[np.ndarray], found: np.ndarray, real: bool = False) -> bool:
    """Is `found` what the branch's slopes predict at these elements? Overflow at arbitrary numbers proves nothing;
    NaN where the `real` elements are finite (a mean over nothing) does."""
    shares = [e.astype(np.float64) * g.astype(np.float64) for e, g in zip(elements, branch.slopes)]
    expected = sum(float(np.sum(s)) for s in shares) + float(np.sum(branch.scale * branch.zero.astype(np.float64)))
    reality = float(np.sum(branch.scale * found.astype(np.float64)))
    size = sum(float(np.sum(np.abs(s))) for s in shares) + abs(expected)
    slack = _CERTIFICATE.get(branch.tail.root.dtype.name, 1e-4)
    judged = math.isfinite(expected) and (math.isfinite(reality) or real)
    return not judged or abs(expected - reality) <= slack * size


def _probe(rng: np.random.Generator, low: float, element: np.ndarray) -> np.ndarray:
    return rng.uniform(low, 1.5, element.shape).astype(element.dtype)


def _chosen(tails: list[graph.Tail], points: list) -> list:
    return [point for tail, point in zip(tails, points) if tail.has_constant]


def _number(weight) -> float:
    return weight.numpy() if hasattr(weight, "numpy") else weight


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}_{used[name]}"
