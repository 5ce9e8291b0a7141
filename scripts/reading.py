"""How long the book takes to read, and which toys stand in more than one chapter.

    python scripts/reading.py           minutes of each chapter and part, and the repeated toys
    python scripts/reading.py --limit   the same; an error where a chapter is longer than it may be

Minutes: the words of the text at 200 a minute and those of the code at 100. What cells print, what is folded and what
is removed from the page is not counted. The pages print the same number (_ext/chapter_times.py).

A toy is an array written out in numbers (three or more, not all alike) or a function or class; it is repeated where two
notebooks have the same one.
"""

import argparse
import ast
import json
import math
import re
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT, CODE = 200, 100  # words a minute
FOLDED = {"hide-input", "hide-cell", "remove-input", "remove-cell"}
PATH = ("one_number", "last_axis", "progress_bar", "scalar_or_tensor", "debugging")  # the book in a hurry
LONGEST = 20  # minutes of a chapter that is read from the top
LEAST_NUMBERS = 3
NOT_A_TOY = {"identity"}  # helpers that no reader has to learn anew


def words(text: str) -> int:
    return len(re.findall(r"\w+", text))


def visible(markdown: str) -> str:
    """The text of Markdown that stands on the page: no tags, addresses, folded solutions or views of the playground."""
    text = re.sub(r"<details>.*?</details>|<div class=.lossviz-play.*?</div>", "", markdown, flags=re.DOTALL)
    text = re.sub(r"<[^>]+>|^```.*$|^:::.*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    text = re.sub(r"\{(?:cite|bib)[:\w]*\}`[^`]*`", "", text)
    return re.sub(r"\{[\w:]+\}`([^`<]*)[^`]*`", r"\1", text)


def minutes(notebook: dict) -> int:
    """Minutes that a notebook takes to read, at least one."""
    text = code = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text += words(visible(source))
        elif not FOLDED & set(cell["metadata"].get("tags", [])):
            code += words(source)
    return max(1, math.ceil(text / TEXT + code / CODE))


def short_minutes(notebook: dict) -> int:
    """The same without the exercises and without the sections that begin with *Skip this*."""
    kept, level = [], 0  # the depth of the section that is left out; 0 outside of one
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        heading = re.search(r"^(#+) (.+)$", source, re.MULTILINE) if cell["cell_type"] == "markdown" else None
        if heading and (not level or len(heading[1]) <= level):
            skipped = heading[2] == "Exercises" or re.search(
                rf"^{re.escape(heading[0])}\n+\*Skip this", source, re.MULTILINE
            )
            level = len(heading[1]) if skipped else 0
        if not level:
            kept.append(cell)
    return minutes({"cells": kept})


def parts(toc: Path) -> list[tuple[str, list[str]]]:
    """The captions of the table of contents, each with the names of its pages; the front page is in none."""
    found: list[tuple[str, list[str]]] = []
    for line in toc.read_text(encoding="utf-8").splitlines():
        if caption := re.match(r"\s*- caption: (.+)", line):
            found.append((caption[1], []))
        elif page := re.match(r"\s*- file: book/(\w+)", line):
            found[-1][1].append(page[1])
    return found


def toys(notebook: dict) -> set[str]:
    """The arrays and definitions of a notebook, as text that is equal for equal ones."""
    found = set()
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code" or "remove-cell" in cell["metadata"].get("tags", []):
            continue
        try:
            tree = ast.parse("".join(cell["source"]))
        except SyntaxError:  # %magic
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name not in NOT_A_TOY:
                found.add(ast.unparse(node))
        found |= {str(array) for array in arrays(tree)}
    return found


def arrays(node: ast.AST) -> list[list]:
    """Outermost lists of numbers, or of lists of numbers."""
    if isinstance(node, ast.List | ast.Tuple):
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError):
            value = None
        numbers = flat(value)
        if numbers and len(numbers) >= LEAST_NUMBERS and len(set(numbers)) > 1 and isinstance(node, ast.List):
            return [nested(value)]
    return [array for child in ast.iter_child_nodes(node) for array in arrays(child)]


def nested(value: object) -> object:
    """The same lists with 1 and 1.0 alike."""
    return [nested(one) for one in value] if isinstance(value, list | tuple) else float(value)


def flat(value: object) -> list[float] | None:
    """The numbers in nested lists; None where there is anything else."""
    if isinstance(value, list | tuple):
        inner = [flat(one) for one in value]
        return None if None in inner else [number for one in inner for number in one]
    return [float(value)] if isinstance(value, int | float) and not isinstance(value, bool) else None


def repeated(notebooks: dict[str, dict]) -> dict[str, list[str]]:
    """Toys that stand in more than one notebook, and in which ones."""
    homes = defaultdict(list)
    for name, notebook in notebooks.items():
        for toy in toys(notebook):
            homes[toy].append(name)
    return {toy: names for toy, names in sorted(homes.items()) if len(names) > 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", action="store_true", help=f"at most {LONGEST} minutes a chapter")
    options = parser.parse_args()
    notebooks, long, total = {}, [], 0
    for caption, pages in parts(ROOT / "_toc.yml"):
        rows = []
        for page in pages:
            path = ROOT / "book" / f"{page}.ipynb"
            if path.is_file():
                notebooks[page] = json.loads(path.read_text(encoding="utf-8"))
                rows.append((page, minutes(notebooks[page])))
        if rows:
            together = sum(number for _, number in rows)
            total += together
            print(f"{caption:40} {together:4} min")
            for page, number in rows:
                print(f"    {page:36} {number:4}{'  too long' if number > LONGEST else ''}")
            long += [page for page, number in rows if number > LONGEST]
    path = sum(short_minutes(notebooks[page]) for page in PATH)
    print(f"{'The path, without exercises and skips':40} {path:4} min")
    print(f"{'The whole':40} {total:4} min\n\nToys in more than one chapter")
    for toy, names in repeated(notebooks).items():
        first = toy.partition("\n")[0]
        print(f"    {first[:60]:60}  {', '.join(names)}")
    return int(options.limit and bool(long))


if __name__ == "__main__":
    sys.exit(main())
