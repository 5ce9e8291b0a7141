"""Sphinx extension: at the address of a page that is no more, a page that leads to its new home.

An address with the anchor of a question (#q-17) leads to where book/questions.md sends that question.
"""

import json
import re
from html import escape
from pathlib import Path

MOVED = {"book/dice_and_friends": "book/ratios", "book/more_questions": "book/questions"}
QUESTION = re.compile(r'<a href="(\w+)\.html#(q-\d\d)">')

PAGE = """\
<!DOCTYPE html>
<html lang="{language}">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>This page has moved</title>
<link rel="icon" href="../_static/favicon.svg">
<noscript><meta http-equiv="refresh" content="0; url={new}"></noscript>
<script>
  const homes = {homes};
  const question = location.hash.slice(1);
  location.replace(question in homes ? homes[question] + ".html#" + question : "{new}" + location.hash);
</script>
<main><h1>This page has moved</h1><p><a href="{new}">It is here now.</a></p></main>
</html>
"""


def write(app, exception) -> None:
    if exception is not None or app.builder.format != "html":
        return
    questions = Path(app.srcdir, "book", "questions.md").read_text(encoding="utf-8")
    homes = {anchor: page for page, anchor in QUESTION.findall(questions)}
    for old, new in MOVED.items():
        page = PAGE.format(language=app.config.language, homes=json.dumps(homes), new=escape(f"{Path(new).name}.html"))
        Path(app.outdir, f"{old}.html").write_text(page, encoding="utf-8")


def setup(app) -> dict:
    app.connect("build-finished", write)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
