"""Where `Comparison` is known to pickles and programs of earlier versions; it lives in `lossviz.report.comparison`."""

from lossviz.report.comparison import Comparison, compare
from lossviz.report.difference import Change

__all__ = ["Change", "Comparison", "compare"]
