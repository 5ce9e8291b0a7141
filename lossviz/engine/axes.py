"""Follow axis names through a program: what each dimension of a value *means*.

A dimension is a tuple of `Atom`s: usually one (`row`), several after a flatten (`batch`, `row`, `col`
merged into one), none where nothing is known. Names start at the predictions and targets and are carried
through every operation of the loss, so a loss that flattens, transposes or slices keeps its axes.

The second half has one function for each way in which an operation can treat axes; `engine.ops` says which kind of
operation takes which. They may raise: then nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lossviz.backend.program import Op

#: Default names by rank of the predictions: batch first, class last.
DEFAULT_AXES = {
    0: (),
    1: ("batch",),
    2: ("batch", "class"),
    3: ("batch", "step", "class"),
    4: ("batch", "row", "col", "class"),
    5: ("batch", "depth", "row", "col", "class"),
}


@dataclass(frozen=True)
class Atom:
    """One named axis: its name and what its positions are called (their number is its size)."""

    name: str
    labels: Sequence[Hashable]

    @property
    def size(self) -> int:
        return len(self.labels)


Dims = tuple[tuple[Atom, ...], ...]


def default_axes(rank: int, class_axis: int | None = None) -> tuple[str, ...]:
    """Names for predictions of this rank: `batch, ..., class`, or with the classes at `class_axis`, counted from 0."""
    names = DEFAULT_AXES.get(rank) or ("batch", *(f"axis{k}" for k in range(1, rank - 1)), "class")
    if class_axis is None or not 0 < class_axis < rank:
        return names
    return (*names[:class_axis], "class", *names[class_axis:-1])


def class_axis(names: Sequence[str]) -> int:
    """Which of these axes holds the classes: the one called "class", else the last."""
    return names.index("class") if "class" in names else len(names) - 1


def named(shape: Sequence[int], names: Sequence[str], labels: dict[str, Sequence[Hashable]] | None = None) -> Dims:
    """Dimensions of a tensor whose axes are known: one atom each."""
    labels = labels or {}
    return tuple((Atom(name, labels.get(name, range(size))),) for name, size in zip(names, shape, strict=True))


def unfold(array: np.ndarray, dims: Dims | None) -> tuple[np.ndarray, tuple[Atom, ...]]:
    """The array with one dimension per atom; merged axes come apart, unnamed axes of size 1 go, others are `axisK`."""
    dims = dims if dims is not None and len(dims) == array.ndim else ((),) * array.ndim
    atoms: list[Atom] = []
    for k, (dim, size) in enumerate(zip(dims, array.shape)):
        if dim and math.prod(atom.size for atom in dim) == size:
            atoms.extend(dim)
        elif size != 1:
            atoms.append(Atom(f"axis{k}", range(size)))
    names = unique_names([atom.name for atom in atoms])
    unique = tuple(Atom(name, atom.labels) for name, atom in zip(names, atoms))
    return array.reshape([atom.size for atom in unique]), unique


def unique_names(names: Iterable[str]) -> list[str]:
    """The second `batch` becomes `batch_2`: two dimensions can be one axis, as where (N, 1) meets (N,) by accident."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(f"{name}_{seen[name]}" if seen[name] > 1 else name)
    return result


def removed(dims_in: Dims | None, dims_out: Dims | None) -> tuple[str, ...]:
    """Names that stand in `dims_in` and no more in `dims_out`."""
    before, after = (unique_names(atom.name for dim in dims or () for atom in dim) for dims in (dims_in, dims_out))
    return tuple(name for name in before if name not in after)


# -- how operations treat axes ---------------------------------------------------------------------------------
#
# Each takes the operation, the dimensions of its inputs (None where they are not known), the shape of the output
# and its number, and gives the dimensions of that output or None.


