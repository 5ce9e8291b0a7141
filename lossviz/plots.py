"""Draws a `Report` with matplotlib. Every function takes `ax=` and returns the Axes it drew on.

With `ax` given nothing else is touched: no pyplot, no current figure. Without it each makes a figure of its
own in the package's style. The style file also stands alone: `matplotlib.style.use(lossviz.plots.STYLE)`.
What has a method `to_report`, such as a reduction of `lossviz.regimes`, is drawn as that report.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from lossviz.report import formatting as f
from lossviz.report.formatting import (
    AXIS_COLORS,
    CLASS_COLORS,
    INK,
    KIND_COLORS,
    LINE,
    MUTED,
    OTHER_AXIS_COLOR,
    QUIET,
)
from lossviz.report.records import UNSPLIT, Balance, Part, Step, Term

__all__ = ["AXIS_COLORS", "CLASS_COLORS", "KIND_COLORS", "STYLE"]
__all__ += ["bars", "cascade", "describe", "film", "heatmap", "waterfall"]

#: Path of the style file, for `matplotlib.style.use` or `matplotlib.style.context`.
STYLE = Path(__file__).with_name("lossviz.mplstyle")
#: Colour maps of shares: light is 0. Both are safe for colour-blind eyes.
SEQUENTIAL = ListedColormap(matplotlib.colormaps["magma_r"](np.linspace(0.0, 0.88, 256)), "lossviz")
DIVERGING = matplotlib.colormaps["RdBu_r"]
#: Colour of NaN and infinity in heat maps: no part of either colour map.
NAN_COLOR = "#00B3A4"
#: Colour of the words NaN and inf.
BAD = "#A61B1B"
#: The box of the number at the end of a cascade.
RESULT = "#26323D"
#: Text on a coloured ground, which no theme changes (`INK` may follow it).
ON_DATA = "#1F2932"

_ROW, _TALL_ROW = 0.36, 0.46  # inches per bar, and where its name has a second line
_BOX = 0.56  # height of a cascade's boxes, in its own units


def waterfall(
    report: Balance, by: str | None = None, term: str | None = None, ax: Axes | None = None, max_display: int = 10
) -> Axes:
    """The loss as a running sum from 0 to the total, largest share first, each bar labelled with its number.

    Without `by` there is one bar per term, with its kind where there are several, and one for a residual beyond
    rounding; with `by` the bars are the shares of one term along that axis (`term` as in `Report.by`) and the last bar
    is the term. Beyond `max_display` bars
    the smallest are one bar "N others". Negative shares run back, hatched. A share that is NaN or infinite
    has its label and no bar. Per cents are of the sum of all shares.
    """
    report = f.as_report(report)
    if max_display < 1:
        raise ValueError(f"max_display must be 1 or more, got max_display={max_display}.")
    if by is None:
        if term is not None:
            raise ValueError(f"waterfall(term={term!r}) needs by=, the axis along which the term is split.")
        kinds = {k: one.kind for k, one in enumerate(report.terms)}
        rows = f.share_rows({k: t.contribution for k, t in enumerate(report.terms)}, max_display, max_display - 1, True)
        names = [f.clean(report.terms[k].name) if k in kinds else k for k, _ in rows]
        colors = [KIND_COLORS.get(kinds.get(k, ""), MUTED) for k, _ in rows]
        words = [kinds[k].replace("_", " ") if k in kinds else "" for k, _ in rows]
        if not abs(report.residual) <= f.allowed(report):
            rows.append((None, report.residual))
            names.append("residual")
            colors.append(MUTED)
        end, end_name, title = report.reported, "loss", "The loss, term by term"
    else:
        one = report._one_term(by, term)
        shares = one.by(by)
        rows = f.share_rows(shares, max_display, max_display - 1, True)
        names = [f.label_text(by, label) if label in shares else str(label) for label, _ in rows]
        colors = _colors(by, one.kind, shares, [label for label, _ in rows])
        end, end_name, title = one.contribution, f.clean(one.name), f"{f.clean(one.name)}, by {f.clean(by)}"

    values = [share for _, share in rows]
    column = f.Column.of([*values, end])
    texts = [column(value) for value in values]
    percents = [f.percent(value, report.total) for value in values]
    if rows and rows[-1][0] is None:
        texts[-1], percents[-1] = f.residual_text(report, column), ""
    starts = np.concatenate([[0.0], np.cumsum([v if math.isfinite(v) else 0.0 for v in values])])
    last = end if math.isfinite(end) else math.nan

    count = len(values) + 1
    told = words if by is None and len({*words} - {""}) > 1 else []
    with matplotlib.style.context(STYLE):
        ax = ax or _axes((_TALL_ROW if told else _ROW) * count + 0.75)
        for k, (value, color) in enumerate(zip(values, colors)):
            _bar(ax, k, starts[k], value, color)
        _bar(ax, count - 1, 0.0, last, INK)
        extent = starts.max() - starts.min()
        for k, value in enumerate(values):
            drawn = math.isfinite(value) and abs(value) > 0.005 * extent
            top = k + 0.32 if drawn else k - 0.32  # a share too small to see is a tick
            ax.plot([starts[k + 1]] * 2, [top, k + 0.68], color=QUIET, linewidth=0.8, zorder=1)
        percents.append(f.percent(end, report.total))
        low, high = min([*starts, 0.0 if math.isnan(last) else last]), max([*starts, 0.0 if math.isnan(last) else last])
        _finish(ax, [*names, end_name], [*texts, column(end)], percents, low, high, title, bold=(count - 1,))
        ax.axhline(count - 1.5, color=LINE, linewidth=0.8, zorder=0)
        for k, word in enumerate(told):
            _kind_below(ax, k, word)
    return ax


def bars(
    shares: Mapping[Hashable, float],
    ax: Axes | None = None,
    *,
    total: float | None = None,
    beside: Iterable[float] = (),
    axis: str = "",
    highlight: Hashable | Sequence[Hashable] | None = None,
    colors: Sequence[str] | None = None,
    max_display: int = 16,
    title: str = "",
) -> Axes:
    """Horizontal bars of a `by()` dictionary in its own order, each labelled with its number and per cent.

    Per cents are of `total`, by default the sum of `shares`. `beside` are the numbers of bars on other axes of the
    figure: all have the same decimals then, and stand in line. `axis` names whole-number labels ("class 3").
    Labels in `highlight` keep their colour and the others turn grey. `colors` is one colour a label (default: the
    class colours up to eight labels, one colour beyond). Beyond `max_display` labels the largest stay and the rest is
    one bar "N others".
    """
    shares = dict(shares)
    rows = f.share_rows(shares, max_display, max_display - 1)
    if colors is None:
        palette = CLASS_COLORS if len(shares) <= len(CLASS_COLORS) else (KIND_COLORS["output"],)
        colors = [palette[k % len(palette)] for k in range(len(shares))]
    elif len(colors) != len(shares):
        raise ValueError(f"colors has {len(colors)} colours for {len(shares)} labels.")
    own = dict(zip(shares, colors))
    wanted = None if highlight is None else _listed(highlight, list(shares))
    total = float(sum(shares.values())) if total is None else total
    values = [share for _, share in rows]
    beside = list(beside)
    column = f.Column.of([*values, *beside])
    with matplotlib.style.context(STYLE):
        ax = ax or _axes(_ROW * len(rows) + (0.75 if title else 0.35))
        for k, (label, value) in enumerate(rows):
            color = own.get(label, MUTED) if wanted is None or label in wanted else MUTED
            _bar(ax, k, 0.0, value, MUTED if label == UNSPLIT else color)
        known = [value for value in values if math.isfinite(value)]
        names = [f.label_text(axis, label).strip() if label in shares else str(label) for label, _ in rows]
        percents = [f.percent(value, total) for value in values]
        bold = [k for k, (label, _) in enumerate(rows) if wanted is not None and label in wanted]
        room = max((len(column(value)) for value in beside), default=0)
        texts, low, high = [column(v) for v in values], min([0.0, *known]), max([0.0, *known])
        _finish(ax, names, texts, percents, low, high, title, bold, room)
    return ax


def heatmap(
    report: Balance,
    term: str | None = None,
    axes: tuple[str, str] = ("row", "col"),
    ax: Axes | None = None,
    *,
    at: Mapping[str, Hashable] | None = None,
    limit: float | None = None,
    decimals: int | None = None,
    colorbar: bool = True,
) -> Axes:
    """Exact shares summed to two named axes: the first runs down, the second to the right.

    `at` picks one position along other axes by its label, `at={"batch": 3, "class": "road"}`; everything
    else is summed. `limit` fixes the largest absolute share of the colours, so that several maps compare.
    Colours begin at 0; where shares are negative they diverge from 0. NaN and infinity stand in one colour
    that the map does not hold. Up to 64 cells are labelled, with `decimals` decimals (default: as many as the total of
    five digits has): fewer, and the same in each, where maps stand beside each other. What has no place on these axes
    is named in the title.
    """
    report = f.as_report(report)
    one = report._one_term(tuple(axes), term)
    one.by(tuple(axes))  # raises for an unknown axis, naming those there are
    shares, labels = _plane(one, tuple(axes), dict(at or {}))
    rest = one.by(tuple(axes)).get(UNSPLIT, 0.0) if not at else 0.0
    good = shares[np.isfinite(shares)]
    low, high = (float(good.min()), float(good.max())) if good.size else (0.0, 0.0)
    top = limit or max(abs(low), abs(high)) or 1.0
    column = f.Column.of([*good.tolist(), float(good.sum())])
    cells = column if decimals is None else f.Column(decimals)
    with matplotlib.style.context(STYLE):
        rows, cols = shares.shape
        square = set(axes) <= {"row", "col"}
        height = 3.25 * rows / cols + 0.95 if square else (0.5 if shares.size <= 64 else 0.3) * rows + 1.0
        ax = ax or _axes(min(7.0, max(1.9, height)))
        cmap = (DIVERGING if low < 0 else SEQUENTIAL).with_extremes(bad=NAN_COLOR)
        image = ax.imshow(
            np.ma.masked_invalid(shares),
            cmap=cmap,
            vmin=-top if low < 0 else 0.0,
            vmax=top,
            interpolation="none",
            aspect="equal" if square else "auto",
        )
        for axis, name, size, own in ((ax.yaxis, axes[0], rows, labels[0]), (ax.xaxis, axes[1], cols, labels[1])):
            axis.set_label_text(f.clean(name))
            if size <= f.FEW:
                axis.set_ticks(range(size), [f.clean(label) for label in own])
            else:
                ticks = range(0, size, math.ceil(size / 8))
                axis.set_ticks(list(ticks), [f.clean(own[k]) for k in ticks])
            axis.set_tick_params(length=0)
        ax.spines[:].set_visible(False)
        if shares.size <= 64:
            for (i, j), share in np.ndenumerate(shares):
                color = _ink_on(cmap(image.norm(share)) if math.isfinite(share) else NAN_COLOR)
                number = _minus(cells(share)) if share else "0"
                ax.text(j, i, number, ha="center", va="center", color=color, fontsize=10.5)
        total = float(shares.sum())
        where = "".join(f", {f.label_text(axis, label)}" for axis, label in (at or {}).items())
        names = " and ".join(f.clean(axis) for axis in axes)
        title = f"{f.clean(one.name)}{where}: {_minus(column(total))} by {names}"
        bad = shares.size - good.size
        title += f"\n{bad} of {shares.size} cells are NaN or infinite" if bad else ""
        title += f"\n{_minus(column(rest))} more has no place on these axes" if rest else ""
        ax.set_title(title)
        if colorbar:
            bar = ax.figure.colorbar(image, ax=ax, pad=0.03)
            bar.set_label("share of the loss")
            bar.outline.set_visible(False)
        _literal(ax)
    return ax


def cascade(report_or_term: Balance | Term, ax: Axes | None = None, *, part: int | None = None) -> Axes:
    """How a tensor of element losses becomes the number: one row of boxes a step, one box an axis.

    Read it downwards. Each axis has a column and a colour, and its column ends at the step that removes it;
    between two rows stand the operation and its divisor. The last row is the number. Give a term, or a report
    with a single output. Of a term with several parts it draws the largest, or number `part` (from 0).
    """
    report_or_term = f.as_report(report_or_term)
    term = _only_term(report_or_term)
    index = _largest(term) if part is None else part
    if not 0 <= index < len(term.parts):
        raise ValueError(f"part={part} is not a part of term {term.name!r}, which has {len(term.parts)}: 0, 1, ...")
    chosen = term.parts[index]
    levels, arrows, before, factors = _levels(chosen, term)
    numbers = _numbers(chosen, levels, factors)
    names = list(dict.fromkeys(name for level in levels for name in level))
    width = max(2, len(names))
    place = {name: k + (width - len(names)) / 2 for k, name in enumerate(names)}
    with matplotlib.style.context(STYLE):
        points = 72 * matplotlib.rcParams["figure.figsize"][0]
        unit = 0.97 * points / width  # points a column is wide
        before = [_balance(text, int(points / 6.4)) for text in before]
        arrows = [_balance(text, int(points / 6.4)) for text in arrows]
        head = sum(0.12 + 0.28 * (1 + text.count("\n")) for text in before)
        gaps = [0.42 + 0.28 * (1 + text.count("\n")) for text in arrows]
        tops = head + np.concatenate([[0.0], np.cumsum([_BOX + gap for gap in gaps])])
        title = _balance(_cascade_title(term, chosen, index, _alone(report_or_term)), 47)
        ax = ax or _axes(0.62 * (tops[-1] + _BOX + 0.1) + 0.2 + 0.2 * (1 + title.count("\n")))
        if before:
            _words(ax, width / 2, head / 2 - 0.04, "\n".join(before), 10.5)
        column = f.Column.of([term.contribution, chosen.contribution])
        for level, below, top, gap, arrow, number in zip(levels, levels[1:], tops, gaps, arrows, numbers):
            for name, size in level.items():
                _axis_box(ax, name, size, place[name], top, unit)
                _link(ax, place[name] + 0.5, top + _BOX, 0.14 if name not in below else gap, name not in below)
            if not level:
                _number(ax, width, top, "one number" if number is None else number, MUTED, INK)
            gone = [place[name] + 0.5 for name in level if name not in below]
            half = 0.5 * 6.3 * max(map(len, arrow.split("\n"))) / unit
            middle = sum(gone) / len(gone) if gone else width / 2
            middle = min(max(middle, half), max(half, width - half))
            _words(ax, middle, top + _BOX + (0.12 + gap) / 2, arrow, 10.5, halo=True)
        _number(ax, width, tops[-1], _minus(column(chosen.contribution)), RESULT, "white")
        if isinstance(report_or_term, Balance):
            share = _minus(f.percent(chosen.contribution, report_or_term.total))
            remark = "" if share in ("", "100.0 %") else f"{share} of\nthe loss"
            ax.text(0.72 * width, tops[-1] + _BOX / 2, remark, va="center", color=QUIET, fontsize=10)
        ax.set(xlim=(-0.02, width + 0.02), ylim=(tops[-1] + _BOX + 0.05, -0.05))
        ax.set_axis_off()
        ax.set_title(title)
        _literal(ax)
    return ax


def film(
    history: Any,
    ax: Axes | None = None,
    *,
    validation: bool = False,
    until: int | None = None,
    highlight: Hashable | Sequence[Hashable] | None = None,
    colors: Mapping[str, str] | None = None,
    before: Mapping[Hashable, float] | None = None,
    prefix: str = "",
    title: str = "",
) -> Axes:
    """The parts of the loss over the epochs of a training, as layers that are as high as the loss together.

    `history` is what `model.fit(..., callbacks=[lossviz.LossParts(per_class=True)])` returns, or its `.history`. The
    layers are the finest parts that it holds: true classes, else outputs, else the data loss; then regularisation and
    added losses. A part that is always 0 is left out, one below 0 lies below the zero line. At the right stands the per
    cent of each in the last epoch that is drawn.

    `validation` takes the parts of the validation loss. `before` is what the parts were before the training, such as
    `report.by_label()`, and stands as epoch 0. Parts in `highlight` lie at the bottom and keep their colour, the
    others turn grey. `colors` gives parts their colours, and their order from below (default: the class colours, in
    the order of the history). `prefix` is that of `LossParts`. `until` draws the first epochs only, in the frame of
    all, for an animation:

        from matplotlib.animation import FuncAnimation

        ax = plots.film(history)
        epochs = len(history.epoch)
        FuncAnimation(ax.figure, lambda k: (ax.clear(), plots.film(history, ax, until=k + 1)), epochs)

    Raises ValueError where the history holds no parts, or `highlight`, `colors` or `until` do not fit them.
    """
    parts, plain = _parts_over_time(getattr(history, "history", history), ("val_" if validation else "") + prefix)
    if unknown := [name for name in colors or () if name not in parts]:
        raise ValueError(f"colors names {unknown[0]!r}, which is not among the parts {list(parts)}.")
    if unknown := [name for name in before or () if name not in parts]:
        raise ValueError(f"before names {unknown[0]!r}, which is not among the parts {list(parts)}.")
    own = dict(zip(plain, (CLASS_COLORS if len(plain) > 1 else (KIND_COLORS["output"],)) * len(plain)))
    own |= colors or {}
    parts = {name: parts[name] for name in (*(colors or ()), *parts)}
    if before is not None:
        parts = {name: np.concatenate([[before.get(name, 0.0)], values]) for name, values in parts.items()}
    first = 1 if before is None else 0
    wanted = _listed(highlight, list(parts)) if highlight is not None else list(parts)
    order = sorted(parts, key=lambda name: name not in wanted)  # what matters stands on the zero line
    count = len(next(iter(parts.values())))
    last = count - 1 + first
    if until is not None and not 1 <= until <= last:
        raise ValueError(f"until={until}, but the history has {last} epochs: give 1 to {last}.")
    shown = count if until is None else until + 1 - first
    epochs = np.arange(first, last + 1) if count > 1 else np.array([0.5, 1.5])
    values = {name: parts[name] if count > 1 else np.repeat(parts[name], 2) for name in order}
    above, below = (np.cumsum([clip(values[name], 0.0) for name in order], 0) for clip in (np.maximum, np.minimum))
    total = sum(parts[name][shown - 1] for name in order)
    with matplotlib.style.context(STYLE):
        ax = ax or _axes(3.0)
        upto = slice(0, shown if count > 1 else 2)
        spots = []
        for k, name in enumerate(order):
            color = own.get(name) or KIND_COLORS["regulariser" if name == "regularization" else "add_loss"]
            edges = [np.zeros_like(above[0]) if k == 0 else stack[k - 1] for stack in (above, below)]
            for stack, edge in zip((above, below), edges):
                if np.any(stack[k] != edge):
                    color = color if name in wanted else MUTED
                    look = {"facecolor": color, "edgecolor": matplotlib.rcParams["axes.facecolor"], "linewidth": 0.8}
                    ax.fill_between(epochs[upto], edge[upto], stack[k][upto], zorder=2, gid=f"film-{k}", **look)
            stack, edge = (above[k], edges[0]) if parts[name][shown - 1] >= 0 else (below[k], edges[1])
            spots.append((float(stack[shown - 1] + edge[shown - 1]) / 2, name))
        low, high = min(0.0, float(below[-1].min())), float(above[-1].max()) or 1.0
        ax.set(xlim=(epochs[0], epochs[-1]), ylim=(low, high + 0.02 * (high - low)), xlabel="epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_title(_balance(title, 38) if title else "The loss, part by part")
        if low < 0:
            ax.axhline(0.0, color=QUIET, linewidth=0.8, zorder=3)
        for place, (_, name) in zip(_apart([spot for spot, _ in sorted(spots)], 0.085 * (high - low)), sorted(spots)):
            words = f"{name} {_minus(f.percent(parts[name][shown - 1], total))}".strip()
            weight = "bold" if highlight is not None and name in wanted else "normal"
            style = {"va": "center", "weight": weight, "fontsize": 10.5, "color": INK, "annotation_clip": False}
            ax.annotate(words, (1, place), (6, 0), ("axes fraction", "data"), "offset points", **style)
        _literal(ax)
    return ax


def describe(report: Balance, by: str | None = None, term: str | None = None, top: int = 3) -> str:
    """One sentence with a figure's message, for its alternative text: the number and its largest shares."""
    report = f.as_report(report)
    if by is None:
        shares: dict[Hashable, float] = {f.clean(t.name): t.contribution for t in report.terms}
        what, whole, kind = "The loss", report.reported, "term"
    else:
        one = report._one_term(by, term)
        shares = {f.label_text(by, label): share for label, share in one.by(by).items()}
        what, whole, kind = f"The share of {f.clean(one.name)} in the loss", one.contribution, by
    column = f.Column.of([whole, *shares.values()])
    rows = f.share_rows(shares, top + 1, top, ordered=True)
    parts = []
    for label, share in rows:
        percent = f.percent(share, report.total)
        parts.append(f"{label} {_minus(column(share))}" + (f" ({_minus(percent)} of the loss)" if percent else ""))
    return f"{what} is {_minus(column(whole))}; by {kind}: {', '.join(parts) or 'nothing'}."


