"""What `explain` returns: plain frozen records that add up, and know nothing of TensorFlow.

One loss is a `Report` of `Term`s (an output, an added loss, a regulariser, a constant). A term has
one or more `Part`s: an array of element losses and, beside it, the exact share of the printed number
that each element carries. `Step`s say how the elements became the number.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np

from lossviz.report.findings import Finding

EXACTNESS = ("exact", "ratio", "opaque")

#: Key in `by()` for what has no place along the asked axis (a batch-wide ratio beside pixel values).
UNSPLIT = "(not split)"
#: Axis along which a whole data set keeps its shares by true class.
TRUE_CLASS = "true class"

_SHORT = 16  # up to this many numbers along a last axis, NumPy's `einsum` adds them several times as fast as its `sum`


class AdditivityError(AssertionError):
    """The shares do not add up to the number Keras reported; the message holds the numbers."""


@dataclass(frozen=True)
class Step:
    """One operation on the way from the element losses to the number.

    `op` is a word of the field: "element loss", "mean", "sum", "multiply", "divide", "select", "ratio", ...
    `axes` are the names of the axes that the step removes (for "multiply", those it varies along; for "element
    loss", those of its output, also where the part keeps only some of them),
    `divisor` and `factor` are numbers, or None where the step has none.
    """

    op: str
    text: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    axes: tuple[str, ...] = ()
    divisor: float | None = None
    factor: float | None = None


@dataclass(frozen=True, eq=False)
class Part:
    """Element losses that reach the term by one road, each with its exact share of the total.

    `elements` and `contributions` have one dimension per name in `axes` (float64; the sum of
    `contributions` is this part's share of the printed loss). A name of the prediction's axes stands where each share
    was proven to depend on the prediction at one position of that axis and at no other; it is filed under that
    position. A dimension called `axis0`, `axis1`, ... has no such meaning. `labels` holds, per axis, what its positions
    are called. `true_class`, where the targets are classes, holds the true class of each position and
    `true_class_axes` names its dimensions. `sums` holds what a ratio is made of, summed over
    everything but `axes`: its numerator and denominator, and TP, FP, FN of y_true and y_pred as they were passed.
    `views`, of a whole data set, are the same shares along other axes: one per sample, one per true class.
    `absolute` is the sum of absolute shares where `contributions` are sums of shares already, else None.
    """

    axes: tuple[str, ...]
    elements: np.ndarray
    contributions: np.ndarray
    exactness: str
    steps: tuple[Step, ...]
    labels: tuple[tuple[Hashable, ...], ...]
    true_class: np.ndarray | None = None
    true_class_axes: tuple[str, ...] = ()
    class_labels: tuple[Hashable, ...] | None = None
    sums: dict[str, np.ndarray] = field(default_factory=dict)
    note: str = ""
    views: tuple[Part, ...] = ()
    absolute: float | None = None

    @functools.cached_property
    def contribution(self) -> float:
        """This part's share of the printed loss: the sum of `contributions`."""
        return float(np.sum(self.contributions))

    @functools.cached_property
    def magnitude(self) -> float:
        """Sum of the absolute values of all shares."""
        return float(np.sum(np.abs(self.contributions))) if self.absolute is None else self.absolute

    @property
    def sizes(self) -> dict[str, int]:
        """Every axis that there are shares along, with its size: `axes`, and before them those of `views` alone."""
        found: dict[str, int] = {}
        for view in (*self.views, self):
            found.update(zip(view.axes, view.contributions.shape))
        found.pop(TRUE_CLASS, None)
        own = {name: found.pop(name) for name in self.axes}
        return {**found, **own}

    def view(self, axes: Iterable[str]) -> Part | None:
        """The part itself or its first view with all of these axes; None where there is none."""
        return next((part for part in (self, *self.views) if set(axes) <= set(part.axes)), None)

    def by_label(self) -> dict[Hashable, float] | None:
        """Shares grouped by the true class of each position; None where that is not known."""
        if (view := self.view([TRUE_CLASS])) is not None:
            return dict(zip(view.labels[0], view.contributions.tolist()))
        if self.true_class is None or not set(self.true_class_axes) <= set(self.axes):
            return None
        array = self.sum_to(self.true_class_axes)
        names = self.class_labels or ()
        shares = {label: float(np.sum(array[self.true_class == index])) for index, label in enumerate(names)}
        # a class to ignore (-1, 255) has no label, but its share must not be lost
        rest = float(np.sum(array[(self.true_class < 0) | (self.true_class >= len(names))]))
        return {**shares, UNSPLIT: rest} if rest else shares

    def sum_to(self, axes: Sequence[str]) -> np.ndarray:
        """Contributions summed over every axis not in `axes`, dimensions in the order of `axes`."""
        return sum_to(self.contributions, self.axes, axes)


@dataclass(frozen=True, eq=False)
class Term:
    """One summand of the printed loss: `contribution = loss_weight * value`.

    `gradient`, of an output, holds in `elements` the derivative of the whole printed loss with respect to each
    prediction, and in `contributions` its absolute value, both in the dtype of the predictions: see `by`.

    `kind` is "output", "add_loss", "regulariser" or "constant". `exactness` is "exact" (each share is
    exact along `axes`), "ratio" (a quotient of sums, such as Dice: no share exists below `axes`) or
    "opaque" (the graph cannot be read below `axes`), the worst of the parts.
    """

    name: str
    kind: str
    value: float
    loss_weight: float
    parts: tuple[Part, ...]
    note: str = ""
    gradient: Part | None = None

    @property
    def contribution(self) -> float:
        """This term's share of the printed loss: the sum over its parts."""
        return float(sum(part.contribution for part in self.parts))

    @property
    def exactness(self) -> str:
        """The worst of the parts: "exact", "ratio" or "opaque"."""
        return max((part.exactness for part in self.parts), key=EXACTNESS.index, default="exact")

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that every part has, in the order of the first part."""
        if not self.parts:
            return ()
        shared = set(self.parts[0].axes).intersection(*(part.axes for part in self.parts))
        return tuple(axis for axis in self.parts[0].axes if axis in shared)

    @property
    def contributions(self) -> np.ndarray:
        """Shares along `axes`; they sum to `contribution`."""
        arrays = [part.sum_to(self.axes) for part in self.parts]
        if any(array.shape != arrays[0].shape for array in arrays):
            return np.asarray(self.contribution)
        return np.sum(arrays, axis=0) if arrays else np.zeros(())

    @property
    def elements(self) -> np.ndarray | None:
        """The element losses, or None where the term has several tensors of them (see `parts`)."""
        return self.parts[0].elements if len(self.parts) == 1 else None

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of all parts, one part after the other."""
        return tuple(step for part in self.parts for step in part.steps)

    def by(self, axis: str | Sequence[str], of: str = "loss") -> dict[Hashable, float]:
        """This term's exact shares along `axis` (one name, or several for a tuple of labels).

        Returns a dictionary of label to share of the printed loss. It sums to `contribution`; what has no
        place along the axis stands under "(not split)".

        With `of="gradient"`, of an output: who moves the predictions, instead of who makes the number. Each prediction
        counts with |dL/dy_pred|, the derivative of the whole printed loss with the other outputs held fixed, in units
        of loss per unit of prediction. The amounts are 0 or more and are no shares of the loss: their sum is how fast
        the loss falls, per unit, when every prediction takes the same small step in its better direction. Where Keras
        reads the logits behind a softmax or sigmoid output instead of the output, as its crossentropies do, the
        derivative is that with respect to the logits (y_pred - y, weighted, for a crossentropy); `gradient.note` says
        so. `explain_loss` on the probabilities alone gives the derivative with respect to those.

        Raises ValueError for an unknown axis, or `of="gradient"` where there is none.
        """
        if of != "loss":
            return self._pull(of).by(axis)
        axes = (axis,) if isinstance(axis, str) else tuple(axis)
        if len(set(axes)) != len(axes):
            raise ValueError(f"axis {axes} names one axis twice; name each once.")
        known = {name for part in self.parts for name in part.sizes}
        if unknown := [name for name in axes if name not in known]:
            reason = "; ".join(sorted({part.note for part in self.parts if part.note}))
            raise ValueError(
                f"axis {unknown[0]!r} is not an axis of term {self.name!r}. Its axes are "
                f"{_named_shape(self)}." + (f" Note: {reason}." if reason else "")
            )
        views = [part.view(axes) for part in self.parts]
        if self.parts and not any(views):
            together = " or ".join(sorted({str(view.axes) for part in self.parts for view in (part, *part.views)}))
            raise ValueError(
                f"axes {axes} of term {self.name!r} are not kept together, only {together}. Of a whole data set, "
                "single samples are not kept position by position: explain one batch for that."
            )
        shares: dict[Hashable, float] = {}
        rest = 0.0
        for part, view in zip(self.parts, views):
            if view is None:
                rest += part.contribution
                continue
            array = view.sum_to(axes)
            names = [view.labels[view.axes.index(name)] for name in axes]
            for index, share in np.ndenumerate(array):
                label = tuple(names[k][i] for k, i in enumerate(index))
                key = label[0] if len(axes) == 1 else label
                shares[key] = shares.get(key, 0.0) + float(share)
        if None in views:
            shares[UNSPLIT] = rest
        return shares

    def by_label(self, of: str = "loss") -> dict[Hashable, float]:
        """Shares grouped by the *true* class of each position instead of the output channel; `of` as for `by`.

        The true class is the argmax of one-hot or multi-channel targets, the integer of sparse ones, the
        0 or 1 of a single binary column. Raises ValueError where the targets are not classes.
        """
        if of != "loss":
            return self._pull(of).by_label()
        shares: dict[Hashable, float] = {}
        rest, split = 0.0, False
        for part in self.parts:
            grouped = part.by_label()
            if grouped is None:
                rest += part.contribution
                continue
            split = True
            rest += grouped.pop(UNSPLIT, 0.0)
            for label, share in grouped.items():
                shares[label] = shares.get(label, 0.0) + share
        if not split:
            raise ValueError(
                f"term {self.name!r} ({self.exactness}, axes {_named_shape(self)}) cannot be grouped by true class: "
                "its targets are not classes (one-hot rows, integer labels or 0/1 values), or its shares do "
                "not reach down to the positions that have a class. Use by(axis) instead."
            )
        if rest:
            shares[UNSPLIT] = rest
        return shares

    def _pull(self, of: str) -> Term:
        """The term with the absolute derivatives in place of its shares."""
        if of != "gradient":
            raise ValueError(f'of={of!r}, but it must be "loss" or "gradient".')
        if self.gradient is None:
            reason = "it is no output" if self.kind != "output" else "an operation of the loss or the output has none"
            raise ValueError(
                f"term {self.name!r} ({self.kind}) has no gradient with respect to its predictions: {reason}. Use "
                'of="loss", or the term of an output.'
            )
        return replace(self, parts=(self.gradient,), gradient=None)


@dataclass(frozen=True, eq=False)
class Balance:
    """One number as terms that sum to it: what a `Report` holds and answers, without the ways to show it.

    Its writers take this, and `Report` adds them. For the fields see `Report`.
    """

    reported: float
    terms: tuple[Term, ...]
    source: str
    versions: dict[str, str]
    tolerance: float = 1e-6
    batch_size: int | None = None
    notes: tuple[str, ...] = ()
    batches: tuple[tuple[int, float], ...] = ()
    findings: tuple[Finding, ...] = ()

    @property
    def total(self) -> float:
        """The sum of all shares; equal to `reported` but for rounding."""
        return float(sum(term.contribution for term in self.terms))

    @property
    def residual(self) -> float:
        """What the shares leave of the number reported: `reported - total`."""
        return self.reported - self.total

    @property
    def magnitude(self) -> float:
        """Sum of the absolute values of all shares: the scale on which `residual` is judged."""
        return float(sum(part.magnitude for term in self.terms for part in term.parts))

    @property
    def adds_up(self) -> bool:
        """Does `check()` pass?"""
        if not math.isfinite(self.reported):
            return self.total == self.reported or (math.isnan(self.total) and math.isnan(self.reported))
        return math.isfinite(self.total) and abs(self.residual) <= self.tolerance * self.magnitude

    def term(self, name: str) -> Term:
        """The term called `name`; ValueError lists the names there are."""
        for term in self.terms:
            if term.name == name:
                return term
        raise ValueError(f"term {name!r} is not in this report. Its terms are {[t.name for t in self.terms]}.")

    def by(self, axis: str | Sequence[str], term: str | None = None, of: str = "loss") -> dict[Hashable, float]:
        """Exact shares of one term along a named axis: label -> share of the printed loss.

        The shares sum to that term's contribution. `term` is required where several terms have the axis. With
        `of="gradient"`: how strongly the loss pulls at the predictions of one output, see `Term.by`.
        Raises ValueError for an unknown axis or term, or where `term` is missing.
        """
        if term is not None:
            return self.term(term).by(axis, of)
        return self._pull(of)._one_term(axis, term).by(axis)

    def by_label(self, term: str | None = None, of: str = "loss") -> dict[Hashable, float]:
        """As `by("class")`, grouped by the true class of each position instead of the output channel."""
        if term is not None:
            return self.term(term).by_label(of)
        if of != "loss":
            return self._pull(of).by_label()
        able = [t for t in self.terms if any(part.by_label() is not None for part in t.parts)]
        if len(able) > 1:
            raise ValueError(f"several terms have classes: {[t.name for t in able]}. Say which: by_label(term=...).")
        if not able:
            raise ValueError(
                "no term of this report has shares at positions with a true class. Its terms are "
                f"{[t.name for t in self.terms]}." + "".join(f" Note: {note}." for note in self._part_notes())
            )
        return able[0].by_label()

    def top(self, k: int, axis: str | Sequence[str] = "batch", term: str | None = None) -> list[tuple[Hashable, float]]:
        """The `k` largest shares along `axis`, as (label, share), largest absolute share first.

        Along "batch" the shares of all terms are added per sample; elsewhere `term` picks one, as in `by`.
        """
        if k < 0:
            raise ValueError(f"k must be 0 or more, got k={k}.")
        if term is None and axis == "batch":
            shares: dict[Hashable, float] = {}
            able = [t for t in self.terms if any("batch" in part.sizes for part in t.parts)]
            if not able:
                self._one_term(axis, term)  # raises, naming the axes there are
            for one in able:
                for label, share in one.by("batch").items():
                    shares[label] = shares.get(label, 0.0) + share
        else:
            shares = self.by(axis, term)
        shares.pop(UNSPLIT, None)
        return sorted(shares.items(), key=lambda item: -abs(item[1]) if item[1] == item[1] else -math.inf)[:k]

    def check(self) -> Self:
        """Return self if the parts add up to what Keras reported, else raise `AdditivityError`.

        The rule: `|residual| <= tolerance * sum of |shares|`. Where Keras reported NaN or an infinity, the
        parts must give the same.
        """
        if not self.adds_up:
            lines = "".join(f"\n  {t.kind:<12} {t.name:<30} {t.contribution:+.9g}" for t in self.terms)
            notes = "".join(f"\n  note: {note}" for note in self.notes)
            raise AdditivityError(
                f"the parts sum to {self.total!r}, but {self.source} gave {self.reported!r}: residual "
                f"{self.residual:+.3g}, allowed {self.tolerance * self.magnitude:.3g}.{lines}{notes}"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON-ready dictionaries: terms, steps, and shares along every axis (no big arrays).

        Numbers that JSON does not know are the strings "NaN", "Infinity", "-Infinity".
        """
        return jsonable(
            {
                "total": self.total,
                "reported": self.reported,
                "residual": self.residual,
                "tolerance": self.tolerance,
                "source": self.source,
                "batch_size": self.batch_size,
                "batches": [list(batch) for batch in self.batches],
                "versions": dict(self.versions),
                "notes": list(self.notes),
                "findings": [finding.to_dict() for finding in self.findings],
                "terms": [_term_dict(term) for term in self.terms],
            }
        )

    def to_frame(self, axis: str | Sequence[str] | None = None, term: str | None = None) -> Any:
        """A pandas DataFrame: one row a term and one for the residual; with `axis`, one row a label.

        Raises ImportError with the way out where pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError as error:
            raise ImportError(
                "report.to_frame() needs pandas: pip install pandas. report.to_dict() needs nothing."
            ) from error
        if axis is not None:
            shares = self.by(axis, term)
            name = axis if isinstance(axis, str) else ", ".join(axis)
            frame = pd.DataFrame({name: list(shares), "contribution": list(shares.values())})
        else:
            rows = [(t.name, t.kind, t.value, t.loss_weight, t.contribution, t.exactness) for t in self.terms]
            rows.append(("residual", "", math.nan, math.nan, self.residual, ""))
            frame = pd.DataFrame(rows, columns=["term", "kind", "value", "loss_weight", "contribution", "exactness"])
        frame["share"] = frame["contribution"] / self.total if self.total else math.nan
        return frame

    def _pull(self, of: str) -> Self:
        """The report with absolute derivatives in place of shares, of the outputs alone."""
        if of == "loss":
            return self
        able = [term for term in self.terms if term.gradient is not None] or self.terms[:1]
        return replace(self, terms=tuple(term._pull(of) for term in able))

    def _part_notes(self) -> list[str]:
        return sorted({part.note for term in self.terms for part in term.parts if part.note})

    def _one_term(self, axis: str | Sequence[str], name: str | None) -> Term:
        if name is not None:
            return self.term(name)
        axes = (axis,) if isinstance(axis, str) else tuple(axis)
        able = [t for t in self.terms if any(part.view(axes) is not None for part in t.parts)]
        if len(able) == 1:
            return able[0]
        if able:
            raise ValueError(
                f"several terms have axis {axis!r}: {[t.name for t in able]}. Say which: term={able[0].name!r}, ..."
            )
        if near := [t for t in self.terms if set(axes) <= {name for part in t.parts for name in part.sizes}]:
            return near[0]  # whose `by` says why not
        known = {t.name: _named_shape(t) for t in self.terms}
        raise ValueError(
            f"no term has axis {axis!r}. The axes are: "
            + "; ".join(f"{term} {shape}" for term, shape in known.items())
            + "."
            + "".join(f" Note: {note}." for note in self._part_notes())
        )


def sum_to(array: np.ndarray, have: Sequence[str], want: Sequence[str]) -> np.ndarray:
    over = tuple(k for k, name in enumerate(have) if name not in want)
    if array.dtype == np.float64 and over == (array.ndim - 1,) and array.shape[-1] <= _SHORT:
        summed = np.einsum("...i->...", array)
    else:
        summed = np.sum(array, axis=over)
    left = [name for name in have if name in want]
    return np.transpose(summed, [left.index(name) for name in want])


def _named_shape(term: Term) -> str:
    shapes = (", ".join(f"{n}={s}" for n, s in p.sizes.items()) or "none" for p in term.parts)
    return " and ".join(f"({shape})" for shape in shapes)


def _term_dict(term: Term) -> dict[str, Any]:
    return {
        "name": term.name,
        "kind": term.kind,
        "value": term.value,
        "loss_weight": term.loss_weight,
        "contribution": term.contribution,
        "exactness": term.exactness,
        "note": term.note,
        "parts": [
            {
                "axes": list(part.axes),
                "shape": list(part.contributions.shape),
                "exactness": part.exactness,
                "contribution": part.contribution,
                "note": part.note,
                "steps": [vars(step) for step in part.steps],
                "sums": {name: value.tolist() for name, value in part.sums.items()},
                "by": {axis: _shares_along(part.view([axis]) or part, axis) for axis in part.sizes},
            }
            for part in term.parts
        ],
    }


def _shares_along(part: Part, axis: str) -> list[list[Any]]:
    """Label and share of each position along one axis."""
    labels = part.labels[part.axes.index(axis)]
    return [[label, share] for label, share in zip(labels, part.sum_to([axis]).tolist())]


def jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (str, bool, int)) or value is None:
        return value
    if isinstance(value, np.generic):
        return jsonable(value.item())
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, Iterable):
        return [jsonable(item) for item in value]
    return str(value)
