"""How rules write numbers."""

from __future__ import annotations

import math


def n(number: float) -> str:
    """Four digits; whole numbers in full."""
    number = float(number)
    whole = math.isfinite(number) and number == int(number) and abs(number) < 1e7
    return f"{int(number)}" if whole else f"{number:.4g}"


def counted(number: int, word: str) -> str:
    """`1 sample`, `3 samples`, `2 element losses`."""
    return f"{number} {word}" + ("" if number == 1 else "es" if word.endswith(("s", "ch")) else "s")


def percent(part: float) -> str:
    return f"{100 * part:.3g} %"


def first(items: list, count: int = 4) -> str:
    shown = ", ".join(f"{item:g}" for item in items[:count])
    return f"[{shown}{', ...' if len(items) > count else ''}]"


def close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=1e-4, abs_tol=1e-9)
