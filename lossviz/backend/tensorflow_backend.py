"""Keras on TensorFlow: tracing into a graph, and what Keras's trainer there does."""

from __future__ import annotations

import concurrent.futures
import contextlib
import functools
import queue
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context, record

from lossviz.backend import graph
from lossviz.backend.backend import Backend, Means, made
from lossviz.backend.tensorflow_program import TensorFlowProgram
from lossviz.backend.traced import Found, Traced, leaves


class TensorFlow(Backend):
    name = "tensorflow"

    @property
    def version(self) -> str:
        return tf.__version__

    def is_tensor(self, thing: Any) -> bool:
        return tf.is_tensor(thing)

    def identity(self, tensor: Any) -> Any:
        return tf.identity(tensor)

    def logits_of(self, tensor: Any) -> Any:
        logits = getattr(tensor, "_keras_logits", None)
        if logits is None and tensor.op.type in ("Sigmoid", "Softmax"):
            logits = tensor.op.inputs[0]
        return logits

    def takes_logits(self, kind: str, output: Any) -> bool:
        """It does where Keras noted them with the output, and where its own activation made it."""
        made_by = getattr(getattr(output, "op", None), "type", None)  # no operation made an eager tensor
        return hasattr(output, "_keras_logits") or made_by == ("Sigmoid" if kind == "binary" else "Softmax")

    def predicted(self, model: Any, x: Any, **options: Any) -> Any:
        return model(x, **options)

    def trace(self, compute: Callable[[Found, Sequence], Any], structure: list, model: Any, name: str) -> Traced:
        arrays, found = leaves(structure), Found()
        specs = [tf.TensorSpec(leaf.shape, tf.as_dtype(leaf.dtype), f"leaf{k}") for k, leaf in enumerate(arrays)]

        def traced(*placeholders: tf.Tensor) -> tf.Tensor:
            waiting = iter(placeholders)
            arguments = keras.tree.map_structure(lambda leaf: None if leaf is None else next(waiting), structure)
            loss = tf.convert_to_tensor(compute(found, arguments))
            return tf.identity(loss) if loss.shape.rank == 0 else tf.reduce_mean(loss)  # the progress bar shows a mean

        trace = graph.trace(traced, specs)
        trace.forward, trace.regions = found.forward, _regions(found.calls, trace.graph)
        handles = set() if model is None else {id(variable.value.handle) for variable in model.trainable_variables}
        root = trace.function.outputs[0]
        return Traced(
            trace,
            root,
            arrays,
            found,
            trainable=[inner for outer, inner in trace.graph.captures if id(outer) in handles],
            captured=[inner for _, inner in trace.graph.captures],
            name=name,
            random=graph.is_random(root),
            python=graph.holds_python(root),
        )

    def program(self, traced: Traced, expanded: bool) -> tuple[TensorFlowProgram, Callable[[Any], Any]]:
        if expanded:
            recorder = traced.recorder
            roots = [traced.root, *(one.value for one in (*recorder.outputs, *recorder.added))]
            graph.expand_fused(traced.trace.graph, roots)
        program = TensorFlowProgram(traced.trace)
        return program, program.value

    @contextlib.contextmanager
    def call(self, calls: list[SimpleNamespace], layer: Any) -> Iterator[None]:
        """`start` and `stop` are the numbers of the first operation that the call made in its graph, and of the first
        after it."""
        here = tf.compat.v1.get_default_graph()
        start = len(here.get_operations())
        try:
            yield
        finally:
            calls.append(SimpleNamespace(layer=layer, graph=here, start=start, stop=len(here.get_operations())))

    @contextlib.contextmanager
    def forward(self, found: Found) -> Iterator[None]:
        yield
        found.forward.update(operation.name for operation in tf.compat.v1.get_default_graph().get_operations())

    @contextlib.contextmanager
    def state_put_back(self, traced: Traced | None) -> Iterator[None]:
        before = [] if traced is None else graph.variables(graph.moved(traced.trace.graph))
        try:
            yield
        finally:
            graph.put_back(before)

    @contextlib.contextmanager
    def random_put_back(self) -> Iterator[None]:
        eager = getattr(context.context(), "_rng", None)  # there once tf.random.set_seed was called
        state = None if eager is None else eager.getstate()
        try:
            yield
        finally:
            if state is not None:
                eager.setstate(state)

    def apart(self, function: Callable) -> Callable:
        """In a thread of its own where the caller has a GradientTape open.

        With one, TensorFlow traces Keras's test function twice, and Keras gives it its one batch once. A tape belongs
        to the thread that opened it.
        """

        @functools.wraps(function)
        def apart(*args: Any, **kwargs: Any) -> Any:
            if not record.could_possibly_record():
                return function(*args, **kwargs)
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                return pool.submit(function, *args, **kwargs).result()

        return apart

    def evaluated(self, model: Any, x: Any, y: Any, sample_weight: Any) -> dict:
        model.make_test_function()
        model.reset_metrics()
        return model.test_function(iter([keras.utils.pack_x_y_sample_weight(x, y, sample_weight)]))

    @contextlib.contextmanager
    def evaluation(self, model: Any) -> Iterator[Callable[..., dict]]:
        model.make_test_function(force=True)
        function = model.test_function
        model.reset_metrics()
        feed: _Feed | None = None

        def run(x: Any, y: Any, sample_weight: Any) -> dict:
            nonlocal feed
            batch = keras.tree.lists_to_tuples(keras.utils.pack_x_y_sample_weight(x, y, sample_weight))
            if any(leaf is None for leaf in keras.tree.flatten(batch)):
                return function(iter([batch]))
            spec = _batch_spec(batch, None if feed is None else feed.spec)
            if feed is not None and spec != feed.spec:
                feed.end()
                feed = None
            feed = _Feed(spec) if feed is None else feed
            feed.waiting.put(batch)
            return function(feed.iterator)

        try:
            yield run
        finally:
            if feed is not None:
                feed.end()

    def readable(self, model: Any, state: tuple) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def trace_ahead(self, function: Callable, iterator: Any, batch: Any) -> bool:
        """None is made where Keras runs its steps eagerly, nor for a function that is not Keras's. `batch` is what a
        Python iterator yields next; a `tf.data` iterator is not asked."""
        inside = _held(function)
        if isinstance(iterator, tf.data.Iterator):
            traced, argument = inside.get("multi_step_on_iterator"), iterator
        else:
            traced, argument = getattr(inside.get("one_step_on_data"), "__wrapped__", None), batch
        if not isinstance(traced, tf.types.experimental.PolymorphicFunction) or tf.config.functions_run_eagerly():
            return False
        before = traced.experimental_get_tracing_count()
        traced.get_concrete_function(argument)
        return traced.experimental_get_tracing_count() > before

    def differentiated(self, compute: Callable[[Callable], tuple[Any, Sequence]]) -> tuple[Any, Sequence, Sequence]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:

            def watch(tensor: tf.Tensor) -> tf.Tensor:
                if tensor.dtype.is_floating:
                    tape.watch(tensor)
                return tensor

            number, tensors = compute(watch)
        return number, tensors, tape.gradient(number, list(tensors))

    def graph(self) -> tf.Graph | None:
        return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()

    def outside(self, function: Callable[[], Any]) -> Any:
        with tf.init_scope():
            return function()

    def means(self) -> Means:
        return _Means()

    def with_parts(self, model: Any, kind: str, around: Callable, means: Means, check: Callable) -> Callable:
        step = getattr(model, f"{kind}_step")
        if isinstance(step, tf.types.experimental.PolymorphicFunction):  # what it has traced knows no parts
            step = tf.function(step.python_function)

        def with_parts(data: Any) -> dict:
            logs, parts = around(lambda: step(data)), means.results()
            check(logs, parts)
            return {**logs, **parts}

        return made(model, kind, tf.autograph.experimental.do_not_convert(with_parts))

    def logs_of(self, result: Any) -> dict:
        return result

    def text(self, array: np.ndarray) -> Any:
        return tf.constant(array)


