"""What the rules look at: the outputs of a loss with their tensors, what was added, and the program between them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import keras
import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.backend.program import Loss, Op, Value, ancestors
from lossviz.backend.recorded import Added, Crossentropy, Recorded
from lossviz.backend.tracing import Traced
from lossviz.engine import ops
from lossviz.engine.decompose import Decomposition
from lossviz.report.records import Term
from lossviz.report.report import Report
from lossviz.rules.bounds import ANYTHING, Bounds, Range

#: Losses are called once a sample only where there are at most this many samples.
_SAMPLES = 256

#: A value of the program, where there is one, or a tensor of the backend with its numbers.
Tensor = Any


@dataclass(eq=False)
class Output:
    """One output and the loss on it. `Case.value` makes arrays of its tensors.

    `values` is what the loss function returned, before weights, mask and mean; None where it cannot be known.
    """

    name: str
    loss: keras.losses.Loss | None
    y_true: Tensor
    y_pred: Tensor
    weight: Tensor | None
    mask: Tensor | None
    values: Tensor | None
    tensor: Tensor | None  # what Keras made of the values
    reaches: bool = True  # False: computed, and then not part of the total
    term: Term | None = None

    @property
    def reduction(self) -> str | None:
        return getattr(self.loss, "reduction", "sum_over_batch_size")

    @property
    def is_custom(self) -> bool:
        """Was the loss written by the user (a function or a class that is neither of Keras nor of lossviz)?"""
        function = getattr(self.loss, "fn", None)
        module = getattr(function or type(self.loss), "__module__", None) or ""
        return module.split(".")[0] not in ("keras", "lossviz")


@dataclass(eq=False)
class Case:
    """One loss on one batch, with everything that a rule may ask for.

    `model` is None for `explain_loss`; `report` and `loss` are None where the loss could not be traced, and `error`
    is then what was raised.
    """

    outputs: list[Output]
    crossentropies: list[Crossentropy]
    added: list[Added] = field(default_factory=list)
    model: keras.Model | None = None
    x: Any = None
    y: Any = None
    given: Any = None  # y as it was before Keras's dtype
    class_weight: Mapping[int, float] | None = None
    weight_word: str = "sample_weight"
    has_sample_weight: bool = False
    report: Report | None = None
    loss: Loss | None = None
    leaves: Sequence[np.ndarray] = ()  # the batch, as the loss's program is fed
    untouched: Callable[[], AbstractContextManager] = contextlib.nullcontext  # what Keras computes inside moves nothing
    known: dict[Value, np.ndarray] = field(default_factory=dict)
    batch_size: int | None = None  # how many samples there are
    batches_of: int | None = None  # how many of them fit would take at a time; None: all
    error: Exception | None = None
    _bounds: Bounds | None = None  # for this very batch

    def output(self, name: str) -> Output | None:
        return next((out for out in self.outputs if out.name == name), None)

    @property
    def replicas(self) -> int:
        """On how many devices each batch is computed, a part of it on each."""
        return 1 if self.model is None else _keras.replicas(self.model)

    # -- values -------------------------------------------------------------------------------------------

    def value(self, tensor: Tensor) -> np.ndarray:
        """The tensor as an array; the program is run again where it is not known yet."""
        return self.all_values([tensor])[0]

    def all_values(self, tensors: Sequence[Tensor]) -> list[np.ndarray]:
        if self.loss is None:
            return [keras.ops.convert_to_numpy(tensor) for tensor in tensors]
        program = self.loss.program
        fed = dict(zip(program.feeds, self.leaves))
        self.known.update((tensor, fed[tensor]) for tensor in tensors if tensor in fed)
        missing = [tensor for tensor in tensors if tensor not in self.known]
        if missing:
            self.known.update(zip(missing, program.runner(missing, program.feeds)(self.leaves)))
        return [self.known[tensor] for tensor in tensors]

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        if isinstance(tensor, Value) and not tensor.is_static:
            return self.value(tensor).shape
        return tuple(tensor.shape)

    def number(self, output: Output) -> float:
        """What Keras made of the output's loss: its mean, where that is an array."""
        return float(np.mean(self.value(output.tensor).astype(np.float64)))

    def call(self, output: Output, y_true=None, y_pred=None, weight=None, mask=None) -> float:
        """The output's loss on other arrays; `number`'s arrays where none are given. Weight and mask: none."""
        y_true = self.value(output.y_true) if y_true is None else y_true
        y_pred = self.value(output.y_pred) if y_pred is None else y_pred
        with self.untouched():
            prediction = keras.ops.convert_to_tensor(y_pred)
            if mask is not None:
                _keras.set_mask(prediction, keras.ops.convert_to_tensor(np.asarray(mask, bool)))
            found = output.loss(keras.ops.convert_to_tensor(y_true), prediction, sample_weight=weight)
        return float(np.mean(np.asarray(found, np.float64)))

    def call_again(self, output: Output) -> float:
        """The output's loss, called once more with the very arrays that Keras gave it."""
        return self.call(output, None, None, *self.weight_and_mask(output))

    def weight_and_mask(self, output: Output) -> tuple[np.ndarray | None, np.ndarray | None]:
        tensors = [t for t in (output.weight, output.mask) if t is not None]
        arrays = iter(self.all_values(tensors))
        return (next(arrays) if output.weight is not None else None), (
            next(arrays) if output.mask is not None else None
        )

    # -- program ------------------------------------------------------------------------------------------

    def operations(self, output: Output | None = None) -> list[Op]:
        """The operations that lead to one output's loss, or to the total; inputs before consumers. Empty without
        a program."""
        if self.loss is None:
            return []
        root = self.loss.root if output is None else output.tensor
        return self.once(("operations", root), lambda: ancestors([root]))

    def once(self, what: Hashable, read: Callable[[], Any]) -> Any:
        """`read()`, which looks at the program alone: once for all batches that are run in it."""
        if self.loss is None:
            return read()
        if what not in self.loss.notes:
            self.loss.notes[what] = read()
        return self.loss.notes[what]

    def reaching(self, values: Iterable[Value], operations: Iterable[Op]) -> set[Value]:
        """All values in `operations` that are computed from one of `values`."""
        found = set(values)
        for op in operations:
            if not found.isdisjoint(op.inputs):
                found.update(op.outputs)
        return found

    def range_of(self, tensor: Tensor, data: bool = False) -> Range:
        """What the model can make of `tensor`, for any weights that training moves; with `data` for this very batch,
        otherwise for any."""
        if self.loss is None:
            return ANYTHING
        if not data:
            return self.once("bounds", partial(Bounds, self.loss.trainable)).of(tensor)
        if self._bounds is None:
            self._bounds = Bounds(self.loss.trainable, dict(zip(self.loss.program.feeds, self.leaves)))
        return self._bounds.of(tensor)

    def fed(self, fetch: Value, value: Value, array: np.ndarray) -> np.ndarray:
        """`fetch`, computed with `array` in place of `value`."""
        program = self.loss.program
        return program.runner([fetch], [*program.feeds, value])([*self.leaves, array])[0]


