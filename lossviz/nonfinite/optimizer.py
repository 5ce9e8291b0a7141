"""What an optimizer adds to the question: the scale that it puts on the loss, and its own state."""

from __future__ import annotations

import contextlib
import dataclasses
import math

import keras
import numpy as np

from lossviz.nonfinite.looking import first
from lossviz.nonfinite.result import NonFinite
from lossviz.report import formatting as f


def loss_scale(model: keras.Model) -> float:
    """What the optimizer multiplies the loss by before the gradient is taken."""
    if model.optimizer is None:
        return 1.0
    return float(keras.ops.convert_to_numpy(model.optimizer.scale_loss(1.0)))


def scaled(found: NonFinite, scale: float) -> NonFinite:
    """The same, where the scale alone is at fault."""
    return dataclasses.replace(
        found,
        cause=f"the loss is multiplied by the loss scale {f.plain(scale)} before the gradient is taken, and the "
        "product does not fit into half precision; without the scale the gradient is finite",
        way_out="Nothing, if it is rare: LossScaleOptimizer leaves out such a step and halves its scale. If every step "
        "has it, scale the inputs or the loss down, or give this layer dtype='float32'.",
    )


def in_optimizer(model: keras.Model) -> NonFinite | None:
    """A learning rate, or a moving average of gradients, that is not finite: the next step spoils the weights."""
    optimizer = model.optimizer
    if optimizer is None:
        return None
    with contextlib.suppress(AttributeError, TypeError, ValueError):
        rate = float(keras.ops.convert_to_numpy(optimizer.learning_rate))
        if not math.isfinite(rate):
            return NonFinite(
                step="optimizer",
                what="learning_rate",
                value=rate,
                index=(),
                count=1,
                size=1,
                cause="the learning rate of this step is not finite (a schedule that divides by 0 steps, for example)",
                way_out="Print optimizer.learning_rate, and give the schedule the number of steps you train.",
                training=True,
            )
    for variable in optimizer.variables:
        array = numbers(variable)
        if array is not None and (index := first(array)) is not None:
            return NonFinite(
                step="optimizer",
                what=f"{variable.path}",
                value=float(array[index]),
                index=index,
                axes=tuple(f"axis{k}" for k in range(array.ndim)),
                count=int((~np.isfinite(array)).sum()),
                size=int(array.size),
                cause="the state of the optimizer is not finite: a gradient of an earlier step was not",
                way_out="Compile the model anew, which makes a fresh optimizer, and find the batch that spoiled it.",
                training=True,
            )
    return None


def numbers(variable: keras.Variable) -> np.ndarray | None:
    """The numbers of a variable in float64; None where it holds integers."""
    if "float" not in keras.backend.standardize_dtype(variable.dtype):
        return None
    return np.asarray(keras.ops.convert_to_numpy(variable.value), np.float64)
