"""Sphinx extension: what a page tells about itself to those who only see its head: search engines, and whoever is sent
a link to it.

Its description is what the page says "In one sentence", else its first paragraph; its picture is its first figure.
Where the address of the published book is known (`offline_site.site`), the pictures have theirs, and the site has a
`sitemap.xml` and an `llms.txt`.
"""

import base64
import json
import textwrap
from collections.abc import Iterator
from html import escape
from pathlib import Path

from docutils import nodes
from offline_site import site

SENTENCE = "In one sentence."
LONGEST = 300  # characters of a description
PICTURES = "_images/first"  # the folder of the first figures
FALLBACK = "_static/loss.png"


def description(doctree: nodes.document) -> str:
    """One sentence about a page, as plain text."""
    paragraphs = [one for one in doctree.findall(nodes.paragraph) if "times" not in one["classes"]]
    texts = [" ".join(one.astext().split()) for one in paragraphs if not isinstance(one.parent, nodes.block_quote)]
    said = next((text.removeprefix(SENTENCE).strip() for text in texts if text.startswith(SENTENCE)), "")
    return textwrap.shorten(said or next(iter(texts), ""), LONGEST, placeholder=" …")


def first_figure(path: Path) -> tuple[bytes, str] | None:
    """The first PNG that a notebook stores, and its alternative text."""
    if path.suffix != ".ipynb":
        return None
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for output in cell.get("outputs", []):
            if picture := output.get("data", {}).get("image/png"):
                return base64.b64decode(picture), cell["metadata"].get("mystnb", {}).get("image", {}).get("alt", "")
    return None


def tags(app, docname: str, doctree: nodes.document) -> str:
    """The tags of a page's head."""
    said = {"og:type": "article", "og:site_name": app.config.html_title, "og:title": app.env.titles[docname].astext()}
    if text := description(doctree):
        said |= {"description": text, "og:description": text}
    if address := site():
        figure = first_figure(Path(app.env.doc2path(docname)))
        said["og:url"] = f"{address}/{docname}.html"
        said["og:image"] = f"{address}/{PICTURES}/{docname}.png" if figure else f"{address}/{FALLBACK}"
        if figure and figure[1]:
            said["og:image:alt"] = figure[1]
    kind = {name: "property" if name.startswith("og:") else "name" for name in said}
    return "".join(f'\n    <meta {kind[name]}="{name}" content="{escape(text)}" />' for name, text in said.items())


def add_tags(app, pagename, templatename, context, doctree) -> None:
    if doctree is not None and app.builder.format == "html":
        # docutils adds a viewport, which the layout has
        context["metatags"] = "".join(
            line for line in context.get("metatags", "").splitlines(True) if "viewport" not in line
        )
        context["metatags"] += tags(app, pagename, doctree)


def in_order(app, docname: str) -> Iterator[str]:
    """A page, and those below it in the table of contents."""
    yield docname
    for below in app.env.toctree_includes.get(docname, []):
        yield from in_order(app, below)


def write_lists(app, exception) -> None:
    """sitemap.xml, llms.txt and the pictures of the pages."""
    address = site()
    if exception is not None or app.builder.format != "html" or not address:
        return
    pages = list(dict.fromkeys(in_order(app, app.config.root_doc)))
    places = "".join(f"  <url><loc>{escape(f'{address}/{page}.html')}</loc></url>\n" for page in pages)
    sitemap = f'<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{places}</urlset>\n'
    Path(app.outdir, "sitemap.xml").write_text(f'<?xml version="1.0" encoding="utf-8"?>\n{sitemap}', encoding="utf-8")
    about = {page: description(app.env.get_doctree(page)) for page in pages}
    lines = [f"- [{app.env.titles[page].astext()}]({address}/{page}.html): {about[page]}" for page in pages]
    head = f"# {app.config.html_title}\n\n> {about[app.config.root_doc]}\n\n## Pages\n\n"
    Path(app.outdir, "llms.txt").write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    for page in pages:
        if figure := first_figure(Path(app.env.doc2path(page))):
            file = Path(app.outdir, PICTURES, f"{page}.png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(figure[0])


def set_address(app, config) -> None:
    """Where the address is known, each page says which one is its own."""
    if address := site():
        config.html_baseurl = f"{address}/"


def setup(app) -> dict:
    app.connect("config-inited", set_address)
    app.connect("html-page-context", add_tags)
    app.connect("build-finished", write_lists)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
