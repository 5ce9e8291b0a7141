"""The box in which readers write a guess: its HTML, with a hash in place of the answer.

    python scripts/answer.py guess-padding 1.3333                  a number, to 3 significant digits
    python scripts/answer.py guess-padding 1.3333 --digits 5
    python scripts/answer.py guess-shape "(3, 1)" --digits 0       words: no capitals, spaces, quotes or brackets
    python scripts/answer.py guess-padding 2 --hint 1.3333 "You divided by all six steps."

The first argument is the id of the box on its page. The hash belongs to this id, so the same answer in another box
looks different. Whoever wants to can still find it: it keeps an answer from being read by accident, no more.
"""

import argparse
import re
from decimal import ROUND_HALF_UP, Context, Decimal
from html import escape

ROUNDS = 1000  # as in book/_playground/embed.js


def canonical(text: str, digits: int) -> str:
    """A number to so many significant digits, as in 1.33e+0; with `digits` 0, words without spaces and brackets."""
    if not digits:
        return re.sub(r"[\s\"'“”‘’()\[\]]", "", text.lower()).removesuffix(",")
    value = Decimal(float(text))
    if not value.is_finite():
        return "NaN" if value.is_nan() else "Infinity" if value > 0 else "-Infinity"
    rounded = Context(prec=digits, rounding=ROUND_HALF_UP).plus(value)
    mantissa, _, exponent = f"{rounded:.{digits - 1}e}".partition("e")
    return f"{mantissa.removeprefix('-') if not value else mantissa}e{int(exponent) if value else 0:+d}"


def digest(name: str, text: str) -> str:
    """32 bits of FNV-1a, a thousand times over."""
    found = ""
    for _ in range(ROUNDS):
        value = 0x811C9DC5
        for byte in f"{name}:{text}:{found}".encode():
            value = (value ^ byte) * 0x01000193 % 2**32
        found = f"{value:08x}"
    return found


def box(name: str, answer: str, digits: int = 3, hints: list[tuple[str, str]] = ()) -> str:
    """The HTML for a Markdown cell; no line of it is empty, since an empty line would end it."""
    lines = [f'<div class="lossviz-answer" id="{name}" data-answer="{digest(name, canonical(answer, digits))}"']
    lines[0] += f' data-digits="{digits}">' if digits else ">"
    lines.append('<p class="without">Write down your guess before you go on.</p>')
    for wrong, text in hints:
        lines.append(f'<p hidden data-if="{digest(name, canonical(wrong, digits))}">{escape(text)}</p>')
    return "\n".join([*lines, "</div>"])


def main() -> None:
    parser = argparse.ArgumentParser(description="HTML of a box for an answer, with a hash in place of the answer.")
    parser.add_argument("name", help="id of the box on its page")
    parser.add_argument("answer")
    parser.add_argument("--digits", type=int, default=3, help="significant digits that count; 0 for words (default: 3)")
    parser.add_argument("--hint", nargs=2, action="append", default=[], metavar=("WRONG", "TEXT"))
    given = parser.parse_args()
    print(box(given.name, given.answer, given.digits, given.hint))


if __name__ == "__main__":
    main()
