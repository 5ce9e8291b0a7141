"""`guard`: `lint` looks at the first batch of every `fit`, `train_on_batch` and `evaluate`, and training goes on.

This module imports no Keras, so that a script may set Keras up as it likes before `watch` looks at it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
import threading
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lossviz.backend import serial
from lossviz.backend.quiet import require_backend
from lossviz.report.escape import clean
from lossviz.report.findings import Finding

if TYPE_CHECKING:
    import keras

#: The functions that Keras makes of a step, by kind. A class in between may make its own and not ask Keras.
_KINDS = ("train", "test")
_CALLS = ("fit", "evaluate", "train_on_batch", "test_on_batch")
_LIBRARIES = sys.stdlib_module_names - {"__main__"} | {"keras", "tensorflow", "lossviz"}

_lock = threading.Lock()
_active: list[Guard] = []  # the outermost first
_originals: dict[str, Callable] = {}  # what stood in keras.Model
_armed: weakref.WeakSet = weakref.WeakSet()  # models in which a function of ours may stand


class GuardError(RuntimeError):
    """Training was stopped by `guard(error=True)`; `findings` says why."""

    def __init__(self, message: str, findings: tuple[Finding, ...] = ()):
        super().__init__(message)
        self.findings = findings


@dataclass(frozen=True)
class Place:
    """Where a model was trained or evaluated: `call` is what Keras was asked for ("fit"), in this line of this file."""

    call: str
    model: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.call} of model {self.model!r} ({self.file}, line {self.line})"


class Guard:
    """What `guard` returns: a context manager. Between its calls nothing of it is left in Keras or in a model."""

    def __init__(self, error: bool = False, threads: bool = False):
        self.error = error
        self.found: list[tuple[Place, Finding]] = []
        self._threads = threads
        self._thread: int | None = None
        self._seen: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
        self._told: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was found so far, each fault of a model once."""
        return tuple(finding for _, finding in self.found)

    def __enter__(self) -> Guard:
        require_backend("lossviz.guard")
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> Guard:
        """Begin; Keras must be there, and run on TensorFlow."""
        self._thread = None if self._threads else threading.get_ident()
        with _lock:
            _active.append(self)
            _install()
        return self

    def close(self) -> None:
        """End. Closing twice does no harm."""
        with _lock:
            if self in _active:
                _active.remove(self)
            if not _active and _originals:
                _uninstall()

    def watches(self) -> bool:
        return self._thread in (None, threading.get_ident())

    def notes(self, model: keras.Model, kind: tuple) -> bool:
        """Is this kind of batch new to this guard? From now on it is not."""
        seen = self._seen.setdefault(model, set())
        new = kind not in seen
        seen.add(kind)
        return new

    def knows(self, model: keras.Model, kind: tuple) -> bool:
        return kind in self._seen.get(model, ())

    def add(self, place: Place, model: keras.Model, findings: tuple[Finding, ...]) -> tuple[Finding, ...]:
        """Note them; those that are new."""
        told = self._told.setdefault(model, set())
        new = tuple(finding for finding in findings if (finding.rule, finding.where) not in told)
        told.update((finding.rule, finding.where) for finding in new)
        self.found += [(place, finding) for finding in new]
        return new


def guard(*, error: bool = False) -> Guard:
    """While open, `lint` looks at the first batch of every `fit`, `train_on_batch` and `evaluate` in this thread.

        with lossviz.guard():
            model.fit(x, y, epochs=10)

    What is wrong is printed on stderr, each fault of a model once, with the line that called Keras; a sound model
    prints nothing. Training goes on. The `with` statement gives an object whose `findings` is a tuple of all
    `Finding`s so far.

    A model is looked at once for training and once for evaluation (validation in `fit` is one), and again after
    `compile` or when its batches have other dtypes or ranks. The batch is the one that the step receives: nothing more
    is drawn from a generator. Keras has traced its own step by then, and so built the model. Weights, random numbers,
    the names that Keras gives, history and outputs are those of a run without the guard; with
    `tf.config.experimental.enable_op_determinism`, bit for bit. Python code in `call` or in the loss, such as a
    counter, runs a few times more than without the guard, since the loss is traced once more; what it prints then is
    dropped.

    Not seen: steps that you write without these three, several replicas of `tf.distribute`, a `train_step` that
    computes its loss without `compute_loss`, and a class with a `make_train_function` of its own. Where a batch cannot
    be looked at, one line says so, and training goes on.

    Args:
        error: stop before the first step where a finding is an error or a warning; hints stop nothing.

    Raises:
        GuardError: with `error`, by the call of Keras; its `findings` are the reason.
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
    """
    return Guard(error)


