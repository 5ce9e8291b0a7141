"""Prove which position of the prediction an element loss belongs to, instead of believing names of operations.

An element belongs to position i of an axis when its derivative with respect to the predictions is zero everywhere
but at position i of that axis. The probe asks the program's own derivative, in forward mode: it moves the predictions
of some positions together and looks which elements move. Zero times anything is exactly zero, so "does not move" is no
matter of rounding.

`axes` proposes names by following them through operations. A proposal is checked with a few probes (`_Probe.agrees`);
where there is none, or it is refuted, the positions are found with two probes for each binary digit of their index
(`_Probe.positions`). What moves at none of the values tried (a mask, a ReLU, a clip) proves nothing: other
values are tried, then those of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from lossviz.backend.program import Op, Program, Value, ancestors
from lossviz.engine import ops
from lossviz.engine.axes import Atom, Dims

#: How far a derivative may be off the one predicted, relative to it, before the digits are asked instead.
_SLACK = 1e-3
#: Pairs of random halves of the positions; a weak dependence that all of them miss would have to be on a few elements.
_HALVES = 2
#: What changes no position between the predictions and what the loss normalises, where shapes are the same.
_ELEMENTWISE = ("identity", "cast", "add", "mul", "div", "neg", "select", "elementwise", "squash")
#: What the loss may make of an element before it sums up its axis to divide by that.
_SIZES = ("square", "abs", "exp")
#: Where a position is that no probe has seen move.
_UNSEEN = -1


@dataclass(frozen=True, eq=False)
class Point:
    """A tensor of predictions, and the name of each of its axes."""

    tensor: Value
    names: tuple[str, ...]

    @property
    def sizes(self) -> dict[str, int]:
        return dict(zip(self.names, self.tensor.shape))


class Round(NamedTuple):
    """Where a probe looks: values of the points, of the batch and, if any, of the factors."""

    points: list[np.ndarray]
    leaves: list[np.ndarray]
    factors: Sequence[np.ndarray] = ()


@dataclass(frozen=True, eq=False)
class Placement:
    """Where the elements of one cut belong.

    `dims` names the axes of the cut, with positions of the prediction as labels; what could not be proved has no
    name. `spread` is there where the positions of some axis do not lie along one of the cut: for each proven axis the
    position of every element, and `sizes` the number of positions. `mixed` are the axes along which some element
    depends on several positions, `unproven` those that nothing could be found out about. `depends` is False where the
    cut depends on none of the predictions.
    """

    dims: Dims
    spread: dict[str, np.ndarray] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    mixed: tuple[str, ...] = ()
    unproven: tuple[str, ...] = ()
    depends: bool = True

    @property
    def complete(self) -> bool:
        """Has every element been seen to move? What has not may move with another batch."""
        return not self.unproven and not any((place == _UNSEEN).any() for place in self.spread.values())


class Certifier:
    """The proof for one cut tensor. `of` gives its placement, anew for each batch only where moves depend on data."""

    def __init__(self, cut: Value, points: Sequence[Point], proposal: Dims | None, class_axes: set[str]):
        self.cut, self.proposal, self.class_axes = cut, proposal, class_axes
        self.points = [p for p in points if p.tensor.is_floating and p.tensor.is_static]
        self.reads = True  # unless it turns out that no derivative leads to the predictions
        self.known: Placement | None = None
        self.probes: list[_Probe] | None = None

    def of(self, leaves: Sequence[np.ndarray], values: dict) -> Placement:
        """`leaves` are the batch, `values` what the tensors of the graph were with it."""
        if self.known is not None:
            return self.known
        if self.probes is None:
            self.probes = self._probes()
        if not self.probes:
            depends = bool(self.points) and self.reads
            self.known = Placement(_nameless(self.cut), depends=depends or not self.points)
            return self.known
        depends_on_data = any(probe.moves_by_data for probe in self.probes) or not self.cut.is_static
        found = None if depends_on_data else self._proposed(leaves, values)
        if found is None:
            found, depends_on_data = self._found(leaves, values, depends_on_data)
        if not depends_on_data and found.complete:
            self.known, self.probes = found, None
        return found

    def _probes(self) -> list[_Probe]:
        """One with the predictions, one with what the loss itself normalises over its class axis in their place."""
        try:
            plain = _Probe.build(self.cut, self.points)
        except self.cut.program.underivable:
            return []
        if plain is None:
            self.reads = False
            return []
        extra = _normalised(self.cut, plain.points, self.class_axes)
        normal = _Probe.build(self.cut, [*plain.points, *extra]) if extra else None
        return [probe for probe in (plain, normal) if probe is not None]

    def _proposed(self, leaves, values) -> Placement | None:
        """The proposal, if it names all it could and every probe agrees."""
        plain, normal = self.probes[0], self.probes[-1]
        wanted = plain.sizes
        along = _along(self.proposal, wanted)
        if along is None or {name for name, size in wanted.items() if size > 1} - along.keys():
            return None
        unseen = np.ones([size or 0 for size in self.cut.shape or ()], bool)
        # what the loss normalises over the classes stands for the predictions along that axis alone
        classes = {name: place for name, place in along.items() if normal is not plain and name in self.class_axes}
        others = {name: place for name, place in along.items() if name not in classes}
        for at, again in zip(plain.rounds(leaves, values), normal.rounds(leaves, values)):
            moved = plain.agrees(at, others)
            if moved is None or (classes and normal.agrees(again, classes) is None):
                return None
            unseen &= ~moved
            if not _blind(unseen, {d for d, _ in along.values()}):
                break
        else:
            return None
        return Placement(_only(self.proposal, along.keys() | _single(wanted)))

    def _found(self, leaves, values, depends_on_data: bool) -> tuple[Placement, bool]:
        """Positions by their binary digits."""
        places: dict[str, np.ndarray] = {}
        mixed, sizes = [], self.probes[0].sizes
        for name, size in sizes.items():
            if size < 2:
                continue
            probes = self.probes if name in self.class_axes else self.probes[:1]
            for probe in reversed(probes):  # where the loss normalises, the predictions alone would look mixed
                here, elsewhere = probe.here(leaves, values), probe.rounds(leaves, values)
                place, varies = probe.positions(name, [*here, *elsewhere] if depends_on_data else elsewhere)
                if varies:
                    depends_on_data = True
                    place, _ = probe.positions(name, probe.here(leaves, values))
                if place is not None:
                    break
            if place is None:
                mixed.append(name)
            else:
                places[name] = place
        return self._placed(places, tuple(mixed), sizes), depends_on_data

    def _placed(self, places: dict[str, np.ndarray], mixed: tuple[str, ...], sizes: dict[str, int]) -> Placement:
        unproven = tuple(name for name, place in places.items() if (place == _UNSEEN).all())
        places = {name: place for name, place in places.items() if name not in unproven}
        if not places:
            return Placement(_nameless(self.cut), mixed=mixed, unproven=unproven)
        shape = next(iter(places.values())).shape
        proposed = _along(self.proposal, sizes) or {}
        along: dict[str, tuple[int, np.ndarray]] = {}
        for name, place in places.items():
            guess = proposed.get(name)
            if guess is not None and (guess[0] >= len(shape) or len(guess[1]) != shape[guess[0]]):
                guess = None
            if (axis := _axis_of(place, guess[0] if guess else None)) is not None:
                along[name] = axis
                places[name] = np.broadcast_to(_spread(axis[1], axis[0], len(shape)), shape)
        dims, crossing = _dims(shape, along, self.proposal, _single(sizes))
        spread = places if crossing or along.keys() != places.keys() else {}
        return Placement(dims, spread, {name: sizes[name] for name in spread}, mixed, unproven)


class _Probe:
    """The derivative of one cut in a direction of the predictions."""

    def __init__(self, cut: Value, points: list[Point], directions: list[Value], tangent: Value):
        self.cut, self.points = cut, points
        self.program: Program = cut.program
        self.sizes = {name: size for point in reversed(points) for name, size in point.sizes.items()}
        given = {point.tensor for point in points}
        self.others = [k for k, feed in enumerate(self.program.feeds) if feed not in given]
        self.feeds = [*(point.tensor for point in points), *directions, *(self.program.feeds[k] for k in self.others)]
        self.factors = _factors(cut, [point.tensor for point in points])
        self.tangent = tangent
        self.moves_by_data = _moves_by_data(cut, [point.tensor for point in points])
        self.random = np.random.default_rng(0)
        self.signs = [_uniform(self.random, 0.5, 1.5, point.tensor) for point in points]

    @classmethod
    def build(cls, cut: Value, points: Sequence[Point]) -> _Probe | None:
        """None where the cut depends on none of the points."""
        found = cut.program.tangent(cut, [point.tensor for point in points])
        if found is None:
            return None
        kept, directions, tangent = found
        return cls(cut, [points[k] for k in kept], directions, tangent)

    def rounds(self, leaves: Sequence[np.ndarray], values: dict) -> Iterable[Round]:
        """What to probe at: arbitrary values, then those of the batch itself."""
        classes = max(self.sizes.values(), default=1)
        tensors = [point.tensor for point in self.points]
        finite = [_finite(leaf, self.random) for leaf in leaves]
        yield Round([_uniform(self.random, 0.1, 0.9, t) for t in tensors], finite)
        other = [_other(leaf, classes, self.random) for leaf in leaves]
        factors = [_uniform(self.random, 0.1, 0.9, factor) for factor in self.factors]
        yield Round([_uniform(self.random, 0.1, 0.9, t) for t in tensors], other, factors)
        yield Round([_uniform(self.random, 0.1, 0.9, t) for t in tensors], other)
        yield Round([self.random.normal(0.0, 1.5, t.shape) for t in tensors], other)
        yield Round([_uniform(self.random, 0.0, 0.2, t) for t in tensors], other)
        yield from self.here(leaves, values)

    def here(self, leaves, values) -> Iterable[Round]:
        """The batch itself."""
        known = dict(zip(self.program.feeds, leaves)) | values
        missing = [point.tensor for point in self.points if point.tensor not in known]
        if missing:
            known |= zip(missing, self.program.runner(missing, self.program.feeds)(leaves))
        yield Round([known[point.tensor] for point in self.points], list(leaves))

    def move(self, at: Round, weights: Sequence[np.ndarray | None]) -> np.ndarray:
        """How fast each element moves when the predictions move with these weights (times arbitrary numbers)."""
        directions = [
            np.zeros(sign.shape, sign.dtype) if weight is None else np.multiply(sign, weight, dtype=sign.dtype)
            for sign, weight in zip(self.signs, weights)
        ]
        feeds = [*self.feeds, *(self.factors if at.factors else ())]
        arrays = [*at.points, *directions, *(at.leaves[k] for k in self.others), *at.factors]
        try:
            return self.program.runner([self.tangent], feeds)(arrays)[0]
        except self.program.errors:  # the loss asserts something of its data that arbitrary numbers are not
            return np.full([size or 0 for size in self.cut.shape], np.nan)

    def agrees(self, at: Round, along: dict[str, tuple[int, np.ndarray]]) -> np.ndarray | None:
        """Do the elements move as they would if they stood where `along` says? Which of them moved; None if not."""
        whole = self.move(at, [np.ones(()) for _ in self.points])
        if not np.isfinite(whole).any():
            return np.zeros(whole.shape, bool)
        bad = ~np.isfinite(whole)
        sizes = {name: self.sizes[name] for name in along}
        wide = np.float64 if whole.dtype == np.float64 else np.float32
        codes = {name: self.random.uniform(1.0, 2.0, size).astype(wide) for name, size in sizes.items()}
        expected = math.prod((_spread(codes[n][places], d, whole.ndim) for n, (d, places) in along.items()), start=1)
        found = self.move(at, [self._weights(point, codes, np.multiply, 1.0) for point in self.points])
        with np.errstate(all="ignore"):
            off = np.abs(found - whole * expected) > _SLACK * np.abs(whole) * expected
        if (off & ~bad).any():
            return None
        for _ in range(_HALVES):
            halves = {name: self.random.integers(0, 2, size).astype(bool) for name, size in sizes.items()}
            color = False
            for name, (d, places) in along.items():
                color = color ^ _spread(halves[name][places], d, whole.ndim)
            color = np.broadcast_to(color, whole.shape)
            for side in (False, True):
                weights = [self._weights(p, halves, np.logical_xor, False) == side for p in self.points]
                if ((self.move(at, weights) != 0) & (color != side) & ~bad).any():
                    return None
        return (whole != 0) & ~bad

    def positions(self, name: str, rounds: Iterable[Round]) -> tuple[np.ndarray | None, bool]:
        """Where along this axis each element stands, `_UNSEEN` where nothing moves it; None where one depends on
        several positions. True beside it: the positions differ with the values."""
        found, varies = None, False
        for at in rounds:
            place = self._digits(name, self.sizes[name], at)
            if place is None and at.factors:
                continue  # with other factors an element would depend on several positions
            if place is None:
                return None, False
            if found is None:
                found = place
                continue
            varies |= bool((found != place)[(found != _UNSEEN) & (place != _UNSEEN)].any())
            found = np.where(found == _UNSEEN, place, found)
            if not varies and not (found == _UNSEEN).any():
                break
        return (None, True) if varies else (found, False)

    def _digits(self, name: str, size: int, at: Round) -> np.ndarray | None:
        place, seen = 0, None
        for digit in range(max(1, math.ceil(math.log2(size)))):
            bits = (np.arange(size) >> digit & 1).astype(bool)
            one = self.move(at, [self._only(point, name, bits) for point in self.points])
            zero = self.move(at, [self._only(point, name, ~bits) for point in self.points])
            bad = ~np.isfinite(one) | ~np.isfinite(zero)
            if ((one != 0) & (zero != 0) & ~bad).any():
                return None
            moved = ((one != 0) | (zero != 0)) & ~bad
            seen = moved if seen is None else seen & moved
            place = place + ((one != 0).astype(np.int64) << digit)
        return np.where(seen, place, _UNSEEN)

    def _weights(self, point: Point, codes: dict[str, np.ndarray], join, start) -> np.ndarray:
        """The codes of a point's positions, of the axes that it has."""
        weights = np.asarray(start)
        for k, (name, size) in enumerate(point.sizes.items()):
            if name in codes and len(codes[name]) == size:
                weights = join(weights, _spread(codes[name], k, len(point.names)))
        return weights

    def _only(self, point: Point, name: str, which: np.ndarray) -> np.ndarray | None:
        if point.sizes.get(name) != len(which):
            return None
        return _spread(which, point.names.index(name), len(point.names))


