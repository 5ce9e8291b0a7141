"""What `explain` keeps with a model between two calls, and how it knows that it still holds.

A traced graph reads variables anew whenever it runs. Everything else it holds fast as it was when it was traced: the
`alpha` of a loss, the rate of a layer, a number in a closure, which layers there are. So whatever Python knows of the
model is listed, and what is kept is used only while that list stays the same. Watched are:

- the layers of the model, its loss, its regularisers, and everything that these hold: attributes, lists, dictionaries,
  arrays (by their content), other models with their layers, objects of your own classes, and the classes themselves
- functions: their code, defaults, closures, and the globals that they name, also in a string; what they name in modules
  of yours, and in modules inside those; the environment, where they read it
- which weights are trainable, and Keras's settings: floatx, epsilon, the image data format

Not watched is what Python code may read without naming it:

- files, the clock, another process, a value inside a C library
- attributes that are looked up under a computed name, and what `__getattr__` or a descriptor makes up
- functions of Python, NumPy, Keras, TensorFlow and JAX, should someone replace one of them while the program runs
- objects of the standard library other than containers, namespaces and the environment, such as a `ConfigParser`

For those there is `explain(..., fresh=True)`. The functions that Keras itself keeps notice none of all this.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import functools
import hashlib
import operator
import os
import sys
import types
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import keras
import numpy as np

from lossviz.backend import keras_private as _keras

#: At most this many traces are kept with a model: a batch and the shorter last one, each in both modes.
LIMIT = 4

_PLACE = "_lossviz_kept"  # on the model itself: it goes when the model goes, and no file format knows it
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, type(Ellipsis))
_CONTAINERS = (list, tuple, set, frozenset, collections.deque)
_LIBRARIES = (sys.stdlib_module_names - {"__main__"}) | {"keras", "tensorflow", "jax", "jaxlib", "numpy", "lossviz"}
#: Names under which Python code reads the environment.
_ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "expandvars"}
#: Where objects of a library are looked into, because their attributes are settings.
_OPEN = ("keras.", "lossviz.")
_SETTINGS = (types.SimpleNamespace, argparse.Namespace, collections.UserDict, collections.UserList)
#: What may be made anew by whoever is asked for it: it counts by what is in it.
_ANONYMOUS = (dict, *_CONTAINERS, types.MethodType, np.ndarray)
_BOOKKEEPING_OF_CLASSES = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl"}


class Kept:
    """A few plans (`decompose.Plan`) and a few of Keras's test functions, with what they hold fast."""

    def __init__(self) -> None:
        self.held: Held | None = None
        self.plans: dict[Hashable, Any] = {}
        self.functions: dict[Hashable, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.plans or self.functions)

    def keep(self, things: dict[Hashable, Any], key: Hashable, thing: Any) -> None:
        """Add one; the oldest makes room. What it holds fast is not known before `settle`."""
        things[key] = thing
        self.held = None
        if len(things) > LIMIT:
            del things[next(iter(things))]

    def settle(self, model: keras.Model) -> None:
        """After tracing: what the traces hold fast is the model as it is now (a layer may note something in `call`)."""
        if self.held is None:
            self.held = Held(model)


def of(model: keras.Model) -> Kept:
    """What is kept with this model; nothing, if anything has changed since that tracing holds fast."""
    found = vars(model).get(_PLACE)
    if found is None or found.held is None or not found.held.same(model):
        found = vars(model)[_PLACE] = Kept()
    return found


def forget(model: keras.Model) -> None:
    """Keep nothing any more."""
    vars(model).pop(_PLACE, None)


class Held:
    """Everything about a model, its layers and its loss that tracing holds fast, as it was.

    `list` is what a walk through all of it met: plain values, and the objects themselves, so that none of them can make
    room for another one with its id. `parts` holds beside each object what it consisted of. While all of these are the
    same objects, another walk would meet the same, so none is made.
    """

    def __init__(self, model: keras.Model):
        self.roots = _roots(model)
        self.list: list[Any] = []
        self.parts: list[tuple[Callable[[Any], Sequence], Any, Sequence]] = []
        stack, seen = list(self.roots), set()
        while stack:
            thing = stack.pop()
            if isinstance(thing, _PLAIN):
                self.list.append(thing)
                continue
            look = _look(thing)
            inside = () if look is None else look(thing)
            anonymous = isinstance(thing, _ANONYMOUS)
            self.list.append((type(thing).__name__ + str(len(inside))) if anonymous else thing)
            if look is not None and id(thing) not in seen:
                seen.add(id(thing))
                self.parts.append((look, thing, inside))
                stack.extend(inside)

    def same(self, model: keras.Model) -> bool:
        """Is all of it still what it was: plain values equal, everything else the same object?"""
        if _alike(self.roots, _roots(model)) and all(_alike(inside, look(thing)) for look, thing, inside in self.parts):
            return True
        other = Held(model)
        if not _alike(self.list, other.list):
            return False
        self.__dict__ = other.__dict__  # another list of the same layers, or the like
        return True


def _alike(old: Sequence, new: Sequence) -> bool:
    if len(old) != len(new):
        return False
    return all(map(operator.is_, old, new)) or all(map(_equal, old, new))