def _parts_over_time(logs: Mapping[str, Sequence[float]], head: str) -> tuple[dict[str, np.ndarray], list[str]]:
    """The finest parts of the loss that the logs of `LossParts` hold, name -> one value per epoch, without those that
    are always 0; and the names of those of the data loss.
    """
    kinds = ("data_loss", "regularization", "add_loss")
    names = [name[len(head) :] for name in logs if name.startswith(head)]
    names = [name for name in names if name.partition("/")[0] in kinds]
    leaves = [name for name in names if not any(other.startswith(f"{name}/") for other in names)]
    if not leaves:
        raise ValueError(
            f"this history holds no parts of the loss ({head}data_loss, ...), but {sorted(logs)}: train with "
            "model.fit(..., callbacks=[lossviz.LossParts(per_class=True)])."
        )
    data = {name: name.removeprefix("data_loss/") for name in leaves if name.startswith("data_loss")}
    parts = {data.get(name, name): np.asarray(logs[head + name], float) for name in leaves}
    if not all(f.finite(values.tolist()) for values in parts.values()):
        raise ValueError("a part of the loss is NaN or infinite: lossviz.find_nonfinite says where that begins.")
    parts = {name: values for name, values in parts.items() if np.any(values)} or parts
    return parts, [name for name in data.values() if name in parts]


