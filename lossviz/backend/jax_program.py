"""A jaxpr as a `Program`: flattened, which kind each of its operations is, and how it is run and differentiated.

The jaxpr of a traced loss is inlined into one list of nodes. A node computes arrays from arrays: one equation, or,
for derivatives, a part of the list that is differentiated by JAX when it runs. `_KINDS` and `_LOWERED` say what an
equation means; a few that JAX writes in several (a mean, a division that gives 0 where it would divide by 0) are read
as one. What stands in no table is "other": nothing is believed of it.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.extend.core as jex
import jax.numpy as jnp
import numpy as np

from lossviz.backend.program import Op, Program, Rounds, Value, inputs_first

try:
    from jax.extend.core import DebugInfo, jaxprs_in_params
except ImportError:  # older JAX, such as the 0.7 that Colab has
    from jax._src.core import DebugInfo, jaxprs_in_params

#: What stands around the forward pass and around each call of a layer in the names of operations.
FORWARD, CALL = "lossviz.forward", "lossviz.call."
_CALL = re.compile(re.escape(CALL) + r"(\d+)")

_INLINED = {"jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"}
_PYTHON = {"pure_callback", "io_callback"}
#: Functions of JAX that are compiled by name and mean one thing as a whole.
_NAMED = {
    "log_softmax": ("squash", {"how": "log_softmax"}),
    "softmax": ("squash", {"how": "softmax"}),
    "_roll_static": ("move", {"how": "roll", "axes": None}),
    "_roll_dynamic": ("move", {"how": "roll", "axes": None}),
    "_one_hot": ("one_hot", {}), "soft_sign": ("elementwise", {"how": "softsign"}),
    **{how: ("elementwise", {"how": how}) for how in ("softplus", "logaddexp", "silu", "relu", "relu6")},
    **{how: ("elementwise", {"how": how}) for how in ("elu", "selu", "leaky_relu")},
}  # fmt: skip
_MADE_HERE = DebugInfo("lossviz", "one equation", None, None)
#: A constant with more elements than this is not looked at.
_LARGEST = 1 << 22


class Node:
    """One step of the flat program: arrays from arrays. `compute` may be traced by JAX."""

    __slots__ = ("caller", "compute", "eqn", "forward", "inputs", "outputs", "readers", "region")

    def __init__(self, inputs: Sequence[Value], compute: Callable[..., Sequence], eqn: Any = None):
        self.inputs, self.compute, self.eqn = tuple(inputs), compute, eqn
        self.outputs: tuple[Value, ...] = ()
        self.caller = eqn  # the equation that was inlined, of which this is a part
        self.forward, self.region = False, None
        self.readers = 0  # how many operations read its first output

    @property
    def word(self) -> str:
        if self.eqn is None:
            return "gradient"
        called = _name(self.eqn)
        return called if called in _NAMED else self.eqn.primitive.name


class JaxProgram(Program):
    """A jaxpr with the values of variables read anew whenever it runs.

    `variables` are Keras's, in the order in which the jaxpr takes them; the arrays of the batch follow.
    """

    errors = (jax.errors.JaxRuntimeError, FloatingPointError)

    def __init__(self, closed: Any, variables: Sequence[Any]):
        self.variables = list(variables)
        self._ops: dict[Any, Op] = {}
        self._compiled: dict = {}
        self._dtypes: dict[str, Any] = {}  # also those of random keys, which NumPy does not know
        inputs = [self._value(var.aval, None) for var in closed.jaxpr.invars]
        self.weights, self.feeds = inputs[: len(self.variables)], inputs[len(self.variables) :]
        self.nodes: list[Node] = []
        self.outputs = self._flattened(closed.jaxpr, closed.consts, inputs, (False, None))
        for output in self.outputs:  # somebody else looks at them
            if output.source is not None:
                output.source.readers += 1

    # -- flattening -------------------------------------------------------------------------------------------

    def _value(self, aval: Any, node: Node | None, index: int = 0) -> Value:
        self._dtypes.setdefault(str(aval.dtype), aval.dtype)
        return Value(self, node, tuple(aval.shape), str(aval.dtype), index)

    def _spec(self, value: Value) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(value.shape, self._dtypes[value.dtype])

    def constant_value(self, array: Any) -> Value:
        """A value for numbers that are known."""
        value = self._value(jax.typeof(array), None)
        value._known = np.asarray(array)
        return value

    def _flattened(
        self, jaxpr: Any, consts: Sequence, inputs: Sequence[Value], place: tuple, caller: Any = None
    ) -> list[Value]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*map(self.constant_value, consts), *inputs]))

        def read(atom: Any) -> Value:
            return self.constant_value(atom.val) if isinstance(atom, jex.Literal) else known[atom]

        for eqn in jaxpr.eqns:
            here = _place(str(eqn.source_info.name_stack), place)
            given = [read(atom) for atom in eqn.invars]
            inner = _inner(eqn)
            if inner is not None:
                outputs = self._flattened(inner.jaxpr, inner.consts, given, here, caller or eqn)
            else:
                node = self._node(given, _computed(eqn), [var.aval for var in eqn.outvars], eqn)
                node.forward, node.region = here
                node.caller = caller or eqn
                outputs = node.outputs
            known.update(zip(eqn.outvars, outputs))
        return [read(atom) for atom in jaxpr.outvars]

    def _node(self, inputs: Sequence[Value], compute: Callable, avals: Sequence, eqn: Any = None) -> Node:
        node = Node(inputs, compute, eqn)
        node.outputs = tuple(self._value(aval, node, k) for k, aval in enumerate(avals))
        for value in inputs:
            if value.source is not None and eqn is not None:
                value.source.readers += 1
        if eqn is not None:
            self.nodes.append(node)
        return node

    # -- reading ----------------------------------------------------------------------------------------------

    def op_of(self, value: Value) -> Op:
        key = value if value.source is None else value.source
        found = self._ops.get(key)
        if found is None:
            found = self._ops[key] = self._lowered(value)
        return found

    def _lowered(self, value: Value) -> Op:
        node = value.source
        if node is None:
            kind = "fresh" if value._known is not NotImplemented else "feed" if value in self.feeds else "read"
            op = Op(kind, kind, kind, None, False, None)
            op.outputs, op.info = (value,), {"how": "constant"} if kind == "fresh" else {}
            return op
        kind, info, inputs = "other", {}, node.inputs
        if node.eqn is not None:
            kind, info, inputs = _meaning(node)
        op = Op(kind, node.word, node.word, node, node.forward, node.region)
        op.info, op.inputs, op.outputs = info, tuple(inputs), node.outputs
        return op

    def constant(self, value: Value) -> np.ndarray | None:
        node = value.source
        if node is None or node.eqn is None or value.shape is None or math.prod(value.shape) > _LARGEST:
            return None
        if node.eqn.effects or node.eqn.primitive.name in _PYTHON or value.dtype.startswith("key"):
            return None
        inputs = [known.known for known in node.inputs]
        if any(known is None for known in inputs):
            return None
        with jax.ensure_compile_time_eval():
            return np.asarray(node.compute(*inputs)[value.index])

    # -- running ----------------------------------------------------------------------------------------------

    def _function(self, fetches: Sequence[Value], given: Iterable[Value]) -> tuple[list[Value], Callable]:
        """Which of `given` the fetches need, and the function of those that computes them."""
        feeds = list(dict.fromkeys(given))
        order = needed(fetches, set(feeds))
        used = {value for node in order for value in node.inputs}.union(fetches)
        feeds = [value for value in feeds if value in used]

        def compute(arrays: Sequence) -> list:
            env = dict(zip(feeds, arrays))
            _compute(order, env)
            return [env[v] if v in env else jnp.asarray(v._known) for v in fetches]

        return feeds, compute

    def _run(self, fetches: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], list[np.ndarray]]:
        """`fetches` as a compiled function of numbers for `feeds`; weights that nobody feeds are as they are now."""
        fetches, feeds = tuple(fetches), tuple(feeds)
        if (fetches, feeds) not in self._compiled:
            own = {weight: k for k, weight in enumerate(self.weights) if weight not in set(feeds)}
            used, compute = self._function(fetches, [*feeds, *own])
            self._compiled[fetches, feeds] = used, own, jax.jit(compute)
        used, own, compiled = self._compiled[fetches, feeds]

        def run(arrays: Sequence) -> list[np.ndarray]:
            fed = dict(zip(feeds, arrays, strict=True))
            given = [self.variables[own[v]].value if v in own else jnp.asarray(fed[v], v.dtype) for v in used]
            # what goes in and comes out is the memory of a variable, which Keras's next step may overwrite
            return [np.array(a) if v.source is None else np.asarray(a) for v, a in zip(fetches, compiled(given))]

        return run

    def runner(self, fetches: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], list[np.ndarray]]:
        return self._run(fetches, feeds)

    def whole(self, fetches: Iterable[Value]) -> Callable[[Sequence], dict[Value, np.ndarray]]:
        wanted = list(dict.fromkeys(fetches))
        run = self._run(wanted, self.feeds)
        return lambda leaves: dict(zip(wanted, run(leaves)))

    def rerun(self, roots: Sequence[Value], cuts: Sequence[Value], frontier: Iterable[Value]):
        others = [value for value in frontier if value._known is NotImplemented or value._known is None]
        feeds, compute = self._function(roots, [*cuts, *others])
        compiled = jax.jit(compute)

        def run(points: Iterable[np.ndarray], values: Mapping[Value, np.ndarray]) -> list[np.ndarray]:
            fed = dict(zip(cuts, points, strict=True))
            return [np.asarray(array) for array in compiled([fed[v] if v in fed else values[v] for v in feeds])]

        return run

    # -- differentiating --------------------------------------------------------------------------------------

    def _along(self, root: Value, points: Sequence[Value], stops: Sequence[Value] = ()):
        """`root` as a function of `points`, and of what else enters on the way: (points that matter, others, function).
        Neither what is behind the points nor what is behind `stops` is looked at."""
        ends = {*points, *stops}
        moving = {value for value in points if value not in stops}
        order = needed([root], ends)
        for node in order:
            if not node_stops(node) and any(value in moving for value in node.inputs):
                moving.update(output for output in node.outputs if output.differentiable and output not in ends)
        if root not in moving:
            return [], [], None
        inside = [node for node in order if any(output in moving for output in node.outputs)]
        made = {output for node in inside for output in node.outputs}
        entering = dict.fromkeys(v for node in inside for v in node.inputs if v not in made and v not in points)
        others = [v for v in entering if v._known is NotImplemented or v._known is None]
        used = {value for node in inside for value in node.inputs} | {root}
        kept = [k for k, point in enumerate(points) if point in moving and point in used]

        def function(at: Sequence, beside: Sequence) -> Any:
            env = dict(zip((points[k] for k in kept), at)) | dict(zip(others, beside))
            _compute(inside, env)
            return env[root]

        return kept, others, function

    def gradients(self, root, cuts, seed=None, stops=()) -> list[Value]:
        differentiable = [cut for cut in dict.fromkeys(cuts) if cut.is_floating]
        kept, others, function = self._along(root, differentiable, stops)
        slopes: dict[Value, Value] = {}
        if function is not None:
            points = [differentiable[k] for k in kept]
            count = len(points)

            def pulled(*arrays: Any) -> Sequence:
                beside, rest = arrays[count : count + len(others)], arrays[count + len(others) :]
                value, back = jax.vjp(lambda *at: function(at, beside), *arrays[:count])
                return back(jnp.asarray(rest[0], value.dtype) if rest else jnp.ones_like(value))

            inputs = [*points, *others, *([] if seed is None else [seed])]
            jax.eval_shape(pulled, *map(self._spec, inputs))  # raises now where something has no derivative
            node = self._node(inputs, pulled, [self._spec(point) for point in points])
            slopes = dict(zip(points, node.outputs))
        return [
            slopes[cut] if cut in slopes else self.constant_value(np.zeros(cut.shape, jnp.dtype(cut.dtype)))
            for cut in cuts
        ]

    def tangent(self, cut: Value, points: Sequence[Value]) -> tuple[list[int], list[Value], Value] | None:
        """Forward mode; where a function has a rule for the other way alone, that is turned round."""
        kept, others, function = self._along(cut, points)
        if function is None:
            return None
        at = [points[k] for k in kept]
        directions = [self._value(self._spec(point), None) for point in at]
        count = len(at)

        def forward(*arrays: Any) -> Sequence:
            beside = arrays[2 * count :]
            return [jax.jvp(lambda *at: function(at, beside), arrays[:count], arrays[count : 2 * count])[1]]

        def turned(*arrays: Any) -> Sequence:
            beside = arrays[2 * count :]
            value, back = jax.vjp(lambda *at: function(at, beside), *arrays[:count])
            return jax.linear_transpose(back, jax.typeof(value))(tuple(arrays[count : 2 * count]))

        inputs = [*at, *directions, *others]
        ruled = any("custom_vjp" in word for node in needed([cut], set(points)) for word in _primitives(node.eqn))
        compute = turned if ruled else forward
        jax.eval_shape(compute, *map(self._spec, inputs))  # raises now where something has no derivative
        return kept, directions, self._node(inputs, compute, [self._spec(cut)]).outputs[0]

    def rounds(self, op: Op) -> Rounds | None:
        if op.word != "scan":
            return None
        params = op.source.eqn.params
        inside, first, count = type(self)(params["jaxpr"], ()), params["num_consts"], params["num_carry"]
        carried = (*range(first, first + count), *[None] * (len(op.outputs) - count))
        return Rounds(tuple(inside.feeds), tuple(inside.outputs), carried)

    def slopes(self, function: Callable) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        compute = jax.jit(jax.value_and_grad(function, argnums=1))

        def run(*arrays: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
            value, slope = compute(*arrays)
            return np.asarray(value), np.asarray(slope)

        return run

    def measured(self, values: Iterable[Value]) -> dict[Value, Value]:
        return {value: self.constant_value(np.asarray(value.shape)) for value in values}

    @property
    def holds_python(self) -> bool:
        """Is there Python code in it, which may draw random numbers that nobody sees?"""
        return any(not _PYTHON.isdisjoint(_primitives(node.eqn)) for node in self.nodes)

    def rounding(self, root: Value, leaves: Sequence[np.ndarray]) -> tuple[float, str]:
        """See `Program.rounding`. XLA leaves out roundings to half precision between two operations that it compiles
        into one, in the forward pass too."""
        order = needed([root], set(self.feeds + self.weights))
        tensors = [
            output
            for node in order
            for output in node.outputs
            if output.is_floating and (not node.forward or output.dtype in ("float16", "bfloat16"))
        ]
        inputs = [*self.feeds, *self.weights]

        def shifted(shifts: Sequence, arrays: Sequence) -> Any:
            env, moves = dict(zip(inputs, arrays)), dict(zip(tensors, shifts))
            _compute(order, env, moves)
            return env[root], [env[out] for out in tensors]

        arrays = self._run(inputs, self.feeds)(leaves)
        zeros = [jnp.zeros(v.shape, v.dtype) for v in tensors]
        slopes, numbers = jax.jit(jax.grad(shifted, has_aux=True))(zeros, arrays)
        bounds: dict[str, float] = dict.fromkeys([root.dtype], 0.0)
        for value, number, slope in zip(tensors, numbers, slopes):
            wide = np.asarray(number, np.float64) * np.asarray(slope, np.float64)
            size = float(jnp.finfo(value.dtype).eps) * float(np.sum(np.abs(wide)))
            bounds[value.dtype] = bounds.get(value.dtype, 0.0) + (size if math.isfinite(size) else 0.0)
        return sum(bounds.values()), max(bounds, key=bounds.get)


def _compute(order: Iterable[Node], env: dict[Value, Any], moves: Mapping[Value, Any] = {}) -> None:
    """Fill in what these nodes make of the values in `env`, where it is not given; some is moved by `moves`."""
    for node in order:
        for output, array in zip(node.outputs, node.compute(*(env.get(v, v._known) for v in node.inputs))):
            env.setdefault(output, array + moves[output] if output in moves else array)


def node_stops(node: Node) -> bool:
    """Does no derivative pass here?"""
    return node.eqn is not None and node.eqn.primitive.name == "stop_gradient"


def needed(fetches: Iterable[Value], given: set[Value]) -> list[Node]:
    """The nodes that compute `fetches` from the `given` values, inputs before consumers."""

    def above(node: Node) -> list[Node]:
        return [value.source for value in node.inputs if value.source is not None and value not in given]

    starts = [value.source for value in fetches if value.source is not None and value not in given]
    return inputs_first(starts, above, id)


def _place(stack: str, outer: tuple[bool, int | None]) -> tuple[bool, int | None]:
    """From the names around an equation: is it of the forward pass, and of which call of a layer?"""
    calls = _CALL.findall(stack)
    return outer[0] or FORWARD in stack, int(calls[-1]) if calls else outer[1]


def _name(eqn: Any) -> str:
    """The name of the function that this equation calls, if it is one that JAX knows by name."""
    if "call_jaxpr" in eqn.params:
        info = getattr(eqn.params["call_jaxpr"].jaxpr, "debug_info", None)
        return info.func_src_info.split(" ")[0] if info is not None else ""
    return eqn.params.get("name", "")


def _inner(eqn: Any) -> Any:
    """The jaxpr that this equation calls and that means the same inlined; None for any other equation."""
    if eqn.primitive.name not in _INLINED or _name(eqn) in _NAMED:
        return None
    inner = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    return inner if inner is None or hasattr(inner, "consts") else jex.ClosedJaxpr(inner, ())


def _computed(eqn: Any) -> Callable[..., Sequence]:
    """The equation as a function of its inputs."""
    names = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, jex.Literal)))
    run = jex.jaxpr_as_fun(jex.ClosedJaxpr(jex.Jaxpr((), names, eqn.outvars, [eqn], eqn.effects, _MADE_HERE), ()))
    places = [next(k for k, atom in enumerate(eqn.invars) if atom is name) for name in names]
    return lambda *arrays: run(*(arrays[k] for k in places))


def _primitives(eqn: Any) -> set[str]:
    """The names of the primitives of an equation, and of all that it holds; none of a derivative."""
    if eqn is None:
        return set()
    found = {eqn.primitive.name}
    for inner in jaxprs_in_params(eqn.params):
        for one in getattr(inner, "jaxpr", inner).eqns:
            found |= _primitives(one)
    return found


# -- what operations are --------------------------------------------------------------------------------------

_OPAQUE = {
    **dict.fromkeys(("while", "scan", "custom_linear_solve", "custom_root"), "loop"), "cond": "branch",
    **dict.fromkeys(("shard_map", "pallas_call", "ffi_call"), "call"),
    **dict.fromkeys(_PYTHON, "python"),
}  # fmt: skip
_KINDS = {
    **dict.fromkeys(("copy", "copy_p", "reduce_precision", "name", "sharding_constraint", "device_put"), "identity"),
    "convert_element_type": "cast", "stop_gradient": "stop", "neg": "neg", "mul": "mul", "div": "div",
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), "reshape"),
    "pad": "pad", "conv_general_dilated": "window",
    **dict.fromkeys(_OPAQUE, "opaque"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), "custom"),
    **dict.fromkeys(("iota", "random_bits", "random_wrap", "random_unwrap", "random_seed", "random_fold_in"), "fresh"),
    **dict.fromkeys(("threefry2x32", "rng_uniform", "rng_bit_generator", "random_split"), "fresh"),
}  # fmt: skip

#: Elementwise primitives, by their name in `keras.ops`.
_FUNCTIONS = {
    **{name: name for name in ("exp", "exp2", "log", "log1p", "expm1", "sin", "cos", "tan")},
    **{name: name for name in ("sinh", "cosh", "tanh", "sqrt", "rsqrt", "cbrt", "square")},
    **{name: name for name in ("abs", "sign", "floor", "ceil", "round", "erf", "erfc", "lgamma", "digamma")},
    **{f"a{name}": f"arc{name}" for name in ("sin", "cos", "tan", "tan2", "sinh", "cosh", "tanh")},
    "max": "maximum", "min": "minimum", "pow": "power", "clamp": "clip", "rem": "fmod", "is_finite": "isfinite",
    "eq": "equal", "ne": "not_equal", "gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal",
    "and": "logical_and", "or": "logical_or", "not": "logical_not", "xor": "logical_xor", "erf_inv": "erfinv",
}  # fmt: skip
#: Sorted or transformed: how many of the last axes are mixed.
_MIXED = {
    "top_k": 1,
    **dict.fromkeys(("cholesky", "triangular_solve", "lu", "qr", "svd", "eigh", "eig", "householder_product"), 2),
}
_REDUCED = {
    "reduce_sum": "sum", "reduce_max": "max", "reduce_min": "min", "reduce_prod": "prod", "reduce_and": "all",
    "reduce_or": "any", "argmax": "argmax", "argmin": "argmin",
}  # fmt: skip


def _meaning(node: Node) -> tuple[str, dict[str, Any], Sequence[Value]]:
    """The kind, what it leaves open, and the inputs, what is moved or added up first."""
    name, params, inputs = node.eqn.primitive.name, node.eqn.params, node.inputs
    called = _name(node.eqn)
    if called in _NAMED and (name in _INLINED or "call_jaxpr" in params):
        kind, info = _NAMED[called]
        if kind == "squash":
            info = info | {"axis": _axis_of_softmax(node.eqn, len(node.outputs[0].shape))}
        return kind, info, inputs
    if name in _LOWERED:
        return _LOWERED[name](node)
    if name in _REDUCED:
        how = _REDUCED[name]
        info = {
            "how": how,
            "axes": tuple(params["axes"]),
            "keepdims": False,
            "nonlinear": how != "sum",
            "by_order": how in ("max", "min"),
        }
        return "reduce", info, inputs
    if name in _FUNCTIONS:
        return (
            "elementwise",
            {"how": _FUNCTIONS[name]},
            inputs[1:2] + inputs[:1] + inputs[2:] if name == "clamp" else inputs,
        )
    if name in _MIXED:
        return "mix", {"axes": _MIXED[name], "by_order": name == "top_k"}, inputs
    return _KINDS.get(name, "other"), {"how": _OPAQUE[name]} if name in _OPAQUE else {}, inputs


def _axis_of_softmax(eqn: Any, rank: int) -> int:
    """The axis that it normalises: the one along which it sums."""
    inner = eqn.params["jaxpr"].jaxpr
    found = [one.params["axes"] for one in inner.eqns if one.primitive.name == "reduce_sum"]
    return found[0][0] if len(found) == 1 and len(found[0]) == 1 else rank - 1


def _sum(*signs: int):
    return lambda node: ("add", {"signs": signs}, node.inputs)


def _div(node: Node):
    """A sum over axes that is divided by the number of what it adds up is a mean."""
    total, divisor = node.inputs
    keepdims = False
    while total.source is not None and total.source.readers == 1 and total.source.eqn is not None:
        above = total.source
        if above.eqn.primitive.name == "broadcast_in_dim" and _inserts(above):
            keepdims, total = True, above.inputs[0]
            continue
        known = divisor.known if above.eqn.primitive.name == "reduce_sum" and not divisor.shape else None
        axes = above.eqn.params.get("axes", ())
        if known is not None and above.region == node.region and above.forward == node.forward:
            count = math.prod(above.inputs[0].shape[k] for k in axes)
            kept = tuple(1 if k in axes else size for k, size in enumerate(above.inputs[0].shape))
            if float(known) == count and (not keepdims or kept == node.outputs[0].shape):
                return "reduce", {"how": "mean", "axes": tuple(axes), "keepdims": keepdims}, above.inputs
        break
    return "div", {}, node.inputs


def _select(node: Node):
    """Also the division that gives 0 where it would divide by 0: `where(b == 0, 0, a / where(b == 0, 1, b))`."""
    if len(node.inputs) != 3 or node.inputs[0].dtype != "bool":
        return "other", {}, node.inputs
    condition, no, yes = node.inputs
    if condition.known is not None and condition.known.size and condition.known.all() == condition.known.any():
        return "identity", {}, (yes if condition.known.all() else no,)
    divisor, made = _tested(condition), no.source
    if divisor is not None and yes.known is not None and not yes.known.any() and _is(made, "div"):
        safe = _through(made.inputs[1])
        if safe is divisor:
            return "div", {"how": "no_nan"}, (made.inputs[0], divisor)
        if _is(safe.source, "select_n") and _through(safe.source.inputs[1]) is divisor:
            if _tested(safe.source.inputs[0]) is divisor:
                return "div", {"how": "no_nan"}, (made.inputs[0], divisor)
    return "select", {}, (condition, yes, no)


def _is(node: Node | None, name: str) -> bool:
    return node is not None and node.eqn is not None and node.eqn.primitive.name == name


def _tested(condition: Value) -> Value | None:
    """b, where the condition is b == 0."""
    condition = _through(condition)
    if not _is(condition.source, "eq"):
        return None
    a, b = condition.source.inputs
    return _through(a) if b.known is not None and not b.known.any() else None


def _through(value: Value) -> Value:
    """Before what changes nothing, and before a selection that is decided."""
    while value.source is not None and value.source.eqn is not None:
        node = value.source
        name = node.eqn.primitive.name
        if name == "select_n" and len(node.inputs) == 3 and node.inputs[0].known is not None:
            known = node.inputs[0].known
            if not known.size or known.all() != known.any():
                return value
            value = node.inputs[2] if known.all() else node.inputs[1]
        elif name == "copy" or (name == "broadcast_in_dim" and node.inputs[0].shape == value.shape):
            value = node.inputs[0]
        else:
            return value
    return value


def _inserts(node: Node) -> bool:
    """Does this broadcast only put axes of size 1 between the others?"""
    return math.prod(node.inputs[0].shape) == math.prod(node.outputs[0].shape)


def _broadcast(node: Node):
    if _inserts(node):
        before, after = node.inputs[0].shape, node.outputs[0].shape
        return "reshape", {"promotes": (1,) * (len(after) - len(before)) + before == after}, node.inputs
    return "broadcast", {"where": tuple(node.eqn.params["broadcast_dimensions"])}, node.inputs


def _contract(node: Node):
    (contracted, batched), ranks = node.eqn.params["dimension_numbers"], [len(v.shape) for v in node.inputs[:2]]
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    names = [[""] * rank for rank in ranks]
    for pairs in (batched, contracted):
        for left, right in zip(*pairs):
            names[0][left] = names[1][right] = next(letters)
    names = [[letter or next(letters) for letter in one] for one in names]
    result = [names[0][k] for k in batched[0]]
    for one, summed, shared in zip(names, contracted, batched):
        result += [letter for k, letter in enumerate(one) if k not in summed and k not in shared]
    return "contract", {"equation": (tuple("".join(one) for one in names), "".join(result))}, node.inputs


def _slice(node: Node):
    params, rank = node.eqn.params, len(node.inputs[0].shape)
    strides = params["strides"] or (1,) * rank
    bounds = zip(params["start_indices"], params["limit_indices"], strides)
    return "slice", {"parts": (tuple((k, slice(*bound)) for k, bound in enumerate(bounds)),)}, node.inputs


def _split(node: Node):
    axis, rank = node.eqn.params["axis"], len(node.inputs[0].shape)
    ends = np.cumsum([0, *node.eqn.params["sizes"]]).tolist()
    parts = tuple(
        tuple((k, slice(low, high) if k == axis else None) for k in range(rank))
        for low, high in itertools.pairwise(ends)
    )
    return "slice", {"parts": parts}, node.inputs


def _dynamic_slice(node: Node):
    known = [value.known for value in node.inputs[1:]]
    if any(start is None for start in known):
        return "slice", {"parts": None}, node.inputs
    sizes = zip(node.inputs[0].shape, node.eqn.params["slice_sizes"], map(int, known))
    starts = [(min(max(start, 0), full - size), size) for full, size, start in sizes]
    return "slice", {"parts": (tuple((k, slice(s, s + n)) for k, (s, n) in enumerate(starts)),)}, node.inputs


def _gather(node: Node):
    """What `take` along one axis makes has its axis; any other gather is only known to pick."""
    numbers, sizes, shape = node.eqn.params["dimension_numbers"], node.eqn.params["slice_sizes"], node.inputs[0].shape
    (axis,) = numbers.start_index_map if len(numbers.start_index_map) == 1 else (None,)
    whole = all(size == full for k, (size, full) in enumerate(zip(sizes, shape)) if k != axis)
    if axis is None or not whole or numbers.operand_batching_dims or numbers.collapsed_slice_dims != (axis,):
        return "pick", {"axis": None, "batch_dims": 0}, node.inputs
    return "pick", {"axis": axis, "batch_dims": 0, "vectors": True}, node.inputs


def _scatter(linear: int):
    return lambda node: ("scatter", {"linear": linear}, (node.inputs[0], node.inputs[2], node.inputs[1]))


def _updated(node: Node):
    return "scatter", {"linear": 2}, node.inputs


def _window(node: Node):
    sizes = node.eqn.params["window_dimensions"]
    how = node.eqn.primitive.name.removeprefix("reduce_window").removeprefix("_")
    info = {"how": how, "size": math.prod(sizes), "channels": sizes[-1] == 1}
    return "window", info | {"nonlinear": how != "sum", "by_order": how != "sum"}, node.inputs


def _sorted(node: Node):
    rank = len(node.inputs[0].shape)
    return "mix", {"axes": rank - node.eqn.params["dimension"], "by_order": True}, node.inputs


def _power(node: Node):
    exponent = node.eqn.params["y"]
    return "elementwise", {"how": "square" if exponent == 2 else "power", "exponent": exponent}, node.inputs


def _identity_or_custom(node: Node):
    return ("identity" if len(node.inputs) == 1 else "custom"), {}, node.inputs


_LOWERED: dict[str, Callable] = {
    "add": _sum(1, 1), "add_any": _sum(1, 1), "sub": _sum(1, -1),
    "div": _div,
    "select_n": _select,
    "logistic": lambda node: ("squash", {"how": "sigmoid", "axis": -1}, node.inputs),
    "optimization_barrier": _identity_or_custom,
    "broadcast_in_dim": _broadcast,
    "transpose": lambda node: ("transpose", {"perm": tuple(node.eqn.params["permutation"])}, node.inputs),
    "concatenate": lambda node: ("concat", {"axis": node.eqn.params["dimension"], "stacks": False}, node.inputs),
    "stack": lambda node: ("concat", {"axis": node.eqn.params["axis"], "stacks": True}, node.inputs),
    "slice": _slice,
    "split": _split,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _updated,
    "rev": lambda node: ("move", {"how": "reverse", "axes": tuple(node.eqn.params["dimensions"])}, node.inputs),
    "dot_general": _contract,
    "cumsum": lambda node: ("cumulate", {"axes": (node.eqn.params["axis"],)}, node.inputs),
    "gather": _gather,
    **dict.fromkeys(("scatter-add", "scatter_add", "scatter", "scatter-sub", "scatter_sub"), _scatter(2)),
    **dict.fromkeys(("reduce_window_sum", "reduce_window_max", "reduce_window_min", "reduce_window"), _window),
    "sort": _sorted,
    "fft": lambda node: ("mix", {"axes": len(node.eqn.params["fft_lengths"]), "by_order": False}, node.inputs),
    "integer_pow": _power,
}  # fmt: skip
