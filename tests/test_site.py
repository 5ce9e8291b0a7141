"""The built book in a real browser, every page of it, with the network closed but for localhost.

    ./build.sh && ./test.sh tests/test_site.py

Skipped, visibly, where there is no Chromium, no built site, or one that is older than its sources. LOSSVIZ_SITE names
the folder of a site that is tested whatever its age.
"""

import gzip
import os
import re
from importlib.util import find_spec
from pathlib import Path

import browser
import check_site
import pytest

ROOT = Path(__file__).parent.parent
SITE = Path(os.environ.get("LOSSVIZ_SITE", ROOT / "_build" / "html"))
CHAPTERS = check_site.chapters(Path(ROOT, "_toc.yml"))
PAGES = [*CHAPTERS, "genindex", "search"]

FIRST_VIEW = 300_000  # bytes, gzipped, of a page with all that it loads
LARGEST = 1_500_000  # bytes of the same as they are

# What axe calls a fault that keeps people out. In the dark only what depends on colours is looked at again.
SERIOUS = {"serious", "critical"}
COLOURS = ["color-contrast", "link-in-text-block"]
# Words of code have the same few colours on every page, and are nine tenths of axe's work: one page stands for all.
WORDS_OF_CODE, CODE_PAGE = ".highlight pre span", "book/one_number"


def stale() -> str:
    """Why there is no site to test, in words; an empty string where there is one."""
    if not (SITE / "index.html").is_file():
        return f"no built site in {SITE}: run ./build.sh"
    if "LOSSVIZ_SITE" in os.environ:
        return ""
    folders = {
        "book": ("*.ipynb", "*.md", "*.bib"),
        "book/_playground": ("*",),
        "_ext": ("*.py",),
        "_static": ("*",),
        "_templates": ("*",),
        ".": ("_toc.yml", "_config.yml"),
    }
    sources = [file for folder, names in folders.items() for name in names for file in Path(ROOT, folder).glob(name)]
    newest = max(sources, key=lambda file: file.stat().st_mtime)
    if newest.stat().st_mtime > (SITE / "index.html").stat().st_mtime:
        return f"the built site is older than {newest.relative_to(ROOT)}: run ./build.sh"
    return ""


@pytest.fixture(scope="module")
def chromium():
    if reason := stale():
        pytest.skip(reason)
    with browser.launch() as launched:
        yield launched


@pytest.fixture(scope="module")
def address(chromium):
    with browser.serve(SITE) as served:
        yield served


@pytest.fixture(scope="module", params=PAGES)
def seen(request, chromium, address):
    """Each page, opened once for all tests of it, with everything on it unfolded."""
    with browser.visit(chromium, f"{address}/{request.param}.html") as visit:
        visit.page.evaluate("document.fonts.ready")
        visit.requests_of_first_view = list(visit.requests)
        visit.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        yield visit


def test_nothing_fails_on_the_page(seen):
    assert seen.problems == []


def test_first_view_is_light(seen, address):
    files = {
        SITE / one.removeprefix(f"{address}/").partition("?")[0]
        for one in seen.requests_of_first_view
        if address in one
    }
    contents = [file.read_bytes() for file in files if file.is_file()]
    assert len(contents) > 5
    assert sum(len(gzip.compress(one, 6)) for one in contents) <= FIRST_VIEW
    assert sum(map(len, contents)) <= LARGEST


def test_the_head_says_what_the_page_is(seen):
    """One viewport; a title that names the page once; in one or two sentences what it is about."""
    assert seen.page.evaluate("document.querySelectorAll('meta[name=viewport]').length") == 1
    parts = seen.page.title().split(" \u2014 ")
    assert len(set(parts)) == len(parts) and "How a loss becomes one number" in seen.page.title()
    if seen.page.url.rpartition("/")[2] not in ("genindex.html", "search.html"):
        said = seen.page.evaluate("document.querySelector('meta[name=description]').content")
        assert 40 <= len(said) <= 300
    assert seen.page.evaluate("document.querySelectorAll('h1').length") == 1


