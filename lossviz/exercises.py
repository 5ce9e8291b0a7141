"""Whether an answer to an exercise of the book is right, without the answer standing beside the question.

    lossviz.exercises.check(..., "1c9a8e44")    # put your answer in place of the dots

The second argument is the key of the answer, which `key` makes. It tells a right answer from a wrong one and does not
say what the right one is. On the built page the dots become a box to type into (`_static/exercises.js` knows the same
keys).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

import numpy as np

__all__ = ["Verdict", "check", "key"]

_DIGITS = 3
_NEAR = (0.0, 1e-3, -1e-3)  # an answer at the border of two roundings may fall on either side


class Verdict:
    """What `check` says, as a sentence: the output of a notebook cell whose last line calls `check`.

    It is true for a right answer and false for any other.
    """

    def __init__(self, right: bool, text: str, key: str = "", hint: str = ""):
        self.right, self.text, self._key, self._hint = right, text, key, hint

    def __bool__(self) -> bool:
        return self.right

    def __repr__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        data = f' data-key="{escape(self._key)}" data-hint="{escape(self._hint)}"' if self._key else ""
        return f'<div class="lossviz-exercise"{data}>{escape(self.text)}</div>'


def key(answer: object) -> str:
    """The key of an answer: eight hexadecimal digits for each value in it, joined by hyphens.

    Args:
        answer: a number, a word, True or False, or several of them (a tuple, a list or an array of any shape, which is
            read row by row). A number is rounded to three digits; small and capital letters are the same.

    Raises:
        ValueError: an answer without a value, or still with the dots in it.
    """
    values = _values(answer)
    if not values or _unanswered(values):
        raise ValueError(f"answer={answer!r} has no value to make a key of; give a number, a word, or several")
    return "-".join(_hash(_written(value)) for value in values)


def check(answer: object, key: str, hint: str = "") -> Verdict:
    """Say whether an answer is right.

    Args:
        answer: what `key` takes, or `...` as long as there is none. Three digits of a number are enough, and needed.
        key: the key of the right answer.
        hint: one sentence, printed beside an answer that is not right yet.

    Returns:
        A `Verdict`: "right", "not yet" with the hint (and how many of several values are right), or "not answered yet".
    """
    values, keys = _values(answer), key.split("-")
    if not values or _unanswered(values):
        return Verdict(False, "not answered yet: put your answer in place of the dots", key, hint)
    if len(values) != len(keys):
        return Verdict(False, f"not yet: {_count(len(keys))} asked for, and you gave {len(values)}. {hint}".strip())
    right = sum(_is(value, one) for value, one in zip(values, keys))
    if right == len(keys):
        return Verdict(True, "right")
    some = f" ({right} of {len(keys)} are right)" if len(keys) > 1 else ""
    return Verdict(False, f"not yet{some}. {hint}".strip())


def _count(n: int) -> str:
    return "1 value is" if n == 1 else f"{n} values are"


def _values(answer: object) -> list:
    """The single values of an answer, row by row."""
    if isinstance(answer, str) or answer is ... or answer is None:
        return [answer]
    if hasattr(answer, "__array__"):  # an array or a tensor
        return np.asarray(answer).ravel().tolist()
    if isinstance(answer, dict):
        answer = answer.values()
    if isinstance(answer, Iterable):
        return [value for one in answer for value in _values(one)]
    return [answer]


def _unanswered(values: list) -> bool:
    return any(value is ... or value is None for value in values)


def _is(value: object, key: str) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    near = [value * (1 + step) for step in _NEAR] if number else [value]
    return key in (_hash(_written(one)) for one in near)


def _written(value: object) -> str:
    """A value as the text that is hashed: "3.33e-1", "true", "class". JavaScript's toExponential writes numbers so."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return " ".join(value.lower().split())
    number = float(value) + 0.0  # no negative zero
    if not math.isfinite(number):
        return str(number)
    digits, _, power = f"{number:.{_DIGITS - 1}e}".partition("e")
    return f"{digits}e{int(power)}"


def _hash(text: str) -> str:
    """FNV-1a, 32 bits: short enough to stand in JavaScript as well."""
    value = 0x811C9DC5
    for byte in text.encode():
        value = (value ^ byte) * 0x01000193 % 2**32
    return f"{value:08x}"
