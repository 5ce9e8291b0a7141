"""Keras on JAX: tracing into a jaxpr, and what Keras's trainer there does."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import keras
import numpy as np
from keras.src import backend as keras_backend

from lossviz.backend.backend import Backend, Means, made
from lossviz.backend.jax_backward import SearchedProgram
from lossviz.backend.jax_program import CALL, FORWARD, JaxProgram
from lossviz.backend.traced import Found, Traced, leaves

#: How often variables may turn up that were not known when it was traced before.
_TIMES = 5


class Jax(Backend):
    name = "jax"
    widest = "float32"
    differentiates_apart = True

    @property
    def version(self) -> str:
        return jax.__version__

    def is_tensor(self, thing: Any) -> bool:
        return isinstance(thing, jax.Array)

    def identity(self, tensor: Any) -> Any:
        return jax.lax.optimization_barrier(jnp.asarray(tensor))

    def logits_of(self, tensor: Any) -> Any:
        return None  # on JAX Keras takes the probabilities

    def takes_logits(self, kind: str, output: Any) -> bool:
        return False

    def predicted(self, model: Any, x: Any, **options: Any) -> Any:
        """Through `call`, as `stateless_call` does: a layer that is called twice then forgets what it added before."""
        return model.call(x, **options)

    def trace(self, compute: Callable[[Found, Sequence], Any], structure: list, model: Any, name: str) -> Traced:
        """A variable that is read is an input: those of the model, and whatever others turn out to be read."""
        arrays = leaves(structure)
        specs = [jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)) for leaf in arrays]
        metrics = set() if model is None else {id(variable) for variable in model.metrics_variables}
        variables = [] if model is None else [one for one in model.variables if id(one) not in metrics]
        for _ in range(_TIMES):
            closed, found, unknown = self._jaxpr(compute, structure, specs, variables)
            if not unknown:
                break
            variables += unknown
        else:
            raise ValueError("each call makes new variables: make layers in __init__ or in build, not in call")
        program = SearchedProgram(closed, variables)
        known = {id(tensor): value for tensor, value in zip(found.marks, program.outputs)}
        trainable = set() if model is None else {id(variable) for variable in model.trainable_variables}
        return Traced(
            SimpleNamespace(program=program, values=known),
            found.marks[0],
            arrays,
            found,
            trainable=[v for v, variable in zip(program.weights, variables) if id(variable) in trainable],
            captured=program.weights,
            name=name,
            python=program.holds_python,
        )

    def _jaxpr(self, compute: Callable, structure: list, specs: list, variables: list) -> tuple[Any, Found, list]:
        """The jaxpr of a loss as a function of the values of variables and of the batch; what was noted, which it also
        returns; and further variables that were read."""
        found, scopes = Found(), []

        def traced(values: Sequence, placeholders: Sequence) -> tuple:
            scopes.append(_Scope(list(zip(variables, values))))
            waiting = iter(placeholders)
            arguments = keras.tree.map_structure(lambda leaf: None if leaf is None else next(waiting), structure)
            with scopes[0], _softmax_by_name():
                loss = jnp.asarray(compute(found, arguments))
                root = self.identity(loss) if loss.ndim == 0 else jnp.mean(loss)  # the progress bar shows a mean
            found.marks = [root, *placeholders, *(tensor for tensor in found.tensors() if self.is_tensor(tensor))]
            return tuple(found.marks)

        values = [jax.ShapeDtypeStruct(variable.shape, jnp.dtype(variable.dtype)) for variable in variables]
        return jax.make_jaxpr(traced)(values, specs), found, scopes[0].unknown

    def program(self, traced: Traced, expanded: bool) -> tuple[JaxProgram, Callable[[Any], Any]]:
        known = traced.trace.values
        return traced.trace.program, lambda tensor: known.get(id(tensor), tensor)

    @contextlib.contextmanager
    def call(self, calls: list[SimpleNamespace], layer: Any) -> Iterator[None]:
        calls.append(SimpleNamespace(layer=layer))
        with jax.named_scope(f"{CALL}{len(calls) - 1}"):
            yield

    @contextlib.contextmanager
    def forward(self, found: Found) -> Iterator[None]:
        with jax.named_scope(FORWARD):
            yield

    @contextlib.contextmanager
    def state_put_back(self, traced: Traced | None) -> Iterator[None]:
        """A jaxpr moves nothing, but Keras's own step assigns what it made of the variables that are not trained."""
        variables = [] if traced is None else traced.trace.program.variables
        moved = [variable for variable in variables if not variable.trainable]
        before = [np.array(variable.value, copy=True) for variable in moved]
        try:
            yield
        finally:
            for variable, value in zip(moved, before):
                variable.assign(value)

    def random_put_back(self) -> contextlib.AbstractContextManager:
        return contextlib.nullcontext()

    def apart(self, function: Callable) -> Callable:
        return function

    def evaluated(self, model: Any, x: Any, y: Any, sample_weight: Any) -> dict:
        size = len(next(leaf for leaf in keras.tree.flatten(x) if leaf is not None))
        return model.evaluate(x, y, batch_size=size, sample_weight=sample_weight, verbose=0, return_dict=True)

    @contextlib.contextmanager
    def evaluation(self, model: Any) -> Iterator[Callable[..., dict]]:
        model.make_test_function(force=True)
        model.reset_metrics()

        def run(x: Any, y: Any, sample_weight: Any) -> dict:
            parts = "trainable_variables", "non_trainable_variables", "metrics_variables"
            state = model._get_jax_state(**dict.fromkeys(parts, True))
            batch = keras.utils.pack_x_y_sample_weight(x, y, sample_weight)
            logs, state = model.test_function(state, iter([batch]))
            for variable, value in _pairs(model, state):
                variable.assign(value)
            return logs

        yield run

    @contextlib.contextmanager
    def readable(self, model: Any, state: tuple) -> Iterator[None]:
        """While it trains, Keras takes the values out of the variables, and its step writes over their memory."""
        pairs = _pairs(model, state[0])
        before = [variable._value for variable, _ in pairs]
        for variable, value in pairs:
            variable._value = jnp.copy(value)
        try:
            yield
        finally:
            for (variable, _), value in zip(pairs, before):
                variable._value = value

    def trace_ahead(self, function: Callable, iterator: Any, batch: Any) -> bool:
        return False

    def differentiated(self, compute: Callable[[Callable], tuple[Any, Sequence]]) -> tuple[Any, Sequence, Sequence]:
        """What is watched is shifted by zero, and the derivative is that by the shift. JAX has to run `compute` for
        that, twice, of which the compiler makes once."""
        shapes: list[jax.ShapeDtypeStruct] = []

        def shape_of(tensor: jax.Array) -> jax.Array:
            shapes.append(jax.ShapeDtypeStruct(tensor.shape, tensor.dtype))
            return tensor

        jax.eval_shape(lambda: compute(shape_of)[0])

        def shifted(shifts: Sequence) -> tuple[Any, tuple]:
            waiting = iter(shifts)
            seen: list[jax.Array] = []

            def watch(tensor: jax.Array) -> jax.Array:
                shift = next(waiting)
                seen.append(tensor if shift is None else tensor + shift)
                return seen[-1]

            number, tensors = compute(watch)
            places = {id(tensor): k for k, tensor in enumerate(seen)}
            order.extend(places[id(tensor)] for tensor in tensors)
            return number, tuple(tensors)

        order: list[int] = []
        shifts = [jnp.zeros(s.shape, s.dtype) if jnp.issubdtype(s.dtype, jnp.inexact) else None for s in shapes]
        number, back, tensors = jax.vjp(shifted, shifts, has_aux=True)
        slopes = back(jnp.ones_like(number))[0]
        return number, tensors, [slopes[k] for k in order]

    def graph(self) -> None:
        return None

    def outside(self, function: Callable[[], Any]) -> Any:
        with concurrent.futures.ThreadPoolExecutor(1) as pool:  # what is traced, and Keras's scopes, belong to a thread
            return pool.submit(function).result()

    def means(self) -> Means:
        return _Means()

    def with_parts(self, model: Any, kind: str, around: Callable, means: Means, check: Callable) -> Callable:
        step = getattr(model, f"{kind}_step")

        def checked(state: Any, data: Any) -> tuple[dict, Any]:
            logs, state = around(lambda: step(state, data))
            check(logs, dict.fromkeys(means.names))
            return logs, state

        function = made(model, kind, checked)

        def with_parts(state: Any, iterator: Any) -> tuple[dict, Any]:
            try:
                logs, state = function(state, iterator)
            except BaseException:
                _give_back(model, state)
                raise
            jax.effects_barrier()
            return {**logs, **means.results()}, state

        return with_parts

    def logs_of(self, result: Any) -> dict:
        return result[0]

    def text(self, array: np.ndarray) -> Any:
        return array


