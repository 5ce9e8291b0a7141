"""The playground (book/playground.md) in a real browser: its arithmetic against lossviz.regimes, then its page."""

import contextlib
import io
import json
import math
import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import browser
import numpy as np
import pytest
from matplotlib.colors import to_hex

from lossviz import plots, regimes
from lossviz.regimes import REGIMES

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "book" / "playground.md"
BUILT = Path(os.environ.get("LOSSVIZ_SITE", ROOT / "_build" / "html")).resolve() / "book" / "playground.html"
sys.path.insert(0, str(ROOT / "_ext"))

import playground  # noqa: E402  (the Sphinx extension, which makes the script of its parts)

SCRIPT, STYLE = playground.script(), playground.style()
HEAD = """<!doctype html><html lang=en data-theme=light><meta charset=utf-8><title>t</title>
<meta name=viewport content="width=device-width, initial-scale=1"><link rel=icon href="data:,">
<link rel=stylesheet href=playground.css><script src=playground.js defer></script>
<style>body { margin: 0 16px; overflow-wrap: break-word; background: #fff }
html[data-theme=dark] body { background: #121212; color: #ddd }</style>"""


def body() -> str:
    """The page as it is built, without the book around it."""
    text = re.sub(r"```\{raw\} html\n(.*?)```", r"\1", PAGE.read_text(), flags=re.DOTALL)
    return (
        "<main><section id=heading>" + re.sub(r"^(#+) (.*)$", heading, text, flags=re.MULTILINE) + "</section></main>"
    )


def heading(found) -> str:
    level = len(found[1])
    return f"<h{level}>{found[2]}</h{level}>"


CHAPTERS_WITH_VIEWS = {"last_axis", "many_outputs", "masks", "progress_bar", "weights"}
#: One embedded view of each kind that the chapters have,.
VIEWS = {
    "masks": 'data-regimes="keras-2.2 keras-2.3 keras-3" data-show="weights" '
    'data-play="regime=keras-3&axes=b2s3&e=1,1,1,5,9,9&m=2x3:111100"',
    "weights": 'data-regimes="tf-keras-2.10 keras-3" data-show="weights" '
    'data-play="regime=keras-3&axes=b3s3&e=1,1,1,1,1,1,1,1,1&w=3:1,2,6"',
    "class": 'data-show="class" data-play="axes=b2r2c2k3&fn=mean&e=4,1,1,0,0,0,0,0,0,0,0,0,0,0,1,0,0,1,0,0,1,0,0,1"',
    "outputs": 'data-show="outputs" data-names="price,rating,days" '
    'data-play="axes=b2&e=4,4&axes2=b2&e2=1,1&lw2=10&axes3=b2&e3=3,3&lw3=0.5"',
    "batches": 'data-show="batches" data-size="2" data-edit="e" data-play="axes=b3&e=1,1,4"',
    "broken": 'data-play="axes=b2&e=1,x"',
}
STILL = "The figure above stands still."
VIEW_PAGE = (
    HEAD
    + "<h1>Views</h1><main>"
    + "".join(
        f'<div class="lossviz-play" id="{name}" data-title="View {name}" {more}><p>{STILL}</p></div>'
        for name, more in VIEWS.items()
    )
    + "</main></html>"
)


@pytest.fixture(scope="module")
def chromium():
    with browser.launch() as one:
        yield one


def write_pages(folder):
    (folder / "index.html").write_text(f"{HEAD}{body()}</html>")
    (folder / "views.html").write_text(VIEW_PAGE)
    (folder / "playground.js").write_text(SCRIPT)
    (folder / "playground.css").write_text(STYLE)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("playground")
    write_pages(folder)
    with browser.serve(folder) as one:
        yield f"{one}/index.html"


def to_json(x):
    """Numbers that are not finite as words."""
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


@pytest.fixture(scope="module")
def arithmetic(chromium, address):
    """Calls a function of the page on each of a list of arguments: `arithmetic("reduce", configurations)`."""
    # As JSON, which is much faster than playwright's own way; numbers that are not finite travel as words.
    script = """([name, text]) => {
        const word = (k, x) => typeof x === "number" && !Number.isFinite(x) ? `#${x}` : x;
        const number = (k, x) => typeof x === "string" && x[0] === "#" ? Number(x.slice(1)) : x;
        return JSON.stringify(JSON.parse(text, number).map((one) => lossvizPlayground[name](one)), word);
    }"""

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
    cases = list(random_configurations(0, 700))
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


def test_numbers_are_written_as_in_the_reports(arithmetic):
    """Also an exact half, which Python rounds to the even digit and JavaScript up."""
    rng = np.random.default_rng(3)
    values = [
        0.140625,
        -0.140625,
        1 / 256,
        3 / 256,
        12344.5,
        12345.5,
        65536,
        1e15,
        123456789.5,
        1e-7,
        0.1 + 0.2,
        99999.5,
    ]
    values += [math.nan, math.inf, -math.inf, 0.0, 1e300, 5e-324, *(10 ** rng.uniform(-8, 18, 200)).tolist()]
    given = {"score": tensor(np.ones(())), "weight": None, "mask": None, "axes": [], "reduction": "sum_over_batch_size"}
    found = arithmetic("reduce", [{**given, "regime": "keras-3", "lossWeight": value} for value in values])
    written = [one["steps"][-1]["text"] for one in found]
    assert written == [f"× {regimes.f.plain(value)} (loss weight)" for value in values]


# --- states: what an address holds, against the sums of lossviz.regimes

LETTERS = {"batch": "b", "step": "s", "row": "r", "col": "c", "class": "k"}
MOST = {"batch": 6, "row": 4, "col": 4, "class": 6}


def random_output(rng, batch):
    axes = {"batch": batch} if batch else {}
    axes |= {name: int(rng.integers(1, MOST[name] + 1)) for name in ("row", "col", "class") if rng.random() < 0.4}
    if "col" not in axes:  # one axis in space is called step
        axes = {"step" if name == "row" else name: n for name, n in axes.items()}
    elements = np.round(random_values(rng, tuple(axes.values())), 3)
    one = {"axes": axes, "fn": str(rng.choice(["mean", "sum"])), "e": elements, "w": None, "m": None, "lw": None}
    score = tuple(n for name, n in axes.items() if name != "class")
    if rng.random() < 0.6:
        one["w"] = random_values(rng, random_shape(rng, score))
    if rng.random() < 0.5:
        one["m"] = np.asarray(rng.random(random_shape(rng, score)) < 0.7)
    if rng.random() < 0.4:
        one["lw"] = float(np.round(rng.uniform(-1, 3), 2))
    return one


