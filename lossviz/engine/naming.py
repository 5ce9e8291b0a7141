"""The names of terms: the same wherever they are shown (`explain`, `LossParts`, `find_nonfinite`)."""

from __future__ import annotations

from collections.abc import Container, Iterable


def free(name: str, taken: Container[str]) -> str:
    """The name, or the name with the first of _1, _2, ... that is not taken, as Keras numbers layers."""
    count, found = 0, name
    while found in taken:
        count += 1
        found = f"{name}_{count}"
    return found


def distinct(names: Iterable[str]) -> list[str]:
    """Each name, made different from those before it."""
    found: list[str] = []
    for name in names:
        found.append(free(name, found))
    return found


def terms(outputs: Iterable[str], added: Iterable[str]) -> tuple[list[str], list[str]]:
    """Names of the outputs' terms and of the added ones; a layer that adds a loss may be an output too."""
    first = distinct(outputs)
    both = list(first)
    for name in added:
        both.append(free(f"{name}/add_loss" if name in first else name, both))
    return first, both[len(first) :]
