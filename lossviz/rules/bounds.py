"""What the last operations of a model allow its output to be, whatever its weights and its inputs are.

Interval reasoning on the graph: the range of a tensor follows from those of the tensors it is made of, back to the
weights, which can be anything. Ranges are outer bounds: no number outside can come out. An operation that is not in the
table allows everything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import tensorflow as tf

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

#: After so many rounds of a loop its ranges have settled, or are not known.
_ROUNDS = 4

#: Range of an operation whatever it is given, with whether each end is never reached.
_FIXED = {
    "Sigmoid": (0.0, 1.0, True, True),
    "Tanh": (-1.0, 1.0, True, True),
    "Softsign": (-1.0, 1.0, True, True),
    "Erf": (-1.0, 1.0, True, True),
    "Sin": (-1.0, 1.0, False, False),
    "Cos": (-1.0, 1.0, False, False),
    "Atan": (-math.pi / 2, math.pi / 2, True, True),
    "Softmax": (0.0, 1.0, True, True),
    "Sign": (-1.0, 1.0, False, False),
    "LogicalNot": (0.0, 1.0, False, False),
    **dict.fromkeys(("Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"), (0.0, 1.0, False, False)),
}
#: Growing functions: where they take a number, and the value that they approach and never reach below.
_GROWING: dict[str, tuple[Callable, float]] = {
    "Exp": (np.exp, 0.0),
    "Softplus": (lambda v: np.logaddexp(0.0, v), 0.0),
    "Relu": (lambda v: np.maximum(v, 0.0), -_INF),
    "Relu6": (lambda v: np.clip(v, 0.0, 6.0), -_INF),
    "Elu": (lambda v: np.where(v > 0, v, np.expm1(np.minimum(v, 0))), -1.0),
    "Selu": (lambda v: 1.0507009873554805 * np.where(v > 0, v, 1.6732632423543772 * np.expm1(np.minimum(v, 0))),
             -1.7580993408473766),
    "LeakyRelu": (None, -_INF),
    "Expm1": (np.expm1, -1.0),
    "Log1p": (np.log1p, -_INF),
    "Log": (np.log, -_INF),
    "Sqrt": (np.sqrt, -_INF),
    "Floor": (np.floor, -_INF),
    "Ceil": (np.ceil, -_INF),
    "Round": (np.round, -_INF),
    "Rint": (np.round, -_INF),
}  # fmt: skip
_SAME = {"Identity", "IdentityN", "Cast", "StopGradient", "EnsureShape", "PreventGradient", "CheckNumerics", "Snapshot"}
_SHAPING = {"Reshape", "Squeeze", "ExpandDims", "StridedSlice", "Slice", "GatherV2", "Tile", "ReverseV2", "Transpose"}
_AFFINE = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum", "Conv2D", "Conv3D", "BiasAdd",
           "DepthwiseConv2dNative", "Conv2DBackpropInput", "FusedBatchNormV3"}  # fmt: skip
_SUMS = {"AddV2", "Add", "Sub"}
_LOOPS = {"While", "StatelessWhile"}
#: Lists of tensors that loops fill, as recurrent layers do: what each makes of the ranges of its inputs.
_LISTS = {"TensorListFromTensor", "TensorListGetItem", "TensorListStack", "TensorListConcat"}
#: Functions of single numbers.
_POINTWISE: dict[str, Callable] = {
    "Identity": lambda v: v,
    "Cast": lambda v: v,
    "Neg": np.negative,
    "Sigmoid": lambda v: 0.5 * (1 + np.tanh(0.5 * v)),
    "Tanh": np.tanh,
    "Softplus": lambda v: np.logaddexp(0.0, v),
    "Erf": np.vectorize(math.erf, otypes=[float]),
    "Erfc": np.vectorize(math.erfc, otypes=[float]),
    "Exp": np.exp,
    "Square": np.square,
    "Pow": np.power,
    "IdentityN": lambda v, *more: v,
    "Mul": np.multiply,
    "AddV2": np.add,
    "Add": np.add,
    "Sub": np.subtract,
    "RealDiv": np.divide,
}


class Bounds:
    """Ranges of the tensors of one graph. `trainable` are the handles of the weights that training moves; `known` gives
    the array of a tensor that is the same for every weight (a constant, and an input if data count), or None."""

    def __init__(self, trainable: list[tf.Tensor], known: Callable[[tf.Tensor], np.ndarray | None]):
        self.weights = {tensor.ref() for tensor in trainable}
        self.known = known
        self.found: dict = {}
        self.loops: dict = {}

    def of(self, tensor: tf.Tensor) -> Range:
        """Not by recursion: models are deep."""
        stack = [tensor]
        while stack:
            current = stack[-1]
            if current.ref() in self.found:
                stack.pop()
                continue
            waiting = [t for t in self._needed(current) if t.ref() not in self.found]
            if waiting:
                stack += waiting
            else:
                self.found[stack.pop().ref()] = self._range(current)
        return self.found[tensor.ref()]

    def _needed(self, tensor: tf.Tensor) -> list[tf.Tensor]:
        """The inputs whose range matters: none behind what bounds its result by itself."""
        operation = tensor.op
        if operation.type in _FIXED or operation.type in ("Const", "Placeholder", "ReadVariableOp", "ResourceGather"):
            return []
        if operation.type in _AFFINE | _SUMS and any(map(self._trained, operation.inputs)):
            return []  # linear in something trained: it can be anything, whatever the rest is
        if operation.type in ("TensorListReserve", "EmptyTensorList"):
            return []
        if operation.type == "IdentityN":
            return [operation.inputs[tensor.value_index]]
        return [t for t in operation.inputs if _numbers(t)]

    def _range(self, tensor: tf.Tensor) -> Range:
        array = self.known(tensor)
        if array is not None and array.size and array.dtype.kind in "fiub":
            values = array.astype(np.float64)
            if not np.all(np.isfinite(values)):
                return ANYTHING
            if values.size > 4096:
                return _range(values.min(), values.max())
            return Range(values, values)
        operation = tensor.op
        if operation.type in _FIXED:
            low, high, open_low, open_high = _FIXED[operation.type]
            found = _range(low, high, open_low=open_low, open_high=open_high, rows=operation.type == "Softmax")
            return _only_one(found, tensor)
        if operation.type in ("ReadVariableOp", "ResourceGather"):
            return FREE if self._trained(tensor) else ANYTHING
        if operation.type in _AFFINE | _SUMS and any(map(self._trained, operation.inputs)):
            return FREE
        inputs = [self.found[t.ref()] for t in self._needed(tensor)]
        if operation.type in _LOOPS:
            return self._looped(operation)[tensor.value_index]
        handler = getattr(self, f"on_{operation.type.lower()}", None)
        if handler is not None:
            found = handler(operation, *inputs)
        elif operation.type in _SAME:
            found = inputs[0]
        elif operation.type in _SHAPING | _LISTS:
            found = _hull(inputs[0])
        elif operation.type in _AFFINE:
            found = FREE if any(one.free for one in inputs) else ANYTHING
        elif operation.type in _GROWING:
            found = _grown(operation, inputs[0])
        else:
            found = ANYTHING
        return _only_one(found, tensor) if _fits(found, tensor) else _hull(found)

    def _trained(self, tensor: tf.Tensor) -> bool:
        """Is it a weight that training moves, with nothing but a change of shape or dtype?"""
        while tensor.op.type in ("Identity", "Cast", "Reshape", "ExpandDims", "Transpose"):
            tensor = tensor.op.inputs[0]
        return tensor.op.type in ("ReadVariableOp", "ResourceGather") and tensor.op.inputs[0].ref() in self.weights

    def _looped(self, operation: tf.Operation) -> list[Range]:
        """The ranges of what a loop leaves: what goes in, and what any number of rounds makes of it."""
        if operation.name not in self.loops:
            try:
                body = operation.graph._get_function(operation.get_attr("body").name).graph
                inside = {i.ref() for t, i in zip(operation.inputs, body.inputs) if t.ref() in self.weights}
                ranges = [self.found.get(tensor.ref(), ANYTHING) for tensor in operation.inputs]
                for _ in range(_ROUNDS):
                    rounds = Bounds([], self.known)
                    rounds.weights = inside
                    rounds.found = {i.ref(): one for i, one in zip(body.inputs, ranges)}
                    after = [rounds.of(t) if _numbers(t) else ANYTHING for t in body.outputs]
                    both = [_union(one, other) for one, other in zip(ranges, after)]
                    if all(map(_alike, ranges, both)):
                        break
                    ranges = both
                else:
                    moved = [not _alike(one, other) for one, other in zip(ranges, both)]
                    ranges = [ANYTHING] * len(ranges) if any(moved) else both
            except (AttributeError, ValueError, KeyError):  # a loop that is no function of this graph
                ranges = [ANYTHING] * len(operation.outputs)
            self.loops[operation.name] = ranges
        return self.loops[operation.name]

    def _curve(self, operation: tf.Operation) -> Range | None:
        """The range of a product that is a function of one number, such as x times its own sigmoid."""
        for base in _above(operation.inputs[0]) & _above(operation.inputs[1]):
            base = base.deref()
            function = _function(operation.outputs[0], base)
            if base.ref() in self.found and function is not None:
                return _of_function(function, self.found[base.ref()])
        return None

    # -- one operation each -------------------------------------------------------------------------------

    def on_tensorlistreserve(self, operation) -> Range:
        return NOTHING

    on_emptytensorlist = on_tensorlistreserve

    def on_tensorlistsetitem(self, operation, items: Range, index: Range, item: Range, *more) -> Range:
        return _union(items, item)

    def on_tensorlistpushback(self, operation, items: Range, item: Range) -> Range:
        return _union(items, item)

    def on_addv2(self, operation, one: Range, other: Range) -> Range:
        blended = _blend(operation)
        if blended and all(t.ref() in self.found for t in blended):
            share, first, second = (self.found[t.ref()] for t in blended)
            if share.within(0, 1):
                return _union(first, second)
        if (one.free and not one.limited) or (other.free and not other.limited):
            return FREE
        free = one.free or other.free
        ends = {"open_low": one.open_low or other.open_low, "open_high": one.open_high or other.open_high}
        return Range(one.low + other.low, one.high + other.high, free=free, **ends)

    on_add = on_addv2

    def on_sub(self, operation, one: Range, other: Range) -> Range:
        if operation.inputs[0] is operation.inputs[1]:
            return _range(0.0, 0.0)
        return self.on_addv2(operation, one, _negative(other))

    def on_neg(self, operation, one: Range) -> Range:
        return _negative(one)

    def on_mul(self, operation, one: Range, other: Range) -> Range:
        if operation.inputs[0] is operation.inputs[1]:
            return self.on_square(operation, one)
        if _of_norm("Rsqrt", *operation.inputs):
            return _range(-1.0, 1.0)
        plain = _product(one, other)
        return plain if plain.limited else self._curve(operation) or plain

    def on_square(self, operation, one: Range) -> Range:
        high = np.maximum(one.low**2, one.high**2)
        low = np.where((one.low <= 0) & (one.high >= 0), 0.0, np.minimum(one.low**2, one.high**2))
        return Range(low, high, free=one.free)

    def on_abs(self, operation, one: Range) -> Range:
        low = np.where((one.low <= 0) & (one.high >= 0), 0.0, np.minimum(np.abs(one.low), np.abs(one.high)))
        return Range(low, np.maximum(np.abs(one.low), np.abs(one.high)), free=one.free)

    def on_realdiv(self, operation, one: Range, other: Range) -> Range:
        if _of_norm("Sqrt", *operation.inputs):
            return _range(-1.0, 1.0)
        part = _part_of_sum(*operation.inputs)
        if part and np.all(one.low >= 0):
            return _range(0.0, 1.0, open_low=one.open_low, open_high=False, rows=part == "last")
        positive = np.all(other.low > 0) or (np.all(other.low >= 0) and other.open_low)
        if not positive and not np.all(other.high < 0):
            return ANYTHING
        with np.errstate(divide="ignore"):
            inverse = Range(1 / other.high, 1 / other.low, other.open_high, other.open_low)
        return _product(one, inverse)

    on_div = on_realdiv

    def on_divnonan(self, operation, one: Range, other: Range) -> Range:
        return self.on_realdiv(operation, one, other) if np.all(other.low > 0) else ANYTHING

    def on_maximum(self, operation, one: Range, other: Range) -> Range:
        low = np.maximum(one.low, other.low)
        return Range(low, np.maximum(one.high, other.high), _opens(low, one, other, "low"), free=one.free or other.free)

    def on_minimum(self, operation, one: Range, other: Range) -> Range:
        high = np.minimum(one.high, other.high)
        ends = _opens(high, one, other, "high")
        return Range(np.minimum(one.low, other.low), high, open_high=ends, free=one.free or other.free)

    def on_clipbyvalue(self, operation, one: Range, low: Range, high: Range) -> Range:
        return self.on_minimum(operation, self.on_maximum(operation, one, low), high)

    def on_select(self, operation, condition: Range, one: Range, other: Range) -> Range:
        return _union(one, other)

    on_selectv2 = on_select

    def on_mean(self, operation, one: Range, *rest) -> Range:
        return _hull(one)

    on_max = on_min = on_avgpool = on_maxpool = on_mean

    def on_sum(self, operation, one: Range, *rest) -> Range:
        low = 0.0 if np.all(one.low >= 0) else -_INF
        high = 0.0 if np.all(one.high <= 0) else _INF
        return _range(low, high, open_low=one.open_low and low == 0, free=one.free)

    def on_concatv2(self, operation, *inputs: Range) -> Range:
        *parts, axis = inputs
        tensors = operation.inputs[:-1]
        rank = tensors[0].shape.rank
        if rank is None or not axis.constant:
            return _all(parts)
        where = int(axis.low) % rank
        sizes = [tensor.shape[where] for tensor in tensors]
        if where == 0 or None in sizes or sum(sizes) > 4096:
            return _all(parts)
        spread = []
        for part, size in zip(parts, sizes):
            plain = _hull(part)
            shape = [size if k == where else 1 for k in range(rank)]
            same = part.low.ndim == rank and all(n == (size if k == where else 1) for k, n in enumerate(part.low.shape))
            kept = part if same else plain
            spread.append([np.broadcast_to(end, shape) for end in (kept.low, kept.high)])
        low, high = (np.concatenate([one[k] for one in spread], axis=where) for k in (0, 1))
        return Range(low, high, any(p.open_low for p in parts), any(p.open_high for p in parts), _all_free(parts))

    def on_pack(self, operation, *inputs: Range) -> Range:
        return _all(list(inputs))


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


def _all_free(parts: list[Range]) -> bool:
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
    return replace(one, low=np.asarray(np.min(one.low)), high=np.asarray(np.max(one.high)), rows=False)


def _union(one: Range, other: Range) -> Range:
    return _all([part for part in (one, other) if part is not NOTHING]) if one is not other else one


def _all(parts: list[Range]) -> Range:
    hulls = [_hull(part) for part in parts]
    low, high = min(float(h.low) for h in hulls), max(float(h.high) for h in hulls)
    open_low = all(h.open_low for h in hulls if h.low == low)
    open_high = all(h.open_high for h in hulls if h.high == high)
    return _range(low, high, open_low=open_low, open_high=open_high, free=_all_free(parts))


def _numbers(tensor: tf.Tensor) -> bool:
    dtype = tensor.dtype
    return dtype.is_floating or dtype.is_integer or dtype.is_bool or dtype == tf.variant


def _alike(one: Range, other: Range) -> bool:
    return bool(np.all(one.low == np.min(other.low)) and np.all(one.high == np.max(other.high)))


def _blend(operation: tf.Operation) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor] | None:
    """z, a and b of a sum `z * a + (1 - z) * b`."""
    if any(tensor.op.type != "Mul" for tensor in operation.inputs):
        return None
    one, other = (tuple(tensor.op.inputs) for tensor in operation.inputs)
    for k in (0, 1):
        for j in (0, 1):
            for share, rest, a, b in ((one[k], other[j], one[1 - k], other[1 - j]),
                                      (other[j], one[k], other[1 - j], one[1 - k])):  # fmt: skip
                if rest.op.type == "Sub" and rest.op.inputs[1] is share:
                    whole = tf.get_static_value(rest.op.inputs[0])
                    if whole is not None and np.all(np.asarray(whole) == 1):
                        return share, a, b
    return None


def _above(tensor: tf.Tensor, depth: int = 8) -> set:
    """References of the tensors that `tensor` is made of, number by number."""
    found = {tensor.ref()}
    if depth and tensor.op.type in _POINTWISE:
        found |= {ref for each in tensor.op.inputs for ref in _above(each, depth - 1)}
    return found


def _function(tensor: tf.Tensor, base: tf.Tensor, depth: int = 9) -> Callable | None:
    """`tensor` as a function of the numbers of `base` alone, or None."""
    if tensor is base:
        return lambda v: v
    constant = tf.get_static_value(tensor) if tensor.op.type == "Const" else None
    if constant is not None and np.ndim(constant) == 0 and base.op.type != "Const":
        return lambda v: np.full_like(v, constant)
    if not depth or tensor.op.type not in _POINTWISE:
        return None
    parts = [_function(each, base, depth - 1) for each in tensor.op.inputs]
    if any(part is None for part in parts):
        return None
    return lambda v: _POINTWISE[tensor.op.type](*(part(v) for part in parts))


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


def _of_norm(root: str, top: tf.Tensor, bottom: tf.Tensor) -> bool:
    """Is the quotient (`root` is Sqrt), or product (Rsqrt), a vector that is divided by its own length?"""
    found = False
    while bottom.op.type in ("Identity", "Reshape", "Maximum", "AddV2", "Add", "Minimum", root):
        if bottom.op.type in ("Maximum", "AddV2", "Add", "Minimum"):
            small = tf.get_static_value(bottom.op.inputs[1])
            shrinks = bottom.op.type == "Minimum" and root == "Rsqrt" and not found
            grows = bottom.op.type != "Minimum" and (found or root == "Sqrt")
            if small is None or np.any(np.asarray(small) < 0) or not (shrinks or grows):
                return False
        found |= bottom.op.type == root
        bottom = bottom.op.inputs[0]
    if not found or bottom.op.type != "Sum" or not bottom.op.get_attr("keep_dims"):
        return False
    square = bottom.op.inputs[0].op
    return square.type in ("Square", "Mul") and all(tensor is top for tensor in square.inputs)


def _only_one(found: Range, tensor: tf.Tensor) -> Range:
    """A single number that has to sum to 1 is 1."""
    return _range(1.0, 1.0, rows=True) if found.rows and tensor.shape.rank and tensor.shape[-1] == 1 else found


def _fits(found: Range, tensor: tf.Tensor) -> bool:
    """Do the arrays of the range belong to the axes of the tensor?"""
    shape = tensor.shape.as_list() if tensor.shape.rank is not None else None
    for end in (found.low, found.high):
        if end.ndim and (shape is None or end.ndim > len(shape)):
            return False
        if any(n not in (1, size) for n, size in zip(reversed(end.shape), reversed(shape or []))):
            return False
    return True


def _grown(operation: tf.Operation, one: Range) -> Range:
    function, never = _GROWING[operation.type]
    if operation.type == "LeakyRelu":
        slope = operation.get_attr("alpha")
        function = lambda v: np.where(v > 0, v, slope * v)  # noqa: E731
    with np.errstate(all="ignore"):
        low, high = function(one.low), function(one.high)
    low, high = np.where(np.isnan(low), -_INF, low), np.where(np.isnan(high), _INF, high)
    asymptote = np.isfinite(never) and bool(np.all(low <= never))
    return Range(low, high, asymptote or (one.open_low and operation.type in ("Exp", "Softplus")), False, one.free)


def _part_of_sum(top: tf.Tensor, bottom: tf.Tensor) -> str:
    """Is the quotient a part of a sum, `x / sum(x)`, perhaps with something small and positive added below?

    "last": its parts along the last axis sum to 1; "some": they sum to at most 1, along another axis or not exactly.
    """
    exact = True
    while bottom.op.type in ("Identity", "Reshape", "Maximum", "AddV2", "Add"):
        if bottom.op.type in ("Maximum", "AddV2", "Add"):
            small = tf.get_static_value(bottom.op.inputs[1])
            if small is None or np.any(np.asarray(small) < 0):
                return ""
            exact = False
        bottom = bottom.op.inputs[0]
    if bottom.op.type != "Sum" or bottom.op.inputs[0] is not top or not bottom.op.get_attr("keep_dims"):
        return ""
    axes = tf.get_static_value(bottom.op.inputs[1])
    if axes is None or not top.shape.rank:
        return ""
    last = {int(axis) % top.shape.rank for axis in np.ravel(axes)} == {top.shape.rank - 1}
    return "last" if last and exact else "some"
