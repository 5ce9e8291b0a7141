"""Writes a `Report` as a tree of plain text, at most 76 columns wide: what a page of the book can show."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable

from lossviz.report import formatting as f
from lossviz.report.difference import Difference
from lossviz.report.findings import Finding
from lossviz.report.records import Balance, Part, Term

WIDTH = 76
NAME, SHARE, PERCENT = 40, 12, 9
BAR = 10


def render(report: Balance, *, digits: int = 5) -> str:
    """The report as a tree: the number, one row a term with its steps and largest shares, the residual.

    Every contribution stands in one column and with the same decimals, so the terms' rows and the residual
    add up to the number in the last row. Per cents are of the sum of all shares. `digits` is the number of
    significant digits of the largest contribution.
    """
    report = f.as_report(report)
    column = f.Column.of([report.reported, *(term.contribution for term in report.terms)], digits)
    values = f.Column.of([term.value for term in report.terms], digits)
    source = _wrap(f"loss {column(report.reported)}  from {f.clean(report.source)}", "", 4)
    lines = [*source, *_wrap(f.versions_text(report), "", 4), ""]
    lines += _row("", "term", "contribution", "share")
    for term in report.terms:
        lines += _term(term, report, column, values)
    name, remark = f.verdict(report)
    lines += _row("├─ ", name, share=f.residual_text(report, column), last=remark)
    lines += _row("└─ ", "loss", share=column(report.reported), percent=f.percent(report.total, report.total))
    for note in report.notes:
        lines += _wrap(f"note: {f.clean(note)}", "", 6)
    for finding in report.findings:
        lines += _finding(finding)
    return "\n".join(line.rstrip() for line in lines)


def _finding(finding: Finding) -> list[str]:
    return [
        "",
        *_wrap(f.finding_title(finding), "", 4),
        *_wrap(f.clean(finding.sentence), "  ", 0),
        *_wrap(f"Fix: {f.clean(finding.fix)}", "  ", 5),
    ]


def _term(term: Term, report: Balance, column: f.Column, values: f.Column) -> list[str]:
    name = f"{f.clean(term.name)} ({f.clean(term.kind).replace('_', ' ')})"
    share, percent = column(term.contribution), f.percent(term.contribution, report.total)
    lines = _row("├─ ", name, share, percent, term.exactness)
    if term.loss_weight != 1:
        words = f"contribution = value {values(term.value)} × loss weight {f.plain(term.loss_weight)}"
        lines += _wrap(words, "│    ", 4)
    for number, part in enumerate(term.parts, start=1):
        prefix = "│    "
        if len(term.parts) > 1:
            title = f"part {number}, {f.shape_text(part.sizes, part.sizes.values())}"
            percent = f.percent(part.contribution, report.total)
            lines += _row("│  ", title, share=column(part.contribution), percent=percent, last=part.exactness)
            prefix = "│      "
        lines += _part(part, prefix)
    if term.note:
        lines += _wrap(f"note: {f.clean(term.note)}", "│    ", 6)
    if axis := f.main_axis(term):
        lines += _shares(term, axis, report, column)
    return [*lines, "│"]


def _part(part: Part, prefix: str) -> list[str]:
    lines = []
    for step in part.steps:
        lines += _wrap(f.clean(step.text), prefix, 4)
    for text in (*f.sums_lines(part), f.trouble(part)):
        lines += _wrap(text, prefix, 4)
    if part.note:
        lines += _wrap(f"note: {f.clean(part.note)}", prefix, 6)
    return lines


def _shares(term: Term, axis: str, report: Balance, column: f.Column) -> list[str]:
    """The term's shares along `axis`: at most a dozen rows, each with a bar, largest bar full."""
    shares = term.by(axis)
    rows = f.share_rows(shares)
    largest = max((abs(share) for label, share in rows if label in shares and math.isfinite(share)), default=0.0)
    lines = _wrap(f"by {f.clean(axis)}" + (", the largest" if len(rows) < len(shares) else ""), "│    ", 4)
    for label, share in rows:
        percent, bar = f.percent(share, report.total), _bar(share, largest) if label in shares else ""
        lines += _row("│      ", f.clean(label), share=column(share), percent=percent, last=bar, leader=True)
    return lines


def _bar(share: float, largest: float) -> str:
    """A bar of eighths of a character; a share that is not zero has at least the thinnest one."""
    if not math.isfinite(share) or share == 0 or largest == 0:
        return ""
    full, eighths = divmod(max(1, round(8 * BAR * abs(share) / largest)), 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths]


