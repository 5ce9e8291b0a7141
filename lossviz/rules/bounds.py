"""What the last operations of a model allow its output to be, whatever its weights and its inputs are.

Interval reasoning on the program: the range of a value follows from those of the values it is made of, back to the
weights, which can be anything. Ranges are outer bounds: no number outside can come out. An operation that is not in the
table allows everything.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lossviz.backend.program import Op, Rounds, Value
from lossviz.engine import ops

_INF = math.inf


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`; arrays, whose axes have the size of the tensor's or 1.

    `open_low`, `open_high`: the end itself is never reached. `free`: where an end is infinite, the weights that are
    trained can push the number as far as you like; otherwise it is only not known. `rows`: the numbers along the last
    axis sum to 1.
    """

    low: np.ndarray
    high: np.ndarray
    open_low: bool = False
    open_high: bool = False
    free: bool = False
    rows: bool = False

    @property
    def bounded(self) -> bool:
        return bool(np.all(np.isfinite(self.low)) and np.all(np.isfinite(self.high)))

    @property
    def limited(self) -> bool:
        """Is there an end at all?"""
        return bool(np.any(np.isfinite(self.low)) or np.any(np.isfinite(self.high)))

    def within(self, low: float, high: float) -> bool:
        return bool(np.all(self.low >= low) and np.all(self.high <= high))

    @property
    def constant(self) -> bool:
        return self.bounded and bool(np.all(self.low == self.high))


def _range(low: float, high: float, **more) -> Range:
    return Range(np.asarray(low, np.float64), np.asarray(high, np.float64), **more)


ANYTHING = _range(-_INF, _INF)
NOTHING = _range(_INF, -_INF)  # of a list that holds nothing yet
FREE = replace(ANYTHING, free=True)

#: After so many rounds of a loop, an end of a range that still moves is taken to have none; after as many again all
#: ranges have settled, or are not known.
_ROUNDS = 4

_COMPARISONS = ("greater", "greater_equal", "less", "less_equal", "equal", "not_equal")
#: Range of a function whatever it is given, with whether each end is never reached.
_FIXED = {
    **dict.fromkeys(("tanh", "softsign", "erf"), (-1.0, 1.0, True, True)),
    **dict.fromkeys(("sin", "cos", "sign"), (-1.0, 1.0, False, False)),
    **dict.fromkeys(("sigmoid", "softmax"), (0.0, 1.0, True, True)),
    **dict.fromkeys((*_COMPARISONS, "logical_not"), (0.0, 1.0, False, False)),
    "arctan": (-math.pi / 2, math.pi / 2, True, True),
}
#: Growing functions: where they take a number, and the value that they approach and never reach below.
_GROWING: dict[str, tuple[Callable, float]] = {
    "exp": (np.exp, 0.0),
    "softplus": (lambda v: np.logaddexp(0.0, v), 0.0),
    "relu": (lambda v: np.maximum(v, 0.0), -_INF),
    "relu6": (lambda v: np.clip(v, 0.0, 6.0), -_INF),
    "elu": (lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0))), -1.0),
    "selu": (lambda v: 1.0507009873554805 * np.where(v > 0, v, 1.6732632423543772 * np.expm1(np.minimum(v, 0))),
             -1.7580993408473766),
    "expm1": (np.expm1, -1.0),
    "log1p": (np.log1p, -_INF),
    "log": (np.log, -_INF),
    "sqrt": (np.sqrt, -_INF),
    "floor": (np.floor, -_INF),
    "ceil": (np.ceil, -_INF),
    "round": (np.round, -_INF),
}  # fmt: skip
#: Functions of single numbers.
_POINTWISE: dict[str, Callable] = {
    **dict.fromkeys(("identity", "cast"), lambda v: v),
    "neg": np.negative,
    "sigmoid": lambda v: 0.5 * (1 + np.tanh(0.5 * v)),
    "tanh": np.tanh,
    "softplus": lambda v: np.logaddexp(0.0, v),
    "erf": np.vectorize(math.erf, otypes=[float]),
    "erfc": np.vectorize(math.erfc, otypes=[float]),
    "exp": np.exp,
    "square": np.square,
    "silu": lambda v: v * 0.5 * (1 + np.tanh(0.5 * v)),
    "power": np.power,
    "mul": np.multiply,
    "add": np.add,
    "div": np.divide,
}
#: Kinds whose operations are told apart by the function that they compute.
_FUNCTIONS = ("elementwise", "squash", "custom")