def _equal(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return type(a) is type(b) and isinstance(a, _PLAIN) and bool(a == b or (a != a and b != b))


# -- what things consist of -------------------------------------------------------------------------------


def _roots(model: keras.Model) -> tuple:
    compiled = (_keras.compiled_loss(model), _keras.compiled_metrics(model), model.run_eagerly, model.jit_compile)
    settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    return (*settings, *compiled, *_keras.layers_of(model), *model.trainable_variables)


def _look(thing: Any) -> Callable[[Any], Sequence] | None:
    """The function that says what such an object consists of, as far as tracing may look at it; None for nothing."""
    for kinds, look in _LOOKS:
        if isinstance(thing, kinds):
            return look
    if isinstance(thing, _CLOSED):
        return None
    if isinstance(thing, type):
        return None if _is_library(thing) else _of_class
    if isinstance(thing, types.FunctionType):
        return None if _is_library(thing) else _of_function
    if hasattr(thing, "python_function"):  # of a tf.function
        return operator.attrgetter("__class__", "python_function")
    settings = isinstance(thing, _SETTINGS) or type(thing).__module__.startswith(_OPEN)
    return _of_object if settings or not _is_library(type(thing)) else None


def _of_array(array: np.ndarray) -> Sequence:
    if array.dtype.hasobject:
        return list(array.flat)
    content = np.ascontiguousarray(array)
    return (str(content.shape), str(content.dtype), hashlib.blake2b(content.view(np.uint8)).hexdigest())


def _of_layer(layer: keras.layers.Layer) -> Sequence:
    known = (type(layer), layer.trainable, layer.dtype_policy, layer.activity_regularizer, layer.supports_masking)
    own = vars(layer)
    names = sorted(own.keys() - _bookkeeping())
    return (*known, *_keras.sublayers(layer), *names, *map(own.get, names))


def _of_object(thing: Any) -> Sequence:
    return (
        type(thing),
        getattr(thing, "__dict__", None),
        *(getattr(thing, name, None) for name in _slots(type(thing))),
    )


@functools.lru_cache(1000)
def _slots(kind: type) -> tuple[str, ...]:
    return tuple(n for base in kind.__mro__ for n in getattr(base, "__slots__", ()) if isinstance(n, str))


def _of_class(kind: type) -> Sequence:
    own = vars(kind)
    return (*kind.__bases__, *(own[name] for name in own if name not in _BOOKKEEPING_OF_CLASSES))


def _of_function(function: types.FunctionType) -> Sequence:
    """Its code, its defaults, and what it finds in its closure, in its module, in modules that it names, and in the
    environment."""
    found = [function.__code__, function.__defaults__, function.__kwdefaults__, vars(function)]
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    names, spaces = _names(function.__code__), {id(function.__globals__): function.__globals__}
    waiting = list(spaces.values())
    for space in waiting:
        values = list(map(space.get, names))
        found += values
        for value in values:
            if isinstance(value, types.ModuleType) and not _is_library(value) and id(vars(value)) not in spaces:
                spaces[id(vars(value))] = vars(value)
                waiting.append(vars(value))
    if not _ENVIRONMENT.isdisjoint(names):
        found.append(os.environ)
    return found


@functools.lru_cache(1000)
def _names(code: types.CodeType) -> tuple[str, ...]:
    """What this code and the functions in it may look up by name: also in a string, as `getattr` takes it."""
    codes, names = [code], set()
    for inner in codes:
        names.update(inner.co_names)
        names.update(constant for constant in inner.co_consts if isinstance(constant, str) and constant.isidentifier())
        codes += [constant for constant in inner.co_consts if isinstance(constant, types.CodeType)]
    return tuple(sorted(names))


def _is_library(thing: Any) -> bool:
    """Does this class, function or module belong to Python or to a library, where nothing changes?"""
    module = thing.__name__ if isinstance(thing, types.ModuleType) else getattr(thing, "__module__", None)
    return (module or "").split(".")[0] in _LIBRARIES


@functools.cache
def _bookkeeping() -> frozenset[str]:
    """Attributes that Keras itself gives to every layer and model, such as its history; each has a name here, because
    automatic names would count on."""

    class Same(keras.layers.Layer):  # Keras 3.13 wants a layer between input and output
        def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
            return keras.KerasTensor(inputs.shape, name="o")

    image = keras.Input((1,), name="i")
    models = [keras.Model(image, Same(name="l")(image), name="m"), keras.Sequential(name="s"), keras.Model(name="n")]
    for model in models:
        model.compile(keras.optimizers.SGD(name="o"), loss="mse", metrics=["mae"])
    names = {name for thing in (*models, keras.layers.Layer(name="l")) for name in vars(thing)}
    # a step of Keras notes these with the model, on JAX
    return frozenset(names | {"history", _PLACE, "_jax_state", "_jax_state_synced", "_eval_epoch_iterator"})


def _of_dict(thing: dict) -> Sequence:
    return (*thing, *thing.values())


_LOOKS: tuple[tuple[Any, Callable[[Any], Sequence]], ...] = (
    (dict, _of_dict),
    (_CONTAINERS, tuple),
    (np.ndarray, _of_array),
    (bytearray, lambda thing: (bytes(thing),)),
    (type(os.environ), lambda thing: [text for item in thing.items() for text in item]),
    (types.MethodType, operator.attrgetter("__func__", "__self__")),
    (functools.partial, operator.attrgetter("func", "args", "keywords")),
    ((staticmethod, classmethod), lambda thing: (thing.__func__,)),
    (property, lambda thing: (thing.fget,)),
    (keras.Variable, operator.attrgetter("trainable", "regularizer")),
    (keras.layers.Layer, _of_layer),
)
#: What nothing of a trace depends on but the object itself.
_CLOSED = (keras.KerasTensor, keras.metrics.Metric, keras.optimizers.Optimizer, types.ModuleType)