# -- what a placement says, and how it is read off positions -------------------------------------------------


def _nameless(tensor: Value) -> Dims:
    return ((),) * (tensor.rank or 0)


def _single(sizes: dict[str, int]) -> set[str]:
    """Axes of one position: everything belongs to it."""
    return {name for name, size in sizes.items() if size == 1}


def _along(dims: Dims | None, sizes: dict[str, int]) -> dict[str, tuple[int, np.ndarray]] | None:
    """For each name in `dims` that is one of `sizes`: its dimension, and the position at each place along it. None
    where a name stands twice."""
    found: dict[str, tuple[int, np.ndarray]] = {}
    for d, dim in enumerate(dims or ()):
        grid = np.meshgrid(*(np.asarray(atom.labels) for atom in dim), indexing="ij") if dim else []
        for atom, places in zip(dim, grid):
            if sizes.get(atom.name, 1) < 2:
                continue
            if atom.name in found or not np.issubdtype(places.dtype, np.integer):
                return None
            found[atom.name] = d, places.reshape(-1)
    return found


def _only(dims: Dims, names: Iterable[str]) -> Dims:
    """The dimensions that have these names alone."""
    kept = set(names)
    return tuple(dim if all(atom.name in kept for atom in dim) else () for dim in dims)


def _spread(array: np.ndarray, axis: int, rank: int) -> np.ndarray:
    return array.reshape([-1 if k == axis else 1 for k in range(rank)])


