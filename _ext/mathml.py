"""Sphinx extension: formulas are written into the page as MathML, so that no page loads a script for them."""

import re

from docutils.nodes import SkipNode
from latex2mathml.converter import convert

# "log p" needs a space between the two, which MathJax sets and the converter leaves out.
FUNCTION = re.compile(r"(<mi>\w{2,}</mi>)(?=<m[in]>)")


def mathml(latex: str, display: str) -> str:
    return FUNCTION.sub(r'\1<mspace width="0.17em"/>', convert(latex, display=display))


def visit_inline(self, node) -> None:
    self.body.append(mathml(node.astext(), "inline"))
    raise SkipNode


def visit_block(self, node) -> None:
    self.body.append(f'<div class="math-block" tabindex="0">{mathml(node.astext(), "block")}</div>\n')
    raise SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
