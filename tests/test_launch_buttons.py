"""What a built page has where its address is known: buttons that open its notebook, and a head that says what it is."""

import base64
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
ALT = "A single pixel, and the words that say so."
PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")
BUILD = "import sys; from jupyter_book.cli.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def links(tmp_path_factory):
    """Build a book of one chapter with the configuration of the real one; return the links of that chapter."""
    folder = tmp_path_factory.mktemp("book")
    for name in ("_ext", "_static", "_templates", "scripts", "book/_playground"):
        shutil.copytree(ROOT / name, folder / name)
    for path in (ROOT / "_config.yml", ROOT / "book" / "questions.md", *ROOT.glob("book/*.bib")):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    (folder / "book").mkdir(exist_ok=True)
    (folder / "book" / "index.md").write_text("# A book\n")
    code = nbformat.v4.new_code_cell("1", metadata={"mystnb": {"image": {"alt": ALT}}})
    code.outputs = [nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(PNG).decode()})]
    text = nbformat.v4.new_markdown_cell(
        "# A chapter\n\n> A question?\n\nIt begins.\n\n**In one sentence.** It's *this* & no more."
    )
    page = nbformat.v4.new_notebook(cells=[text, code])
    nbformat.write(page, folder / "book" / "chapter.ipynb")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapter\n")

    def build(address: str) -> set[str]:
        environment = {**os.environ, "LOSSVIZ_REPOSITORY": address}
        shutil.rmtree(build.html, ignore_errors=True)
        command = [sys.executable, "-c", BUILD, "build", ".", "--all", "-q"]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return set(re.findall(r'href="(http[^"]+)"', (folder / "_build/html/book/chapter.html").read_text()))

    build.html = folder / "_build" / "html"
    return build


def test_buttons_open_the_notebook_in_the_repository_it_was_built_from(links):
    assert links("https://github.com/reader/fork.git") >= {
        "https://colab.research.google.com/github/reader/fork/blob/notebooks/book/chapter.ipynb",
        "https://mybinder.org/v2/gh/reader/fork/notebooks?urlpath=lab/tree/book/chapter.ipynb",
        "https://github.com/reader/fork",
    }


def test_heads_and_lists_say_what_each_page_is(links):
    """Of the same build as above."""
    if not (links.html / "sitemap.xml").is_file():
        links("https://github.com/reader/fork.git")
    home, page = "https://reader.github.io/fork", (links.html / "book" / "chapter.html").read_text()
    tags = {
        name: unescape(text) for name, text in re.findall(r'<meta (?:name|property)="([\w:]+)" content="([^"]*)"', page)
    }
    assert tags["description"] == tags["og:description"] == "It\u2019s this & no more."
    assert tags["og:title"] == "A chapter" and tags["og:url"] == f"{home}/book/chapter.html"
    assert tags["og:image"] == f"{home}/_images/first/book/chapter.png" and tags["og:image:alt"] == ALT
    assert (links.html / "_images" / "first" / "book" / "chapter.png").read_bytes() == PNG
    front = (links.html / "index.html").read_text()
    assert f'content="{home}/_static/loss.png"' in front and (links.html / "_static" / "loss.png").is_file()
    places = re.findall(r"<loc>(.*)</loc>", (links.html / "sitemap.xml").read_text())
    assert places == [f"{home}/book/index.html", f"{home}/book/chapter.html"]
    lines = (links.html / "llms.txt").read_text().splitlines()
    assert lines[0] == "# How a loss becomes one number"
    assert f"- [A chapter]({home}/book/chapter.html): It\u2019s this & no more." in lines


def test_no_button_where_no_address_is_known(links):
    assert not [link for link in links("") if re.search("colab|binder|github.com/", link)]
    assert not (links.html / "sitemap.xml").exists() and not (links.html / "llms.txt").exists()
    page = (links.html / "book" / "chapter.html").read_text()
    assert "og:image" not in page and 'name="description"' in page
