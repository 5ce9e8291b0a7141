"""What the three writers share: numbers, shapes and labels as words, and which colour means what.

Nothing here changes a share; nothing here imports matplotlib.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lossviz.report.difference import Change, Difference
from lossviz.report.escape import clean
from lossviz.report.findings import Finding
from lossviz.report.records import UNSPLIT, Balance, Part, Step, Term

#: Colours of classes, in label order; they repeat. The first five are those of the book's scenes (paper, blue, red
#: and green pen, pencil: `lossviz.examples.CLASS_COLORS`). Told apart also by colour-blind eyes; see the tests.
CLASS_COLORS = ("#D9C9A3", "#0072B2", "#CC4411", "#009E73", "#55535A", "#CC79A7", "#E69F00", "#56B4E9")
#: Colours of terms by kind: quieter than the classes, so that the two are not taken for each other.
KIND_COLORS = {"output": "#34506B", "add_loss": "#A0712B", "regulariser": "#7B8794", "constant": "#B3BAC2"}
#: Pale colours of axes, for the boxes that hold their sizes. Other names take `OTHER_AXIS_COLOR`.
AXIS_COLORS = {
    "batch": "#D9E2EC", "row": "#D3EBDD", "col": "#E0EDC4", "step": "#D3EBDD", "time": "#D3EBDD",
    "depth": "#EBDDF0", "channel": "#EBDDF0", "class": "#FFE0C2",
}  # fmt: skip
OTHER_AXIS_COLOR = "#E9E4DA"
#: Text, quiet text, hairlines, and bars that are not the point.
INK, QUIET, LINE, MUTED = "#1F2933", "#5A6672", "#C9D0D7", "#C3CBD3"

#: Beyond this many labels a share table shows the largest ones and a line "N others".
FEW = 12


@dataclass(frozen=True)
class Column:
    """Writes the numbers of one column alike: the same decimals, so that the printed column adds up.

    The largest number gets `digits` significant digits. A number that would look like zero is written as
    1.2e-06; a column of huge or tiny numbers is written so throughout.
    """

    decimals: int | None
    digits: int = 5

    @classmethod
    def of(cls, values: Iterable[float], digits: int = 5) -> Column:
        sizes = [abs(value) for value in values if math.isfinite(value) and value]
        exponent = math.floor(math.log10(max(sizes, default=1.0)))
        if not -5 <= exponent <= 8:
            return cls(None, digits)
        return cls(max(0, digits - 1 - exponent), digits)

    def __call__(self, value: float) -> str:
        if not math.isfinite(value):
            return not_finite(value)
        if self.decimals is None:
            return f"{value:.{self.digits - 1}e}" if value else "0"
        if value and not round(value, self.decimals):
            return f"{value:.1e}"
        return f"{value + 0.0:.{self.decimals}f}"


def as_report(thing: Any) -> Any:
    """`thing` itself, or the report that it is drawn as (`lossviz.regimes.Reduction`)."""
    return thing.to_report() if hasattr(thing, "to_report") else thing


def not_finite(value: float) -> str:
    """NaN, inf or -inf."""
    return "NaN" if math.isnan(value) else ("inf" if value > 0 else "-inf")


def plain(value: float, digits: int = 5) -> str:
    """A number by itself: integers grouped by thousands (65 536), others with `digits` significant digits."""
    if not math.isfinite(value):
        return not_finite(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\N{NO-BREAK SPACE}")
    return f"{value:.{digits}g}"


def percent(share: float, total: float) -> str:
    """`share` in per cent of `total`; empty where that has no meaning (a total of 0, NaN or infinity)
    or would have five digits."""
    if not (math.isfinite(share) and math.isfinite(total)) or total == 0:
        return ""
    ratio = 100 * share / total
    if not math.isfinite(ratio) or abs(ratio) >= 9999.95:  # beside a loss that small the number itself says more
        return ""
    if 0 < abs(ratio) < 0.05:
        return "<0.1 %" if ratio > 0 else ">-0.1 %"
    return f"{ratio + 0.0:.1f} %"


def residual_text(report: Balance, column: Column) -> str:
    """The residual as printed: its column's decimals while it is rounding, two digits of it where it is not.

    Rounding noise differs between processors; printed to the column's precision it is the same everywhere. What half
    precision makes of a loss is more than that, and is printed.
    """
    residual = report.residual
    if not math.isfinite(residual):
        return not_finite(residual)
    if abs(residual) <= min(allowed(report), 1e-4 * report.magnitude):
        return column(0.0)
    return column(residual) if column.decimals is not None and float(column(residual)) else f"{residual:.1e}"


def allowed(report: Balance) -> float:
    """The largest residual that counts as rounding; NaN where the shares are not finite."""
    scale = report.magnitude
    return report.tolerance * scale if math.isfinite(scale) else math.nan


def verdict(report: Balance) -> tuple[str, str]:
    """The name of the residual's row and the remark at its end: what of it is allowed."""
    limit = allowed(report)
    if not math.isfinite(report.reported) or not math.isfinite(limit):
        same = report.total == report.reported or (math.isnan(report.total) and math.isnan(report.reported))
        return "residual" if same else "residual: the parts differ", "not finite"
    small = abs(report.residual) <= limit
    return "residual" if small else "residual: TOO LARGE", f"allowed {limit:.0e}" if limit else "allowed 0"


