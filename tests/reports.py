"""Small reports made by hand, for the tests of the records and of their writers."""

from __future__ import annotations

import math

import numpy as np

from lossviz.report import Part, Report, Step, Term
from lossviz.report.findings import Finding

VERSIONS = {"Keras": "3.15.1", "backend": "tensorflow 2.21.0"}
DIGITS = ("0", "1", "4", "7", "8")


def labels_of(shape, **named):
    """Positions 0, 1, ... along every axis but the named ones: labels_of({"batch": 2}, batch=("a", "b"))."""
    return tuple(tuple(named.get(axis, range(size))) for axis, size in shape.items())


def mean_part(elements, axes, *, weight=1.0, labels=None, exactness="exact", note="", **more) -> Part:
    """A part whose elements are averaged over the last axis, then over the others: shares are e * weight / n."""
    elements = np.asarray(elements, float)
    shape = elements.shape
    steps = [Step("element loss", f"element loss squared error {shape}", shape, shape)]
    if shape:
        text = f"mean over {axes[-1]}: {shape} → {shape[:-1]}, ÷ {shape[-1]}"
        steps.append(Step("mean", text, shape, shape[:-1], (axes[-1],), float(shape[-1])))
    if len(shape) > 1:
        count = math.prod(shape[:-1])
        text = f"sum over {', '.join(axes[:-1])}, ÷ {count}"
        steps.append(Step("sum", text, shape[:-1], (), tuple(axes[:-1]), float(count)))
    labels = labels or labels_of(dict(zip(axes, shape)))
    shares = elements * weight / max(1, elements.size)
    return Part(tuple(axes), elements, shares, exactness, tuple(steps), labels, note=note, **more)


def one_term(part_or_parts, name="mask", kind="output", weight=1.0, note="") -> Term:
    parts = part_or_parts if isinstance(part_or_parts, tuple) else (part_or_parts,)
    value = sum(part.contribution for part in parts) / weight
    return Term(name, kind, value, weight, parts, note)


def scalar_term(name, kind, value, weight=1.0) -> Term:
    """A term without axes: a regulariser, a constant."""
    steps = (Step("sum", f"sum of 0.01 × w² over {name}", (64, 5), ()),) if kind == "regulariser" else ()
    part = Part((), np.asarray(value), np.asarray(weight * value), "exact", steps, ())
    return Term(name, kind, value, weight, (part,))


def report_of(*terms, residual=0.0, **more) -> Report:
    total = float(sum(term.contribution for term in terms))
    return Report(total + residual, terms, "model.test_on_batch", dict(VERSIONS), **more)


def tiny() -> Report:
    """Two samples, three values, exact in binary: shares 0.25 0.5 0.75 / 1 1.25 2.25, total 6."""
    part = mean_part([[1.5, 3.0, 4.5], [6.0, 7.5, 13.5]], ("batch", "class"))
    return report_of(one_term(part, "dense"), batch_size=2)


def segmentation() -> Report:
    """Sixteen digit scenes, five classes of which the last fails, and two regularised kernels."""
    rng = np.random.default_rng(0)
    scale = np.array([0.004, 0.002, 0.003, 0.0025, 0.05])
    elements = rng.gamma(0.5, 2.0, (16, 16, 16, 5)) * scale
    elements[:, 5:11, 6:10] *= 6
    axes = ("batch", "row", "col", "class")
    labels = labels_of(dict(zip(axes, elements.shape)), **{"class": DIGITS})
    truth = rng.integers(0, 5, (16, 16, 16))
    part = mean_part(elements, axes, labels=labels, true_class=truth, true_class_axes=axes[:3], class_labels=DIGITS)
    return report_of(
        one_term(part, "mask"),
        scalar_term("encoder/kernel", "regulariser", 0.0011),
        scalar_term("head/kernel", "regulariser", 0.000004),
        residual=2e-10,
        batch_size=16,
    )


def five_outputs() -> Report:
    """Five outputs with loss weights and small element tables, an added loss, a constant."""
    rng = np.random.default_rng(1)
    terms = []
    for k, name in enumerate(("shape", "colour", "depth", "edges", "caption")):
        weight = (1.0, 0.5, 2.0, 0.25, 1.0)[k]
        elements = rng.uniform(0, 1, (8, 8) if k < 3 else (16, 4, 4, 30))
        axes = ("batch", "class") if k < 3 else ("batch", "row", "col", "class")
        terms.append(one_term(mean_part(elements, axes, weight=weight), name, weight=weight))
    terms += [scalar_term("activity", "add_loss", 0.0625), scalar_term("offset", "constant", -1.0)]
    return report_of(*terms, batch_size=16, notes=("The constant stands in the loss function.",))


