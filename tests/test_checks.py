"""The checks themselves are checked: each is given something wrong, and must say so."""

import base64
import copy
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import browser
import check_site
import nbformat
import notebook_rules
import numpy as np
import pytest
import run_notebooks
from PIL import Image

from conftest import picture_difference

ROOT = Path(__file__).parent.parent

ALT = "A line through four squares, steeper and steeper: 0, 1, 4 and 9."

FIGURE = """
import matplotlib.pyplot as plt
plt.plot([0, 1, 4, 9])
plt.show()
"""


def outside_pytest(*command: object, folder: Path) -> subprocess.CompletedProcess:
    """Run Python in a folder as if no test were running."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "PYTHONPATH"))}
    arguments = [sys.executable, *map(str, command)]
    return subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A small checkout with a good notebook (a number, a figure, an expected error), stored by run_notebooks.py."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    for name in ("scripts", "lossviz"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "tests").mkdir()
    shutil.copy(ROOT / "tests" / "sanitize.cfg", folder / "tests")
    (folder / "book").mkdir()
    notebook = nbformat.v4.new_notebook(metadata={"editor": "leaves things here"})
    notebook.cells = [
        nbformat.v4.new_markdown_cell("# A page"),
        nbformat.v4.new_code_cell("print(6 * 7)"),
        nbformat.v4.new_code_cell(
            FIGURE, metadata={"mystnb": {"image": {"alt": ALT}}, "collapsed": True, "tags": ["hide-input"]}
        ),
        nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),
    ]
    nbformat.write(notebook, folder / "book" / "good.ipynb")
    address = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("object()")])
    nbformat.write(address, folder / "book" / "address.ipynb")
    result = outside_pytest("scripts/run_notebooks.py", folder=folder)
    assert result.returncode == 0, result.stderr
    assert "good.ipynb: " in result.stdout and " MB" in result.stdout
    return folder


@pytest.fixture
def good(book):
    return json.loads((book / "book" / "good.ipynb").read_text())


def test_running_again_writes_the_same_bytes(book, good):
    names = ["book/good.ipynb", "book/address.ipynb"]
    first = [(book / name).read_bytes() for name in names]
    result = outside_pytest("scripts/run_notebooks.py", *names, folder=book)
    assert result.returncode == 0, result.stderr
    assert [(book / name).read_bytes() for name in names] == first
    assert good["cells"][3]["metadata"] == {"mystnb": {"image": {"alt": ALT}}, "tags": ["hide-input"]}
    assert "editor" not in good["metadata"]
    assert good["metadata"]["lossviz"]["seconds"] in range(5, 61, 5)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import sys\nprint('careful', file=sys.stderr)", "writes to stderr"),
        ("raise ValueError('no tag')", "no tag"),
    ],
)
def test_run_notebooks_refuses_and_stores_nothing(book, tmp_path, source, message):
    path = tmp_path / "bad.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)]), path)
    before = path.read_bytes()
    result = outside_pytest("scripts/run_notebooks.py", path, folder=book)
    assert result.returncode == 1
    assert message in result.stderr
    assert path.read_bytes() == before


def test_nbval_here_fails_what_was_tampered_with(book, good):
    """A changed number, a changed picture and a lost picture fail; nothing else does, not even an object's address."""
    folder = book / "tampered"
    folder.mkdir()
    number, picture, lost = (copy.deepcopy(good) for _ in range(3))
    number["cells"][2]["outputs"][0]["text"] = ["43\n"]
    drawn = figure_output(picture)
    drawn["data"]["image/png"] = png(255 - pixels(drawn["data"]["image/png"]))
    del figure_output(lost)["data"]["image/png"]
    shutil.copy(book / "book" / "address.ipynb", folder)
    for name, notebook in {"good": good, "number": number, "picture": picture, "lost": lost}.items():
        (folder / f"{name}.ipynb").write_text(json.dumps(notebook))
    result = outside_pytest("-m", "pytest", "tampered", "-rA", "-p", "no:cacheprovider", folder=book)
    outcomes = {line.split(" - ")[0] for line in result.stdout.splitlines() if line.startswith(("PASSED", "FAILED"))}
    failed = {line for line in outcomes if line.startswith("FAILED")}
    assert failed == {
        "FAILED tampered/number.ipynb::Cell 1",
        "FAILED tampered/picture.ipynb::Cell 2",
        "FAILED tampered/lost.ipynb::Cell 2",
    }, result.stdout
    assert len(outcomes) == 18
    assert "of the pixels differ" in result.stdout
    assert "0 pictures stored, 1 drawn now" in result.stdout


def figure_output(notebook: dict) -> dict:
    return next(out for out in notebook["cells"][3]["outputs"] if "image/png" in out.get("data", {}))


def pixels(base64_png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(base64_png))).convert("RGB"))


def png(values: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(values.astype("uint8")).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def line_plot(scale: float = 1.0, width: float = 6.4) -> np.ndarray:
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(width, 4.8))
    x = np.linspace(0, 6, 200)
    axes.plot(x, scale * np.sin(x))
    axes.set_ylim(-1.5, 1.5)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    plt.close(figure)
    return np.asarray(Image.open(file).convert("RGB"))


