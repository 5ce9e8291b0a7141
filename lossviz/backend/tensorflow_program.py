"""TensorFlow's graph as a `Program`: which kind each of its operations is, and how it is run and differentiated.

`_KINDS` names the operations that need no more than their kind, `_HOW` the word that some have beside it; `_LOWERED`
has a function for each that holds more (an axis, a permutation). What stands in none is "other": nothing is believed of
it.
"""

from __future__ import annotations

import itertools
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from lossviz.backend import graph
from lossviz.backend.program import Backward, Op, Program, Rounds, Value

_BACKWARD = "lossviz_gradient"  # the names of a backward pass begin so
#: What is computed for each element by itself, in the words of `keras.ops` and NumPy.
_ELEMENTWISE = {
    "Abs": "abs", "Sign": "sign", "Exp": "exp", "Expm1": "expm1", "Log": "log", "Log1p": "log1p", "Sqrt": "sqrt",
    "Rsqrt": "rsqrt", "Square": "square", "Reciprocal": "reciprocal", "Inv": "reciprocal", "Tanh": "tanh",
    "Relu": "relu", "Relu6": "relu6", "Elu": "elu", "Selu": "selu", "Softplus": "softplus", "Softsign": "softsign",
    "LeakyRelu": "leaky_relu", "Erf": "erf", "Erfc": "erfc", "Erfinv": "erfinv", "Lgamma": "lgamma",
    "Digamma": "digamma", "Sin": "sin", "Cos": "cos", "Tan": "tan", "Asin": "arcsin", "Acos": "arccos",
    "Atan": "arctan", "Atan2": "arctan2", "Sinh": "sinh", "Cosh": "cosh", "Asinh": "arcsinh", "Acosh": "arccosh",
    "Atanh": "arctanh", "Floor": "floor", "Ceil": "ceil", "Round": "round", "Rint": "round", "Maximum": "maximum",
    "Minimum": "minimum", "Pow": "power", "SquaredDifference": "squared_difference", "ClipByValue": "clip",
    "Xlogy": "xlogy", "Xlog1py": "xlog1py", "Xdivy": "xdivy", "FloorDiv": "floor_divide", "FloorMod": "mod",
    "Mod": "fmod", "IsNan": "isnan", "IsInf": "isinf", "IsFinite": "isfinite", "Equal": "equal",
    "NotEqual": "not_equal", "Greater": "greater", "GreaterEqual": "greater_equal", "Less": "less",
    "LessEqual": "less_equal", "LogicalAnd": "logical_and", "LogicalOr": "logical_or", "LogicalNot": "logical_not",
}  # fmt: skip
_OPAQUE = {
    **dict.fromkeys(("While", "StatelessWhile", "MapDefun"), "loop"),
    **dict.fromkeys(("If", "StatelessIf", "Case", "StatelessCase"), "branch"),
    **dict.fromkeys(("PartitionedCall", "StatefulPartitionedCall", "SymbolicGradient", "XlaLaunch"), "call"),
    **dict.fromkeys(("PyFunc", "PyFuncStateless", "EagerPyFunc"), "python"),
}
_HOW = {
    **_ELEMENTWISE, **_OPAQUE, **dict.fromkeys(("DivNoNan", "MulNoNan"), "no_nan"), "Const": "constant",
    "Identity": "identity", "IdentityN": "identity",
    **dict.fromkeys(("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"), "crossentropy"),
}  # fmt: skip