def _word(op: Op) -> str:
    """The function that it computes, or its kind."""
    return op.info.get("how", "") if op.kind in _FUNCTIONS else op.kind


class Bounds:
    """Ranges of the values of one program. `trainable` are the weights that training moves, or what they are read
    from; `fed` are the numbers of inputs, if data count."""

    def __init__(self, trainable: Iterable[Value], fed: Mapping[Value, np.ndarray] | None = None):
        self.weights = set(trainable)
        self.fed = fed or {}
        self.found: dict[Value, Range] = {}
        self.loops: dict[Op, list[Range]] = {}

    def of(self, value: Value) -> Range:
        """Not by recursion: models are deep."""
        stack = [value]
        while stack:
            current = stack[-1]
            if current in self.found:
                stack.pop()
                continue
            waiting = [v for v in self._needed(current) if v not in self.found]
            if waiting:
                stack += waiting
            else:
                self.found[stack.pop()] = self._range(current)
        return self.found[value]

    def _needed(self, value: Value) -> Sequence[Value]:
        """The inputs whose range matters: none behind what bounds its result by itself."""
        op = value.op
        if _word(op) in _FIXED or op.kind in ("fresh", "read") or self._linear_in_weights(op):
            return []
        if op.kind == "custom":
            return op.inputs[value.index : value.index + 1]
        return [v for v in op.inputs if _numbers(v)]

    def _range(self, value: Value) -> Range:
        array = self.fed.get(value, value.known)
        if array is not None and array.size and array.dtype.kind in "fiub":
            values = array.astype(np.float64)
            if not np.all(np.isfinite(values)):
                return ANYTHING
            if values.size > 4096:
                return _range(values.min(), values.max())
            return Range(values, values)
        found = self._made(value, [self.found[v] for v in self._needed(value)])
        return _only_one(found, value) if _fits(found, value) else _hull(found)

    def _made(self, value: Value, inputs: list[Range]) -> Range:
        """The range of what an operation makes of numbers in these ranges."""
        op, word = value.op, _word(value.op)
        if self._trained(value) or self._linear_in_weights(op):
            return FREE
        if word in _FIXED:
            low, high, open_low, open_high = _FIXED[word]
            return _range(low, high, open_low=open_low, open_high=open_high, rows=ops.is_softmax(op))
        if op.kind == "opaque":
            return self._looped(op)[value.index]
        if word in _GROWING:
            return _grown(word, *_GROWING[word], inputs[0])
        if (handler := getattr(self, f"on_{word}", None)) is not None:
            return handler(op, *inputs)
        if _is_pointwise(op) and len(inputs) == 1:
            return _of_function(_pointwise(op), inputs[0]) or ANYTHING
        return ANYTHING

    def _trained(self, value: Value) -> bool:
        """Is it a weight that training moves, with nothing but a change of shape or dtype?"""
        value = ops.behind(value, "transpose")
        return value in self.weights or (value.op.kind == "read" and not self.weights.isdisjoint(value.op.inputs))

    def _linear_in_weights(self, op: Op) -> bool:
        """Then it can be anything, whatever the rest is."""
        return (op.kind == "add" or _is_affine(op)) and any(map(self._trained, op.inputs))

    def _looped(self, op: Op) -> list[Range]:
        """The ranges of what a loop leaves: what goes in, and what any number of rounds makes of it."""
        if op not in self.loops:
            rounds = op.inputs[0].program.rounds(op) if op.inputs else None
            self.loops[op] = self._settled(op, rounds) if rounds is not None else [ANYTHING] * len(op.outputs)
        return self.loops[op]

    def _settled(self, op: Op, rounds: Rounds) -> list[Range]:
        inside = [inner for value, inner in zip(op.inputs, rounds.entering) if self._trained(value)]
        ranges = [_hull(self.found.get(value, ANYTHING)) for value in op.inputs]
        for k in range(2 * _ROUNDS):
            one = Bounds(inside)
            one.found = dict(zip(rounds.entering, ranges))
            after = [one.of(value) if _numbers(value) else ANYTHING for value in rounds.leaving]
            both = list(ranges)
            for place, found in zip(rounds.carried, after):
                if place is not None:
                    both[place] = _union(ranges[place], found)
            if all(map(_alike, ranges, both)):
                return [_hull(found) if at is None else both[at] for at, found in zip(rounds.carried, after)]
            ranges = both if k < _ROUNDS else list(map(_widened, ranges, both))
        return [ANYTHING] * len(op.outputs)

    def _curve(self, op: Op) -> Range | None:
        """The range of a product that is a function of one number, such as x times its own sigmoid."""
        other = _above(op.inputs[1])
        for base in _above(op.inputs[0]):
            function = _function(op.outputs[0], base) if base in other and base in self.found else None
            if function is not None:
                return _of_function(function, self.found[base])
        return None

    # -- one kind or function each -------------------------------------------------------------------------

    def on_identity(self, op: Op, one: Range, *rest: Range) -> Range:
        return one

    on_cast = on_stop = on_identity

    def on_reshape(self, op: Op, one: Range, *rest: Range) -> Range:
        return _hull(one)

    on_slice = on_pick = on_broadcast = on_move = on_transpose = on_reshape

    def on_contract(self, op: Op, *inputs: Range) -> Range:
        return FREE if any(one.free for one in inputs) else ANYTHING

    def on_window(self, op: Op, *inputs: Range) -> Range:
        if _is_affine(op):
            return self.on_contract(op, *inputs)
        one, how = _hull(inputs[0]), op.info.get("how")
        if how == "sum" and one.limited:  # at an edge, of fewer numbers
            size = op.info["size"]
            return _range(min(0.0, size * float(one.low)), max(0.0, size * float(one.high)), free=one.free)
        return one if how in ("mean", "max", "min") else ANYTHING

    def on_other(self, op: Op, *inputs: Range) -> Range:
        if _is_affine(op):
            return self.on_contract(op, *inputs)
        what = op.info.get("list")
        if what == "put":
            return _union(inputs[0], inputs[1])
        return {"empty": NOTHING, "take": _hull(inputs[0]) if inputs else ANYTHING}.get(what, ANYTHING)

    def on_add(self, op: Op, *inputs: Range) -> Range:
        signs = op.info["signs"]
        if signs == (1, -1) and op.inputs[0] is op.inputs[1]:
            return _range(0.0, 0.0)
        blended = _blend(op)
        if blended and all(value in self.found for value in blended):
            share, first, second = (self.found[value] for value in blended)
            if share.within(0, 1):
                return _union(first, second)
        return functools.reduce(_plus, (one if sign > 0 else _negative(one) for one, sign in zip(inputs, signs)))

    def on_neg(self, op: Op, one: Range) -> Range:
        return _negative(one)

    def on_mul(self, op: Op, one: Range, other: Range) -> Range:
        if op.inputs[0] is op.inputs[1]:
            return self.on_square(op, one)
        if _of_norm("rsqrt", *op.inputs):
            return _range(-1.0, 1.0)
        plain = _product(one, other)
        return plain if plain.limited else self._curve(op) or plain

    def on_square(self, op: Op, one: Range) -> Range:
        high = np.maximum(one.low**2, one.high**2)
        low = np.where((one.low <= 0) & (one.high >= 0), 0.0, np.minimum(one.low**2, one.high**2))
        return Range(low, high, free=one.free)

    def on_abs(self, op: Op, one: Range) -> Range:
        low = np.where((one.low <= 0) & (one.high >= 0), 0.0, np.minimum(np.abs(one.low), np.abs(one.high)))
        return Range(low, np.maximum(np.abs(one.low), np.abs(one.high)), free=one.free)

    def on_div(self, op: Op, one: Range, other: Range) -> Range:
        if op.info.get("how") == "no_nan" and not np.all(other.low > 0):
            return ANYTHING
        if _of_norm("sqrt", *op.inputs):
            return _range(-1.0, 1.0)
        part = _part_of_sum(*op.inputs)
        if part and np.all(one.low >= 0):
            return _range(0.0, 1.0, open_low=one.open_low, open_high=False, rows=part == "last")
        positive = np.all(other.low > 0) or (np.all(other.low >= 0) and other.open_low)
        if not positive and not np.all(other.high < 0):
            return ANYTHING
        with np.errstate(divide="ignore"):
            inverse = Range(1 / other.high, 1 / other.low, other.open_high, other.open_low)
        return _product(one, inverse)

    def on_maximum(self, op: Op, one: Range, other: Range) -> Range:
        low = np.maximum(one.low, other.low)
        return Range(low, np.maximum(one.high, other.high), _opens(low, one, other, "low"), free=one.free or other.free)

    def on_minimum(self, op: Op, one: Range, other: Range) -> Range:
        high = np.minimum(one.high, other.high)
        ends = _opens(high, one, other, "high")
        return Range(np.minimum(one.low, other.low), high, open_high=ends, free=one.free or other.free)

    def on_clip(self, op: Op, one: Range, low: Range, high: Range) -> Range:
        return self.on_minimum(op, self.on_maximum(op, one, low), high)

    def on_leaky_relu(self, op: Op, one: Range, *rest: Range) -> Range:
        slope = op.info["slope"] if "slope" in op.info else op.inputs[1].known
        if slope is None or slope < 0:
            return ANYTHING
        return _grown("leaky_relu", lambda v: np.where(v > 0, v, slope * v), -_INF, one)

    def on_select(self, op: Op, condition: Range, one: Range, other: Range) -> Range:
        return _union(one, other)

    def on_reduce(self, op: Op, one: Range, *rest: Range) -> Range:
        if op.info["how"] in ("mean", "max", "min"):
            return _hull(one)
        if op.info["how"] != "sum":
            return ANYTHING
        low = 0.0 if np.all(one.low >= 0) else -_INF
        high = 0.0 if np.all(one.high <= 0) else _INF
        return _range(low, high, open_low=one.open_low and low == 0, free=one.free)

    def on_concat(self, op: Op, *inputs: Range) -> Range:
        output = op.outputs[0]
        if op.info["stacks"] or output.shape is None:
            return _all(inputs)
        rank, where = output.rank, op.info["axis"]
        parts, values = zip(*((one, value) for one, value in zip(inputs, op.inputs) if value.rank == rank))
        sizes = [None if where is None else value.shape[where] for value in values]
        if where in (None, 0, -rank) or None in sizes or sum(sizes) > 4096:
            return _all(parts)
        spread = []
        for part, size in zip(parts, sizes):
            shape = [size if k == where % rank else 1 for k in range(rank)]
            kept = part if list(part.low.shape) == shape else _hull(part)
            spread.append([np.broadcast_to(end, shape) for end in (kept.low, kept.high)])
        low, high = (np.concatenate([one[k] for one in spread], axis=where) for k in (0, 1))
        return Range(low, high, any(p.open_low for p in parts), any(p.open_high for p in parts), _all_free(parts))


