"""Sphinx extension: in the list of references each entry has the label that citations have, `[Wen et al., 2016]`."""

from collections import Counter

from pybtex.plugin import register_plugin
from pybtex.richtext import Text
from pybtex.style.formatting.plain import Style
from pybtex.style.labels import BaseLabelStyle

NAME = "author_year_labels"


def authors(entry) -> str:
    """As `bibtex_reference_style: author_year` writes them: one name, two, or the first with "et al."."""
    persons = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [str(Text.from_latex(" ".join(person.prelast_names + person.last_names))) for person in persons]
    if not names:
        return str(Text.from_latex(entry.fields.get("title", entry.key)))
    return f"{names[0]} et al." if len(names) > 2 else " and ".join(names)


class AuthorYear(BaseLabelStyle):
    def format_labels(self, sorted_entries):
        labels = [", ".join(filter(None, (authors(one), one.fields.get("year")))) for one in sorted_entries]
        seen = Counter()
        for label in labels:
            seen[label] += 1
            yield label + (chr(ord("a") + seen[label] - 1) if labels.count(label) > 1 else "")


class AuthorYearStyle(Style):
    default_label_style = AuthorYear


def setup(app) -> dict:
    register_plugin("pybtex.style.formatting", NAME, AuthorYearStyle, force=True)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