def versions_text(report: Balance) -> str:
    """Versions and batch size, for the line under the headline."""
    versions = ", ".join(f"{clean(name)} {clean(version)}" for name, version in report.versions.items())
    batch = "" if report.batch_size is None else f"batch of {report.batch_size}"
    if report.batches:
        batch = batches_text([samples for samples, _ in report.batches])
    return "; ".join(part for part in (versions, batch) if part)


def batches_text(sizes: Sequence[int]) -> str:
    """`144 samples in 5 batches of 32, the last of 16`."""
    most, *others = dict.fromkeys(sizes)
    batches = f"{plain(len(sizes))} batch{'es' if len(sizes) > 1 else ''}"
    if len(others) == 1 and sizes.count(others[0]) == 1 and sizes[-1] == others[0]:
        size = f"{plain(most)}, the last of {plain(others[0])}"
    else:
        size = f"{plain(min(sizes))} to {plain(max(sizes))}" if others else plain(most)
    return f"{plain(sum(sizes))} sample{'s' if sum(sizes) > 1 else ''} in {batches} of {size}"


def finding_title(finding: Finding) -> str:
    """`Finding weights-axis in dense (error; Keras 3.0 and newer)`."""
    about = "; ".join(clean(word) for word in (finding.severity, finding.versions) if word)
    return f"Finding {clean(finding.rule)} in {clean(finding.where)} ({about})"


def label_text(axis: str, label: Hashable) -> str:
    """A label that says what it is also outside its table: `batch 3`, but `road`."""
    if isinstance(label, (int, np.integer)) and not isinstance(label, bool):
        return f"{clean(axis)} {label}"
    if isinstance(label, tuple):
        return ", ".join(clean(item) for item in label)
    return clean(label)


def shape_text(axes: Iterable[str], sizes: Iterable[int]) -> str:
    """`batch 16 x row 64 x class 5` with a multiplication sign; "one number" without axes."""
    named = [f"{clean(name)} {size}".strip() for name, size in zip(axes, sizes)]
    return " \N{MULTIPLICATION SIGN} ".join(named) or "one number"


def divisors(part: Part) -> list[float]:
    """What the steps divide by, in their order; 1 is left out."""
    return [step.divisor for step in part.steps if step.divisor is not None and step.divisor != 1]


def stages(part: Part) -> list[tuple[tuple[str, ...], tuple[int, ...]]]:
    """Axis names and sizes after each step, `len(part.steps)` of them.

    They begin at the step "element loss", with its axes or the part's, and follow the axes that each step
    removes; merged axes keep their names. Where names do not account for the size of a step's output, and
    before that step, its plain sizes stand with empty names.
    """
    known = any(step.op == "element loss" for step in part.steps)
    names: tuple[str, ...] | None = None if known else part.axes
    size = dict(zip(part.axes, part.elements.shape))
    result = []
    for step in part.steps:
        shape = tuple(step.output_shape)
        if step.op == "element loss":
            names = part.axes
            if step.axes and len(step.axes) == len(shape):
                names, size = step.axes, dict(zip(step.axes, shape))
            candidates = [names]
        elif names is not None:
            left = tuple(name for name in names if name not in step.axes)
            candidates = [left, names] if math.prod(shape) < math.prod(step.input_shape) else [names, left]
        else:
            candidates = []
        fitting = [c for c in candidates if math.prod(size[name] for name in c) == math.prod(shape)]
        if fitting:
            names = _drop_ones(fitting[0], size, len(shape))
            result.append((names, tuple(size[name] for name in names)))
        else:
            result.append((("",) * len(shape), shape))
    return result