def _blind(unseen: np.ndarray, dims: set[int]) -> bool:
    """Is there a place along one of these dimensions where nothing has moved?"""
    return any(unseen.all(axis=tuple(k for k in range(unseen.ndim) if k != d)).any() for d in dims)


def _axis_of(place: np.ndarray, guess: int | None) -> tuple[int, np.ndarray] | None:
    """The dimension along which these positions lie (`guess` is tried first), and the position at each place on it."""
    for d in sorted(range(place.ndim), key=lambda k: k != guess):
        line = place.max(axis=tuple(k for k in range(place.ndim) if k != d), initial=_UNSEEN)
        lies = ((place == _UNSEEN) | (place == _spread(line, d, place.ndim))).all()
        if lies and not (line == _UNSEEN).any():
            return d, line
    return None


def _dims(shape, along, proposal: Dims | None, single: set[str]) -> tuple[Dims, bool]:
    """Names of each dimension, and whether some dimension has axes that do not follow each other like nested loops."""
    result: list[tuple[Atom, ...]] = []
    crossing = False
    for d, size in enumerate(shape):
        here = {name: places for name, (k, places) in along.items() if k == d}
        if not here:
            trivial = proposal[d] if proposal is not None and len(proposal) == len(shape) else ()
            result.append(trivial if trivial and all(atom.name in single for atom in trivial) else ())
            continue
        dim = _product(here, size)
        crossing |= dim is None
        result.append(dim or ())
    return tuple(result), crossing