@pytest.mark.skipif(bool(stale()), reason=stale())
def test_references_have_the_labels_of_the_citations():
    labels = re.findall(r'class="fn-bracket">\[</span>(.+?)<', (SITE / "book/references.html").read_text())
    assert len(labels) > 10
    cited, links = "", set()
    for page in CHAPTERS:
        text = (SITE / f"{page}.html").read_text(encoding="utf-8")
        for one in re.findall(r'class="bibtex-citation"(?: id="\w+")?>.*?</span>', text, re.DOTALL):
            cited += "\n" + re.sub(r"<[^>]*>", "", one).replace(" [", ", ")
            links |= {re.sub(r"<[^>]*>", "", link) for link in re.findall(r"<a .*?</a>", one, re.DOTALL)}
    assert {label for label in labels if label not in cited} == set()
    assert {link for link in links if not re.fullmatch(r"\d{4}", link)} <= set(labels)


def test_icons_are_in_the_font(chromium, address):
    """The site's own subset has each icon that a page uses, and the one that the theme's script adds."""
    pages = [file.read_text(encoding="utf-8") for file in SITE.glob("**/*.html")]
    classes = {
        name for page in pages for one in re.findall(r'class="([^"]*\bfa[-sr][^"]*)"', page) for name in one.split()
    }
    icons = sorted(
        {name for name in classes if name.startswith("fa-")} - {"fa-solid", "fa-brands", "fa-lg", "fa-regular"}
    )
    with browser.visit(chromium, f"{address}/book/index.html") as seen:
        drawn = seen.page.evaluate(ICONS, [*icons, "fa-xmark", "fa-angle-down", "fa-whale-of-a-name"])
    missing = [name for name, icon in drawn.items() if not icon]
    assert len(icons) > 8 and missing == ["fa-whale-of-a-name"]


#: Which of these classes give a picture: other pixels than a character that no font has.
ICONS = """async names => {
    await document.fonts.load("900 30px 'Font Awesome 6 Free'", "\\uf002");
    const pixels = text => {
        const canvas = Object.assign(document.createElement("canvas"), {width: 60, height: 60});
        const pen = canvas.getContext("2d");
        pen.font = "900 30px 'Font Awesome 6 Free'";
        pen.fillText(text, 10, 40);
        return canvas.toDataURL();
    };
    const found = {};
    for (const name of names) {
        const icon = document.body.appendChild(document.createElement("i"));
        icon.className = `fa-solid ${name}`;
        const text = getComputedStyle(icon, "::before").content.replaceAll('"', "");
        found[name] = text.length === 1 && pixels(text) !== pixels("\\uf8fe") && pixels(text) !== pixels("");
        icon.remove();
    }
    return found;
}"""


@pytest.fixture(scope="module")
def axe():
    pytest.importorskip("axe_playwright_python")
    return Path(find_spec("axe_playwright_python").origin).with_name("axe.min.js").read_text(encoding="utf-8")


def violations(page, exclude: tuple[str, ...] = (), **options) -> list[str]:
    where = {"include": [["html"]], "exclude": [[one] for one in exclude]}
    run = "([where, options]) => axe.run(where, options)"
    found = page.evaluate(run, [where, {"resultTypes": ["violations"], **options}])
    return [
        f"{one['id']}: {node['target']}: {node['failureSummary']}\n{node['html'][:300]}"
        for one in found["violations"]
        if one["impact"] in SERIOUS
        for node in one["nodes"][:5]
    ]


def test_nobody_is_kept_out(seen, axe):
    """axe finds no serious or critical fault, on a light page and on a dark one."""
    seen.page.evaluate(axe)
    seen.page.add_style_tag(content="* { transition: none !important }")  # a colour on its way is none of the page's
    skipped = () if CODE_PAGE in seen.page.url else (WORDS_OF_CODE,)
    assert violations(seen.page, skipped) == []
    for theme in ("dark", "light"):
        seen.page.emulate_media(color_scheme=theme)
        seen.page.wait_for_selector(f"html[data-theme={theme}]")
        if theme == "dark":
            assert violations(seen.page, skipped, runOnly=COLOURS) == []


