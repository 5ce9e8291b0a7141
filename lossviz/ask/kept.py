"""What `explain` keeps with a model between two calls, and how it knows that it still holds.

A traced graph reads variables anew whenever it runs. Everything else it holds fast as it was when it was traced: the
`alpha` of a loss, the rate of a layer, a number in a closure, which layers there are. So whatever Python knows of the
model is listed, and what is kept is used only while that list stays the same. What no list can know (a file that the
loss reads, a value inside a C library) is as fast in the functions that Keras itself keeps.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import sys
import types
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import keras
import numpy as np

from lossviz.backend import keras_private as _keras

#: At most this many traces are kept with a model: a batch and the shorter last one, each in both modes.
LIMIT = 4

_PLACE = "_lossviz_kept"  # on the model itself: it goes when the model goes, and no file format knows it
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, type(Ellipsis))
_CONTAINERS = (list, tuple, set, frozenset, collections.deque)
_LIBRARIES = (sys.stdlib_module_names - {"__main__"}) | {"keras", "tensorflow", "numpy", "lossviz"}
_BOOKKEEPING_OF_CLASSES = {"__dict__", "__weakref__", "__doc__", "__module__", "__annotations__", "_abc_impl"}


class Kept:
    """A few plans (`decompose.Plan`) and a few of Keras's test functions; `list` is what they hold fast."""

    def __init__(self, model: keras.Model):
        self.list = baked(model)
        self.plans: dict[Hashable, Any] = {}
        self.functions: dict[Hashable, Any] = {}

    def __bool__(self) -> bool:
        return bool(self.plans or self.functions)

    @staticmethod
    def keep(things: dict[Hashable, Any], key: Hashable, thing: Any) -> None:
        """Add one; the oldest makes room."""
        things[key] = thing
        if len(things) > LIMIT:
            del things[next(iter(things))]

    def settle(self, model: keras.Model) -> None:
        """After tracing: what the traces hold fast is the model as it is now (a layer may note something in `call`)."""
        self.list = baked(model)


def of(model: keras.Model) -> Kept:
    """What is kept with this model; nothing, if anything has changed since that tracing holds fast."""
    found = vars(model).get(_PLACE)
    if found is None or not same(found.list, baked(model)):
        found = vars(model)[_PLACE] = Kept(model)
    return found


def forget(model: keras.Model) -> None:
    """Keep nothing any more."""
    vars(model).pop(_PLACE, None)


def same(old: list, new: list) -> bool:
    """Are two lists of `baked` alike: plain values equal, everything else the same object?"""
    return len(old) == len(new) and all(map(_alike, old, new))


def _alike(a: Any, b: Any) -> bool:
    if a is b:
        return True
    return type(a) is type(b) and isinstance(a, _PLAIN) and bool(a == b or (a != a and b != b))


def baked(model: keras.Model) -> list:
    """Plain values and objects that stand for everything about the model, its layers and its loss that tracing holds
    fast. Objects are listed themselves, so that none of them can make room for another one with its id."""
    settings = (keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format())
    compiled = (_keras.compiled_loss(model), _keras.compiled_metrics(model), model.run_eagerly, model.jit_compile)
    stack = [model.trainable_variables, _keras.layers_of(model), compiled, settings]
    found, seen = [], set()
    while stack:
        thing = stack.pop()
        if isinstance(thing, np.ndarray) and not thing.dtype.hasobject:
            content = np.ascontiguousarray(thing)
            thing = f"{content.shape} {content.dtype} {hashlib.blake2b(content.view(np.uint8)).hexdigest()}"
        if isinstance(thing, _PLAIN):
            found.append(thing)
            continue
        inside = list(_inside(thing))
        anonymous = isinstance(thing, (dict, *_CONTAINERS, types.MethodType))  # made anew by whoever is asked for it
        found.append((type(thing).__name__ + str(len(inside))) if anonymous else thing)
        if id(thing) not in seen:
            seen.add(id(thing))
            stack.extend(inside)
    return found


def _inside(thing: Any) -> Iterable:
    """What an object consists of, as far as tracing may look at it."""
    if isinstance(thing, dict):
        return (part for item in thing.items() for part in item)
    if isinstance(thing, _CONTAINERS) or (isinstance(thing, np.ndarray) and thing.dtype.hasobject):
        return iter(thing)
    if isinstance(thing, types.MethodType):
        return (thing.__func__, thing.__self__)
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords)
    if isinstance(thing, types.FunctionType):
        return _of_function(thing)
    if isinstance(thing, (staticmethod, classmethod)):
        return (thing.__func__,)
    if isinstance(thing, property):
        return (thing.fget,)
    if isinstance(thing, type):
        own = () if _is_library(thing) else [v for k, v in vars(thing).items() if k not in _BOOKKEEPING_OF_CLASSES]
        return (*thing.__bases__, *own)
    if isinstance(thing, keras.Variable):
        return (thing.trainable, thing.regularizer)
    if isinstance(thing, keras.layers.Layer):
        own = [part for item in vars(thing).items() if item[0] not in _bookkeeping() for part in item]
        known = (thing.trainable, thing.dtype_policy, thing.activity_regularizer, thing.supports_masking)
        return (type(thing), *known, *own)
    if hasattr(thing, "python_function"):  # of a tf.function
        return (thing.python_function,)
    if isinstance(thing, (keras.KerasTensor, keras.metrics.Metric, keras.optimizers.Optimizer, types.ModuleType)):
        return ()
    known = type(thing).__module__.startswith("keras.") or isinstance(thing, types.SimpleNamespace)
    if known or not _is_library(type(thing)):
        slots = (
            name for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ()) if isinstance(name, str)
        )
        return (type(thing), getattr(thing, "__dict__", {}), *(getattr(thing, name, None) for name in slots))
    return ()


def _of_function(function: types.FunctionType) -> Iterator:
    """Its code, its defaults, and what it finds in its closure and in its module."""
    if _is_library(function):
        return
    yield from (function.__code__, function.__defaults__, function.__kwdefaults__, vars(function))
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            yield cell.cell_contents
    codes, names = [function.__code__], set()
    while codes:
        code = codes.pop()
        names.update(code.co_names)
        codes.extend(constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    for name in sorted(names & function.__globals__.keys()):
        value = function.__globals__[name]
        if isinstance(value, types.ModuleType) and not _is_library(value):
            yield from (getattr(value, other) for other in sorted(names & vars(value).keys()))
        yield value


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
    return frozenset(names | {"history", _PLACE})
