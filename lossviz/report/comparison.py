"""What moved between two reports: a frozen record whose differences sum to that of the two losses."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lossviz.report import formatting as f
from lossviz.report.records import Report, Term, jsonable


@dataclass(frozen=True, eq=False)
class Change:
    """One term in both reports, or, where `before` or `after` is None, a term that only the other one has."""

    before: Term | None
    after: Term | None

    @property
    def name(self) -> str:
        """The term's name; `dense → dense_1` where it has two."""
        names = dict.fromkeys(term.name for term in (self.before, self.after) if term is not None)
        return " → ".join(names)

    @property
    def kind(self) -> str:
        return (self.before or self.after).kind

    @property
    def contributions(self) -> tuple[float, float]:
        """Before and after; 0 where the term is missing."""
        return tuple(0.0 if term is None else term.contribution for term in (self.before, self.after))

    @property
    def difference(self) -> float:
        """How much the contribution grew: that of the other report minus that of this one."""
        before, after = self.contributions
        return after - before

    @property
    def note(self) -> str:
        """Which of the reports has the term, if it is not both."""
        return "" if self.before and self.after else "only before" if self.before else "only after"

    def both(self, share: Callable[[Term], dict[Hashable, float]]) -> dict[Hashable, tuple[float, float]]:
        """Label -> (before, after) of what `share` finds in each term; ValueError where no label is in both."""
        before, after = ({} if term is None else share(term) for term in (self.before, self.after))
        if before and after and not before.keys() & after.keys():
            raise ValueError(
                f"term {self.name!r} has the labels {list(before)[:5]} before and {list(after)[:5]} after, none in "
                "common. Give both reports the same class_names."
            )
        return {label: (before.get(label, 0.0), after.get(label, 0.0)) for label in {**before, **after}}

    def axes(self) -> list[str]:
        """The axes of several positions along which both terms have shares, in the order of the first."""
        found = [
            {axis for part in term.parts for axis, size in part.sizes.items() if size > 1}
            for term in (self.before, self.after)
            if term is not None
        ]
        order = dict.fromkeys(axis for part in (self.before or self.after).parts for axis in part.sizes)
        return [axis for axis in order if all(axis in axes for axes in found)]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two reports, and what moved from one to the other. `report.compare(other)` makes it; it prints well.

    `changes` holds one row a term: first those of `before`, in their order, then those that only `after` has. Terms
    belong together if kind and name agree, also where names differ by the number that Keras appends (`dense`,
    `dense_1`), or if they are the only output that is left on each side. The `difference` of the losses
    (after minus before) is the sum of the changes and of `residual`, the difference of the residuals.
    """

    before: Report
    after: Report
    changes: tuple[Change, ...]

    @property
    def difference(self) -> float:
        """How much the loss grew."""
        return self.after.reported - self.before.reported

    @property
    def residual(self) -> float:
        """What the differences of the terms leave of `difference`: the residuals of the two reports."""
        return self.after.residual - self.before.residual

    def term(self, name: str) -> Change:
        """The change of the term that is called `name` in either report; ValueError lists the names there are."""
        for change in self.changes:
            if name in (change.name, *(term.name for term in (change.before, change.after) if term is not None)):
                return change
        raise ValueError(f"term {name!r} is in neither report. The terms are {[c.name for c in self.changes]}.")

    def by(self, axis: str | Sequence[str], term: str | None = None) -> dict[Hashable, float]:
        """Label -> how much its share of the loss changed, along one axis or several of one term.

        The differences sum to that of the term. A label that only one report has counts with its whole share.
        `term` is required where several terms have the axis. Raises ValueError for an unknown axis or term,
        and where one of the reports does not have the axis.
        """
        axes = (axis,) if isinstance(axis, str) else tuple(axis)
        if term is None:
            able = [change for change in self.changes if _has(change.before, axes) and _has(change.after, axes)]
            if len(able) > 1:
                raise ValueError(f"several terms have axis {axis!r}: {[c.name for c in able]}. Say which: term=...")
            if not able:
                known = {change.name: change.axes() for change in self.changes}
                raise ValueError(f"no term has axis {axis!r} in both reports. Axes that are in both: {known}.")
            change = able[0]
        else:
            change = self.term(term)
        return _differences(change.both(lambda one: one.by(axes)))

    def by_label(self, term: str | None = None) -> dict[Hashable, float]:
        """As `by("class")`, grouped by the true class of each position."""
        if term is None:
            able = [c for c in self.changes if all(t is None or _has_classes(t) for t in (c.before, c.after))]
            if len(able) != 1:
                names = [change.name for change in able]
                raise ValueError(
                    f"{len(able)} terms have classes in both reports: {names}. Say which: by_label(term=...)."
                )
            change = able[0]
        else:
            change = self.term(term)
        return _differences(change.both(Term.by_label))

    def to_dict(self) -> dict[str, Any]:
        """The comparison as JSON-ready dictionaries; what JSON does not know are "NaN", "Infinity", "-Infinity"."""
        return jsonable(
            {
                "before": self.before.reported,
                "after": self.after.reported,
                "difference": self.difference,
                "residual": self.residual,
                "changes": [
                    {
                        "name": change.name,
                        "kind": change.kind,
                        "before": None if change.before is None else change.before.contribution,
                        "after": None if change.after is None else change.after.contribution,
                        "difference": change.difference,
                        "by": {
                            axis: [[label, *pair] for label, pair in change.both(lambda t, a=axis: t.by(a)).items()]
                            for axis in change.axes()
                        },
                    }
                    for change in self.changes
                ],
            }
        )

    def __str__(self) -> str:
        from lossviz.report import text

        return text.render_comparison(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from lossviz.report import html

        return html.render_comparison(self)


def compare(before: Report, after: Report) -> Comparison:
    """The comparison of two reports (or of what can become one, such as `lossviz.regimes.Reduction`)."""
    before, after = f.as_report(before), f.as_report(after)
    for report in (before, after):
        if not isinstance(report, Report):
            raise ValueError(f"compare takes a Report, as lossviz.explain returns it, got {type(report).__name__}.")
    partner: dict[int, int] = {}
    for key, most in ((_name, None), (_stem, None), (_output, 1)):
        ones = _grouped(before.terms, key, partner.keys())
        others = _grouped(after.terms, key, partner.values())
        for group, found in ones.items():
            if len(found) == len(others.get(group, ())) and (most is None or len(found) <= most):
                partner.update(zip(found, others[group]))
    changes = [Change(term, after.terms[partner[k]] if k in partner else None) for k, term in enumerate(before.terms)]
    alone = [Change(None, term) for k, term in enumerate(after.terms) if k not in partner.values()]
    return Comparison(before, after, (*changes, *alone))


def _grouped(terms: Sequence[Term], key: Callable, taken: Collection[int]) -> dict[Hashable, list[int]]:
    """Positions of the terms that are not taken, by what `key` makes of them; those of None are left out."""
    groups: dict[Hashable, list[int]] = {}
    for k, term in enumerate(terms):
        if k not in taken and (group := key(term)) is not None:
            groups.setdefault(group, []).append(k)
    return groups


def _name(term: Term) -> Hashable:
    return term.name, term.kind


def _stem(term: Term) -> Hashable:
    """The name without the numbers that Keras appends to it."""
    return re.sub(r"_\d+(?=/|$)", "", term.name), term.kind


def _output(term: Term) -> Hashable:
    return term.kind if term.kind == "output" else None


def _has(term: Term | None, axes: Sequence[str]) -> bool:
    return term is not None and any(part.view(axes) is not None for part in term.parts)


def _has_classes(term: Term) -> bool:
    return any(part.by_label() is not None for part in term.parts)


def _differences(pairs: dict[Hashable, tuple[float, float]]) -> dict[Hashable, float]:
    return {label: after - before for label, (before, after) in pairs.items()}
