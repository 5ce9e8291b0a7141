"""The pages of the book that are made or kept beside the code: each public name, reading times, terms, citations."""

import ast
import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from docutils import nodes

import lossviz

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "_ext"))
import api_page  # noqa: E402
import breaks  # noqa: E402
import chapter_times  # noqa: E402
import folded  # noqa: E402
import mathml  # noqa: E402
import moved_pages  # noqa: E402

BOOK = sorted(file for suffix in ("ipynb", "md") for file in Path(ROOT, "book").glob(f"[!.]*.{suffix}"))


def prose(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return text
    cells = json.loads(text)["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.fixture(scope="module")
def page():
    return api_page.Writer()


def full_name(at: int, lines: list[str]) -> str:
    """What the directive in line `at` describes, with the module that its option names."""
    name = lines[at].split("}", 1)[1].split("(")[0].strip()
    module = lines[at + 1].removeprefix(":module: ")
    return f"{module}.{name}" if module else name


def test_every_public_name_is_on_the_page(page):
    titles = [full_name(at, page.lines) for at, line in enumerate(page.lines) if "{py:" in line]
    headings = [line.removeprefix("## ") for line in page.lines if line.startswith("## ")]
    assert sorted(name.removeprefix("lossviz.") for name in headings) == sorted(lossviz.__all__)
    for name in lossviz.__all__:
        value = getattr(lossviz, name)
        if not isinstance(value, type(lossviz)):
            assert f"lossviz.{name}" in titles
            continue
        own = getattr(value, "__all__", None) or [
            key
            for key, one in vars(value).items()
            if not key.startswith("_") and getattr(one, "__module__", "") == value.__name__
        ]
        assert {f"lossviz.{name}.{key}" for key in own} <= set(titles)


def test_every_public_name_has_a_docstring(page):
    assert page.bare == []


def test_page_says_what_the_docstrings_say(page):
    text = "\n".join(page.lines)
    title = next(line for line in page.lines if line.startswith("`````{py:function} explain("))
    assert title.endswith("verbose='auto', fresh=False)") and "max_elements=50000000" in title
    assert "- `class_weight`: `{class: weight}`, as for `model.fit`; not together with `sample_weight`." in text
    assert "**Raises:**" in text


def test_docstring_becomes_markdown():
    docstring = """Do it.

        f = a / b

    `how` is done in this order:

        1. a, then
           its square
        2. b

    Args:
        a, b: two numbers,
            on two lines.
        how: one of
            "fast"  at once
            "slow"  later

    Source: a paper.
    """
    assert "\n".join(line for line in api_page.markdown(docstring) if line) == "\n".join(
        [
            *("Do it.", "```text", "f = a / b", "```"),
            *("`how` is done in this order:", "1. a, then", "   its square", "2. b", "**Args:**"),
            *(
                "- `a`, `b`: two numbers,",
                "  on two lines.",
                "- `how`: one of",
                '  - `"fast"`: at once',
                '  - `"slow"`: later',
            ),
            "**Source:** a paper.",
        ]
    )


def test_signature_has_values_and_no_types():
    tree = ast.parse("MANY = 7\ndef f(self, a: int, *b, c: str = 'x', d=MANY, **e) -> None: ...")
    assert api_page.signature(tree.body[1], tree) == "(a, *b, c='x', d=7, **e)"


def test_times_stand_below_the_title(tmp_path):
    cells = [{"cell_type": "markdown", "metadata": {}, "source": "word " * 400}]
    path = tmp_path / "page.ipynb"
    path.write_text(json.dumps({"cells": cells, "metadata": {"lossviz": {"seconds": 15}}}))
    env = SimpleNamespace(docname="page", doc2path=lambda name: path)
    app = SimpleNamespace(env=env, config=SimpleNamespace(root_doc="index"))
    document = nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "text"))
    chapter_times.add_times(app, document)
    assert [node.astext() for node in document] == [
        "Title",
        "2 minutes to read; about 15 seconds to run, on two cores",
        "text",
    ]


@pytest.mark.parametrize(
    ("mode", "source", "picture", "fold"),
    [
        ("input", "plt.show()", True, "How this picture is made"),
        ("input", "print(1)", False, "The code"),
        ("all", "print(1)", False, "The code, and what it prints"),
        ("all", 'lossviz.exercises.check(3, "f8faf8b9")', False, "The solution in code"),
        (None, "print(1)", False, None),
    ],
)
def test_a_fold_says_what_is_in_it(mode, source, picture, fold):
    output = nodes.container("", nodes.image()) if picture else nodes.container()
    cell = nodes.container("", nodes.container("", nodes.literal_block(source, source)), output)
    if mode:
        cell["hide_mode"] = mode
    folded.name_folds(None, nodes.section("", cell))
    assert cell.get("prompt_show") == cell.get("prompt_hide") == fold