def nameless(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> None:
    """Equal sizes mean nothing here: positions are moved, chosen or made anew, or the operation cannot be read."""
    return None


def passed(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    """One output for each input."""
    return inputs[index]


def broadcast(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    """Element by element, as NumPy broadcasts, or along the axes that `where` lists."""
    if "where" in op.info:
        at = dict(zip(op.info["where"], inputs[0]))
        return tuple(at.get(k, ()) for k in range(len(shape)))
    if op.kind != "broadcast" and len(shape) != max((value.rank or 0 for value in op.inputs), default=0):
        return None
    return _aligned(inputs, shape)


def regroup(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """Split the atoms over the new dimensions: smallest runs on both sides with the same number of elements."""
    return _regrouped(inputs[0], op.inputs[0].shape, shape)


def permute(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    return tuple(inputs[0][k] for k in op.info["perm"])


def join(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """Along one axis, an old one or a new one, there are positions of several tensors then."""
    axis, stacks = op.info["axis"] % len(shape), op.info["stacks"]
    if not stacks:
        dims = list(_aligned(inputs, shape))
        return (*dims[:axis], (), *dims[axis + 1 :])
    dims = list(_aligned(inputs, shape[:axis] + shape[axis + 1 :]))
    return (*dims[:axis], (), *dims[axis:])


def cut_out(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """`parts`: for each axis of each output, which axis it was (None: it is new) and its slice (None: all of it)."""
    parts = op.info["parts"][index]
    return tuple(
        () if axis is None else inputs[0][axis] if part is None else _picked(inputs[0][axis], part)
        for axis, part in parts
    )


def turn(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    if op.info["how"] != "reverse":
        return None
    turned = {axis % len(shape) for axis in op.info["axes"]}
    return tuple(_picked(dim, slice(None, None, -1)) if k in turned else dim for k, dim in enumerate(inputs[0]))


def diagonal(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    return inputs[0][:-1] if inputs[0][-1] == inputs[0][-2] else None


def one_hot(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    return (*(inputs[0] or ()), ())


def mix(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """The last axes are sorted or transformed: a position there is not a position of the input."""
    count = op.info["axes"]
    return (*inputs[0][:-count], *((),) * count)


def without(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """Along these axes a position holds what stood at several."""
    mixed = {axis % len(shape) for axis in op.info["axes"]}
    return tuple(() if k in mixed else dim for k, dim in enumerate(inputs[0]))


def window(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """A window slides over all axes but the first; the last, of channels, stays where each is for itself."""
    dims = inputs[0]
    last = dims[-1:] if op.info.get("channels") and len(dims) > 1 else ((),)
    return (dims[0], *((),) * (len(shape) - 2), *last)


def reduce(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    dims = inputs[0]
    axes = {axis % len(dims) for axis in op.info["axes"]} if dims else set()
    return tuple(() if k in axes else dim for k, dim in enumerate(dims) if op.info["keepdims"] or k not in axes)


def pick(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims:
    """What is fetched stands where its index stands: it has the names of the indices (of which each may be a vector of
    one number)."""
    dims, chosen, indices = inputs[0], inputs[1], op.inputs[1]
    known = indices.known
    if op.info.get("vectors"):
        chosen, known = chosen[:-1], None if known is None else known[..., 0]
    if "depth" in op.info:
        return (*chosen[:-1], *dims[op.info["depth"] :])
    axis = op.info["axis"] % len(dims)
    if known is not None and known.ndim == 1:
        chosen = (_picked(dims[axis], [int(i) for i in known]),)
    return (*dims[:axis], *chosen[op.info["batch_dims"] :], *dims[axis + 1 :])


def contract(op: Op, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    equation = op.info.get("equation")
    if equation is None:
        flipped = op.info["flipped"]
        first, second = (dims or ((),) * (value.rank or 0) for dims, value in zip(inputs, op.inputs))
        rows = first[-1 if flipped[0] else -2]
        columns = second[-2 if flipped[1] else -1]
        return (*_aligned([first[:-2], second[:-2]], shape[:-2]), rows, columns)
    operands, result = equation
    meant: dict[str, tuple[Atom, ...]] = {}
    for letters, dims in zip(operands, inputs, strict=True):
        for letter, dim in zip(letters, dims or (), strict=dims is not None):
            meant[letter] = meant.get(letter) or dim
    return tuple(meant.get(letter, ()) for letter in result)


def fits(dims: Dims, shape: Sequence[int | None]) -> bool:
    """Have these dimensions the sizes of the shape, where both are known?"""
    return all(not dim or size is None or math.prod(a.size for a in dim) == size for dim, size in zip(dims, shape))


def _aligned(inputs: list[Dims | None], shape: Sequence[int | None]) -> Dims:
    """Right-aligned, as NumPy broadcasts: each dimension takes the first name that fits its size, of what has the most
    dimensions (weights of shape (2,) meet the last axis of (2, 2), whatever they were meant for)."""
    inputs = sorted(inputs, key=lambda dims: -len(dims or ()))
    result = []
    for back in range(len(shape), 0, -1):
        candidates = (dims[-back] for dims in inputs if dims is not None and len(dims) >= back)
        fitting = (dim for dim in candidates if dim and math.prod(a.size for a in dim) == shape[-back])
        result.append(next(fitting, ()))
    return tuple(result)


def _regrouped(dims: Dims, before: Sequence[int | None], after: Sequence[int | None]) -> Dims:
    atoms: list[Atom] = []
    for dim, size in zip(dims, before, strict=True):
        atoms.extend(dim if dim else ([Atom("", range(size))] if size != 1 else []))
    result: list[tuple[Atom, ...]] = []
    position = 0
    k = 0
    while k < len(after):
        if after[k] == 1:
            one = position < len(atoms) and atoms[position].size == 1
            result.append((atoms[position],) if one else ())
            position += one
            k += 1
            continue
        taken, sizes = [], [after[k]]
        while math.prod(a.size for a in taken) != math.prod(sizes):
            if math.prod(a.size for a in taken) < math.prod(sizes):
                taken.append(atoms[position])
                position += 1
            else:
                sizes.append(after[k + len(sizes)])
        whole = len(sizes) == 1 and all(atom.name for atom in taken)
        result.extend([tuple(taken)] if whole else [()] * len(sizes))
        k += len(sizes)
    return tuple(result)


def _picked(dim: tuple[Atom, ...], index: slice | list[int]) -> tuple[Atom, ...]:
    if len(dim) != 1:
        return ()
    labels = dim[0].labels
    return (Atom(dim[0].name, labels[index] if isinstance(index, slice) else tuple(labels[i] for i in index)),)