def of_trace(
    traced: Traced, decomposition: Decomposition, report: Report, model: keras.Model | None = None, **about
) -> Case:
    """The evidence of a loss that was traced and run. `about` are further fields of `Case`."""
    loss = decomposition.loss
    terms = {term.name: term for term in report.terms if term.kind == "output"}
    # decompose makes one branch of each recorded output, in this order
    branches = [branch for branch in decomposition.branches if branch.kind == "output" and not branch.own]
    outputs = []
    for entry, branch in zip(loss.outputs, branches, strict=True):
        output = _output(entry)
        output.name, output.reaches, output.term = branch.name, branch.reaches, terms.get(branch.name)
        outputs.append(output)
    return Case(
        outputs,
        loss.crossentropies,
        loss.added,
        model=model,
        weight_word="class_weight" if "class_weight" in loss.inputs else "sample_weight",
        report=report,
        loss=loss,
        leaves=decomposition.leaves,
        untouched=partial(_keras.untouched, model, traced),
        known=dict(decomposition.values),
        batch_size=loss.batch_size,
        **about,
    )


def of_call(model: keras.Model, batch: tuple, training: bool, **about) -> Case:
    """The evidence of a loss that cannot be traced, as far as it comes when Keras computes it at once."""
    recorder = _keras.Recorder(elements=True)
    x, y, sample_weight = (keras.tree.map_structure(_tensor, value) for value in batch)
    untouched = partial(_keras.untouched, model, None)
    with (
        untouched(),
        _keras.recording_outputs(model, recorder),
        _keras.recording_crossentropies(recorder),
        contextlib.suppress(Exception),  # what Keras refuses is in `error` already
    ):
        y_pred = model(x, training=training)
        model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight)
    outputs = [_output(entry) for entry in recorder.outputs]
    sizes = {len(leaf) for leaf in keras.tree.flatten(x)}
    about |= {"model": model, "x": x, "untouched": untouched, "batch_size": max(sizes)}
    return Case(outputs, recorder.crossentropies, **about)


