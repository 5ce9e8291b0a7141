"""Find the element losses of a traced loss, and how they are added up.

This module knows programs and nothing of Keras, of a backend or of any particular loss. The method:

1. Going back from the scalar through operations that are linear in what depends on the predictions (the *tail*),
   `Reader.find_tail` cuts every path once: at the input of the first reduction, else where linearity ends.
2. The cut values are the element losses `e`; with `g` the program's own gradient of the loss, `e * g` are their
   shares. No rule about weights, masks or divisors is needed: the gradient carries them.
3. `Program.rerun` computes the tail from other values, which proves that it is linear instead of believing the table
   of kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from lossviz.backend.program import Op, Value, ancestors
from lossviz.engine import ops


@dataclass(frozen=True, eq=False)
class Cut:
    """A tensor of element losses, and the operations that lead from it to its root (`path[0]` consumes it).

    `ways` counts the roads from the cut to the root. `quotient` is the division whose two sides both depend
    on the predictions, where there is one above the cut; `opaque` the type of an operation that cannot be read.
    """

    tensor: Value
    path: tuple[Op, ...]
    ways: int
    quotient: Op | None
    opaque: str | None
    curved: str


@dataclass(frozen=True, eq=False)
class Tail:
    """The linear end of the graph between `cuts` and `root`; `has_constant` says that something is added to it.

    `frontier` are the tensors that enter it and do not depend on the predictions.
    """

    root: Value
    cuts: tuple[Cut, ...]
    frontier: tuple[Value, ...]
    has_constant: bool
    inside: frozenset[Value] = frozenset()  # what stands between root and cuts


def apart(tails: Sequence[Tail]) -> bool:
    """Can these tails be computed together from other values for their cuts, or does one hold a cut of another?"""
    owned = [cut.tensor for tail in tails for cut in tail.cuts]
    used = {value for tail in tails for value in (*tail.inside, *tail.frontier)}
    return len(tails) < 2 or (len(set(owned)) == len(owned) and not used.intersection(owned))


def rerun_of(tails: Sequence[Tail]) -> Callable:
    """The roots of these tails, to be computed from other values for their cuts: `Program.rerun`."""
    roots = [tail.root for tail in tails]
    cuts = [cut.tensor for tail in tails for cut in tail.cuts]
    return roots[0].program.rerun(roots, cuts, [value for tail in tails for value in tail.frontier])


class Reader:
    """What depends on what, in the part of a program that leads to `roots`."""

    def __init__(
        self,
        roots: Sequence[Value],
        sources: Iterable[Value],
        weights: Iterable[Value] = (),
        given: Iterable[Value] = (),
    ):
        """`given` are the sources that count as fixed factors of the others: a learned weight times a loss is linear
        in the loss."""
        self.weights = set(weights)
        self.depends = set(sources)
        self.free = self.depends.difference(given)
        for op in ancestors(roots):
            for reached in (self.depends, self.free):
                if any(value in reached for value in op.inputs):
                    reached.update(output for output in op.outputs if output.differentiable)
            if op.forward or any(value in self.weights for value in op.inputs):
                self.weights.update(output for output in op.outputs if not op.forward or output.dtype == "bool")

    def linear_inputs(self, op: Op) -> list[Value] | None:
        """The dependent inputs if the operation is linear in them, else None."""
        dependent = [k for k, value in enumerate(op.inputs) if value in self.depends]
        linear = ops.linear_in(op)
        if not dependent or not linear or (op.kind == "contract" and op.forward):
            return None
        held = [ops.is_held(op.inputs[k]) for k in dependent]
        if any(held) and not all(held):  # x + stop_gradient(y) is one element: alone, y would depend on nothing
            return None
        if op.kind in ("mul", "div"):  # a learned weight is a factor of what it weighs
            dependent = [k for k in dependent if op.inputs[k] in self.free] or dependent
        allowed = {
            ops.ALL: True,
            ops.ONE: len(dependent) == 1,
            ops.CHOICES: 0 not in dependent,
            ops.FIRST: dependent[-1] < op.info.get("linear", 1),
        }
        return [op.inputs[k] for k in dependent] if allowed[linear] else None

    def find_tail(self, root: Value, stops: Iterable[Value] = (), bounded: bool = True) -> Tail:
        """Walk back from `root` and cut every path exactly once.

        `stops` are tensors that must be cuts of their own. With `bounded` the walk does not enter the
        forward pass: predictions are where it ends.
        """
        stops = set(stops)
        reached: dict = {}  # value -> its linear inputs, None where linearity (or the loss) ends
        consumers: dict = {}  # value -> operations of the tail that consume it
        frontier: dict = {}
        has_constant = False
        stack = [root] if root in self.depends else []
        while stack:
            tensor = stack.pop()
            if tensor in reached:
                continue
            operation = tensor.op
            ends = tensor in stops or (bounded and operation.forward)
            inputs = None if ends else self.linear_inputs(operation)
            reached[tensor] = inputs
            if inputs is None:
                continue
            used = set(inputs)
            for other in operation.inputs:
                if other in used:
                    consumers.setdefault(other, []).append(operation)
                else:
                    frontier[other] = other
                    has_constant |= ops.adds_constant(operation, other)
            stack.extend(inputs)

        cuts = self._place_cuts(root, reached, stops, ops.collects) if reached else []
        if any(self._mixes(cut, reached) for cut in cuts):
            cuts = self._place_cuts(root, reached, stops, ops.collects_or_moves)
        made = tuple(self._describe(tensor, root, consumers) for tensor in cuts)
        inside = frozenset(value for value, inputs in reached.items() if inputs is not None)
        return Tail(root, made, tuple(frontier.values()), has_constant or root not in self.depends, inside)

    @staticmethod
    def _mixes(cut: Value, reached: dict) -> bool:
        """Are elements added to others after a move, above this cut and where all is linear?"""
        adds = moves = False
        stack, seen = [cut], {cut}
        while stack:
            tensor = stack.pop()
            inputs = reached[tensor] or ()
            kind = ops.KINDS[tensor.op.kind]
            adds |= len(inputs) > 1 and kind.adds
            moves |= bool(inputs) and kind.shifts
            for other in inputs:
                if other not in seen:
                    seen.add(other)
                    stack.append(other)
        return adds and moves

    def _place_cuts(self, root: Value, reached: dict, stops: set, before: Callable[[Op], bool]) -> list[Value]:
        collects: dict = {}  # does something below this tensor, inside the tail, add elements up?

        def collecting(tensor: Value) -> bool:
            todo = [tensor]
            while todo:
                top = todo[-1]
                inputs = reached[top]
                waiting = [other for other in inputs or () if other not in collects]
                if waiting:
                    todo.extend(waiting)
                    continue
                here = top in stops or (inputs is not None and before(top.op))
                collects[top] = here or any(collects[other] for other in inputs or ())
                todo.pop()
            return collects[tensor]

        collecting(root)
        demoted: set = set()
        while True:
            cuts: dict = {}
            seen: set = set()
            stack = [root]
            while stack:
                tensor = stack.pop()
                if tensor in seen:
                    continue
                seen.add(tensor)
                inputs = reached[tensor]
                if inputs is None:
                    cuts[tensor] = tensor
                    continue
                for other in inputs:
                    clean = not collects[other] and other not in demoted
                    if clean and before(tensor.op):
                        other = self._unweighted(other, reached, stops)
                        cuts[other] = other
                    else:
                        stack.append(other)
            # a tensor that is both a cut and on the road of a deeper cut would count twice
            doubled = {cut for cut in cuts if reached[cut] is not None and self._reaches_cut(cut, reached, cuts)}
            if not doubled:
                return list(cuts.values())
            demoted |= doubled

    def _unweighted(self, tensor: Value, reached: dict, stops: set) -> Value:
        """The element losses before sample weights and masks were multiplied in, where those change no shape."""
        while tensor.op.kind == "mul" and tensor not in stops and len(reached[tensor] or ()) == 1:
            inner = reached[tensor][0]
            factor = next(other for other in tensor.op.inputs if other is not inner)
            if factor not in self.weights or inner.shape != tensor.shape:
                break
            tensor = inner
        return tensor

    @staticmethod
    def _reaches_cut(tensor: Value, reached: dict, cuts: dict) -> bool:
        stack, seen = list(reached[tensor]), set()
        while stack:
            other = stack.pop()
            if other in cuts:
                return True
            if other not in seen:
                seen.add(other)
                stack.extend(reached[other] or ())
        return False

    def _describe(self, tensor: Value, root: Value, consumers: dict) -> Cut:
        """The cut's road down to the root, and what lies above it."""
        tensor = self._with_complement(tensor, consumers)
        path: list[Op] = []
        ways, current = 1, tensor
        while current is not root:
            roads = consumers[current]
            ways *= len(roads)
            path.append(roads[0])
            current = next(out for out in roads[0].outputs if out is root or out in consumers)
        quotient, opaque, curved = self._above(tensor)
        return Cut(tensor, tuple(path), ways, quotient, opaque, curved)

    def _with_complement(self, tensor: Value, consumers: dict) -> Value:
        """`1 - ratio` is how ratio losses are written: keep the 1 with the ratio instead of calling it a constant."""
        roads = consumers.get(tensor, [])
        if len(roads) == 1 and ops.subtracts(roads[0], tensor):
            quotient, _, _ = self._above(tensor)
            same = roads[0].outputs[0].shape == tensor.shape
            if quotient is not None and same and roads[0].inputs[0] not in self.depends:
                return roads[0].outputs[0]
        return tensor

    def _above(self, tensor: Value) -> tuple[Op | None, str | None, str]:
        """Search upwards to the predictions: a quotient of sums, an unreadable operation, the nonlinear step."""
        quotient = opaque = None
        curved = ""
        for op in self._between(tensor):
            if op.kind == "opaque" and opaque is None:
                opaque = op.word
            if quotient is None and op.kind == "div" and op.inputs[1] in self.depends:
                if any(ops.collects(above) for above in self._between(op.inputs[1])):
                    quotient = op
            if not curved and self.linear_inputs(op) is None:
                curved = op.word
        return quotient, opaque, curved

    def _between(self, value: Value) -> Iterator[Op]:
        """The operations of the loss from this value up to the predictions, nearest first."""
        queue, seen = [value.op], {value.op}
        for op in queue:
            if op.forward:
                continue
            yield op
            for other in op.inputs:
                if other in self.depends and other.op not in seen:
                    seen.add(other.op)
                    queue.append(other.op)