def _listed(highlight: Hashable | Sequence[Hashable], known: list) -> list:
    """`highlight` as a list, each of which is known."""
    one = isinstance(highlight, (str, tuple)) or not isinstance(highlight, Sequence)
    wanted = [highlight] if one else list(highlight)
    if unknown := [label for label in wanted if label not in known]:
        raise ValueError(f"highlight {unknown[0]!r} is not among the labels {known}.")
    return wanted


def _apart(places: Sequence[float], gap: float) -> list[float]:
    """`places`, which rise, moved as little as is simple so that neighbours are at least `gap` apart."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + gap) if moved else place)
    over = (moved[-1] - max(places[-1], places[0] + gap * (len(places) - 1))) if places else 0.0
    for k in reversed(range(len(moved))):
        moved[k] = min(moved[k], moved[k + 1] - gap) if k + 1 < len(moved) else moved[k] - over
    return moved


def _axes(height: float) -> Axes:
    """New axes on a figure of their own, `height` inches high."""
    import matplotlib.pyplot as plt

    width = matplotlib.rcParams["figure.figsize"][0]
    return plt.subplots(figsize=(width, height))[1]


def _bar(ax: Axes, row: int, start: float, value: float, color: str) -> None:
    """One bar from `start` to `start + value`; hatched where negative, invisible where not finite."""
    length = value if math.isfinite(value) else 0.0
    style = {"facecolor": color} if length >= 0 else {"facecolor": _pale(color), "edgecolor": color, "hatch": "////"}
    ax.add_patch(Rectangle((start, row - 0.32), length, 0.64, linewidth=0.8 if length < 0 else 0, zorder=2, **style))


def _finish(
    ax: Axes,
    names: list[str],
    texts: list[str],
    percents: list[str],
    low: float,
    high: float,
    title: str,
    bold: Sequence[int] = (),
    letters: int = 0,
) -> None:
    """Names left of the rows, numbers and per cents in columns right of them, nothing else but the zero line.

    The column of the numbers has room for `letters` at least.
    """
    room = (high - low) or 1.0
    ax.set(xlim=(low - 0.01 * room, high + 0.02 * room), ylim=(len(names) - 0.45, -0.55))
    ax.set_yticks(range(len(names)), [_short(name) for name in names])
    ax.tick_params(axis="y", length=0)
    ax.set_xticks([])
    ax.spines[:].set_visible(False)
    ax.axvline(0.0, color=QUIET, linewidth=0.8, zorder=3)
    texts, percents = [_minus(text) for text in texts], [_minus(percent) for percent in percents]
    size = matplotlib.rcParams["font.size"]
    first = 10 + 0.64 * size * max([letters, *map(len, texts)])
    second = first + 0.64 * size * max(map(len, percents), default=0) + 6
    for k, (text, percent) in enumerate(zip(texts, percents)):
        weight = "bold" if k in bold else "normal"
        color = BAD if text.lstrip("\N{MINUS SIGN}") in ("NaN", "inf") else INK
        for x, words, style in ((first, text, {"weight": weight, "color": color}), (second, percent, {"color": QUIET})):
            ax.annotate(
                words, (1, k), (x, 0), ("axes fraction", "data"), "offset points", va="center", ha="right", **style
            )
        ax.get_yticklabels()[k].set_fontweight(weight)
    if title:
        ax.set_title(_balance(title, 38))
    _literal(ax)


def _kind_below(ax: Axes, row: int, word: str) -> None:
    """The kind of a term in quiet words below its name."""
    if word:
        name = ax.get_yticklabels()[row]
        name.set_verticalalignment("bottom")
        place = {"xytext": (-3.5, 0), "textcoords": "offset points", "ha": "right", "va": "top"}
        ax.annotate(word, (0, row), xycoords=("axes fraction", "data"), color=QUIET, fontsize=name.get_size(), **place)


def _colors(axis: str, kind: str, shares: Mapping[Hashable, float], labels: list[Hashable]) -> list[str]:
    """Class colours by position in the dictionary along "class"; elsewhere the colour of the term's kind."""
    order = {label: k for k, label in enumerate(shares)}
    plain = KIND_COLORS.get(kind, MUTED)
    if axis != "class" or len(shares) > len(CLASS_COLORS) + 1:
        return [plain if label in order and label != UNSPLIT else MUTED for label in labels]
    return [
        CLASS_COLORS[order[label] % len(CLASS_COLORS)] if label in order and label != UNSPLIT else MUTED
        for label in labels
    ]


