"""Run notebooks as on Colab: alone in an empty folder, lossviz from a wheel, and Colab's versions of everything else.

    .venv-colab/bin/python scripts/as_on_colab.py lossviz.whl book/one_number.ipynb ...

Run by try_colab.sh, in the environment that it makes. What the cells print must be what is stored, apart from the
versions; nothing but lossviz may be installed or changed. Pictures are not compared: Matplotlib differs.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from difflib import unified_diff
from pathlib import Path

import nbformat
from install_cell import fill_in
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

VERSION = re.compile(r"\b\d+\.\d+\.\d+\b")


def installed() -> list[str]:
    """Every package with its version, as `pip freeze` lists them, but for lossviz itself."""
    lines = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
    return [line for line in lines.splitlines() if not line.startswith("lossviz")]


def printed(notebook: nbformat.NotebookNode) -> list[str]:
    """The lines that the cells print or show as text, with versions made equal and what draws left out."""
    lines = []
    for cell in notebook.cells:
        if "# unchecked:" in cell.source:
            continue
        printed = "".join(output.text for output in cell.get("outputs", []) if output.output_type == "stream")
        shown = [output.data for output in cell.get("outputs", []) if "data" in output]
        shown = [data["text/plain"] for data in shown if "image/png" not in data and "text/plain" in data]
        lines += VERSION.sub("VERSION", "\n".join([printed, *shown])).splitlines()
    return lines


def problem(path: Path, wheel: Path) -> str:
    """What is wrong with one notebook, in words; an empty string where nothing is."""
    stored = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as empty:
        alone = Path(empty, path.name)
        shutil.copy(path, alone)
        fill_in(alone, str(wheel))
        notebook = nbformat.read(alone, as_version=4)
        where = {"metadata": {"path": empty}}
        client = NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where)
        client.extra_arguments = ["--IPKernelApp.capture_fd_output=False"]
        try:
            client.execute(stderr=subprocess.DEVNULL)
        except CellExecutionError as error:
            return str(error)
    differences = list(unified_diff(printed(stored), printed(notebook), "stored", "as on Colab", lineterm="", n=0))
    return "\n".join(differences)


def main() -> int:
    wheel, *paths = (Path(name).resolve() for name in sys.argv[1:])
    os.environ.pop("PYTHONPATH", None)  # lossviz from the wheel, not from a checkout
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="2", PYTHONHASHSEED="0")
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check"]
    before, failed = installed(), False
    for path in paths:
        subprocess.run([*pip, "uninstall", "-y", "lossviz"], check=True, stderr=subprocess.DEVNULL)
        found = problem(path, wheel)
        print(f"{path.name}: {found or 'as stored'}", flush=True)
        failed |= bool(found)
    if changed := sorted(set(before) ^ set(installed())):
        print(f"the notebooks changed what is installed: {', '.join(changed)}")
        failed = True
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