# -- standing before Keras's functions ----------------------------------------------------------------------


def _install() -> None:
    import keras

    for kind in _KINDS:
        name = f"make_{kind}_function"
        if name not in _originals:
            _originals[name] = getattr(keras.Model, name)
            setattr(keras.Model, name, _making(kind, _originals[name]))


def _uninstall() -> None:
    import keras

    from lossviz.ask import kept

    for name, original in list(_originals.items()):
        ours = vars(keras.Model).get(name)
        if getattr(ours, "of_guard", False):  # else somebody has put another one around it, which calls ours
            delattr(keras.Model, name)
            if getattr(keras.Model, name) is not original:
                setattr(keras.Model, name, original)
            del _originals[name]
    for model in list(_armed):
        for kind in _KINDS:
            _step_aside(model, f"{kind}_function")
        kept.forget(model)
    _armed.clear()


def _making(kind: str, original: Callable) -> Callable:
    """Keras's `make_train_function` or `make_test_function`; what it makes waits for us before its first batch."""

    def make(model: keras.Model, force: bool = False) -> Any:
        made = original(model, force)
        if not serial.running() and any(one.watches() for one in _active):
            _stand_before(model, kind)
        return made

    make.__name__, make.__doc__ = original.__name__, original.__doc__
    make.of_guard = True
    return make


def _stand_before(model: keras.Model, kind: str) -> None:
    attribute = f"{kind}_function"
    function = getattr(model, attribute, None)
    if function is None or getattr(function, "of_guard", False):
        return

    def first(*arguments: Any) -> Any:
        _step_aside(model, attribute, first)
        watching = [] if serial.running() else [one for one in _active if one.watches()]
        return _run(model, kind, function, arguments, watching)

    first.of_guard = True
    first.stands_in_for = getattr(function, "stands_in_for", function)
    first.function = function
    setattr(model, attribute, first)
    _armed.add(model)


def _step_aside(model: keras.Model, attribute: str, only: Callable | None = None) -> None:
    """Put back the function that ours stands before, if one does."""
    ours = getattr(model, attribute, None)
    if getattr(ours, "of_guard", False) and only in (None, ours):
        setattr(model, attribute, ours.function)


def _run(model: keras.Model, kind: str, function: Callable, arguments: tuple, watching: list[Guard]) -> Any:
    """`function(*arguments)`, as it would be without us, after a look at its first batch. The last of the arguments is
    the iterator; on JAX the state of the model comes before it."""
    from lossviz.backend import keras_private, peek
    from lossviz.backend.current import BACKEND

    state, iterator = arguments[:-1], arguments[-1]
    function = functools.partial(function, *state) if state else function

    def key(batch: Any) -> tuple:
        return (kind, keras_private.compiled_loss(model), *peek.kind_of(batch))

    spec = peek.spec_of(iterator)
    if spec is not None:
        watching = [one for one in watching if not one.knows(model, key(spec))]
    if not watching:
        return function(iterator)
    if peek.is_distributed(iterator):
        if [one for one in watching if one.notes(model, (kind, "distributed"))]:
            _say(model, "it is distributed by tf.distribute, where each replica has a batch of its own")
        return function(iterator)
    try:
        batch, iterator = peek.peek(iterator, model.steps_per_execution)
    except StopIteration:
        return function(iterator)
    found_by = [one for one in watching if one.notes(model, key(batch if spec is None else spec))]
    if found_by:
        with BACKEND.readable(model, state):
            findings = _look(model, kind, function, iterator, peek.plain(batch))
        _tell(model, kind, findings, found_by)
    return function(iterator)