class _Means(Means):
    """In variables that a graph adds to: one vector for a set of names."""

    def __init__(self) -> None:
        self.samples: tf.Variable | None = None
        self.totals: dict[tuple[str, ...], tf.Variable] = {}
        self.last: dict[tuple[str, ...], tf.Variable] = {}

    @property
    def batch_names(self) -> list[str]:
        return [name for names in self.last for name in names]

    def reset(self) -> None:
        for variable in [] if self.samples is None else [self.samples, *self.totals.values()]:
            variable.assign(tf.zeros_like(variable))

    def add(self, values: Mapping[str, tf.Tensor], samples: Any) -> None:
        names, vector = tuple(values), tf.stack(list(values.values()))
        samples = tf.cast(samples, vector.dtype)
        if self.samples is None:
            self.samples = _variable(samples)
        if names not in self.totals:
            self.totals[names] = _variable(vector)
        self.samples.assign_add(samples)
        self.totals[names].assign_add(samples * vector)

    def note(self, values: Mapping[str, tf.Tensor]) -> None:
        names, vector = tuple(values), tf.stack(list(values.values()))
        if names not in self.last:
            self.last[names] = _variable(vector)
        self.last[names].assign(vector)

    def results(self) -> dict[str, tf.Tensor]:
        found: dict[str, tf.Tensor] = {}
        for names, total in self.totals.items():
            for name, value in zip(names, tf.unstack(tf.math.divide_no_nan(total, self.samples))):
                found[name] = found[name] + value if name in found else value
        for names, vector in self.last.items():
            found.update(zip(names, tf.unstack(vector)))
        return found


