"""A traced loss in words that belong to no backend: values, and the operations of a few kinds between them.

A backend lowers its graph to these (`tensorflow_program` does it for TensorFlow) and computes what it is asked for.
`engine.ops` says what each kind means: no module above this one looks at a backend's own operations to cut a loss,
name its axes or tell its steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np

from lossviz.backend.recorded import Added, Crossentropy, Recorded

T = TypeVar("T")

_FLOATS = ("float16", "bfloat16", "float32", "float64")


class Value:
    """A tensor of the program. `shape` is None where not even the rank is known, and holds None for an unknown size."""

    __slots__ = ("_known", "_op", "dtype", "index", "program", "shape", "source")

    def __init__(self, program: Program, source: Any, shape: tuple[int | None, ...] | None, dtype: str, index: int = 0):
        self.program, self.source, self.shape, self.dtype, self.index = program, source, shape, dtype, index
        self._op: Op | None = None
        self._known: Any = NotImplemented

    def __repr__(self) -> str:
        return f"<{self.op.word} {self.op.name}:{self.index} {self.dtype}{self.shape}>"

    @property
    def op(self) -> Op:
        """The operation that makes it."""
        if self._op is None:
            self._op = self.program.op_of(self)
        return self._op

    @property
    def known(self) -> np.ndarray | None:
        """Its numbers, where they do not depend on the batch or on a weight; else None."""
        if self._known is NotImplemented:
            self._known = self.program.constant(self)
        return self._known

    @property
    def rank(self) -> int | None:
        return None if self.shape is None else len(self.shape)

    @property
    def is_static(self) -> bool:
        """Is its shape known before the program runs?"""
        return self.shape is not None and None not in self.shape

    @property
    def is_floating(self) -> bool:
        return self.dtype in _FLOATS

    @property
    def is_integer(self) -> bool:
        return self.dtype.startswith(("int", "uint"))

    @property
    def differentiable(self) -> bool:
        """Can a gradient pass? Comparisons and class numbers (bool, int) cut it; lists of tensors (variant) do not."""
        return self.is_floating or self.dtype.startswith("complex") or self.dtype == "variant"


class Op:
    """One operation: its kind (`engine.ops.KINDS`), the backend's own word for it, and what that leaves open (`info`).

    `inputs` begin with what the operation moves or adds up; indices, sizes and factors that are not symmetric follow.
    `forward` says that the model's forward pass made it, `region` in which call of a layer. `backward` says that
    `Program.backward` made it; `original` is then the operation that it differentiates, None where it only adds
    gradients up.
    """

    __slots__ = (
        "backward", "forward", "info", "inputs", "kind", "name", "original", "outputs", "region", "source", "word",
    )  # fmt: skip

    def __init__(self, kind: str, word: str, name: str, source: Any, forward: bool, region: int | None):
        self.kind, self.word, self.name, self.source = kind, word, name, source
        self.forward, self.region = forward, region
        self.backward = False
        self.original: Op | None = None
        self.info: Mapping[str, Any] = {}
        self.inputs: tuple[Value, ...] = ()
        self.outputs: tuple[Value, ...] = ()

    def __repr__(self) -> str:
        return f"<{self.kind}: {self.word} {self.name}>"


def inputs_first(starts: Iterable[T], above: Callable[[T], Iterable[T]], name: Callable[[T], Hashable]) -> list[T]:
    """Everything that stands `above` these, and they themselves; inputs before consumers. `name` tells them apart."""
    order: list[T] = []
    done: set[Hashable] = set()
    stack = [(start, False) for start in starts]
    while stack:
        one, expanded = stack.pop()
        if expanded:
            order.append(one)
        elif name(one) not in done:
            done.add(name(one))
            stack.append((one, True))
            stack.extend((other, False) for other in above(one) if name(other) not in done)
    return order


def ancestors(values: Iterable[Value]) -> list[Op]:
    """All operations that `values` are computed from, inputs before consumers."""
    return inputs_first((value.op for value in values), lambda op: [value.op for value in op.inputs], id)


@dataclass(frozen=True, eq=False)
class Backward:
    """The derivative of a root: by each of some values, None where it does not depend on one; and the value of the
    derivative of the root by itself, which may be fed."""

    gradients: list[Value | None]
    seed: Value


class Rounds(NamedTuple):
    """What each round of a loop does: from the values `entering`, one for each input of the operation, it makes those
    `leaving`, one for each output. `carried` has for each output the input that it is in the next round, or None: then
    the output is what all rounds leave, one after the other. An input that no output is carried to enters as it is or,
    with an axis more than the value entering, position by position."""

    entering: tuple[Value, ...]
    leaving: tuple[Value, ...]
    carried: tuple[int | None, ...]


class Program(ABC):
    """What a backend can do with a lowered loss. Arrays go in and out; values stand for what they are computed from."""

    #: Errors of running it that mean "not with these numbers" (an assertion of the loss's own, a shape).
    errors: tuple[type[Exception], ...] = ()
    #: Errors of differentiating: an operation without a derivative.
    underivable: tuple[type[Exception], ...] = (LookupError, ValueError, TypeError, NotImplementedError)

    feeds: list[Value]

    @abstractmethod
    def op_of(self, value: Value) -> Op:
        """The operation that makes this value."""

    @abstractmethod
    def constant(self, value: Value) -> np.ndarray | None:
        """The value's numbers, if they are the same for every batch and any weights."""

    @abstractmethod
    def runner(self, fetches: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], list[np.ndarray]]:
        """`fetches` as a function of numbers for `feeds`, in their order."""

    @abstractmethod
    def whole(self, fetches: Iterable[Value]) -> Callable[[Sequence], dict[Value, np.ndarray]]:
        """`fetches` as a function of the batch, to be run again and again."""

    @abstractmethod
    def rerun(
        self, roots: Sequence[Value], cuts: Sequence[Value], frontier: Iterable[Value]
    ) -> Callable[[Iterable[np.ndarray], Mapping[Value, np.ndarray]], list[np.ndarray]]:
        """`roots` from other numbers for `cuts`, and what else enters (`frontier`) as it was."""

    @abstractmethod
    def gradients(
        self, root: Value, cuts: Sequence[Value], seed: Value | None = None, stops: Sequence[Value] = ()
    ) -> list[Value]:
        """The derivative of `root` with respect to each of `cuts`, not looking behind them or behind `stops`."""

    @abstractmethod
    def tangent(self, cut: Value, points: Sequence[Value]) -> tuple[list[int], list[Value], Value] | None:
        """The derivative of `cut` in a direction of `points`: which of them it depends on, the values to feed their
        directions to, and the derivative. None where it depends on none of them."""

    def rounds(self, op: Op) -> Rounds | None:
        """What a loop does; None for any other operation, and for a loop that cannot be looked into."""
        return None

    @abstractmethod
    def slopes(self, function: Callable) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """`function`, of tensors of which some may be None, as one of arrays: its number, and its derivative with
        respect to the second of them."""

    @abstractmethod
    def rounding(self, root: Value, leaves: Sequence[np.ndarray]) -> tuple[float, str]:
        """How far two correct computations of `root` from the same predictions may be apart, to first order, and the
        dtype that most of it comes from.

        Each number between the predictions and the root is rounded to its dtype: `eps * |t * d root / d t|`, summed
        over all of them. A loss that is tiny beside what it is computed from, as `log(1 + d**2)` is, loses most of its
        digits.
        """

    @abstractmethod
    def measured(self, values: Iterable[Value]) -> dict[Value, Value]:
        """For each value, the value of its shape."""

    @abstractmethod
    def summary(self, values: Sequence[Value], feeds: Sequence[Value]) -> Callable[[Sequence], np.ndarray]:
        """How many numbers of each value are -inf, inf and NaN, shape (values, 3), as a function of numbers for
        `feeds`. Nothing else leaves the program: a look at all of its values needs no more memory than a run."""

    @abstractmethod
    def backward(self, root: Value, weights: Sequence[Value], scale: float) -> Backward:
        """The backward pass of `scale * root` by `weights` as operations (`Op.backward`), so that what each hands
        back can be looked at and fed. Raises one of `underivable`."""

    @abstractmethod
    def derivatives(self, op: Op) -> list[Op]:
        """The operations of backward passes that differentiate this one, in the order in which they were made. Their
        inputs from other operations of the backward pass are what comes in, their outputs what is handed back."""

    @abstractmethod
    def place(self, op: Op) -> int:
        """Which of the program's operations it is, in the order in which they were made."""

    @abstractmethod
    def frames(self, op: Op) -> list[tuple[str, int]]:
        """File and line of each call that was open when the operation was made, outermost first."""

    @abstractmethod
    def paths(self, variables: Iterable[Any]) -> dict[Value, str]:
        """What variables are read from (`Loss.captured`), and the path of each: these of Keras in their order, then
        others."""


@dataclass(eq=False)
class Loss:
    """A loss as a program, with what is known of where its values come from."""

    program: Program
    root: Value
    predictions: list[Value]
    prediction_names: list[str]
    logits: dict[Value, Value]  # prediction -> the logits that Keras takes in its place, where it has some
    inputs: dict[str, list[Value]]  # "x", "y_true", "sample_weight": what is fed
    outputs: list[Recorded]
    added: list[Added]
    crossentropies: list[Crossentropy] = field(default_factory=list)
    trainable: list[Value] = field(default_factory=list)  # what the trainable weights are read from
    captured: list[Value] = field(default_factory=list)  # what any weight is read from
    layers: list[str] = field(default_factory=list)  # names of the layers that were called, by `Op.region`
    name: str = "compute_loss"
    batch_size: int | None = None
    notes: dict[Hashable, Any] = field(default_factory=dict)  # what was read off the program alone, for who asks again
