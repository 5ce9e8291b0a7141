"""Run notebooks in place and store their outputs, the same bytes every time.

    python scripts/run_notebooks.py                        every notebook of the book
    python scripts/run_notebooks.py book/one_number.ipynb  those you name

A notebook that raises, writes to stderr, or needs more than 60 seconds or 3 GB is an error; what raised is not stored.
How long it ran is stored too, coarsely, in the notebook's metadata (`lossviz.seconds`); the book shows it on the page.
"""

import argparse
import base64
import math
import re
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import drawings
import install_cell
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from notebook_environment import ROOT, prepare

SECONDS = 60
MEGABYTES = 3000
PICTURE = Path(ROOT, "_static", "loss.png")  # the README's picture is the first one of the front page
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def normalise(notebook: nbformat.NotebookNode) -> None:
    """Everything that differs between two runs or two editors goes: ids, outputs, counts, foreign metadata."""
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    notebook.metadata = nbformat.from_dict(METADATA)
    install_cell.put_into(notebook)
    for position, cell in enumerate(notebook.cells):
        cell.id = f"c{position:02d}"
        cell.metadata = {key: value for key, value in cell.metadata.items() if key in ("tags", "mystnb")}
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None


def run_time(seconds: float, stored: int | None) -> int:
    """Seconds rounded up to a multiple of 5; what is stored stays unless it is wrong by half, so that no run changes it
    for nothing."""
    if stored and stored / 2 <= seconds <= stored * 1.5:
        return stored
    return 5 * math.ceil(seconds / 5)


def join_streams(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What a cell prints comes in pieces whose borders depend on the speed of the machine: one piece of them."""
    joined = []
    for output in outputs:
        last = joined[-1] if joined else {}
        if output.output_type == "stream" and last.get("name") == output.name:
            last.text += output.text
        else:
            joined.append(output)
    return joined


def first_picture(notebook: dict) -> bytes:
    """The first PNG that a notebook shows."""
    outputs = (output.get("data", {}) for cell in notebook["cells"] for output in cell.get("outputs", []))
    return base64.b64decode(next(data["image/png"] for data in outputs if "image/png" in data))


def run(path: Path) -> str:
    """Run one notebook, store it, and return the reason why it is not good enough, or an empty string."""
    notebook = nbformat.read(path, as_version=4)
    stored = notebook.metadata.get("lossviz", {}).get("seconds")
    normalise(notebook)
    where = {"metadata": {"path": str(path.resolve().parent)}}
    client = NotebookClient(notebook, timeout=2 * SECONDS, record_timing=False, resources=where)
    # What C++ code logs depends on the CPU and bears the time: into no notebook with it (nbval's kernels do the same).
    client.extra_arguments = ["--IPKernelApp.capture_fd_output=False", *drawings.KERNEL]
    started = time.perf_counter()
    try:
        client.execute(stderr=subprocess.DEVNULL)
    except CellExecutionError as error:
        return str(error)
    seconds = time.perf_counter() - started
    # This process has had one child, the kernel, so the largest child is that one (in bytes on a Mac).
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    megabytes = used.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)
    # On a busy machine the clock runs on while the kernel waits for its turn.
    its_own = min(seconds, used.ru_utime + used.ru_stime)
    # anew: the kernel has added its own
    notebook.metadata = nbformat.from_dict({**METADATA, "lossviz": {"seconds": run_time(its_own, stored)}})
    for cell in notebook.cells:
        if "outputs" in cell:
            cell.outputs = join_streams(cell.outputs)
        for output in cell.get("outputs", []):
            if output.get("name") == "stderr":
                return f"writes to stderr, in the cell\n{cell.source}\n\n{output.text}"
            for kind, text in output.get("data", {}).items():
                if kind == "text/plain":  # <object at 0x7f...>: another address in every run
                    output["data"][kind] = re.sub(r"(?<= at 0x)[0-9a-f]{6,}(?=>)", "000000000000", text)
                if kind == "image/svg+xml":
                    output["data"][kind] = drawings.tidy(text)
            if len(output.get("data", {}).get("image/svg+xml", "")) > drawings.LARGEST:
                del output["data"]["image/svg+xml"]  # the PNG is lighter: thousands of points
    nbformat.write(notebook, path)
    if path.resolve() == Path(ROOT, "book", "index.ipynb").resolve():
        PICTURE.write_bytes(first_picture(notebook))
    print(f"{path}: {seconds:.1f} s, {megabytes:.0f} MB", flush=True)
    if seconds > SECONDS or megabytes > MEGABYTES:
        return f"needs more than {SECONDS} seconds or {MEGABYTES} MB"
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path)
    paths = parser.parse_args().notebooks or sorted(Path(ROOT, "book").glob("**/[!.]*.ipynb"))
    prepare()
    failed = False
    # One process a notebook, so that the memory it is charged with is its own.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), max_tasks_per_child=1) as pool:
        for path, reason in zip(paths, pool.map(run, paths), strict=True):
            if reason:
                failed = True
                print(f"{path}: {reason}", file=sys.stderr, flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
