"""What each kind of operation means: the one table that cutting, naming and telling read.

`linear` says in which inputs an operation is linear; everything else says what it does to elements. A new operation
of a backend gets its kind where the backend is lowered; a new kind gets a row here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from lossviz.backend.program import Op, Value
from lossviz.engine import axes
from lossviz.engine.axes import Dims

#: In which inputs an operation is linear. ALL: in all together (sums). FIRST: in the first, or in as many as `info`
#: says under "linear", if nothing else depends on the predictions. ONE: in any of them, if it alone depends on them.
ALL, FIRST, ONE, CHOICES = "all", "first", "one", "choices"


@dataclass(frozen=True)
class Kind:
    """One kind of operation.

    linear: see above; CHOICES: in what a selection chooses from, if the condition is independent; "" in none.
    collects: it adds elements up or picks some: a cut is placed before it.
    adds: it adds elements to others, one by one.
    moves: an element comes to stand elsewhere. shifts: also along an axis, so that adding two of them mixes positions.
    axes: names of the axes of an output, from the names of those of the inputs.
    said: how `steps` tells it; "" for what changes neither number nor axes, "other" for the backend's own word.
    """

    axes: Callable[[Op, list[Dims | None], tuple, int], Dims | None]
    linear: str = ""
    collects: bool = False
    adds: bool = False
    moves: bool = False
    shifts: bool = False
    said: str = "other"


KINDS: dict[str, Kind] = {
    # what only passes numbers on
    "identity": Kind(axes.broadcast, FIRST, said=""),
    "cast": Kind(axes.broadcast, FIRST, said=""),
    "stop": Kind(axes.broadcast, said=""),  # no derivative passes
    # arithmetic
    "add": Kind(axes.broadcast, ALL, adds=True, said="add"),  # info: signs
    "neg": Kind(axes.broadcast, FIRST, said=""),  # a part takes it for the sign of its elements
    "mul": Kind(axes.broadcast, ONE, said="scale"),
    "div": Kind(
        axes.broadcast, FIRST, said="scale"
    ),  # info: how is "no_nan" where a zero makes 0 of anything (mul too)
    "select": Kind(axes.broadcast, CHOICES, said="select"),
    "elementwise": Kind(axes.broadcast),  # info: how, the name in keras.ops or NumPy: exp, maximum, logical_and, ...
    "one_hot": Kind(axes.one_hot),
    "squash": Kind(axes.broadcast),  # info: how (softmax, log_softmax over the last axis; sigmoid)
    # shapes
    "reshape": Kind(axes.regroup, FIRST, moves=True, said=""),  # info: promotes (puts axes of 1 before all others)
    "transpose": Kind(axes.permute, FIRST, moves=True, shifts=True, said="transpose"),  # info: perm
    "broadcast": Kind(axes.broadcast, FIRST, moves=True, said="broadcast"),
    "concat": Kind(axes.join, ALL, moves=True, said=""),  # info: axis, stacks
    "slice": Kind(axes.cut_out, FIRST, moves=True, shifts=True, said="pick"),  # info: parts
    "pad": Kind(axes.broadcast, FIRST, moves=True, shifts=True, said="pad"),
    "move": Kind(axes.turn, FIRST, moves=True, shifts=True, said="move"),  # info: how, axes
    "diagonal": Kind(axes.diagonal, FIRST, moves=True, said="diagonal"),
    # what adds up or picks
    "reduce": Kind(axes.reduce, FIRST, collects=True, said="reduce"),  # info: how, axes, keepdims
    "contract": Kind(axes.contract, ONE, collects=True, said="weighted sum"),  # info: equation, or flipped
    "pick": Kind(axes.pick, FIRST, collects=True, said="pick"),  # info: axis and batch_dims, or depth
    "cumulate": Kind(axes.without, FIRST, collects=True, said="cumulative sum"),  # info: axes
    "scatter": Kind(axes.nameless, FIRST, collects=True, said="scatter"),  # info: linear, how
    # of a convolution, or info: how (mean, max, sum), channels
    "window": Kind(axes.window, FIRST, collects=True, said="window"),
    # what is made anew, or cannot be read
    "mix": Kind(axes.mix),  # info: axes (how many of the last ones), by_order
    "fresh": Kind(axes.nameless),  # info: by_shape; how is "constant" where the code holds the numbers
    "read": Kind(axes.nameless),  # a weight
    "feed": Kind(axes.nameless),
    "custom": Kind(axes.passed),  # it has a gradient of its own; info: how, where its value is that of this function
    "opaque": Kind(axes.nameless),  # info: how (loop, branch, call, python)
    "other": Kind(axes.broadcast),  # info: affine (in all its inputs), list (of a loop's tensors: empty, put, take)
}


def linear_in(op: Op) -> str:
    """`Kind.linear`; "" for the operations of a kind that are not (the maximum among the reductions)."""
    return "" if op.info.get("nonlinear") else KINDS[op.kind].linear


def collects(op: Op) -> bool:
    """Does it add elements up, or pick some? A reduction over no axis at all does nothing."""
    if not KINDS[op.kind].collects or linear_in(op) == "":
        return False
    before, after = op.inputs[0], op.outputs[0]
    return op.kind != "reduce" or not before.is_static or before.shape != after.shape


def collects_or_moves(op: Op) -> bool:
    """The same, with all that moves elements."""
    return collects(op) or KINDS[op.kind].moves


def line(value: Value, kinds: Iterable[str] = ("identity", "cast", "reshape")) -> Iterator[Value]:
    """The value, what it was before the last operation of these kinds, and so on."""
    yield value
    while value.op.kind in kinds:
        value = value.op.inputs[0]
        yield value


def behind(value: Value, *more: str) -> Value:
    """What the value was before casts, reshapes and operations of `more` kinds."""
    return list(line(value, ("identity", "cast", "reshape", *more)))[-1]


def is_held(value: Value) -> bool:
    """Does this stand behind a `stop_gradient`?"""
    return behind(value, "broadcast").op.kind == "stop"


def is_softmax(op: Op) -> bool:
    """Is it a softmax over the last axis, by itself?"""
    return op.kind == "squash" and op.info["how"] == "softmax" and op.info["axis"] in (-1, (op.inputs[0].rank or 0) - 1)


def chooses_by_value(op: Op) -> bool:
    """Does it depend on the order of its elements which of them goes where?"""
    return bool(op.info.get("by_order"))


def looks_at_values(op: Op) -> bool:
    """False where only the shape of its inputs matters."""
    return not op.info.get("by_shape")


def adds_constant(op: Op, other: Value) -> bool:
    """Does this input, independent of what the operation is linear in, enter as a summand that is not zero?"""
    summand = op.kind in ("add", "concat") or (op.kind == "select" and other is not op.inputs[0])
    padding = op.kind == "pad" and len(op.inputs) > 2 and other is op.inputs[2]
    if not (summand or padding) or not other.differentiable:
        return False
    return other.known is None or bool((other.known != 0).any())


def subtracts(op: Op, value: Value) -> bool:
    """Does the value enter this sum with a minus?"""
    signs = op.info.get("signs")
    return signs is not None and any(v is value and sign < 0 for v, sign in zip(op.inputs, signs))


def propagate(operations: Iterable[Op], known: Mapping[Value, Dims]) -> dict[Value, Dims]:
    """Names for the outputs of `operations` (inputs before consumers), starting from those `known`.

    Returns dimensions for every output of known rank.
    """
    found = dict(known)
    for op in operations:
        inputs = [found.get(value) for value in op.inputs]
        for index, output in enumerate(op.outputs):
            if output in found or output.shape is None:
                continue
            try:
                dims = KINDS[op.kind].axes(op, inputs, output.shape, index)
            except (ValueError, IndexError, TypeError, KeyError):  # in a form not foreseen: nothing is known
                dims = None
            if dims is None or len(dims) != len(output.shape) or not axes.fits(dims, output.shape):
                dims = ((),) * len(output.shape)
            found[output] = dims
    return found
