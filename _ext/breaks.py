"""Sphinx extension: long names in tables and headings break where their parts meet: after a dot, an underscore or a
bracket, and before a capital. A phone is narrow.
"""

import re

PLACES = re.compile(r"<(td|h[1-4])\b.*?</\1>", re.DOTALL)
TEXT = re.compile(r"(?<=>)[^<>]+(?=<)")
LONG = re.compile(r"\S{12,}")
SEAMS = re.compile(r"(?<=[._(\[=/])(?=\w)|(?<=[a-z])(?=[A-Z])")


def breakable(html: str) -> str:
    """The same HTML, with `<wbr>` at the seams of long names in cells of tables and in headings."""

    def words(text: re.Match) -> str:
        return LONG.sub(lambda word: SEAMS.sub("<wbr>", word[0]), text[0])

    return PLACES.sub(lambda place: TEXT.sub(words, place[0]), html)


def place(app, pagename, templatename, context, doctree) -> None:
    if "body" in context and app.builder.format == "html":
        context["body"] = breakable(context["body"])


def setup(app) -> dict:
    app.connect("html-page-context", place)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
