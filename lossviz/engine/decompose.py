"""From a traced loss to numbers: cut the graph into branches, run it once, and prove that they add up.

`plan` does what depends on the graph alone, and is kept with the model; `decompose` does the rest for one batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lossviz.backend.program import Loss, Value, ancestors
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
    y_true: Value | None = None
    y_pred: Value | None = None
    declared_weight: Any = 1.0  # a number, or the variable that holds it
    own: bool = False  # what no recorded term accounts for: a compute_loss of the user's
    reaches: bool = True  # False: computed, and then not part of the total
    scale_tensor: Value | None = None
    slope_tensors: list[Value] = field(default_factory=list)
    value: np.ndarray = field(default_factory=lambda: np.zeros(()))
    scale: np.ndarray = field(default_factory=lambda: np.ones(()))
    zero: np.ndarray = field(default_factory=lambda: np.zeros(()))
    elements: list[np.ndarray] = field(default_factory=list)
    slopes: list[np.ndarray] = field(default_factory=list)
    certified: bool = True


@dataclass
class Plan:
    """A loss cut into branches and differentiated, with the functions that will compute their numbers."""

    loss: Loss
    top: Tail
    branches: list[Branch]
    run: Callable[[Sequence], dict[Value, np.ndarray]]  # all that is needed, in one run on a batch
    gradients: dict[Value, tuple[Value, Value]]  # prediction -> what the loss reads of it (or its logits), dL/d that
    measured: dict[Value, Value]  # value -> its shape, where that is not known before the program runs
    tails: list[tuple[list[int], Callable]]  # tails that can be computed anew together, by number of the branch
    whole: Callable | None  # the top, where a constant or a compute_loss of the user's is in it
    words: dict = field(default_factory=dict)  # what `terms` read off the program last, by the names of the axes
    confirmed: bool = False  # have its parts summed to a number that Keras gave by itself?


@dataclass
class Decomposition:
    """The branches, the constant that is added to all of them, and what every value they need was."""

    loss: Loss
    leaves: list[np.ndarray]  # the batch
    branches: list[Branch]
    constant: float
    values: dict[Value, np.ndarray]
    shapes: dict[Value, tuple[int, ...]]  # where it is not known before the program runs
    gradients: dict[Value, tuple[Value, Value]]  # as in `Plan`
    words: dict  # as in `Plan`

    def fed(self, value: Value | None) -> np.ndarray | None:
        """The batch's own array, if this is one."""
        return next((leaf for feed, leaf in zip(self.loss.program.feeds, self.leaves) if feed is value), None)


def plan(loss: Loss) -> Plan:
    """Cut and differentiate."""
    top, branches = _cut(loss)
    _differentiate(loss, top, branches)
    gradients = _gradients(loss)
    wanted, measured = _wanted(loss, top, branches, [slope for _, slope in gradients.values()])
    run = loss.program.whole(wanted)
    plain = [k for k, branch in enumerate(branches) if not branch.own and branch.tail.cuts]
    together = [plain] if apart([branches[k].tail for k in plain]) else [[k] for k in plain]
    tails = [(group, rerun_of([branches[k].tail for k in group])) for group in together if group]
    needs_top = top.has_constant or any(branch.own and top.cuts for branch in branches)
    return Plan(loss, top, branches, run, gradients, measured, tails, rerun_of([top]) if needs_top else None)


def decompose(plan: Plan, leaves: Sequence[np.ndarray], values: dict[Value, np.ndarray]) -> Decomposition:
    """Certify what `plan.run` made of the leaves."""
    shapes = {value: tuple(values[shape].tolist()) for value, shape in plan.measured.items()}
    branches = [_numbers(branch, values) for branch in plan.branches]
    constant = _certify(plan, branches, values)
    return Decomposition(plan.loss, list(leaves), branches, constant, values, shapes, plan.gradients, plan.words)


# -- cutting ----------------------------------------------------------------------------------------------


def _cut(loss: Loss) -> tuple[Tail, list[Branch]]:
    """The top of the loss, down to the terms that Keras adds, and each of those down to its element losses."""
    outputs, added = loss.outputs, loss.added
    marks = [entry.value for entry in (*outputs, *added)]
    roots = [loss.root, *marks]
    sources = [*loss.predictions, *loss.logits.values(), *loss.trainable]
    weights = [value for word in ("sample_weight", "class_weight", "mask") for value in loss.inputs.get(word, [])]
    reader = Reader(roots, sources, weights, loss.trainable)
    # a term may depend on none of these (on an input, on a frozen weight): then on anything at all
    everything = Reader(roots, [*sources, *loss.inputs.get("x", []), *loss.captured])
    top = Reader(roots, [*sources, *marks], weights, loss.trainable).find_tail(loss.root, stops=marks)

    names, more = naming.terms([entry.name for entry in outputs], [entry.name for entry in added])
    branches = []
    for name, entry in zip(names, outputs):
        tail = reader.find_tail(entry.value)
        branches.append(Branch(name, "output", tail, entry.y_true, entry.y_pred, entry.loss_weight))
    for name, entry in zip(more, added):
        inside = reader if entry.value in reader.depends else everything
        branches.append(Branch(name, entry.kind, inside.find_tail(entry.value, bounded=False)))
    own = tuple(cut for cut in top.cuts if not any(cut.tensor is mark for mark in marks))
    if own or not branches:
        tail = Tail(loss.root, own, top.frontier, False, top.inside)
        branches.append(Branch(naming.free(loss.name, [*names, *more]), "output", tail, own=True))
    return top, branches


