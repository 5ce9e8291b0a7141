"""The appendix `questions`: every question has a link, and every link leads to a cell with a stored answer."""

import json
import re
from pathlib import Path

import check_site
import pytest

ROOT = Path(__file__).parent.parent
APPENDIX = Path(ROOT, "book", "questions.md").read_text(encoding="utf-8")
PAGES = [Path(page).name for page in check_site.chapters(Path(ROOT, "_toc.yml"))[1:]]  # behind the front page
LINE = re.compile(r'^(\d+)\. <a href="(\w+)\.html#(q-\d\d)">(.+)</a>$', re.MULTILINE)
QUESTIONS = [match.groups() for match in LINE.finditer(APPENDIX)]
ASKED = 50
NEAR = 3  # cells from the anchor to the answer


def cells(page: str) -> list[dict]:
    return json.loads(Path(ROOT, "book", f"{page}.ipynb").read_text(encoding="utf-8"))["cells"]


def anchor_problem(cells: list[dict], anchor: str) -> str:
    """Why this anchor does not lead to an answer, in words; an empty string where it does."""
    sources = ["".join(cell["source"]) for cell in cells]
    tag = f'<a id="{anchor}"></a>'
    places = [k for k, source in enumerate(sources) for _ in range(source.count(tag))]
    if len(places) != 1:
        return f"{tag} is there {len(places)} times"
    (place,) = places
    if cells[place]["cell_type"] != "markdown":
        return f"{tag} is not in a markdown cell"
    following = cells[place + 1 : place + 1 + NEAR]
    if not any(cell.get("outputs") for cell in following):
        return f"no code cell with a stored output within {NEAR} cells after {tag}"
    return ""


def test_every_question_is_asked_once_and_in_order():
    assert [int(number) for number, *_ in QUESTIONS] == list(range(1, ASKED + 1))
    assert len({words for *_, words in QUESTIONS}) == ASKED


def test_no_numbered_line_is_malformed():
    assert len(re.findall(r"^\d+\.", APPENDIX, re.MULTILINE)) == ASKED


@pytest.mark.parametrize(
    ("number", "page", "anchor", "words"), QUESTIONS, ids=[anchor for _, _, anchor, _ in QUESTIONS]
)
def test_question_has_an_answer(number, page, anchor, words):
    assert anchor == f"q-{int(number):02}"
    assert words.endswith(("?", ")"))
    assert page in PAGES, f"{page} is not in _toc.yml"
    assert anchor_problem(cells(page), anchor) == ""


def test_every_anchor_of_the_book_is_one_of_a_question():
    known = {anchor for _, _, anchor, _ in QUESTIONS}
    for page in PAGES:
        if Path(ROOT, "book", f"{page}.ipynb").is_file():
            text = "\n".join("".join(cell["source"]) for cell in cells(page))
            found = re.findall(r'<a id="(q-[^"]*)"></a>', text)
            assert set(found) <= known, page
            assert len(found) == len(set(found)), page


MARK = {"cell_type": "markdown", "source": ['<a id="q-01"></a>\n', "## Why?"]}
CODE = {"cell_type": "code", "source": ["1"], "outputs": [{"output_type": "stream"}]}
QUIET = {"cell_type": "code", "source": ["x = 1"], "outputs": []}


@pytest.mark.parametrize(
    ("notebook", "problem"),
    [
        ([MARK, CODE], ""),
        ([MARK, QUIET, QUIET, CODE], ""),
        ([MARK, QUIET, QUIET, QUIET, CODE], "no code cell with a stored output"),
        ([CODE, MARK], "no code cell with a stored output"),
        ([MARK, CODE, MARK, CODE], "2 times"),
        ([{**MARK, "source": MARK["source"] * 2}, CODE], "2 times"),
        ([CODE], "0 times"),
        ([{**MARK, "cell_type": "raw"}, CODE], "not in a markdown cell"),
    ],
)
def test_what_is_found_wrong_with_an_anchor(notebook, problem):
    found = anchor_problem(notebook, "q-01")
    assert problem in found if problem else not found
