"""How much a file may hold, and the one error of this room."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile, ZipInfo

GIB = 2**30


class Refused(Exception):
    """A file or an argument cannot be used; the message is the line to print."""


@dataclass(frozen=True)
class Limits:
    """What one file may hold: `total` bytes when unpacked, and in each archive `members` files or arrays.

    The configuration of a model may have a 256th of `total`: 16 MiB of 4 GiB.
    """

    total: int = 4 * GIB
    members: int = 10_000

    @property
    def config(self) -> int:
        return self.total // 256

    def check(self, path: Path, what: str, size: int, limit: int | None = None) -> None:
        """Raise `Refused` if `what` in `path` declares more bytes than `limit` (default: `total`)."""
        limit = self.total if limit is None else limit
        if size > limit:
            raise Refused(
                f"{path}: {what} declares {in_words(size)}, more than the limit of {in_words(limit)}; "
                "--max-gb raises all limits, if you know that the file is sound"
            )

    def check_members(self, path: Path, archive: ZipFile) -> list[ZipInfo]:
        """The members of an archive, after a look at what they declare: how many, how large, each name once."""
        members = archive.infolist()
        if len(members) > self.members:
            raise Refused(f"{path}: holds {len(members)} members, more than the limit of {self.members}")
        self.check(path, "the whole archive", sum(member.file_size for member in members))
        if twice := first_double(member.filename for member in members):
            raise Refused(f"{path}: holds the member {twice!r} twice")
        return members


def first_double(names: Iterable[str]) -> str | None:
    """The first name that was there before."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def in_words(size: int) -> str:
    """`3.0 GiB`"""
    units = ("bytes", "KiB", "MiB", "GiB", "TiB")
    power = min((max(size, 1).bit_length() - 1) // 10, len(units) - 1)
    return f"{size / 1024**power:.1f} {units[power]}" if power else f"{size} bytes"


def open_regular(path: Path) -> BinaryIO:
    """The file, opened for reading; `Refused` says why where that cannot be done, or where it is no regular file.

    It is not opened before it is known to be regular: to open a FIFO waits, and to open a device may act.
    """
    try:
        kind = os.stat(path).st_mode
        if stat.S_ISDIR(kind):
            raise Refused(f"{path}: is a folder, not a file")
        if not stat.S_ISREG(kind):
            raise Refused(f"{path}: is no regular file (but a device, a pipe or a socket)")
        return open(path, "rb")
    except FileNotFoundError:
        raise Refused(f"{path}: no such file") from None
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise Refused(f"{path}: {getattr(error, 'strerror', None) or error}") from error
