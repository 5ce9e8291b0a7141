"""Sphinx extension: drawings stand in the page itself, so that they are sharp and their colours follow the theme.

Notebooks store each figure as PNG and SVG (scripts/drawings.py). Here the SVG takes the place of its `<img>`, with the
same alternative text. A colour that _static/custom.css names as `--c-rrggbb` becomes that variable: in the dark it has
another value. A picture that is a PNG gets its size, and is loaded when it comes into view.
"""

import math
import re
import struct
from html import unescape
from pathlib import Path

IMAGE = re.compile(r'<img\b[^>]*\bsrc="([^"]+)"[^>]*>')
ALT = re.compile(r'\balt="([^"]*)"')
THEMED = re.compile(r"--c-([0-9a-f]{6})\b")
COLOR = re.compile(r"#([0-9a-f]{6})\b")
SIZE = re.compile(r'<svg\b[^>]*?viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>')
PIXELS = 120 / 72  # a point is this many pixels: the resolution of the PNG
WIDEST = 600
FONT = re.compile(r"font-size: ([\d.]+)px|font: (?:\w+ )*([\d.]+)px")
READABLE = 10.2  # pixels
PHONE = 320  # pixels that a page has on a narrow phone; what needs more may scroll in a box of its own
LARGE = 150_000  # bytes: a drawing that holds this much stays a file of its own


def inline(svg: str, alt: str, number: int, themed: set[str]) -> str:
    """The drawing as part of a page: `number` keeps its names apart from those of other drawings."""
    width, height = map(float, SIZE.search(svg).groups())
    shown = min(WIDEST, round(width * PIXELS))
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # would hold for the whole page
    svg = re.sub(r'(id="|url\(#|href="#)(d\d+)\b', rf"\g<1>figure-{number}-\2", svg)
    svg = COLOR.sub(lambda m: f"var(--c-{m[1]},#{m[1]})" if m[1] in themed else m[0], svg)
    svg = svg.replace("font-family: 'DejaVu Sans'", "font-family: var(--figure-font)")
    smallest = min((float(one or other) for one, other in FONT.findall(svg)), default=math.inf)
    least = math.ceil(width * READABLE / smallest)  # narrower than this, its smallest words cannot be read; 0: no words
    style = f"width:{max(shown, least)}px;min-width:{least}px"
    look = f'viewBox="0 0 {width:g} {height:g}" style="{style}" stroke-linejoin="round"'
    drawing = SIZE.sub(f'<svg class="figure" role="img" aria-label="{alt}" {look}>', svg, count=1).strip()
    return drawing if least <= PHONE else f'<div class="figure-box" tabindex="0">{drawing}</div>'


def png_size(file: Path) -> tuple[int, int]:
    return struct.unpack(">II", file.read_bytes()[16:24])


def place(app, pagename, templatename, context, doctree) -> None:
    if "body" not in context or app.builder.format != "html":
        return
    sources = {name: Path(app.srcdir, source) for source, name in app.builder.images.items()}
    themed = set(THEMED.findall(Path(app.confdir, "_static", "custom.css").read_text(encoding="utf-8")))
    drawings = 0

    def replace(match: re.Match) -> str:
        nonlocal drawings
        image, address = match[0], unescape(match[1])
        source = sources.get(address.rpartition("/")[2])
        alt = ALT.search(image)
        if source is None or not source.is_file():
            return image
        if source.suffix == ".svg" and alt and source.stat().st_size < LARGE:
            drawings += 1
            return inline(source.read_text(encoding="utf-8"), alt[1], drawings, themed)
        if source.suffix == ".png" and "width=" not in image:
            width, height = png_size(source)
            return image.replace("<img", f'<img width="{width}" height="{height}" loading="lazy"', 1)
        return image

    context["body"] = IMAGE.sub(replace, context["body"])


def drop_unused(app, exception) -> None:
    """The files of drawings that stand in the pages."""
    if exception is None and app.builder.format == "html":
        for file in Path(app.outdir, "_images").glob("*.svg"):
            if file.stat().st_size < LARGE:
                file.unlink()


def setup(app) -> dict:
    app.connect("html-page-context", place)
    app.connect("build-finished", drop_unused)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
