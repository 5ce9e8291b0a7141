"""The first code cell of every notebook: it installs lossviz where it is missing, as on Colab.

    python scripts/install_cell.py _build/html    the last step of ./build.sh

A stored notebook installs nothing: it says in one sentence what to do. The built site carries its own wheel, and where
its address is known, the notebooks that it serves install that wheel, by its address and the hash of its bytes. So no
name is ever looked up that somebody else could own. The workflow that publishes the book pushes these notebooks to the
branch `notebooks`, and scripts/pin_notebooks.py lets the book's Colab and Binder buttons open them there by commit.
The line of the front page that installs lossviz is filled in the same way.
"""

import hashlib
import json
import re
import subprocess
import sys
from html import escape, unescape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PACKAGE = 'package = ""'
SOURCE = f"""\
# Only where lossviz is missing, as on Colab. TensorFlow and NumPy stay as they are.
import importlib.util

if importlib.util.find_spec("lossviz") is None:
    import subprocess
    import sys

    {PACKAGE}
    if not package:
        raise ModuleNotFoundError("Install lossviz first: run `pip install .` in the folder of the repository.")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
    subprocess.run([*pip, package], check=True)"""


#: The line that readers copy, as it is stored: for those who have the repository.
LINE = "pip install .  # in a checkout"
CODE = re.compile(r"(<pre>)(?:<span></span>)?(.*?)(\n?</pre>)", re.DOTALL)


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
    """Let the notebook `path` install `package`: the path of a wheel, or its address with `#sha256=`."""
    if not package.partition("#")[0].endswith(".whl"):
        raise ValueError(f"{package}: a notebook installs a wheel by its address, and nothing by a name.")
    notebook = json.loads(path.read_text(encoding="utf-8"))
    if not is_first(notebook["cells"]):
        raise ValueError(
            f"{path}: its first code cell does not install lossviz; scripts/run_notebooks.py puts that in."
        )
    cell = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    cell["source"] = SOURCE.replace(PACKAGE, f"package = {json.dumps(package)}").splitlines(keepends=True)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = "".join(cell["source"]).replace(LINE, line(package)).splitlines(keepends=True)
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def line(package: str) -> str:
    """What a reader types to install `package`: pip compares its bytes with the hash in its address."""
    return f'pip install "{package}"'


def fill_in_page(path: Path, package: str) -> None:
    """Let the line on a built page that installs from a checkout install `package` instead."""

    def filled(match: re.Match) -> str:
        words = unescape(re.sub(r"<[^>]*>", "", match[2])).strip()
        return match[1] + escape(line(package), quote=False) + match[3] if words == LINE else match[0]

    text = path.read_text(encoding="utf-8")
    path.write_text(CODE.sub(filled, text), encoding="utf-8")


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout, built into `folder`, which then holds no other."""
    for old in folder.glob("*.whl"):
        old.unlink()
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder.resolve())]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


def main() -> int:
    sys.path.insert(0, str(ROOT / "_ext"))
    from offline_site import site

    html = Path(sys.argv[1])
    wheel = build_wheel(html / "wheel")
    if address := site():
        digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
        package = f"{address}/wheel/{wheel.name}#sha256={digest}"
        for notebook in sorted(html.glob("_sources/**/*.ipynb")):
            fill_in(notebook, package)
        for page in sorted(html.glob("book/*.html")):
            fill_in_page(page, package)
    return 0


if __name__ == "__main__":
    sys.exit(main())
