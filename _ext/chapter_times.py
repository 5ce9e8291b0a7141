"""Sphinx extension: below the title of each chapter, how long it takes to read and how long it runs.

Reading: what scripts/reading.py counts. Running: what scripts/run_notebooks.py measured when it stored the outputs
(`lossviz.seconds`).
"""

import json
import sys
from pathlib import Path

from docutils import nodes

sys.path.append(str(Path(__file__).parent.parent / "scripts"))
import reading


def add_times(app, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb" or app.env.docname == app.config.root_doc:
        return
    notebook = json.loads(path.read_text(encoding="utf-8"))
    minutes = reading.minutes(notebook)
    parts = [f"{minutes} minute{'s' * (minutes > 1)} to read"]
    seconds = notebook["metadata"].get("lossviz", {}).get("seconds")
    if seconds:
        parts.append(f"about {seconds} seconds to run, on two cores")
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", "; ".join(parts), classes=["times"]))


def setup(app) -> dict:
    app.connect("doctree-read", add_times)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