def _drop_ones(names: tuple[str, ...], size: dict[str, int], rank: int) -> tuple[str, ...]:
    """`names` without axes of size 1, last first, as far as there are more names than dimensions."""
    for name in reversed(names):
        if len(names) > rank and size[name] == 1:
            names = tuple(other for other in names if other != name)
    return names


def step_text(step: Step) -> str:
    """A step as reports show it. One that adds up and divides by the count of what it added says so in the same words,
    whatever it is called: `sum over class: (4,5) → (4,), ÷ 5 = mean`.
    """
    words = clean(step.text)
    if step.divisor is None or step.op not in ("mean", "sum") or not words.startswith(("mean over ", "sum over ")):
        return words
    count = math.prod(step.input_shape) / max(1, math.prod(step.output_shape))
    words = re.sub("^mean over", "sum over", words)
    divided = re.search(r", ÷ [\d.\s]+$", words)
    return words + (" = mean" if divided and step.divisor == count else "")


def without_shapes(words: str) -> str:
    """The words of a step where its shapes stand beside it."""
    words = re.sub(r": \([\d, ]*\) → \([\d, ]*\)", "", words)
    return re.sub(r"^(element loss\b.*?)(?: \([\w, ]*\):?)?:? \([\d, ]*\)$", r"\1", words)


def step_label(step: Step) -> str:
    """A step in a few words, its text without shapes: `sum over class, ÷ 5 = mean`."""
    words = re.sub(r": \([\d, ]*\) → \([\d, ]*\)", "", step_text(step))
    if step.divisor is not None and "÷" not in words:
        words += f", ÷ {plain(step.divisor)}"
    return words


def message(report: Balance) -> str:
    """What stands out: `42.5 % of this loss is pencil, 0.6 % of the pixels.` Empty where per cents would mislead.

    It is about the term that is the largest part of the loss: its true class with the largest share where it has
    classes, else the term itself among several, else the label with the largest share along its main axis.
    """
    contributions = [term.contribution for term in report.terms]
    if not finite([report.reported, *contributions]) or min(contributions, default=-1.0) < 0 or not report.total:
        return ""
    term = max(report.terms, key=lambda one: one.contribution)
    try:
        shares, count = term.by_label(), _positions(term)
    except ValueError:
        shares, count = {}, None
    if not shares:
        if len(report.terms) > 1:
            share = percent(term.contribution, report.total)
            return f"{share} of this loss is {clean(term.name)}." if share else ""
        axis = main_axis(term)
        shares = term.by(axis) if axis else {}
    if len(shares) < 2 or not finite(shares.values()) or min(shares.values()) < 0:
        return ""
    label = max(shares, key=lambda one: shares[one])
    share = percent(shares[label], report.total)
    if label == UNSPLIT or not share:
        return ""
    shown = f"class {label}" if isinstance(label, str) and label.isdigit() else label_text("class", label)
    if count is None:
        return f"{share} of this loss is {label_text(main_axis(term) or '', label)}, one of {plain(len(shares))}."
    own, all_, word = count(label)
    return f"{share} of this loss is {shown}, {percent(own, all_)} of the {word}."


def _positions(term: Term) -> Callable[[Hashable], tuple[int, int, str]] | None:
    """How many positions have a true class, how many there are, and what they are called; None where not known."""
    parts = [part for part in term.parts if part.true_class is not None]
    if not parts:
        return None
    part = parts[0]
    axes, labels = part.true_class_axes, list(part.class_labels or ())
    word = "pixels" if {"row", "col"} <= set(axes) else "samples" if axes == ("batch",) else "positions"

    def count(label: Hashable) -> tuple[int, int, str]:
        return int(np.sum(part.true_class == labels.index(label))), int(np.size(part.true_class)), word

    return count


def main_axis(term: Term) -> str | None:
    """The axis a share table is most useful along: "class", else the last one with several positions."""
    sizes: dict[str, int] = {}
    for part in term.parts:
        for name, size in part.sizes.items():
            sizes[name] = max(size, sizes.get(name, 0))
    several = [name for name, size in sizes.items() if size > 1]
    if "class" in several:
        return "class"
    return several[-1] if several else None


def share_rows(
    shares: dict[Hashable, float], limit: int = FEW, top: int = 3, ordered: bool = False
) -> list[tuple[Hashable, float]]:
    """At most `limit` (label, share) rows as they come, or the `top` largest and one row "N others".

    With `ordered` the largest come first in any case. NaN counts as largest. What is "(not split)" stays
    a row of its own, last.
    """
    rows = [(label, share) for label, share in shares.items() if label != UNSPLIT]
    rest = [(label, share) for label, share in shares.items() if label == UNSPLIT]
    by_size = sorted(rows, key=lambda row: -math.inf if math.isnan(row[1]) else -abs(row[1]))
    if len(rows) > limit:
        others = [share for _, share in by_size[top:]]
        rows = [*by_size[:top], (f"{len(others)} others", math.fsum(others) if finite(others) else float(sum(others)))]
    elif ordered:
        rows = by_size
    return rows + rest


