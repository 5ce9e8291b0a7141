"""Sphinx extension: a folded cell says what is in it: how a picture is made, code, or an exercise solved in code. A
cell that only prints versions is one quiet line.
"""

import re

from docutils import nodes

VERSIONS = re.compile(r'(import keras\n\n)?(print\("\w+", \w+\.__version__.*\)(\n|$))+')


def words(cell: nodes.Element) -> str:
    """What stands on the fold of a cell whose input, or all of it, is hidden."""
    if next(cell.findall(nodes.image), None) is not None:
        return "How this picture is made"
    if cell["hide_mode"] != "all":
        return "The code"
    solves = any("exercises.check(" in block.astext() for block in cell.findall(nodes.literal_block))
    return "The solution in code" if solves else "The code, and what it prints"


def name_folds(app, doctree: nodes.document) -> None:
    for cell in doctree.findall(nodes.container):
        if cell.get("hide_mode"):
            cell["prompt_show"] = cell["prompt_hide"] = words(cell)


def quiet_versions(app, doctree: nodes.document) -> None:
    """Which version the page was run with: what is printed, without the code."""
    for cell in list(doctree.findall(nodes.container)):
        inputs = [part for part in cell if "cell_input" in part.get("classes", [])]
        if len(inputs) == 1 and not cell.get("hide_mode") and VERSIONS.fullmatch(inputs[0].astext().strip()):
            cell["classes"].append("versions")
            cell.remove(inputs[0])


def setup(app) -> dict:
    app.connect("doctree-read", name_folds)
    app.connect("doctree-read", quiet_versions)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
