"""Writes a `Report` as one static HTML tree: no script, no outside file, no ids.

The text alone, with every tag and style gone, still tells all the numbers. Colours are CSS variables with a
dark set; `color-scheme` of the page decides where it says so, else the usual marks of dark themes do.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Hashable, Iterable
from html import escape

import numpy as np

from lossviz.report import formatting as f
from lossviz.report.difference import Difference
from lossviz.report.findings import Finding
from lossviz.report.records import UNSPLIT, Balance, Part, Term

#: Parts with at most this many elements show each of them.
GRID = 64

_COLORS = {  # name: (light, dark)
    "bg": ("#ffffff", "#15191e"),
    "ink": (f.INK, "#e4e8ec"),
    "quiet": (f.QUIET, "#a3adb8"),
    "line": ("#dde2e7", "#38414b"),
    "track": ("#f0f2f4", "#222931"),
    "output": (f.KIND_COLORS["output"], "#86a9cc"),
    "add_loss": (f.KIND_COLORS["add_loss"], "#d0a768"),
    "regulariser": (f.KIND_COLORS["regulariser"], "#98a4b1"),
    "constant": (f.KIND_COLORS["constant"], "#6d7884"),
    "good": ("#00684a", "#5fc9a3"),
    "warn": ("#8a4b00", "#f0b35c"),
    "bad": ("#a61b1b", "#ff9c8f"),
    "pos": ("0 114 178", "86 180 233"),
    "neg": ("213 94 0", "240 140 70"),
}
_DARK = "html[data-theme=dark] .lv,html[theme=dark] .lv,body[data-jp-theme-light=false] .lv,.vscode-dark .lv"
_RULES = """\
.lv{background:var(--bg);color:var(--ink);font:14px/1.45 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;\
font-variant-numeric:tabular-nums;padding:.7em .8em;border:1px solid var(--line);border-radius:6px;max-width:60em;\
overflow-wrap:anywhere}
.lv p{margin:.2em 0;color:inherit}
.lv small,.lv .k,.lv .v{color:var(--quiet);font-size:.86em}
.lv .h b{font-size:1.6em;letter-spacing:-.01em}
.lv code{background:none;color:inherit;padding:0;font-size:.92em}
.lv .t{border-top:1px solid var(--line);margin:0;padding:.1em 0}
.lv .lr{display:grid;grid-template-columns:1.1em minmax(8em,1fr) 9.5em 6.5em 4.5em minmax(4em,10em) 3.6em;\
column-gap:.6em;align-items:center;padding:.35em 0;list-style:none}
.lv summary{cursor:pointer;color:inherit}
.lv summary.lr::-webkit-details-marker{display:none}
.lv .lr::before{content:""}
.lv summary.lr::before{content:"\\25B8";color:var(--quiet)}
.lv details[open]>summary.lr::before{content:"\\25BE"}
.lv .n{font-weight:600}
.lv .n .k{font-weight:400}
.lv .v,.lv .c,.lv .p{text-align:right;white-space:nowrap}
.lv .c{font-weight:600}
.lv .s{grid-column:2/-1;color:var(--quiet);font-size:.86em}
.lv .b{display:block;background:var(--track);height:.7em;min-width:3em;overflow:hidden;border-radius:2px}
.lv .b i{display:block;height:100%;background:var(--output)}
.lv .b .m{opacity:.55}
.lv .exact{color:var(--good)}
.lv .ratio,.lv .w{color:var(--warn)}
.lv .opaque,.lv .x,.lv td.x{color:var(--bad)}
.lv .lx{font-size:.86em;white-space:nowrap}
.lv .d{margin:0 0 .7em 1.7em}
.lv .d .d{margin-left:.9em}
.lv ol{margin:.2em 0 .6em;padding-left:1.4em;color:inherit}
.lv li{margin:0}
.lv .o{overflow-x:auto}
.lv .f{border-left:3px solid var(--warn);margin:.5em 0;padding:.1em .7em}
.lv table{border-collapse:collapse;border:0;margin:.2em 0 .6em;width:auto;display:table;font-size:.93em}
.lv caption{text-align:left;color:var(--quiet);padding:0;caption-side:top;font-size:.93em}
.lv tr,.lv td,.lv th{background:none;color:var(--ink);border:0;padding:.1em .7em .1em 0;text-align:right;\
font-weight:400;white-space:nowrap}
.lv tbody th{text-align:left;white-space:normal;min-width:3em}
.lv td:last-child .b{width:9em;max-width:24vw}
.lv .g td{padding:.15em .5em;border:1px solid var(--bg);background:rgb(var(--pos)/calc(var(--a,0)*.05))}
.lv .g td.m{background:rgb(var(--neg)/calc(var(--a,0)*.05))}
.lv .g td.z{background:repeating-linear-gradient(135deg,var(--track) 0 3px,transparent 3px 6px);color:var(--quiet)}
.lv .g td.x{outline:2px solid var(--bad);outline-offset:-2px;font-weight:600}
.lv .g small{display:block;color:inherit}
@media(max-width:640px){.lv{padding:.6em .5em}
.lv .lr{grid-template:". n c p" ". v v x" ". b b b" ". s s s"/1.1em 1fr auto 4.4em}
.lv .lr::before{grid-area:1/1}
.lv .lr .n{grid-area:n}
.lv .lr .c{grid-area:c}
.lv .lr .p{grid-area:p}
.lv .lr .v{grid-area:v;text-align:left}
.lv .lr .lx{grid-area:x;text-align:right}
.lv .lr>.b{grid-area:b;margin:.25em 0}
.lv .lr .s{grid-area:s}
.lv td .b{min-width:2em}
.lv .d{margin-left:.5em}}
"""

_MEANING = {
    "exact": "each element has its own share of the loss",
    "ratio": "a quotient of sums: below its axes no share exists",
    "opaque": "not divided further: the operations before it could not be read",
}

_EMPTY = '<span class="b"></span>'


def _style() -> str:
    def variables(column: int) -> str:
        return ";".join(f"--{name}:{pair[column]}" for name, pair in _COLORS.items())

    both = ";".join(f"--{k}:light-dark({a},{b})" for k, (a, b) in _COLORS.items() if a.startswith("#"))
    return (
        f".lv{{{variables(0)}}}\n@supports(color:light-dark(red,red)){{.lv{{{both}}}}}\n"
        f"{_DARK}{{{variables(1)}}}\n{_RULES}"
    )


def render(report: Balance) -> str:
    """The report as one `<div class="lv">`: what stands out and what is wrong, then a row per term, folded below it
    its steps, shares and elements.

    Holds every number of the text form, written the same way. The largest term is unfolded. Bars of terms stand where
    each term's share lies between 0 and the total, as in the waterfall; below a term a full track is the term. Names,
    labels, notes and steps are escaped. The same report gives the same bytes.
    """
    report = f.as_report(report)
    column = f.Column.of([report.reported, *(term.contribution for term in report.terms)])
    values = f.Column.of([term.value for term in report.terms])
    span = _span([term.contribution for term in report.terms])
    sizes = [abs(t.contribution) if math.isfinite(t.contribution) else math.inf for t in report.terms]
    largest = sizes.index(max(sizes)) if sizes else -1
    versions = f.versions_text(report)
    out = [
        f'<div class="lv"><style>\n{_style()}</style>',
        f'<p class="h"><b>{column(report.reported)}</b> loss from <code>{_safe(report.source)}</code></p>',
        *([f"<p><small>{escape(versions)}</small></p>"] if versions else []),
        *([f"<p>{escape(message)}</p>"] if (message := f.message(report)) else []),
        *(line for k, finding in enumerate(report.findings) for line in _finding(finding, " open" if k == 0 else "")),
    ]
    start = 0.0
    for k, term in enumerate(report.terms):
        bar = _bar(term.contribution, span, _color(term), start)
        start += term.contribution if math.isfinite(term.contribution) else 0.0
        out += _term(term, report, column, values, bar, "" if k != largest else " open")
    name, remark = f.verdict(report)
    wrong = "" if name == "residual" else ' class="x"'
    out.append(
        f'<div class="t lr"><span class="n"><span{wrong}>{name}</span></span> <span class="v"></span>'
        f' <span class="c">{f.residual_text(report, column)}</span> <span class="p"></span>'
        f' <span class="s">what the shares leave of the number reported; {remark}</span></div>'
    )
    if len(report.terms) != 1 or name != "residual":  # else the loss is the row of its only term
        out.append(
            f'<div class="t lr"><span class="n">loss</span> <span class="v"></span>'
            f' <span class="c">{column(report.reported)}</span>'
            f' <span class="p">{f.percent(report.total, report.total)}</span>'
            f" {_bar(report.total, span, 'var(--ink)')}</div>"
        )
    out += [f'<p class="w">note: {_safe(note)}</p>' for note in report.notes]
    return "\n".join([*out, "</div>"])


def _finding(finding: Finding, fold: str) -> list[str]:
    return [
        f'<details class="f"{fold}><summary class="w"><b>{escape(f.finding_title(finding))}</b></summary>',
        f"<p>{_safe(finding.sentence)}</p>",
        f"<p><b>Fix:</b> {_safe(finding.fix)}</p></details>",
    ]


def block(lines: list[str]) -> str:
    """Lines of HTML in the frame and the style of a report, for what is drawn like one."""
    return "\n".join([f'<div class="lv"><style>\n{_style()}</style>', *lines, "</div>"])


def render_comparison(comparison: Difference) -> str:
    """The comparison as one `<div class="lv">`: a table of terms, and below it one of labels for each axis."""
    one, other = comparison.before, comparison.after
    numbers = [number for change in comparison.changes for number in (*change.contributions, change.difference)]
    column = f.Column.of([one.reported, other.reported, comparison.difference, *numbers])
    span = _span([change.difference for change in comparison.changes], single=True)
    small = abs(comparison.residual) <= f.allowed(one) + f.allowed(other)
    residuals = (f.residual_text(one, column), f.residual_text(other, column))
    rows = []
    for change in comparison.changes:
        shares = zip((change.before, change.after), change.contributions)
        shown = ["–" if term is None else column(share) for term, share in shares]
        kind = f"{change.kind.replace('_', ' ')}{', ' if change.note else ''}{change.note}"
        name = f"{_safe(change.name)} <small>{_safe(kind)}</small>"
        color = _color(change.before or change.after)
        rows.append(_moved(name, (*shown, column(change.difference)), _bar(change.difference, span, color)))
    whole = column(0.0 if small else comparison.residual)
    rows.append(_moved("residual", (*residuals, whole), _EMPTY))
    rows.append(_moved("loss", (column(one.reported), column(other.reported), column(comparison.difference)), _EMPTY))
    lines = [
        f'<p class="h"><b>{column(comparison.difference)}</b> difference</p>',
        f"<p>{escape(f.headline(comparison, column))}</p>",
        *(
            f"<p><small>{word}: {escape(f.source_text(r))}</small></p>"
            for word, r in (("before", one), ("after", other))
        ),
        *_moved_table(rows),
    ]
    fold = " open"
    for change in comparison.changes:
        for title, pairs in f.moved_rows(change):
            inner = _span([after - before for _, (before, after) in pairs], single=True)
            rows = [
                _moved(
                    _safe(label), [column(n) for n in (before, after, after - before)],
                    _bar(after - before, inner, _color(change.before)),
                )
                for label, (before, after) in pairs
            ]  # fmt: skip
            title = f"{_safe(change.name)}, {escape(title)}"
            lines += [f"<details{fold}><summary>{title}</summary>", *_moved_table(rows), "</details>"]
            fold = ""
    return block(lines)


def _moved_table(rows: list[str]) -> list[str]:
    head = " ".join(f"<th scope=col>{word}</th>" for word in ("before", "after", "difference"))
    start = '<div class="o" tabindex=0><table><thead><tr><td></td> '
    return [f"{start}{head}<td></td></tr></thead><tbody>", *rows, "</tbody></table></div>"]


def _moved(name: str, numbers: Iterable[str], bar: str) -> str:
    cells = " ".join(f"<td>{number}</td>" for number in numbers)
    return f"<tr><th scope=row>{name}</th> {cells} <td>{bar}</td></tr>"


def _term(term: Term, report: Balance, column: f.Column, values: f.Column, bar: str, fold: str) -> list[str]:
    inner: list[str] = []
    several = len(term.parts) > 1
    span = _whole([part.contribution for part in term.parts])
    for number, part in enumerate(term.parts, start=1):
        body = _part(part)
        if several:
            share = part.contribution
            rod = _bar(share, span, _color(term))
            head = _row(f"part {number}", "", "", share, report, column, rod, part.exactness, _shape([part]))
            summary = f'<summary class="lr">{head}</summary>'
            body = [
                f'<details open class="t">{summary}<div class="d">',
                *body,
                *_grid(part, column),
                "</div></details>",
            ]
        inner += body
    if term.note:
        inner.append(f'<p class="w">note: {_safe(term.note)}</p>')
    inner += _shares(term, report, column)
    if not several:
        inner += [line for part in term.parts for line in _grid(part, column)]
    kind = term.kind.replace("_", " ")
    weighted = f"{values(term.value)} × {f.plain(term.loss_weight)} =" if term.loss_weight != 1 else ""
    shape = _shape(term.parts)
    head = _row(term.name, kind, weighted, term.contribution, report, column, bar, term.exactness, shape)
    if not inner:
        return [f'<div class="t lr">{head}</div>']
    summary = f'<summary class="lr">{head}</summary>'
    return [f'<details class="t"{fold}>{summary}<div class="d">', *inner, "</div></details>"]


def _row(
    name: str,
    kind: str,
    weighted: str,
    share: float,
    report: Balance,
    column: f.Column,
    bar: str,
    exactness: str,
    shape: str,
) -> str:
    kind = f' <span class="k">{_safe(kind)}</span>' if kind else ""
    missing = "" if math.isfinite(share) else " x"
    return (
        f'<span class="n">{_safe(name)}{kind}</span> <span class="v">{weighted}</span>'
        f' <span class="c{missing}">{column(share)}</span>'
        f' <span class="p">{f.percent(share, report.total)}</span> {bar}'
        f' <span class="lx {_safe(exactness)}" title="{_MEANING.get(exactness, "")}">{_safe(exactness)}</span>'
        f' <span class="s">{shape}</span>'
    )


def _shape(parts: tuple[Part, ...] | list[Part]) -> str:
    """Named shape and divisors, of each part."""
    texts = []
    for part in parts:
        divided = "".join(f", ÷ {f.plain(divisor)}" for divisor in f.divisors(part))
        texts.append(f.shape_text(part.sizes, part.sizes.values()) + divided)
    return escape("; ".join(texts))


def _part(part: Part) -> list[str]:
    out = []
    if part.steps:
        shapes = f.stages(part)
        out.append("<ol>")
        for step, (names, sizes) in zip(part.steps, shapes):
            known = any(names) or not sizes
            named = f" <small>{escape(f.shape_text(names, sizes))}</small>" if known else ""
            words = f.step_text(step)
            out.append(f"<li>{escape(f.without_shapes(words) if known else words, quote=True)}{named}</li>")
        out.append("</ol>")
    out += [f"<p>{escape(line)}</p>" for line in f.sums_lines(part)]
    if trouble := f.trouble(part):
        out.append(f'<p class="x">{escape(trouble)}</p>')
    if part.note:
        out.append(f'<p class="w">note: {_safe(part.note)}</p>')
    return out


def _shares(term: Term, report: Balance, column: f.Column) -> list[str]:
    """A table of shares along each axis with several positions; the most useful axis first and unfolded."""
    sizes = {axis: size for part in term.parts for axis, size in part.sizes.items()}
    main = f.main_axis(term)
    axes = [main, *(axis for axis, size in sizes.items() if axis != main and size > 1)] if main else []
    tables = [(f"by {axis}", term.by(axis), axis == "class") for axis in axes]
    if any(part.by_label() is not None for part in term.parts):
        with contextlib.suppress(ValueError):  # where the shares do not reach down to what has a class
            tables.insert(0, ("by true class", term.by_label(), True))
    out = []
    for k, (title, shares, colored) in enumerate(tables):
        rows = f.share_rows(shares)
        span = _whole([share for _, share in rows])
        order: dict[Hashable, int] = {label: i for i, label in enumerate(shares)}
        title += ", the largest" if len(rows) < len(shares) else ""
        body = []
        for label, share in rows:
            index = order.get(label)
            palette = colored and index is not None and label != UNSPLIT
            color = f.CLASS_COLORS[index % len(f.CLASS_COLORS)] if palette else _color(term)
            color = (
                color if label in shares else "repeating-linear-gradient(135deg,var(--quiet) 0 2px,transparent 2px 5px)"
            )
            missing = "" if math.isfinite(share) else ' class="x"'
            body.append(
                f"<tr><th scope=row>{_safe(label)}</th> <td{missing}>{column(share)}</td>"
                f" <td>{f.percent(share, report.total)}</td> <td>{_bar(share, span, color)}</td></tr>"
            )
        fold = "" if k else " open"
        out += [f"<details{fold}><summary>{_safe(title)}</summary><table><tbody>", *body, "</tbody></table></details>"]
    return out


def _grid(part: Part, column: f.Column) -> list[str]:
    """Every element and its share, for small parts: the last axis runs to the right, all others down."""
    shape = part.contributions.shape
    if not shape or not 1 < part.contributions.size <= GRID or part.elements.shape != shape:
        return []
    shares = part.contributions.reshape(-1, shape[-1])
    elements = part.elements.reshape(shares.shape)
    exact = f.Column.of(elements.ravel().tolist())
    top = max((abs(v) for v in shares.ravel().tolist() if math.isfinite(v)), default=0.0) or 1.0
    head = "".join(f"<th scope=col>{_safe(f.label_text(part.axes[-1], v))}</th>" for v in part.labels[-1])
    body = []
    for index, (row, below) in enumerate(zip(shares.tolist(), elements.tolist())):
        place = np.unravel_index(index, shape[:-1]) if len(shape) > 1 else ()
        title = ", ".join(f.label_text(axis, part.labels[k][place[k]]) for k, axis in enumerate(part.axes[:-1]))
        cells = []
        for share, element in zip(row, below):
            level = round(10 * abs(share) / top) if math.isfinite(share) else 0
            mark = "x" if not math.isfinite(share) else "z" if share == 0 else "m" if share < 0 else ""
            attributes = (f' class="{mark}"' if mark else "") + (f' style="--a:{level}"' if level else "")
            cells.append(f"<td{attributes}>{column(share)} <small>{exact(element)}</small></td>")
        body.append(f"<tr><th scope=row>{_safe(title)}</th> {' '.join(cells)}</tr>")
    caption = "each share of the loss, and below it the element loss"
    if np.any(shares == 0):
        caption += "; hatched: a share of exactly zero (masked, weight 0, or no error)"
    return [
        f'<details><summary>elements</summary><div class="o" tabindex=0><table class="g"><caption>{caption}</caption>',
        f"<thead><tr><td></td>{head}</tr></thead><tbody>",
        *body,
        "</tbody></table></div></details>",
    ]


def _color(term: Term) -> str:
    return f"var(--{term.kind if term.kind in f.KIND_COLORS else 'ink'})"


def _span(shares: list[float], single: bool = False) -> tuple[float, float]:
    """Where bars begin and end: the extent of the running sum of `shares`, or, with `single`, of each alone."""
    known = [share for share in shares if math.isfinite(share)]
    ends = known if single else np.cumsum(known).tolist()
    return min([0.0, *ends]), max([0.0, *ends])


def _whole(shares: list[float]) -> tuple[float, float]:
    """Where bars of shares begin and end that together fill one track; their own extent where some are negative."""
    known = [share for share in shares if math.isfinite(share)]
    return _span(known) if all(share >= 0 for share in known) else _span(known, single=True)


def _bar(share: float, span: tuple[float, float], color: str, start: float = 0.0) -> str:
    """A bar from `start` to `start + share`, as parts of `span`; nothing in it where that cannot be drawn."""
    low, high = span
    if not math.isfinite(share) or high == low:
        return _EMPTY
    left = 100 * (min(start, start + share) - low) / (high - low)
    width = 100 * abs(share) / (high - low)
    less = ' class="m"' if share < 0 else ""
    return f'<span class="b"><i{less} style="margin-left:{left:.1f}%;width:{width:.1f}%;background:{color}"></i></span>'


def _safe(text: object) -> str:
    return escape(f.clean(text), quote=True)
