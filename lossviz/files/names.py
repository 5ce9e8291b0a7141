"""What a model file may name: `allowed.txt`, and for what Keras exports besides, the reason in `refused.txt`."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources


@dataclass(frozen=True)
class Names:
    """Full names, such as `keras.layers.Dense`. `registered`: those that code registers, such as `lossviz>CenterLoss`.
    `refused`: the reason for each refused name."""

    classes: frozenset[str]
    functions: frozenset[str]
    registered: frozenset[str]
    refused: dict[str, str]

    def with_registered(self, names: Iterable[str]) -> Names:
        return Names(self.classes, self.functions, self.registered | frozenset(names), self.refused)


@functools.cache
def known() -> Names:
    """The names of both lists."""
    allowed, refused = read("allowed.txt"), read("refused.txt")
    full = {section: frozenset(f"{m}.{n}" for m, n in allowed[section]) for section in ("classes", "functions")}
    registered = frozenset(f"{package}>{name}" for package, name in allowed["registered"])
    reasons = {f"{m}.{n}": reason for reason, names in refused.items() for m, n in names}
    return Names(full["classes"], full["functions"], registered, reasons)


def read(file: str) -> dict[str, list[tuple[str, str]]]:
    """The pairs (module, name) of each section of a list."""
    sections: dict[str, list[tuple[str, str]]] = {}
    module = ""
    for line in resources.files("lossviz.files").joinpath(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            pairs = sections.setdefault(line.strip("[]"), [])
        elif line.endswith(":"):
            module = line.removesuffix(":")
        elif line.startswith(" "):
            pairs.extend((module, name) for name in line.split())
    return sections
