"""What nbval lets pass and this book does not: rules that a notebook file is read against, without running it."""

import re

import install_cell
from nbval.plugin import find_comment_markers, find_metadata_tags

# A cell whose output is not compared must say why, in a comment "# unchecked: ...", and the book has few.
REASON = re.compile(r"^\s*#\s*unchecked:\s*\S+", re.M)
MOST_UNCHECKED = 3

# On a phone this many columns of printed output stand beside each other.
COLUMNS = 46
# What may be wider: the chapter, what stands in the cell, and why.
WIDE = {
    "elsewhere": ("calls(", "calls of other libraries, as you would type them"),
    "your_model": ('shell("python -m lossviz', "what a command prints in a terminal"),
}

# Outputs that nbval never compares, or that differ in their last digits on every CPU.
PICTURES = {"image/png", "image/svg+xml"}
REFUSED_TYPES = {"image/jpeg", "image/gif", "application/pdf"}

# An alternative text says what a picture shows. This many letters are less than a sentence, and a file's name is none.
SHORTEST_ALT = 40
FILE_NAME = re.compile(r"\S+\.(png|jpe?g|svg|gif|webp)", re.I)
IN_MARKDOWN = re.compile(r"!\[([^\]]*)\]\([^)]*\)|<img\b([^>]*)>")


def code_cells(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def tags(cell: dict) -> set[str]:
    return set(cell.get("metadata", {}).get("tags", []))


def text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else "".join(value)


def printed(cell: dict) -> list[str]:
    """The lines of text that a cell shows: what it prints, and values without a picture or HTML. No tracebacks."""
    outputs = [text(output.get("text", "")) for output in cell["outputs"]]
    for data in (output.get("data", {}) for output in cell["outputs"]):
        if not {"text/html", *PICTURES} & data.keys():
            outputs.append(text(data.get("text/plain", "")))
    return [line for output in outputs for line in output.splitlines()]


def wide_cells(name: str, notebook: dict) -> list[tuple[int, str]]:
    """Place and widest line of each code cell that shows more than `COLUMNS` columns, but for those in `WIDE`."""
    allowed = WIDE.get(name, ("\0",))[0]
    widest = {
        position: max(printed(cell), key=len, default="")
        for position, cell in enumerate(code_cells(notebook), start=1)
        if allowed not in text(cell["source"])
    }
    return [(position, line) for position, line in widest.items() if len(line) > COLUMNS]


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
    texts = [alt_text(cell) for cell in cells if alt_text(cell)]
    found += [f"two figures have the alt text {one!r}" for one in dict.fromkeys(texts) if texts.count(one) > 1]
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            found += markdown_problems(text(cell["source"]))
    return found


def markdown_problems(source: str) -> list[str]:
    """Pictures in Markdown whose alt text is missing or says nothing."""
    alts = []
    for match in IN_MARKDOWN.finditer(source):
        attribute = re.search(r"""alt=["']([^"']*)""", match[2] or "")
        alts.append(match[1] if match[2] is None else attribute[1] if attribute else "")
    return [f"a picture in the text: {words}" for words in map(alt_problem, alts) if words]


def alt_problem(alt: str) -> str:
    """Why this text does not say what a picture shows; an empty string where it may."""
    if FILE_NAME.fullmatch(alt.strip()):
        return f"the alt text {alt!r} is the name of a file"
    if len(alt.strip()) < SHORTEST_ALT:
        return f"the alt text {alt!r} is too short to say what the figure shows"
    return ""


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
    if any(
        {"image/svg+xml"} == {"image/svg+xml", "image/png"} & output.get("data", {}).keys()
        for output in cell["outputs"]
    ):
        found.append("has a drawing without the PNG that is compared")
    pictures = sum("image/png" in output.get("data", {}) for output in cell["outputs"])
    if pictures and not alt_text(cell):
        found.append("draws a figure without alt text in its metadata, mystnb.image.alt")
    elif pictures and (words := alt_problem(alt_text(cell))):
        found.append(words)
    if pictures > 1:
        found.append(f"draws {pictures} figures, which would share one alt text; give each a cell of its own")
    if unchecked_cells({"cells": [cell]}) and not REASON.search(text(cell["source"])):
        found.append("is not compared and does not say why in a comment '# unchecked: ...'")
    return found


def alt_text(cell: dict) -> str:
    return cell.get("metadata", {}).get("mystnb", {}).get("image", {}).get("alt", "").strip()