def _plane(term: Term, axes: tuple[str, ...], at: dict[str, Hashable]) -> tuple[np.ndarray, list[tuple]]:
    """Shares of all parts that have `axes` and the axes of `at`, summed to `axes`; and the labels of `axes`."""
    total, labels = None, []
    for part in term.parts:
        if (view := part.view([*axes, *at])) is None:
            continue
        array, names = view.contributions, list(view.axes)
        for axis, label in at.items():
            k = names.index(axis)
            own = list(view.labels[view.axes.index(axis)])
            if label not in own:
                raise ValueError(f"at={{{axis!r}: {label!r}}}: {label!r} is not a label of axis {axis!r}: {own}.")
            array = np.take(array, own.index(label), axis=k)
            del names[k]
        summed = np.sum(array, axis=tuple(k for k, name in enumerate(names) if name not in axes))
        left = [name for name in names if name in axes]
        array = np.transpose(summed, [left.index(name) for name in axes])
        total = array if total is None else total + array
        labels = [view.labels[view.axes.index(name)] for name in axes]
    if total is None:
        raise ValueError(f"no part of term {term.name!r} has the axes {(*axes, *at)} together.")
    return total, labels


def _only_term(report_or_term: Balance | Term) -> Term:
    if isinstance(report_or_term, Term):
        term = report_or_term
    else:
        outputs = [term for term in report_or_term.terms if term.kind == "output"] or list(report_or_term.terms)
        if len(outputs) != 1:
            names = [term.name for term in outputs]
            raise ValueError(f"this report has {len(outputs)} terms {names}. Say which: cascade(report.term(name)).")
        term = outputs[0]
    if not term.parts:
        raise ValueError(f"term {term.name!r} has no parts, so there is no cascade to draw.")
    return term