def _tensor(leaf: Any) -> Tensor | None:
    return None if leaf is None else keras.ops.convert_to_tensor(leaf)


def _output(entry: Recorded) -> Output:
    return Output(
        name=str(entry.name),
        loss=entry.loss,
        y_true=entry.y_true,
        y_pred=entry.y_pred,
        weight=_one(entry.sample_weight),
        mask=entry.mask,
        values=_one(entry.elements),
        tensor=entry.value,
    )


def _one(tensor: Any) -> Tensor | None:
    """The tensor, if it is one and not a structure of several."""
    return tensor if isinstance(tensor, Value) or keras.ops.is_tensor(tensor) else None


def squashes(tensor: Tensor) -> list[tuple[str, Value]]:
    """The softmax and sigmoid operations that made `tensor`, last one first, with nothing but casts and reshapes
    between them and after them; each with its result."""
    found: list[tuple[str, Value]] = []
    while isinstance(tensor, Value):
        op = tensor.op
        if ops.is_softmax(op) or (op.kind == "squash" and op.info["how"] == "sigmoid"):
            found.append((op.info["how"], tensor))
        elif op.kind not in ("identity", "cast", "reshape", "stop", "select"):
            break
        tensor = op.inputs[1 if op.kind == "select" else 0]  # what `where` takes if true
    return found


def size(tensor: Tensor) -> int | None:
    """How many numbers it holds; None where that is not known before the program runs."""
    shape = None if tensor.shape is None else tuple(tensor.shape)
    return None if shape is None or None in shape else math.prod(shape)


def same_rank(values: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as Keras 3 brings them together: a last axis of size 1 goes or comes where the ranks differ by one."""
    if values.ndim == weight.ndim + 1 and values.shape[-1] == 1:
        return (values, weight[:, None]) if weight.ndim == 1 else (values[..., 0], weight)
    if weight.ndim == values.ndim + 1 and weight.shape[-1] == 1:
        return (values[:, None], weight) if values.ndim == 1 else (values, weight[..., 0])
    return values, weight


def finite(*numbers: float) -> bool:
    return all(math.isfinite(number) for number in numbers)


def single(case: Case, out: Output) -> np.ndarray | None:
    """The loss of each sample alone, without weights; None where it takes no single sample."""
    y_true, y_pred = case.all_values([out.y_true, out.y_pred])
    if not 1 < len(y_pred) <= _SAMPLES or len(y_true) != len(y_pred):
        return None
    try:
        return np.array([case.call(out, y_true[i : i + 1], y_pred[i : i + 1]) for i in range(len(y_pred))])
    except Exception:  # whatever the loss raises
        return None


def is_ratio(out: Output) -> bool:
    return out.term is not None and out.term.exactness == "ratio"


def loss_name(out: Output) -> str:
    return getattr(getattr(out.loss, "fn", None), "__name__", None) or type(out.loss).__name__


def owner(case: Case, entry: Crossentropy) -> str:
    if entry.owner < len(case.outputs):
        return case.outputs[entry.owner].name
    names = [loss.name for loss in _keras.flat_losses(case.model)] if case.model is not None else []
    return str(names[entry.owner]) if entry.owner < len(names) and names[entry.owner] else "compute_loss"


def narrow(tensor: Tensor) -> bool:
    """Is it in bfloat16, or was it computed in half precision and cast since?"""
    before = list(ops.line(tensor))[1:] if isinstance(tensor, Value) else []
    own = keras.backend.standardize_dtype(tensor.dtype)
    return own == "bfloat16" or any(one.dtype in ("float16", "bfloat16") for one in before)