# -- looking ------------------------------------------------------------------------------------------------


def _look(model: keras.Model, kind: str, function: Callable, iterator: Iterator, batch: Any) -> tuple[Finding, ...]:
    """The findings of this batch; none, and one line, where it cannot be looked at."""
    import keras

    from lossviz.ask.lint import lint
    from lossviz.backend import keras_private
    from lossviz.backend.current import BACKEND

    asked: list = []
    refused = False
    plain = getattr(type(model), f"{kind}_step") is getattr(keras.Model, f"{kind}_step")
    try:
        with contextlib.nullcontext() if plain else _noting_compute_loss(model, asked):
            traced = BACKEND.trace_ahead(function, iterator, batch)
    except Exception:  # the step itself will raise it
        refused = True
        if not keras_private.is_built(model):
            return ()
    else:
        if traced and not plain and not asked:
            _say(model, f"the {kind}_step of {type(model).__name__} computes a loss without compute_loss")
            return ()
    try:
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
        with keras_private.unnoticed(), _muted(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return lint(model, x, y, sample_weight, batch_size=None)
    except Exception as error:
        words = " ".join(str(error).split())
        if refused:  # Keras is about to say it
            return ()
        _say(model, words if isinstance(error, ValueError) else f"{type(error).__name__}: {words}")
        return ()


@contextlib.contextmanager
def _noting_compute_loss(model: keras.Model, asked: list) -> Iterator[None]:
    from lossviz.backend import keras_private

    original = model.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        asked.append(True)
        return original(*args, **kwargs)

    with keras_private.replaced(model, "compute_loss", compute_loss):
        yield


def _tell(model: keras.Model, kind: str, findings: tuple[Finding, ...], guards: list[Guard]) -> None:
    """Print what is new, once; `GuardError` where a guard wants one."""
    if not findings:
        return
    place = _place(model, kind)
    new = [one.add(place, model, findings) for one in guards][-1]  # the innermost prints
    if new:
        _print("\n".join([f"lossviz: {clean(str(place))}", *map(str, new)]))
    serious = tuple(finding for finding in findings if finding.severity != "hint")
    if serious and any(one.error for one in guards):
        rules = ", ".join(dict.fromkeys(finding.rule for finding in serious))
        raise GuardError(f"lossviz.guard stops {place} before its first step: {rules}", serious)


def _place(model: keras.Model, kind: str) -> Place:
    """The line that called Keras: the innermost frame that belongs to neither Keras nor Python nor us."""
    frame: types.FrameType | None = sys._getframe(1)
    call, innermost = "", ""
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in _LIBRARIES:
        if frame.f_code.co_name in _CALLS:
            call = frame.f_code.co_name
            innermost = innermost or call
        frame = frame.f_back
    call = "validation in fit" if (innermost, call) == ("evaluate", "fit") else call or f"{kind}_function"
    file, line = ("?", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno)
    return Place(call, model.name, file, line)


def _say(model: keras.Model, why: str, limit: int = 300) -> None:
    why = why if len(why) <= limit else f"{why[: limit - 1]}…"
    _print(clean(f"lossviz: guard does not see the loss of model {model.name!r}: {why}"))


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError, AttributeError):  # a stderr that is closed, full or missing
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def _muted() -> Iterator[None]:
    """While open, what this thread prints is dropped; that of other threads is not."""
    before = sys.stdout
    sys.stdout = _Muted(before)
    try:
        yield
    finally:
        sys.stdout = before


class _Muted(io.TextIOBase):
    def __init__(self, stream: Any):
        self._stream, self._thread = stream, threading.get_ident()

    def write(self, text: str) -> int:
        return len(text) if threading.get_ident() == self._thread else self._stream.write(text)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()
