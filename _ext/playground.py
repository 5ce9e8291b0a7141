"""Sphinx extension: the playground's script and style, for the pages that have a playground or a view of it.

The script is written in parts (book/_playground) that become one plain file without a build tool: one function around
all of them, in this order, without indentation and without the comments that fill a line.
"""

import re
from pathlib import Path

SOURCES = Path(__file__).parent.parent / "book" / "_playground"
PARTS = ("rules", "state", "lessons", "draw", "stage", "board", "parts", "page", "embed")
HEAD = """\
/* Element losses, weights and masks become one number, in the four ways of Keras. No library, no network. */
"use strict";
(() => {
"""
MARKS = ("data-lossviz=", 'class="lossviz-play"')


def read(name: str) -> str:
    return (SOURCES / name).read_text(encoding="utf-8")


def script() -> str:
    text = "\n".join(read(f"{part}.js") for part in PARTS)
    text = re.sub(r"^\s*(//.*|/\*\*.*\*/)$|^\s+", "", text, flags=re.MULTILINE)
    return HEAD + re.sub(r"\n+", "\n", text) + "})();\n"


def style() -> str:
    text = re.sub(r"/\*.*?\*/", "", read("playground.css"), flags=re.DOTALL)
    return re.sub(r"\s*([{};,]|: )\s*", lambda found: found[1].strip(), text).replace("}", "}\n")


def write_files(app) -> None:
    if app.builder.format == "html":
        static = Path(app.outdir, "_static")
        static.mkdir(parents=True, exist_ok=True)
        (static / "playground.js").write_text(script(), encoding="utf-8")
        (static / "playground.css").write_text(style(), encoding="utf-8")


def load_where_needed(app, pagename, templatename, context, doctree) -> None:
    if any(mark in context.get("body", "") for mark in MARKS):
        app.add_js_file("playground.js", loading_method="defer")
        app.add_css_file("playground.css")


def setup(app) -> dict:
    app.connect("builder-inited", write_files)
    app.connect("html-page-context", load_where_needed)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
