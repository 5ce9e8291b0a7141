"""Findings as SARIF 2.1.0, the format from which a code host shows them in a pull request."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lossviz.report.escape import clean
from lossviz.report.findings import Finding

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_LEVELS = {"error": "error", "warning": "warning", "hint": "note"}


def sarif(
    found: Iterable[tuple[Finding, Path, int]], summaries: Mapping[str, str], version: str, folder: Path
) -> dict[str, Any]:
    """One run of lossviz: each finding at a line of a file.

    `summaries` has a sentence on each rule that was found. Addresses of files inside `folder` are relative to it, as
    code hosts want them; a file elsewhere has its whole address.
    """
    found = list(found)
    rules = sorted({finding.rule for finding, _, _ in found})
    driver = {
        "name": "lossviz",
        "semanticVersion": version,
        "rules": [
            {
                "id": rule,
                "shortDescription": {"text": clean(summaries[rule])},
                "help": {"text": f"python -m lossviz rules {rule}"},
                "defaultConfiguration": {"level": _level(next(one for one, _, _ in found if one.rule == rule))},
            }
            for rule in rules
        ],
    }
    results = [
        {
            "ruleId": finding.rule,
            "ruleIndex": rules.index(finding.rule),
            "level": _level(finding),
            "message": {"text": _message(finding)},
            "locations": [
                {
                    "physicalLocation": {
                        "artifactLocation": {"uri": _address(file, folder)},
                        "region": {"startLine": max(line, 1)},
                    }
                }
            ],
        }
        for finding, file, line in found
    ]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _level(finding: Finding) -> str:
    return _LEVELS[finding.severity]


def _message(finding: Finding) -> str:
    versions = f" ({finding.versions})" if finding.versions else ""
    return clean(f"{finding.where}: {finding.sentence}{versions} Fix: {finding.fix}")


def _address(file: Path, folder: Path) -> str:
    whole, folder = file.absolute(), folder.absolute()
    if not whole.is_relative_to(folder):
        return whole.as_uri()
    return whole.as_uri().removeprefix(folder.as_uri().rstrip("/") + "/")
