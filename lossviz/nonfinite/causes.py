"""Why an operation made a NaN or an infinity of finite numbers, in a sentence, and the way out of it.

Knows kinds of operations (`engine.ops`) and numbers; nothing of models or losses.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lossviz.backend.program import Op

_CLIP = "Keep the input away from there first"
_LOGITS = "or give the loss logits and from_logits=True, which needs no log of a probability"
GUARD = (
    "Guard the input, not only the result: ops.where(ok, f(ops.where(ok, x, 1.0)), 0.0), where 1.0 is a value at "
    "which f is harmless."
)

_EXPONENTIALS = ("exp", "expm1", "sinh", "cosh")


@dataclass(frozen=True)
class Made:
    """What is known of the operation: its inputs whole and at the index, the value, the dtype it computes in.

    `operands` holds None where an input has no place that belongs to the index (the input of a sum).
    """

    op: Op
    inputs: Sequence[np.ndarray]
    operands: Sequence[float | None]
    value: float
    dtype: str
    limit: float
    source: str = ""  # what the operation does that the divisor of a division comes from

    @property
    def by_zero(self) -> bool:
        """Is it a division by 0?"""
        return len(self.operands) == 2 and self.operands[1] == 0


def done_by(op: Op) -> str:
    """What the operation does, in a word: how, where its kind leaves that open."""
    return op.info.get("how") or op.kind


def call(made: Made) -> str:
    """The operation on its numbers: "Log(0) = -inf", "0 / 0 = NaN"; only its name where it has no single numbers."""
    op = made.op
    if done_by(op) in ("loop", "branch", "call") or not made.operands or any(x is None for x in made.operands):
        return op.word
    numbers = [number(operand) for operand in made.operands]
    sign = {"div": "/", "mul": "*", "power": "**"}.get(done_by(op))
    if op.kind == "add":
        sign = {(1, 1): "+", (1, -1): "-"}.get(op.info["signs"])
    if sign and len(numbers) == 2:
        return f"{numbers[0]} {sign} {numbers[1]} = {number(made.value)}"
    return f"{op.word}({', '.join(numbers)}) = {number(made.value)}"


def number(value: float) -> str:
    """Four digits, NaN, inf or -inf."""
    if math.isnan(value):
        return "NaN"
    return f"{value + 0.0:.4g}"


def of_value(made: Made) -> tuple[str, str]:
    """Cause and way out where the operation itself gave the value."""
    how, x = done_by(made.op), made.operands[0] if made.operands else None
    if how == "loop":
        return (
            "it arises inside a loop, at one of its steps (a recurrent layer runs its cell there)",
            "Look at what the loop multiplies step after step: clip the gradients (clipnorm=1.0 in the optimizer), use "
            "a bounded activation such as tanh, or build the layer with unroll=True and ask again for the operation.",
        )
    if how in ("branch", "call"):
        return "it arises inside a condition or a function of the graph", "Call the parts of it one by one."
    if how == "python":
        return (
            "Python code in the graph (numpy_function or py_function) returned it",
            "Check that code with NumPy on the same numbers.",
        )
    if how == "constant":
        return (
            "the code itself holds this value as a constant",
            "Use a large finite number instead, such as -1e9 for a mask before a softmax (-3e4 in float16).",
        )
    if made.op.kind == "reduce" and how != "sum" and any(array.size == 0 for array in made.inputs):
        return (
            f"there is nothing to take the {how} of: its input is empty, shape {made.inputs[0].shape}",
            "A boolean mask left no element in this batch: use a sum, and divide it with ops.divide_no_nan.",
        )
    if (special := _outside(made, x)) is not None:
        return special
    if how in ("div", "mod", "fmod", "floor_divide") and made.by_zero:
        return _by_zero(made)
    if how == "cast":
        return (
            f"{_largest(made)} does not fit into {made.dtype}, which ends at {number(made.limit)}",
            "Compute this part in float32: give the layer dtype='float32', or cast before the large numbers arise.",
        )
    if how in ("softmax", "log_softmax"):
        return (
            "every entry of this row is -inf, which is a row with everything masked away",
            "Mask with a large finite number (-1e9) instead of -inf, and set the rows that are masked altogether to 0.",
        )
    if how == "crossentropy":
        return (
            "a label is outside the range of the classes",
            "Check y: labels must be 0 to classes - 1. To leave some out, give the loss ignore_class=-1.",
        )
    half = made.dtype in ("float16", "bfloat16")
    wider = "Compute this part in float32, " if half else "Make the numbers smaller: "
    return (
        f"overflow: {_largest(made)} goes in, and {made.dtype} ends at {number(made.limit)}",
        f"{wider}scale the inputs (Normalization, Rescaling), lower the learning rate, or clip the gradients "
        "(clipnorm=1.0 in the optimizer).",
    )


def of_gradient(made: Made, incoming: float | None) -> tuple[str, str]:
    """Cause and way out where the value is finite, and the derivative is not. `made.value` is the gradient."""
    how, x = done_by(made.op), made.operands[0] if made.operands else None
    cause = None
    if made.op.kind == "custom" and how in ("custom", "identity"):
        return (
            "a gradient that was written by hand (tf.custom_gradient) returns it",
            "Check that function at the input shown: its derivative, not its value, is at fault.",
        )
    if how == "loop":
        return (
            "the gradient grows without bound, or breaks, inside a loop (a recurrent layer, step by step backwards)",
            "Clip the gradients (clipnorm=1.0 in the optimizer), use shorter sequences, or build the layer with "
            "unroll=True and ask again for the operation.",
        )
    if how == "sqrt" and x == 0:
        cause = "the derivative of sqrt(x) is 1 / (2 sqrt(x)), infinite at x = 0", "ops.sqrt(ops.maximum(x, 1e-12))"
    elif how in ("log", "reciprocal", "rsqrt") and x == 0:
        cause = (
            f"the derivative of {how.replace('arc', 'a')}(x) is infinite at x = 0",
            "ops.maximum(x, 1e-7) as the input",
        )
    elif how == "power" and x == 0:
        power = made.operands[1]
        shown = "a power below 1" if power is None else f"{number(power)}"
        cause = (
            f"the derivative of x ** p is p * x ** (p - 1), infinite at x = 0 for p = {shown}",
            "ops.maximum(x, 1e-7) as the base",
        )
    elif how == "norm":
        cause = (
            "the derivative of a norm is x / norm, which is 0 / 0 for a vector of zeros",
            "ops.sqrt(ops.sum(x**2) + 1e-12)",
        )
    elif how == "div" and made.by_zero:
        cause = "the derivative of a / b is 1 / b, infinite at b = 0", "ops.maximum(b, 1e-7) as the divisor"
    elif how in ("arccos", "arcsin") and x is not None and abs(x) >= 1:
        cause = (
            f"the derivative of {how.replace('arc', 'a')}(x) is infinite at x = {number(x)}",
            "ops.clip(x, -1 + 1e-6, 1 - 1e-6)",
        )
    elif how in _EXPONENTIALS and x is not None and abs(x) > math.log(made.limit):
        cause = (
            f"exp({number(x)}) is larger than {made.dtype} can hold",
            f"ops.minimum(x, {number(math.floor(math.log(made.limit)) - 1)})",
        )
    if cause is not None and incoming == 0:
        return (
            f"{cause[0]}; ops.where or a mask leaves this position out of the loss, so the gradient that comes in is "
            "0, but 0 × inf is NaN",
            f"{GUARD} Here: {cause[1]}.",
        )
    if cause is not None:
        return cause[0], f"{_CLIP}: {cause[1]}."
    if incoming == 0:
        return "the gradient that comes in is 0, but 0 × inf is NaN: the derivative here is infinite", GUARD
    return (
        f"overflow on the way back: the gradient is larger than {made.dtype} can hold ({number(made.limit)})",
        "Scale the loss or the inputs down, or compute this part in a wider dtype: give the layer dtype='float32'.",
    )


def _outside(made: Made, x: float | None) -> tuple[str, str] | None:
    """The function is not defined at x, or infinite there."""
    if x is None:
        return None
    top = math.log(made.limit)
    how = done_by(made.op)
    name = how.replace("arc", "a")
    if how == "log" and x <= 0:
        if x == 0:
            return "log(0) is -inf", f"{_CLIP}: ops.log(ops.maximum(x, 1e-7)), {_LOGITS}."
        return (
            f"the log of a negative number, {number(x)}, is not defined",
            "Use an activation that cannot be negative (softplus, softmax, sigmoid), or clip: "
            "ops.log(ops.maximum(x, 1e-7)).",
        )
    if how == "log1p" and x <= -1:
        return f"log(1 + x) is not finite at x = {number(x)}", f"{_CLIP}: ops.maximum(x, -1 + 1e-7)."
    if how in ("sqrt", "rsqrt") and x < 0:
        return (
            f"the square root of a negative number, {number(x)}, is not defined (rounding makes some of 0)",
            f"{_CLIP}: ops.sqrt(ops.maximum(x, 0.0)).",
        )
    if how in ("rsqrt", "reciprocal") and x == 0:
        return f"{name} of 0 divides by 0", f"{_CLIP}: ops.maximum(x, 1e-7), or an epsilon above 0 in the layer."
    if how in _EXPONENTIALS and abs(x) > top - 1:
        return (
            f"{name}({number(x)}) is larger than {made.dtype} can hold (exp overflows above {top:.4g})",
            "Use the built-in form that subtracts the largest value first: ops.softmax, ops.logsumexp, ops.softplus, "
            "or a loss with from_logits=True; or clip the input with ops.minimum.",
        )
    if how in ("arccos", "arcsin", "arctanh", "erfinv") and abs(x) >= 1:
        return (
            f"{name} takes numbers between -1 and 1, and gets {number(x)}",
            f"{_CLIP}: ops.clip(x, -1 + 1e-6, 1 - 1e-6).",
        )
    if how == "arccosh" and x < 1:
        return f"acosh takes numbers of at least 1, and gets {number(x)}", f"{_CLIP}: ops.maximum(x, 1.0)."
    if how in ("lgamma", "digamma") and x <= 0:
        return f"{name} is not finite at {number(x)}", f"{_CLIP}: ops.maximum(x, 1e-7)."
    if how == "power" and len(made.operands) == 2 and made.operands[1] is not None:
        power = made.operands[1]
        if x == 0 and power < 0:
            return f"0 to the power {number(power)} divides by 0", f"{_CLIP}: ops.maximum(x, 1e-7) as the base."
        if x < 0 and power != int(power):
            return (
                f"a negative number, {number(x)}, to the power {number(power)} is not a real number",
                f"{_CLIP}: ops.abs(x), or ops.maximum(x, 0.0), as the base.",
            )
    return None


def _by_zero(made: Made) -> tuple[str, str]:
    top = made.operands[0]
    what = "0 / 0 is NaN" if top == 0 else f"a division by 0 ({'?' if top is None else number(top)} / 0)"
    if made.source == "sum":
        what += ": the divisor is a sum that is 0, so nothing is counted in this batch (an empty mask, no positive)"
    elif made.source in ("sqrt", "norm"):
        what += ": the divisor is a norm or a root that is 0 (a vector of zeros, a constant column)"
    elif made.source == "mean":
        what += ": the divisor is a mean that is 0"
    return what, "Use ops.divide_no_nan(a, b), which gives 0 there, or ops.maximum(b, 1e-7) as the divisor."


def _largest(made: Made) -> str:
    sizes = [float(np.max(np.abs(array))) for array in made.inputs if array.size]
    finite = [size for size in sizes if math.isfinite(size)]
    return f"a number as large as {number(max(finite))}" if finite else "a large number"
