"""Read a traced loss: find its element losses, how they are added up, and what each one contributes.

This module knows TensorFlow graphs and nothing of Keras or of any particular loss. The method:

1. `trace` puts forward pass and loss into one graph that can be pruned.
2. Going back from the scalar through operations that are linear in what depends on the predictions (the
   *tail*), `find_cuts` cuts every path once: at the input of the first reduction, else where linearity ends.
3. The cut tensors are the element losses `e`; with `g` the graph's own gradient of the loss, `e * g` are their
   shares. No rule about weights, masks or divisors is needed: the gradient carries them.
4. `Rerun` computes the tail from other values, which proves that it is linear instead of believing the list of
   linear operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import tensorflow as tf
from tensorflow.python.framework.auto_control_deps import AutomaticControlDependencies

DIVISIONS = {"RealDiv", "Div", "DivNoNan"}
# Which inputs an operation is linear in. "all": every floating input (sums); an index: that input alone, if
# all the others are independent of the predictions.
_SUMS = {"Add", "AddV2", "AddN", "Sub", "BiasAdd", "Pack", "ConcatV2"}
_FIRST = {
    *("Identity", "Neg", "Cast", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Mean", "Sum", "BroadcastTo"),
    *("Tile", "StridedSlice", "Slice", "GatherV2", "GatherNd", "Pad", "PadV2", "Unpack", "Split", "SplitV"),
    *("EnsureShape", "CheckNumerics", "Cumsum", "SegmentSum", "UnsortedSegmentSum", "ReverseV2", "Roll"),
    *DIVISIONS,
}
_PRODUCTS = {"Mul", "MulNoNan"}
_CONTRACTIONS = {"MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"}
_SELECTS = {"Select", "SelectV2"}

# A cut is placed before these: they add elements up, or pick some of them.
_COLLECTING = {"Sum", "Mean", "GatherV2", "GatherNd", "SegmentSum", "UnsortedSegmentSum", *_CONTRACTIONS}

_OPAQUE = {
    *("PyFunc", "PyFuncStateless", "EagerPyFunc", "While", "StatelessWhile", "If", "StatelessIf", "Case"),
    *("StatelessCase", "PartitionedCall", "StatefulPartitionedCall", "MapDefun", "XlaLaunch", "SymbolicGradient"),
}
# What looks at a variable without moving it.
_READING = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"}
_RANDOM = {
    *("RandomStandardNormal", "RandomUniform", "RandomUniformInt", "TruncatedNormal", "RandomGammaV2"),
    *("RandomShuffle", "Multinomial", "RandomPoissonV2", "ParameterizedTruncatedNormal"),
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


@dataclass
class Trace:
    """One graph with forward pass and loss, its placeholders, and where in it the loss begins."""

    function: object  # the pruneable WrappedFunction
    feeds: list[tf.Tensor]
    forward: set[str] = field(default_factory=set)  # names of the operations of the forward pass
    pruned: dict = field(default_factory=dict)  # what `run` has made, by what it fetches and is fed
    orders: dict = field(default_factory=dict)  # tensor reference -> `ancestors`, for whoever asks again

    @property
    def graph(self) -> tf.Graph:
        return self.function.graph

    def run(self, fetches: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor], values: Sequence) -> list[np.ndarray]:
        """Compute `fetches` from values for `feeds`.

        Nothing else of the graph runs. A variable that is moved and then read (a layer's counter, a seed of which
        two numbers are drawn) is put back afterwards.
        """
        return self.runner(fetches, feeds)(values)

    def runner(
        self, fetches: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor]
    ) -> Callable[[Sequence], list[np.ndarray]]:
        """`run` as a function of the values alone, for several runs of the same part of the graph."""
        unique = {tensor.ref(): tensor for tensor in fetches}
        key = tuple(unique), tuple(feed.ref() for feed in feeds)
        if key not in self.pruned:
            self.pruned[key] = self.function.prune(list(feeds), list(unique.values()))
        pruned = self.pruned[key]
        handles = moved(pruned.graph)

        def run(values: Sequence) -> list[np.ndarray]:
            arguments = [tf.convert_to_tensor(v, dtype=t.dtype) for v, t in zip(values, feeds, strict=True)]
            before = variables(handles)
            try:
                results = pruned(*arguments)
            finally:
                put_back(before)
            found = {ref: result.numpy() for ref, result in zip(unique, results, strict=True)}
            return [found[tensor.ref()] for tensor in fetches]

        return run


def trace(function: Callable, specs: Sequence[tf.TensorSpec]) -> Trace:
    """Trace `function(*placeholders)` into a graph that can be pruned; inner `tf.function`s are inlined."""

    def in_order(*placeholders: tf.Tensor) -> tf.Tensor:
        with AutomaticControlDependencies():  # what is read after it was assigned has the new value, as in tf.function
            return function(*placeholders)

    eager = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)  # inside a graph this means: inline, do not call
    try:
        wrapped = tf.compat.v1.wrap_function(in_order, list(specs))
    finally:
        tf.config.run_functions_eagerly(eager)
    return Trace(wrapped, list(wrapped.inputs[: len(specs)]))


class Program:
    """Tensors of a trace as one function of its placeholders that can be run again and again.

    Nothing else of the graph runs. A variable that is moved and then read (a layer's counter, a seed of which
    two numbers are drawn) is put back afterwards.
    """

    def __init__(self, trace: Trace, fetches: Iterable[tf.Tensor]):
        self.graph, self.feeds = trace.graph, trace.feeds
        self.refs = list({tensor.ref(): None for tensor in fetches})
        outputs = [ref.deref() for ref in self.refs]
        before = self.graph.outputs, self.graph.structured_outputs
        self.graph.outputs, self.graph.structured_outputs = outputs, outputs
        try:  # without a copy of the graph, which `prune` would make
            signature = [tf.TensorSpec(feed.shape, feed.dtype) for feed in self.feeds]
            self.function = type(trace.function)(self.graph, trace.function._variable_holder, signature=signature)
        finally:
            self.graph.outputs, self.graph.structured_outputs = before
        self.moved = moved(self.graph, {operation.name for operation in ancestors(outputs, control=True)})

    def __call__(self, values: Sequence) -> dict:
        """The fetched tensors as arrays, by tensor reference. The arrays are views: do not write into them."""
        arguments = [tf.convert_to_tensor(v, dtype=t.dtype) for v, t in zip(values, self.feeds, strict=True)]
        before = variables(self.moved)
        try:
            results = self.function(*arguments)
        finally:
            put_back(before)
        return {ref: _array(result) for ref, result in zip(self.refs, results, strict=True)}


def _array(tensor: tf.Tensor) -> np.ndarray:
    """The tensor's numbers, where NumPy can look at them without a copy."""
    return np.asarray(tensor) if tensor.dtype in (tf.float32, tf.float64) else tensor.numpy()


