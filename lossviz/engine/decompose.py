"""From a traced loss to numbers: cut the graph into branches, run it once, and prove that they add up.

`plan` does what depends on the graph alone, and is kept with the model; `decompose` does the rest for one batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import tensorflow as tf

from lossviz.backend import graph
from lossviz.backend import keras_private as _keras
from lossviz.backend.tracing import Traced
from lossviz.engine import naming
from lossviz.engine.tail import Reader, Tail, apart, rerun_of

#: How far a certified tail may be off, relative to the sum of absolute shares; nonlinearity is far beyond it.
_CERTIFICATE = {"float64": 1e-9, "float32": 1e-4, "bfloat16": 0.1, "float16": 2e-2}

#: Lower ends of the arbitrary numbers (the upper end is `_HIGH`): a fold at 0 shows between both signs, one behind a
#: sum where all have the same.
_PROBES = (0.5, -1.5)
_HIGH = 1.5


@dataclass(eq=False)
class Branch:
    """One summand of the loss: how it was cut out of the graph, and its numbers.

    `value` is the tensor that Keras adds (often one number) and `scale` the gradient of the loss with respect to
    it. `elements` are the values of its cuts, `slopes` the gradients of the loss with respect to those, `zero`
    its value with all elements at zero. Where `certified` is False the cuts are not to be trusted.
    """

    name: str
    kind: str  # "output", "add_loss" or "regulariser"
    tail: Tail
    y_true: tf.Tensor | None = None
    y_pred: tf.Tensor | None = None
    declared_weight: object = 1.0  # a number, or the variable that holds it
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
class Plan:
    """A loss cut into branches and differentiated, with the functions that will compute their numbers."""

    traced: Traced
    top: Tail
    branches: list[Branch]
    program: graph.Program  # all that is needed of the graph, in one run
    gradients: dict  # reference of a prediction -> what the loss reads of it (itself or its logits), dL/d that
    measured: dict  # tensor reference -> the tensor of its shape, where that is not known before the graph runs
    tails: list[tuple[list[int], graph.Rerun]]  # tails that can be computed anew together, by number of the branch
    whole: graph.Rerun | None  # the top, where a constant or a compute_loss of the user's is in it
    words: dict = field(default_factory=dict)  # what `terms` read off the graph last, by the names of the axes
    confirmed: bool = False  # have its parts summed to a number that Keras gave by itself?


@dataclass
class Decomposition:
    """The branches, the constant that is added to all of them, and what every tensor they need was."""

    traced: Traced
    branches: list[Branch]
    constant: float
    values: dict  # tensor reference -> array
    shapes: dict  # tensor reference -> shape, where it is not known before the graph runs
    gradients: dict  # as in `Plan`
    words: dict  # as in `Plan`


def plan(traced: Traced) -> Plan:
    """Cut and differentiate."""
    graph.expand_fused(traced.trace.graph, traced.root)
    top, branches = _cut(traced)
    _differentiate(traced, top, branches)
    gradients = _gradients(traced)
    wanted, measured = _wanted(traced, top, branches, [slope for _, slope in gradients.values()])
    program = graph.Program(traced.trace, wanted)
    plain = [k for k, branch in enumerate(branches) if not branch.own and branch.tail.cuts]
    together = [plain] if apart([branches[k].tail for k in plain]) else [[k] for k in plain]
    tails = [(group, rerun_of([branches[k].tail for k in group])) for group in together if group]
    needs_top = top.has_constant or any(branch.own and top.cuts for branch in branches)
    return Plan(traced, top, branches, program, gradients, measured, tails, rerun_of([top]) if needs_top else None)


def decompose(plan: Plan, leaves: Sequence[np.ndarray], values: dict) -> Decomposition:
    """Certify what `plan.program` made of the leaves."""
    shapes = {ref: tuple(values[shape.ref()].tolist()) for ref, shape in plan.measured.items()}
    branches = [_numbers(branch, values) for branch in plan.branches]
    constant = _certify(plan, branches, values)
    traced = replace(plan.traced, leaves=list(leaves))
    return Decomposition(traced, branches, constant, values, shapes, plan.gradients, plan.words)


# -- cutting ----------------------------------------------------------------------------------------------


def _cut(traced: Traced) -> tuple[Tail, list[Branch]]:
    """The top of the loss, down to the terms that Keras adds, and each of those down to its element losses."""
    forward = traced.trace.forward
    outputs, added = traced.recorder.outputs, traced.recorder.added
    marks = [entry.value for entry in [*outputs, *added]]
    roots = [traced.root, *marks]
    logits = [_keras.logits_of(tensor) for tensor in traced.predictions]
    sources = [t for t in (*traced.predictions, *logits, *traced.trainable) if t is not None]
    words = ("sample_weight", "class_weight", "mask")
    weights = [tensor for word in words for tensor in traced.inputs.get(word, [])]
    reader = Reader(roots, sources, forward, weights, traced.trainable)
    # a term may depend on none of these (on an input, on a frozen weight): then on anything at all
    captured = [inner for _, inner in traced.trace.graph.captures]
    everything = Reader(roots, [*sources, *traced.inputs.get("x", []), *captured], forward)
    top = Reader(roots, [*sources, *marks], forward, weights, traced.trainable).find_tail(traced.root, stops=marks)

    names, more = naming.terms([entry.name for entry in outputs], [entry.name for entry in added])
    branches = []
    for name, entry in zip(names, outputs):
        tail = reader.find_tail(entry.value)
        branches.append(Branch(name, "output", tail, entry.y_true, entry.y_pred, entry.loss_weight))
    for name, entry in zip(more, added):
        inside = reader if entry.value.ref() in reader.depends else everything
        branches.append(Branch(name, entry.kind, inside.find_tail(entry.value, bounded=False)))
    own = tuple(cut for cut in top.cuts if not any(cut.tensor is mark for mark in marks))
    if own or not branches:
        tail = Tail(traced.root, own, top.frontier, False, top.inside)
        branches.append(Branch(naming.free(traced.name, [*names, *more]), "output", tail, own=True))
    return top, branches


def _differentiate(traced: Traced, top: Tail, branches: list[Branch]) -> None:
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


def _gradients(traced: Traced) -> dict:
    """The derivative of the loss with respect to each prediction, or to its logits where the loss reads those instead;
    the other predictions are held fixed. Empty where an operation of the loss has no gradient."""
    forward = traced.trace.forward
    read = {t.ref() for op in graph.ancestors([traced.root]) if op.name not in forward for t in op.inputs}
    points = {}
    for tensor in traced.predictions:
        logits = _keras.logits_of(tensor)
        if tensor.dtype.is_floating:
            points[tensor.ref()] = logits if logits is not None and logits.ref() in read else tensor
    try:
        slopes = graph.gradients(traced.trace.graph, traced.root, list(points.values()))
    except LookupError:
        return {}
    return dict(zip(points, zip(points.values(), slopes)))


def _wanted(traced: Traced, top: Tail, branches: list[Branch], more: list[tf.Tensor]) -> tuple[list, dict]:
    """Everything that is needed of the graph in one run (one forward pass, one draw of random numbers), and the
    tensors that measure unknown shapes."""
    wanted = [traced.root, *top.frontier, *more]
    for branch in branches:
        wanted += [branch.tail.root, branch.scale_tensor, *branch.slope_tensors, *branch.tail.frontier]
        for cut in branch.tail.cuts:
            wanted.append(cut.tensor)
            if cut.quotient is not None:
                wanted += [*cut.quotient.inputs, branch.y_pred]
    for entry in traced.recorder.outputs:  # for whoever looks at the report
        wanted += [entry.y_true, entry.y_pred, entry.sample_weight, entry.elements, entry.mask]
    wanted += [tensor for one in traced.recorder.crossentropies for tensor in (one.target, one.output)]
    wanted += [*traced.predictions, *map(_keras.logits_of, traced.predictions)]  # for the proof of positions
    on_roads = [out for b in branches for cut in b.tail.cuts for step in cut.path for out in step.outputs]
    wanted = [tensor for tensor in wanted if tf.is_tensor(tensor)]
    unknown = {t.ref(): t for t in [*wanted, *on_roads] if not t.shape.is_fully_defined()}
    with traced.trace.graph.as_default():
        measured = {ref: tf.shape(tensor) for ref, tensor in unknown.items()}
    numbers = [tensor for tensor in wanted if tensor.dtype not in (tf.resource, tf.variant)]
    return [*numbers, *measured.values()], measured


def _numbers(branch: Branch, values: dict) -> Branch:
    """The branch with what its tensors were when the graph ran."""
    value, scale = values[branch.tail.root.ref()], branch.scale
    elements = [values[cut.tensor.ref()] for cut in branch.tail.cuts]
    if branch.scale_tensor is not None:
        scale = values[branch.scale_tensor.ref()].astype(np.float64)
    elif not branch.own:
        scale = np.zeros(value.shape)
    slopes = [values[slope.ref()] for slope in branch.slope_tensors] or [np.zeros_like(e) for e in elements]
    weight = float(_number(branch.declared_weight))
    return replace(branch, value=value, elements=elements, scale=scale, slopes=slopes, declared_weight=weight)


# -- certifying -------------------------------------------------------------------------------------------


def _certify(plan: Plan, branches: list[Branch], values: dict) -> float:
    """Prove each branch affine in its element losses, and the loss in the branches; returns the loss's constant.

    Each is run on zeros and on arbitrary numbers and must give what the gradients predict; on the real element
    losses it must give its value. Euler's identity alone (the shares sum to the value) has false positives. All
    of it is done for every batch: where all weights are zero, what comes after them is not proved by that.
    """
    rng = np.random.default_rng(0)
    for group, rerun in plan.tails:
        found = [branches[k] for k in group]
        if any(branch.tail.has_constant for branch in found):
            zeros = [np.zeros_like(e) for branch in found for e in branch.elements]
            for branch, zero in zip(found, rerun(zeros, values)):
                branch.zero = zero
        sizes = [[np.abs(slope) for slope in branch.slopes] for branch in found]
        for branch, size in zip(found, sizes):
            if not branch.tail.has_constant:
                branch.zero = np.zeros_like(branch.value)
            branch.certified = _agrees(branch, size, branch.elements, branch.value, real=True)
        for points in _probes(rng, [branch.elements for branch in found]):
            flat = [point for one in points for point in one]
            for branch, size, point, root in zip(found, sizes, points, rerun(flat, values)):
                branch.certified &= _agrees(branch, size, point, root)
    for branch in branches:
        if not branch.own and not branch.tail.cuts:
            branch.zero = branch.value  # it depends on nothing that could be cut

    top, constant = plan.top, 0.0
    elements = [values[cut.tensor.ref()] for cut in top.cuts]
    if top.has_constant:
        constant = float(plan.whole([np.zeros_like(e) for e in elements], values)[0])
    for own in (branch for branch in branches if branch.own and top.cuts):
        scales = {b.tail.root.ref(): b.scale for b in branches if b.scale_tensor is not None}
        scales.update(zip((cut.tensor.ref() for cut in own.tail.cuts), own.slopes))
        whole = Branch(own.name, own.kind, top, zero=np.asarray(constant))
        whole.slopes = [scales[cut.tensor.ref()] for cut in top.cuts]
        size = [np.abs(slope) for slope in whole.slopes]
        own.certified = _agrees(whole, size, elements, values[top.root.ref()], real=True)
        for points in _probes(rng, [elements]):
            own.certified &= _agrees(whole, size, points[0], plan.whole(points[0], values)[0])
    return constant


def _probes(rng: np.random.Generator, elements: list[list[np.ndarray]]) -> Iterator[list[list[np.ndarray]]]:
    """Arbitrary numbers of the shapes and dtypes of `elements`, from each of `_PROBES` up."""
    drawn = [
        [rng.random(e.shape, np.float64 if e.dtype == np.float64 else np.float32) for e in one] for one in elements
    ]

    def moved(number: np.ndarray, low: float, dtype: np.dtype) -> np.ndarray:
        moved = np.multiply(number, number.dtype.type(_HIGH - low))
        moved += number.dtype.type(low)
        return moved.astype(dtype, copy=False)

    for low in _PROBES:
        yield [[moved(number, low, e.dtype) for number, e in zip(*both)] for both in zip(drawn, elements)]


def counted(elements: np.ndarray, slope: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The element losses, with 0 for what is not a number and reaches the finite `value` by no road (slope 0).

    A boolean mask leaves such elements out. But NaN times a weight of 0 is NaN: where the value itself is not
    finite, nothing is changed.
    """
    if np.all(np.isfinite(value)) and not np.all(np.isfinite(elements)):
        return np.where((slope == 0) & ~np.isfinite(elements), np.zeros((), elements.dtype), elements)
    return elements


def _agrees(
    branch: Branch, sizes: list[np.ndarray], elements: list[np.ndarray], found: np.ndarray, real: bool = False
) -> bool:
    """Is `found` what the branch's slopes, whose absolute values are `sizes`, predict at these elements? Overflow at
    arbitrary numbers proves nothing; NaN where the `real` elements are finite (a mean over nothing) does."""
    pairs = list(zip(elements, branch.slopes))
    constant = float(np.sum(branch.scale * branch.zero.astype(np.float64)))
    expected = sum(_dot(e, g) for e, g in pairs) + constant
    reality = float(np.sum(branch.scale * found.astype(np.float64)))
    size = sum(_dot(np.abs(e), size) for e, size in zip(elements, sizes)) + abs(expected)
    slack = _CERTIFICATE.get(branch.tail.root.dtype.name, 1e-4)
    judged = math.isfinite(expected) and (math.isfinite(reality) or real)
    return not judged or abs(expected - reality) <= slack * size


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of the products, without an array of them."""
    wide = [array if array.dtype.itemsize > 2 else array.astype(np.float32) for array in (a, b)]
    return float(np.vdot(*wide))


def _number(weight) -> float:
    return weight.numpy() if hasattr(weight, "numpy") else weight