def _largest(term: Term) -> int:
    sizes = [part.contribution for part in term.parts]
    return int(np.argmax([abs(size) if math.isfinite(size) else math.inf for size in sizes]))


def _levels(part: Part, term: Term) -> tuple[list[dict[str, int]], list[str], list[str], list[float | None]]:
    """What stands in each row of a cascade (axis -> size; an unnamed axis as NUL and its place), the words
    between the rows, those before the first, and by what each step multiplies the sum of a row (None: unknown).

    The first row are the element losses. An empty row is one number, as the last one is. Remarks and the
    addition of the terms have no place in a cascade.
    """
    names = [step.op for step in part.steps]
    start = names.index("element loss") if "element loss" in names else -1
    before = [f.step_label(step) for step in part.steps[: max(start, 0)]]
    shapes = f.stages(part)
    first = shapes[start] if start >= 0 else (part.axes, part.elements.shape)
    levels, arrows, factors = [_level(*first)], [], []
    for step, shape in list(zip(part.steps, shapes))[start + 1 :]:
        if step.op not in ("note", "add"):
            arrows.append(f.step_label(step))
            factors.append(_factor(step) if levels[-1] or math.prod(step.input_shape) == 1 else None)
            levels.append(_level(*shape))
    said = any("loss weight" in step.text or "loss_weight" in step.text for step in part.steps)
    if term.loss_weight != 1 and not said:
        arrows.append(f"\N{MULTIPLICATION SIGN} loss weight {f.plain(term.loss_weight)}")
        levels.append({})
        factors.append(term.loss_weight)
    if levels[-1]:
        arrows.append("sum of the shares")
        levels.append({})
        factors.append(1.0)
    return levels, arrows, before, factors


