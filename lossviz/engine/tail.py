"""Find the element losses of a traced loss, and how they are added up.

This module knows TensorFlow graphs and nothing of Keras or of any particular loss. The method:

1. Going back from the scalar through operations that are linear in what depends on the predictions (the *tail*),
   `Reader.find_tail` cuts every path once: at the input of the first reduction, else where linearity ends.
2. The cut tensors are the element losses `e`; with `g` the graph's own gradient of the loss, `e * g` are their
   shares. No rule about weights, masks or divisors is needed: the gradient carries them.
3. `backend.graph.Rerun` computes the tail from other values, which proves that it is linear instead of believing the
   list of linear operations.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

from lossviz.backend.graph import Rerun, ancestors

DIVISIONS = {"RealDiv", "Div", "DivNoNan"}
# Which inputs an operation is linear in. "all": every floating input (sums); an index: that input alone, if
# all the others are independent of the predictions.
_SUMS = {"Add", "AddV2", "AddN", "Sub", "BiasAdd", "Pack", "ConcatV2"}
_FIRST = {
    *("Identity", "Neg", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Mean", "Sum", "BroadcastTo"),
    *("Tile", "StridedSlice", "Slice", "GatherV2", "GatherNd", "Pad", "PadV2", "Unpack", "Split", "SplitV"),
    *("EnsureShape", "CheckNumerics", "Cumsum", "SegmentSum", "UnsortedSegmentSum", "ReverseV2", "Roll"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "AvgPool", "AvgPool3D", "MatrixDiagPartV3", "ReverseSequence"),
    *DIVISIONS,
}
# Scattering is linear in what is scattered, and in what it is scattered into.
_SCATTERS = {"ScatterNd": (1,), "TensorScatterAdd": (0, 2), "TensorScatterSub": (0, 2), "TensorScatterUpdate": (0, 2)}
_PRODUCTS = {"Mul", "MulNoNan"}
_CONTRACTIONS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
_SELECTS = {"Select", "SelectV2"}

# A cut is placed before these: they add elements up, or pick some of them.
_COLLECTING = {
    *("Sum", "Mean", "GatherV2", "GatherNd", "SegmentSum", "UnsortedSegmentSum", "Cumsum", *_CONTRACTIONS),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "AvgPool", "AvgPool3D", *_SCATTERS),
}
# Where elements are added to others (`_ADDS`) after a move (`_SHIFTS`), as in a difference of neighbours, the sum mixes
# positions: then a cut is placed before all that moves elements.
_ADDS = {"Add", "AddV2", "AddN", "Sub"}
_SHIFTS = {"StridedSlice", "Slice", "Pad", "PadV2", "ReverseV2", "Roll", "Transpose", "ReverseSequence"}
_MOVES = {
    *("StridedSlice", "Slice", "Pad", "PadV2", "ReverseV2", "Roll", "Tile", "Transpose", "Pack", "ConcatV2", "Unpack"),
    *("Split", "SplitV", "MatrixDiagPartV3", "BroadcastTo", "Reshape", "ExpandDims", "Squeeze", "ReverseSequence"),
}

_OPAQUE = {
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "While", "StatelessWhile", "If", "StatelessIf", "Case"),
    *("StatelessCase", "PartitionedCall", "StatefulPartitionedCall", "MapDefun", "XlaLaunch", "SymbolicGradient"),
}


@dataclass(frozen=True, eq=False)
class Cut:
    """A tensor of element losses, and the operations that lead from it to its root (`path[0]` consumes it).

    `ways` counts the roads from the cut to the root. `quotient` is the division whose two sides both depend
    on the predictions, where there is one above the cut; `opaque` the type of an operation that cannot be read.
    """

    tensor: tf.Tensor
    path: tuple[tf.Operation, ...]
    ways: int
    quotient: tf.Operation | None
    opaque: str | None
    curved: str


@dataclass(frozen=True, eq=False)
class Tail:
    """The linear end of the graph between `cuts` and `root`; `has_constant` says that something is added to it.

    `frontier` are the tensors that enter it and do not depend on the predictions.
    """

    root: tf.Tensor
    cuts: tuple[Cut, ...]
    frontier: tuple[tf.Tensor, ...]
    has_constant: bool
    inside: frozenset = frozenset()  # references of the tensors between root and cuts


def apart(tails: Sequence[Tail]) -> bool:
    """Can these tails be computed together from other values for their cuts, or does one hold a cut of another?"""
    owned = [cut.tensor.ref() for tail in tails for cut in tail.cuts]
    used = {ref for tail in tails for ref in (*tail.inside, *(tensor.ref() for tensor in tail.frontier))}
    return len(tails) < 2 or (len(set(owned)) == len(owned) and not used.intersection(owned))


def rerun_of(tails: Sequence[Tail]) -> Rerun:
    """The roots of these tails, to be computed from other values for their cuts."""
    cuts = [cut.tensor for tail in tails for cut in tail.cuts]
    return Rerun([tail.root for tail in tails], cuts, [tensor for tail in tails for tensor in tail.frontier])


class Reader:
    """What depends on what, in the part of a graph that leads to `roots`."""

    def __init__(
        self,
        roots: Sequence[tf.Tensor],
        sources: Iterable[tf.Tensor],
        forward: set[str],
        weights: Iterable[tf.Tensor] = (),
        given: Iterable[tf.Tensor] = (),
    ):
        """`given` are the sources that count as fixed factors of the others: a learned weight times a loss is linear
        in the loss."""
        self.order = ancestors(roots)
        self.forward = forward
        self.weights = {tensor.ref() for tensor in weights}
        self.depends = {tensor.ref() for tensor in sources}
        fixed = {tensor.ref() for tensor in given}
        self.free = self.depends - fixed
        for operation in self.order:
            for found in (self.depends, self.free):
                if any(tensor.ref() in found for tensor in operation.inputs):
                    found.update(out.ref() for out in operation.outputs if _differentiable(out))
            masks = operation.name in forward
            if masks or any(tensor.ref() in self.weights for tensor in operation.inputs):
                self.weights.update(out.ref() for out in operation.outputs if not masks or out.dtype == tf.bool)

    def linear_inputs(self, operation: tf.Operation) -> list[tf.Tensor] | None:
        """The dependent inputs if the operation is linear in them, else None."""
        inputs = list(operation.inputs)
        dependent = [k for k, tensor in enumerate(inputs) if tensor.ref() in self.depends]
        kind = operation.type
        if _has_own_gradient(operation) or not dependent:
            return None
        held = [_is_held(inputs[k]) for k in dependent]
        if any(held) and not all(held):  # x + stop_gradient(y) is one element: alone, y would depend on nothing
            return None
        free = [k for k in dependent if inputs[k].ref() in self.free]
        if free and (kind in _PRODUCTS or kind in DIVISIONS):
            dependent = free
        if kind in _SCATTERS and set(dependent) <= set(_SCATTERS[kind]):
            return [inputs[k] for k in dependent]
        if kind in _SUMS or (kind in _SELECTS and 0 not in dependent):
            return [inputs[k] for k in dependent]
        if kind in _FIRST and dependent == [0]:
            return [inputs[0]]
        if kind in _PRODUCTS and len(dependent) == 1:
            return [inputs[dependent[0]]]
        if kind in _CONTRACTIONS and len(dependent) == 1 and operation.name not in self.forward:
            return [inputs[dependent[0]]]
        return None

    def find_tail(self, root: tf.Tensor, stops: Iterable[tf.Tensor] = (), bounded: bool = True) -> Tail:
        """Walk back from `root` and cut every path exactly once.

        `stops` are tensors that must be cuts of their own. With `bounded` the walk does not enter the
        forward pass: predictions are where it ends.
        """
        stops = {tensor.ref() for tensor in stops}
        reached: dict = {}  # tensor ref -> its linear inputs, None where linearity (or the loss) ends
        consumers: dict = {}  # tensor ref -> operations of the tail that consume it
        frontier: dict = {}
        has_constant = False
        stack = [root] if root.ref() in self.depends else []
        while stack:
            tensor = stack.pop()
            if tensor.ref() in reached:
                continue
            operation = tensor.op
            ends = tensor.ref() in stops or (bounded and operation.name in self.forward)
            inputs = None if ends else self.linear_inputs(operation)
            reached[tensor.ref()] = inputs
            if inputs is None:
                continue
            used = {other.ref() for other in inputs}
            for other in operation.inputs:
                if other.ref() in used:
                    consumers.setdefault(other.ref(), []).append(operation)
                else:
                    frontier[other.ref()] = other
                    has_constant |= _adds(operation, other)
            stack.extend(inputs)

        cuts = self._place_cuts(root, reached, stops, _COLLECTING) if reached else []
        if any(self._mixes(cut, reached) for cut in cuts):
            cuts = self._place_cuts(root, reached, stops, _COLLECTING | _MOVES)
        made = tuple(self._describe(tensor, root, consumers) for tensor in cuts)
        inside = frozenset(ref for ref, inputs in reached.items() if inputs is not None)
        return Tail(root, made, tuple(frontier.values()), has_constant or root.ref() not in self.depends, inside)

    @staticmethod
    def _mixes(cut: tf.Tensor, reached: dict) -> bool:
        """Are elements added to others after a move, above this cut and where all is linear?"""
        adds = moves = False
        stack, seen = [cut], {cut.ref()}
        while stack:
            tensor = stack.pop()
            inputs = reached[tensor.ref()] or ()
            adds |= len(inputs) > 1 and tensor.op.type in _ADDS
            moves |= bool(inputs) and tensor.op.type in _SHIFTS
            for other in inputs:
                if other.ref() not in seen:
                    seen.add(other.ref())
                    stack.append(other)
        return adds and moves

    def _place_cuts(self, root: tf.Tensor, reached: dict, stops: set, kinds: set[str]) -> list[tf.Tensor]:
        collects: dict = {}  # does something below this tensor, inside the tail, add elements up?

        def collecting(tensor: tf.Tensor) -> bool:
            todo = [tensor]
            while todo:
                top = todo[-1]
                inputs = reached[top.ref()]
                waiting = [other for other in inputs or () if other.ref() not in collects]
                if waiting:
                    todo.extend(waiting)
                    continue
                here = top.ref() in stops or (inputs is not None and _collects(top.op, kinds))
                collects[top.ref()] = here or any(collects[other.ref()] for other in inputs or ())
                todo.pop()
            return collects[tensor.ref()]

        collecting(root)
        demoted: set = set()
        while True:
            cuts: dict = {}
            seen: set = set()
            stack = [root]
            while stack:
                tensor = stack.pop()
                if tensor.ref() in seen:
                    continue
                seen.add(tensor.ref())
                inputs = reached[tensor.ref()]
                if inputs is None:
                    cuts[tensor.ref()] = tensor
                    continue
                for other in inputs:
                    clean = not collects[other.ref()] and other.ref() not in demoted
                    if clean and _collects(tensor.op, kinds):
                        other = self._unweighted(other, reached, stops)
                        cuts[other.ref()] = other
                    else:
                        stack.append(other)
            # a tensor that is both a cut and on the road of a deeper cut would count twice
            doubled = {ref for ref in cuts if reached[ref] is not None and self._reaches_cut(cuts[ref], reached, cuts)}
            if not doubled:
                return list(cuts.values())
            demoted |= doubled

    def _unweighted(self, tensor: tf.Tensor, reached: dict, stops: set) -> tf.Tensor:
        """The element losses before sample weights and masks were multiplied in, where those change no shape."""
        while tensor.op.type in _PRODUCTS and tensor.ref() not in stops and len(reached[tensor.ref()] or ()) == 1:
            inner = reached[tensor.ref()][0]
            factor = next(other for other in tensor.op.inputs if other is not inner)
            if factor.ref() not in self.weights or inner.shape != tensor.shape:
                break
            tensor = inner
        return tensor

    @staticmethod
    def _reaches_cut(tensor: tf.Tensor, reached: dict, cuts: dict) -> bool:
        stack, seen = list(reached[tensor.ref()]), set()
        while stack:
            other = stack.pop()
            if other.ref() in cuts:
                return True
            if other.ref() not in seen:
                seen.add(other.ref())
                stack.extend(reached[other.ref()] or ())
        return False

    def _describe(self, tensor: tf.Tensor, root: tf.Tensor, consumers: dict) -> Cut:
        """The cut's road down to the root, and what lies above it."""
        tensor = self._with_complement(tensor, consumers)
        path: list[tf.Operation] = []
        ways, current = 1, tensor
        while current is not root:
            roads = consumers[current.ref()]
            ways *= len(roads)
            path.append(roads[0])
            current = next(out for out in roads[0].outputs if out is root or out.ref() in consumers)
        quotient, opaque, curved = self._above(tensor)
        return Cut(tensor, tuple(path), ways, quotient, opaque, curved)

    def _with_complement(self, tensor: tf.Tensor, consumers: dict) -> tf.Tensor:
        """`1 - ratio` is how ratio losses are written: keep the 1 with the ratio instead of calling it a constant."""
        roads = consumers.get(tensor.ref(), [])
        if len(roads) == 1 and roads[0].type == "Sub" and roads[0].inputs[1] is tensor:
            quotient, _, _ = self._above(tensor)
            same = roads[0].outputs[0].shape == tensor.shape
            if quotient is not None and same and roads[0].inputs[0].ref() not in self.depends:
                return roads[0].outputs[0]
        return tensor

    def _above(self, tensor: tf.Tensor) -> tuple[tf.Operation | None, str | None, str]:
        """Search upwards to the predictions: a quotient of sums, an unreadable operation, the nonlinear step."""
        quotient = opaque = None
        curved = ""
        stack, seen = [tensor.op], {tensor.op.name}
        while stack:
            operation = stack.pop(0)
            if operation.name in self.forward:
                continue
            if operation.type in _OPAQUE and opaque is None:
                opaque = operation.type
            if quotient is None and operation.type in DIVISIONS and operation.inputs[1].ref() in self.depends:
                if self._sums_above(operation.inputs[1]):
                    quotient = operation
            if not curved and self.linear_inputs(operation) is None:
                curved = operation.type
            for other in operation.inputs:
                if other.ref() in self.depends and other.op.name not in seen:
                    seen.add(other.op.name)
                    stack.append(other.op)
        return quotient, opaque, curved

    def _sums_above(self, tensor: tf.Tensor) -> bool:
        """Is `tensor` a sum of several predictions that is not just spread over them again?"""
        stack, seen = [tensor.op], {tensor.op.name}
        while stack:
            operation = stack.pop()
            if operation.name in self.forward:
                continue
            if _collects(operation):
                return True
            for other in operation.inputs:
                if other.ref() in self.depends and other.op.name not in seen:
                    seen.add(other.op.name)
                    stack.append(other.op)
        return False


