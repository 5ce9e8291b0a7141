"""What is noted while Keras computes a loss: one record for each output, one for each added loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