def _factor(step: Step) -> float | None:
    """By what a step multiplies the sum of what goes in; None where that is not the same for every element, or where
    it divides by zero."""
    spread = math.prod(step.output_shape) > math.prod(step.input_shape)
    if spread or step.divisor == 0 or (step.factor is None and step.divisor is None and step.op != "sum"):
        return None
    return (1.0 if step.factor is None else step.factor) / (1.0 if step.divisor is None else step.divisor)


def _numbers(part: Part, levels: list[dict[str, int]], factors: list[float | None]) -> list[str | None]:
    """What a row that is one number holds, as text: from the end, or else from the sum of the element losses."""
    found: list[float | None] = [None] * len(levels)
    found[-1] = part.contribution
    for k in reversed(range(len(factors))):
        factor, after = factors[k], found[k + 1]
        if levels[k] or not factor or after is None:
            break
        found[k] = after / factor
    whole = part.elements.size == math.prod(levels[0].values())
    running = float(np.sum(part.elements)) if whole else None
    for k, factor in enumerate(factors):
        running = None if running is None or factor is None else running * factor
        if found[k + 1] is None and not levels[k + 1]:
            found[k + 1] = running
    return [None if number is None else _minus(f.Column.of([number])(number)) for number in found]


def _level(names: Sequence[str], sizes: Sequence[int]) -> dict[str, int]:
    return {name or f"\0{k}": size for k, (name, size) in enumerate(zip(names, sizes))}


