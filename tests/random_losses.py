"""Random losses that move elements, and where each element loss belongs, by the derivative alone.

Nothing here knows how `lossviz` works: the truth is the Jacobian of the element losses, taken by the backend of Keras
at several points, and the share of an element is its value times the derivative of the loss by it.

    PYTHONPATH=. python tests/random_losses.py 0 10000      prints what was compared and every difference
"""

from __future__ import annotations

import collections
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from keras import ops
from models import ON_TENSORFLOW

if ON_TENSORFLOW:
    import tensorflow as tf
else:
    import jax

SHAPES = ((4,), (4, 3), (5, 3), (3, 4, 2), (2, 4, 3), (2, 3, 4, 3), (3, 2, 2, 5))
NAMES = {1: ("batch",), 2: ("batch", "class"), 3: ("batch", "step", "class"), 4: ("batch", "row", "col", "class")}
ROUNDING = 1e-5

Move = Callable[[Any], Any]


def _along(axis: int, rank: int, part: slice) -> tuple[slice, ...]:
    return tuple(part if k == axis else slice(None) for k in range(rank))


def _shift(axis: int) -> Move:
    def move(t):
        pads = [(int(k == axis), 0) for k in range(len(t.shape))]
        return ops.pad(t, pads)[_along(axis, len(t.shape), slice(0, t.shape[axis]))]

    return move


def _difference(axis: int) -> Move:
    def move(t):
        rank = len(t.shape)
        return t[_along(axis, rank, slice(1, None))] - t[_along(axis, rank, slice(None, -1))]

    return move


def _cumulate(axis: int, reverse: bool) -> Move:
    cumsum = tf.cumsum if ON_TENSORFLOW else jax.lax.cumsum
    return lambda t: cumsum(t, axis, reverse=reverse)


def _scatter(axis: int, places: list[int]) -> Move:
    def move(t):
        order = [axis, *(k for k in range(len(t.shape)) if k != axis)]
        first = ops.transpose(t, order)
        filled = ops.scatter(np.array(places)[:, None], first[: len(places)], first.shape)
        return ops.transpose(filled, np.argsort(order).tolist())

    return move


def _convolution(filters: np.ndarray) -> Move:
    def move(t):
        length = t.shape[-2] if len(t.shape) > 1 else 1
        flat = ops.reshape(t, (-1, length, t.shape[-1]))
        return ops.reshape(ops.conv(flat, filters, 1, "same"), t.shape)

    return move


def _label(chosen: np.ndarray) -> Move:
    if ON_TENSORFLOW:
        return lambda t: tf.gather(t, chosen, axis=-1, batch_dims=chosen.ndim - 1)
    return lambda t: ops.take_along_axis(t, chosen, axis=-1)


def random_move(rng: np.random.Generator, shape: tuple[int, ...], linear: bool) -> tuple[str, Move] | None:
    """One move of the elements of a tensor of this shape, with its name; None where the one drawn does not fit."""
    axis = int(rng.integers(len(shape)))
    size, rank = shape[axis], len(shape)
    kinds = ["roll", "shift", "cumsum", "difference", "gather", "permute", "scatter", "convolution", "reverse", "slice"]
    kinds += ["repeat", "flatten", "transpose", "labels"]
    kind = str(rng.choice(kinds if linear else [*kinds, "softmax", "sort", "pairs"]))
    indices = rng.integers(0, size, size).tolist()
    permuted = rng.permutation(size).tolist()
    moves: dict[str, Move] = {
        "roll": lambda t: ops.roll(t, 1 + indices[0], axis),
        "shift": _shift(axis),
        "cumsum": _cumulate(axis, reverse=bool(indices[0] % 2)),
        "gather": lambda t: ops.take(t, indices, axis),
        "permute": lambda t: ops.take(t, permuted, axis),
        "scatter": _scatter(axis, permuted[: max(1, size - 1)]),
        "reverse": lambda t: ops.flip(t, axis),
        "repeat": lambda t: ops.repeat(t, 2, axis),
        "flatten": lambda t: ops.reshape(t, [-1]),
        "softmax": lambda t: ops.softmax(t, axis),
        "sort": lambda t: ops.sort(t, axis),
    }
    order = rng.permutation(rank).tolist()
    moves["transpose"] = lambda t: ops.transpose(t, order)
    if size > 1:
        moves["difference"] = _difference(axis)
        moves["slice"] = lambda t: t[_along(axis, rank, slice(1, None))]
    if rank > 1:
        channels = shape[-1]
        filters = rng.normal(size=(int(rng.integers(1, 3)), channels, channels)).astype("float32")
        moves["convolution"] = _convolution(filters * (rng.random((1, channels, channels)) < 0.5).astype("float32"))
        moves["labels"] = _label(rng.integers(0, channels, (*shape[:-1], 1)))
    if rank == 2:
        moves["pairs"] = lambda t: t[:, None] - t[None]
    return (f"{kind}{axis}", moves[kind]) if kind in moves else None


def _huber(y, p):
    return ops.where(ops.abs(y - p) < 0.5, ops.square(y - p), ops.abs(y - p))