def _differentiate(loss: Loss, top: Tail, branches: list[Branch]) -> None:
    reached = [cut.tensor for cut in top.cuts]
    held = [value for value in top.frontier if value not in reached]  # of a weight that is read twice, one factor
    slopes = dict(zip(reached, loss.program.gradients(loss.root, reached, stops=held)))
    for branch in branches:
        root, cuts = branch.tail.root, [cut.tensor for cut in branch.tail.cuts]
        if branch.own:
            branch.slope_tensors = [slopes[tensor] for tensor in cuts]
        elif root in slopes:
            branch.scale_tensor = slopes[root]
            branch.slope_tensors = loss.program.gradients(root, cuts, seed=branch.scale_tensor)
        else:
            branch.reaches = False


# -- running ----------------------------------------------------------------------------------------------


def _gradients(loss: Loss) -> dict[Value, tuple[Value, Value]]:
    """The derivative of the loss with respect to each prediction, or to its logits where the loss reads those instead;
    the other predictions are held fixed. Empty where an operation of the loss has no gradient."""
    read = {value for op in ancestors([loss.root]) if not op.forward for value in op.inputs}
    points = {}
    for prediction in loss.predictions:
        logits = loss.logits.get(prediction)
        if prediction.is_floating:
            points[prediction] = logits if logits is not None and logits in read else prediction
    try:
        slopes = loss.program.gradients(loss.root, list(points.values()))
    except loss.program.underivable:
        return {}
    return dict(zip(points, zip(points.values(), slopes)))


def _wanted(loss: Loss, top: Tail, branches: list[Branch], more: list[Value]) -> tuple[list[Value], dict[Value, Value]]:
    """Everything that is needed of the program in one run (one forward pass, one draw of random numbers), and the
    values that measure unknown shapes."""
    wanted: list[Value | None] = [loss.root, *top.frontier, *more]
    for branch in branches:
        wanted += [branch.tail.root, branch.scale_tensor, *branch.slope_tensors, *branch.tail.frontier]
        for cut in branch.tail.cuts:
            wanted.append(cut.tensor)
            if cut.quotient is not None:
                wanted += [*cut.quotient.inputs, branch.y_pred]
    for entry in loss.outputs:  # for whoever looks at the report
        wanted += [entry.y_true, entry.y_pred, entry.sample_weight, entry.elements, entry.mask]
    wanted += [value for entry in loss.crossentropies for value in (entry.target, entry.output)]
    wanted += [*loss.predictions, *loss.logits.values()]  # for the proof of positions
    on_roads = [out for b in branches for cut in b.tail.cuts for op in cut.path for out in op.outputs]
    values = [value for value in wanted if value is not None]
    measured = loss.program.measured(dict.fromkeys(v for v in (*values, *on_roads) if not v.is_static))
    return [*values, *measured.values()], measured


def _numbers(branch: Branch, values: dict) -> Branch:
    """The branch with what its tensors were when the graph ran."""
    value, scale = values[branch.tail.root], branch.scale
    elements = [values[cut.tensor] for cut in branch.tail.cuts]
    if branch.scale_tensor is not None:
        scale = values[branch.scale_tensor].astype(np.float64)
    elif not branch.own:
        scale = np.zeros(value.shape)
    slopes = [values[slope] for slope in branch.slope_tensors] or [np.zeros_like(e) for e in elements]
    weight = float(branch.declared_weight)
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
    elements = [values[cut.tensor] for cut in top.cuts]
    if top.has_constant:
        constant = float(plan.whole([np.zeros_like(e) for e in elements], values)[0])
    for own in (branch for branch in branches if branch.own and top.cuts):
        scales = {b.tail.root: b.scale for b in branches if b.scale_tensor is not None}
        scales.update(zip((cut.tensor for cut in own.tail.cuts), own.slopes))
        whole = Branch(own.name, own.kind, top, zero=np.asarray(constant))
        whole.slopes = [scales[cut.tensor] for cut in top.cuts]
        size = [np.abs(slope) for slope in whole.slopes]
        own.certified = _agrees(whole, size, elements, values[top.root], real=True)
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
    slack = _CERTIFICATE.get(branch.tail.root.dtype, 1e-4)
    judged = math.isfinite(expected) and (math.isfinite(reality) or real)
    return not judged or abs(expected - reality) <= slack * size


def _dot(a: np.ndarray, b: np.ndarray) -> float:
    """The sum of the products, without an array of them."""
    wide = [array if array.dtype.itemsize > 2 else array.astype(np.float32) for array in (a, b)]
    return float(np.vdot(*wide))