_KINDS = {
    **dict.fromkeys(("Identity", "EnsureShape", "CheckNumerics", "Snapshot"), "identity"),
    **dict.fromkeys(("StopGradient", "PreventGradient"), "stop"),
    **dict.fromkeys(("Mul", "MulNoNan"), "mul"),
    **dict.fromkeys(("RealDiv", "Div", "DivNoNan"), "div"),
    **dict.fromkeys(("Select", "SelectV2"), "select"),
    **dict.fromkeys(("Reshape", "Squeeze", "ExpandDims"), "reshape"),
    **dict.fromkeys(("BroadcastTo", "Tile"), "broadcast"),
    **dict.fromkeys(("Pad", "PadV2"), "pad"),
    **dict.fromkeys(("Conv2D", "Conv3D"), "window"),
    **dict.fromkeys(("ReadVariableOp", "ResourceGather", "ResourceGatherNd"), "read"),
    **dict.fromkeys(("SegmentSum", "UnsortedSegmentSum"), "scatter"),
    **dict.fromkeys(("Range", "Fill", "Where", "Unique", "UniqueV2", "ListDiff", "Bincount", "DenseBincount"), "fresh"),
    **dict.fromkeys(("UnsortedSegmentProd", "UnsortedSegmentMin"), "fresh"),
    "Cast": "cast", "Neg": "neg", "OneHot": "one_hot", "Placeholder": "feed",
    "MatrixDiagPartV3": "diagonal", "IdentityN": "custom", "Const": "fresh",
    **dict.fromkeys(_ELEMENTWISE, "elementwise"), **dict.fromkeys(_OPAQUE, "opaque"),
}  # fmt: skip

#: Sorted or transformed: how many of the last axes are mixed.
_MIXED = {
    **dict.fromkeys(("TopKV2", "TopK", "FFT", "IFFT", "RFFT", "IRFFT"), 1),
    **dict.fromkeys(("FFT2D", "IFFT2D", "RFFT2D", "IRFFT2D", "Cholesky", "MatrixInverse", "MatrixSolve"), 2),
    **dict.fromkeys(("MatrixTriangularSolve", "MatrixSquareRoot", "MatrixExponential", "Qr", "Svd"), 2),
}
_REDUCED = {
    "Sum": "sum", "Mean": "mean", "Max": "max", "Min": "min", "Prod": "prod", "All": "all", "Any": "any",
    "EuclideanNorm": "norm",
}  # fmt: skip


