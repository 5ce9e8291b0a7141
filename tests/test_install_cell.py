"""The cell that installs lossviz: nothing where it is there, pip without dependencies where it is not."""

import json
import re
import subprocess
import sys
from pathlib import Path

import install_cell
import nbformat
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def notebook():
    cells = [nbformat.v4.new_markdown_cell("# A page"), nbformat.v4.new_code_cell("import lossviz")]
    return nbformat.v4.new_notebook(cells=cells)


@pytest.fixture
def calls(monkeypatch):
    """The commands that a cell runs, noted and not run."""
    noted = []
    monkeypatch.setattr(subprocess, "run", lambda command, **options: noted.append((command, options)))
    return noted


def test_it_is_put_behind_the_title_once(notebook):
    for _ in range(2):
        install_cell.put_into(notebook)
    assert [cell.source for cell in notebook.cells] == ["# A page", install_cell.SOURCE, "import lossviz"]
    nbformat.validate(notebook)


def test_an_older_form_of_it_goes(notebook):
    old = install_cell.SOURCE.replace("-q", "-qq")
    notebook.cells.insert(1, nbformat.v4.new_code_cell(old))
    install_cell.put_into(notebook)
    assert [cell.source for cell in notebook.cells] == ["# A page", install_cell.SOURCE, "import lossviz"]


def test_it_does_nothing_where_lossviz_is(calls):
    exec(install_cell.SOURCE, {})
    assert calls == []


def test_it_installs_lossviz_alone_where_it_is_missing(calls, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(install_cell.SOURCE, {})
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "lossviz"]
    assert calls == [(pip, {"check": True})]


def test_filled_in_it_installs_what_it_was_told(notebook, calls, monkeypatch, tmp_path):
    path = tmp_path / "page.ipynb"
    install_cell.put_into(notebook)
    nbformat.write(notebook, path)
    install_cell.fill_in(path, 'a "quoted" wheel.whl')
    filled = nbformat.read(path, as_version=4)
    nbformat.validate(filled)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(filled.cells[1].source, {})
    assert calls[0][0][-1] == 'a "quoted" wheel.whl'
    assert [cell.source for cell in filled.cells[::2]] == ["# A page", "import lossviz"]


def test_a_notebook_without_it_is_refused(tmp_path):
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: its first code cell does not install lossviz")):
        install_cell.fill_in(path, "lossviz")


@pytest.mark.parametrize(
    ("address", "package"),
    [
        ("https://github.com/reader/fork", "git+https://github.com/reader/fork"),
        ("git@github.com:reader/fork.git", "git+https://github.com/reader/fork"),
        ("https://token@github.com/reader/fork.git", "git+https://github.com/reader/fork"),
        ("https://example.org/reader/fork", None),
        ("", None),
    ],
)
def test_the_address_comes_from_one_place(address, package, tmp_path, notebook):
    path = tmp_path / "page.ipynb"
    install_cell.put_into(notebook)
    nbformat.write(notebook, path)
    before = path.read_bytes()
    command = [sys.executable, str(ROOT / "scripts" / "install_cell.py"), str(path)]
    environment = {"LOSSVIZ_REPOSITORY": address, "PATH": "/usr/bin:/bin"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    if package is None:
        assert result.returncode == 2
        assert result.stderr.startswith("no address: ")
        assert path.read_bytes() == before
    else:
        assert result.returncode == 0, result.stderr
        assert f'package = "{package}"' in "".join(json.loads(path.read_text())["cells"][1]["source"])


def test_no_source_names_an_owner():
    """Where the repository lives is known when the book is built, and not before."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"github\.com[:/][\w.-]+/lossviz|github\.io/lossviz|pypi\.org/\w+/lossviz")
    texts = (".py", ".md", ".ipynb", ".yml", ".toml", ".cff", ".cfg", ".sh", ".txt")
    paths = [ROOT / name for name in tracked.split("\0") if name.endswith(texts)]
    assert [path.name for path in paths if pattern.search(path.read_text(encoding="utf-8"))] == []
