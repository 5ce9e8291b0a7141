"""Run a script that nobody changed, as `python train.py` would, with a guard around it.

Nothing of Keras is imported before the script does it, so that the script may set it up as it likes.
"""

from __future__ import annotations

import builtins
import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from lossviz.ask.guard import Guard
from lossviz.backend.quiet import require_backend

_PACKAGE = str(Path(__file__).parent.parent) + os.sep


def run(script: str, arguments: Sequence[str], guard: Guard, say: Callable[[str], None]) -> None:
    """Run it as `__main__`, whatever it raises. `guard` opens once the script has imported Keras.

    Raises:
        OSError: the script cannot be read.
    """
    path = os.path.abspath(script)
    with io.open_code(path) as file:
        source = file.read()
    _become(script, path, arguments)
    with _at_keras(lambda: _open(guard, say)), _own_traceback():
        try:
            exec(compile(source, path, "exec", dont_inherit=True), sys.modules["__main__"].__dict__)
        finally:
            guard.close()


def _become(script: str, path: str, arguments: Sequence[str]) -> None:
    """Arguments, import path and `__main__` of a process that was started with this script."""
    ours = sys.argv[0]
    sys.argv[:] = [script, *arguments]
    if not sys.flags.safe_path:
        if sys.path and ours and sys.path[0] == os.path.dirname(os.path.abspath(ours)) and sys.path[0] != _PACKAGE[:-1]:
            del sys.path[0]  # where the command `lossviz` lies
        sys.path.insert(0, os.path.dirname(os.path.realpath(path)))
    module = types.ModuleType("__main__")
    module.__file__, module.__spec__, module.__builtins__ = path, None, builtins
    module.__loader__ = importlib.machinery.SourceFileLoader("__main__", path)
    module.__annotations__, module.__cached__ = {}, None
    sys.modules["__main__"] = module


def _open(guard: Guard, say: Callable[[str], None]) -> None:
    try:
        require_backend("lossviz run")
        guard.open()
    except Exception as error:
        say(f"lossviz: the script runs, and nothing is looked at: {' '.join(str(error).split())}")


@contextlib.contextmanager
def _at_keras(act: Callable[[], None]) -> Iterator[None]:
    """While open, `act` is called once, when the script has imported Keras."""
    if "keras" in sys.modules:
        act()
        yield
        return
    finder = _Finder(act)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        finder.leave()


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, act: Callable[[], None]):
        self.act = act

    def leave(self) -> None:
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self)

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        self.leave()
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            loader, execute = spec.loader, spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                with contextlib.suppress(AttributeError):
                    del loader.exec_module
                execute(module)
                self.act()

            with contextlib.suppress(AttributeError):  # a loader that takes no attribute: Keras is not looked at
                loader.exec_module = exec_module
        return spec


@contextlib.contextmanager
def _own_traceback() -> Iterator[None]:
    """What is raised inside is shown as without us, by whatever hook is there when it ends the process."""
    try:
        yield
    except BaseException:
        show = sys.excepthook

        def hook(kind, error, trace) -> None:
            _strip(error)
            show(kind, error, error.__traceback__)

        sys.excepthook = hook
        raise


def _strip(error: BaseException) -> None:
    """Take our frames out of the traceback of an error and of those that led to it."""
    waiting, seen = [error], set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _without_ours(one.__traceback__)
        waiting += [one.__cause__, one.__context__]


def _without_ours(trace: types.TracebackType | None) -> types.TracebackType | None:
    frames: list[types.TracebackType] = []
    while trace is not None:
        code = trace.tb_frame.f_code
        if code is run.__code__:  # what led to the script
            frames.clear()
        elif not code.co_filename.startswith(_PACKAGE):
            frames.append(trace)
        trace = trace.tb_next
    result = None
    for one in reversed(frames):
        result = types.TracebackType(result, one.tb_frame, one.tb_lasti, one.tb_lineno)
    return result
