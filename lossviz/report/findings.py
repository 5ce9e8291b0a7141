"""Findings: what is wrong with a loss on this data, in one sentence with its numbers, and the way out.

The rules themselves are in `rules`, what they look at in `evidence`. This module knows nothing of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One fault: `rule` is its stable name, `where` the output, layer or weight it was found at.

    `sentence` says what is wrong on this data, with the numbers, and `fix` what to do about it. `page` is the page
    of the book that explains it. `since` and `until` are the first and the last version of Keras that behave so,
    as far as they are known: empty where the rule does not depend on the version, or where the newest version that
    was tried still does.
    """

    rule: str
    where: str
    sentence: str
    fix: str
    page: str = ""
    since: str = ""
    until: str = ""

    @property
    def versions(self) -> str:
        """`Keras 3.5 and newer`, or empty."""
        if self.since and self.until:
            return f"Keras {self.since} to {self.until}"
        if self.until:
            return f"Keras {self.until} and older"
        return f"Keras {self.since} and newer" if self.since else ""

    def __str__(self) -> str:
        versions = f" ({self.versions})" if self.versions else ""
        return f"{self.rule}: {self.where}: {self.sentence}{versions}\nFix: {self.fix}"


@dataclass(frozen=True)
class Rule:
    """A rule: `check` looks at the evidence and yields `(where, sentence, fix)` for each fault it sees."""

    name: str
    summary: str
    page: str
    check: Callable[[Any], Iterator[tuple[str, str, str]]]
    since: str = ""
    until: str = ""

    def findings(self, case: Any) -> Iterator[Finding]:
        return self.findings_of(self.check(case))

    def findings_of(self, faults: Iterable[tuple[str, str, str]]) -> Iterator[Finding]:
        for where, sentence, fix in faults:
            first = sentence.split()[0]
            if first.isalpha() and len(first) > 1:  # and not the name of an argument
                sentence = sentence[0].upper() + sentence[1:]
            yield Finding(self.name, where, sentence, fix, self.page, self.since, self.until)


#: Every rule by its name, in the order in which findings are listed.
RULES: dict[str, Rule] = {}


def rule(name: str, page: str, *, since: str = "", until: str = "") -> Callable:
    """Register the decorated function as a rule; the first line of its docstring says what it is about."""

    def register(check: Callable) -> Callable:
        RULES[name] = Rule(name, check.__doc__.splitlines()[0], page, check, since, until)
        return check

    return register


def union(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Each fault once: of several findings of one rule at one place, as several batches give them, the first."""
    found: dict[tuple[str, str], Finding] = {}
    for finding in findings:
        found.setdefault((finding.rule, finding.where), finding)
    order = list(RULES)
    return tuple(sorted(found.values(), key=lambda finding: order.index(finding.rule) if finding.rule in order else 0))
