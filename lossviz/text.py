"""Writes a `Report` as a tree of plain text, at most 76 columns wide: what a page of the book can show."""

from __future__ import annotations

import math
import textwrap
import unicodedata

from lossviz import formatting as f
from lossviz.report import Part, Report, Term

WIDTH = 76
NAME, SHARE, PERCENT = 40, 12, 9
BAR = 10


def render(report: Report, *, digits: int = 5) -> str:
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
    return "\n".join(line.rstrip() for line in lines)


def _term(term: Term, report: Report, column: f.Column, values: f.Column) -> list[str]:
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


def _shares(term: Term, axis: str, report: Report, column: f.Column) -> list[str]:
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