def test_axe_would_see_a_fault(chromium, axe):
    with browser.visit(chromium) as seen:
        seen.page.set_content(
            '<html lang="en"><title>a</title><main><h1 style="color:#ccc">pale</h1><img src="data:,"></main>'
        )
        seen.page.evaluate(axe)
        assert {one.partition(":")[0] for one in violations(seen.page)} == {"color-contrast", "image-alt"}


def test_every_picture_says_what_it_shows(seen):
    texts = seen.page.evaluate("[...document.querySelectorAll('article img')].map(one => one.getAttribute('alt'))")
    texts += seen.page.evaluate(
        "[...document.querySelectorAll('article svg.figure')].map(one => one.getAttribute('aria-label'))"
    )
    assert not [text for text in texts if not text or len(text) < 20 or re.search(r"\.(png|svg)$", text)]


def test_page_fits_a_phone(seen):
    """At 390 pixels only boxes of their own scroll sideways, never the page."""
    seen.page.set_viewport_size({"width": 390, "height": 800})
    assert seen.page.evaluate("document.documentElement.scrollWidth") <= 390
    seen.page.set_viewport_size({"width": 1280, "height": 800})


def test_reports_stay_in_their_frame(seen):
    """The theme's Bootstrap has rules for names such as "row", which reports therefore do not use."""
    outside = """[...document.querySelectorAll('div.lv .lr, div.lv .lr > *')].filter(one => {
        const [inner, outer] = [one, one.parentElement].map(box => box.getBoundingClientRect());
        return inner.left < outer.left - 1 || inner.right > outer.right + 1;
    }).map(one => one.textContent)"""
    assert seen.page.evaluate(outside) == []


@pytest.mark.skipif(bool(stale()), reason=stale())
def test_next_leads_through_the_book_in_order():
    path = [CHAPTERS[0]]
    while True:
        page = SITE / f"{path[-1]}.html"
        following = re.search(r'<a class="right-next"\s+href="([^"]+)\.html"', page.read_text(encoding="utf-8"))
        if not following:
            break
        path.append((page.parent / following[1]).resolve().relative_to(SITE.resolve()).as_posix())
    assert path == CHAPTERS