ELEMENTS: dict[str, Callable[[Any, Any], Any]] = {
    "squared": lambda y, p: ops.square(y - p),
    "absolute": lambda y, p: ops.abs(y - p),
    "relu": lambda y, p: ops.relu(p - y),
    "logarithm": lambda y, p: ops.log1p(ops.square(y - p)),
    "huber": _huber,
    "clipped": lambda y, p: ops.clip(ops.square(y - p), 0.01, 0.5),
    "crossentropy": lambda y, p: -y * ops.log(ops.clip(p, 1e-7, 1.0)),
}


@dataclass
class RandomLoss:
    """`loss` is `tail(elements)`: moves, an element loss, and a tail that is linear in it."""

    title: str
    y: np.ndarray
    p: np.ndarray
    before: list[Move]
    element: Callable
    after: list[Move]
    weight: np.ndarray | None
    by_target: bool
    end: str

    def elements(self, y, p):
        for move in self.before:
            y, p = move(y), move(p)
        return self.element(y, p)

    def tail(self, e, y):
        for move in self.after:
            e = move(e)
        e = e if self.weight is None else e * self.weight
        e = e * y if self.by_target else e
        if self.end == "last axis" and len(e.shape):
            return ops.mean(e, -1)
        return {"mean": ops.mean, "sum": ops.sum}.get(self.end, lambda e: e)(e)

    def __call__(self, y, p):
        return self.tail(self.elements(y, p), y)


def draw(seed: int) -> RandomLoss:
    """The random loss of this number, with data."""
    rng = np.random.default_rng(seed)
    shape = SHAPES[int(rng.integers(len(SHAPES)))]
    y, p = rng.uniform(0.05, 0.95, (2, *shape)).astype("float32")
    if rng.random() < 0.3 and len(shape) > 1:
        y = np.eye(shape[-1], dtype="float32")[rng.integers(0, shape[-1], shape[:-1])]
    words: list[str] = []

    def chain(current: Any, linear: bool) -> tuple[list[Move], Any]:
        moves: list[Move] = []
        for _ in range(int(rng.integers(0, 3))):
            found = random_move(rng, tuple(current.shape), linear)
            if found is None or (found[0].startswith("pairs") and moves):
                continue
            moved = found[1](current)
            if math.prod(moved.shape):
                words.append(found[0])
                moves.append(found[1])
                current = moved
        return moves, current

    before, current = chain(ops.convert_to_tensor(p), linear=False)
    name = str(rng.choice(list(ELEMENTS)))
    words.append(name)
    after, current = chain(current, linear=True)
    weight = None
    if rng.random() < 0.5:
        weight = (rng.uniform(0, 2, current.shape) * (rng.random(current.shape) < 0.7)).astype("float32")
        words.append("weighted")
    by_target = bool(rng.random() < 0.2 and tuple(current.shape) == shape)
    end = str(rng.choice(["mean", "sum", "none", "last axis"]))
    words += ["times y"] * by_target + [end]
    return RandomLoss(" ".join(words), y, p, before, ELEMENTS[name], after, weight, by_target, end)


@dataclass
class Truth:
    """Shares of the elements and, for each axis, the position of each (-1: it moved at none of the points tried)."""

    shares: np.ndarray
    places: list[np.ndarray]
    mixed: list[bool] = field(default_factory=list)

    def along(self, axis: int, size: int) -> np.ndarray | None:
        """The shares by position; None where an element has several, or none that could be seen."""
        place = self.places[axis]
        scale = np.abs(self.shares).sum()
        if self.mixed[axis] or (np.abs(self.shares[place < 0]) > 1e-9 * scale).any() or not (place >= 0).any():
            return None
        return np.bincount(place[place >= 0], self.shares[place >= 0], minlength=size)


def _slope(loss: RandomLoss, elements: Any, y: Any) -> np.ndarray:
    """The derivative of the loss by each element."""
    if not ON_TENSORFLOW:
        return np.asarray(jax.grad(lambda e: ops.mean(loss.tail(e, y)))(elements))
    with tf.GradientTape() as tape:
        tape.watch(elements)
        total = ops.mean(loss.tail(elements, y))
    return tf.convert_to_tensor(tape.gradient(total, elements, unconnected_gradients="zero")).numpy()


def _jacobian(loss: RandomLoss) -> Callable[[Any, Any], Any]:
    """The function of (y, p) that gives one row for each element: its derivatives by p."""

    def flat(y, p):
        return ops.reshape(loss.elements(y, p), [-1])

    if not ON_TENSORFLOW:
        return jax.jit(jax.jacobian(flat, argnums=1))

    @tf.function(autograph=False)
    def slopes(y, p):
        with tf.GradientTape(persistent=True) as tape:
            tape.watch(p)
            elements = flat(y, p)
        return tape.jacobian(elements, p, unconnected_gradients="zero", experimental_use_pfor=False)

    return slopes