class TensorFlowProgram(Program):
    """A `graph.Trace` as a program. Operations are lowered when somebody first looks at them."""

    errors = (tf.errors.OpError,)

    def __init__(self, trace: graph.Trace):
        self.trace = trace
        self._values: dict = {}
        self._ops: dict[str, Op] = {}
        self._summaries: dict[tuple[Value, ...], tf.Tensor] = {}
        self._places: dict[str, int] = {}
        self.feeds = [self.value(tensor) for tensor in trace.feeds]

    def value(self, tensor: tf.Tensor) -> Value:
        found = self._values.get(tensor.ref())
        if found is None:
            shape = None if tensor.shape.rank is None else tuple(tensor.shape.as_list())
            found = Value(self, tensor, shape, tensor.dtype.name, tensor.value_index)
            self._values[tensor.ref()] = found
        return found

    def op_of(self, value: Value) -> Op:
        return self._op(value.source.op)

    def _op(self, operation: tf.Operation) -> Op:
        found = self._ops.get(operation.name)
        if found is None:
            found = self._ops[operation.name] = self._lowered(operation)
        return found

    def _lowered(self, operation: tf.Operation) -> Op:
        kind, info, order = _meaning(operation)
        forward, region = operation.name in self.trace.forward, self.trace.regions.get(operation.name)
        op = Op(kind, operation.type, operation.name, operation, forward, region)
        inputs = list(operation.inputs)
        op.inputs = tuple(self.value(inputs[k]) for k in (order or range(len(inputs))))
        op.outputs = tuple(self.value(output) for output in operation.outputs)
        op.info = info
        if operation.name.startswith(_BACKWARD):
            op.backward = True
            op.original = None if operation._original_op is None else self._op(operation._original_op)
        return op

    def constant(self, value: Value) -> np.ndarray | None:
        return tf.get_static_value(value.source)

    def runner(self, fetches: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], list[np.ndarray]]:
        run, dtypes = self.trace.runner(_sources(fetches), _sources(feeds)), [feed.source.dtype for feed in feeds]

        def cast(array: Any, dtype: tf.DType) -> Any:
            return np.asarray(array).astype(dtype.as_numpy_dtype, copy=False) if dtype.is_floating else array

        return lambda values: run([cast(array, dtype) for array, dtype in zip(values, dtypes, strict=True)])

    def whole(self, fetches: Iterable[Value]) -> Callable[[Sequence], dict[Value, np.ndarray]]:
        wanted = {value.source.ref(): value for value in fetches if value.dtype not in ("resource", "variant")}
        compiled = graph.Program(self.trace, _sources(wanted.values()))

        def run(leaves: Sequence) -> dict[Value, np.ndarray]:
            return {wanted[ref]: array for ref, array in compiled(leaves).items()}

        return run

    def rerun(self, roots: Sequence[Value], cuts: Sequence[Value], frontier: Iterable[Value]):
        compiled = graph.Rerun(_sources(roots), _sources(cuts), _sources(frontier))
        feeds = [self.value(tensor) for tensor in compiled.feeds]

        def run(points: Iterable[np.ndarray], values: Mapping[Value, np.ndarray]) -> list[np.ndarray]:
            fed = dict(zip(cuts, points, strict=True))
            return compiled(fed[v] if v in fed else values[v] for v in feeds)

        return run

    def gradients(self, root, cuts, seed=None, stops=()) -> list[Value]:
        seeded = None if seed is None else seed.source
        slopes = graph.gradients(self.trace.graph, root.source, _sources(cuts), seeded, _sources(stops))
        return [self.value(slope) for slope in slopes]

    def tangent(self, cut: Value, points: Sequence[Value]) -> tuple[list[int], list[Value], Value] | None:
        """Forward mode by differentiating twice: the derivative of `seed · d cut / d points` by the seed."""
        tensors = _sources(points)
        with self.trace.graph.as_default():
            seed = tf.zeros(tf.shape(cut.source), cut.source.dtype)
            if any(tensor is cut.source for tensor in tensors):
                slopes = [seed if tensor is cut.source else None for tensor in tensors]
            else:
                slopes = tf.gradients(cut.source, tensors, grad_ys=seed, stop_gradients=tensors)
            kept = [k for k, slope in enumerate(slopes) if slope is not None]
            directions = [tf.compat.v1.placeholder(tensors[k].dtype, tensors[k].shape) for k in kept]
            moved = []
            for k, direction in zip(kept, directions):
                slope = slopes[k]
                if slope is not seed:
                    direction = tf.gradients(tf.convert_to_tensor(slope), seed, grad_ys=direction)[0]
                if direction is not None:
                    moved.append(tf.convert_to_tensor(direction))
            if not moved:
                return None
            total = tf.add_n(moved) if len(moved) > 1 else tf.identity(moved[0])
        return kept, [self.value(direction) for direction in directions], self.value(total)

    def rounds(self, op: Op) -> Rounds | None:
        if op.word not in ("While", "StatelessWhile"):
            return None
        try:
            body = op.source.graph._get_function(op.source.get_attr("body").name).graph
        except (AttributeError, ValueError, KeyError):  # no function of this graph
            return None
        inside = TensorFlowProgram(graph.Trace(None, []))
        entering, leaving = (tuple(map(inside.value, tensors)) for tensors in (body.inputs, body.outputs))
        return Rounds(entering, leaving, tuple(range(len(entering))))

    def slopes(self, function: Callable) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        @tf.function(jit_compile=False)
        def compute(first, second, *more):
            with tf.GradientTape() as tape:
                tape.watch(second)
                value = function(first, tf.identity(second), *more)
            return value, tape.gradient(value, second, unconnected_gradients="zero")

        def run(*arrays: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            value, slope = compute(*(None if array is None else tf.constant(array) for array in arrays))
            return value.numpy(), slope.numpy()

        return run

    def rounding(self, root: Value, leaves: Sequence[np.ndarray]) -> tuple[float, str]:
        bounds = graph.rounding(self.trace, root.source, leaves)
        return sum(bounds.values()), max(bounds, key=bounds.get)

    def measured(self, values: Iterable[Value]) -> dict[Value, Value]:
        with self.trace.graph.as_default():
            return {value: self.value(tf.shape(value.source)) for value in values}

    def summary(self, values: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], np.ndarray]:
        key = tuple(values)
        if key not in self._summaries:
            with self.trace.graph.as_default():
                self._summaries[key] = tf.stack([_not_finite(value.source) for value in values])
        run = self.runner([self.value(self._summaries[key])], feeds)
        return lambda numbers: run(numbers)[0]

    def backward(self, root: Value, weights: Sequence[Value], scale: float) -> Backward:
        with self.trace.graph.as_default():
            seed = tf.constant(scale, root.source.dtype)
            found = tf.gradients(root.source, _sources(weights), grad_ys=seed, name=_BACKWARD) if weights else []
        slopes = [slope.values if isinstance(slope, tf.IndexedSlices) else slope for slope in found]
        return Backward([None if slope is None else self.value(slope) for slope in slopes], self.value(seed))

    def derivatives(self, op: Op) -> list[Op]:
        operations = self.trace.graph.get_operations()
        return [self._op(o) for o in operations if o._original_op is op.source and o.name.startswith(_BACKWARD)]

    def place(self, op: Op) -> int:
        if op.name not in self._places:
            self._places = {operation.name: k for k, operation in enumerate(self.trace.graph.get_operations())}
        return self._places[op.name]

    def frames(self, op: Op) -> list[tuple[str, int]]:
        return [(frame.filename, frame.lineno) for frame in op.source.traceback]

    def paths(self, variables: Iterable[Any]) -> dict[Value, str]:
        known = {id(variable.value.handle): (k, variable.path) for k, variable in enumerate(variables)}
        found = {
            self.value(inner): known.get(id(outer), (len(known), getattr(outer, "name", "") or "variable"))
            for outer, inner in self.trace.graph.captures
            if inner.dtype == tf.resource
        }
        return {value: found[value][1] for value in sorted(found, key=lambda value: found[value][0])}


