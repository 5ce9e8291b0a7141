"""The line of the user's own code that made an operation."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Sequence

#: Packages whose lines are not the user's.
_OTHERS = ("keras", "tensorflow", "jax", "jaxlib", "numpy", "optree")


def user_line(frames: Sequence[tuple[str, int]]) -> str:
    """The innermost of these frames that is the user's own, as its code and where it stands; "" where none is."""
    folders = (getattr(sys.modules.get(name), "__file__", None) for name in _OTHERS)
    packages = tuple(os.path.dirname(os.path.abspath(path)) for path in folders if path)
    own = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
    inner = [k for k, (path, _) in enumerate(frames) if os.path.abspath(path).startswith(own)]
    for path, number in reversed(frames[inner[-1] + 1 :] if inner else []):
        if not os.path.abspath(path).startswith(packages):
            code, name = linecache.getline(path, number).strip(), os.path.basename(path)
            where = "" if "ipykernel" in path or name.startswith("<") else f"{name}, line {number}"
            return f"{code}  ({where})" if code and where else code or where
    return ""
