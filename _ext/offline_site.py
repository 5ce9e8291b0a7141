"""Sphinx extension: the built site needs no other host, and links to wherever the repository lives."""

import os
import re
import subprocess
from html import escape
from pathlib import Path

ENTRANCE = """\
<!DOCTYPE html>
<html lang="{language}">
<meta charset="utf-8">
<title>{title}</title>{tags}
<link rel="icon" href="_static/favicon.svg">
<meta http-equiv="refresh" content="0; url={front}">
<a href="{front}">{title}</a>
</html>
"""


def repository() -> str:
    """Address of the repository: LOSSVIZ_REPOSITORY, or else the git remote if that is on GitHub, or else nothing."""
    address = os.environ.get("LOSSVIZ_REPOSITORY")
    if address is None:
        try:
            git = ["git", "-C", str(Path(__file__).parent), "remote", "get-url", "origin"]
            address = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:  # no git here
            address = ""
    match = re.fullmatch(r"(?:https://(?:[^@/]+@)?|(?:ssh://)?git@)github\.com[:/]([^/]+/[^/]+?)(?:\.git)?/?", address)
    return f"https://github.com/{match[1]}" if match else ""


def site() -> str:
    """Address of the published book, without a slash at its end: LOSSVIZ_ADDRESS, or else the pages of the repository
    on GitHub, or else nothing. Only https, since notebooks install a wheel from there."""
    address = os.environ.get("LOSSVIZ_ADDRESS", "").rstrip("/")
    if address:
        if not re.fullmatch(r"https://[\w.:/~-]+", address):
            raise ValueError(f"LOSSVIZ_ADDRESS is {address!r}; it must be an address that begins with https://")
        return address
    if url := repository():
        owner, name = url.split("/")[-2:]
        home = f"{owner.lower()}.github.io"
        return f"https://{home}" if name.lower() == home else f"https://{home}/{name}"
    return ""


def link_repository(app, config) -> None:
    """Buttons for the repository, its issues and Colab where the address is known; none where it is not."""
    url = repository()
    options = {"repository_url": url, "use_repository_button": bool(url), "use_issues_button": bool(url)}
    if url:
        options["launch_buttons"] = {
            "colab_url": "https://colab.research.google.com",
            "binderhub_url": "https://mybinder.org",
            "notebook_interface": "jupyterlab",
        }
        options["repository_branch"] = "notebooks"  # what they open: see scripts/install_cell.py
    config.html_theme_options.update(options)


def lighten_icons(app, exception) -> None:
    """Empty the script that draws the icons a second time: 1.5 MB, and the icons come from the web font as well. Of
    that font only the icons in use stay (_static/icons-licence.txt): 3 of 156 kB."""
    if exception is None and app.builder.format == "html":
        static = Path(app.outdir, "_static")
        Path(static, "scripts", "fontawesome.js").write_text("")
        font = Path(static, "vendor", "fontawesome", "webfonts", "fa-solid-900.woff2")
        font.write_bytes(Path(app.confdir, "_static", "icons.woff2").read_bytes())


def write_entrance(app, exception) -> None:
    """The page at the address of the site itself: it leads to the front page, and knows the icon and the language."""
    if exception is None and app.builder.format == "html":
        front = f"{app.config.root_doc}.html"
        from heads import tags as head_tags  # which needs `site` from here

        tags = head_tags(app, app.config.root_doc, app.env.get_doctree(app.config.root_doc))
        page = ENTRANCE.format(
            language=app.config.language, title=escape(app.config.html_title), front=front, tags=tags
        )
        Path(app.outdir, "index.html").write_text(page, encoding="utf-8")


def references_without_roles(app, pagename, templatename, context, doctree) -> None:
    """The list of references has roles that screen readers no longer know, and that make its links faults."""
    for role in ('role="list" class="citation-list"', 'role="doc-biblioentry"'):
        context["body"] = context.get("body", "").replace(role, role.partition('" ')[2])


def setup(app) -> dict:
    app.connect("config-inited", link_repository)
    app.connect("html-page-context", references_without_roles)
    app.connect("build-finished", lighten_icons)
    app.connect("build-finished", write_entrance)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