def _row(
    prefix: str,
    name: str,
    share: str = "",
    percent: str = "",
    last: str = "",
    leader: bool = False,
) -> list[str]:
    """One row of the table, or several where the name is too long for its column.

    With `leader` a line of dots leads from a short name to its share.
    """
    numbers = f"{share:>{SHARE}}{percent:>{PERCENT}}  {last}"
    room = NAME - len(prefix)
    gap = room - _columns(name)
    if gap >= 0:
        if leader:
            gap += len(numbers) - len(numbers.lstrip())
            dots = (". " * gap)[(gap % 2) :][: gap - 2]
            return [f"{prefix}{name} {dots} {numbers.lstrip()}"]
        return [prefix + name + " " * gap + numbers]
    follow = prefix.replace("├─", "│ ").replace("└─", "  ")
    names = _fold(name, WIDTH - len(prefix) - 2)
    return [prefix + names[0], *(follow + "  " + more for more in names[1:]), follow + " " * room + numbers]


def _wrap(text: str, prefix: str, indent: int) -> list[str]:
    """`text` on lines of at most `WIDTH` columns, further lines `indent` deeper."""
    pieces = textwrap.wrap(text, WIDTH - len(prefix) - indent, break_on_hyphens=False)
    pieces = [short for piece in pieces for short in _fold(piece, WIDTH - len(prefix) - indent)]
    return [prefix + (" " * indent if k else "") + piece for k, piece in enumerate(pieces)]


def _fold(text: str, width: int) -> list[str]:
    """`text` cut into pieces of at most `width` columns."""
    pieces = [""]
    for character in text:
        if _columns(pieces[-1] + character) > width:
            pieces.append("")
        pieces[-1] += character
    return pieces


def _columns(text: str) -> int:
    """How many columns a terminal gives `text`: two for wide characters, none for combining ones."""
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text)
    return len(text) + wide - sum(unicodedata.combining(c) > 0 or c in "\u200d\ufe0f" for c in text)


# -- comparisons ------------------------------------------------------------------------------------------

_ROOM, _NUMBER = 34, 14


def render_comparison(comparison: Difference) -> str:
    """The comparison as a table: one row a term with its shares before and after, and how far it moved."""
    one, other = comparison.before, comparison.after
    numbers = [number for change in comparison.changes for number in (*change.contributions, change.difference)]
    column = f.Column.of([one.reported, other.reported, comparison.difference, *numbers])
    lines = _wrap(f.headline(comparison, column), "", 4)
    for word, report in (("before", one), ("after", other)):
        lines += _wrap(f"{word}: {f.source_text(report)}", "", 4)
    lines += ["", *_moved("", "term", ("before", "after", "difference"))]
    for change in comparison.changes:
        name = f"{f.clean(change.name)} ({f.clean(change.kind).replace('_', ' ')})"
        before, after = change.contributions
        shown = ("–" if term is None else column(n) for term, n in ((change.before, before), (change.after, after)))
        lines += _moved("├─ ", name, (*shown, column(change.difference)))
        lines += _wrap(change.note, "│    ", 4) if change.note else []
        for title, rows in f.moved_rows(change)[:1]:
            lines += _wrap(title, "│    ", 4)
            for label, (start, end) in rows:
                lines += _moved("│      ", f.clean(label), (column(start), column(end), column(end - start)))
        lines.append("│")
    residuals = (f.residual_text(one, column), f.residual_text(other, column))
    small = abs(comparison.residual) <= f.allowed(one) + f.allowed(other)
    lines += _moved("├─ ", "residual", (*residuals, column(0.0 if small else comparison.residual)))
    lines += _moved("└─ ", "loss", (column(one.reported), column(other.reported), column(comparison.difference)))
    return "\n".join(line.rstrip() for line in lines)


def _moved(prefix: str, name: str, numbers: Iterable[str]) -> list[str]:
    row = "".join(f"{number:>{_NUMBER}}" for number in numbers)
    gap = _ROOM - len(prefix) - _columns(name)
    if gap >= 0:
        return [prefix + name + " " * gap + row]
    follow = prefix.replace("├─", "│ ").replace("└─", "  ")
    first, *more = _fold(name, WIDTH - len(prefix) - 2)
    return [prefix + first, *(follow + "  " + piece for piece in more), follow + " " * (_ROOM - len(follow)) + row]
