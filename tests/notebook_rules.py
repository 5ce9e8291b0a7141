"""What nbval lets pass and this book does not: rules that a notebook file is read against, without running it."""

import re

import install_cell
from nbval.plugin import find_comment_markers, find_metadata_tags

# A cell whose output is not compared must say why, in a comment "# unchecked: ...", and the book has few.
REASON = re.compile(r"^\s*#\s*unchecked:\s*\S+", re.M)
MOST_UNCHECKED = 3

# Outputs that nbval never compares, or that differ in their last digits on every CPU.
REFUSED_TYPES = {"image/jpeg", "image/gif", "image/svg+xml", "application/pdf"}


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict) -> set[str]:
    return set(cell.get("metadata", {}).get("tags", []))


def text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def unchecked_cells(notebook: dict) -> list[dict]:
    """The cells that nbval is told to skip or not to compare, by a tag or by a comment."""

    def unchecked(cell: dict) -> bool:
        markers = [*find_metadata_tags(cell.get("metadata", {})), *find_comment_markers(text(cell["source"]))]
        return ("skip", True) in markers or ("check", False) in markers

    return [cell for cell in code_cells(notebook) if unchecked(cell)]


def problems(notebook: dict) -> list[str]:
    """Every rule that this notebook breaks, in words; an empty list for a good one."""
    cells = code_cells(notebook)
    found = []
    counts = [cell["execution_count"] for cell in cells]
    if counts != list(range(1, len(cells) + 1)):
        found.append(f"was not run from top to bottom: execution counts {counts}")
    if cells and not install_cell.is_first(cells):
        found.append("its first code cell does not install lossviz: scripts/run_notebooks.py puts that in")
    if cells and not any(cell["outputs"] for cell in cells):
        found.append("has no stored output")
    for position, cell in enumerate(cells, start=1):
        found += [f"code cell {position}: {words}" for words in cell_problems(cell)]
    return found


def cell_problems(cell: dict) -> list[str]:
    found = []
    types = {kind for output in cell["outputs"] for kind in output.get("data", {})}
    if any(output.get("name") == "stderr" for output in cell["outputs"]):
        found.append("writes to stderr")
    raised = any(output["output_type"] == "error" for output in cell["outputs"])
    if raised != ("raises-exception" in tags(cell)):
        found.append("a stored error needs the tag raises-exception, and the tag needs a stored error")
    if refused := sorted(types & REFUSED_TYPES):
        found.append(f"has an output that is not compared or not stable: {', '.join(refused)}; draw a PNG")
    if "image/png" in types and not alt_text(cell):
        found.append("draws a figure without alt text in its metadata, mystnb.image.alt")
    if unchecked_cells({"cells": [cell]}) and not REASON.search(text(cell["source"])):
        found.append("is not compared and does not say why in a comment '# unchecked: ...'")
    return found


def alt_text(cell: dict) -> str:
    return cell.get("metadata", {}).get("mystnb", {}).get("image", {}).get("alt", "").strip()
