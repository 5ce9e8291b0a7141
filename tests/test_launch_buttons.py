"""The buttons of a built page: they open the notebook of the repository that the book was built from."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
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
    page = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# A chapter")])
    nbformat.write(page, folder / "book" / "chapter.ipynb")
    (folder / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters:\n  - file: book/chapter\n")

    def build(address: str) -> set[str]:
        environment = {**os.environ, "LOSSVIZ_REPOSITORY": address}
        command = [sys.executable, "-c", BUILD, "build", ".", "--all", "-q"]
        result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        assert result.returncode == 0, result.stdout + result.stderr
        return set(re.findall(r'href="(http[^"]+)"', (folder / "_build/html/book/chapter.html").read_text()))

    return build


def test_buttons_open_the_notebook_in_the_repository_it_was_built_from(links):
    assert links("https://github.com/reader/fork.git") >= {
        "https://colab.research.google.com/github/reader/fork/blob/notebooks/book/chapter.ipynb",
        "https://mybinder.org/v2/gh/reader/fork/notebooks?urlpath=lab/tree/book/chapter.ipynb",
        "https://github.com/reader/fork",
    }


def test_no_button_where_no_address_is_known(links):
    assert not [link for link in links("") if re.search("colab|binder|github.com/", link)]