def source_text(report: Balance) -> str:
    """Where a report's number is from, its versions and its batch, in one line."""
    return "; ".join(part for part in (clean(report.source), versions_text(report)) if part)


def headline(comparison: Difference, column: Column) -> str:
    """`loss 0.5 → 0.25, difference -0.25 (-50.0 %)`, and the label or term that moved furthest."""
    before, after = comparison.before.reported, comparison.after.reported
    relative = percent(comparison.difference, abs(before))
    text = f"loss {column(before)} → {column(after)}, difference {column(comparison.difference)}"
    text += f" ({relative} of before)" if relative else ""
    moves = [
        (pair[1] - pair[0], f"{clean(change.name)}{place}")
        for change in comparison.changes
        for place, pair in _moves(change)
        if math.isfinite(pair[1] - pair[0])
    ]
    largest = max(moves, key=lambda move: abs(move[0]), default=(0.0, ""))
    return text + (f"; furthest moved {largest[1]}: {column(largest[0])}" if largest[0] else "")


def _moves(change: Change) -> list[tuple[str, tuple[float, float]]]:
    for title, pairs in moved_rows(change, limit=10**9)[:1]:
        return [(f", {label_text(title.removeprefix('by '), label)}", pair) for label, pair in pairs]
    return [("", change.contributions)]


def moved_rows(change: Change, limit: int = FEW) -> list[tuple[str, list[tuple[Hashable, tuple[float, float]]]]]:
    """Tables of a change along each axis, the most useful first: title, and rows of (label, (before, after)).

    Where there are more than `limit` labels, those that moved furthest and one row "N others". A term that only one
    report has moved as a whole: it has no tables.
    """
    axes = change.axes() if change.before and change.after else []
    main = "class" if "class" in axes else axes[-1] if axes else None
    tables = []
    for axis in sorted(axes, key=lambda name: name != main):
        try:
            pairs = change.both(lambda term, axis=axis: term.by(axis))
        except ValueError:  # no label in common
            continue
        rows = share_rows({label: after - before for label, (before, after) in pairs.items()}, limit)
        shown = [(label, pairs[label]) for label, _ in rows if label in pairs]
        if len(shown) < len(rows):
            others = [pairs[label] for label in pairs.keys() - {label for label, _ in shown}]
            name = next(label for label, _ in rows if label not in pairs)
            shown.append((name, (sum(b for b, _ in others), sum(a for _, a in others))))
        tables.append((f"by {clean(axis)}" + (", furthest moved" if len(shown) < len(pairs) else ""), shown))
    return tables


def finite(values: Iterable[float]) -> bool:
    return all(math.isfinite(value) for value in values)


def trouble(part: Part) -> str:
    """How many shares are NaN or infinite, and where the first one is; empty where all are finite."""
    part = part.views[0] if part.views else part  # the samples of a whole data set
    bad = np.argwhere(~np.isfinite(part.contributions))
    if not len(bad):
        return ""
    place = ", ".join(f"{clean(axis)} {clean(labels[i])}" for axis, labels, i in zip(part.axes, part.labels, bad[0]))
    words = f"{plain(len(bad))} of {plain(part.contributions.size)} shares are NaN or infinite"
    return words + (f"; the first is at {place}" if place else "")


def sums_lines(part: Part) -> list[str]:
    """The sums that a ratio is made of, one line each: per label where they are few, else their total."""
    lines = []
    for name, values in part.sums.items():
        values = np.asarray(values)
        axis = [k for k, size in enumerate(values.shape) if size > 1]
        if values.size == 1:
            text = plain(values.item())
        elif values.size <= FEW and len(axis) == 1 and values.ndim == len(part.axes):
            labels = part.labels[axis[0]]
            text = ", ".join(f"{clean(label)} {plain(v)}" for label, v in zip(labels, values.ravel().tolist()))
        else:
            over = f" over {', '.join(map(clean, part.axes))}" if values.ndim == len(part.axes) else ""
            text = f"{plain(float(values.sum()))} in all{over}"
        lines.append(f"{clean(name)}: {text}")
    return lines