class _Means(Means):
    """In numbers outside the compiled step, which calls back with those of each batch."""

    def __init__(self) -> None:
        self.reset()
        self.last: dict[str, float] = {}
        self.names: set[str] = set()

    @property
    def batch_names(self) -> list[str]:
        return list(self.last)

    def reset(self) -> None:
        self.samples, self.totals = 0, {}

    def add(self, values: Mapping[str, Any], samples: Any) -> None:
        names = tuple(values)
        self.names.update(names)

        def add(numbers: np.ndarray) -> None:
            self.samples += samples
            for name, number in zip(names, numbers.tolist()):
                self.totals[name] = self.totals.get(name, 0.0) + samples * number

        jax.debug.callback(add, _vector(values))

    def note(self, values: Mapping[str, Any]) -> None:
        names = tuple(values)
        self.names.update(names)
        jax.debug.callback(lambda numbers: self.last.update(zip(names, numbers.tolist())), _vector(values))

    def results(self) -> dict[str, Any]:
        return {**{name: total / max(self.samples, 1) for name, total in self.totals.items()}, **self.last}


def _pairs(model: Any, state: Sequence) -> list[tuple[Any, Any]]:
    """Each variable with its value in the state of a train or test step."""
    parts = [model.trainable_variables, model.non_trainable_variables, model.metrics_variables]
    if len(state) > len(parts):
        parts.insert(2, model.optimizer.variables)
    return [pair for part in zip(parts, state) for pair in zip(*part)]


