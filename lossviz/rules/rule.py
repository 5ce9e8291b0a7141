"""A rule: its name, what it is about, how bad its fault is, and the function that finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from lossviz.report.findings import SEVERITIES, Finding

#: What a rule yields for each fault: where it is, one sentence with its numbers, the way out; and its severity, where
#: that is not the rule's own.
Faults = Iterator[tuple[str, str, str] | tuple[str, str, str, str]]


@dataclass(frozen=True)
class Rule:
    """A rule: `check` looks at the evidence and yields its faults. `severity` is one of `findings.SEVERITIES`.

    `summary` says what it sees and `way_out` what to do, in general; a finding says both with its numbers. `page` is
    the page of the book that explains it, with an anchor where that says more.
    """

    name: str
    summary: str
    page: str
    check: Callable[[Any], Faults]
    severity: str = "error"
    since: str = ""
    until: str = ""
    way_out: str = ""

    def findings(self, case: Any) -> Iterator[Finding]:
        return self.findings_of(self.check(case))

    def findings_of(self, faults: Iterable[tuple[str, ...]]) -> Iterator[Finding]:
        for where, sentence, fix, *severity in faults:
            first = sentence.split()[0]
            if first.isalpha() and len(first) > 1:  # and not the name of an argument
                sentence = sentence[0].upper() + sentence[1:]
            own = severity[0] if severity else self.severity
            yield Finding(self.name, where, sentence, fix, self.page, self.since, self.until, own)


def rule(
    name: str, page: str, *, severity: str = "error", since: str = "", until: str = ""
) -> Callable[[Callable], Rule]:
    """Make a rule of the decorated function. Its docstring says what the rule is about, and after "Way out:" what to do
    about it."""
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {SEVERITIES}, got {severity!r}.")

    def made(check: Callable) -> Rule:
        summary, _, way_out = (" ".join(text.split()) for text in check.__doc__.partition("Way out:"))
        return Rule(name, summary, page, check, severity, since, until, way_out)

    return made
