"""`NonFinite`: where a NaN or an infinity enters, and how that is printed."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from lossviz.nonfinite import causes
from lossviz.report import formatting as f
from lossviz.report.html import block
from lossviz.report.records import jsonable

_WIDTH = 76


@dataclass(frozen=True)
class NonFinite:
    """Where a NaN or an infinity enters; false (`not result`) where all is finite.

    Attributes:
        step: "input" (the data), "weight" (it was there before), "forward pass", "element loss", "reduction"
            (a sum, a mean and what follows it), "gradient", or "optimizer"; "" where all is finite.
        terms: names of the terms of the loss that it reaches, as in `explain`.
        layer: name of the Keras layer, "" outside of layers.
        operation: the backend's name of the operation, "Log" on TensorFlow and "log" on JAX; for "gradient" the
            operation of the forward pass or loss whose derivative it is; "" for data and weights.
        what: the tensor in words: "y_true", "weight dense/kernel", "Log(0) = -inf".
        value: nan, inf or -inf.
        index, axes: the first index that does harm, and the names of its axes; `()` for a single number, None where
            the operation has no index (a loop).
        count, size: how many values of that tensor are not finite, of how many.
        cause, way_out: a sentence each.
        line: the line of your code that made the operation, "" where it is not known.
        weights: paths of the trainable weights whose gradient is not finite ("gradient"), or of all weights that
            hold such values ("weight").
        also: further entries, in words.
        training: was it the forward pass as `fit` runs it (dropout, batch statistics), or as `evaluate` does?
        loss: the value of the loss.
        samples: first and last of the samples of this batch, where it is one of several that `fit` makes; else None.
    """

    step: str = ""
    terms: tuple[str, ...] = ()
    layer: str = ""
    operation: str = ""
    what: str = ""
    value: float = 0.0
    index: tuple[int, ...] | None = None
    axes: tuple[str, ...] = ()
    count: int = 0
    size: int = 0
    cause: str = ""
    way_out: str = ""
    line: str = ""
    weights: tuple[str, ...] = ()
    also: tuple[str, ...] = ()
    training: bool = False
    loss: float = math.nan
    samples: tuple[int, int] | None = None
    looked_at: str = field(default="", repr=False)

    def __bool__(self) -> bool:
        return bool(self.step)

    @property
    def at(self) -> dict[str, int]:
        """The index by name of axis: `{"batch": 2, "class": 0}`."""
        return dict(zip(self.axes, self.index or ()))

    @property
    def sample(self) -> int | None:
        """The sample of the batch, where the tensor has a batch axis."""
        return self.at.get("batch")

    def rows(self) -> list[tuple[str, str]]:
        """What is printed, as (name, words)."""
        if not self:
            return []
        mode = "as fit runs it" if self.training else "as evaluate runs it"
        named = ", ".join(f"{name} {k}" for name, k in self.at.items())
        place = f"index {self.index}" if named and all(name.startswith("axis") for name in self.axes) else named
        share = f"{f.plain(self.count)} of {f.plain(self.size)} values"
        batch = (
            "" if self.samples is None else "samples {} to {} of the data, counted from 0 here".format(*self.samples)
        )
        found = {
            "batch": batch,
            "term": ", ".join(self.terms),
            "step": self.step if self.step in ("input", "weight", "optimizer") else f"{self.step}, {mode}",
            "layer": self.layer,
            "operation" if self.operation else "tensor": self.what,
            "where": f"{place} (first of {share})" if place else (f"{share}" if self.size > 1 else ""),
            "line": self.line,
            "cause": self.cause,
            "way out": self.way_out,
            "reaches" if self.step == "gradient" else "weights": listed(self.weights),
            "also": "; ".join(self.also),
        }
        return [(name, f.clean(words.replace("\N{NO-BREAK SPACE}", " "))) for name, words in found.items() if words]

    @property
    def headline(self) -> str:
        """Where the first value that is not finite enters, in one line; what was looked at where all are finite."""
        if not self:
            return f"All finite: {self.looked_at}."
        where = {
            "input": f"in the data: {self.what}",
            "weight": f"with a {self.what}",
            "optimizer": f"in the optimizer: {self.what}",
            "gradient": f"in the gradient of {self.operation}",
        }.get(self.step, f"at {self.operation}")
        inside = f", layer {self.layer!r}" if self.layer and self.step not in ("input", "weight") else ""
        return f"{causes.number(self.value)} enters {where}{inside}"

    def __str__(self) -> str:
        lines = textwrap.wrap(f.clean(self.headline), _WIDTH, subsequent_indent="  ")
        for name, words in self.rows():
            wrapped = textwrap.wrap(words, _WIDTH - 13, break_on_hyphens=False) or [""]
            lines += [f"  {name:<11}{wrapped[0]}", *(" " * 13 + more for more in wrapped[1:])]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [f'<p><b class="{"x" if self else "exact"}">{escape(f.clean(self.headline))}</b></p>', "<table><tbody>"]
        for name, words in self.rows():
            cell = f"<code>{escape(words)}</code>" if name == "line" else escape(words)
            lines.append(
                f'<tr style="vertical-align:baseline"><th style="white-space:nowrap">{name}</th>'
                f'<td style="text-align:left;white-space:normal">{cell}</td></tr>'
            )
        return block([*lines, "</tbody></table>"] if self else lines[:1])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: NaN and infinities are the strings "NaN", "Infinity", "-Infinity"."""
        names = [name for name in self.__dataclass_fields__ if name != "looked_at"]
        return jsonable({name: getattr(self, name) for name in names})


def listed(names: Sequence[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{', '.join(names[:2])} and {len(names) - 2} more weights"
