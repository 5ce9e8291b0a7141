"""What `lossviz` asks of the backend that Keras runs on, besides its programs: one class for each, under `current`."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from lossviz.backend.program import Program
from lossviz.backend.traced import Found, Traced


class Backend(ABC):
    """One backend of Keras. `name` is Keras's word for it."""

    name: str
    #: The widest floats that are added up quickly.
    widest = "float64"
    #: Does `differentiated` run what it is given more than once, so that it must change nothing?
    differentiates_apart = False

    @property
    @abstractmethod
    def version(self) -> str:
        """The version of the library."""

    @abstractmethod
    def is_tensor(self, thing: Any) -> bool:
        """Is it a tensor of this backend, in a graph or not?"""

    @abstractmethod
    def identity(self, tensor: Any) -> Any:
        """The same numbers as a tensor of its own."""

    @abstractmethod
    def logits_of(self, tensor: Any) -> Any:
        """The logits that Keras will use in place of this sigmoid or softmax output, or None."""

    @abstractmethod
    def takes_logits(self, kind: str, output: Any) -> bool:
        """Does a crossentropy of this kind ("binary", "categorical") take the logits from behind the output?"""

    @abstractmethod
    def predicted(self, model: Any, x: Any, **options: Any) -> Any:
        """The forward pass as Keras's own step computes it."""

    @abstractmethod
    def trace(self, compute: Callable[[Found, Sequence], Any], structure: list, model: Any, name: str) -> Traced:
        """Trace `compute(found, structure)` with placeholders for the arrays of `structure`; it fills in `found`."""

    @abstractmethod
    def program(self, traced: Traced, expanded: bool) -> tuple[Program, Callable[[Any], Any]]:
        """The program of what was traced, and the function that gives the value of one of its tensors. If `expanded`,
        fused operations are taken apart first."""

    @abstractmethod
    def call(self, calls: list[SimpleNamespace], layer: Any) -> contextlib.AbstractContextManager:
        """While open, `layer` is called: a note of it is added to `calls`."""

    @abstractmethod
    def forward(self, found: Found) -> contextlib.AbstractContextManager:
        """While open, the forward pass is computed."""

    @abstractmethod
    def state_put_back(self, traced: Traced | None) -> contextlib.AbstractContextManager:
        """Whatever runs inside, the variables that the traced loss moves are afterwards as they were, whoever owns
        them."""

    @abstractmethod
    def random_put_back(self) -> contextlib.AbstractContextManager:
        """The same for random numbers that the backend itself draws."""

    @abstractmethod
    def apart(self, function: Callable) -> Callable:
        """The function, unseen by whoever differentiates around it."""

    @abstractmethod
    def evaluated(self, model: Any, x: Any, y: Any, sample_weight: Any) -> dict:
        """What the test function of the model gives for one batch, where the model has a test step of its own."""

    @abstractmethod
    def evaluation(self, model: Any) -> contextlib.AbstractContextManager[Callable[..., dict]]:
        """While open, a function that does for one batch `(x, y, sample_weight)` what `model.evaluate` does; it returns
        what would be printed then."""

    @abstractmethod
    def readable(self, model: Any, state: tuple) -> contextlib.AbstractContextManager:
        """Inside a call of Keras's train or test function, before its step: while open, the variables of the model can
        be read. `state` is what comes before the iterator in the call."""

    @abstractmethod
    def trace_ahead(self, function: Callable, iterator: Any, batch: Any) -> bool:
        """Have Keras trace its train or test function as the call `function(iterator)` would, and run nothing. Is there
        a new trace?"""

    @abstractmethod
    def differentiated(self, compute: Callable[[Callable], tuple[Any, Sequence]]) -> tuple[Any, Sequence, Sequence]:
        """What `compute(watch)` returns, a number and tensors that it has passed through `watch`; and the derivative of
        the number by each, None where it does not depend on one. Inside a step of Keras."""

    @abstractmethod
    def graph(self) -> Any:
        """What is being traced now; None where it computes at once, or where each trace is a call of its own."""

    @abstractmethod
    def outside(self, function: Callable[[], Any]) -> Any:
        """`function()`, outside of whatever is being traced."""

    @abstractmethod
    def means(self) -> Means:
        """Means over the batches of an epoch."""

    @abstractmethod
    def with_parts(self, model: Any, kind: str, around: Callable, means: Means, check: Callable) -> Callable:
        """Keras's train or test function (`kind`) of a model, with `around(step)`, which runs `step()`, around each of
        its steps, and with what `means` holds then in the logs; `check(logs, parts)` may refuse."""

    @abstractmethod
    def logs_of(self, result: Any) -> dict:
        """The logs in what such a function returns."""

    @abstractmethod
    def text(self, array: np.ndarray) -> Any:
        """An array of strings in a form that Keras knows."""


class Means(ABC):
    """Means over batches, weighted by samples, that a step of Keras adds to while it is compiled."""

    @property
    @abstractmethod
    def batch_names(self) -> list[str]:
        """What `note` was given."""

    @abstractmethod
    def reset(self) -> None:
        """Begin anew."""

    @abstractmethod
    def add(self, values: Mapping[str, Any], samples: Any) -> None:
        """The values of a batch of so many samples."""

    @abstractmethod
    def note(self, values: Mapping[str, Any]) -> None:
        """The values of a batch, as they are."""

    @abstractmethod
    def results(self) -> dict[str, Any]:
        """The mean of each name over all samples; a batch without the name counts as zero."""


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """While open, the attribute of this object, not of its class, is `value`. Keras, which watches `setattr`, does
    not see it."""
    before = vars(owner).get(name)
    vars(owner)[name] = value
    try:
        yield
    finally:
        del vars(owner)[name]
        if before is not None:
            vars(owner)[name] = before


def made(model: Any, kind: str, step: Callable) -> Callable:
    """The train or test function that Keras makes around this step; the model keeps its own."""
    attribute = f"{kind}_function"
    before = getattr(model, attribute)
    with replaced(model, f"{kind}_step", step):
        try:
            getattr(model, f"make_{kind}_function")(force=True)
            return getattr(model, attribute)
        finally:
            setattr(model, attribute, before)
