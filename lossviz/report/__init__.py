"""The frozen records that `explain` returns, and their writers."""

from lossviz.report.records import (
    EXACTNESS,
    TRUE_CLASS,
    UNSPLIT,
    AdditivityError,
    Part,
    Step,
    Term,
)
from lossviz.report.report import Report

__all__ = ["EXACTNESS", "TRUE_CLASS", "UNSPLIT", "AdditivityError", "Part", "Report", "Step", "Term"]
