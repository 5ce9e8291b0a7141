"""A rule: its name, what it is about, and the function that finds the fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lossviz.report.findings import Finding

#: What a rule yields: for each fault where it is, one sentence with its numbers, and the way out.
Faults = Iterator[tuple[str, str, str]]


@dataclass(frozen=True)
class Rule:
    """A rule: `check` looks at the evidence and yields `(where, sentence, fix)` for each fault it sees."""

    name: str
    summary: str
    page: str
    check: Callable[[Any], Faults]
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


def rule(name: str, page: str, *, since: str = "", until: str = "") -> Callable[[Callable], Rule]:
    """Make a rule of the decorated function; the first line of its docstring says what the rule is about."""

    def made(check: Callable) -> Rule:
        return Rule(name, check.__doc__.splitlines()[0], page, check, since, until)

    return made
