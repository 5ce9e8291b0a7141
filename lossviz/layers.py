"""Layers that add a loss: for what a loss of `(y_true, y_pred)` cannot say.

LossEndpoint  A loss of any tensors of the model, with a named part in the progress bar and the history.
CenterLoss    Pulls the features of each class towards a center of their own, which follows them.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from lossviz import _inputs

__all__ = ["CenterLoss", "LossEndpoint"]

_registered = keras.saving.register_keras_serializable(package="lossviz")


@_registered
class LossEndpoint(keras.layers.Layer):
    """Adds `weight * loss(target, prediction, *more)` to the model's loss, and shows it under `name`.

        target = keras.Input((10,))
        output = LossEndpoint("mse", name="regression")(target, prediction)
        model = keras.Model([image, target], output)
        model.compile("adam")                          # no loss: the endpoint brings it
        model.fit([images, targets])                   # no y

    The layer returns the prediction as it is. That must feed an output of the model, or Keras leaves the layer out
    of the model, and its loss with it. For a model that predicts without targets, use the same layers and stop at
    the prediction: `keras.Model(image, prediction)` shares all weights.

    Args:
        loss: the name of a Keras loss, a `keras.losses.Loss`, or a function of `(target, prediction, *more)`. A
            third argument of a `keras.losses.Loss` is its sample weight. What is not a number is averaged, as
            `compile` does; a vector given to `add_loss` would be summed and grow with the batch.
        name: name of the layer, and of the metric in the progress bar and in `History`. Not "loss".
        weight: factor, at least 0.

    The metric is the mean over the epoch of what the layer added, with its `weight`, every batch counted by its
    number of samples, as Keras counts "loss". So the metrics of all endpoints add up to "loss" also after a last
    batch that is shorter, if all terms come from endpoints. On JAX there is no such metric: Keras does not let a layer
    move the state of a metric in a JAX step. The loss is added all the same.

    Call:
        target, prediction, *more: tensors. They are not cast to the compute dtype of a mixed precision policy, so
        large targets stay what they are; half precision is cast to float32 for the loss. For a function, and for the
        name of one, a last axis of size 1 that only target or prediction has is added to the other, as `compile`
        does. Returns `prediction`.

    Raises:
        ValueError: `loss` is not a loss, `name` is not a name, or `weight` is below 0.

    Source: the question of a loss with more than two arguments, which `compile` cannot call. Keras 3 refuses
    `functional_model.add_loss(tensor)`; inside a layer it works, and survives saving.
    """

    def __init__(self, loss: Any, name: str, weight: float = 1.0, **kwargs: Any):
        if not isinstance(name, str) or not name or name == "loss":
            raise ValueError(f'name must be a word for the progress bar other than "loss" (the total), got {name!r}.')
        if loss is None or isinstance(loss, type) or not (callable(loss) or isinstance(loss, (str, dict))):
            raise ValueError(
                "loss must be the name of a Keras loss, a keras.losses.Loss or a function of (target, prediction, "
                f"*more), got {loss!r}."
            )
        super().__init__(name=name, autocast=False, **kwargs)
        self.loss = keras.losses.get(loss)
        self.weight = _inputs.number("weight", weight)
        self.supports_masking = True
        self.part = None if keras.backend.backend() == "jax" else keras.metrics.Mean(name=name)

    def call(self, target: Any, prediction: Any, *more: Any) -> Any:
        y_true, y_pred, *rest = (_inputs.wide(tensor) for tensor in (target, prediction, *more))
        if not isinstance(self.loss, keras.losses.Loss):
            y_true, y_pred = _same_rank(y_true, y_pred)
        values = self.loss(y_true, y_pred, *rest)
        value = self.weight * (ops.mean(values) if len(values.shape) else values)
        self.add_loss(value)
        if self.part is not None:
            self.part.update_state(value, sample_weight=ops.cast(ops.shape(prediction)[0], value.dtype))
        return prediction

    def get_config(self) -> dict[str, Any]:
        loss = keras.saving.serialize_keras_object(self.loss)
        return {**super().get_config(), "loss": loss, "weight": self.weight}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LossEndpoint:
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@_registered
class CenterLoss(keras.layers.Layer):
    """Adds `weight * 1/2 * sum_i |x_i - c_{y_i}|**2 / B`: features near the center of their class.

        features = keras.layers.Dense(2)(hidden)
        features = CenterLoss(num_classes=10)(features, label)
        logits = keras.layers.Dense(10)(features)

    The centers c, one a class, are weights that no gradient reaches and no optimizer trains. A training step
    computes the loss with the centers as they are and then moves those of the n_j samples of every class j in the
    batch:

        c_j <- c_j - alpha * sum_{i: y_i = j} (c_j - x_i) / (1 + n_j)

    A class that is not in the batch stays where it is, and evaluation and prediction move nothing. The cost of a step
    grows with the batch and not with the number of classes: rows are gathered and added in place (on TensorFlow,
    and on JAX inside `fit`; PyTorch copies the centers).

    Args:
        num_classes: number of centers, at least 1.
        alpha: how far centers move, from 0 to 1. 0.5 is the paper's.
        weight: factor lambda of the term, at least 0. 0.003 is the paper's. It does not scale the centers' step.
        divisor: "batch" divides by the batch size B, as the authors' code does: the term keeps its size beside a
            mean crossentropy, whatever the batch size. None divides by nothing, as in equation 2 of the paper: the
            same weight then means more in a larger batch.

    Weights:
        centers: `(num_classes, features)`, not trainable, zeros at first, saved with the model.

    Call:
        features: `(batch, features)`, floating.
        labels: whole numbers `(batch,)` or `(batch, 1)`, or one-hot `(batch, num_classes)`; of any dtype, and not
            cast by a mixed precision policy. With `num_classes=1`, `(batch, 1)` holds labels.
        training: whether the centers move; given by Keras in `fit`.
        Returns `features` as they are. The term is computed in float32 or better.

    Raises:
        ValueError: an argument or a shape is wrong; on concrete values also labels that are no class. In a compiled
            step, where nothing can be raised, such a label makes the loss NaN, and moves no center.

    Source: Wen et al., "A discriminative feature learning approach for deep face recognition" (2016), equations 2 to
    4, and the authors' Caffe layer `center_loss_layer.cpp`. Public ports leave out the 1 +, let duplicate labels
    overshoot, or move the centers in evaluation.
    """

    def __init__(
        self, num_classes: int, alpha: float = 0.5, weight: float = 0.003, divisor: str | None = "batch", **kwargs: Any
    ):
        super().__init__(autocast=False, **kwargs)
        self.num_classes = _inputs.whole("num_classes", num_classes, 1)
        self.alpha = _inputs.number("alpha", alpha, high=1.0)
        self.weight = _inputs.number("weight", weight)
        self.divisor = _inputs.one_of("divisor", divisor, ("batch", None))
        self.supports_masking = True

    def build(self, features_shape: tuple, labels_shape: tuple) -> None:
        if len(features_shape) != 2 or features_shape[-1] is None:
            raise ValueError(
                f"features must have shape (batch, features), got {tuple(features_shape)}. Flatten them first."
            )
        self.centers = self.add_weight(
            shape=(self.num_classes, features_shape[-1]),
            initializer="zeros",
            trainable=False,
            autocast=False,
            name="centers",
        )

    def call(self, features: Any, labels: Any, training: bool | None = None) -> Any:
        index, valid = self._classes(labels)
        x = _inputs.wide(features)
        rows = ops.cast(_rows(self.centers, index), x.dtype)
        away = ops.where(valid[:, None], x - ops.stop_gradient(rows), float("nan"))
        value = 0.5 * self.weight * ops.sum(ops.square(away))
        if self.divisor == "batch":
            value = value / ops.cast(ops.shape(x)[0], value.dtype)
        self.add_loss(value)
        if training:
            # every sample adds its own share of its center's step, so that duplicates need no grouping
            step = self.alpha * away / (1.0 + ops.cast(self._counts(index, valid), x.dtype))[:, None]
            step = ops.where(valid[:, None], step, 0.0)
            _add_to_rows(self.centers, index, ops.stop_gradient(ops.cast(step, self.centers.dtype)))
        return features

    def _classes(self, labels: Any) -> tuple[Any, Any]:
        """The class of each sample, and whether it is one; 0 where it is not."""
        shape = tuple(labels.shape)
        if len(shape) == 2 and shape[1] == 1:
            labels = labels[:, 0]
        if len(labels.shape) == 1:
            index = ops.cast(labels, "int32")
            valid = ops.equal(ops.cast(index, labels.dtype), labels) & (index >= 0) & (index < self.num_classes)
        elif len(shape) == 2 and shape[1] == self.num_classes:
            index = ops.argmax(labels, axis=-1)
            ones, zeros = (ops.sum(ops.cast(ops.equal(labels, value), "int32"), axis=-1) for value in (1, 0))
            valid = (ones == 1) & (zeros == self.num_classes - 1)
        else:
            raise ValueError(
                f"labels must have shape (batch,), (batch, 1) or, one-hot, (batch, {self.num_classes}), got {shape}."
            )
        known = _inputs.concrete(valid)
        if known is not None and not known.all():
            sample = int(known.argmin())
            raise ValueError(
                f"labels must be classes from 0 to num_classes - 1 = {self.num_classes - 1}, or one-hot rows; "
                f"{int((~known).sum())} of {known.size} are not, first sample {sample}: "
                f"{_inputs.concrete(labels)[sample]}."
            )
        return ops.where(valid, ops.cast(index, "int32"), 0), valid

    def _counts(self, index: Any, valid: Any) -> Any:
        """How many samples of the batch have the class of each sample; those without a class count for none."""
        index = ops.where(valid, index, self.num_classes)
        ordered = ops.sort(index)
        after, before = (ops.searchsorted(ordered, index, side=side) for side in ("right", "left"))
        return after - before

    def get_config(self) -> dict[str, Any]:
        own = {option: getattr(self, option) for option in ("num_classes", "alpha", "weight", "divisor")}
        return {**super().get_config(), **own}


def _same_rank(y_true: Any, y_pred: Any) -> tuple[Any, Any]:
    """Add the last axis of size 1 that one of the two lacks: else (batch,) against (batch, 1) is (batch, batch)."""
    true, pred = len(y_true.shape), len(y_pred.shape)
    if true == pred - 1 and y_pred.shape[-1] == 1:
        y_true = ops.expand_dims(y_true, -1)
    elif pred == true - 1 and y_true.shape[-1] == 1:
        y_pred = ops.expand_dims(y_pred, -1)
    return y_true, y_pred


# The two operations on a table of rows for which `keras.ops` would read, or write, all of it.


def _rows(table: keras.Variable, index: Any) -> Any:
    """The rows of a variable at these indices."""
    value = table.value
    if hasattr(value, "sparse_read"):  # a TensorFlow variable; ops.take reads it whole, and copies it before a scatter
        return value.sparse_read(index)
    return ops.take(value, index, axis=0)


def _add_to_rows(table: keras.Variable, index: Any, rows: Any) -> None:
    """Add rows to those of a variable; rows with the same index add up."""
    value = table.value
    if hasattr(value, "scatter_nd_add"):  # a TensorFlow variable: in place
        value.scatter_nd_add(index[:, None], rows)
    elif hasattr(value, "at"):  # a JAX array: in place where the step donates its state, as that of `fit` does
        table.assign(value.at[index].add(rows))
    else:
        table.assign(value + ops.scatter(index[:, None], rows, value.shape))
