"""Text from anywhere, made safe to print."""


def clean(text: object) -> str:
    """`text` on one line: control characters and line breaks as escapes, so that no name can break a row."""
    return "".join(c if c.isprintable() or c == "\u200d" else c.encode("unicode_escape").decode() for c in str(text))
