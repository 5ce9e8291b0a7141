"""Where a NaN or an infinity enters a loss, or its gradient."""

from lossviz.nonfinite.search import NonFinite, find_nonfinite

__all__ = ["NonFinite", "find_nonfinite"]