def _not_finite(tensor: tf.Tensor) -> tf.Tensor:
    """How many of its numbers are -inf, inf and NaN, shape (3,)."""
    if tensor.dtype.is_complex:
        tensor = tf.abs(tensor)
    elif tensor.dtype not in (tf.float16, tf.bfloat16, tf.float32, tf.float64):
        tensor = tf.cast(tensor, tf.float32)
    return tf.raw_ops.DebugNumericSummaryV2(input=tensor, output_dtype=tf.float64, tensor_debug_mode=3)[2:]


def _sources(values: Iterable[Value]) -> list[tf.Tensor]:
    return [value.source for value in values]


# -- what operations are --------------------------------------------------------------------------------------


def has_own_gradient(operation: tf.Operation) -> bool:
    """tf.custom_gradient hides in an identity whose gradient need not be that of its value."""
    try:
        return bool(operation.get_attr("_gradient_op_type"))
    except ValueError:
        return False


def _meaning(operation: tf.Operation) -> tuple[str, dict[str, Any], Sequence[int] | None]:
    """The kind, what it leaves open, and the order of the inputs, where it is not TensorFlow's."""
    kind = operation.type
    if has_own_gradient(operation):
        return "custom", _how(kind), None
    if kind in _LOWERED:
        return _LOWERED[kind](operation)
    if kind in _REDUCED or kind in ("ArgMax", "ArgMin"):
        return _reduction(operation)
    if kind in _MIXED:
        return "mix", {"axes": _MIXED[kind], "by_order": kind.startswith("TopK")}, None
    if kind in ("MaxPool", "SegmentMax", "UnsortedSegmentMax"):
        info = {"how": "max", "nonlinear": True, "by_order": True}
        return ("window" if kind == "MaxPool" else "scatter"), info, None
    if kind in ("Shape", "Size", "Rank", "ZerosLike", "OnesLike"):
        return ("other" if kind.endswith("Like") else "fresh"), {"by_shape": True}, None
    return _KINDS.get(kind, "other"), _how(kind), None


def _how(kind: str) -> dict[str, Any]:
    return {"how": _HOW[kind]} if kind in _HOW else {}


def _static(tensor: tf.Tensor) -> np.ndarray | None:
    return tf.get_static_value(tensor)


def _whole(tensor: tf.Tensor) -> tuple[int, ...] | None:
    value = _static(tensor)
    return None if value is None else tuple(int(k) for k in np.atleast_1d(value))


