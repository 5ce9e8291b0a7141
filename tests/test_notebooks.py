"""The rules of notebook_rules.py on every notebook of the book. nbval runs them; this reads them."""

import base64
import json
from pathlib import Path

import check_site
import notebook_rules
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted(Path(ROOT, "book").glob("**/[!.]*.ipynb"))
PAGES = check_site.chapters(Path(ROOT, "_toc.yml"))


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_keeps_the_rules(path):
    assert notebook_rules.problems(read(path)) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_prints_fits_a_phone(path):
    assert notebook_rules.wide_cells(path.stem, read(path)) == []


def test_what_may_be_wider_is_still_needed():
    for name, (source, _) in notebook_rules.WIDE.items():
        cells = notebook_rules.code_cells(read(Path(ROOT, "book", f"{name}.ipynb")))
        lines = [line for cell in cells if source in "".join(cell["source"]) for line in notebook_rules.printed(cell)]
        assert max(map(len, lines)) > notebook_rules.COLUMNS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_is_a_page_of_the_book(path):
    assert path.relative_to(ROOT).with_suffix("").as_posix() in PAGES


@pytest.mark.parametrize("page", PAGES)
def test_page_of_the_book_exists(page):
    assert [suffix for suffix in (".ipynb", ".md") if Path(ROOT, page + suffix).is_file()]


def test_few_cells_are_not_compared():
    unchecked = {path.name: len(notebook_rules.unchecked_cells(read(path))) for path in NOTEBOOKS}
    assert sum(unchecked.values()) <= notebook_rules.MOST_UNCHECKED, unchecked


def test_the_readme_shows_the_front_page_s_first_picture():
    outputs = [out for cell in read(Path(ROOT, "book/index.ipynb"))["cells"] for out in cell.get("outputs", [])]
    pictures = [out["data"]["image/png"] for out in outputs if "image/png" in out.get("data", {})]
    assert base64.b64decode(pictures[0]) == Path(ROOT, "_static", "loss.png").read_bytes()
    assert "](_static/loss.png)" in Path(ROOT, "README.md").read_text(encoding="utf-8")