def test_long_names_break_at_their_seams_in_tables_and_headings():
    cell = (
        '<td class="a"><code title="find_nonfinite(x)"><span>lossviz.find_nonfinite(model)</span></code> and.so on</td>'
    )
    broken = cell.replace(">lossviz.find_nonfinite(model)", ">lossviz.<wbr>find_<wbr>nonfinite(<wbr>model)")
    assert breaks.breakable(cell) == broken
    assert breaks.breakable("<h1>SparseCategoricalCrossentropy</h1>").count("<wbr>") == 2
    for other in ("<p><code>lossviz.find_nonfinite(model)</code></p>", "<td>mean_with_sample_weight</td>"):
        assert breaks.breakable(other) == other


VERSION = 'print("Keras", keras.__version__, "on", keras.backend.backend())'


@pytest.mark.parametrize(
    ("source", "quiet"),
    [
        (VERSION, True),
        (f"import keras\n\n{VERSION}", True),
        (f'{VERSION}\nprint("TensorFlow", tf.__version__)', True),
        (f'{VERSION}\nprint("epsilon", keras.config.epsilon())', False),
        ("print(1)", False),
    ],
)
def test_what_only_prints_versions_is_a_quiet_line(source, quiet):
    code = nodes.container("", nodes.literal_block(source, source), classes=["cell_input"])
    cell = nodes.container("", code, nodes.container("", nodes.literal_block("", "Keras 3.15.1")), classes=["cell"])
    folded.quiet_versions(None, nodes.section("", cell))
    assert ("versions" in cell["classes"]) == quiet
    assert (source not in cell.astext()) == quiet and "Keras 3.15.1" in cell.astext()


def test_pages_that_moved_lead_to_pages_that_exist(tmp_path):
    assert moved_pages.MOVED
    for old, new in moved_pages.MOVED.items():
        assert not list(ROOT.glob(f"{old}.*")) and list(ROOT.glob(f"{new}.*"))
    builder, config = SimpleNamespace(format="html"), SimpleNamespace(language="en")
    app = SimpleNamespace(builder=builder, config=config, srcdir=ROOT, outdir=tmp_path)
    (tmp_path / "book").mkdir()
    moved_pages.write(app, None)
    for old, new in moved_pages.MOVED.items():
        page = (tmp_path / f"{old}.html").read_text(encoding="utf-8")
        assert f'<a href="{new.removeprefix("book/")}.html">' in page
        assert '"q-01": "progress_bar"' in page  # an address with a question leads to that question's page


def test_formula_becomes_mathml():
    assert mathml.mathml(r"\frac{a}{2}", "block").startswith("<math xmlns=")
    assert "<mfrac><mrow><mi>a</mi></mrow><mrow><mn>2</mn></mrow></mfrac>" in mathml.mathml(r"\frac{a}{2}", "inline")
    assert '<mi>log</mi><mspace width="0.17em"/><mi>p</mi>' in mathml.mathml(r"\log p", "inline")


def test_every_reference_is_cited_and_has_an_address():
    entries = re.split(r"^@", Path(ROOT, "book", "references.bib").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    keys = [re.match(r"\w+\{(\w+),", entry)[1] for entry in entries]
    assert all(re.search(r"^  (doi|url) = \{\S+\}", entry, re.MULTILINE) for entry in entries)
    cited = {
        key for file in BOOK for keys in re.findall(r"\{cite:\w\}`([^`]+)`", prose(file)) for key in keys.split(",")
    }
    assert cited == set(keys)


def test_glossary_is_in_order_and_its_words_are_those_of_the_book():
    glossary = Path(ROOT, "book", "glossary.md").read_text(encoding="utf-8")
    terms = re.findall(r"^(\w[\w ]*)$", glossary.split("```{glossary}")[1], re.MULTILINE)
    assert terms == sorted(terms, key=str.casefold) and len(terms) > 20
    chapters = "\n".join(prose(file) for file in BOOK if file.stem not in ("glossary", "api")).lower()
    # in the plural too, and as one word of several
    assert not [term for term in terms if term.lower().removesuffix("e") not in chapters]


def test_citation_file_is_whole():
    citation = yaml.safe_load(Path(ROOT, "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)  # what the schema 1.2.0 asks for
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software"
    assert str(citation["version"]) == lossviz.__version__
    assert all("name" in author for author in citation["authors"])


def test_changelog_knows_this_version():
    changelog = Path(ROOT, "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(lossviz.__version__)}\b", changelog, re.MULTILINE)


def test_contributing_names_files_that_are_there():
    text = Path(ROOT, "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = set(re.findall(r"(?:\./|\b)(?:[\w.]+/)*[\w.]+\.(?:py|sh|md|yml|bib|ipynb)\b", text))
    assert len(named) > 10
    assert not [name for name in named - {"book/my_chapter.ipynb"} if not Path(ROOT, name).is_file()]