def _alone(report_or_term: Balance | Term) -> bool:
    """Whether the loss has one term only, so that its name tells nothing."""
    return not isinstance(report_or_term, Term) and len(report_or_term.terms) == 1


def _cascade_title(term: Term, part: Part, index: int, alone: bool) -> str:
    shapes = [step.output_shape for step in part.steps if step.op == "element loss"]
    count = math.prod(shapes[0]) if shapes else part.elements.size
    which = f" (part {index + 1} of {len(term.parts)})" if len(term.parts) > 1 else ""
    title = "one number" if count == 1 else f"from {f.plain(count)} element losses to one number"
    return (title[0].upper() + title[1:] if alone else f"{f.clean(term.name)}: {title}") + which


def _axis_box(ax: Axes, name: str, size: int, x: float, y: float, unit: float) -> None:
    """The box of one axis: its name and size, on two lines where the column is narrow. An axis of size 1 is faint."""
    _box(ax, x + 0.04, y, 0.92, AXIS_COLORS.get(name, OTHER_AXIS_COLOR), alpha=0.4 if size == 1 else None)
    shown = "" if name.startswith("\0") else f.clean(name)
    narrow = 6.8 * len(f"{shown} {size}") > 0.9 * unit
    text = f"{shown}\n{size}" if narrow else f"{shown} {size}"
    color = QUIET if size == 1 else INK
    _words(ax, x + 0.5, y + _BOX / 2, text.strip(), 10 if narrow else 11, linespacing=1.05, color=color)


