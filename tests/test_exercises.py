"""The exercises of the book: which answers `check` takes for right, and that the page's script takes the same ones."""

import ast
import json
import re
from pathlib import Path

import browser
import numpy as np
import pytest

from lossviz.exercises import check, key

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "_static" / "exercises.js"
CHAPTERS = sorted(Path(ROOT, "book").glob("[!.]*.ipynb"))

THIRD = 1 / 3
ALIKE = [  # an answer, and what is as good
    (THIRD, [0.333, 0.3333, np.float32(THIRD), np.array(THIRD), np.array([THIRD])]),
    (1000, [1000.0, 999.9, np.int64(1000)]),
    (0.0, [0, -0.0, 0.0]),
    (-0.4032, [-0.403]),
    (0.12349999, [0.1235, 0.1234]),  # at the border of two roundings
    (float("nan"), [float("nan"), np.nan]),
    (float("inf"), [float("inf")]),
    ("class", ["Class", " class "]),
    ("batch size", ["Batch  size"]),
    (True, [True, np.bool_(True)]),
    ((1.5, 3, "no"), [[1.5, 3, "NO"]]),
    ([[1, 2], [3, 4]], [(1, 2, 3, 4), np.arange(1.0, 5.0)]),
    ({"a": 1, "b": 2}, [(1, 2)]),
]
UNLIKE = [
    (THIRD, [0.33, 0.334, -THIRD, 3, "1/3", True, (THIRD, THIRD)]),
    (1000, [100, 1010, 990]),
    (1, [True, "1", 1.02, -1]),
    (True, [False, 1, "yes"]),
    (float("nan"), [0.0, float("inf")]),
    ((1, 2), [(2, 1), (1,), (1, 2, 3), 1]),
]


@pytest.mark.parametrize(("answer", "same"), [(a, b) for a, all in ALIKE for b in all])
def test_right(answer, same):
    said = check(same, key(answer))
    assert said and repr(said) == "right"


@pytest.mark.parametrize(("answer", "other"), [(a, b) for a, all in UNLIKE for b in all])
def test_not_yet(answer, other):
    said = check(other, key(answer), hint="Count the rows.")
    assert not said
    assert repr(said).startswith("not yet") and repr(said).endswith("Count the rows.")


@pytest.mark.parametrize("answer", [..., None, (..., 2), [None, 1], [], np.array([])])
def test_not_answered(answer):
    assert repr(check(answer, "00000000-00000001")).startswith("not answered yet")
    with pytest.raises(ValueError, match="no value to make a key of"):
        key(answer)


def test_several_say_how_many_are_right():
    assert "2 of 3 are right" in repr(check((1, 2, 4), key((1, 2, 3))))
    assert "3 values are asked for, and you gave 2" in repr(check((1, 2), key((1, 2, 3))))
    assert "1 value is asked for, and you gave 2" in repr(check((1, 2), key(1)))


def test_the_page_is_told_key_and_hint_only_while_there_is_no_answer():
    waiting = check(..., key(7), hint='more than "six" & less')._repr_html_()
    assert f'data-key="{key(7)}" data-hint="more than &quot;six&quot; &amp; less"' in waiting
    assert "data-" not in check(6, key(7), hint="more")._repr_html_()


def exercise_keys(path: Path) -> tuple[list[str], list[str]]:
    """The second arguments of `check` in a chapter: the keys of its questions, and of its folded solutions."""
    found: tuple[list[str], list[str]] = [], []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and not cell["source"][0].startswith("%"):
            solution = "hide-cell" in cell["metadata"].get("tags", [])
            for node in ast.walk(ast.parse("".join(cell["source"]))):
                second = node.args[1] if isinstance(node, ast.Call) and len(node.args) > 1 else None
                value = second.value if isinstance(second, ast.Constant) else None
                if isinstance(value, str) and re.fullmatch("[0-9a-f]{8}(-[0-9a-f]{8})*", value):
                    found[solution].append(value)
    return found


SOLVED = [path for path in CHAPTERS if exercise_keys(path)[1]]


@pytest.mark.parametrize("path", SOLVED, ids=lambda path: path.stem)
def test_a_page_that_solves_an_exercise_solves_each(path):
    """The folded solution gives its answer to the same key, and nbval compares what is stored: "right"."""
    questions, solutions = exercise_keys(path)
    assert sorted(questions) == sorted(solutions)
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    said = [out["data"]["text/plain"] for cell in cells for out in cell.get("outputs", []) if "data" in out]
    assert sum("".join(text) == "right" for text in said) == len(solutions)


TYPED = [
    (THIRD, "0.333", "right"),
    (THIRD, "1/3", "right"),
    (THIRD, "1 / 3", "right"),
    (THIRD, "33.3 %", "right"),
    (THIRD, "0.33", "not yet. hint"),
    (-0.4032, "\u22120.403", "right"),
    (1000, "1e3", "right"),
    (0.0, "0", "right"),
    (0.12349999, "0.1235", "right"),
    (65536, "65536", "right"),
    (float("nan"), "NaN", "right"),
    ("batch size", "Batch  size", "right"),
    (True, "True", "right"),
    ((1.5, 3, "no"), "1.5, 3 no", "right"),
    ((1, 2, 3), "1 2 4", "not yet (2 of 3 are right). hint"),
    ((1, 2, 3), "1 2", "not yet: 3 values are asked for, and you gave 2. hint"),
    (1, "  ", "not answered yet"),
]


def test_the_script_of_the_page_agrees(tmp_path):
    (tmp_path / "exercises.js").write_bytes(SCRIPT.read_bytes())
    box = check(..., key(THIRD), hint="hint")._repr_html_()
    (tmp_path / "index.html").write_text(
        f'<!doctype html><link rel=icon href="data:,"><script src=exercises.js></script>{box}', encoding="utf-8"
    )
    with (
        browser.serve(tmp_path) as address,
        browser.launch() as chromium,
        browser.visit(chromium, f"{address}/index.html") as seen,
    ):
        ask = "([answer, key]) => lossvizExercises.verdict(answer, key, 'hint')"
        said = [seen.page.evaluate(ask, [typed, key(answer)]) for answer, typed, _ in TYPED]
        assert said == [words for *_, words in TYPED]
        for typed, words in (("0.2", "not yet. hint"), ("0.333", "right")):
            seen.page.fill("input", typed)
            seen.page.click("button")
            assert seen.page.inner_text("output") == words
        assert seen.problems == []