def _product(places: dict[str, np.ndarray], size: int) -> tuple[Atom, ...] | None:
    """The axes of one dimension, slowest first, if it runs through all their positions like nested loops."""
    if len(places) == 1:
        return tuple(Atom(name, tuple(line.tolist())) for name, line in places.items())
    changes = {name: int(np.sum(line[1:] != line[:-1])) for name, line in places.items()}
    atoms, inner = [], size
    for name in sorted(places, key=changes.get):
        line, outer = places[name], size // inner if inner else 0
        labels = list(dict.fromkeys(line.tolist()))
        if not labels or inner % len(labels):
            return None
        inner //= len(labels)
        atoms.append(Atom(name, tuple(labels)))
        if not np.array_equal(line, np.tile(np.repeat(labels, inner), max(outer, 1))):
            return None
    return tuple(atoms) if inner == 1 else None


# -- what the loss does with the predictions ------------------------------------------------------------------


def _normalised(cut: Value, points: Sequence[Point], class_axes: set[str]) -> list[Point]:
    """What the loss makes of predictions by normalising them over the class axis."""
    from_points = {point.tensor: point for point in points}
    moving = set(from_points)
    for op in ancestors([cut]):
        if op.kind != "stop" and any(value in moving for value in op.inputs):
            moving.update(output for output in op.outputs if output.is_floating)
    found = []
    for op in _between(cut, [point.tensor for point in points]):
        normal = _normalisation(op)
        if normal is None:
            continue
        source, axis = normal
        point, permutation = _same_grid(source, from_points, moving)
        if point is None:
            continue
        names = tuple(point.names[k] for k in permutation)
        if names[axis] in class_axes and op.outputs[0].is_static:
            found.append(Point(op.outputs[0], names))
    return found