def test_pictures_that_count_as_the_same():
    stored = line_plot()
    speckled = stored.copy()
    speckled[::97, ::97] = 0  # 0.01 % of the pixels: what another CPU does
    noisy = np.where(np.indices(stored.shape).sum(0) % 7 == 0, np.maximum(stored, 1) - 1, stored)
    for other in (stored, speckled, noisy):
        assert picture_difference(png(stored), png(other)) == ""


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (lambda: line_plot(scale=1.02), "of the pixels differ"),
        (lambda: line_plot() // 2 + 120, "on average by"),
        (lambda: line_plot(width=6.5), "stored with 640x480 pixels, now 650x480"),
    ],
    ids=["line 2 % higher", "paler", "wider"],
)
def test_pictures_that_count_as_different(other, words):
    assert words in picture_difference(png(line_plot()), png(other()))


def change(cell: int, **values):
    def apply(notebook):
        notebook["cells"][cell].update(values)

    return apply


def strip(notebook):
    for cell in notebook_rules.code_cells(notebook):
        cell.update(outputs=[], execution_count=None)


def as_svg(notebook):
    data = figure_output(notebook)["data"]
    data["image/svg+xml"] = data.pop("image/png")


def twice_the_figure(notebook):
    notebook["cells"][2]["outputs"] *= 2


def alt(words):
    return {"mystnb": {"image": {"alt": words}}}


STDERR = [{"output_type": "stream", "name": "stderr", "text": "careful"}]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (strip, "was not run"),
        (change(1, source="import lossviz"), "does not install lossviz"),
        (change(2, execution_count=7), "was not run"),
        (change(2, outputs=STDERR), "writes to stderr"),
        (change(4, metadata={}), "needs the tag raises-exception"),
        (change(4, outputs=[]), "the tag needs a stored error"),
        (change(3, metadata={}), "without alt text"),
        (as_svg, "a drawing without the PNG"),
        (change(2, metadata={"tags": ["nbval-ignore-output"]}), "does not say why"),
        (change(2, source="# NBVAL_SKIP\nprint(1)"), "does not say why"),
    ],
)
def test_rules_see(good, tamper, words):
    assert notebook_rules.problems(good) == []
    tamper(good)
    assert words in "\n".join(notebook_rules.problems(good))


def test_rules_see_what_is_too_wide_for_a_phone(good):
    for columns, wide in ((46, 0), (47, 1)):
        change(2, outputs=[{"output_type": "stream", "name": "stdout", "text": f"short\n{'x' * columns}\n"}])(good)
        assert len(notebook_rules.wide_cells("a_chapter", good)) == wide


def test_rules_allow_an_unchecked_cell_that_says_why(good):
    change(2, source="# NBVAL_IGNORE_OUTPUT\n# unchecked: the time of day\nprint(1)")(good)
    assert notebook_rules.problems(good) == []
    assert len(notebook_rules.unchecked_cells(good)) == 1


@pytest.mark.parametrize(
    ("html", "words"),
    [
        ('<script src="https://cdn.example/x.js"></script>', "loads https://cdn.example/x.js"),
        ('<link rel="stylesheet" href="//cdn.example/x.css">', "loads //cdn.example/x.css"),
        ('<img srcset="own.png 1x, https://cdn.example/2.png 2x">', "loads https://cdn.example/2.png"),
        ('<p style="background: url(http://cdn.example/x.png)">', "loads http://cdn.example/x.png"),
        ("<style>@font-face { src: url('https://cdn.example/x.woff') }</style>", "loads https://cdn.example/x.woff"),
        ('<img src="missing.png">', "loads missing.png, which is not there"),
        ('<a href="missing.html">there</a>', "links to missing.html, which is not there"),
        (
            '<a href="own.png">a file</a><a href="index.html#nowhere">there</a>',
            "index.html#nowhere, and there is no such",
        ),
        ('<p id="here"></p><a href="#here">up</a><a href="#there">up</a>', "links to #there, and there is no such"),
        ("", "page.html: this page was not built"),
    ],
)
def test_check_site_sees(tmp_path, html, words):
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: index\nchapters:\n  - file: page\n")
    (tmp_path / "own.png").touch()
    links = (
        '<a href="https://example.org">a link</a><h2 id="part">a part</h2><a href="#part">to it</a><a href="#">up</a>'
    )
    (tmp_path / "index.html").write_text(f'{links}<img src="own.png?v=1">')
    (tmp_path / "page.html").write_text('<a href="index.html#part">back</a>')
    assert check_site.problems(tmp_path, tmp_path / "_toc.yml") == []
    if html:
        (tmp_path / "page.html").write_text(html)
    else:
        (tmp_path / "page.html").unlink()
    assert words in "\n".join(check_site.problems(tmp_path, tmp_path / "_toc.yml"))


def test_check_site_follows_external_links_when_asked(tmp_path):
    (tmp_path / "_toc.yml").write_text("root: index\n")
    with browser.serve(tmp_path) as address:
        links = "".join(f'<a href="{address}/{name}">x</a>' for name in ("index.html#part", "gone.html"))
        (tmp_path / "index.html").write_text(links)
        assert check_site.problems(tmp_path, tmp_path / "_toc.yml") == []
        assert check_site.external_problems(tmp_path) == [f"index.html: {address}/gone.html: 404 File not found"]


@pytest.mark.parametrize(
    ("seconds", "stored", "kept"),
    [(12.1, None, 15), (15, None, 15), (9, 15, 15), (22, 15, 15), (7, 15, 10), (23, 15, 25), (7.5, 15, 15)],
)
def test_stored_run_time_changes_only_when_it_is_wrong_by_half(seconds, stored, kept):
    assert run_notebooks.run_time(seconds, stored) == kept
