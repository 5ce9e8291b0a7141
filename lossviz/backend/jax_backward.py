"""A jaxpr that can be looked into: what is not finite, and a backward pass of which each step is an operation.

The backward pass is written out node by node: each hands back, to the inputs of one node of the loss, what JAX's own
derivative of that node makes of the gradients of its outputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lossviz.backend.jax_program import JaxProgram, Node, needed, node_stops
from lossviz.backend.program import Backward, Op, Value

_JAX = os.path.join(os.path.dirname(__file__), "jax_")  # what stands in for functions of Keras there


class SearchedProgram(JaxProgram):
    """A `JaxProgram` for which `find_nonfinite` can ask."""

    def __init__(self, closed: Any, variables: Sequence[Any]):
        super().__init__(closed, variables)
        self._summaries: dict[tuple[Value, ...], Value] = {}
        self._originals: dict[Node, Node | None] = {}  # of each node of a backward pass
        self._backward: dict[Node, list[Node]] = {}  # the other way round
        self._places = {node: k for k, node in enumerate(self.nodes)}
        self._readers: dict[Value, Node] = {}  # the first node that reads a value that no node makes
        for node in reversed(self.nodes):
            self._readers.update((value, node) for value in node.inputs if value.source is None)

    def _lowered(self, value: Value) -> Op:
        op, node = super()._lowered(value), value.source
        if op.info.get("how") == "constant" and value in self._readers:  # it stands where it is read
            op.word, op.forward, op.region = "constant", self._readers[value].forward, self._readers[value].region
        if node in self._originals:
            op.backward, original = True, self._originals[node]
            op.original = None if original is None else self.op_of(original.outputs[0])
        return op

    def summary(self, values: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], np.ndarray]:
        key = tuple(values)
        if key not in self._summaries:
            shape = jax.ShapeDtypeStruct((len(key), 3), jnp.int32)
            self._summaries[key] = self._node(key, lambda *arrays: [_counted(arrays)], [shape]).outputs[0]
        run = self.runner([self._summaries[key]], feeds)
        return lambda numbers: run(numbers)[0]

    def backward(self, root: Value, weights: Sequence[Value], scale: float) -> Backward:
        order, moving = needed([root], set(weights)), set(weights)
        for node in order:
            if not node_stops(node) and not moving.isdisjoint(node.inputs):
                moving.update(output for output in node.outputs if output.differentiable)
        seed = self.constant_value(np.asarray(scale, jnp.dtype(root.dtype)))
        slopes = {root: [seed]}
        for node in reversed(order):
            present = [k for k, output in enumerate(node.outputs) if output in slopes and output in moving]
            targets = [k for k, value in enumerate(node.inputs) if value in moving]
            if present and targets and not node_stops(node):
                inputs = [*node.inputs, *(self._total(slopes[node.outputs[k]]) for k in present)]
                compute = _pulled(node, targets, present)
                back = self._step(inputs, compute, [node.inputs[k] for k in targets], node)
                self._backward.setdefault(node, []).append(back)
                for k, output in zip(targets, back.outputs):
                    slopes.setdefault(node.inputs[k], []).append(output)
        gradients = [self._total(slopes[w]) if w in slopes and w is not root else None for w in weights]
        feeds, compute = self._function([g for g in gradients if g is not None], [*self.feeds, *self.weights])
        jax.eval_shape(compute, [self._spec(feed) for feed in feeds])  # raises now where something has no derivative
        return Backward(gradients, seed)

    def _total(self, slopes: list[Value]) -> Value:
        """The sum of the gradients of one value, which stands in place of them from then on."""
        if len(slopes) > 1:
            slopes[:] = self._step(slopes, lambda *arrays: [sum(arrays[1:], arrays[0])], slopes[:1], None).outputs
        return slopes[0]

    def _step(self, inputs: Sequence[Value], compute: Callable, like: Sequence[Value], original: Node | None) -> Node:
        node = self._node(inputs, compute, [self._spec(value) for value in like])
        self._originals[node] = original
        return node

    def derivatives(self, op: Op) -> list[Op]:
        return [self.op_of(node.outputs[0]) for node in self._backward.get(op.source, [])]

    def place(self, op: Op) -> int:
        (value, *_) = op.outputs
        if value in self.feeds:
            return self.feeds.index(value)
        return self._places.get(op.source or self._readers.get(value), 0)

    def frames(self, op: Op) -> list[tuple[str, int]]:
        node = op.source or self._readers.get(op.outputs[0])
        traceback = None if node is None or node.eqn is None else node.caller.source_info.traceback
        if traceback is None:
            return []
        frames = [(frame.file_name, frame.line_num) for frame in reversed(traceback.frames)]
        return [frame for frame in frames if not frame[0].startswith(_JAX)]

    def paths(self, variables: Iterable[Any]) -> dict[Value, str]:
        own = {id(variable): weight for weight, variable in zip(self.weights, self.variables)}
        first = [own[id(variable)] for variable in variables if id(variable) in own]
        paths = {weight: variable.path for weight, variable in zip(self.weights, self.variables)}
        return {weight: paths[weight] for weight in dict.fromkeys([*first, *self.weights])}


def _counted(arrays: Sequence[Any]) -> Any:
    """How many numbers of each are -inf, inf and NaN."""
    arrays = [jnp.abs(array) if jnp.iscomplexobj(array) else array for array in arrays]
    return jnp.stack(
        [jnp.stack([test(array).sum() for test in (jnp.isneginf, jnp.isposinf, jnp.isnan)]) for array in arrays]
    ).astype(jnp.int32)


def _pulled(node: Node, targets: Sequence[int], present: Sequence[int]) -> Callable[..., Sequence]:
    """What the derivative of a node hands back to its inputs `targets`, from these and from the gradients of its
    outputs `present`."""
    count = len(node.inputs)

    def pulled(*arrays: Any) -> Sequence:
        def function(*at: Any) -> list:
            given = dict(enumerate(arrays[:count])) | dict(zip(targets, at))
            found = node.compute(*given.values())
            return [found[k] for k in present]

        return jax.vjp(function, *(arrays[k] for k in targets))[1](list(arrays[count:]))

    return pulled