def _between(cut: Value, stops: Sequence[Value]) -> list[Op]:
    """Operations from `stops` (left out) to the cut, as far as a derivative goes."""
    ends = {value.op for value in stops}
    order, stack, seen = [], [cut.op], {cut.op}
    while stack:
        op = stack.pop()
        if op in ends or op.kind == "stop":
            continue
        order.append(op)
        for value in op.inputs:
            if value.op not in seen:
                seen.add(value.op)
                stack.append(value.op)
    return order


def _normalisation(op: Op) -> tuple[Value, int] | None:
    """What this operation normalises, and along which axis; None for any other operation."""
    if op.kind == "squash" and op.info["how"] != "sigmoid":
        return op.inputs[0], op.info["axis"] % op.inputs[0].rank
    if op.kind not in ("div", "mul") and not (op.kind == "add" and ops.subtracts(op, op.inputs[-1])):
        return None
    for whole, part in (op.inputs, op.inputs[::-1])[: 2 if op.kind == "mul" else 1]:
        total = _bare(part)
        word = {"mul": "rsqrt", "add": "log"}.get(op.kind)
        if word is not None:
            total = _bare(total.op.inputs[0]) if total.op.info.get("how") == word else None
        elif total.op.info.get("how") in ("sqrt", "exp"):
            total = _bare(total.op.inputs[0])
        if total is None or total.op.kind != "reduce" or total.op.info["how"] != "sum":
            continue
        if part.rank != whole.rank:
            continue
        summed, axes = total.op.inputs[0], total.op.info["axes"]
        if axes is None or len(axes) != 1 or not _made_of(summed, whole):
            continue
        return _inner(whole), axes[0] % whole.rank
    return None


def _bare(value: Value) -> Value:
    """Without what only keeps a sum from being zero, moves it by a number that is held fixed, or gives it back the axis
    that was summed."""
    while True:
        op = value.op
        if op.kind in ("identity", "cast") or (op.kind == "reshape" and value.rank == (op.inputs[0].rank or 0) + 1):
            value = op.inputs[0]
            continue
        if op.info.get("how") in ("maximum", "minimum") or (op.kind == "add" and not ops.subtracts(op, op.inputs[-1])):
            free = [v for v in op.inputs if v.known is None and not ops.is_held(v)]
            if len(free) == 1:
                value = free[0]
                continue
        return value