class Rerun:
    """The roots of some tails as a function of other values for their cuts and for what enters besides."""

    def __init__(self, tails: Sequence[Tail]):
        self.cuts = [cut.tensor.ref() for tail in tails for cut in tail.cuts]
        frontier = [tensor.ref() for tail in tails for tensor in tail.frontier if tensor.op.type != "Const"]
        roots = [tail.root for tail in tails]
        self.feeds, operations = _between({*self.cuts, *frontier}, roots)
        definition = tf.compat.v1.GraphDef(versions=roots[0].graph.graph_def_versions)
        definition.node.extend(map(_node, operations))

        def compute(*placeholders: tf.Tensor) -> list[tf.Tensor]:
            fed = dict(zip((tensor.ref() for tensor in self.feeds), placeholders))
            made = [root.name for root in roots if root.ref() not in fed]
            names = {tensor.name: placeholder for tensor, placeholder in zip(self.feeds, placeholders)}
            found = iter(tf.graph_util.import_graph_def(definition, names, made))
            return [tf.identity(fed[root.ref()]) if root.ref() in fed else next(found) for root in roots]

        specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in self.feeds]
        self.function = tf.compat.v1.wrap_function(compute, specs)

    def __call__(self, points: Iterable[np.ndarray], values: dict) -> list[np.ndarray]:
        """The roots, with `points` in place of the cuts and everything else as in `values`."""
        fed = values | dict(zip(self.cuts, points, strict=True))
        return [_array(root) for root in self.function(*(fed[tensor.ref()] for tensor in self.feeds))]