def _variable(like: tf.Tensor) -> tf.Variable:
    """Zeros of the shape and dtype of a tensor, outside the graph that is being traced."""
    with tf.init_scope():
        return tf.Variable(tf.zeros(like.shape, like.dtype), trainable=False)


def _regions(calls: list, here: tf.Graph) -> dict[str, int]:
    """For each operation that a call of a layer made, by name, the innermost such call."""
    names, regions = [operation.name for operation in here.get_operations()], {}
    for number, call in reversed(list(enumerate(calls))):  # a call is noted when it ends, so an inner one comes first
        if call.graph is here:
            regions.update(dict.fromkeys(names[call.start : call.stop], number))
    return regions


def _held(function: Callable) -> dict[str, object]:
    """What a function of Python holds of the scope in which it was made, by name."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    return {} if code is None else {n: cell.cell_contents for n, cell in zip(code.co_freevars, cells or ())}


class _Feed:
    """A tf.data iterator over what is put into `waiting`: the kind that `evaluate` reads, so that Keras traces the
    very same graph."""

    def __init__(self, spec: Any):
        self.spec, self.waiting = spec, queue.SimpleQueue()
        self.iterator = iter(tf.data.Dataset.from_generator(self._batches, output_signature=spec))

    def _batches(self) -> Iterator:
        while (batch := self.waiting.get()) is not None:
            yield batch

    def end(self) -> None:
        self.waiting.put(None)


def _batch_spec(batch: Any, before: Any) -> Any:
    """What a batch holds, of any number of samples; sizes that differ from those in the spec `before` are open."""

    def spec(leaf: Any, known: Any = None) -> tf.TensorSpec:
        sizes = leaf.shape if known is None else [a if a == b else None for a, b in zip(leaf.shape, known.shape)]
        return tf.TensorSpec((None, *sizes[1:]), tf.as_dtype(leaf.dtype))

    return keras.tree.map_structure(spec, batch, *([] if before is None else [before]))
