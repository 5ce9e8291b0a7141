"""Sphinx extension: long names in headings, and in code in tables, break where their parts meet: after a dot, an
underscore or a bracket, and before a capital. A phone is narrow.
"""

import re

CELL = re.compile(r"<td\b.*?</td>", re.DOTALL)
CODE = re.compile(r"<code\b.*?</code>", re.DOTALL)
HEADING = re.compile(r"<(h[1-4])\b.*?</\1>", re.DOTALL)
TEXT = re.compile(r"(?<=>)[^<>]+(?=<)")
LONG = re.compile(r"\S{12,}")
SEAMS = re.compile(r"(?<=[._(\[=/])(?=\w)|(?<=[a-z])(?=[A-Z])")


def broken(place: re.Match) -> str:
    """The same HTML, with `<wbr>` at the seams of its long words."""
    return TEXT.sub(lambda text: LONG.sub(lambda word: SEAMS.sub("<wbr>", word[0]), text[0]), place[0])


def breakable(html: str) -> str:
    return HEADING.sub(broken, CELL.sub(lambda cell: CODE.sub(broken, cell[0]), html))


def place(app, pagename, templatename, context, doctree) -> None:
    if "body" in context and app.builder.format == "html":
        context["body"] = breakable(context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", place)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
