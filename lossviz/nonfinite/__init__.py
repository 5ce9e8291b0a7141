"""Where a NaN or an infinity enters a loss, or its gradient."""

from lossviz.nonfinite.find import find_nonfinite
from lossviz.nonfinite.result import NonFinite

__all__ = ["NonFinite", "find_nonfinite"]
