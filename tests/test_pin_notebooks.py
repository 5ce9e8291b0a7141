"""The buttons of the published book open a commit that holds the notebooks as the site serves them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "pin_notebooks.py"
COLAB = "https://colab.research.google.com/github/reader/fork/blob/{}/book/page.ipynb"
BINDER = "https://mybinder.org/v2/gh/reader/fork/{}?urlpath=lab/tree/book/page.ipynb"
OTHER = "https://github.com/reader/fork/blob/notebooks/book/page.ipynb"


def git(folder: Path, *arguments: str) -> str:
    who = {f"GIT_{role}_{key}": "a@b" for role in ("AUTHOR", "COMMITTER") for key in ("NAME", "EMAIL")}
    environment = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    command = ["git", "-c", "init.defaultBranch=main", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout


def pin(folder: Path) -> str:
    command = [sys.executable, str(SCRIPT), "site"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def make_site(folder: Path) -> None:
    pages = folder / "site" / "book"
    sources = folder / "site" / "_sources" / "book"
    for one in (pages, sources):
        one.mkdir(parents=True, exist_ok=True)
    (sources / "page.ipynb").write_text("filled in")
    links = (COLAB.format("notebooks"), BINDER.format("notebooks"), OTHER)
    (pages / "page.html").write_text("".join(f'<a href="{link}">' for link in links))


@pytest.fixture
def clone(tmp_path):
    """A clone with one notebook, whose remote has no branch `notebooks` yet, and the site built from it."""
    remote, clone = tmp_path / "remote.git", tmp_path / "clone"
    remote.mkdir()
    git(remote, "init", "-q", "--bare")
    git(tmp_path, "clone", "-q", str(remote), str(clone))
    (clone / "book").mkdir()
    (clone / "book" / "page.ipynb").write_text("stored")
    (clone / "README").write_text("a file beside it")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "one")
    git(clone, "push", "-q", "origin", "HEAD:main")
    make_site(clone)
    return clone


def test_buttons_open_the_commit_of_the_served_notebooks(clone):
    name = pin(clone)
    page = (clone / "site" / "book" / "page.html").read_text()
    assert COLAB.format(name) in page and BINDER.format(name) in page and OTHER in page
    assert git(clone, "show", f"{name}:book/page.ipynb") == "filled in"
    assert git(clone, "show", f"{name}:README") == "a file beside it"
    assert git(clone, "rev-parse", "notebooks", f"{name}^").split() == [name, git(clone, "rev-parse", "HEAD").strip()]
    assert (clone / "book" / "page.ipynb").read_text() == "stored" and "book" not in git(clone, "status", "--short")


def test_commits_of_earlier_books_stay(clone):
    first = pin(clone)
    git(clone, "push", "-q", "origin", "refs/heads/notebooks")
    (clone / "README").write_text("another")
    git(clone, "commit", "-q", "-a", "-m", "two")
    make_site(clone)
    second = pin(clone)
    git(clone, "push", "-q", "origin", "refs/heads/notebooks")  # not forced
    assert second != first and first in git(clone, "rev-list", "notebooks").split()
    assert git(clone, "ls-remote", "origin", "notebooks").split()[0] == second


def test_same_notebooks_same_commit(clone):
    first = pin(clone)
    make_site(clone)
    assert pin(clone) == first
