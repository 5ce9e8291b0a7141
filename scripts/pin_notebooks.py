"""Let the Colab and Binder buttons of the built book open its notebooks by commit: no later push changes these.

    python scripts/pin_notebooks.py _build/html    after ./build.sh, in a checkout with the history of HEAD

The notebooks, as the site serves them, become a commit on top of HEAD, and of the branch `notebooks` of the remote
"origin" where there is one, so that the commits of earlier books stay. The commit has the date of HEAD: the same
notebooks give the same commit wherever it is made. Its name goes into the buttons of all pages and is printed; to push
it is left to the caller.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

BRANCH = "notebooks"
BUTTON = re.compile(
    r"(https://colab\.research\.google\.com/github/[\w.-]+/[\w.-]+/blob/|https://mybinder\.org/v2/gh/[\w.-]+/[\w.-]+/)"
    + BRANCH
    + r"(?=[/?])"
)
NAME, MAIL = "github-actions[bot]", "github-actions[bot]@users.noreply.github.com"


def git(*arguments: str, **environment: str) -> str:
    command = ["git", *arguments]
    return subprocess.run(command, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout


def commit(folder: Path, paths: list[Path]) -> str:
    """The name of a commit that has the files `paths` below `folder`, and else what HEAD has."""
    head = git("rev-parse", "HEAD").strip()
    date = git("show", "-s", "--format=%cI", head).strip()
    earlier = git("for-each-ref", "--format=%(objectname)", f"refs/remotes/origin/{BRANCH}").split()
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch, "index"))}
        git("read-tree", head, **index)
        for path in sorted(paths):
            blob = git("hash-object", "-w", "--no-filters", str(path.resolve())).strip()
            git("update-index", "--add", "--cacheinfo", f"100644,{blob},{path.relative_to(folder).as_posix()}", **index)
        tree = git("write-tree", **index).strip()
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in
           (("NAME", NAME), ("EMAIL", MAIL), ("DATE", date))}  # fmt: skip
    parents = [word for parent in (head, *earlier) for word in ("-p", parent)]
    message = f"Notebooks of {head}, with the address of the book"
    return git("commit-tree", tree, *parents, "-m", message, **who).strip()


def pin(page: Path, name: str) -> int:
    """Let the buttons of a page open the commit; returns how many there are."""
    text, count = BUTTON.subn(rf"\g<1>{name}", page.read_text(encoding="utf-8"))
    if count:
        page.write_text(text, encoding="utf-8")
    return count


def main() -> int:
    html = Path(sys.argv[1])
    name = commit(html / "_sources", list((html / "_sources").glob("book/*.ipynb")))
    buttons = sum(pin(page, name) for page in html.glob("book/*.html"))
    git("update-ref", f"refs/heads/{BRANCH}", name)
    print(name)
    print(f"{buttons} buttons", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
