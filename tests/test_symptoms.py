"""The page `symptoms`: every line has a link, and every link leads to a section of a page of the book."""

import json
import math
import re
from pathlib import Path

import check_site
import pytest

ROOT = Path(__file__).parent.parent
PAGE = Path(ROOT, "book", "symptoms.md").read_text(encoding="utf-8")
PAGES = [Path(page).name for page in check_site.chapters(Path(ROOT, "_toc.yml"))[1:]]  # behind the front page
LINE = re.compile(r'^- \*\*([^\n]+?)\*\* ((?:.|\n)+?)\n  → <a href="(\w+)\.html#([\w-]+)">([^\n]+)</a>$', re.MULTILINE)
SYMPTOMS = [match.groups() for match in LINE.finditer(PAGE)]
LEAST = 50


def anchors(page: str) -> list[str]:
    """What a link to the page may name: its own anchors, and its headings as Sphinx writes them."""
    notebook = json.loads(Path(ROOT, "book", f"{page}.ipynb").read_text(encoding="utf-8"))
    text = "\n\n".join("".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "markdown")
    headings = re.findall(r"^#{1,4} (.+)$", text, re.MULTILINE)
    return [*re.findall(r'<a id="([^"]+)"></a>', text), *map(identifier, headings)]


def identifier(heading: str) -> str:
    """docutils.nodes.make_id: small letters and digits, everything else a hyphen, no digit in front."""
    return re.sub(r"^[\d-]+|-+$", "", re.sub(r"[^a-z0-9]+", "-", heading.lower()))


def test_there_are_many_and_none_twice():
    assert len(SYMPTOMS) >= LEAST
    assert len({symptom for symptom, *_ in SYMPTOMS}) == len(SYMPTOMS)


def test_no_line_is_malformed():
    assert len(re.findall(r"^- ", PAGE, re.MULTILINE)) == len(SYMPTOMS)
    assert PAGE.count("→") == PAGE.count("</a>") == len(SYMPTOMS)


def test_they_are_in_groups():
    groups = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(groups) >= 6
    assert all(len(re.findall(r"^- ", group, re.MULTILINE)) >= 3 for group in groups)


@pytest.mark.parametrize(("symptom", "why", "page", "anchor", "words"), SYMPTOMS, ids=[s[0][:40] for s in SYMPTOMS])
def test_symptom_leads_to_a_section(symptom, why, page, anchor, words):
    assert symptom[-1] in '.!?"' and why.strip().rstrip("*").endswith((".", "?"))
    assert page in PAGES, f"{page} is not in _toc.yml"
    assert anchors(page).count(anchor) == 1, f"{page} has {anchor!r} {anchors(page).count(anchor)} times"


def test_logarithms_of_the_number_of_classes():
    stays = next(symptom for symptom, *_ in SYMPTOMS if symptom.startswith("The loss stays at"))
    assert re.findall(r"\d\.\d+", stays) == [f"{math.log(classes):.3f}" for classes in (2, 3, 10)]


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("The weight of 1000", "the-weight-of-1000"),
        ("`fit` is not `evaluate`", "fit-is-not-evaluate"),
        ("add_loss: a number", "add-loss-a-number"),
        ("3 ways, and more?", "ways-and-more"),
    ],
)
def test_identifiers(heading, anchor):
    assert identifier(heading) == anchor