def _differentiable(tensor: tf.Tensor) -> bool:
    """Can a gradient pass? Comparisons and class numbers (bool, int) cut it; lists of tensors (variant) do not."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype == tf.variant


def _is_held(tensor: tf.Tensor) -> bool:
    """Does this stand behind a `stop_gradient`?"""
    while tensor.op.type in ("Identity", "Cast", "Reshape", "ExpandDims", "Squeeze", "BroadcastTo"):
        tensor = tensor.op.inputs[0]
    return tensor.op.type in ("StopGradient", "PreventGradient")


def _has_own_gradient(operation: tf.Operation) -> bool:
    """tf.custom_gradient hides in an identity whose gradient need not be that of its value."""
    try:
        return bool(operation.get_attr("_gradient_op_type"))
    except ValueError:
        return False


def _collects(operation: tf.Operation, kinds: set[str] = _COLLECTING) -> bool:
    if operation.type not in kinds:
        return False
    if operation.type in ("Sum", "Mean"):  # over no axis at all it does nothing
        before, after = operation.inputs[0].shape, operation.outputs[0].shape
        return not before.is_fully_defined() or before != after
    return True


def _adds(operation: tf.Operation, other: tf.Tensor) -> bool:
    """Does this independent input enter as a summand that is not zero?"""
    summand = operation.type in _SUMS or (operation.type in _SELECTS and other is not operation.inputs[0])
    padding = operation.type == "PadV2" and other is operation.inputs[2]
    if not (summand or padding) or not _differentiable(other):
        return False
    value = tf.get_static_value(other)
    return value is None or bool(np.any(value != 0))
