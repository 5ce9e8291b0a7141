"""The playground (book/playground.md) in a real browser: its arithmetic against lossviz.regimes, then its page."""

import contextlib
import io
import json
import math
import re
from pathlib import Path

import browser
import numpy as np
import pytest

from lossviz import plots, regimes
from lossviz.regimes import REGIMES

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "book" / "_playground" / "playground.js"
PAGE = ROOT / "book" / "playground.md"
BUILT = ROOT / "_build" / "html" / "book" / "playground.html"
HTML = """<!doctype html><html lang=en data-theme=light><meta charset=utf-8><title>t</title>
<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,"><h1>Playground</h1><h2 id=try>Try</h2>
<div id=lossviz-playground></div><script src=playground.js></script></html>"""


@pytest.fixture(scope="module")
def chromium():
    with browser.launch() as one:
        yield one


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    (folder / "index.html").write_text(HTML)
    (folder / "playground.js").write_bytes(SCRIPT.read_bytes())
    with browser.serve(folder) as one:
        yield f"{one}/index.html"


@pytest.fixture(scope="module")
def arithmetic(chromium, address):
    """Calls a function of the page on each of a list of arguments: `arithmetic("reduce", configurations)`."""
    # As JSON, which is much faster than playwright's own way; numbers that are not finite travel as words.
    script = """([name, text]) => {
        const word = (k, x) => typeof x === "number" && !Number.isFinite(x) ? `#${x}` : x;
        const number = (k, x) => typeof x === "string" && x[0] === "#" ? Number(x.slice(1)) : x;
        return JSON.stringify(JSON.parse(text, number).map((one) => lossvizPlayground[name](one)), word);
    }"""

    def to_json(x):
        if isinstance(x, float) and not math.isfinite(x):
            return "#NaN" if math.isnan(x) else "#Infinity" if x > 0 else "#-Infinity"
        if isinstance(x, dict):
            return {key: to_json(one) for key, one in x.items()}
        return [to_json(one) for one in x] if isinstance(x, (list, tuple)) else x

    def from_json(x):
        if isinstance(x, str) and x.startswith("#"):
            return float(x[1:])
        if isinstance(x, dict):
            return {key: from_json(one) for key, one in x.items()}
        return [from_json(one) for one in x] if isinstance(x, list) else x

    with browser.visit(chromium, address) as seen:
        yield lambda name, all: from_json(json.loads(seen.page.evaluate(script, [name, json.dumps(to_json(all))])))
        assert seen.problems == []


# --- arithmetic: the same as lossviz.regimes on random configurations

REDUCTIONS = ("sum_over_batch_size", "mean", "mean_with_sample_weight", "auto", "sum", "none", None)
SIZES = (1, 2, 3, 3, 4)


def tensor(array):
    return None if array is None else {"shape": list(array.shape), "data": array.astype(float).ravel().tolist()}


def random_shape(rng, score):
    """Mostly a shape that somebody would use for a score array of this shape, also any other."""
    likely = [
        score,
        score,
        score[:1],
        (*score[:1], 1),
        score[:2],
        (*score, 1),
        score[1:],
        score[-1:],
        (1,) * len(score),
    ]
    likely += [score[:1] + (1,) * (len(score) - 1), (), score[:-1]]
    if rng.random() < 0.75:
        return likely[rng.integers(len(likely))]
    return tuple(int(n) for n in rng.choice(SIZES, rng.integers(0, 5)))


def random_values(rng, shape):
    """Numbers of many kinds: plain, whole, tiny, of both signs, some zero, some not finite."""
    kind = rng.choice(
        ["plain", "whole", "tiny", "signed", "zeros", "all zero", "not finite"],
        p=[0.25, 0.25, 0.1, 0.1, 0.1, 0.05, 0.15],
    )
    values = np.asarray(rng.uniform(0, 5, shape))
    if kind in ("whole", "zeros"):
        values = np.round(values)
    if kind == "tiny":
        values = values * 10.0 ** rng.integers(-50, 12)
    if kind == "signed":
        values = values - 2.5
    if kind == "zeros":
        values = values * (rng.random(shape) < 0.6)
    if kind == "all zero":
        values = values * 0
    if kind == "not finite":
        values = np.where(rng.random(shape) < 0.2, rng.choice([np.nan, np.inf, -np.inf]), values)
    return np.asarray(values, float)


