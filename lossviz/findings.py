"""Where `Finding` is known to pickles and programs of earlier versions; it lives in `lossviz.report.findings`."""

from lossviz.report.findings import Finding

__all__ = ["Finding"]