def _is_affine(op: Op) -> bool:
    """Does it add up products of its inputs?"""
    return op.kind == "contract" or bool(op.info.get("affine")) or (op.kind == "window" and "how" not in op.info)


def _plus(one: Range, other: Range) -> Range:
    if (one.free and not one.limited) or (other.free and not other.limited):
        return FREE
    free = one.free or other.free
    ends = {"open_low": one.open_low or other.open_low, "open_high": one.open_high or other.open_high}
    return Range(one.low + other.low, one.high + other.high, free=free, **ends)


def _product(one: Range, other: Range) -> Range:
    fixed = one.constant or other.constant
    corners = np.stack(np.broadcast_arrays(*(_times(a, b) for a in (one.low, one.high) for b in _ends(other))))
    positive = np.all(one.low >= 0) and np.all(other.low >= 0)
    ends = {"open_low": one.open_low or other.open_low, "open_high": one.open_high or other.open_high}
    if not (positive or fixed):
        never = any(each.open_low and each.open_high for each in (one, other))
        ends = {"open_low": never and bool(np.all(corners.min(0) != 0)),
                "open_high": never and bool(np.all(corners.max(0) != 0))}  # fmt: skip
    elif fixed and np.any((one if one.constant else other).low < 0):
        ends = {"open_low": ends["open_high"], "open_high": ends["open_low"]}
    scaled = other if one.constant else one
    factor = one if one.constant else other
    free = fixed and scaled.free and bool(np.all(factor.low != 0))
    return Range(corners.min(0), corners.max(0), free=free, **ends)


