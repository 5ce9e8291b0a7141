"""Say in words, with numbers, what each operation between an element loss and the printed number does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lossviz.backend.program import Op, Value
from lossviz.engine import axes as names
from lossviz.engine import ops
from lossviz.engine.tail import Cut
from lossviz.report.records import Step

Shape = tuple[int, ...]


class Narrator:
    """Turns the road of a cut into steps.

    `dims` are the axis names of tensors, `values` what independent tensors were when the graph ran, `shapes`
    the shapes of tensors whose shape is not known before, `sources` the words for where a tensor comes from.
    """

    def __init__(self, dims: dict, values: dict, shapes: dict, sources: dict):
        self.dims, self.values, self.shapes, self.sources = dims, values, shapes, sources

    def element(self, axes: Sequence[str], shape: Sequence[int], raw: Sequence[int]) -> Step:
        """The start: element losses of this shape, one dimension an axis; `raw` is how the graph holds them."""
        where = f" ({', '.join(axes)})" if axes else ""
        text = f"element loss{where}: {show_shape(shape)}"
        if [size for size in raw if size != 1] != [size for size in shape if size != 1]:
            text += f", {'flattened to' if math.prod(raw) == math.prod(shape) else 'held as'} {show_shape(raw)}"
        return Step("element loss", text, tuple(shape), tuple(shape), tuple(axes))

    def road(self, cut: Cut) -> list[Step]:
        """The steps from the cut down to its root."""
        steps: list[Step] = []
        current = cut.tensor
        for position, operation in enumerate(cut.path):
            following = cut.path[position + 1] if position + 1 < len(cut.path) else None
            after = next((out for out in operation.outputs if following and _consumes(following, out)), None)
            after = operation.outputs[0] if after is None else after
            step = self._step(operation, current, after)
            if step is not None:
                if steps and step.op == "divide" and steps[-1].op == "sum" and step.divisor is not None:
                    step = self._divided(steps.pop(), step.divisor, step.output_shape)
                steps.append(step)
            current = after
        if cut.ways > 1:
            shape = self.shape(cut.tensor)
            steps.append(Step("note", f"these element losses reach the number on {cut.ways} roads", shape, shape))
        return steps

    def last(self, word: str, tensor: Value) -> Step:
        """What Keras does to a loss that is an array: the mean of an output's, the sum of an added one."""
        shape, axes = self.shape(tensor), names.removed(self._dims(tensor), ())
        return self._added_up(word, ", ".join(axes) or "all axes", shape, (), axes)

    def shape(self, tensor: Value) -> tuple[int, ...]:
        known = self.shapes.get(tensor)
        return tuple(known if known is not None else tensor.shape or ())

    def _step(self, operation: Op, before: Value, after: Value) -> Step | None:
        shape_in, shape_out = self.shape(before), self.shape(after)
        said = ops.KINDS[operation.kind].said
        if ops.subtracts(operation, before):
            return Step("multiply", "× −1", shape_in, shape_out, factor=-1.0)
        if not said or said == "add":
            return None  # joining the other summands changes neither axis nor divisor
        if said == "reduce":
            return self._reduction(operation.info["how"], before, after, shape_in, shape_out)
        if said == "scale":
            other = next(tensor for tensor in operation.inputs if tensor is not before)
            return self._scaling(operation.kind == "div", other, after, shape_in, shape_out)
        if said == "select":
            return self._selection(operation, before, shape_in, shape_out)
        if said == "pick" and shape_in != shape_out:
            return Step("select", f"select: {show_shape(shape_in)} → {show_shape(shape_out)}", shape_in, shape_out)
        if said == "weighted sum":
            axes = self._removed(before, after)
            over = f" over {', '.join(axes)}" if axes else ""
            text = f"weighted sum{over}: {show_shape(shape_in)} → {show_shape(shape_out)}"
            return Step("sum", text, shape_in, shape_out, axes)
        word = operation.word if said == "other" else said
        return Step(word, f"{word}: {show_shape(shape_in)} → {show_shape(shape_out)}", shape_in, shape_out)

    def _reduction(self, word: str, before: Value, after: Value, shape_in: Shape, shape_out: Shape) -> Step | None:
        if math.prod(shape_in) == math.prod(shape_out):
            return None
        axes = self._removed(before, after)
        gone = len(shape_in) - len(shape_out)
        over = ", ".join(axes) or ("1 axis" if gone == 1 else f"{gone} axes")
        return self._added_up(word, over, shape_in, shape_out, axes)

    @staticmethod
    def _divided(total: Step, divisor: float, shape_out: Shape) -> Step:
        """A sum and a division in one. By the count of what was added it is a mean, however the loss writes it."""
        count = _count(total.input_shape, total.output_shape)
        word, said = ("mean", " = mean") if divisor == count else ("sum", "")
        text = f"{total.text}, ÷ {show_number(divisor)}{said}"
        return Step(word, text, total.input_shape, shape_out, total.axes, divisor)

    @staticmethod
    def _added_up(word: str, over: str, shape_in: Shape, shape_out: Shape, axes: tuple[str, ...]) -> Step:
        """A sum, or a mean: a sum that is divided by the count of what it adds."""
        text = f"sum over {over}: {show_shape(shape_in)} → {show_shape(shape_out)}"
        if word == "sum":
            return Step(word, text, shape_in, shape_out, axes)
        divisor = _count(shape_in, shape_out)
        return Step(word, f"{text}, ÷ {show_number(divisor)} = mean", shape_in, shape_out, axes, divisor)

    def _scaling(self, divides: bool, other: Value, after: Value, shape_in: Shape, shape_out: Shape) -> Step | None:
        value = np.asarray(self.values[other])
        word, sign = ("divide", "÷") if divides else ("multiply", "×")
        source = self.sources.get(other, "")
        if value.size == 1:
            number = float(value.reshape(()))
            text = f"{sign} {show_number(number)}" + (f" ({source})" if source else "")
            if divides:
                return None if number == 1 else Step(word, text, shape_in, shape_out, divisor=number)
            return None if number == 1 else Step(word, text, shape_in, shape_out, factor=number)
        dims = self._dims(after)
        offset = len(shape_out) - value.ndim
        along = names.unique_names(
            atom.name
            for k, size in enumerate(value.shape)
            if size != 1 and k + offset >= 0 and dims
            for atom in dims[k + offset]
        )
        where = f" along {', '.join(along)}" if along else ""
        origin = other  # JAX writes new axes in front down that TensorFlow leaves to the product
        while origin.op.info.get("promotes"):
            origin = origin.op.inputs[0]
        text = f"{sign} {source or 'constants'} {show_shape(self.shape(origin))}{where}: {show_range(value)}"
        return Step(word, text, shape_in, shape_out, tuple(along))

    def _selection(self, operation: Op, before: Value, shape_in: Shape, shape_out: Shape) -> Step:
        condition = np.asarray(self.values[operation.inputs[0]]).astype(bool)
        kept = condition if operation.inputs[1] is before else ~condition
        source = self.sources.get(operation.inputs[0], "")
        text = f"keep {show_number(kept.sum())} of {show_number(kept.size)}" + (f" ({source})" if source else "")
        return Step("select", text, shape_in, shape_out)

    def _removed(self, before: Value, after: Value) -> tuple[str, ...]:
        """The axes that are there no more; none where it is not known which those are."""
        nameless = [
            sum(not dim and size != 1 for dim, size in zip(self._dims(value) or (), self.shape(value)))
            for value in (before, after)
        ]
        return names.removed(self._dims(before), self._dims(after)) if nameless[0] >= nameless[1] else ()

    def _dims(self, tensor: Value) -> names.Dims | None:
        return self.dims.get(tensor)


def show_shape(shape: Sequence[int]) -> str:
    """(16,256,256,5), or () for one number."""
    return f"({','.join(map(str, shape))}{',' if len(shape) == 1 else ''})"


def show_number(number: float) -> str:
    """Whole numbers in full, in groups of three; others to six digits."""
    if math.isfinite(number) and number == int(number) and abs(number) < 1e15:
        return f"{int(number):,}".replace(",", " ")
    return f"{number:.6g}"


def show_range(value: np.ndarray) -> str:
    """What values a weight takes: "0 … 1.5, 2 of 6 are 0"."""
    low, high = float(np.min(value)), float(np.max(value))
    text = show_number(low) if low == high else f"{show_number(low)} … {show_number(high)}"
    zeros = int(np.sum(value == 0))
    return text + (f", {show_number(zeros)} of {show_number(value.size)} are 0" if zeros else "")


def _count(shape_in: Shape, shape_out: Shape) -> float:
    """How many numbers become one."""
    return math.prod(shape_in) / max(math.prod(shape_out), 1)


def _consumes(operation: Op, tensor: Value) -> bool:
    return any(other is tensor for other in operation.inputs)