def _give_back(model: Any, state: Sequence) -> None:
    """Before a step Keras takes the values out of the variables, and after an error it does not put them back."""
    for variable, value in _pairs(model, state):
        if variable._value is None and not value.is_deleted():
            variable._value = value


def _vector(values: Mapping[str, Any]) -> jax.Array:
    return jax.lax.stop_gradient(jnp.stack([jnp.asarray(value, jnp.float32) for value in values.values()]))


class _Scope(keras.StatelessScope):
    """Notes the variables that are read and have no value here."""

    def __init__(self, mapping: list):
        super().__init__(mapping, collect_losses=True, initialize_variables=False)
        self.unknown: list[Any] = []

    def get_current_value(self, variable: Any) -> Any:
        value = super().get_current_value(variable)
        if value is None and not any(variable is other for other in self.unknown):
            self.unknown.append(variable)
        return value


@contextlib.contextmanager
def _softmax_by_name() -> Iterator[None]:
    """While open, Keras's softmax is one equation of that name, as its log-softmax is."""
    original = keras_backend.nn.softmax

    def softmax(x: Any, axis: Any = -1) -> Any:
        if isinstance(axis, int):
            return jax.jit(_named(original, axis))(x)
        return original(x, axis=axis)

    keras_backend.nn.softmax = softmax
    try:
        yield
    finally:
        keras_backend.nn.softmax = original


def _named(original: Callable, axis: int) -> Callable:
    def softmax(x: Any) -> Any:
        return original(x, axis=axis)

    return softmax
