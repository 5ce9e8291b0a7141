"""The first code cell of every notebook: it installs lossviz where it is missing, as on Colab.

    python scripts/install_cell.py book/*.ipynb    fill in the address of this repository, in place

The stored notebooks ask for the released package by its name. The workflow that publishes the book runs this file and
pushes the result to the branch `notebooks`, which the book's Colab and Binder buttons open: so a fork's buttons
install the fork. Standard library only.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGE = 'package = "lossviz"'
SOURCE = f"""\
# Only where lossviz is missing, as on Colab. TensorFlow and NumPy stay as they are.
import importlib.util

if importlib.util.find_spec("lossviz") is None:
    import subprocess
    import sys

    {PACKAGE}
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, package], check=True)"""


def is_first(cells: list[dict]) -> bool:
    """Is it the first code cell of a notebook?"""
    sources = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return next(sources, "") == SOURCE


def put_into(notebook: dict) -> None:
    """Put the cell behind the title of a notebook that does not have it there; an older form of it goes."""
    cells = notebook["cells"]
    if is_first(cells):
        return
    heading = SOURCE.splitlines()[0]
    cells[:] = [cell for cell in cells if not "".join(cell["source"]).startswith(heading)]
    # Readers of the built page do not run it, so they do not see it.
    new = {"cell_type": "code", "id": "install", "metadata": {"tags": ["remove-cell"]}, "source": SOURCE}
    title = bool(cells) and cells[0]["cell_type"] == "markdown"
    cells.insert(int(title), type(notebook)(new | {"outputs": [], "execution_count": None}))


def fill_in(path: Path, package: str) -> None:
    """Let the notebook `path` install `package`, which is anything that pip takes: an address, a file, a name."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if not is_first(notebook["cells"]):
        raise ValueError(
            f"{path}: its first code cell does not install lossviz; scripts/run_notebooks.py puts that in."
        )
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["source"] = SOURCE.replace(PACKAGE, f"package = {json.dumps(package)}").splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> int:
    sys.path.insert(0, str(ROOT / "_ext"))
    from offline_site import repository

    address = repository()
    if not address:
        print("no address: set LOSSVIZ_REPOSITORY, or the git remote origin, to a GitHub repository", file=sys.stderr)
        return 2
    for name in sys.argv[1:]:
        fill_in(Path(name), f"git+{address}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
