"""A loss as a backend traced it, before it is lowered to a program."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from lossviz.backend.recorded import Added, Crossentropy, Recorded


class Recorder:
    """The tensors of one `compute_loss`, by where they came from.

    `watch` gets each as it is made, and gives the one to go on with. With `elements`, what each loss gives before
    weights, mask and reduction is noted too.
    """

    def __init__(self, watch: Callable = lambda tensor: tensor, elements: bool = False):
        self.watch = watch
        self.wants_elements = elements
        self.outputs: list[Recorded] = []
        self.added: list[Added] = []
        self.crossentropies: list[Crossentropy] = []  # every call of one, by `recording_crossentropies`


@dataclass
class Found:
    """What is noted while a loss is traced. Tensors are those of the backend."""

    recorder: Recorder = field(default_factory=lambda: Recorder(elements=True))
    predictions: list[Any] = field(default_factory=list)
    prediction_names: list[str] = field(default_factory=list)
    inputs: dict[str, list[Any]] = field(default_factory=dict)  # "x", "y_true", "sample_weight": their placeholders
    calls: list[Any] = field(default_factory=list)  # the calls of layers, by the number of `Op.region`
    forward: set[str] = field(default_factory=set)  # names of the operations of the forward pass, where they have some
    marks: list[Any] = field(default_factory=list)  # whatever the backend wants to find again

    def tensors(self) -> list[Any]:
        """Everything that was noted, whatever it is."""
        recorder = self.recorder
        outputs = [(o.value, o.y_true, o.y_pred, o.sample_weight, o.mask, o.elements) for o in recorder.outputs]
        return [
            *self.predictions,
            *(tensor for placeholders in self.inputs.values() for tensor in placeholders),
            *(tensor for one in outputs for tensor in one),
            *(one.value for one in recorder.added),
            *(tensor for one in recorder.crossentropies for tensor in (one.target, one.output)),
        ]


@dataclass
class Traced:
    """A loss in a graph, with everything known about where its tensors come from."""

    trace: Any  # the backend's own
    root: Any
    leaves: list[np.ndarray]
    found: Found
    trainable: list[Any] = field(default_factory=list)  # what the trainable weights are read from
    captured: list[Any] = field(default_factory=list)  # what any weight is read from
    name: str = "compute_loss"  # what a loss is called that Keras did not compute per output
    random: bool = False  # would computing it twice give two different results?
    python: bool = False  # is there Python code in it, of which nobody knows?

    @property
    def recorder(self) -> Recorder:
        return self.found.recorder

    @property
    def predictions(self) -> list[Any]:
        return self.found.predictions

    @property
    def prediction_names(self) -> list[str]:
        return self.found.prediction_names

    @property
    def inputs(self) -> dict[str, list[Any]]:
        return self.found.inputs

    @property
    def batch_size(self) -> int | None:
        """The first size of all arrays of the batch, where it is the same."""
        sizes = {leaf.shape[0] for leaf in self.leaves if leaf.ndim}
        return sizes.pop() if len(sizes) == 1 else None


def leaves(structure: Any) -> list:
    """The arrays of a nested structure, without the places that hold None."""
    return [leaf for leaf in keras.tree.flatten(structure) if leaf is not None]
