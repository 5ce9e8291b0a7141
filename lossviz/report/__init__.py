"""The frozen records that `explain` returns, and their writers."""

from lossviz.report.records import (
    EXACTNESS,
    TRUE_CLASS,
    UNSPLIT,
    AdditivityError,
    Part,
    Report,
    Step,
    Term,
)

__all__ = ["EXACTNESS", "TRUE_CLASS", "UNSPLIT", "AdditivityError", "Part", "Report", "Step", "Term"]
