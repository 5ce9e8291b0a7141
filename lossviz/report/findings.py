"""Findings: what is wrong with a loss on this data, in one sentence with its numbers, and the way out.

The rules themselves, and what they look at, are in `rules`. This module knows nothing of TensorFlow.
"""

from __future__ import annotations

from dataclasses import dataclass

from lossviz.report.escape import clean

#: From bad to harmless. "error": the number or the training is wrong. "warning": it is likely to be, or is so in a part
#: that is easily missed. "hint": right as it stands, if it is meant.
SEVERITIES = ("error", "warning", "hint")


@dataclass(frozen=True)
class Finding:
    """One fault: `rule` is its stable name, `where` the output, layer or weight it was found at.

    `sentence` says what is wrong on this data, with the numbers, and `fix` what to do about it. `page` is the page
    of the book that explains it. `since` and `until` are the first and the last version of Keras that behave so,
    as far as they are known: empty where the rule does not depend on the version, or where the newest version that
    was tried still does. `severity` is "error" (the number or the training is wrong), "warning" (it is likely to be) or
    "hint" (right as it stands, if it is meant). `tried` says what came of the fix on a copy of the model, where
    `lint(..., try_fixes=True)` tried one.
    """

    rule: str
    where: str
    sentence: str
    fix: str
    page: str = ""
    since: str = ""
    until: str = ""
    severity: str = "error"
    tried: str = ""

    @property
    def versions(self) -> str:
        """`Keras 3.5 and newer`, or empty."""
        if self.since and self.until:
            return f"Keras {self.since} to {self.until}"
        if self.until:
            return f"Keras {self.until} and older"
        return f"Keras {self.since} and newer" if self.since else ""

    def to_dict(self) -> dict[str, str]:
        """Every field by its name; `tried` only where a fix was tried."""
        return {name: value for name, value in vars(self).items() if name != "tried" or value}

    def __str__(self) -> str:
        versions = f" ({self.versions})" if self.versions else ""
        lines = [f"{self.severity}: {self.rule}: {self.where}: {self.sentence}{versions}", f"Fix: {self.fix}"]
        if self.tried:
            lines.append(self.tried if self.tried.startswith("not tried") else f"Tried: {self.tried}")
        return "\n".join(map(clean, lines))
