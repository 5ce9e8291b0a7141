"""Check a built site: every page of the table of contents is there, and nothing is loaded from another host.

    python scripts/check_site.py _build/html _toc.yml

Links that a reader clicks may go anywhere; scripts, styles, fonts, pictures and frames may not, and those that are
local must exist. Standard library only.
"""

import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

# Attributes by which a page loads something. Of <link> only the kinds that a browser fetches by itself.
LOADING = {"src", "srcset", "poster", "data", "background"}
FETCHED = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.style = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = {name: value or "" for name, value in attributes}
        self.style = tag == "style"
        for name in LOADING & values.keys():
            if tag != "object" and name == "data":
                continue
            many = values[name].split(",") if name == "srcset" else [values[name]]
            self.loaded += [one.split()[0] for one in many if one.strip()]
        if tag == "link" and FETCHED & set(values.get("rel", "").lower().split()):
            self.loaded.append(values.get("href", ""))
        if tag in ("image", "use", "feimage"):  # inside SVG
            self.loaded.append(values.get("href") or values.get("xlink:href") or "")
        self.loaded += in_css(values.get("style", ""))

    def handle_data(self, data):
        if self.style:
            self.loaded += in_css(data)

    def handle_endtag(self, tag):
        self.style = False


def in_css(text: str) -> list[str]:
    return [one or other for one, other in IN_CSS.findall(text)]


def problems(site: Path, toc: Path) -> list[str]:
    found = []
    names = re.findall(r"^\s*-?\s*(?:root|file)\s*:\s*(\S+)", toc.read_text(), re.MULTILINE)
    pages = [site / "index.html", *(site / f"{name}.html" for name in names)]
    found += [f"{page.relative_to(site)}: this page was not built" for page in pages if not page.is_file()]
    # The theme leaves templates of its own, which no page uses, in _static.
    html = [file for file in site.rglob("*.html") if site / "_static" not in file.parents]
    for file in sorted([*html, *site.rglob("*.css")]):
        text = file.read_text(encoding="utf-8", errors="replace")
        for address in Page(text).loaded if file.suffix == ".html" else in_css(text):
            parts = urlsplit(address.strip())
            if parts.scheme == "data" or not (parts.netloc or parts.path):
                continue
            if parts.scheme or parts.netloc:
                found.append(f"{file.relative_to(site)}: loads {address}")
            elif file.suffix == ".html" and not (file.parent / unquote(parts.path)).exists():
                found.append(f"{file.relative_to(site)}: loads {address}, which is not there")
    return found


def main() -> int:
    site, toc = Path(sys.argv[1]), Path(sys.argv[2])
    found = problems(site, toc)
    print("\n".join(found) or f"{site}: all pages are there and nothing comes from another host")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