def _link(ax: Axes, x: float, y: float, length: float, ends: bool) -> None:
    """The line down from an axis: to the next row, or to a bar across where the axis ends."""
    ax.plot([x, x], [y, y + length], color=QUIET if ends else LINE, linewidth=1.6, zorder=0)
    if ends:
        ax.plot([x - 0.1, x + 0.1], [y + length] * 2, color=QUIET, linewidth=1.6, zorder=0)


def _box(ax: Axes, x: float, y: float, width: float, color: str, alpha: float | None = None) -> None:
    style = "round,pad=0,rounding_size=0.07"
    ax.add_patch(
        FancyBboxPatch((x, y), width, _BOX, boxstyle=style, facecolor=color, linewidth=0, zorder=2, alpha=alpha)
    )


def _number(ax: Axes, width: float, y: float, text: str, color: str, ink: str) -> None:
    """The box of one number, in the middle of a cascade."""
    _box(ax, 0.3 * width, y, 0.4 * width, color)
    _words(ax, width / 2, y + _BOX / 2, text, 13, color=ink, weight="bold")


def _words(ax: Axes, x: float, y: float, text: str, size: float, halo: bool = False, **more) -> None:
    back = {"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 2.5} if halo else None
    ax.text(x, y, text, ha="center", va="center", fontsize=size, zorder=4, bbox=back, **more)


def _pale(color: str) -> tuple[float, ...]:
    return tuple(1 - 0.35 * (1 - channel) for channel in to_rgb(color))


def _balance(text: str, width: int) -> str:
    """`text` on as few lines of at most `width` characters as it needs, all about as long."""
    lines = len(textwrap.wrap(text, width))
    for narrow in range(max(1, len(text) // max(lines, 1)), width + 1):
        pieces = textwrap.wrap(text, narrow, break_on_hyphens=False)
        if len(pieces) <= lines:
            return "\n".join(pieces)
    return textwrap.fill(text, width)


def _literal(ax: Axes) -> None:
    """Names are names: a dollar sign in one begins no formula."""
    for text in ax.findobj(Text):
        text.set_parse_math(False)


def _short(name: str, limit: int = 26) -> str:
    return name if len(name) <= limit else f"{name[: limit // 2 - 1]}…{name[-(limit // 2) :]}"


def _ink_on(color) -> str:
    """White or `ON_DATA`, whichever stands out more from `color`. https://www.w3.org/TR/WCAG22/#dfn-contrast-ratio"""

    def luminance(color) -> float:
        channels = np.array(to_rgb(color))
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    ground = luminance(color) + 0.05
    return "white" if 1.05 / ground > ground / (luminance(ON_DATA) + 0.05) else ON_DATA


def _minus(text: str) -> str:
    """Hyphens that are minus signs as minus signs, also in exponents."""
    return text.replace("-", "\N{MINUS SIGN}")