def random_configurations(seed, count):
    rng = np.random.default_rng(seed)
    for k in range(count):
        shape = tuple(int(n) for n in rng.choice(SIZES, k % 5))
        weight = random_values(rng, random_shape(rng, shape)) if rng.random() < 0.75 else None
        mask = None
        if rng.random() < 0.6:
            mask = np.asarray(
                rng.random(random_shape(rng, shape)) < rng.choice([0.0, 0.5, 0.7, 1.0], p=[0.1, 0.3, 0.4, 0.2])
            )
        arguments = {"sample_weight": weight, "mask": mask, "loss_weight": rng.choice([None, 0.25, -2.0, 0.0])}
        arguments["reduction"] = rng.choice(REDUCTIONS) if rng.random() < 0.5 else "sum_over_batch_size"
        arguments["axes"] = ("batch", "row", "col", "class")[: len(shape)]
        yield random_values(rng, shape), arguments


def expected(score, arguments, regime):
    try:
        return regimes.reduce(score, **arguments, regime=regime)
    except ValueError as error:
        return str(error)


def configuration(score, arguments, regime):
    return {
        "score": tensor(score),
        "weight": tensor(arguments["sample_weight"]),
        "mask": tensor(arguments["mask"]),
        "reduction": arguments["reduction"],
        "lossWeight": arguments["loss_weight"],
        "axes": list(arguments["axes"]),
        "regime": regime,
    }


def same(found, wanted):
    """Equal to 1e-6 of the number; NaN and infinity where they are."""
    return np.allclose(found, wanted, rtol=1e-6, atol=0, equal_nan=True)


def shaped(result):
    return np.array(result["data"], float).reshape(result["shape"])


def test_the_arithmetic_is_that_of_regimes(arithmetic):
    cases = list(random_configurations(0, 1000))
    calls = [(case, regime) for case in cases for regime in REGIMES]
    found = arithmetic("reduce", [configuration(*case, regime) for case, regime in calls])
    counts = dict.fromkeys(("refused", "nan", "infinite", "array", "number", "unknown reduction"), 0)
    for ((score, arguments), regime), mine in zip(calls, found, strict=True):
        wanted = expected(score, arguments, regime)
        where = (score, arguments, regime, mine, wanted)
        if isinstance(wanted, str):
            counts["unknown reduction" if wanted.startswith("reduction=") else "refused"] += 1
            assert mine.get("refusal") == wanted, where
            continue
        assert "refusal" not in mine, where
        value = mine["value"] if np.ndim(wanted.value) == 0 else shaped(mine["value"])
        assert np.shape(value) == np.shape(wanted.value) and same(value, wanted.value), where
        kind = (
            "array"
            if np.ndim(value)
            else "nan"
            if math.isnan(value)
            else "number"
            if math.isfinite(value)
            else "infinite"
        )
        counts[kind] += 1
        assert list(mine["divisors"]) == list(wanted.divisors), where
        assert same(list(mine["divisors"].values()), list(wanted.divisors.values())) and same(
            mine["divisor"], wanted.divisor
        )
        assert [step["text"] for step in mine["steps"]] == [step.text for step in wanted.steps], where
        assert [tuple(step["outputShape"]) for step in mine["steps"]] == [step.output_shape for step in wanted.steps]
        divisors = [
            [math.nan if d is None else d for d in one]
            for one in ([step["divisor"] for step in mine["steps"]], [step.divisor for step in wanted.steps])
        ]
        assert same(*divisors), where
        assert same(shaped(mine["steps"][-1]["values"]), wanted.value), where
        contributions = shaped(mine["contributions"])
        assert same(contributions, wanted.contributions), where
    assert min(counts.values()) > 20 and counts["number"] > 500 and counts["refused"] > 300, counts