def apart(tails: Sequence[Tail]) -> bool:
    """Can these tails be computed together from other values for their cuts, or does one hold a cut of another?"""
    owned = [cut.tensor.ref() for tail in tails for cut in tail.cuts]
    used = {ref for tail in tails for ref in (*tail.inside, *(tensor.ref() for tensor in tail.frontier))}
    return len(tails) < 2 or (len(set(owned)) == len(owned) and not used.intersection(owned))


def _between(given: set, roots: Iterable[tf.Tensor]) -> tuple[list[tf.Tensor], list[tf.Operation]]:
    """Which of the `given` tensors (references) `roots` need, and the operations that compute `roots` from them."""
    feeds, found, stack = {}, {}, list(roots)
    while stack:
        tensor = stack.pop()
        if tensor.ref() in given:
            feeds[tensor.ref()] = tensor
        elif tensor.op.name not in found:
            found[tensor.op.name] = tensor.op
            stack.extend(tensor.op.inputs)
    return list(feeds.values()), list(found.values())


def _node(operation: tf.Operation):
    """The operation's definition with its inputs alone: no order, no place beside another operation."""
    node = operation.node_def
    inputs = [name for name in node.input if not name.startswith("^")]
    del node.input[:]
    node.input.extend(inputs)
    for name in [name for name in node.attr if name.startswith("_")]:
        del node.attr[name]
    return node


def moved(graph: tf.Graph, among: set[str] | None = None) -> list[tf.Tensor]:
    """Handles of the variables that the graph's operations, or those whose names are `among` them, may move."""
    return [
        handle
        for handle, inner in graph.captures
        if handle.dtype == tf.resource
        and any(user.type not in _READING and (among is None or user.name in among) for user in inner.consumers())
    ]


def variables(handles: Iterable[tf.Tensor]) -> list[tuple[tf.Tensor, tf.Tensor]]:
    """Handle and present value of each variable."""
    found = []
    for handle in handles:
        data = getattr(handle, "_handle_data", None)  # tables and iterators are resources too, and have none
        if handle.dtype == tf.resource and data is not None and data.is_set:
            dtype = tf.as_dtype(data.shape_and_type[0].dtype)
            found.append((handle, tf.raw_ops.ReadVariableOp(resource=handle, dtype=dtype)))
    return found


def put_back(values: Iterable[tuple[tf.Tensor, tf.Tensor]]) -> None:
    """Give variables the values that `variables` found."""
    for handle, value in values:
        tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def ancestors(tensors: Iterable[tf.Tensor], control: bool = False) -> list[tf.Operation]:
    """All operations that `tensors` are computed from, inputs before consumers; with `control` also those that only
    have to run before."""
    order: list[tf.Operation] = []
    done: set[str] = set()
    stack = [(tensor.op, False) for tensor in tensors]
    while stack:
        operation, expanded = stack.pop()
        if expanded:
            order.append(operation)
        elif operation.name not in done:
            done.add(operation.name)
            stack.append((operation, True))
            stack.extend((tensor.op, False) for tensor in operation.inputs if tensor.op.name not in done)
            stack.extend((other, False) for other in operation.control_inputs if control)
    return order


def expand_fused(graph: tf.Graph, root: tf.Tensor) -> None:
    """Rewrite fused operations in front of `root` so that the axis they hide is there to be seen.

    Softmax crossentropy becomes `sum over class of -y * log_softmax` on the tensor as it was before it was
    flattened to (N, C); `l2_loss` becomes `sum of x**2 / 2`.
    """
    operations = ancestors([root])
    with graph.as_default():
        for operation in operations:
            if operation.type in ("SoftmaxCrossEntropyWithLogits", "SparseSoftmaxCrossEntropyWithLogits"):
                old, new = _expand_crossentropy(operation, operations)
            elif operation.type == "L2Loss":
                old, new = operation.outputs[0], tf.reduce_sum(tf.square(operation.inputs[0]) * 0.5)
            else:
                continue
            for consumer in operations:
                for index, tensor in enumerate(consumer.inputs):
                    if tensor is old:
                        consumer._update_input(index, new)


