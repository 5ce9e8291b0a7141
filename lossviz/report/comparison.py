"""`Comparison`: what moved between two reports, with the ways to show it, and which terms of them belong together."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Hashable, Sequence
from dataclasses import dataclass

from lossviz.report import formatting as f
from lossviz.report import html, text
from lossviz.report.difference import Change, Difference
from lossviz.report.records import Balance, Term


@dataclass(frozen=True, eq=False)
class Comparison(Difference):
    """Two reports, and what moved from one to the other. `report.compare(other)` makes it; it prints well.

    `changes` holds one row a term: first those of `before`, in their order, then those that only `after` has. Terms
    belong together if kind and name agree, also where names differ by the number that Keras appends (`dense`,
    `dense_1`), or if they are the only output that is left on each side. The `difference` of the losses
    (after minus before) is the sum of the changes and of `residual`, the difference of the residuals.
    """

    def summary(self, width: int = text.WIDTH) -> str:
        """The comparison as text, as `print` shows it, in lines of at most `width` columns (40 or more).

        Raises ValueError for a narrower page.
        """
        return text.render_comparison(self, width=width)

    def __str__(self) -> str:
        return text.render_comparison(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html.render_comparison(self)


def compare(before: Balance, after: Balance) -> Comparison:
    """The comparison of two reports (or of what can become one, such as `lossviz.regimes.Reduction`)."""
    before, after = f.as_report(before), f.as_report(after)
    for report in (before, after):
        if not isinstance(report, Balance):
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