def truth(loss: RandomLoss, seed: int, rounds: int = 3) -> Truth:
    """Where the elements belong, by their Jacobian at the batch itself and at other values."""
    rng = np.random.default_rng(seed + 10**6)
    y = ops.convert_to_tensor(loss.y)
    elements = loss.elements(y, ops.convert_to_tensor(loss.p))
    slope = _slope(loss, elements, y).ravel()
    shares = np.asarray(elements).astype(float).ravel() * slope
    counts = slope != 0  # an element that the loss cuts off has no share, wherever it comes from
    rank = loss.p.ndim
    here: list[np.ndarray] = []
    seen = [np.full(shares.size, -1) for _ in range(rank)]
    mixed, varies = [False] * rank, [False] * rank
    slopes = _jacobian(loss)

    for number in range(rounds):
        p = loss.p if number == 0 else rng.uniform(0.05, 0.95, loss.p.shape).astype("float32")
        y = loss.y if number == 0 else rng.uniform(0.05, 0.95, loss.y.shape).astype("float32")
        moved = np.asarray(slopes(ops.convert_to_tensor(y), ops.convert_to_tensor(p))) != 0
        for axis in range(rank):
            hit = moved.any(axis=tuple(k + 1 for k in range(rank) if k != axis))
            count = hit.sum(1)
            place = np.where(count == 1, hit.argmax(1), -1)
            mixed[axis] |= bool((count > 1)[counts].any())
            both = (place >= 0) & (seen[axis] >= 0)
            varies[axis] |= bool((place != seen[axis])[both].any())
            seen[axis] = np.where(seen[axis] < 0, place, seen[axis])
            if number == 0:
                here.append(place)
    return Truth(shares, [here[k] if varies[k] else seen[k] for k in range(rank)], mixed)


def differences(seed: int, explain_loss: Callable, count: collections.Counter) -> Iterator[str]:
    """What `explain_loss` says of the random loss of this number and is not so; `count` says what was compared."""
    loss = draw(seed)
    found = truth(loss, seed)
    if not np.isfinite(found.shares).all():
        return
    report = explain_loss(loss, loss.y, loss.p)
    count["losses"] += 1
    if not report.adds_up:
        yield f"{seed} {loss.title}: total {report.total}, Keras {report.reported}"
    term, shape = report.terms[0], loss.p.shape
    scale = np.abs(found.shares).sum() + 1e-12
    wanted = {}
    for axis, name in enumerate(NAMES[len(shape)]):
        if shape[axis] < 2:
            continue
        wanted[name] = found.along(axis, shape[axis])
        named = name in term.axes and term.exactness == "exact"
        count["provable"] += wanted[name] is not None
        count["provable and named"] += wanted[name] is not None and named
        if not named or (found.mixed[axis] and _normalised(loss)):
            continue
        count["named"] += 1
        if wanted[name] is None and found.mixed[axis]:
            yield f"{seed} {loss.title}: {name} is named, but an element depends on several positions"
        elif wanted[name] is not None:
            shares = term.by(name)
            got = np.array([shares.get(k, 0.0) for k in range(shape[axis])])
            count["shares"] += len(got)
            if np.abs(got - wanted[name]).max() > ROUNDING * scale:
                yield f"{seed} {loss.title}: {name} {got} is {wanted[name]}"
    yield from _by_label(seed, loss, found, term, scale, count)


def _by_label(seed, loss, found: Truth, term, scale: float, count: collections.Counter) -> Iterator[str]:
    """The same for shares by true class, where the targets are one-hot rows."""
    shape = loss.y.shape
    if len(shape) < 2 or not np.array_equal(np.sort(loss.y, -1)[..., -2:], np.eye(2)[1] + 0 * loss.y[..., :2]):
        return
    if term.parts[0].by_label() is None or len(term.parts) > 1:
        return
    if any(found.along(axis, shape[axis]) is None for axis in range(len(shape) - 1) if shape[axis] > 1):
        return
    places = [found.places[k] if shape[k] > 1 else np.zeros(found.shares.size, int) for k in range(len(shape) - 1)]
    seen = np.all([place >= 0 for place in places], axis=0)
    classes = loss.y.argmax(-1)[tuple(place[seen] for place in places)]
    wanted = np.bincount(classes, found.shares[seen], minlength=shape[-1])
    shares = term.by_label()
    got = np.array([shares.get(k, 0.0) for k in range(shape[-1])])
    count["by_label"] += 1
    if np.abs(got - wanted).max() > ROUNDING * scale:
        yield f"{seed} {loss.title}: by_label {got} is {wanted}"


def _normalised(loss: RandomLoss) -> bool:
    """A softmax over the class axis is part of the prediction by definition, and the Jacobian does not know that."""
    return "softmax" in loss.title


def main(first: int, last: int) -> int:
    import lossviz

    count: collections.Counter = collections.Counter()
    wrong = 0
    for seed in range(first, last):
        for text in differences(seed, lossviz.explain_loss, count):
            wrong += 1
            print(text, flush=True)
        if seed % 100 == 99 or seed == last - 1:
            print(seed + 1, dict(count), f"{wrong} wrong", flush=True)
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
