"""Writes a `Report` as a tree of plain text, 76 columns wide or as wide as you ask."""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lossviz.report import formatting as f
from lossviz.report.difference import Difference
from lossviz.report.findings import Finding
from lossviz.report.records import Balance, Part, Term

#: The width of a printed report, the least one that can be asked for, and from where there is room for wide bars.
WIDTH, LEAST, WIDE = 76, 40, 64
SHARE, PERCENT = 12, 9  # columns of the numbers; longer ones take more
BAR, LAST, SHORT_BAR = 10, 13, 6  # a bar and the room for it, and both on a narrow page
BRANCHES = str.maketrans("├└", "│ ", "─")


@dataclass(frozen=True)
class Row:
    """One row of the table: `last` is what stands behind the numbers, `size` the length of a bar, from 0 to 1.

    With `leader` a line of dots leads from a short name to its share.
    """

    prefix: str
    name: str
    share: str = ""
    percent: str = ""
    last: str = ""
    size: float = 0.0
    leader: bool = False


@dataclass(frozen=True)
class Page:
    """Where the columns of one report stand: as far right as its longest numbers need."""

    width: int
    share: int
    percent: int

    @classmethod
    def of(cls, lines: Iterable[Row | str], width: int) -> Page:
        rows = [line for line in lines if isinstance(line, Row)]
        share = max((1 + len(row.share) for row in rows[1:]), default=0)  # but for the heading
        percent = max((2 + len(row.percent) for row in rows[1:]), default=0)
        return cls(width, max(SHARE, share), max(PERCENT, percent))

    @property
    def wide(self) -> bool:
        return self.width >= WIDE

    @property
    def room(self) -> int:
        """For prefix and name."""
        return max(LEAST // 4, self.width - self.share - self.percent - 2 - (LAST if self.wide else SHORT_BAR))

    def write(self, row: Row) -> list[str]:
        """The row, on several lines where its name or its remark is too long for its column."""
        bar, below = _bar(row.size, BAR if self.wide else SHORT_BAR) or row.last, ""
        if not self.wide and len(bar) > SHORT_BAR:
            bar, below = "", bar
        numbers = f"{row.share:>{self.share}}{row.percent:>{self.percent}}  {bar}"
        room = self.room - len(row.prefix)
        gap = room - _columns(row.name)
        follow = row.prefix.translate(BRANCHES).ljust(len(row.prefix))
        if gap >= 0:
            dots = " " * gap
            if row.leader:
                gap += len(numbers) - len(numbers.lstrip())
                dots, numbers = " " + (". " * gap)[(gap % 2) :][: gap - 2] + " ", numbers.lstrip()
            lines = [row.prefix + row.name + dots + numbers]
        else:
            first, *more = _fold(row.name, self.width - len(row.prefix) - 2)
            lines = [row.prefix + first, *(follow + "  " + piece for piece in more), follow + " " * room + numbers]
        return [*lines, *(wrap(below, follow + "  ", 0, self.width) if below else [])]


def render(report: Balance, *, width: int = WIDTH, digits: int = 5) -> str:
    """The report as a tree: the number, one row per term with its steps and largest shares, the residual.

    Every contribution stands in one column and with the same decimals, so the terms' rows and the residual
    add up to the number in the last row. Per cents are of the sum of all shares. `digits` is the number of
    significant digits of the largest contribution. No line is longer than `width` columns, 40 or more, as long as
    the numbers leave room for a name.
    """
    _check_width(width)
    report = f.as_report(report)
    column = f.Column.of([report.reported, *(term.contribution for term in report.terms)], digits)
    values = f.Column.of([term.value for term in report.terms], digits)
    lines: list[Row | str] = [
        *wrap(f"loss {column(report.reported)}  from {f.clean(report.source)}", "", 4, width),
        *wrap(f.versions_text(report), "", 4, width),
        "",
        Row("", "term", "contribution", "share"),
    ]
    for term in report.terms:
        lines += _term(term, report, column, values, width)
    name, remark = f.verdict(report)
    lines.append(Row("├─ ", name, f.residual_text(report, column), last=remark))
    lines.append(Row("└─ ", "loss", column(report.reported), f.percent(report.total, report.total)))
    for note in report.notes:
        lines += wrap(f"note: {f.clean(note)}", "", 6, width)
    for finding in report.findings:
        lines += _finding(finding, width)
    return _joined(lines, width)


def _check_width(width: int) -> None:
    if width < LEAST:
        raise ValueError(f"width must be {LEAST} columns or more, got width={width}.")


def _joined(lines: Sequence[Row | str], width: int) -> str:
    page = Page.of(lines, width)
    written = (page.write(line) if isinstance(line, Row) else [line] for line in lines)
    return "\n".join(line.rstrip() for several in written for line in several)


def _finding(finding: Finding, width: int) -> list[str]:
    return [
        "",
        *wrap(f.finding_title(finding), "", 4, width),
        *wrap(f.clean(finding.sentence), "  ", 0, width),
        *wrap(f"Fix: {f.clean(finding.fix)}", "  ", 5, width),
    ]


def _term(term: Term, report: Balance, column: f.Column, values: f.Column, width: int) -> list[Row | str]:
    name = f"{f.clean(term.name)} ({f.clean(term.kind).replace('_', ' ')})"
    percent = f.percent(term.contribution, report.total)
    lines: list[Row | str] = [Row("├─ ", name, column(term.contribution), percent, term.exactness)]
    if term.loss_weight != 1:
        words = f"contribution = value {values(term.value)} × loss weight {f.plain(term.loss_weight)}"
        lines += wrap(words, "│    ", 4, width)
    for number, part in enumerate(term.parts, start=1):
        prefix = "│    "
        if len(term.parts) > 1:
            title = f"part {number}, {f.shape_text(part.sizes, part.sizes.values())}"
            percent = f.percent(part.contribution, report.total)
            lines.append(Row("│  ", title, column(part.contribution), percent, part.exactness))
            prefix = "│      "
        lines += _part(part, prefix, width)
    if term.note:
        lines += wrap(f"note: {f.clean(term.note)}", "│    ", 6, width)
    if axis := f.main_axis(term):
        lines += _shares(term, axis, report, column, width)
    return [*lines, "│"]


def _part(part: Part, prefix: str, width: int) -> list[str]:
    lines = []
    for step in part.steps:
        lines += wrap(f.step_text(step), prefix, 4, width)
    for text in (*f.sums_lines(part), f.trouble(part)):
        lines += wrap(text, prefix, 4, width)
    if part.note:
        lines += wrap(f"note: {f.clean(part.note)}", prefix, 6, width)
    return lines


def _shares(term: Term, axis: str, report: Balance, column: f.Column, width: int) -> list[Row | str]:
    """The term's shares along `axis`: at most a dozen rows, each with a bar, largest bar full."""
    shares = term.by(axis)
    rows = f.share_rows(shares)
    largest = max((abs(share) for label, share in rows if label in shares and math.isfinite(share)), default=0.0)
    title = f"by {f.clean(axis)}" + (", the largest" if len(rows) < len(shares) else "")
    lines: list[Row | str] = [*wrap(title, "│    ", 4, width)]
    for label, share in rows:
        drawn = label in shares and math.isfinite(share) and largest > 0
        size, percent = abs(share) / largest if drawn else 0.0, f.percent(share, report.total)
        lines.append(Row("│      ", f.clean(label), column(share), percent, size=size, leader=True))
    return lines


def _bar(size: float, length: int) -> str:
    """A bar of eighths of a character; one that is not zero has at least the thinnest one."""
    if not size:
        return ""
    full, eighths = divmod(max(1, round(8 * length * size)), 8)
    return "█" * full + ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")[eighths]


def wrap(text: str, prefix: str, indent: int, width: int) -> list[str]:
    """`text` on lines of at most `width` columns, further lines `indent` deeper."""
    room = width - len(prefix) - indent
    pieces = textwrap.wrap(text, room, break_on_hyphens=False)
    pieces = [short for piece in pieces for short in _fold(piece, room)]
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

_NUMBER = 14  # columns of a number on a wide page


@dataclass(frozen=True)
class Move:
    """One row of a comparison: a name and three numbers."""

    prefix: str
    name: str
    numbers: tuple[str, ...]

    def write(self, number: int, width: int) -> list[str]:
        row = "".join(f"{text:>{number}}" for text in self.numbers)
        room = max(LEAST // 4, width - len(row))
        gap = room - len(self.prefix) - _columns(self.name)
        if gap >= 0:
            return [self.prefix + self.name + " " * gap + row]
        follow = self.prefix.translate(BRANCHES).ljust(len(self.prefix))
        first, *more = _fold(self.name, width - len(self.prefix) - 2)
        return [self.prefix + first, *(follow + "  " + piece for piece in more), follow.ljust(room) + row]


def render_comparison(comparison: Difference, *, width: int = WIDTH) -> str:
    """The comparison as a table: one row per term with its shares before and after, and how far it moved."""
    _check_width(width)
    one, other = comparison.before, comparison.after
    numbers = [number for change in comparison.changes for number in (*change.contributions, change.difference)]
    column = f.Column.of([one.reported, other.reported, comparison.difference, *numbers])
    lines: list[Move | str] = [*wrap(f.headline(comparison, column), "", 4, width)]
    for word, report in (("before", one), ("after", other)):
        lines += wrap(f"{word}: {f.source_text(report)}", "", 4, width)
    lines += ["", Move("", "term", ("before", "after", "difference"))]
    for change in comparison.changes:
        name = f"{f.clean(change.name)} ({f.clean(change.kind).replace('_', ' ')})"
        before, after = change.contributions
        shown = ("–" if term is None else column(n) for term, n in ((change.before, before), (change.after, after)))
        lines.append(Move("├─ ", name, (*shown, column(change.difference))))
        lines += wrap(change.note, "│    ", 4, width) if change.note else []
        for title, rows in f.moved_rows(change)[:1]:
            lines += wrap(title, "│    ", 4, width)
            for label, (start, end) in rows:
                lines.append(Move("│      ", f.clean(label), (column(start), column(end), column(end - start))))
        lines.append("│")
    residuals = (f.residual_text(one, column), f.residual_text(other, column))
    small = abs(comparison.residual) <= f.allowed(one) + f.allowed(other)
    lines.append(Move("├─ ", "residual", (*residuals, column(0.0 if small else comparison.residual))))
    lines.append(Move("└─ ", "loss", (column(one.reported), column(other.reported), column(comparison.difference))))
    longest = 2 + max(len(text) for line in lines if isinstance(line, Move) for text in line.numbers)
    number = max(_NUMBER, longest) if width >= WIDE else longest
    written = (line.write(number, width) if isinstance(line, Move) else [line] for line in lines)
    return "\n".join(line.rstrip() for several in written for line in several)
