"""Figures as SVG beside their PNG: what a kernel is told, and what makes the drawing the same in every run.

A notebook stores both. The PNG is what the tests compare; the SVG is what the book shows (_ext/figures.py).
"""

import re

#: A longer drawing is not stored: a page is read on a phone.
LARGEST = 100_000
#: The PNG is drawn before the SVG, as where it is drawn alone: a layout may move with each drawing.
PNG_FIRST = (
    '(lambda f: f.update({"image/svg+xml": f.pop("image/svg+xml")}))(get_ipython().display_formatter.formatters)'
)
#: Arguments for a kernel that draws both. SVG has a date in it unless SOURCE_DATE_EPOCH is set; `tidy` takes it out.
KERNEL = ['--InlineBackend.figure_formats={"png", "svg"}', f"--IPKernelApp.exec_lines=[{PNG_FIRST!r}]"]

HEAD = re.compile(r"^.*?(?=<svg)|<metadata>.*?</metadata>\s*|<!--.*?-->\s*", re.DOTALL)
UNTURNED = re.compile(r' transform="rotate\(-?0 [^)]*\)"')
PLACES = re.compile(r'(?<=\s)(?:d|transform|points|x|y|width|height|viewBox)="[^"]+"')
COORDINATE = re.compile(r"-?\d+\.\d+")
EMPTY = re.compile(r"<g>\s*</g>\s*|<g/>\s*")
FILM = re.compile(r' id="film-\d+"')  # the layers of lossviz.plots.film, which appear one epoch after the other
USED = re.compile(r"""(href="|url\()#([^")]+)""")


def shorter(match: re.Match) -> str:
    """Coordinates with two decimals: a hundredth of a point is seen by nobody, and differs between processors."""
    words = COORDINATE.sub(lambda number: f"{float(number[0]) + 0.0:.2f}".rstrip("0").rstrip("."), match[0])
    return " ".join(words.split()).replace(' "', '"')


def tidy(svg: str) -> str:
    """The same drawing without a date, without names and groups that nothing uses, and with short coordinates."""
    svg = PLACES.sub(shorter, UNTURNED.sub("", HEAD.sub("", svg)))
    svg = FILM.sub(' class="film"', svg)
    names = dict.fromkeys(name for _, name in USED.findall(svg))
    short = {name: f"d{k}" for k, name in enumerate(names)}
    svg = re.sub(r'\s*\bid="([^"]+)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", svg)
    svg = USED.sub(lambda m: f"{m[1]}#{short[m[2]]}", svg)
    while EMPTY.search(svg):
        svg = EMPTY.sub("", svg)
    return re.sub(r"\n\s*", "\n", svg).strip() + "\n"