def random_states(seed, count):
    rng = np.random.default_rng(seed)
    reductions = ["sum_over_batch_size"] * 6 + ["sum", "mean_with_sample_weight", "none"]
    for _ in range(count):
        batch = int(rng.integers(0, 7))
        outputs = [random_output(rng, batch) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        yield {"regime": str(rng.choice(REGIMES)), "reduction": str(rng.choice(reductions)), "outputs": outputs}


def numbers(array):
    words = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
    return ",".join(words.get(repr(x), repr(x)) for x in np.asarray(array, float).ravel().tolist())


def address_of(state):
    fields = [("regime", state["regime"]), ("reduction", state["reduction"])]
    for k, one in enumerate(state["outputs"], 1):
        end = "" if k == 1 else str(k)
        fields.append((f"axes{end}", "".join(f"{LETTERS[name]}{n}" for name, n in one["axes"].items()) or "0"))
        if "class" in one["axes"]:
            fields.append((f"fn{end}", one["fn"]))
        fields.append((f"e{end}", numbers(one["e"])))
        if one["w"] is not None:
            fields.append((f"w{end}", f"{'x'.join(map(str, one['w'].shape))}:{numbers(one['w'])}"))
        if one["m"] is not None:
            digits = "".join(map(str, one["m"].astype(int).ravel()))
            fields.append((f"m{end}", f"{'x'.join(map(str, one['m'].shape))}:{digits}"))
        if one["lw"] is not None:
            fields.append((f"lw{end}", repr(one["lw"])))
    return "#play:" + "&".join("=".join(pair) for pair in fields)


def reductions_of(state, regime, rows=slice(None)):
    """What lossviz.regimes makes of each output; the samples `rows` of it. ValueError where it refuses."""
    found = []
    for one in state["outputs"]:
        elements, score = one["e"], one["e"]
        if "class" in one["axes"]:
            score = elements.mean(-1) if one["fn"] == "mean" else elements.sum(-1)
        cut = [None if x is None else x if rows == slice(None) else x[rows] for x in (score, one["w"], one["m"])]
        axes = [name for name in one["axes"] if name != "class"]
        options = {"reduction": state["reduction"], "loss_weight": one["lw"], "axes": axes}
        found.append(regimes.reduce(*cut, regime=regime, **options))
    return found


def attempt(state, regime, rows=slice(None)):
    try:
        return reductions_of(state, regime, rows)
    except ValueError as error:
        return str(error)


SCRIPT_OF_STATE = """(addresses) => {
    const word = (k, x) => (typeof x === "number" && !Number.isFinite(x) ? `#${x}` : x);
    const { read, write, compare, epoch, shares, pythonCode } = lossvizPlayground;
    return JSON.stringify(addresses.map((one) => {
        const state = read(one), { found, reference } = compare(state);
        const [{ axes }] = state.outputs, n = axes.length && axes[0][0] === "batch" ? axes[0][1] : 0;
        const rows = Object.entries(found).map(([regime, row]) => ({
            regime, refusal: row.refusal, value: row.value, array: row.array, difference: row.difference,
            shares: row.value === undefined ? null : state.outputs.map((_, k) => shares(state, row, k)),
            epochs: Array.from({ length: n }, (_, k) => epoch(state, regime, k + 1)),
        }));
        return { rows, reference, again: write(read(write(state))) === write(state), python: pythonCode(state) };
    }), word);
}"""


@pytest.fixture(scope="module")
def pages(chromium, address):
    """Everything that the page computes of a list of addresses."""
    with browser.visit(chromium, address) as seen:
        yield lambda addresses: from_json(json.loads(seen.page.evaluate(SCRIPT_OF_STATE, addresses)))
        assert seen.problems == []


def expected_epoch(state, regime, size):
    """The number of an epoch in batches of `size`; None without samples to split, or where it is no number."""
    batch = state["outputs"][0]["axes"]["batch"]
    arrays = [x for one in state["outputs"] for x in (one["w"], one["m"]) if x is not None]
    if any(x.ndim == 0 or x.shape[0] != batch for x in arrays):
        return None
    batches = [slice(start, start + size) for start in range(0, batch, size)]
    parts = [attempt(state, regime, rows) for rows in batches]
    for part in parts:  # the first batch that gives no number decides
        if isinstance(part, str):
            return "refused"
        if any(np.ndim(one.value) for one in part):
            return None
    losses = [sum(one.value for one in part) for part in parts]
    sizes = [min(size, batch - rows.start) for rows in batches]
    return regimes.epoch(losses, sizes, regime=regime).history


def test_states_are_sums_of_what_regimes_gives(pages):
    states = list(random_states(1, 250))
    counts = dict.fromkeys(("number", "nan", "refused", "array", "differs", "epochs", "shares"), 0)
    for state, page in zip(states, pages([address_of(state) for state in states]), strict=True):
        assert page["again"]
        wanted = {regime: attempt(state, regime) for regime in REGIMES}
        accepted = [regime for regime in REGIMES if not isinstance(wanted[regime], str)]
        assert page["reference"] == (accepted[-1] if accepted else "")
        for row in page["rows"]:
            regime, many = row["regime"], len(state["outputs"]) > 1
            parts, where = wanted[regime], (address_of(state), row)
            if isinstance(parts, str):
                counts["refused"] += 1
                assert row["refusal"].removeprefix(row["refusal"].split(": ")[0] + ": " if many else "") == parts, where
                continue
            assert "refusal" not in row, where
            arrays = [np.shape(one.value) for one in parts if np.ndim(one.value)]
            if arrays:
                counts["array"] += 1
                assert tuple(row["array"]) == arrays[0], where
            else:
                value = sum(one.value for one in parts)
                counts["nan" if math.isnan(value) else "number"] += 1
                scale = sum(abs(one.value) for one in parts)
                assert np.allclose(row["value"], value, rtol=1e-6, atol=1e-9 * np.nan_to_num(scale), equal_nan=True), (
                    where
                )
                for one, output, share in zip(parts, state["outputs"], row["shares"], strict=True):
                    counts["shares"] += 1
                    along = share["shape"][len(one.elements.shape) :]
                    assert tuple(share["shape"]) == output["e"].shape
                    own = shaped(share).sum(-1) if along else shaped(share)
                    finite = np.isfinite(own) & np.isfinite(one.contributions)
                    assert np.allclose(own[finite], one.contributions[finite], rtol=1e-6, atol=1e-12), where
            others = wanted[page["reference"]]
            differences = [regimes._first_difference(*pair) for pair in zip(parts, others)]
            first = next((k for k, text in enumerate(differences) if text), None)
            text = "" if first is None else f"output {first + 1}: {differences[first]}" if many else differences[first]
            assert row["difference"] == ("" if regime == page["reference"] else text), where
            counts["differs"] += bool(text)
        for row in page["rows"]:
            for size, mine in enumerate(row["epochs"], 1):
                whole = expected_epoch(state, row["regime"], size)
                where = (address_of(state), row["regime"], size, mine, whole)
                if isinstance(whole, float) and isinstance(mine, (int, float)):
                    counts["epochs"] += 1
                    assert np.allclose(mine, whole, rtol=1e-6, atol=1e-9, equal_nan=True), where
                else:
                    assert mine == whole, where
    assert counts["number"] > 300 and min(counts.values()) > 20, counts


def test_the_python_code_on_the_page_gives_its_number(pages):
    """The code is run as a reader would: printed is what the page shows."""
    states = [state for state in random_states(2, 100) if not isinstance(attempt(state, state["regime"]), str)]
    ran = 0
    for state, page in zip(states, pages([address_of(state) for state in states]), strict=True):
        row = next(row for row in page["rows"] if row["regime"] == state["regime"])
        if "value" not in row:
            continue
        names = {}
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(page["python"], names)
        value = names["total"] if len(state["outputs"]) > 1 else names["loss"].value
        assert printed.getvalue() and np.allclose(value, row["value"], rtol=1e-6, atol=1e-9, equal_nan=True), page[
            "python"
        ]
        ran += 1
    assert ran > 40


# --- presets and experiments: what they say is so


def preset(name):
    text = re.search(rf'\["{re.escape(name)}", \d, (.*?),\n', SCRIPT, re.DOTALL)[1]
    return "#play:" + "".join(re.findall(r'"([^"]*)"', text))


@pytest.fixture(scope="module")
def values(pages):
    """name -> regime -> number, or the refusal; and the rows themselves."""

    def look(hash):
        return {row["regime"]: row for row in pages([hash])[0]["rows"]}

    return look


def four(rows):
    return [row.get("value", "refused") for row in rows.values()]


def test_presets_show_what_they_say(values):
    class_shares = shaped(values(preset("Five classes"))["keras-3"]["shares"][0]).sum((0, 1, 2))
    assert class_shares[4] > 0.8 * class_shares.sum() and class_shares.sum() < 0.1

    old, padded, later, today = four(values(preset("Padding")))
    assert padded < old == later == today

    rows = values(preset("As many samples as steps"))
    today, before = (shaped(rows[regime]["shares"][0]) for regime in ("keras-3", "tf-keras-2.10"))
    assert not today[:, 2].any() and today[2].any() and not before[2].any()
    assert today.sum() != before.sum()

    old, *others = four(values(preset("Zero weights")))
    assert np.allclose([old, *others], [0.2, 0.4 / 3, 0.4 / 3, 0.4 / 3])
    by_sum = values(
        preset("Zero weights").replace("regime=keras-2.2", "regime=keras-3&reduction=mean_with_sample_weight")
    )
    assert by_sum["keras-3"]["value"] == pytest.approx(2.0)

    assert len(set(four(values(preset("Mask and weights"))))) == 4

    old, *others = four(values(preset("(N, 1) on (N,)")))
    assert old != others[0] and np.allclose(others, np.mean([3, 4, 6]))

    rows = values(preset("SUM"))
    assert rows["keras-2.2"]["refusal"].endswith("its wrapper always takes the mean.")
    mean = values(preset("SUM").replace("reduction=sum&", ""))
    assert rows["keras-3"]["value"] == pytest.approx(8 * mean["keras-3"]["value"])

    epochs = values(preset("Short last batch"))["keras-3"]["epochs"]
    assert len({round(x, 9) for x in epochs}) > 1

    old, all_steps, later, today = four(values(preset("All masked")))
    assert math.isnan(old) and all_steps == 0 and math.isnan(later) and today == 0

    assert all(map(math.isnan, four(values(preset("NaN under weight 0")))))

    old, *middle, today = four(values(preset("A loss of one number")))
    assert middle == ["refused", "refused"] and today == 2 * np.mean([0, 1, 5]) and old == 2 * np.mean([1, 5])

    assert set(np.round(four(values(preset("Two outputs"))), 9)) == {round((0.7 + 1.1) / 2 + 0.01 * 250, 9)}


# --- the pictures of the stage: each follows from the one before it

SCRIPT_OF_FRAMES = """(addresses) => {
    const word = (k, x) => (typeof x === "number" && !Number.isFinite(x) ? `#${x}` : x);
    const { read, compare, frames } = lossvizPlayground;
    return JSON.stringify(addresses.map((one) => {
        const state = read(one), { found } = compare(state);
        const { parts } = found[state.regime];
        return state.outputs.map((output, k) => ({ pictures: frames(output, parts[k]), of: parts[k] }));
    }), word);
}"""


def test_each_picture_follows_from_the_one_before(chromium, address):
    states = list(random_states(4, 150))
    counts = dict.fromkeys(("sum", "divide", "mask", "weights", "scale"), 0)
    with browser.visit(chromium, address) as seen:
        found = from_json(json.loads(seen.page.evaluate(SCRIPT_OF_FRAMES, [address_of(one) for one in states])))
    for state, outputs in zip(states, found, strict=True):
        for output, one in zip(state["outputs"], outputs, strict=True):
            first, *pictures = one["pictures"]
            assert same(np.ravel(first["values"]["data"]), output["e"].ravel())
            before = shaped(first["values"])
            for picture in pictures:
                assert same(shaped(picture["before"]).ravel(), before.ravel())
                before = shaped(picture["before"])  # the same numbers, axes of size 1 apart
                now, kind = shaped(picture["values"]), picture["kind"]
                counts[kind] += 1
                assert np.shape(now) == tuple(picture["values"]["shape"]) and now.ndim == len(picture["places"])
                with np.errstate(all="ignore"):
                    if kind == "sum":
                        assert same_sums(now, before.sum(axis=picture["gone"]), before), (state, picture)
                    elif kind in ("mask", "weights"):
                        assert same(now, shaped(picture["given"]) * shaped(picture["factor"]))
                    elif kind == "divide":
                        ratios = (before / now)[np.isfinite(before / now)]
                        top, _, below = picture["label"].removeprefix("÷ ").replace("\u00a0", "").partition("/")
                        divisor = float(top) / float(below or 1)
                        assert np.allclose(ratios, divisor, rtol=1e-4), (state, picture)
                before = now
            if "refusal" not in one["of"]:
                value = one["of"]["value"]
                assert same_sums(before, value if isinstance(value, (int, float)) else shaped(value), output["e"])
    assert min(counts.values()) > 20, counts


def same_sums(found, wanted, terms):
    """As `same`, but a sum in which terms cancel is as exact as its terms are large."""
    scale = np.abs(terms[np.isfinite(terms)]).sum() if np.ndim(terms) else 0
    return np.allclose(found, wanted, rtol=1e-6, atol=1e-12 * scale, equal_nan=True)


# --- the page


@pytest.fixture
def play(chromium, address):
    """Opens the page; nothing may go wrong on it."""
    with contextlib.ExitStack() as stack:

        def visit(hash="", page="index", **options):
            where = address.replace("index", page) + hash
            seen = stack.enter_context(browser.visit(chromium, where, **options))
            stack.callback(lambda: problems(seen))
            seen.page.set_default_timeout(10_000)
            return seen.page

        def problems(seen):
            assert seen.problems == []
            assert {url.split("#")[0].rsplit("/", 1)[1] for url in seen.requests} <= {
                "index.html",
                "views.html",
                "playground.js",
                "playground.css",
                ",",
            }

        yield visit


def number(page):
    return page.inner_text(".lvp output")


def alert(page):
    return page.inner_text(".lvp [role=alert]")


def tiles(page):
    return page.eval_on_selector_all(".lvp .tiles b", "all => all.map((one) => one.textContent)")


def cells(page, title):
    """The cells of the grid whose name begins with `title`."""
    return page.locator(f'[role=grid][aria-label^="{title}"] [role=gridcell] > *')


def focused(page):
    return page.evaluate("document.activeElement.getAttribute('aria-label')")


def test_one_small_file_that_asks_for_nothing():
    text = SCRIPT
    assert len(text.encode()) + len(STYLE.encode()) <= 90_000
    assert not re.findall(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(|fetch\(|XMLHttp|import[ (]",
        text.replace("import numpy", "").replace("import regimes", ""),
    )
    assert set(re.findall(r"https?://[^\"`]*", text)) == {"http://www.w3.org/2000/svg"}
    assert "url(" not in STYLE and "@import" not in STYLE
    # colours: those of the figures
    stops = {
        name: re.findall(r"#\w{6}", re.search(rf"{name} = \[(.*?)\]", text)[1]) for name in ("SEQUENTIAL", "DIVERGING")
    }
    for name, found in stops.items():
        assert found == [to_hex(getattr(plots, name)(k / 8)) for k in range(9)]
    assert f'NAN_COLOR = "{plots.NAN_COLOR}"' in text
    for name, color in re.findall(r'(\w+): "(#\w+)"', re.search(r"AXIS_COLORS = {(.*?)}", text)[1]):
        assert plots.AXIS_COLORS[name] == color


def test_a_visit_with_the_mouse(play):
    page = play(preset("Five classes"))
    assert number(page) == values_of(preset("Five classes"))["keras-3"]
    page.get_by_role("button", name="Mask and weights", exact=True).click()
    wanted = values_of(preset("Mask and weights"))
    assert tiles(page) == [wanted[r] + (" ≠" if wanted[r] != wanted["keras-3"] else "") for r in REGIMES]
    assert page.evaluate("location.hash") == preset("Mask and weights")
    assert "four numbers" in page.inner_text(".lvp .note")
    page.locator(".tiles label", has_text="tf-keras-2.10").click()
    assert number(page) == wanted["tf-keras-2.10"]
    cells(page, "mask").nth(8).click()
    cells(page, "score array").nth(0).fill("7,5")  # a decimal comma
    page.select_option("[data-key=w]", label="(3, 1) one per sample, as a column")
    hash = "#play:regime=tf-keras-2.10&axes=b3s3&e=7.5,2,1,3,1,5,6,4,2&w=3x1:1,3,0&m=3x3:111110101"
    page.wait_for_function("hash => location.hash === hash", arg=hash)  # the address follows a moment later
    score = np.array([[7.5, 2, 1], [3, 1, 5], [6, 4, 2]])
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 1]])
    one = regimes.reduce(score, [[1], [3], [0]], mask, regime="tf-keras-2.10")
    assert number(page) == regimes.f.plain(one.value, 6)
    page.get_by_text("one below the other").click()
    steps = page.eval_on_selector_all(".lvp .steps > li p", "all => all.map((one) => one.textContent)")
    wanted = [step.text for step in one.steps]
    divisor = regimes.f.plain(one.steps[2].divisor)
    wanted[2] = wanted[2].replace(f"÷ {divisor}", "÷ 7/9")
    wanted[-1] = wanted[-1].replace("mean over", "sum over") + " = mean"
    assert [step for text, step in zip(steps, wanted, strict=True) if not text.startswith(step)] == []
    assert wanted[-1] == "sum over batch, step: (3, 3) → (), ÷ 9 = mean"
    assert equation(page) == "tf-keras-2.10: 9 element losses ÷ 7/9 ÷ 9 = ÷ 7 in all"
    page.get_by_role("button", name="Reset").click()
    assert page.evaluate("location.hash") == preset("Mask and weights")


def equation(page):
    return page.inner_text(".lvp .equation")


def effect(page):
    return page.inner_text(".lvp .effect")


def values_of(hash):
    """regime -> the number as the page writes it, from lossviz.regimes: of a state with one output."""
    fields = dict(pair.split("=") for pair in hash.removeprefix("#play:").split("&"))
    shape = [int(n) for n in re.findall(r"\d", fields["axes"])]
    score = np.array([float(x) for x in fields["e"].split(",")]).reshape(shape)
    if "k" in fields["axes"]:
        score = score.mean(-1) if fields["fn"] == "mean" else score.sum(-1)
    arrays = []
    for key in ("w", "m"):
        if key not in fields:
            arrays.append(None)
            continue
        own, data = fields[key].split(":")
        data = data.split(",") if key == "w" else data
        arrays.append(np.array([float(x) for x in data]).reshape([int(n) for n in own.split("x") if n]))
    return {r: regimes.f.plain(regimes.reduce(score, *arrays, regime=r).value, 6) for r in REGIMES}


def lesson(page):
    return page.locator(".lesson")


def test_it_opens_with_a_question_in_which_the_regimes_differ(play):
    page = play()
    wanted = values_of(preset("Mask and weights"))
    assert len(set(wanted.values())) == 4
    assert "Which Keras printed 4.5?" in page.inner_text(".path [aria-pressed=true]") and number(page) == "4.5"
    # nothing tells before the guess: no number, no step, no choice, no code, no place of the weights
    assert tiles(page) == ["?"] * 4 and page.locator(".tiles :checked").count() == 0
    assert not page.is_visible(".control") and not page.is_visible("[data-lossviz=list]")
    assert not page.is_visible("[data-lossviz=code]") and page.locator(".pair").count() == 0
    assert page.locator("[data-lossviz=board] .out").count() == 0
    assert not re.search(r"keras-2\.2|÷ \d", page.inner_text("main").replace(lesson(page).inner_text(), "").replace(
        "keras-2.2\n?", "")), page.inner_text("main")  # fmt: skip
    page.get_by_role("button", name="That is my guess").click()
    assert "Choose one first" in lesson(page).inner_text()
    page.get_by_label("keras-2.3: Keras 2.3").check()
    page.get_by_role("button", name="That is my guess").click()
    right = next(regime for regime in REGIMES if wanted[regime] == "4.5")
    assert lesson(page).locator(".verdict").inner_text() == f"No. It is {right}."
    assert [text.removesuffix(" ≠") for text in tiles(page)] == list(wanted.values())
    assert page.is_visible(".control") and page.locator(".pair.left").count() == 1


def test_four_lessons_guess_set_up_reveal(play, values):
    page = play()
    lessons = page.evaluate("lossvizPlayground.LESSONS")
    assert len(lessons) == 4
    todo = [
        lambda: page.locator(".tiles label", has_text="keras-3").click(),
        lambda: page.select_option("[data-key=w]", label="(3, 1) one per sample, as a column"),
        lambda: cells(page, "sample weights").nth(1).fill("1e-9"),
        lambda: page.select_option("[data-key=fn]", "sum"),
    ]
    for k, (one, do) in enumerate(zip(lessons, todo, strict=True)):
        page.locator(f"[data-key=lesson{k}]").click()
        assert one["ask"] in lesson(page).inner_text() and lesson(page).locator(".verdict").inner_text() == ""
        assert not lesson(page).get_by_text(one["task"]).is_visible()
        lesson(page).locator("input").nth(one["right"]).check()
        page.get_by_role("button", name="That is my guess").click()
        assert lesson(page).locator(".verdict").inner_text().startswith("Right. It is ")
        assert page.evaluate("document.activeElement.className").startswith("verdict")  # keyboards go on from here
        assert one["reveal"] in lesson(page).inner_text()
        do()
        regime = re.search("regime=([^&]*)", one["goal"])[1]
        goal = values_of(one["goal"])[regime]
        assert number(page) == goal and lesson(page).locator(".reached").inner_text() == f"Done: {goal}."
        if k < 3:
            lesson(page).get_by_role("button", name="Next question").click()
            assert lessons[k + 1]["ask"] in lesson(page).inner_text()
    assert page.locator(".path b").all_inner_texts() == ["✓"] * 4
    # the right options are right
    start, goal = (values_of(one)["keras-2.2"] for one in (lessons[2]["start"], lessons[2]["goal"]))
    assert (
        lessons[2]["options"][:2] == [regimes.f.plain(float(x), 3) for x in (start, goal)] and lessons[2]["right"] == 1
    )
    goal = values_of(lessons[3]["goal"])["keras-3"]
    assert lessons[3]["options"][lessons[3]["right"]] == regimes.f.plain(float(goal), 3)
    share = shaped(values(lessons[1]["start"])["keras-3"]["shares"][0])
    assert not share[:, 2].any() and share[2].any()  # the last step of every sample


def test_traps_stand_in_groups(play):
    page = play()
    groups = page.eval_on_selector_all(
        ".traps", "all => all.map((one) => [one.getAttribute('aria-label'), one.querySelectorAll('button').length])"
    )
    assert [name for name, _ in groups] == ["masks", "weights", "shapes", "batches and outputs"]
    assert sum(n for _, n in groups) == 12 and min(n for _, n in groups) == 3


def test_the_axes_are_called_as_in_the_traps(play):
    """`step` in rank 2, `row` and `col` only together; links of either letter work."""
    page = play(preset("As many samples as steps"))
    assert "to the steps, not to the samples" in page.inner_text(".note")
    text = page.inner_text("main")
    assert "along step" in text and not re.search(r"\brow\b|\bcolumn\b", page.inner_text("[data-lossviz=board]"))
    page.select_option("[data-key=col]", "2")
    assert page.inner_text(".lvp [role=grid]").startswith("batch 0") and "b3r3c2" in page.evaluate(
        "lossvizPlayground.write(lossvizPlayground.read('#play:axes=b3s3c2&e=' + Array(18).fill(1)))"
    )
    cells(page, "score array").nth(3).focus()
    assert focused(page) == "batch 0, row 1, col 1"
    page.select_option("[data-key=col]", "0")
    cells(page, "score array").nth(4).focus()
    assert focused(page) == "batch 1, step 1"
    assert page.evaluate("lossvizPlayground.read('#play:axes=b1r2&e=1,2').outputs[0].axes[1][0]") == "step"


def box_of(page, title, k=0):
    return cells(page, title).nth(k).bounding_box()


def test_weights_are_drawn_along_the_axis_that_they_meet(play):
    """The same three weights: beside the samples in one regime, above the steps in the other."""
    page = play(preset("As many samples as steps"))
    for k in range(3):  # keras-3: above step k
        assert abs(box_of(page, "sample weights", k)["x"] - box_of(page, "score array", k)["x"]) < 1.5
    assert box_of(page, "sample weights")["y"] < box_of(page, "score array")["y"] - 30
    page.locator(".tiles label", has_text="tf-keras-2.10").click()
    for k in range(3):  # beside sample k
        assert abs(box_of(page, "sample weights", k)["y"] - box_of(page, "score array", 3 * k)["y"]) < 1.5
    assert box_of(page, "sample weights")["x"] < box_of(page, "score array")["x"] - 40
    assert "along batch" in page.inner_text(".weights .title").replace("\n", " ")
    cells(page, "sample weights").nth(0).focus()
    page.keyboard.press("ArrowDown")  # the keys go as the weights are drawn
    assert page.evaluate("document.activeElement.dataset.key") == "w1"


def test_every_edit_says_what_it_did(play):
    page = play(preset("Mask and weights"))
    cells(page, "score array").nth(5).fill("50")
    assert effect(page) == "batch 1, step 2: 5 → 50. Masked: it does not count; the number stays 4.5."
    assert "out" in cells(page, "score array").nth(5).get_attribute("class")
    cells(page, "score array").nth(6).fill("8")
    assert effect(page) == "batch 2, step 0: 6 → 8. Weight 0: it does not count; the number stays 4.5."
    cells(page, "score array").nth(0).fill("7")
    score = np.array([[7, 2, 1], [3, 1, 50], [8, 4, 2.0]])
    mask = np.array([[1, 1, 1], [1, 1, 0], [1, 0, 0]])
    now = regimes.reduce(score, [1, 3, 0], mask, regime="keras-2.2").value
    plain = regimes.f.plain
    assert effect(page) == f"batch 0, step 0: 3 → 7. 4.5 → {plain(now)} (+{plain(now - 4.5, 3)})."
    cells(page, "mask").nth(0).click()
    assert effect(page).startswith(f"mask at batch 0, step 0: masked, it counts no more. {plain(now)} → ")
    page.locator(".tiles label", has_text="keras-2.3").click()
    assert effect(page).startswith("keras-2.2 → keras-2.3. ") and "(−" in effect(page)
    page.select_option("[data-key=reduction]", "mean_with_sample_weight")
    assert effect(page).endswith("→ refused.")
    page.get_by_role("button", name="Padding", exact=True).click()
    assert effect(page) == ""


def test_a_divisor_that_is_a_share_is_written_as_one(play):
    page = play(preset("Mask and weights"))
    assert equation(page) == "keras-2.2: 9 element losses ÷ 6/9 ÷ 3 ÷ 2/3 ÷ 3 = ÷ 4 in all"
    page.get_by_text("one below the other").click()
    assert "0.66667" not in page.inner_text("main")
    assert "no ÷ 6/9, the mean of the mask" in page.inner_text("[data-lossviz=four]")


def test_one_colour_scale_for_all_steps(play):
    """The same number has the same colour in every picture; what is masked does not stretch the scale."""
    page = play(preset("Mask and weights"))
    cells(page, "score array").nth(5).fill("5000")
    page.get_by_text("one below the other").click()
    pairs = page.eval_on_selector_all(
        ".steps svg text", "all => all.map((one) => [one.textContent, one.previousSibling.getAttribute('fill')])"
    )
    colours = {}
    for text, fill in pairs:
        colours.setdefault(text, set()).add(fill)
    assert len(pairs) > 30 and all(len(fills) == 1 for fills in colours.values()), colours
    assert len({next(iter(fills)) for fills in colours.values()}) > 5
    page.locator(".next").click()
    stage = page.eval_on_selector_all(".stage .lc", "all => all.map((one) => [one.textContent, one.style.background])")
    assert all(fill.replace(" ", "") in colours[text] for text, fill in stage if text != "0"), stage


def stage_text(page):
    return page.locator(".stage .lc").all_inner_texts()


def settle(page):
    page.wait_for_function("document.getAnimations().length === 0")


def test_step_by_step(play):
    """The cells of an axis become one, the divisor appears, and masked cells are struck out; back again too."""
    page = play(preset("Padding").replace("keras-2.3", "keras-3"))
    said = page.locator(".caption")
    following = page.get_by_role("button", name="Next step")
    following.focus()
    page.keyboard.press("Enter")
    assert said.inner_text().startswith("1 of 5: × mask") and page.locator(".stage .lc.out").count() == 3
    page.keyboard.press("Enter")
    assert said.inner_text().startswith("2 of 5: ÷ 6/9, the mean of the mask") and page.inner_text(".chip") == "÷ 6/9"
    page.keyboard.press("Enter")
    settle(page)
    assert said.inner_text().startswith("3 of 5: sum over step") and stage_text(page) == ["9", "6", "9"]
    page.keyboard.press("Enter")
    settle(page)
    assert said.inner_text().startswith("4 of 5: sum over batch") and stage_text(page) == ["24"]
    page.keyboard.press("Enter")
    settle(page)
    assert said.inner_text() == "5 of 5: ÷ 9 = mean → 2.66667" and number(page) == "2.66667"
    assert page.get_attribute(".stage", "aria-label") == "(): 2.67" and following.is_disabled()
    page.get_by_role("slider", name="step").focus()
    page.keyboard.press("ArrowLeft")
    assert stage_text(page) == ["24"]
    page.keyboard.press("Home")
    assert page.is_visible("[role=grid]") and not page.is_visible(".box")


def test_motion_comes_on_top_of_the_picture(play):
    """The picture is right from the first moment; ghosts move over it, and go."""
    page = play(preset("Padding").replace("keras-2.3", "keras-3"))
    following = page.get_by_role("button", name="Next step")
    following.click()
    moved = page.evaluate("document.getAnimations().map((one) => one.effect.target.className)")
    assert moved.count("lc") > 0 and page.locator(".stage .lc[aria-hidden]").count() > 0
    fallen = page.evaluate("""document.getAnimations().filter((one) =>
        one.effect.getKeyframes().some((frame) => frame.transform && frame.transform.includes("rotate"))).length""")
    assert fallen == 3  # the masked ones
    settle(page)
    assert page.locator(".stage .lc[aria-hidden]").count() == 0 and len(stage_text(page)) == 9
    following.click()
    following.click()
    ends = page.evaluate("""document.getAnimations().map((one) => one.effect.getKeyframes())
        .filter((frames) => frames.some((frame) => frame.transform && frame.transform !== "none"))
        .map((frames) => frames.at(-1).transform)""")
    # nine cells slide into three: the outer ones by one cell, to the middle
    assert len(ends) == 9 and {re.search(r"translate\(([-\d.]+)px", one)[1] for one in ends} == {"48", "0", "-48"}


def test_no_motion_where_it_is_not_wanted(play):
    page = play(preset("Mask and weights"), reduced_motion="reduce")
    for _ in range(8):
        page.get_by_role("button", name="Next step").click()
        assert page.evaluate("document.getAnimations().length") == 0
        assert page.locator(".stage [aria-hidden]").count() == 0
    assert page.inner_text(".caption") == "8 of 8: ÷ 3 = mean → 4.5"


def test_every_trap_can_be_stepped_through(play):
    page = play(reduced_motion="reduce")
    traps = page.evaluate("lossvizPlayground.PRESETS.map((one) => one.name)")
    for name in traps:
        page.get_by_role("button", name=name, exact=True).click()
        following = page.get_by_role("button", name="Next step")
        for _ in range(12):
            if following.is_disabled():
                break
            following.click()
        assert following.is_disabled(), name
        if name != "Two outputs":  # its stage follows one output
            assert page.inner_text(".caption").endswith(f"→ {number(page)}"), name


def test_by_keyboard_alone(play):
    page = play(preset("Five classes"))
    stops = []
    look = """() => {
        const one = document.activeElement, style = getComputedStyle(one.closest(".tiles label") || one);
        const name = one.getAttribute("aria-label") || (one.labels && one.labels[0] ? one.labels[0] : one).textContent;
        return [name.trim(), style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2];
    }"""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement === document.body"):
            break
        stops.append(page.evaluate(look))
    names = [name for name, _ in stops]
    assert all(name for name in names) and all(visible for _, visible in stops), stops
    # a grid is one stop, and so are the regimes
    assert (
        sum(name.startswith("batch 0, row 0") for name in names) == 1
        and sum(name.startswith("keras-") for name in names) == 1
    )
    for name in ("Reset", "Copy link", "Padding", "reduction", "loss weight", "Next step", "one below the other"):
        assert any(name in one for one in names), name

    # regimes with arrows
    page.locator(".tiles input").nth(3).focus()
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.querySelectorAll('.tiles input')[2].checked")
    page.wait_for_function("location.hash.includes('regime=tf-keras-2.10')")

    # through the cells
    first = cells(page, "element losses").nth(0)
    first.focus()
    walk = [
        ("ArrowRight", "batch 0, row 0, col 0, class 1"),
        ("ArrowDown", "batch 0, row 0, col 1, class 1"),
        ("ArrowDown", "batch 0, row 1, col 0, class 1"),
        ("End", "batch 0, row 1, col 0, class 4"),
        ("PageDown", "batch 1, row 0, col 0, class 4"),
        ("Home", "batch 1, row 0, col 0, class 0"),
        ("ArrowLeft", "batch 0, row 1, col 1, class 4"),
        ("Control+Home", "batch 0, row 0, col 0, class 0"),
        ("ArrowUp", "batch 0, row 0, col 0, class 0"),
        ("Control+End", "batch 1, row 1, col 1, class 4"),
        ("ArrowRight", "batch 1, row 1, col 1, class 4"),
    ]
    for key, where in walk:
        page.keyboard.press(key)
        assert focused(page) == where, key
    # typing replaces; Escape takes it back; Enter goes on below
    before = number(page)
    page.keyboard.type("12")
    assert number(page) != before
    page.keyboard.press("Escape")
    assert number(page) == before
    page.keyboard.press("Control+Home")
    page.keyboard.type("4.5")
    page.keyboard.press("Enter")
    assert focused(page) == "batch 0, row 0, col 1, class 0"
    assert cells(page, "element losses").nth(0).input_value() == "4.5"
    # what is not a number changes nothing, and says so
    before = number(page)
    page.keyboard.type("two")
    assert number(page) == before and page.locator(".lvp [aria-invalid]").count() == 1
    page.keyboard.press("ArrowDown")
    assert "“two” is not a number; the cell keeps 0.01." in alert(page)
    assert page.locator(".lvp [aria-invalid]").count() == 0

    # a mask, from nothing to one cell
    page.locator("[data-key=m]").focus()
    page.keyboard.press("ArrowDown")
    assert focused(page) is None and page.evaluate("document.activeElement.dataset.key") == "m"  # the focus stays
    cells(page, "mask").nth(0).focus()
    page.keyboard.press("ArrowRight")
    before = number(page)
    page.keyboard.press("Space")
    assert number(page) != before or cells(page, "mask").nth(1).get_attribute("aria-checked") == "false"
    assert page.evaluate("document.activeElement.getAttribute('aria-checked')") == "false"


def test_the_path_of_a_cell_is_outlined(play):
    page = play(preset("Mask and weights"))
    page.get_by_text("one below the other").click()
    cells(page, "score array").nth(4).focus()  # sample 1, step 1
    paths = page.eval_on_selector_all(
        ".lvp .steps .planes",
        """all => all.map((one) => [...one.querySelectorAll("rect")]
            .map((cell, k) => cell.classList.contains("on") ? k : -1).filter((k) => k >= 0))""",
    )
    assert paths == [[4], [4], [4], [1], [1], [1], [0]]


def test_axes_come_and_go_and_weights_follow(play):
    page = play(preset("Mask and weights"))
    page.select_option("[data-key=batch]", "4")
    assert page.get_attribute('[role=grid][aria-label^="score array"]', "aria-label") == "score array (4, 3)"
    assert page.get_attribute('[role=grid][aria-label^="sample weights"]', "aria-label") == "sample weights (4,)"
    assert page.get_attribute('[role=grid][aria-label^="mask"]', "aria-label") == "mask (4, 3)"
    assert "refused" not in tiles(page)[:3]
    for name in ("batch", "row"):
        page.select_option(f"[data-key={name}]", "0")
    assert cells(page, "score array").count() == 1
    for name, size in (("batch", "6"), ("row", "4"), ("col", "4"), ("class", "6")):
        page.select_option(f"[data-key={name}]", size)
    assert cells(page, "element losses").count() == 6 * 4 * 4 * 6
    assert alert(page) == ""


def test_any_shape_of_weights(play):
    page = play(preset("Zero weights"))
    page.select_option("[data-key=w]", "other")
    page.fill("[data-key=wshape]", "(2, 3)")
    page.get_by_role("button", name="Use this shape").first.click()
    assert cells(page, "sample weights").count() == 6
    refused = [regimes_text(np.array([0.0, 4, 4]), np.ones((2, 3)), regime) for regime in REGIMES]
    assert [text.startswith("refused") for text in tiles(page)] == [
        text.startswith("sample_weight") for text in refused
    ]
    table = page.locator("[data-lossviz=four] table").inner_text()
    for text in refused:
        assert not text.startswith("sample_weight") or text in table
    for bad in ("2, x", "7", "0", "2,2,2,2,2,2", "6,6,6,6"):
        page.fill("[data-key=wshape]", bad)
        page.get_by_role("button", name="Use this shape").first.click()
        assert f"“{bad}”" in alert(page)
        assert cells(page, "sample weights").count() == 6
    page.fill("[data-key=wshape]", "()")
    page.get_by_role("button", name="Use this shape").first.click()
    assert cells(page, "sample weights").count() == 1 and alert(page) == ""


def regimes_text(score, weight, regime):
    try:
        return str(regimes.reduce(score, weight, regime=regime).value)
    except ValueError as error:
        return str(error)


def test_several_outputs(play):
    page = play(preset("Two outputs"))
    page.get_by_text("one below the other").click()
    assert page.inner_text(".lvp .steps li:last-child").endswith("= 3.4")
    page.get_by_role("button", name="Output 2").click()
    page.fill("[data-key=lw]", "0.1")
    assert number(page) == regimes.f.plain((0.7 + 1.1) / 2 + 0.1 * 250, 6)
    page.get_by_role("button", name="Add an output").click()
    assert number(page) == regimes.f.plain((0.7 + 1.1) / 2 + 0.1 * 250 + 1, 6)
    page.get_by_role("button", name="Remove output 3").click()
    page.get_by_role("button", name="Remove output 1").click()
    assert number(page) == regimes.f.plain(0.1 * 250, 6)


BAD = {
    "#play:": "is not of the form name=value",
    "#play:regime=keras-4&axes=b2&e=1,2": "regime=“keras-4” is none of keras-2.2",
    "#play:axes=b2&e=1,2&reduction=max": "reduction=“max” is none of",
    "#play:axes=b9&e=1": "axes=“b9” is not of the form",
    "#play:axes=r2b2&e=1,2,3,4": "is not of the form",
    "#play:e=1": "axes=“” is not of the form",
    "#play:axes=b2&e=1,2,3": "e holds 3 numbers where 2 are needed",
    "#play:axes=b2&e=1,0x10": "e holds something that is not a number",
    "#play:axes=b2&e=1,": "e holds something that is not a number",
    "#play:axes=b2&e=1,2&w=2": "w holds 1 numbers where 2 are needed",
    "#play:axes=b2&e=1,2&w=9:1": "“9” is not a shape",
    "#play:axes=b2&e=1,2&m=2:12": "m holds something that is not 0 or 1",
    "#play:axes=b2&e=1,2&lw=much": "lw holds something that is not a number",
    "#play:axes=b2&e=1,2&axes2=b3&e2=1,2,3": "the outputs have different batch sizes",
    "#play:axes=b2&e=1,2&axes4=b2&e4=1,2": "“axes4” means nothing here",
    "#play:axes=b2&e=1,2&fn=median": "fn=“median” is none of mean, sum",
    "#play:axes=b2&e=1,2&%E0%A4%A": "it holds a broken % sign",
    "#nothing-here": "it does not begin with #play:",
    "#%E0%A4%A": "URI malformed",
    "#play:axes=b1&e=1&<img src=x onerror=alert(1)>=1": "means nothing here",
    "#play:axes=<script>alert(1)</script>&e=1": "is not of the form",
    "#play:" + "a=1&" * 5000 + "b=2": "axes=“” is not of the form",
    "#play:__proto__=1&axes=b1&e=1": "“__proto__” means nothing here",
}


def test_a_broken_address_says_so_and_shows_the_default(play):
    page = play()
    page.on("dialog", lambda dialog: pytest.fail("a script ran"))
    default = number(page)
    go = """hash => new Promise((done) => {
        addEventListener("hashchange", () => setTimeout(() => done([
            document.querySelector(".lvp [role=alert]").textContent, document.querySelector(".lvp output").textContent,
            document.querySelectorAll(".lvp :is(img, script)").length])), { once: true });
        location.hash = hash;
    })"""
    for hash, message in BAD.items():
        said, value, strangers = page.evaluate(go, hash)
        assert message in said and said.endswith("The first question is shown instead."), (hash, said)
        assert value == default and strangers == 0, hash
    assert page.evaluate(go, "#play:axes=b2&e=1,2") == ["", "1.5", 0]  # and back to a good one
    assert page.evaluate(go, "#heading") == ["", "1.5", 0]  # a place on the page is no state: nothing changes


def test_an_address_at_the_start(play):
    page = play()
    start = page.url
    default, padding = preset("Mask and weights"), preset("Padding")
    wanted = {
        "#play:axes=b2&e=1,x": default,
        "#heading": default,
        "#": default,
        padding: padding,
        padding.replace(",", "%2C"): padding,
    }
    for hash, hash_shown in wanted.items():
        page.goto("about:blank")
        page.goto(start + hash)
        assert bool(alert(page)) == ("1,x" in hash)
        assert number(page) == values_of(hash_shown)[re.search("regime=([^&]*)", hash_shown)[1]]


def test_a_shared_link_shows_the_same(play):
    page = play(preset("Zero weights"))
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    cells(page, "score array").nth(1).fill("nan")
    assert number(page) == "NaN"
    page.get_by_role("button", name="Copy link").click()
    page.wait_for_function("document.body.textContent.includes('Link copied.')")
    link = page.evaluate("navigator.clipboard.readText()")
    other = play("#" + link.split("#")[1])
    assert number(other) == "NaN" and tiles(other) == tiles(page)
    other.evaluate(
        "() => { navigator.clipboard.writeText = () => Promise.reject(); }"
    )  # no clipboard: the link stands in a field
    other.get_by_role("button", name="Copy link").click()
    field = other.get_by_role("textbox", name="to copy by hand")
    field.wait_for()
    assert field.input_value().split("#")[1] == link.split("#")[1]


REFUSED = "#play:regime=keras-2.2&reduction=mean_with_sample_weight&axes=b3r3&e=3,5,1,3,1,5,6,4,2&w=3:1,3,0"
WIDEST = "&".join(
    [
        "#play:regime=keras-2.2",
        "axes=b6r4c4k6&fn=sum&e=" + ",".join(["0.123456789"] * 576),
        "w=6x4x4x1x1:" + ",".join(["1"] * 96),
        "m=6x4x4:" + "10" * 48,
        "axes2=b6&e2=1,2,3,4,5,6&w2=2x3:1,2,3,4,5,6",
    ]
)


@pytest.mark.parametrize(
    "hash, dark",
    [("", True), (WIDEST, False), (REFUSED, True), (preset("Two outputs"), False)],
)
def test_on_a_phone(play, hash, dark):
    page = play(hash, width=390, height=844, dark=dark, has_touch=True)
    if dark:
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert alert(page) == ""
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    controls = ".lvp :is(button, select, input:not([type=radio]), summary, label:has(input))"
    small = page.eval_on_selector_all(
        controls,
        """all => all.filter((one) => {
        const box = one.getBoundingClientRect();
        return one.offsetParent && (box.width < 40 || box.height < 44);
    }).map((one) => one.outerHTML.slice(0, 100))""",
    )
    assert small == []
    page.locator("[role=gridcell] > *").nth(0).tap()
    assert focused(page).startswith("batch 0")


def luminance(color):
    r, g, b = ((x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4) for x in color)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_numbers_in_cells_can_be_read(play):
    page = play("#play:axes=b6r4&e=" + ",".join(str(k / 23) for k in range(24)))
    pairs = page.eval_on_selector_all(
        ".lvp [role=gridcell] > *",
        "all => all.map((one) => [getComputedStyle(one).color, getComputedStyle(one).backgroundColor])",
    )
    assert len({background for _, background in pairs}) == 24
    for pair in pairs:
        light, dark = sorted((luminance([int(x) / 255 for x in re.findall(r"\d+", one)]) for one in pair), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_from_a_file(chromium, tmp_path):
    write_pages(tmp_path)
    with browser.visit(chromium, (tmp_path / "index.html").as_uri()) as seen:
        seen.page.get_by_role("button", name="Padding").click()
        assert seen.page.url.endswith(preset("Padding")) and seen.problems == []
    with browser.visit(chromium, (tmp_path / "views.html").as_uri()) as seen:
        assert seen.page.inner_text("#masks output") == "2" and seen.problems == []


# --- embedded views


def view(page, name):
    return page.locator(f"#{name}")


def test_a_view_of_masks(play):
    page = play(page="views")
    one = view(page, "masks")
    errors, mask = np.array([[1, 1, 1], [5, 9, 9]]), np.array([[1, 1, 1], [1, 0, 0]])
    assert one.locator("output").inner_text() == "2"
    shown = one.locator(".tiles b").all_inner_texts()
    wanted = [regimes.reduce(errors, mask=mask, regime=r).value for r in ("keras-2.2", "keras-2.3", "keras-3")]
    assert [text.removesuffix(" ≠") for text in shown] == [regimes.f.plain(x, 6) for x in wanted]
    one.locator("[data-key=m4]").click()
    mask[1, 1] = 1
    value = regimes.reduce(errors, mask=mask, regime="keras-3").value
    assert one.locator("output").inner_text() == regimes.f.plain(value, 6)
    assert "unmasked, it counts again. 2 → 3.4 (+1.4)." in one.locator(".effect").inner_text()
    for _ in range(5):
        one.get_by_role("button", name="Next step").click()
    assert one.locator(".caption").inner_text().endswith("÷ 6 = mean → 3.4")
    link = one.get_by_role("link", name="Open in the playground")
    link.dispatch_event("pointerdown")
    goal = "playground.html#play:regime=keras-3&axes=b2s3&e=1,1,1,5,9,9&m=2x3:111110"
    assert link.get_attribute("href") == goal
    page.wait_for_selector("#masks a[href='playground.html']")
    one.get_by_role("button", name="Start again").click()
    assert one.locator("output").inner_text() == "2" and one.locator("[role=grid]").first.is_visible()
    # a view has its own state: the others have not moved
    assert view(page, "weights").locator("output").inner_text() == "3"


def test_a_view_of_weights(play):
    one = view(play(page="views"), "weights")
    assert one.locator(".pair.over").count() == 1
    one.get_by_text("tf-keras-2.10").click()
    assert one.locator(".pair.left").count() == 1
    one.locator("[data-key=w]").select_option(label="none")
    assert one.locator("[role=grid]").count() == 1 and one.locator("output").inner_text() == "1"


def test_a_view_of_the_last_axis(play):
    one = view(play(page="views"), "class")
    one.locator("[data-key=fn]").select_option("sum")
    assert one.locator(".effect").inner_text() == "mean → sum over class. 0.41667 → 1.25 (+0.833)."
    assert one.locator(".tiles").count() == 0


def test_a_view_of_outputs(play):
    one = view(play(page="views"), "outputs")
    lines = [text.split("\t") for text in one.locator("tbody tr").all_inner_texts()]
    assert [(line[0], line[1], line[3]) for line in lines] == [
        ("price", "4", "4"), ("rating", "1", "10"), ("days", "3", "1.5")
    ]  # fmt: skip
    field = one.get_by_label("loss weight of rating")
    field.fill("")
    field.press_sequentially("0.5")  # what is being typed stays as it is
    assert field.input_value() == "0.5" and one.locator("output").inner_text() == "6"
    assert one.locator(".effect").inner_text().startswith("rating, loss weight: ")
    assert one.locator("tbody tr").nth(1).inner_text().split("\t")[3:] == ["0.5", " 8.33 %"]
    one.get_by_role("button", name="days").click()
    assert one.locator("[role=grid] input").first.input_value() == "3"


def test_a_view_of_the_progress_bar(play):
    one = view(play(page="views"), "batches")
    losses = [1.0, 4.0]
    epoch = regimes.epoch(losses, [2, 1], regime="keras-3")
    lines = [text.split("\t") for text in one.locator("tbody tr").all_inner_texts()]
    assert [line[0] for line in lines] == ["1/2", "2/2"] and [float(line[2]) for line in lines] == losses
    assert [float(line[3]) for line in lines] == list(epoch.bars)
    assert one.locator(".sum").inner_text() == "The epoch ends with 2. The plain mean of the batches would be 2.5."
    one.locator("[data-key=size]").select_option("3")
    assert one.locator("tbody tr").count() == 1 and "plain mean" not in one.locator(".sum").inner_text()
    assert not one.locator(".control").is_visible()


def test_a_view_that_cannot_be_read_says_why(play):
    one = view(play(page="views"), "broken")
    assert "e holds something that is not a number" in one.get_by_role("alert").inner_text()
    assert STILL in one.inner_text()


def test_views_without_scripts(chromium, address):
    with browser.visit(chromium, address.replace("index", "views"), java_script_enabled=False) as seen:
        text = seen.page.inner_text("main")
        assert text.count(STILL) == len(VIEWS)
        assert seen.problems == []


@pytest.mark.parametrize("dark", [False, True])
def test_views_on_a_phone(play, dark):
    page = play(page="views", width=390, height=844, dark=dark, has_touch=True)
    if dark:
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    following = view(page, "masks").get_by_role("button", name="Next step")
    following.tap()
    for name in VIEWS:  # everything within its frame
        inside = view(page, name).evaluate("(one) => one.scrollWidth <= one.clientWidth")
        assert inside, name
    assert view(page, "masks").locator(".stage").is_visible() and following.bounding_box()["height"] >= 44
    background, ink = page.evaluate(
        "(({backgroundColor, color}) => [backgroundColor, color])(getComputedStyle(document.querySelector('.next')))"
    )
    assert background != ink


def test_axe_finds_nothing_serious(chromium, address):
    pytest.importorskip("axe_playwright_python")
    source = Path(find_spec("axe_playwright_python").origin).with_name("axe.min.js").read_text(encoding="utf-8")
    # the question and both themes of the built page: tests/test_site.py
    for page, hash, dark in (("index", preset("Mask and weights"), False), ("views", "", True)):
        with browser.visit(chromium, address.replace("index", page) + hash, reduced_motion="reduce") as seen:
            if dark:
                seen.page.evaluate("document.documentElement.dataset.theme = 'dark'")
            seen.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            seen.page.locator(".next:visible").first.click()
            seen.page.evaluate(source)
            found = seen.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")["violations"]
            serious = [one for one in found if one["impact"] in ("serious", "critical")]
            assert serious == [], [(one["id"], one["nodes"][0]["html"][:300]) for one in serious]


# --- the book


def markdown_of_chapters():
    for file in sorted((ROOT / "book").glob("*.ipynb")):
        for number, cell in enumerate(json.loads(file.read_text(encoding="utf-8"))["cells"]):
            if cell["cell_type"] == "markdown":
                yield file.stem, number, "".join(cell["source"])


def test_views_in_the_chapters_can_be_read(pages):
    found = [
        (name, play)
        for name, _, text in markdown_of_chapters()
        for play in re.findall(r'class="lossviz-play"[^>]*data-play="([^"]*)"', text)
    ]
    assert {name for name, _ in found} >= CHAPTERS_WITH_VIEWS
    for (name, _), page in zip(found, pages([f"#play:{play}" for _, play in found]), strict=True):
        assert page["again"] and len(page["rows"]) == 4, name


def test_the_page_of_the_book():
    text = PAGE.read_text()
    assert "<noscript>" in text and 'data-lossviz="bar"' in text
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert re.findall(r"(?<![\w.])\d+(?:\.\d+)?", prose) == ["1"]  # no number by hand: "rank other than 1"


def test_the_built_page(chromium):
    if not BUILT.is_file():
        pytest.skip("the book is not built (./build.sh)")
    static = BUILT.parent.parent / "_static"
    if (static / "playground.js").read_text() != SCRIPT or (static / "playground.css").read_text() != STYLE:
        assert "LOSSVIZ_SITE" not in os.environ, "this site holds another version of the playground"
        pytest.skip("the book was built from another version of the playground (./build.sh)")
    with browser.serve(BUILT.parent.parent) as site:
        for width in (390, 768, 1280):
            with browser.visit(chromium, f"{site}/book/playground.html{preset('Padding')}", width=width) as seen:
                assert number(seen.page) == values_of(preset("Padding"))["keras-2.3"]
                assert seen.page.evaluate("document.documentElement.scrollWidth") == width
                seen.page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
                seen.page.wait_for_timeout(200)
                covered = seen.page.evaluate(COVERED)
                assert covered == "OUTPUT", (width, covered)
                assert seen.problems == []
        with browser.visit(chromium, f"{site}/book/playground.html", java_script_enabled=False) as seen:
            assert "The playground needs JavaScript" in seen.page.inner_text("article, main")
    for file in BUILT.parent.glob("*.html"):
        text = file.read_text()
        wanted = any(mark in text for mark in playground.MARKS)
        assert ("playground.js" in text) == wanted and "lossvizPlayground" not in text, file.name


#: What lies over the top of the number when the page is scrolled: nothing but the number itself.
COVERED = """() => {
    const box = document.querySelector(".lvp output").getBoundingClientRect();
    return document.elementFromPoint(box.left + 3, box.top + 3).tagName;
}"""
