"""What is noted while Keras computes a loss: one record for each output, each added loss and each call
of a crossentropy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


@dataclass(eq=False)
class Recorded:
    """The loss of one output. Tensors are those of the backend.

    `value` is what Keras adds to the total, before the loss weight; `elements` what the loss function gave before
    weights, mask and mean, None where nobody asked for it. `loss_weight` is a number or the variable that holds it.
    """

    name: str
    value: Any
    y_true: Any
    y_pred: Any
    loss: Any = None
    loss_weight: Any = 1.0
    sample_weight: Any = None
    mask: Any = None
    elements: Any = None


@dataclass(eq=False)
class Added:
    """A loss that a layer added, or that a regulariser makes of a weight: `kind` is "add_loss" or "regulariser"."""

    name: str
    kind: str
    value: Any


class Crossentropy(NamedTuple):
    """One call of a crossentropy of Keras's backend; `owner` counts the outputs that were computed before it, `axis` is
    that of the classes."""

    kind: str  # "binary", "categorical" or "sparse_categorical"
    target: Any
    output: Any
    from_logits: bool
    owner: int
    axis: int = -1
    takes_logits: bool = False  # does Keras take what is behind the activation that made the output?
