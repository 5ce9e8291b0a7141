"""scripts/reading.py: what it counts as reading, and what it takes for the same toy."""

import json
from pathlib import Path

import pytest
import reading

ROOT = Path(__file__).parent.parent
PARTS = [pages for _, pages in reading.parts(ROOT / "_toc.yml")]
NOTEBOOKS = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in ROOT.glob("book/[!.]*.ipynb")}

WHOLE, PATH, HISTORY = 390, 45, 200  # minutes: the book, the path in a hurry, and the puzzle to the end of history


def notebook(*cells):
    """Cells as (kind, source, tags)."""
    keys = ("cell_type", "source", "tags")
    made = [dict(zip(keys, (*cell, [])[:3])) for cell in cells]
    return {"cells": [{**cell, "metadata": {"tags": cell.pop("tags")}} for cell in made]}


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("plain **bold** `code`", "plain **bold** `code`"),
        ("see [The masks](masks) there", "see The masks there"),
        ("![long alt text](figure.png)", "long alt text"),
        ('<a id="q-01"></a>\n## Why', "\n## Why"),
        ("the {term}`score array` of it", "the score array of it"),
        ("{term}`scores <score array>`", "scores "),
        ("as {cite:p}`ronneberger2015` says", "as  says"),
        ("before\n<details>\n<summary>Solution</summary>\n\nlong text\n\n</details>\nafter", "before\n\nafter"),
    ],
)
def test_visible(markdown, text):
    assert reading.visible(markdown) == text


def test_minutes():
    text, code = ("markdown", "word " * 200), ("code", "name " * 100)
    folded = [("code", "name " * 900, [tag]) for tag in reading.FOLDED]
    assert reading.minutes(notebook(text)) == reading.minutes(notebook(code)) == 1
    assert reading.minutes(notebook(text, code, *folded)) == 2
    assert reading.minutes(notebook(text, ("markdown", "more"))) == 2
    assert reading.minutes(notebook()) == 1


def test_parts(tmp_path):
    toc = tmp_path / "_toc.yml"
    lines = (
        "root: book/index",
        "parts:",
        "  - caption: First",
        "    chapters:",
        "      - file: book/a",
        "  - caption: Then",
    )
    toc.write_text("\n".join(lines) + "\n")
    assert reading.parts(toc) == [("First", ["a"]), ("Then", [])]


def test_repeated_toys():
    same = ("code", "a = np.array([[1, 2], [3, 4]])")
    function = ("code", "def f(t, p):\n    return t - p")
    one = notebook(same, function, ("code", "names = ['a', 'b', 'c']; some = [1, 2]; ones = [1, 1, 1]"))
    two = notebook(
        ("code", "b = g([[1.0, 2], [3, 4]])"), ("code", "names = ['a', 'b', 'c']; ones = [1, 1, 1]"), function
    )
    three = notebook(("code", "[[1, 2], [3, 5]]"), ("code", "%magic"), ("code", "[[1, 2], [3, 4]]", ["remove-cell"]))
    found = reading.repeated({"one": one, "two": two, "three": three})
    assert sorted(found.values()) == [["one", "two"], ["one", "two"]]
    assert {toy[:3] for toy in found} == {"[[1", "def"}


def minutes_of(*parts):
    return sum(reading.minutes(NOTEBOOKS[page]) for pages in parts for page in pages if page in NOTEBOOKS)


def test_the_book_is_one_that_a_reader_finishes():
    assert minutes_of(*PARTS) <= WHOLE
    assert minutes_of(*PARTS[:2]) <= HISTORY
    assert sum(reading.short_minutes(NOTEBOOKS[page]) for page in reading.PATH) <= PATH
    assert [page for page in NOTEBOOKS if reading.minutes(NOTEBOOKS[page]) > reading.LONGEST] == []


def test_each_toy_has_one_home():
    assert reading.repeated(NOTEBOOKS) == {}
