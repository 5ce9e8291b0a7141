"""Follow axis names through a TensorFlow graph: what each dimension of a tensor *means*.

A dimension is a tuple of `Atom`s: usually one (`row`), several after a flatten (`batch`, `row`, `col`
merged into one), none where nothing is known. Names start at the predictions and targets and are carried
through every operation of the loss, so a loss that flattens, transposes or slices keeps its axes.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import tensorflow as tf

REDUCTIONS = {"Sum", "Mean", "Max", "Min", "Prod", "All", "Any", "EuclideanNorm"}
_RESHAPES = {"Reshape", "Squeeze", "ExpandDims"}
# Equal sizes mean nothing here: positions are moved, chosen or made anew, or the operation cannot be read.
_NAMELESS = {
    *("Shape", "Size", "Rank", "Range", "Fill", "Where", "Roll", "RandomShuffle", "Unique", "UniqueV2", "ListDiff"),
    *("Bincount", "DenseBincount", "SegmentSum", "UnsortedSegmentSum", "UnsortedSegmentProd", "UnsortedSegmentMax"),
    *("UnsortedSegmentMin", "ScatterNd", "PyFunc", "PyFuncStateless", "EagerPyFunc", "While", "StatelessWhile"),
    *("If", "StatelessIf", "Case", "StatelessCase", "PartitionedCall", "StatefulPartitionedCall"),
}
# How many of the last axes these mix: sorted or transformed, a position there is not a position of the input.
_MIXING = {
    **dict.fromkeys(("TopKV2", "TopK", "FFT", "IFFT", "RFFT", "IRFFT"), 1),
    **dict.fromkeys(("FFT2D", "IFFT2D", "RFFT2D", "IRFFT2D", "Cholesky", "MatrixInverse", "MatrixSolve"), 2),
    **dict.fromkeys(("MatrixTriangularSolve", "MatrixSquareRoot", "MatrixExponential", "Qr", "Svd"), 2),
}

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


def propagate(operations: Iterable[tf.Operation], known: dict) -> dict:
    """Names for the outputs of `operations` (in topological order), starting from `known` (tensor ref -> Dims).

    Returns a dictionary from tensor reference to Dims that holds an entry for every output of known rank.
    """
    found: dict = dict(known)
    for operation in operations:
        inputs = [found.get(tensor.ref()) for tensor in operation.inputs]
        for index, output in enumerate(operation.outputs):
            if output.ref() in found or output.shape.rank is None:
                continue
            shape = tuple(output.shape.as_list())
            try:
                dims = _infer(operation, inputs, shape, index)
            except (ValueError, IndexError, TypeError):  # an operation in a form not foreseen: nothing is known
                dims = None
            if dims is None or len(dims) != len(shape) or not _fits(dims, shape):
                dims = ((),) * len(shape)
            found[output.ref()] = dims
    return found


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


def _fits(dims: Dims, shape: Sequence[int | None]) -> bool:
    return all(not dim or size is None or math.prod(a.size for a in dim) == size for dim, size in zip(dims, shape))


def _infer(operation: tf.Operation, inputs: list[Dims | None], shape: tuple, index: int) -> Dims | None:
    kind = operation.type
    first = inputs[0] if inputs else None
    if kind in _NAMELESS:
        return None
    if kind == "IdentityN":
        return inputs[index]
    if kind in _MIXING:
        return (*first[: -_MIXING[kind]], *((),) * _MIXING[kind])
    if kind in REDUCTIONS or kind == "ArgMax":
        return _reduce(operation, first)
    if kind in _RESHAPES:
        return _regroup(first, operation.inputs[0].shape, shape)
    if kind == "Transpose":
        return tuple(first[k] for k in _static(operation.inputs[1]))
    if kind == "Pack":
        axis = operation.get_attr("axis") % len(shape)
        dims = list(_broadcast(inputs, shape[:axis] + shape[axis + 1 :]))
        return (*dims[:axis], (), *dims[axis:])
    if kind == "ConcatV2":
        axis = int(_static(operation.inputs[-1])) % len(shape)
        dims = list(_broadcast(inputs[:-1], shape))
        return (*dims[:axis], (), *dims[axis + 1 :])
    if kind == "StridedSlice":
        return _strided_slice(operation, first)
    if kind == "Slice":
        begin, size = _static(operation.inputs[1]), _static(operation.inputs[2])
        return tuple(
            _pick(dim, slice(b, None if s == -1 else b + s)) for dim, b, s in zip(first, begin, size, strict=True)
        )
    if kind in ("GatherV2", "ResourceGather"):
        return _gather(operation, first, inputs[1])
    if kind == "GatherNd":
        return (*inputs[1][:-1], *first[operation.inputs[1].shape[-1] :])
    if kind in ("Split", "SplitV"):
        return _split(operation, inputs, index)
    if kind == "Unpack":
        axis = operation.get_attr("axis") % len(first)
        return (*first[:axis], *first[axis + 1 :])
    if kind == "ReverseV2":
        turned = {int(axis) % len(first) for axis in _static(operation.inputs[1])}
        return tuple(_pick(dim, slice(None, None, -1)) if k in turned else dim for k, dim in enumerate(first))
    if kind in ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"):
        flipped = ("transpose_a", "transpose_b") if kind == "MatMul" else ("adj_x", "adj_y")
        rows = first[-1 if operation.get_attr(flipped[0]) else -2]
        columns = inputs[1][-2 if operation.get_attr(flipped[1]) else -1]
        return (*_broadcast([first[:-2], inputs[1][:-2]], shape[:-2]), rows, columns)
    if kind == "Einsum":
        return _einsum(operation, inputs)
    if kind == "MatrixDiagPartV3":
        return first[:-1] if first[-1] == first[-2] else None
    if kind == "OneHot":
        return (*(first or ()), ())
    if kind != "BroadcastTo" and len(shape) != max((t.shape.rank or 0 for t in operation.inputs), default=0):
        return None
    return _broadcast(inputs, shape)


def _broadcast(inputs: list[Dims | None], shape: Sequence[int | None]) -> Dims:
    """Right-aligned, as NumPy broadcasts: each dimension takes the first name that fits its size."""
    result = []
    for back in range(len(shape), 0, -1):
        candidates = (dims[-back] for dims in inputs if dims is not None and len(dims) >= back)
        fitting = (dim for dim in candidates if dim and math.prod(a.size for a in dim) == shape[-back])
        result.append(next(fitting, ()))
    return tuple(result)


def _reduce(operation: tf.Operation, dims: Dims) -> Dims:
    axes = {int(axis) % len(dims) for axis in np.atleast_1d(_static(operation.inputs[1]))} if dims else set()
    keep = operation.type != "ArgMax" and operation.get_attr("keep_dims")
    return tuple(() if k in axes else dim for k, dim in enumerate(dims) if keep or k not in axes)


def _regroup(dims: Dims, before: tf.TensorShape, after: Sequence[int | None]) -> Dims:
    """Split the atoms over the new dimensions: smallest runs on both sides with the same number of elements."""
    atoms: list[Atom] = []
    for dim, size in zip(dims, before.as_list(), strict=True):
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


def _strided_slice(operation: tf.Operation, dims: Dims) -> Dims:
    begin, end, strides = (_static(tensor) for tensor in operation.inputs[1:4])
    masks = {
        name: operation.get_attr(f"{name}_mask") for name in ("begin", "end", "ellipsis", "new_axis", "shrink_axis")
    }
    bit = {name: [bool(mask >> k & 1) for k in range(len(begin))] for name, mask in masks.items()}
    spread = len(dims) - sum(not bit["new_axis"][k] and not bit["ellipsis"][k] for k in range(len(begin)))
    result: list[tuple[Atom, ...]] = []
    position = 0
    for k in range(len(begin)):
        if bit["ellipsis"][k]:
            result.extend(dims[position : position + spread])
            position += spread
        elif bit["new_axis"][k]:
            result.append(())
        else:
            if not bit["shrink_axis"][k]:
                start = None if bit["begin"][k] else int(begin[k])
                stop = None if bit["end"][k] else int(end[k])
                result.append(_pick(dims[position], slice(start, stop, int(strides[k]))))
            position += 1
    return (*result, *dims[position:])


def _gather(operation: tf.Operation, dims: Dims, chosen: Dims) -> Dims:
    """What is fetched stands where its index stands: it has the names of the indices."""
    axis = int(_static(operation.inputs[2])) % len(dims) if len(operation.inputs) > 2 else 0
    indices = tf.get_static_value(operation.inputs[1])
    if indices is not None and indices.ndim == 1:
        chosen = (_pick(dims[axis], [int(i) for i in indices]),)
    return (*dims[:axis], *chosen[operation.get_attr("batch_dims") :], *dims[axis + 1 :])


def _split(operation: tf.Operation, inputs: list[Dims | None], index: int) -> Dims:
    """The positions of the axis that this output of Split or SplitV takes."""
    value, axis = (0, 2) if operation.type == "SplitV" else (1, 0)
    dims = inputs[value]
    axis = int(_static(operation.inputs[axis])) % len(dims)
    ends = np.cumsum([output.shape[axis] for output in operation.outputs])
    piece = slice(int(ends[index - 1]) if index else 0, int(ends[index]))
    return (*dims[:axis], _pick(dims[axis], piece), *dims[axis + 1 :])


def _einsum(operation: tf.Operation, inputs: list[Dims | None]) -> Dims | None:
    operands, result = operation.get_attr("equation").decode().replace(" ", "").split("->")
    if "." in operands:
        return None
    meant: dict[str, tuple[Atom, ...]] = {}
    for letters, dims in zip(operands.split(","), inputs, strict=True):
        for letter, dim in zip(letters, dims or (), strict=dims is not None):
            meant[letter] = meant.get(letter) or dim
    return tuple(meant.get(letter, ()) for letter in result)


def _pick(dim: tuple[Atom, ...], index: slice | list[int]) -> tuple[Atom, ...]:
    if len(dim) != 1:
        return ()
    labels = dim[0].labels
    return (Atom(dim[0].name, labels[index] if isinstance(index, slice) else tuple(labels[i] for i in index)),)


def _static(tensor: tf.Tensor) -> np.ndarray:
    value = tf.get_static_value(tensor)
    if value is None:
        raise ValueError("not known before the graph runs")
    return value
