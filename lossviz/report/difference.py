"""What moved between two reports: frozen records whose differences sum to that of the two losses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from lossviz.report.records import Balance, Term, jsonable


@dataclass(frozen=True, eq=False)
class Change:
    """One term in both reports, or, where `before` or `after` is None, a term that only the other one has."""

    before: Term | None
    after: Term | None

    @property
    def terms(self) -> tuple[Term, ...]:
        """The term in each of the reports that has it, `before` first."""
        return tuple(term for term in (self.before, self.after) if term is not None)

    @property
    def name(self) -> str:
        """The term's name; `dense → dense_1` where it has two."""
        names = dict.fromkeys(term.name for term in self.terms)
        return " → ".join(names)

    @property
    def kind(self) -> str:
        return self.terms[0].kind

    @property
    def contributions(self) -> tuple[float, float]:
        """Before and after; 0 where the term is missing."""
        before, after = self.before, self.after
        return (0.0 if before is None else before.contribution, 0.0 if after is None else after.contribution)

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
        found = [{axis for part in term.parts for axis, size in part.sizes.items() if size > 1} for term in self.terms]
        order = dict.fromkeys(axis for part in self.terms[0].parts for axis in part.sizes)
        return [axis for axis in order if all(axis in axes for axes in found)]


@dataclass(frozen=True, eq=False)
class Difference:
    """Two balances, and what moved from one to the other: what a `Comparison` holds and answers, without the ways to
    show it. For the fields see `Comparison`.
    """

    before: Balance
    after: Balance
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
            if name in (change.name, *(term.name for term in change.terms)):
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
                        "by": {axis: _pairs_along(change, axis) for axis in change.axes()},
                    }
                    for change in self.changes
                ],
            }
        )


def _pairs_along(change: Change, axis: str) -> list[list[Any]]:
    """Label, share before and share after of each position along one axis."""
    return [[label, *pair] for label, pair in change.both(lambda term: term.by(axis)).items()]


def _has(term: Term | None, axes: Sequence[str]) -> bool:
    return term is not None and any(part.view(axes) is not None for part in term.parts)


def _has_classes(term: Term) -> bool:
    return any(part.by_label() is not None for part in term.parts)


def _differences(pairs: dict[Hashable, tuple[float, float]]) -> dict[Hashable, float]:
    return {label: after - before for label, (before, after) in pairs.items()}
