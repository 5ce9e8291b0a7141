"""The cell that installs lossviz: nothing where it is there, the site's own wheel by its hash where it is not."""

import hashlib
import json
import re
import subprocess
import sys
import zipfile
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


def test_as_stored_it_installs_nothing_and_says_what_to_do(calls, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=re.escape("run `pip install .` in the folder of the repository")):
        exec(install_cell.SOURCE, {})
    assert calls == []


def test_filled_in_it_installs_that_wheel_and_nothing_else(notebook, calls, monkeypatch, tmp_path):
    path = tmp_path / "page.ipynb"
    install_cell.put_into(notebook)
    nbformat.write(notebook, path)
    install_cell.fill_in(path, 'a "quoted" wheel.whl')
    filled = nbformat.read(path, as_version=4)
    nbformat.validate(filled)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    exec(filled.cells[1].source, {})
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", 'a "quoted" wheel.whl']
    assert calls == [(pip, {"check": True})]
    assert [cell.source for cell in filled.cells[::2]] == ["# A page", "import lossviz"]


@pytest.mark.parametrize("name", ["lossviz", "git+https://github.com/reader/fork", "lossviz==0.1.0", ""])
def test_no_notebook_installs_by_a_name(name, notebook, tmp_path):
    path = tmp_path / "page.ipynb"
    install_cell.put_into(notebook)
    nbformat.write(notebook, path)
    with pytest.raises(ValueError, match="a notebook installs a wheel by its address, and nothing by a name"):
        install_cell.fill_in(path, name)


@pytest.mark.parametrize("path", sorted(ROOT.glob("book/**/[!.]*.ipynb")), ids=lambda path: path.stem)
def test_no_stored_notebook_installs_anything(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert install_cell.is_first(cells)
    assert not [cell for cell in cells if re.search(r"^\s*[!%]\s*pip", "".join(cell["source"]), re.MULTILINE)]


def test_a_notebook_without_it_is_refused(tmp_path):
    path = tmp_path / "page.ipynb"
    nbformat.write(nbformat.v4.new_notebook(), path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: its first code cell does not install lossviz")):
        install_cell.fill_in(path, "lossviz.whl")


GITHUB, OWN = "LOSSVIZ_REPOSITORY", "LOSSVIZ_ADDRESS"


@pytest.mark.parametrize(
    ("environment", "site"),
    [
        ({GITHUB: "https://github.com/Reader/fork"}, "https://reader.github.io/fork"),
        ({GITHUB: "git@github.com:reader/fork.git"}, "https://reader.github.io/fork"),
        ({GITHUB: "https://token@github.com/reader/reader.github.io.git"}, "https://reader.github.io"),
        ({GITHUB: "https://github.com/reader/fork", OWN: "https://example.org/book/"}, "https://example.org/book"),
        ({GITHUB: "https://example.org/reader/fork"}, ""),
        ({GITHUB: ""}, ""),
    ],
)
def test_the_served_notebooks_install_the_wheel_of_the_site(environment, site, tmp_path, notebook):
    """What `build.sh` does last: the wheel has the hash that the notebook asks for, and it holds the package."""
    served = tmp_path / "_sources" / "book" / "page.ipynb"
    served.parent.mkdir(parents=True)
    install_cell.put_into(notebook)
    nbformat.write(notebook, served)
    command = [sys.executable, str(ROOT / "scripts" / "install_cell.py"), str(tmp_path)]
    result = subprocess.run(command, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("wheel/*.whl")
    assert "lossviz/files/allowed.txt" in zipfile.ZipFile(wheel).namelist()
    source = "".join(json.loads(served.read_text())["cells"][1]["source"])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    assert f'package = "{f"{site}/wheel/{wheel.name}#sha256={digest}" if site else ""}"' in source


def test_the_front_page_installs_the_wheel_by_its_hash(tmp_path):
    """Only the line for a checkout is filled in, in the page as in the notebook that it serves."""
    page, notebook = tmp_path / "book" / "index.html", tmp_path / "_sources" / "book" / "index.ipynb"
    for one in (page, notebook):
        one.parent.mkdir(parents=True)
    other = "<pre><span></span>pip<span> </span>install<span> </span>.\n</pre>"
    words = install_cell.LINE.replace(" ", "<span> </span>")
    page.write_text(f"<pre><span></span>{words}\n</pre>{other}")
    cells = [nbformat.v4.new_markdown_cell(f"```sh\n{install_cell.LINE}\n```"), nbformat.v4.new_code_cell("")]
    served = nbformat.v4.new_notebook(cells=cells)
    install_cell.put_into(served)
    nbformat.write(served, notebook)
    command = [sys.executable, str(ROOT / "scripts" / "install_cell.py"), str(tmp_path)]
    environment = {"PATH": "/usr/bin:/bin", OWN: "https://example.org"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (wheel,) = tmp_path.glob("wheel/*.whl")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    line = f'pip install "https://example.org/wheel/{wheel.name}#sha256={digest}"'
    assert page.read_text() == f"<pre>{line}\n</pre>{other}"
    assert line in "".join(json.loads(notebook.read_text())["cells"][0]["source"])


def test_the_front_page_has_the_line_that_is_filled_in():
    front = json.loads((ROOT / "book" / "index.ipynb").read_text(encoding="utf-8"))
    assert sum(install_cell.LINE in "".join(cell["source"]) for cell in front["cells"]) == 1


@pytest.mark.parametrize("path", [*ROOT.glob("*.md"), *ROOT.glob("book/*.*"), *ROOT.glob("lossviz/*.md")], ids=str)
def test_nobody_is_told_to_install_by_a_name(path):
    assert not re.search(r"pip install (?:-\S+ )*[\"']?lossviz\b", path.read_text(encoding="utf-8"))


def test_the_wheel_is_the_same_each_time(tmp_path):
    one, other = (install_cell.build_wheel(tmp_path / name).read_bytes() for name in ("one", "other"))
    assert one == other


def test_an_address_without_https_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "_ext")
    from offline_site import site

    monkeypatch.setenv(OWN, "http://example.org")
    with pytest.raises(ValueError, match="it must be an address that begins with https://"):
        site()


def test_pip_looks_at_the_hash(tmp_path):
    """That pip refuses other bytes than those of the hash, tried with a wheel of ours and no network."""
    wheel = install_cell.build_wheel(tmp_path / "wheel")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-index", "-d", str(tmp_path / "out")]
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    wrong = "0" * 64
    for asked, code in ((digest, 0), (wrong, 1)):
        done = subprocess.run([*pip, f"{wheel.as_uri()}#sha256={asked}"], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
    assert "DO NOT MATCH THE HASHES" in done.stderr


def test_no_source_names_an_owner():
    """Where the repository lives is known when the book is built, and not before."""
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("not a git checkout")
    pattern = re.compile(r"github\.com[:/][\w.-]+/lossviz|github\.io/lossviz|pypi\.org/\w+/lossviz")
    texts = (".py", ".md", ".ipynb", ".yml", ".toml", ".cff", ".cfg", ".sh", ".txt")
    paths = [ROOT / name for name in tracked.split("\0") if name.endswith(texts)]
    assert [path.name for path in paths if pattern.search(path.read_text(encoding="utf-8"))] == []
