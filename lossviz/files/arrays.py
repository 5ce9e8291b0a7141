"""Arrays from an .npz file: names and declared sizes first, contents afterwards; no pickle is read."""

from __future__ import annotations

import math
import re
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lossviz.files.limits import Limits, Refused, open_regular

_ROLES = ("x", "y", "sample_weight")


def load_arrays(path: Path, limits: Limits) -> dict[str, Any]:
    """`x`, `y` and `sample_weight` as the file holds them: an array, a list, a dictionary, or None.

    Raises:
        Refused: the file is none such, holds other names, pickled objects, or more than `limits`.
    """
    with open_regular(path) as file:
        arrays = _read(path, file, limits)
    data = {role: _structure(path, role, arrays) for role in _ROLES}
    if data["x"] is None:
        raise Refused(f"{path}: holds no array x")
    return data


def _read(path: Path, file: BinaryIO, limits: Limits) -> dict[str, np.ndarray]:
    try:
        if file.read(6) == b"\x93NUMPY":
            raise Refused(f"{path}: one array without a name; write it with np.savez(path, x=x, y=y)")
        with zipfile.ZipFile(file) as archive:
            keys = {member.filename: _key(path, member.filename) for member in limits.check_members(path, archive)}
            for member in keys:
                _check_header(path, archive, member, limits)
        file.seek(0)
        with np.load(file, allow_pickle=False) as found:
            return {key: found[key] for key in keys.values()}
    except Refused:
        raise
    except MemoryError as error:
        raise Refused(f"{path}: there is not enough memory for its arrays") from error
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds on a corrupt file
        raise Refused(f"{path}: not a whole .npz file ({error})") from error


def _key(path: Path, member: str) -> str:
    """The name of the array that a member holds."""
    key = member.removesuffix(".npy")
    if not re.fullmatch(rf"({'|'.join(_ROLES)})(_[0-9]+|\..+)?", key, re.DOTALL) or not member.endswith(".npy"):
        raise Refused(f"{path}: unknown array {key!r}; known are x, y, sample_weight, x_0, x.NAME, ...")
    return key


def _check_header(path: Path, archive: zipfile.ZipFile, member: str, limits: Limits) -> None:
    """What NumPy would allocate for an array is what its member holds, and within the limits."""
    with archive.open(member) as file:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(file)
        held = archive.getinfo(member).file_size - file.tell()
    if dtype.hasobject:
        raise Refused(f"{path}: {member.removesuffix('.npy')} holds Python objects (pickled), which are refused")
    declared = math.prod(shape) * dtype.itemsize
    limits.check(path, f"array {member.removesuffix('.npy')!r}", declared)
    if declared != held or any(size < 0 for size in shape):
        raise Refused(f"{path}: not a whole .npz file (array {member!r} declares {declared} bytes and has {held})")


def _structure(path: Path, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """What the keys `name`, `name_0` or `name.key` hold; None where there are none."""
    numbered = {key: int(key[len(name) + 1 :]) for key in arrays if re.fullmatch(rf"{name}_[0-9]+", key)}
    named = {key: key[len(name) + 1 :] for key in arrays if key.startswith(f"{name}.")}
    if (name in arrays) + bool(numbered) + bool(named) > 1:
        forms = [key for key in arrays if key in (name, *numbered, *named)]
        raise Refused(f"{path}: {name} is there in several forms, {forms}; use one")
    if name in arrays:
        return arrays[name]
    if named:
        return {short: arrays[key] for key, short in named.items()}
    if sorted(numbered.values()) != list(range(len(numbered))):
        raise Refused(f"{path}: {name}_0, {name}_1, ... have a gap: {sorted(numbered)}")
    return [arrays[key] for key in sorted(numbered, key=numbered.get)] or None