def _all_free(parts: Sequence[Range]) -> bool:
    """Is every end that is not finite pushed by weights that are trained?"""
    return any(part.free for part in parts) and all(part.free or part.bounded for part in parts)


def _ends(one: Range) -> tuple[np.ndarray, np.ndarray]:
    return one.low, one.high


def _times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The product, in which 0 times infinity is 0, as at the ends of ranges."""
    with np.errstate(invalid="ignore"):
        return np.where((a == 0) | (b == 0), 0.0, a * b)


def _negative(one: Range) -> Range:
    return Range(-one.high, -one.low, one.open_high, one.open_low, one.free)


def _opens(end: np.ndarray, one: Range, other: Range, side: str) -> bool:
    """Is the end of a maximum (or minimum) one that neither reaches?"""
    reached = [np.any(getattr(each, side) == end) and not getattr(each, f"open_{side}") for each in (one, other)]
    return not any(reached)


def _hull(one: Range) -> Range:
    return (
        one
        if one is NOTHING
        else replace(one, low=np.asarray(np.min(one.low)), high=np.asarray(np.max(one.high)), rows=False)
    )


def _union(one: Range, other: Range) -> Range:
    return _all([part for part in (one, other) if part is not NOTHING]) if one is not other else one


def _all(parts: Sequence[Range]) -> Range:
    hulls = [_hull(part) for part in parts]
    low, high = min(float(h.low) for h in hulls), max(float(h.high) for h in hulls)
    open_low = all(h.open_low for h in hulls if h.low == low)
    open_high = all(h.open_high for h in hulls if h.high == high)
    return _range(low, high, open_low=open_low, open_high=open_high, free=_all_free(parts))


def _numbers(value: Value) -> bool:
    return value.is_floating or value.is_integer or value.dtype in ("bool", "variant")


def _alike(one: Range, other: Range) -> bool:
    return bool(np.all(one.low == np.min(other.low)) and np.all(one.high == np.max(other.high)))


def _widened(before: Range, after: Range) -> Range:
    """The range after a round, without the ends that the round has moved."""
    if _alike(before, after):
        return after
    low, high = float(after.low), float(after.high)
    return _range(low if low >= before.low else -_INF, high if high <= before.high else _INF)


def _blend(op: Op) -> tuple[Value, Value, Value] | None:
    """z, a and b of a sum `z * a + (1 - z) * b`."""
    if op.info["signs"] != (1, 1) or any(value.op.kind != "mul" for value in op.inputs):
        return None
    one, other = (value.op.inputs for value in op.inputs)
    for k in (0, 1):
        for j in (0, 1):
            for share, rest, a, b in ((one[k], other[j], one[1 - k], other[1 - j]),
                                      (other[j], one[k], other[1 - j], one[1 - k])):  # fmt: skip
                if rest.op.info.get("signs") == (1, -1) and rest.op.inputs[1] is share:
                    whole = rest.op.inputs[0].known
                    if whole is not None and np.all(whole == 1):
                        return share, a, b
    return None


def _above(value: Value, depth: int = 8) -> dict[Value, None]:
    """The values that `value` is made of, number by number."""
    found = {value: None}
    if depth and _is_pointwise(value.op):
        for each in _pointwise_inputs(value):
            found |= _above(each, depth - 1)
    return found


def _pointwise_inputs(value: Value) -> Sequence[Value]:
    return value.op.inputs[value.index : value.index + 1] if value.op.kind == "custom" else value.op.inputs


def _function(value: Value, base: Value, depth: int = 9) -> Callable | None:
    """`value` as a function of the numbers of `base` alone, or None."""
    if value is base:
        return lambda v: v
    if value.known is not None and value.rank == 0 and base.known is None:
        return lambda v: np.full_like(v, value.known)
    if not depth or not _is_pointwise(value.op):
        return None
    parts = [_function(each, base, depth - 1) for each in _pointwise_inputs(value)]
    if any(part is None for part in parts):
        return None
    function = _pointwise(value.op)
    return lambda v: function(*(part(v) for part in parts))


def _is_pointwise(op: Op) -> bool:
    """Is it a known function of single numbers? Negative powers are left out: a grid misses their pole."""
    return _word(op) in _POINTWISE and op.info.get("exponent", 0) >= 0


def _pointwise(op: Op) -> Callable:
    """What the operation makes of numbers."""
    if op.kind == "add":
        return lambda *parts: sum(sign * part for sign, part in zip(op.info["signs"], parts))
    if "exponent" in op.info:
        return lambda v: v ** op.info["exponent"]
    return _POINTWISE[_word(op)]


def _of_function(function: Callable, base: Range) -> Range | None:
    low, high = float(np.min(base.low)), float(np.max(base.high))
    with np.errstate(all="ignore"):
        points = np.linspace(max(low, -30.0), min(high, 30.0), 6001)
        values = function(points)
        far = function(np.array([max(low, -1e6), min(high, 1e6)]))
        if not np.all(np.isfinite(values)) or not np.all(np.isfinite(far)):
            return None
        ends = []
        for sign in (1, -1):
            k = int(np.argmin(sign * values))
            left, right = points[max(k - 1, 0)], points[min(k + 1, len(points) - 1)]
            for _ in range(3):
                near = np.linspace(left, right, 101)
                j = int(np.argmin(sign * function(near)))
                left, right = near[max(j - 1, 0)], near[min(j + 1, 100)]
            lowest = min(sign * float(function(near)[j]), float((sign * far).min()))
            ends.append(sign * (lowest if lowest > -1e3 else -_INF))
    return _range(ends[0], ends[1], free=base.free)


def _of_norm(root: str, top: Value, bottom: Value) -> bool:
    """Is the quotient (`root` is sqrt), or product (rsqrt), a vector that is divided by its own length?"""
    found, shapes = False, []
    while (word := _word(bottom.op)) in ("identity", "reshape", "broadcast", "maximum", "add", "minimum", root):
        if word in ("maximum", "add", "minimum"):
            shrinks = word == "minimum" and root == "rsqrt" and not found
            grows = word != "minimum" and (found or root == "sqrt")
            if not _adds_little(bottom.op) or not (shrinks or grows):
                return False
        found |= word == root
        shapes += _laid_out(bottom)
        bottom = bottom.op.inputs[0]
    if not found or not _sums(bottom.op, shapes):
        return False
    square = bottom.op.inputs[0].op
    return _word(square) in ("square", "mul") and all(value is top for value in square.inputs)


def _laid_out(value: Value) -> list[tuple]:
    """The shape that is given here to a sum: by a reshape, or before numbers are repeated along its axes."""
    kind = value.op.kind
    return [(value if kind == "reshape" else value.op.inputs[0]).shape] if kind in ("reshape", "broadcast") else []


def _sums(op: Op, shapes: Iterable[tuple]) -> bool:
    """Is it a sum that keeps its axes, by itself or by being reshaped, and has no other of these `shapes` later?"""
    if op.kind != "reduce" or op.info["how"] != "sum" or op.info["axes"] is None or op.inputs[0].shape is None:
        return False
    before, shapes = op.inputs[0].shape, set(shapes)
    kept = tuple(1 if k in {axis % len(before) for axis in op.info["axes"]} else n for k, n in enumerate(before))
    return shapes <= {kept} and bool(op.info["keepdims"] or shapes)


def _adds_little(op: Op) -> bool:
    """Is the second of its inputs a number that is known and not negative, and added, if it is a sum?"""
    small = op.inputs[1].known
    return small is not None and not np.any(small < 0) and op.info.get("signs", (1, 1)) == (1, 1)


def _only_one(found: Range, value: Value) -> Range:
    """A single number that has to sum to 1 is 1."""
    return _range(1.0, 1.0, rows=True) if found.rows and value.rank and value.shape[-1] == 1 else found


def _fits(found: Range, value: Value) -> bool:
    """Do the arrays of the range belong to the axes of the value?"""
    shape = value.shape
    for end in (found.low, found.high):
        if end.ndim and (shape is None or end.ndim > len(shape)):
            return False
        if any(n not in (1, size) for n, size in zip(reversed(end.shape), reversed(shape or []))):
            return False
    return True


def _grown(word: str, function: Callable, never: float, one: Range) -> Range:
    with np.errstate(all="ignore"):
        low, high = function(one.low), function(one.high)
    low, high = np.where(np.isnan(low), -_INF, low), np.where(np.isnan(high), _INF, high)
    asymptote = np.isfinite(never) and bool(np.all(low <= never))
    return Range(low, high, asymptote or (one.open_low and word in ("exp", "softplus")), False, one.free)


def _part_of_sum(top: Value, bottom: Value) -> str:
    """Is the quotient a part of a sum, `x / sum(x)`, perhaps with something small and positive added below?

    "last": its parts along the last axis sum to 1; "some": they sum to at most 1, along another axis or not exactly.
    """
    exact, shapes = True, []
    while (word := _word(bottom.op)) in ("identity", "reshape", "broadcast", "maximum", "add"):
        if word in ("maximum", "add"):
            if not _adds_little(bottom.op):
                return ""
            exact = False
        shapes += _laid_out(bottom)
        bottom = bottom.op.inputs[0]
    if not _sums(bottom.op, shapes) or bottom.op.inputs[0] is not top or not top.rank:
        return ""
    last = {axis % top.rank for axis in bottom.op.info["axes"]} == {top.rank - 1}
    return "last" if last and exact else "some"