def _reduction(operation: tf.Operation):
    picks = operation.type.startswith("Arg")
    how = operation.type.lower() if picks else _REDUCED[operation.type]
    keepdims = False if picks else bool(operation.get_attr("keep_dims"))
    info = {"how": how, "axes": _whole(operation.inputs[1]), "keepdims": keepdims}
    return "reduce", {**info, "nonlinear": how not in ("sum", "mean"), "by_order": how in ("max", "min")}, None


def _sum(*signs: int):
    def lowered(operation: tf.Operation):
        return "add", {"signs": signs or (1,) * len(operation.inputs)}, None

    return lowered


def _transpose(operation: tf.Operation):
    return "transpose", {"perm": _whole(operation.inputs[1])}, None


def _stack(operation: tf.Operation):
    return "concat", {"axis": operation.get_attr("axis"), "stacks": True}, None


def _concat(operation: tf.Operation):
    axis = _whole(operation.inputs[-1])
    return "concat", {"axis": None if axis is None else axis[0], "stacks": False}, None


def _unstack(operation: tf.Operation):
    rank = operation.inputs[0].shape.rank
    parts = None
    if rank is not None:
        axis = operation.get_attr("axis") % rank
        kept = tuple((k, None) for k in range(rank) if k != axis)
        parts = (kept,) * len(operation.outputs)
    return "slice", {"parts": parts}, None


def _slice(operation: tf.Operation):
    begin, size = _whole(operation.inputs[1]), _whole(operation.inputs[2])
    parts = None
    if begin is not None and size is not None:
        pairs = enumerate(zip(begin, size, strict=True))
        parts = (tuple((k, slice(b, None if s == -1 else b + s)) for k, (b, s) in pairs),)
    return "slice", {"parts": parts}, None


def _split(operation: tf.Operation):
    value, where = (0, 2) if operation.type == "SplitV" else (1, 0)
    order = (0, 1, 2) if operation.type == "SplitV" else (1, 0)
    axis, rank = _whole(operation.inputs[where]), operation.inputs[value].shape.rank
    parts = None
    if axis is not None and rank is not None:
        along = axis[0] % rank
        sizes = [output.shape[along] for output in operation.outputs]
        if None not in sizes:
            ends = np.cumsum([0, *sizes])
            parts = tuple(
                tuple((k, slice(int(a), int(b)) if k == along else None) for k in range(rank))
                for a, b in itertools.pairwise(ends)
            )
    return "slice", {"parts": parts}, order


def _strided_slice(operation: tf.Operation):
    """One entry for each axis of the output: which axis of the input it was (None: it is new), and its slice."""
    rank = operation.inputs[0].shape.rank
    given = [_whole(tensor) for tensor in operation.inputs[1:4]]
    if rank is None or any(one is None for one in given):
        return "slice", {"parts": None}, None
    begin, end, strides = given

    def bits(name: str) -> list[bool]:
        mask = operation.get_attr(f"{name}_mask")
        return [bool(mask >> k & 1) for k in range(len(begin))]

    from_start, to_end, ellipsis, new, shrink = map(bits, ("begin", "end", "ellipsis", "new_axis", "shrink_axis"))
    spread = rank - sum(not new[k] and not ellipsis[k] for k in range(len(begin)))
    parts: list[tuple[int | None, slice | None]] = []
    position = 0
    for k in range(len(begin)):
        if ellipsis[k]:
            parts.extend((position + j, None) for j in range(spread))
            position += spread
        elif new[k]:
            parts.append((None, None))
        else:
            if not shrink[k]:
                start, stop = None if from_start[k] else begin[k], None if to_end[k] else end[k]
                parts.append((position, slice(start, stop, strides[k])))
            position += 1
    parts.extend((k, None) for k in range(position, rank))
    return "slice", {"parts": (tuple(parts),)}, None


def _gather(operation: tf.Operation):
    axis = _whole(operation.inputs[2]) if len(operation.inputs) > 2 else (0,)
    return "pick", {"axis": None if axis is None else axis[0], "batch_dims": operation.get_attr("batch_dims")}, None


def _gather_nd(operation: tf.Operation):
    shape = operation.inputs[1].shape
    return "pick", {"depth": shape[-1] if shape.rank else None}, None


