"""`Report`: the records of one explanation, with the ways to show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lossviz.report import comparison, html, text
from lossviz.report.records import Balance


@dataclass(frozen=True, eq=False)
class Report(Balance):
    """How one number came about: terms that sum to it, each with its steps and its exact shares.

    `reported` is what Keras returned, `total` the sum of all shares, `residual` their difference. `source`
    says where `reported` comes from. `versions` names Keras, its backend and TensorFlow. `tolerance` is the
    relative rounding error allowed (of the sum of absolute shares; 1e-6 in float32). `batch_size` may be None.
    `batches`, of a whole data set, holds (samples, loss) of each batch; else it is empty. `findings` says what is
    wrong with the loss on this data (`lossviz.lint`).
    """

    def compare(self, other: Balance) -> comparison.Comparison:
        """What moved from this report to `other`: a `Comparison`, whose differences sum to that of the losses.

        Of two models on one batch, of one model before and after training, or of two versions of Keras (a report can
        be pickled in one environment and read in another). A difference is the other's share minus this one's.
        """
        return comparison.compare(self, other)

    def plot(self, ax: Any = None) -> Any:
        """Draw the waterfall of terms (`lossviz.plots.waterfall`); returns the matplotlib Axes."""
        from lossviz import plots

        return plots.waterfall(self, ax=ax)

    def summary(self, width: int = text.WIDTH, digits: int = 5) -> str:
        """The report as text, as `print(report)` shows it, in lines of at most `width` columns (40 or more).

        `digits` is the number of significant digits of the largest contribution. Raises ValueError for a narrower page.
        """
        return text.render(self, width=width, digits=digits)

    def __str__(self) -> str:
        return text.render(self)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return html.render(self)