def _inner(value: Value) -> Value:
    return value.op.inputs[0] if value.op.info.get("how") == "exp" else value


def _made_of(summed: Value, whole: Value) -> bool:
    """Is what was summed the tensor itself, or its squares, absolute values or exponentials?"""
    if summed is whole:
        return True
    op = summed.op
    if op.info.get("how") in _SIZES or op.kind == "mul" or (op.kind == "add" and ops.subtracts(op, op.inputs[-1])):
        free = [value for value in op.inputs if not ops.is_held(value)]
        return bool(free) and all(v is whole or _made_of(v, whole) or v is _inner(whole) for v in free)
    return False


def _same_grid(value: Value, points: dict[Value, Point], moving: set[Value]) -> tuple[Point | None, tuple[int, ...]]:
    """The point that this is computed from elementwise, and from nothing else that moves with the predictions; its
    axes may come in another order."""
    permutation = tuple(range(value.rank or 0))
    while value not in points:
        op = value.op
        sources = {v for v in op.inputs if v in moving}
        if len(sources) != 1:
            return None, ()
        (source,) = sources
        if op.kind == "transpose":
            if op.info["perm"] is None:
                return None, ()
            permutation = tuple(op.info["perm"][k] for k in permutation)
        elif op.kind not in _ELEMENTWISE or source.shape != value.shape:
            return None, ()
        value = source
    return points[value], permutation


def _factors(cut: Value, points: Sequence[Value]) -> list[Value]:
    """Independent floats that elements are multiplied by and that do nothing else, such as one-hot targets. An element
    belongs to the same position whatever they are; where they are zero, no probe would see it move."""
    moving = set(points)
    for op in ancestors([cut]):
        if any(value in moving for value in op.inputs):
            moving.update(op.outputs)
    found: dict[Value, None] = {}
    others: set[Value] = set()
    for op in _between(cut, points):
        fixed = [value for value in op.inputs if value not in moving]
        if op.kind == "mul" and len(fixed) == 1:
            found[fixed[0]] = None
        else:
            others.update(fixed)
    return [v for v in found if v not in others and v.is_floating and v.is_static and v.op.inputs]


def _moves_by_data(cut: Value, points: Sequence[Value]) -> bool:
    """Does a position in the cut depend on what the data are: on indices read off them, or on their order?"""
    by_value = {*cut.program.feeds, *points}
    for op in ancestors([cut]):
        if ops.looks_at_values(op) and any(value in by_value for value in op.inputs):
            by_value.update(op.outputs)
    for op in _between(cut, points):
        if ops.chooses_by_value(op):
            return True
        floats = any(v.is_floating and v in by_value for v in op.inputs)
        indices = any(v.is_integer and v in by_value for v in op.inputs)
        if floats and indices and any(output.is_floating for output in op.outputs):
            return True
    return False


def _uniform(random: np.random.Generator, low: float, high: float, tensor: Value) -> np.ndarray:
    """Arbitrary numbers of the tensor's shape, in float64 only where it is that itself."""
    dtype = np.float64 if tensor.dtype == "float64" else np.float32
    numbers = random.random(tensor.shape, dtype)
    numbers *= dtype(high - low)
    numbers += dtype(low)
    return numbers


def _finite(leaf: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The array without what is not a number."""
    if leaf.dtype.kind != "f" or np.isfinite(leaf).all():
        return leaf
    return np.where(np.isfinite(leaf), leaf, random.uniform(0.1, 0.9, leaf.shape)).astype(leaf.dtype)


def _other(leaf: np.ndarray, classes: int, random: np.random.Generator) -> np.ndarray:
    """Arbitrary numbers in place of an array of floats, arbitrary classes in place of whole numbers."""
    if leaf.dtype.kind == "f":
        return random.uniform(0.1, 0.9, leaf.shape).astype(leaf.dtype)
    if leaf.dtype.kind in "iu" and leaf.size and leaf.min() >= 0:
        return random.integers(0, max(classes, 2), leaf.shape).astype(leaf.dtype)  # none is one to ignore
    return leaf
