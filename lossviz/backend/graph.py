"""One TensorFlow graph with forward pass and loss: traced, run again and again, differentiated.

This module knows TensorFlow graphs and nothing of Keras or of any particular loss. `trace` makes a graph that can be
pruned, `Program` computes tensors of it for other data, `Rerun` the end of it from other values of what lies between,
`gradients` adds the graph's own derivatives.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.framework.auto_control_deps import AutomaticControlDependencies

from lossviz.backend.program import inputs_first

# What looks at a variable without moving it.
_READING = {"ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp"}
# What draws another number each time it runs. `Stateless...` draws what its seed says.
_RANDOM = re.compile("Random|Sampler|Multinomial|Stateful(Standard|Uniform|Truncated|Binomial)|TruncatedNormal|Rng")
# Python inside the graph: what it does can only be tried.
_PYTHON = {"PyFunc", "EagerPyFunc"}


@dataclass
class Trace:
    """One graph with forward pass and loss, its placeholders, and where in it the loss begins."""

    function: Any  # the pruneable WrappedFunction
    feeds: list[tf.Tensor]
    forward: set[str] = field(default_factory=set)  # names of the operations of the forward pass
    regions: dict[str, int] = field(default_factory=dict)  # operation's name -> the call of a layer that made it
    pruned: dict = field(default_factory=dict)  # what `run` has made, by what it fetches and is fed

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
            self.pruned[key] = _part(list(unique.values()), feeds) or _pruned(self.function, unique.values(), feeds)
        compute, handles = self.pruned[key]

        def run(values: Sequence) -> list[np.ndarray]:
            arguments = [tf.convert_to_tensor(v, dtype=t.dtype) for v, t in zip(values, feeds, strict=True)]
            before = variables(handles)
            try:
                with record.stop_recording():
                    results = compute(arguments)
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
            with (
                record.stop_recording()
            ):  # a tape of the caller's would have the graph differentiated by its old outputs
                results = self.function(*arguments)
        finally:
            put_back(before)
        return {ref: _array(result) for ref, result in zip(self.refs, results, strict=True)}


def _array(tensor: tf.Tensor) -> np.ndarray:
    """The tensor's numbers, where NumPy can look at them without a copy."""
    return np.asarray(tensor) if tensor.dtype in (tf.float32, tf.float64) else tensor.numpy()


def _pruned(
    function: Any, fetches: Iterable[tf.Tensor], feeds: Sequence[tf.Tensor]
) -> tuple[Callable, list[tf.Tensor]]:
    """`fetches` as a function of the values of `feeds`, in a copy of all that they are computed from; and handles of
    the variables that it may move."""
    pruned = function.prune(list(feeds), list(fetches))
    # called by name, it would first write all its arguments into the text of an error that it catches itself
    return lambda arguments: pruned._call_flat(arguments, pruned.captured_inputs), moved(pruned.graph)


def _part(fetches: list[tf.Tensor], feeds: Sequence[tf.Tensor]) -> tuple[Callable, list[tf.Tensor]] | None:
    """As `_pruned`, in a fraction of its time; None where a variable or a function is needed."""
    given, operations = _between({feed.ref() for feed in feeds}, fetches)
    if any(operation.type in ("Placeholder", "PlaceholderWithDefault") for operation in operations):
        return None
    if any(attr.HasField("func") or attr.list.func for op in operations for attr in op.node_def.attr.values()):
        return None
    compute, places = _copied(fetches, given, operations), {feed.ref(): k for k, feed in enumerate(feeds)}
    return lambda arguments: compute(*(arguments[places[tensor.ref()]] for tensor in given)), []