def _expand_crossentropy(operation: tf.Operation, operations: list[tf.Operation]) -> tuple[tf.Tensor, tf.Tensor]:
    logits, labels = operation.inputs
    loss = operation.outputs[0]
    consumers = [other for other in operations if any(tensor is loss for tensor in other.inputs)]
    flattened = logits.op.type == "Reshape" and len(consumers) == 1 and consumers[0].type == "Reshape"
    if flattened and consumers[0].outputs[0].shape.rank + 1 == logits.op.inputs[0].shape.rank:
        loss, logits = consumers[0].outputs[0], logits.op.inputs[0]
        if labels.op.type == "Reshape" and labels.op.inputs[0].shape.rank in (logits.shape.rank, logits.shape.rank - 1):
            labels = labels.op.inputs[0]
        else:
            sparse = operation.type.startswith("Sparse")
            labels = tf.reshape(labels, tf.shape(logits)[:-1] if sparse else tf.shape(logits))
    if operation.type.startswith("Sparse"):
        valid = (labels >= 0) & (labels < logits.shape[-1])  # outside, the fused operation gives NaN (or an error)
        labels = tf.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
        labels = tf.where(valid[..., None], labels, tf.constant(np.nan, labels.dtype))
    return loss, tf.reduce_sum(-labels * tf.nn.log_softmax(logits), axis=-1)


class Reader:
    """What depends on what, in the part of a graph that leads to `roots`."""

    def __init__(
        self,
        roots: Sequence[tf.Tensor],
        sources: Iterable[tf.Tensor],
        forward: set[str],
        weights: Iterable[tf.Tensor] = (),
    ):
        self.order = ancestors(roots)
        self.forward = forward
        self.weights = {tensor.ref() for tensor in weights}
        self.depends = {tensor.ref() for tensor in sources}
        for operation in self.order:
            if any(tensor.ref() in self.depends for tensor in operation.inputs):
                self.depends.update(out.ref() for out in operation.outputs if _differentiable(out))
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

        cuts = self._place_cuts(root, reached, stops) if reached else []
        made = tuple(self._describe(tensor, root, consumers) for tensor in cuts)
        inside = frozenset(ref for ref, inputs in reached.items() if inputs is not None)
        return Tail(root, made, tuple(frontier.values()), has_constant or root.ref() not in self.depends, inside)

    def _place_cuts(self, root: tf.Tensor, reached: dict, stops: set) -> list[tf.Tensor]:
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
                here = top.ref() in stops or (inputs is not None and _collects(top.op))
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
                    if clean and _collects(tensor.op):
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


def gradients(
    graph: tf.Graph,
    root: tf.Tensor,
    cuts: Sequence[tf.Tensor],
    seed: tf.Tensor | None = None,
    stops: Sequence[tf.Tensor] = (),
) -> list[tf.Tensor]:
    """The graph's own gradient of `root` with respect to `cuts`, not looking behind them or behind `stops`."""
    if not cuts:
        return []
    with graph.as_default():
        grads = tf.gradients(
            root, list(cuts), grad_ys=seed, stop_gradients=[*cuts, *stops], unconnected_gradients="zero"
        )
        return [tf.convert_to_tensor(grad) for grad in grads]


def is_random(root: tf.Tensor) -> bool:
    """Would computing `root` twice give two different results?"""
    return any(operation.type in _RANDOM for operation in ancestors([root]))


def _differentiable(tensor: tf.Tensor) -> bool:
    """Can a gradient pass? Comparisons and class numbers (bool, int) cut it; lists of tensors (variant) do not."""
    return tensor.dtype.is_floating or tensor.dtype.is_complex or tensor.dtype == tf.variant


def _has_own_gradient(operation: tf.Operation) -> bool:
    """tf.custom_gradient hides in an identity whose gradient need not be that of its value."""
    try:
        return bool(operation.get_attr("_gradient_op_type"))
    except ValueError:
        return False


def _collects(operation: tf.Operation) -> bool:
    if operation.type not in _COLLECTING:
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
