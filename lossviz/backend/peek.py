"""Look at what a step of Keras is about to receive, and have it receive that all the same."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import keras

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"  # elsewhere batches come from an iterator of Python
if ON_TENSORFLOW:
    import tensorflow as tf


def spec_of(iterator: Any) -> Any:
    """What a `tf.data` iterator yields, as specs; None for any other, which does not know."""
    return iterator.element_spec if ON_TENSORFLOW and isinstance(iterator, tf.data.Iterator) else None


def is_distributed(iterator: Any) -> bool:
    """Does it yield one batch for each replica?"""
    return ON_TENSORFLOW and isinstance(iterator, tf.distribute.DistributedIterator)


def peek(iterator: Any, steps: int) -> tuple[Any, Iterator]:
    """The next batch, and an iterator that yields it and, of a `tf.data` iterator, the others of these `steps`. Nothing
    is drawn that the step would not draw.

    To a `tf.function`, an iterator made here is of the kind that it stands for: nothing is traced anew.

    Raises:
        StopIteration: there is no batch left.
    """
    if not (ON_TENSORFLOW and isinstance(iterator, tf.data.Iterator)):
        batch = next(iterator)
        return batch, itertools.chain([batch], iterator)
    batches: list = []
    while len(batches) < steps and (found := iterator.get_next_as_optional()).has_value():
        batches.append(found.get_value())
    if not batches:
        raise StopIteration
    with tf.device("cpu"):
        again = functools.reduce(_joined, (_dataset(batch, iterator.element_spec) for batch in batches))
        return batches[0], iter(again)


def _dataset(batch: Any, spec: Any) -> tf.data.Dataset:
    """One batch as a dataset that promises no more of its shapes than `spec`."""
    return tf.data.experimental.from_variant(
        tf.data.experimental.to_variant(tf.data.Dataset.from_tensors(batch)), structure=spec
    )


def _joined(first: tf.data.Dataset, second: tf.data.Dataset) -> tf.data.Dataset:
    return first.concatenate(second)


def plain(batch: Any) -> Any:
    """The batch with None where `tf.data` has an optional without a value, as Keras hands it to its steps."""
    if not ON_TENSORFLOW:
        return batch
    return keras.tree.map_structure(lambda leaf: None if isinstance(leaf, tf.experimental.Optional) else leaf, batch)


def kind_of(batch: Any) -> tuple:
    """The dtype and the rank of each part of a batch, or of the specs of one; without sizes."""

    def of(leaf: Any) -> Any:
        shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
        if shape is None or dtype is None:
            return type(leaf).__name__
        rank = getattr(shape, "rank", None) if hasattr(shape, "rank") else len(shape)
        return (rank, getattr(dtype, "name", str(dtype)))

    return tuple(of(leaf) for leaf in keras.tree.flatten(batch))