def _copied(roots: Sequence[tf.Tensor], feeds: Sequence[tf.Tensor], operations: Iterable[tf.Operation]) -> Any:
    """A function that computes `roots` from values of `feeds`, in a graph with a copy of these operations alone."""
    definition = tf.compat.v1.GraphDef(versions=roots[0].graph.graph_def_versions)
    definition.node.extend(map(_node, operations))
    used = {tensor.name for operation in operations for tensor in operation.inputs}

    def compute(*placeholders: tf.Tensor) -> list[tf.Tensor]:
        fed = dict(zip((tensor.ref() for tensor in feeds), placeholders))
        made = [root.name for root in roots if root.ref() not in fed]
        names = {tensor.name: one for tensor, one in zip(feeds, placeholders) if tensor.name in used}
        found = iter(tf.graph_util.import_graph_def(definition, names, made))
        return [tf.identity(fed[root.ref()]) if root.ref() in fed else next(found) for root in roots]

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in feeds]
    return tf.compat.v1.wrap_function(compute, specs)


class Rerun:
    """`roots` as a function of numbers for `feeds`: those of `cuts`, tensors that they are computed from, and of
    `frontier`, what else enters on the way from there, that are needed."""

    def __init__(self, roots: Sequence[tf.Tensor], cuts: Iterable[tf.Tensor], frontier: Iterable[tf.Tensor]):
        entering = [tensor.ref() for tensor in frontier if tensor.op.type != "Const"]
        self.feeds, operations = _between({*(tensor.ref() for tensor in cuts), *entering}, roots)
        self.function = _copied(roots, self.feeds, operations)

    def __call__(self, numbers: Iterable) -> list[np.ndarray]:
        """The roots, from numbers for `feeds`."""
        with record.stop_recording():
            return [_array(root) for root in self.function(*numbers)]


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

    def above(operation: tf.Operation) -> list[tf.Operation]:
        return [*(tensor.op for tensor in operation.inputs), *(operation.control_inputs if control else ())]

    return inputs_first((tensor.op for tensor in tensors), above, lambda operation: operation.name)


def expand_fused(graph: tf.Graph, roots: Sequence[tf.Tensor]) -> None:
    """Rewrite fused operations in front of `roots` so that the axis they hide is there to be seen.

    Softmax crossentropy becomes `sum over class of -y * log_softmax` on the tensor as it was before it was
    flattened to (N, C); `l2_loss` becomes `sum of x**2 / 2`.
    """
    operations = ancestors(roots)
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
    types = {operation.type for operation in ancestors([root], control=True)}
    return any(_RANDOM.search(kind) and not kind.startswith("Stateless") for kind in types)


def holds_python(root: tf.Tensor) -> bool:
    """Is there Python code between the data and `root`, which may draw random numbers that nobody sees?"""
    return any(operation.type in _PYTHON for operation in ancestors([root], control=True))


def rounding(trace: Trace, root: tf.Tensor, leaves: Sequence[np.ndarray]) -> dict[str, float]:
    """See `Program.rounding`: the bound, by the dtype that each part of it comes from. The forward pass counts where it
    is in half precision: what is compiled into one operation is not rounded in between."""
    half = (tf.float16, tf.bfloat16)
    tensors = [
        out
        for operation in ancestors([root])
        for out in operation.outputs
        if out.dtype.is_floating and (operation.name not in trace.forward or out.dtype in half)
    ]
    with trace.graph.as_default():
        slopes = tf.gradients(root, tensors)
        pairs = [(t, tf.convert_to_tensor(slope)) for t, slope in zip(tensors, slopes) if slope is not None]
    numbers = trace.run([tensor for pair in pairs for tensor in pair], trace.feeds, leaves)
    bounds = {root.dtype.name: 0.0}
    for (tensor, _), value, slope in zip(pairs, numbers[::2], numbers[1::2]):
        eps = 2.0**-7 if tensor.dtype == tf.bfloat16 else float(np.finfo(tensor.dtype.as_numpy_dtype).eps)
        size = 2 * eps * float(np.sum(np.abs(value.astype(np.float64) * slope)))
        bounds[tensor.dtype.name] = bounds.get(tensor.dtype.name, 0.0) + (size if np.isfinite(size) else 0.0)
    return bounds
