"""Sphinx extension: below the title of each chapter, how long it takes to read and how long it runs.

Reading: the words of the text at 200 a minute and the words of the code at 100. What cells print, and what is folded,
is not counted. Running: what scripts/run_notebooks.py measured when it stored the outputs (`lossviz.seconds`).
"""

import json
import math
import re
from pathlib import Path

from docutils import nodes

TEXT, CODE = 200, 100  # words a minute
FOLDED = {"tag_hide-input", "tag_hide-cell", "tag_remove-input", "tag_remove-cell", "cell_output"}


def words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def reading_minutes(doctree: nodes.document) -> int:
    text = code = 0
    for node in doctree.findall(nodes.Text):
        above = list(ancestors(node))
        if any(FOLDED & set(one.get("classes", [])) for one in above):
            continue
        if any(isinstance(one, nodes.literal_block) for one in above):
            code += words(node)
        else:
            text += words(node)
    return max(1, math.ceil(text / TEXT + code / CODE))


def ancestors(node: nodes.Node):
    while (node := node.parent) is not None:
        yield node


def add_times(app, doctree: nodes.document) -> None:
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb" or app.env.docname == app.config.root_doc:
        return
    minutes = reading_minutes(doctree)
    parts = [f"{minutes} minute{'s' * (minutes > 1)} to read"]
    seconds = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("lossviz", {}).get("seconds")
    if seconds:
        parts.append(f"about {seconds} seconds to run, on two cores")
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, nodes.paragraph("", "; ".join(parts), classes=["times"]))


def setup(app) -> dict:
    app.connect("doctree-read", add_times)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