def _moved(how: str):
    def lowered(operation: tf.Operation):
        axes = _whole(operation.inputs[1]) if how == "reverse" else None
        return "move", {"how": how, "axes": axes, "nonlinear": how == "shuffle"}, None

    return lowered


def _cumulate(operation: tf.Operation):
    return "cumulate", {"axes": _whole(operation.inputs[1])}, None


def _channelwise(operation: tf.Operation):
    before, after = operation.inputs[0].shape, operation.outputs[0].shape
    last = operation.get_attr("data_format") in (b"NHWC", b"NDHWC")
    info = {"channels": bool(last and before.rank and before[-1] == after[-1])}
    return "window", info | ({"how": "mean"} if operation.type.startswith("AvgPool") else {}), None


def _leaky(operation: tf.Operation):
    return "elementwise", {"how": "leaky_relu", "slope": operation.get_attr("alpha")}, None


def _other(order: Sequence[int] | None = None, **info: Any):
    return lambda operation: ("other", info, order)


def _scatter(order: Sequence[int] | None, linear: int):
    def lowered(operation: tf.Operation):
        return "scatter", {"linear": linear}, order

    return lowered


def _product(*attributes: str):
    def lowered(operation: tf.Operation):
        return "contract", {"flipped": tuple(bool(operation.get_attr(name)) for name in attributes)}, None

    return lowered


def _einsum(operation: tf.Operation):
    written, result = operation.get_attr("equation").decode().replace(" ", "").split("->")
    operands = written.split(",")
    if "." in written:  # the axes that dots stand for, as the last of these
        ranks = [tensor.shape.rank for tensor in operation.inputs]
        if None in ranks:
            return "contract", {"equation": ((), "")}, None
        counts = [rank - len(one) + 3 if "." in one else 0 for rank, one in zip(ranks, operands)]
        dots = "".join(letter for letter in string.ascii_letters if letter not in written)[: max(counts)]
        operands = [one.replace("...", dots[len(dots) - count :]) for one, count in zip(operands, counts)]
        result = result.replace("...", dots)
    return "contract", {"equation": (tuple(operands), result)}, None


def _squash(how: str):
    def lowered(operation: tf.Operation):
        return "squash", {"how": how, "axis": -1}, None

    return lowered


_LOWERED: dict[str, Callable] = {
    **dict.fromkeys(("Add", "AddV2", "AddN", "BiasAdd"), _sum()),
    "Sub": _sum(1, -1),
    "Transpose": _transpose,
    "Pack": _stack,
    "ConcatV2": _concat,
    "Unpack": _unstack,
    "Slice": _slice,
    **dict.fromkeys(("Split", "SplitV"), _split),
    "StridedSlice": _strided_slice,
    **dict.fromkeys(("DepthwiseConv2dNative", "AvgPool", "AvgPool3D"), _channelwise),
    "Cumsum": _cumulate,
    "GatherV2": _gather,
    "GatherNd": _gather_nd,
    "ReverseV2": _moved("reverse"),
    "Roll": _moved("roll"),
    "ReverseSequence": _moved("sequence"),
    "RandomShuffle": _moved("shuffle"),
    "ScatterNd": _scatter((1, 0, 2), 1),
    **dict.fromkeys(("TensorScatterAdd", "TensorScatterSub", "TensorScatterUpdate"), _scatter((0, 2, 1), 2)),
    "MatMul": _product("transpose_a", "transpose_b"),
    **dict.fromkeys(("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _product("adj_x", "adj_y")),
    "Einsum": _einsum,
    "Softmax": _squash("softmax"),
    "LogSoftmax": _squash("log_softmax"),
    "LeakyRelu": _leaky,
    **dict.fromkeys(("Conv2DBackpropInput", "FusedBatchNormV3"), _other(affine=True)),
    **dict.fromkeys(("TensorListReserve", "EmptyTensorList"), _other(list="empty")),
    "TensorListPushBack": _other(list="put"),
    "TensorListSetItem": _other((0, 2, 1), list="put"),
    **dict.fromkeys(("TensorListFromTensor", "TensorListGetItem", "TensorListStack"), _other(list="take")),
    "TensorListConcat": _other(list="take"),
    "Sigmoid": _squash("sigmoid"),
}