def queries() -> list[tuple[str, list[str]]]:
    """What readers type, each with the pages of which one must come first."""
    lines = Path(__file__).with_name("search_queries.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.split(" | ") for line in lines if line and not line.startswith("#"))
    return [(query, pages.split()) for query, pages in pairs]


def answers(page, query: str) -> list[str]:
    """The pages that the search finds, best first."""
    page.fill(".book-search input[name=q]", query)
    page.wait_for_function("query => document.getElementById('search-results').dataset.query === query", arg=query)
    return page.evaluate("[...document.querySelectorAll('#search-results .page-hit')].map(one => one.pathname)")


def test_search_finds_the_page_that_readers_mean(chromium, address):
    places = {}
    with browser.visit(chromium, f"{address}/search.html") as seen:
        for query, pages in queries():
            found = [one.rpartition("/")[2].removesuffix(".html") for one in answers(seen.page, query)]
            places[query] = min((found.index(page) for page in pages if page in found), default=99)
        assert not seen.problems
    assert len(places) >= 60
    later = {query: place for query, place in places.items() if place}
    assert sum(place == 0 for place in places.values()) >= 0.85 * len(places), later
    assert sum(place < 3 for place in places.values()) >= 0.97 * len(places), later


def test_search_shows_the_section_and_the_words(chromium, address):
    with browser.visit(chromium, f"{address}/search.html?q=val_loss%20lower%20than%20loss") as seen:
        seen.page.wait_for_selector("#search-results .passage mark")
        link = seen.page.locator("#search-results .section-hit").first
        name = link.text_content()
        link.click()
        seen.page.wait_for_load_state()
        anchor = seen.page.evaluate("decodeURIComponent(location.hash.slice(1))")
        assert name in seen.page.evaluate("id => document.getElementById(id).textContent", anchor)
        assert not seen.problems


def test_search_for_a_word_that_is_nowhere_finds_nothing(chromium, address):
    with browser.visit(chromium, f"{address}/search.html") as seen:
        for nonsense in ("qwzxvbn", "zzyzx blorptang", "xqj_kvw"):
            assert answers(seen.page, nonsense) == []
            assert "nothing" in seen.page.inner_text("#search-state").lower()
        assert not seen.problems


def test_search_from_a_file_says_what_it_needs(chromium):
    with browser.visit(chromium, (SITE / "search.html").resolve().as_uri()) as seen:
        assert seen.page.is_visible("#search-from-file")
        assert seen.page.evaluate("document.querySelector('#search-from-file a').href.startsWith('file:')")


def test_a_drawing_has_the_ink_of_the_theme(chromium, address):
    for dark in (False, True):
        with browser.visit(chromium, f"{address}/book/index.html", dark=dark) as seen:
            fill = seen.page.evaluate("getComputedStyle(document.querySelector('svg.figure text')).fill")
            assert (sum(map(int, re.findall(r"\d+", fill)[:3])) > 380) == dark


def test_no_figure_scrolls_sideways_on_a_phone(seen):
    """At 390 pixels all of a figure is seen at once, drawing or photograph."""
    seen.page.set_viewport_size({"width": 390, "height": 800})
    wide = seen.page.evaluate("""[...document.querySelectorAll('article svg.figure, article div.cell_output img')]
        .filter(one => {
            let right = 390;
            for (let box = one.parentElement; box; box = box.parentElement)
                if (getComputedStyle(box).overflowX !== 'visible')
                    right = Math.min(right, box.getBoundingClientRect().right);
            return one.getBoundingClientRect().right > right + 1;
        }).map(one => one.getAttribute('aria-label') || one.alt)""")
    seen.page.set_viewport_size({"width": 1280, "height": 800})
    assert wide == []


def test_a_printed_report_fits_a_phone(chromium, address):
    """All of it is seen at once, bars too: nothing of it lies outside its box."""
    with browser.visit(chromium, f"{address}/book/one_number.html", width=390) as seen:
        report = seen.page.locator("div.cell_output pre", has_text="residual").first
        wider, lines = report.evaluate(
            "one => [one.scrollWidth - one.clientWidth, one.textContent.trim().split('\\n')]"
        )
        assert wider <= 0 and 40 < max(map(len, lines)) <= 46


def test_a_film_moves_once_and_stands_still_for_those_who_want_it(chromium, address):
    for wish, name in (("reduce", "none"), ("no-preference", "film")):
        with browser.visit(chromium, f"{address}/book/fifth_class.html", reduced_motion=wish) as seen:
            looks = seen.page.evaluate("""[...document.querySelectorAll('svg.figure .film')].map(
                one => [getComputedStyle(one).animationName, getComputedStyle(one).animationIterationCount])""")
            assert looks == [[name, "1"]] * 5


def test_words_in_drawings_are_readable_on_a_phone(seen):
    """At 390 pixels no word of a drawing is smaller than 10 pixels."""
    seen.page.set_viewport_size({"width": 390, "height": 800})
    small = seen.page.evaluate("""[...document.querySelectorAll('svg.figure text')].filter(one =>
        parseFloat(getComputedStyle(one).fontSize) * one.getScreenCTM().a < 10 && one.getScreenCTM().b === 0
        && one.getScreenCTM().a > 0).map(one => one.textContent)""")
    seen.page.set_viewport_size({"width": 1280, "height": 800})
    assert small == []


def test_formulas_are_drawn_without_a_script(chromium, address):
    with browser.visit(chromium, f"{address}/book/weighted_masked_objective.html") as seen:
        fraction = seen.page.query_selector("math[display=block] mfrac")
        above, below = (part.bounding_box() for part in fraction.query_selector_all(":scope > *"))
        assert above["y"] + above["height"] <= below["y"] + 1
        fonts = seen.page.evaluate(
            "document.fonts.ready.then(all => [...all].filter(f => f.status == 'loaded').map(f => f.family))"
        )
        assert "Book Math" in " ".join(fonts)
