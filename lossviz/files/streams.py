"""Standard streams that may be closed or full, and a page that is written whole or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import os
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lossviz.files.limits import Refused


def open_missing() -> bool:
    """Is there a stdout? Where a stream is closed it becomes the null device: no file that is opened later may get its
    number, and so what TensorFlow prints."""
    has_stdout = sys.stdout is not None
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (as long as the process)
    return has_stdout


def say(line: str) -> None:
    """One line on stderr, if that can be written to."""
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        _drop(sys.stderr, 2)


def write(text: str) -> None:
    """The text on stdout; a reader such as `head`, who has seen enough, is no error."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop(sys.stdout, 1)
    except OSError as error:
        _drop(sys.stdout, 1)
        raise Refused(f"stdout: {error.strerror}") from error


def _drop(stream, number: int) -> None:
    """What the stream still holds goes nowhere, so that Python does not fail on it at the end."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)
    with contextlib.suppress(OSError):
        stream.flush()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """While open, whatever is printed, also by C++ code, goes to stderr."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            ctypes.CDLL(None).fflush(None)  # what C code has printed and not yet written
        os.dup2(saved, 1)
        os.close(saved)


def place_of_page(page: Path, read: Iterable[Path], option: str = "--html") -> Path:
    """The file that a page may be written to, behind links; `Refused` where that cannot be, or is in `read`."""
    try:
        target = page.resolve()
        if not target.parent.is_dir():
            raise Refused(f"{option} {page}: its folder does not exist")
        kind = os.stat(target).st_mode
        if stat.S_ISDIR(kind):
            raise Refused(f"{option} {page}: is a folder")
        if not stat.S_ISREG(kind):
            raise Refused(f"{option} {page}: is no regular file")
        if not os.access(target, os.W_OK):
            raise Refused(f"{option} {page}: Permission denied")
        if any(file.exists() and target.samefile(file) for file in read):
            raise Refused(f"{option} {page}: would overwrite what is to be read")
    except FileNotFoundError:  # a new file
        pass
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle
        raise Refused(f"{option} {page}: {getattr(error, 'strerror', None) or error}") from error
    return target


def write_page(page: Path, target: Path, text: str, option: str = "--html") -> None:
    """The whole file or none: written beside its place, then moved there; the mode of an older file stays."""
    beside = target.with_name(f".lossviz-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with open(beside, "x", encoding="utf-8") as file:
            file.write(text)
        if target.exists():
            beside.chmod(stat.S_IMODE(target.stat().st_mode))
        beside.replace(target)
    except OSError as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        raise Refused(f"{option} {page}: {error.strerror}") from error
