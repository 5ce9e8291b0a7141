"""Make the index of the book's search: python scripts/index_search.py _build/html _toc.yml

Each section of an article is an entry of its own, without what is drawn or folded away. Titles count more than
headings, and these more than text; the lines in which askers speak (the question, "In one sentence", "Also asked")
count more than the rest, and code less.
A line of the symptoms or of the questions counts for the section that it leads to, as if it stood there.
Needs what requirements-book.txt installs.
"""

import asyncio
import re
import sys
from html import escape
from pathlib import Path

import check_site
from bs4 import BeautifulSoup, Tag
from pagefind.index import IndexConfig, PagefindIndex

#: Pages whose lines lead to the answers. They come after these in the results.
LEADS = ("book/symptoms", "book/questions", "book/index")
#: How much the sections of a page count, where it is not a chapter that answers a question in full.
FACTORS = {**dict.fromkeys(LEADS, 0.5), "book/changelog": 0.4, "book/contributing": 0.4, "book/references": 0.4,
           "book/index": 0.9, "book/api": 0.35, "book/more_questions": 0.65}  # fmt: skip
UNREAD = "script, style, svg, a.headerlink, summary, nav, .cell_output, .times, form, .lv"
ASKERS = re.compile(r"(In one sentence|Also asked)\b")
HEADINGS = ["h1", "h2", "h3", "h4"]


def article(site: Path, name: str) -> tuple[BeautifulSoup, Tag]:
    soup = BeautifulSoup(Path(site, f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    return soup, soup.select_one("article.bd-article")


def spoken(body: Tag) -> dict[str, list[str]]:
    """The lines of a list that lead to another page: address with anchor -> the lines."""
    found: dict[str, list[str]] = {}
    for item in body.select("li"):
        for link in item.select("a[href*='.html']"):
            found.setdefault(link["href"], []).append(" ".join(item.get_text(" ").replace("→", "").split()))
    return found


def heading_of(place: Tag) -> Tag | None:
    """The heading of the section that a place is in."""
    section = place if place.name == "section" else place.find_parent("section")
    return section.find(HEADINGS, recursive=False) if section else None


def prepare(soup: BeautifulSoup, body: Tag, lines: dict[str, list[str]]) -> None:
    """Leave in a page what is read, add the lines that lead to its sections, and say how much each thing counts."""
    for anchor, texts in lines.items():
        place = body.find(id=anchor) if anchor else body
        if place and (heading := heading_of(place) or body.find("h1")):
            for text in dict.fromkeys(texts):
                line = soup.new_tag("p", attrs={"data-pagefind-weight": "8"})
                line.string = text
                heading.insert_after(line)
    for unread in body.select(UNREAD):
        unread.decompose()
    for code in body.select("div.highlight"):
        code["data-pagefind-weight"] = "0.4"
    for paragraph in body.select("p"):
        if ASKERS.match(paragraph.get_text().strip()):
            paragraph["data-pagefind-weight"] = "3"
    if question := body.select_one("section > blockquote"):
        question["data-pagefind-weight"] = "3"


def records(soup: BeautifulSoup, body: Tag, name: str) -> list[tuple[str, str]]:
    """Each section, and each name of the package or word of the glossary: its address, and what Pagefind is given."""
    title = " ".join(body.find("h1").get_text().split())
    found = []
    places = body.select("section") + body.select("dl.py > dt[id]") + body.select("dl.glossary > dt[id]")
    for place in reversed(places):  # inner ones first: each is taken out of what it stands in
        heading = place if place.name == "dt" else place.find(HEADINGS, recursive=False)
        if heading is None:
            continue
        anchor = place.get("id", "")
        words = place.get("id", "").rpartition(".")[2] if "sig" in place.get("class", []) else heading.get_text()
        rest = place.find_next_sibling("dd") if heading is place else place
        own = heading.extract()
        rest.extract()
        first = own.name == "h1"
        address = f"{name}.html" + ("" if first else f"#{anchor}")
        head = (
            ""
            if first
            else f'<h2 data-pagefind-weight="7" data-pagefind-meta="heading">{escape(" ".join(words.split()))}</h2>'
        )
        factor = FACTORS.get(name, 1)
        meta = f'<p data-pagefind-meta="factor:{factor}"></p>'
        weight = 10 if first else 2.5
        text = f'<h1 data-pagefind-weight="{weight}">{escape(title)}</h1>{head}{meta}{rest}'
        found.append((address, f'<html lang="en"><body><main data-pagefind-body>{text}</main></body></html>'))
    return found


async def index(site: Path, names: list[str]) -> int:
    lines: dict[str, dict[str, list[str]]] = {}
    for lead in LEADS:
        if Path(site, f"{lead}.html").is_file():
            for address, texts in spoken(article(site, lead)[1]).items():
                page, _, anchor = address.partition(".html")
                lines.setdefault(f"book/{page}", {}).setdefault(anchor.lstrip("#"), []).extend(texts)
    config = IndexConfig(output_path=str(site / "pagefind"), include_characters="_", force_language="en")
    count = 0
    async with PagefindIndex(config=config) as pagefind:
        for name in names:
            soup, body = article(site, name)
            prepare(soup, body, lines.get(name, {}))
            for address, content in records(soup, body, name):
                await pagefind.add_html_file(url=address, content=content)
                count += 1
    return count


def main() -> None:
    site, toc = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    count = asyncio.run(index(site, check_site.chapters(toc)))
    for file in ("pagefind-ui.js", "pagefind-ui.css", "pagefind-modular-ui.js", "pagefind-modular-ui.css",
                 "pagefind-component-ui.js", "pagefind-component-ui.css", "pagefind-highlight.js"):  # fmt: skip
        Path(site, "pagefind", file).unlink(missing_ok=True)  # its own looks, which no page uses
    print(f"search: {count} sections")


if __name__ == "__main__":
    main()
