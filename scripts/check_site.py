"""Check a built site: every page of the table of contents is there, nothing is loaded from another host, links work.

    python scripts/check_site.py _build/html _toc.yml               pages, what they load, links within the site
    python scripts/check_site.py _build/html _toc.yml --external    links to other sites too, over the network

Links that a reader clicks may go anywhere; scripts, styles, fonts, pictures and frames may not, and those that are
local must exist. A link within the site must lead to a file, and to an anchor that is there. Standard library only.
"""

import argparse
import re
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

# Attributes by which a page loads something. Of <link> only the kinds that a browser fetches by itself.
LOADING = {"src", "srcset", "poster", "data", "background"}
FETCHED = {"stylesheet", "icon", "preload", "prefetch", "modulepreload", "preconnect", "dns-prefetch", "manifest"}
IN_CSS = re.compile(r"""url\(\s*["']?([^"')]+)|@import\s+["']([^"']+)""")


class Page(HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
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
        if tag == "a":
            self.links.append(values.get("href", ""))
            self.anchors.add(values.get("name", ""))
        self.anchors.add(values.get("id", ""))

    def handle_data(self, data):
        if self.style:
            self.loaded += in_css(data)

    def handle_endtag(self, tag):
        self.style = False


def in_css(text: str) -> list[str]:
    return [one or other for one, other in IN_CSS.findall(text)]


def chapters(toc: Path) -> list[str]:
    """The pages of a table of contents in the order of reading, such as `book/index`."""
    return re.findall(r"^\s*-?\s*(?:root|file)\s*:\s*(\S+)", toc.read_text(encoding="utf-8"), re.MULTILINE)


@cache
def page(file: Path) -> Page:
    return Page(file.read_text(encoding="utf-8", errors="replace"))


def html_files(site: Path) -> list[Path]:
    """All pages; the theme leaves templates of its own, which no page uses, in _static."""
    return sorted(file for file in site.rglob("*.html") if site / "_static" not in file.parents)


def problems(site: Path, toc: Path) -> list[str]:
    page.cache_clear()
    found = []
    wanted = [site / "index.html", *(site / f"{name}.html" for name in chapters(toc))]
    found += [f"{file.relative_to(site)}: this page was not built" for file in wanted if not file.is_file()]
    for file in [*html_files(site), *sorted(site.rglob("*.css"))]:
        for address in page(file).loaded if file.suffix == ".html" else in_css(file.read_text(encoding="utf-8")):
            parts = urlsplit(address.strip())
            if parts.scheme == "data" or not (parts.netloc or parts.path):
                continue
            if parts.scheme or parts.netloc:
                found.append(f"{file.relative_to(site)}: loads {address}")
            elif file.suffix == ".html" and not (file.parent / unquote(parts.path)).exists():
                found.append(f"{file.relative_to(site)}: loads {address}, which is not there")
    for file in html_files(site):
        found += [
            f"{file.relative_to(site)}: {words}" for words in map(partial(broken, file), page(file).links) if words
        ]
    return found


def broken(file: Path, address: str) -> str:
    """Why a link within the site leads nowhere, in words; an empty string where it does, or leaves the site."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return ""
    target = file.parent / unquote(parts.path) if parts.path else file
    if not target.is_file():
        return f"links to {address}, which is not there"
    anchor = unquote(parts.fragment)
    if anchor and target.suffix == ".html" and anchor not in page(target).anchors:
        return f"links to {address}, and there is no such anchor"
    return ""


def external_problems(site: Path) -> list[str]:
    """Links to other sites that do not answer, or answer that nothing is there. Slow, and needs the network."""
    places: dict[str, Path] = {}
    for file in html_files(site):
        for address in page(file).links:
            if urlsplit(address).scheme in ("http", "https"):
                places.setdefault(urldefrag(address).url, file.relative_to(site))
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(no_answer, places)
        return [f"{file}: {address}: {words}" for (address, file), words in zip(places.items(), answers) if words]


def no_answer(address: str) -> str:
    request = urllib.request.Request(address, headers={"User-Agent": "Mozilla/5.0 (link check)"})
    try:
        with urllib.request.urlopen(request, timeout=30):
            return ""
    except urllib.error.HTTPError as error:
        # 403 and 429 are how some hosts greet programs: the page may well be there.
        return "" if error.code in (403, 429) else f"{error.code} {error.reason}"
    except OSError as error:
        return str(error)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("toc", type=Path)
    parser.add_argument("--external", action="store_true", help="also check links to other sites")
    options = parser.parse_args()
    found = problems(options.site, options.toc)
    if options.external:
        found += external_problems(options.site)
    links = sum(len(page(file).links) for file in html_files(options.site))
    good = f"{options.site}: all pages are there, nothing comes from another host, and {links} links lead somewhere"
    print("\n".join(found) or good)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
