"""A real browser for the tests: the system's Chromium, driven by playwright, with every network closed but localhost.

    with browser.serve(folder) as address, browser.launch() as chromium:
        with browser.visit(chromium, f"{address}/index.html", width=390, dark=True) as seen:
            seen.page.click("text=Next")
            assert not seen.problems

Nothing is ever downloaded. `launch` skips the test, and says why, where there is no Chromium. One launch takes a second
or two and a visit a tenth: share the launch among the tests of a file.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

#: Names under which systems keep Chromium; LOSSVIZ_CHROMIUM names another one.
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LOCAL = ("127.0.0.1", "localhost")
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",  # /dev/shm is small in containers
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-first-run",
    "--no-pings",
    "--no-sandbox",  # the sandbox needs rights that root in a container has not
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]
#: Nothing listens there: what is not local fails at once.
PROXY = {"server": "http://127.0.0.1:9", "bypass": ",".join(LOCAL)}


def executable() -> str:
    """Path of the system's Chromium. Skips the test where there is none, or no playwright."""
    pytest.importorskip("playwright", reason="no playwright: pip install -r requirements.txt")
    given = os.environ.get("LOSSVIZ_CHROMIUM")
    found = given or next(filter(None, map(shutil.which, NAMES)), None)
    if not found:
        pytest.skip(f"no Chromium on this machine (looked for {', '.join(NAMES)}, and for LOSSVIZ_CHROMIUM)")
    return found


@contextmanager
def launch():
    """A headless Chromium (playwright's `Browser`) that reaches localhost and nothing else."""
    path = executable()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=FLAGS, proxy=PROXY)
        try:
            yield chromium
        finally:
            chromium.close()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@contextmanager
def serve(folder: str | Path) -> Iterator[str]:
    """Serve `folder` on a free port of this machine; gives the address, without a slash at its end."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer((LOCAL[0], 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{LOCAL[0]}:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Visit:
    """An open page, and what went wrong on it so far: `problems` is empty on a good page."""

    page: object  # playwright's Page
    requests: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


@contextmanager
def visit(chromium, address: str | None = None, *, width: int = 1280, height: int = 800, dark: bool = False, **options):
    """Open `address` in a new context with nothing stored. `options` go to playwright's `new_context`.

    Recorded in `problems`: requests to another host, failed requests, answers of 400 and more, exceptions, and
    errors and warnings in the console.
    """
    scheme = "dark" if dark else "light"
    context = chromium.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, **options)
    try:
        page = context.new_page()
        seen = Visit(page)

        def request(one):
            seen.requests.append(one.url)
            parts = urlsplit(one.url)
            if parts.scheme not in ("data", "blob", "file", "about") and parts.hostname not in LOCAL:
                seen.problems.append(f"asks another host: {one.url}")

        page.on("request", request)
        page.on("requestfailed", lambda one: seen.problems.append(f"failed: {one.url} ({one.failure})"))
        page.on("response", lambda one: one.status >= 400 and seen.problems.append(f"{one.status}: {one.url}"))
        page.on("pageerror", lambda error: seen.problems.append(f"exception: {error}"))

        def console(message):
            if message.type in ("error", "warning"):
                seen.problems.append(f"console {message.type}: {message.text}")

        page.on("console", console)
        if address:
            page.goto(address)
        yield seen
    finally:
        context.close()
