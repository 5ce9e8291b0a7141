"""lossviz: how the tensor of errors became the one loss that Keras printed, axis by axis and exactly.

explain          Explain the loss of a compiled Keras model on one batch; returns a Report.
explain_loss     Explain one loss function on two arrays, without a model; returns a Report.
LossParts        Keras callback: data loss, regularisation, added losses, outputs and classes, live in fit.
lint             Say what is wrong with a loss on this data; returns Findings, none for a sound model.
guard            Context manager: lint looks at the first batch of each fit, train_on_batch and evaluate inside.
find_nonfinite   Find where a NaN or an infinity enters the loss of a batch, or its gradient; returns a NonFinite.
Report           The explanation: total, terms, shares along every axis; prints, plots, and checks itself.
Term             One summand of the loss: an output, an added loss, a regulariser or a constant.
Part             The element losses that reach a term by one road, and the share of each in the total.
Step             One operation on that road: what was averaged, summed, multiplied or divided, and by what.
Finding          One fault: its rule, its place, a sentence with the numbers, and the way out.
Comparison       What moved between two reports, term by term; report.compare(other) returns it.
NonFinite        The place: step, term, layer, operation, first index, cause and a way out; false where all is finite.
GuardError       Raised by guard(error=True) before the first step of a model that has findings.
AdditivityError  Raised by Report.check() when the shares do not add up to what Keras reports.
plots            Figures of a report: the cascade of shapes, heat maps per axis, waterfalls. Needs Matplotlib.
regimes          The four ways in which Keras versions made one number of the same tensors, in plain NumPy.
losses           Losses that people ask for, as keras.losses.Loss: landmarks, segmentation, Dice and Tversky.
layers           Layers that add a loss: of any tensors of the model, or towards the center of a class.
testing          assert_sound, for your own tests: fail where lint finds something.
examples         The data and the small models of the book; no download.
exercises        Whether an answer to an exercise of the book is right.

Everything is imported when it is first used, so `import lossviz` is quick and loads no TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lossviz import examples, exercises, layers, losses, plots, regimes, testing
    from lossviz.ask.explain import explain, explain_loss
    from lossviz.ask.guard import GuardError, guard
    from lossviz.ask.lint import lint
    from lossviz.callbacks import LossParts
    from lossviz.nonfinite.find import find_nonfinite
    from lossviz.nonfinite.result import NonFinite
    from lossviz.report.comparison import Comparison
    from lossviz.report.findings import Finding
    from lossviz.report.records import AdditivityError, Part, Step, Term
    from lossviz.report.report import Report

__version__ = "0.1.0"

__all__ = [
    "AdditivityError",
    "Comparison",
    "Finding",
    "GuardError",
    "LossParts",
    "NonFinite",
    "Part",
    "Report",
    "Step",
    "Term",
    "examples",
    "exercises",
    "explain",
    "explain_loss",
    "find_nonfinite",
    "guard",
    "layers",
    "lint",
    "losses",
    "plots",
    "regimes",
    "testing",
]

_HOME = {
    "Comparison": "report.comparison",
    "Finding": "report.findings",
    "Report": "report.report",
    "LossParts": "callbacks",
    "NonFinite": "nonfinite.result",
    "find_nonfinite": "nonfinite.find",
    "lint": "ask.lint",
    **dict.fromkeys(("GuardError", "guard"), "ask.guard"),
    **dict.fromkeys(("explain", "explain_loss"), "ask.explain"),
    **dict.fromkeys(("AdditivityError", "Part", "Step", "Term"), "report.records"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'lossviz' has no attribute '{name}'")
    module = import_module(f"lossviz.{_HOME.get(name, name)}")
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