def negative() -> Report:
    """A cosine loss (negative shares), a log-likelihood, a positive regulariser: total -0.5."""
    cosine = mean_part([[-0.75, -1.0], [-0.5, 0.25]], ("batch", "class"))
    return report_of(one_term(cosine, "similarity"), scalar_term("dense/kernel", "regulariser", 0.0))


def not_a_number() -> Report:
    """One NaN in the elements of one output; the other output is fine."""
    elements = np.ones((4, 3))
    elements[2, 1] = np.nan
    bad = mean_part(elements, ("batch", "class"), labels=labels_of({"batch": 4, "class": 3}, **{"class": "abc"}))
    good = mean_part(np.ones((4, 2)), ("batch", "class"))
    report = report_of(one_term(bad, "broken"), one_term(good, "fine"), batch_size=4)
    return Report(math.nan, report.terms, report.source, report.versions)


def infinite() -> Report:
    return report_of(one_term(mean_part([1.0, math.inf], ("batch",)), "log"))


def ratio() -> Report:
    """A Dice term per class beside a term of pixel shares: two parts, one not split along rows."""
    dice = Part(
        ("class",),
        np.array([0.25, 0.5]),
        np.array([0.125, 0.25]),
        "ratio",
        (Step("ratio", "1 − 2·TP / (2·TP + FP + FN) per class", (2, 4, 4, 2), (2,), ("batch", "row", "col")),),
        (("road", "sky"),),
        sums={"TP": np.array([12.0, 5.0]), "FP": np.array([4.0, 6.5]), "FN": np.array([4.0, 3.5])},
        note="a ratio of sums has no share per pixel",
    )
    axes = ("batch", "row", "col", "class")
    labels = labels_of(dict(zip(axes, (2, 4, 4, 2))), **{"class": ("road", "sky")})
    pixels = mean_part(np.full((2, 4, 4, 2), 0.5), axes, labels=labels)
    return report_of(one_term((dice, pixels), "mask", note="dice + pixel loss, in one function"))


def opaque() -> Report:
    part = Part((), np.asarray(0.75), np.asarray(0.75), "opaque", (), (), note="log1p of a mean cannot be split")
    return report_of(one_term(part, "custom"), residual=0.125)


def empty() -> Report:
    return Report(0.0, (), "model.compute_loss", {})


def nasty() -> Report:
    """Names that want to break out: markup, quotes, emoji, line breaks, a very long one."""
    script = "<script>alert('x')</script>"
    labels = ((script, 'a & "b"'), ("🦊", "line\nbreak"))
    elements = np.array([[0.5, 0.0], [1.0, 2.5]])
    step = Step("element loss", f"element loss {script}", (2, 2), (2, 2))
    part = Part((script, "class"), elements, elements / 4, "exact", (step,), labels, note=f"{script} & co")
    long = "decoder/block_5/conv2d_transpose_with_a_rather_long_name/kernel_regulariser_of_the_second_kind/kernel:0"
    terms = (Term(script, "output", 1.0, 1.0, (part,), note="'\"><img src=x>"), scalar_term(long, "regulariser", 0.5))
    return Report(1.5, terms, f"fn {script}", {"Keras": script}, notes=(script,))


def long_axis() -> Report:
    """Forty classes, one of them negative, two large."""
    elements = np.full((2, 40), 0.25)
    elements[:, 7], elements[:, 31], elements[:, 12] = 20.0, 10.0, -4.0
    return report_of(one_term(mean_part(elements, ("batch", "class")), "words"))


def findings() -> Report:
    """Two faults, one of them with a version, and a name that wants to break out."""
    sentence = "the loss returns one number, 26.5, for 2 samples, so sample_weight only scales it, to 13.25."
    return report_of(
        one_term(mean_part([1.0, 2.0], ("batch",)), "score"),
        findings=(
            Finding("scalar-loss", "score", sentence, "Return one value a sample.", "scalar_or_tensor"),
            Finding("weights-axis", "<b>x</b>", "a & b\nc", "Pass <i>weights</i> of shape (2, 1).", "weights", "3.0"),
        ),
    )


ALL = {
    maker.__name__: maker
    for maker in (
        tiny, segmentation, five_outputs, negative, not_a_number, infinite, ratio, opaque, empty, nasty, long_axis,
        findings,
    )
}  # fmt: skip
