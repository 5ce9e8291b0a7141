"""Losses that people ask for, as `keras.losses.Loss`: in `keras.ops`, so for every backend, and serialisable.

LandmarkLoss              Visible or not, and the coordinates of what is visible.
SegmentationCrossentropy  Categorical crossentropy per pixel: plain, weighted by class, or focal.
SegmentationTversky       Dice, Jaccard, Tversky and focal Tversky, per sample and class.
BinaryCrossentropyDice    Binary crossentropy plus Dice, for independent channels.

What they have in common:

- `call` returns values that are not reduced yet, one a pixel or one a sample, so that sample weights, masks and
  `reduction` mean what they mean for every Keras loss. Each class says what its divisor is.
- Weights multiply; they never enter a divisor, and weights of 1 are the same as none.
- With probabilities (`from_logits=False`) a logarithm sees at least `keras.config.epsilon()`, 1e-7, as everywhere in
  Keras: a term is at most 16.1, and below that floor its gradient is 0. `from_logits=True` has no floor. Keras on
  TensorFlow looks for the logits behind a sigmoid or softmax output by itself; these losses do not, so that every
  backend gives the same number.
- Half precision is computed in float32. The dtype is that of Keras losses: `keras.config.floatx()`, whatever the
  policy of the model, unless `dtype` says otherwise.
- Values are checked where there are values (an eager call); in a compiled step only shapes can be.
"""

from __future__ import annotations

import functools
from typing import Any

import keras
from keras import ops

from lossviz import _inputs

__all__ = ["BinaryCrossentropyDice", "LandmarkLoss", "SegmentationCrossentropy", "SegmentationTversky"]

_registered = keras.saving.register_keras_serializable(package="lossviz")


class _ConfiguredLoss(keras.losses.Loss):
    """A loss whose configuration is its attributes named in `options`."""

    options: tuple[str, ...] = ()

    def get_config(self) -> dict[str, Any]:
        own = {option: getattr(self, option) for option in self.options}
        return {**own, **super().get_config(), "dtype": self.dtype}


@_registered
class LandmarkLoss(_ConfiguredLoss):
    """Binary crossentropy on "visible", plus an error on the coordinates of the points that are visible.

    Targets and predictions have shape `(batch, 3 * num_landmarks)`: x, y, visible, x, y, visible, ... A point is
    visible where its target flag is above 0.5. With `e` the error of one coordinate, `n_b` the visible coordinates
    of sample `b` (two a visible point) and `V = sum_b n_b`, the value of a sample is

        visibility_weight * mean_k BCE_bk + coordinate_weight * divisor_b * sum e    over its visible coordinates

        divisor="batch"    divisor_b = batch / V    the mean over the batch is the sum of errors / V
        divisor="sample"   divisor_b = 1 / n_b      every sample counts the same, however few points it shows

    The coordinates of invisible points are replaced before the error is computed, so a NaN, 0 or -1 there changes
    neither the value nor a gradient. If nothing is visible, the value is exactly the visibility term.

    Args:
        num_landmarks: number of points, at least 1.
        coordinate: the error `e` of target t and prediction p.
            "mape"   100 * abs(t - p) / max(abs(t), epsilon)
            "mae"    abs(t - p)
            "mse"    (t - p)**2
            "huber"  (t - p)**2 / 2 up to a distance of 1, abs(t - p) - 1/2 beyond
        coordinate_weight, visibility_weight: factors of the two terms, at least 0.
        epsilon: smallest divisor of "mape", in the unit of the coordinates, above 0. The default is one pixel: at
            a true 0 the error is then 100 per pixel. With Keras's 1e-7 it is 1e9. For coordinates in [0, 1] pass
            the size of a pixel in them, such as 1/256.
        divisor: "batch" or "sample", as above. V counts the batch that the loss sees, and not sample weights.
        from_logits: whether the predicted "visible" is a logit instead of a probability. Coordinates are used as
            they are in both cases.
        reduction, name, dtype: as for every Keras loss.

    Call:
        y_true, y_pred: `(batch, 3 * num_landmarks)`. Values before reduction: `(batch,)`, at least 0. The mean over
        the batch (Keras's default) is the loss in the formula above.

    Raises:
        ValueError: an argument or a shape is wrong; on concrete values also flags outside [0, 1].

    Source: the question of a conditional regression loss on top of a binary crossentropy, whose accepted answer
    never applies the condition. A mean over all points, as in mmpose's `regression_loss.py`, is diluted by the
    invisible ones.
    """

    options = (
        *("num_landmarks", "coordinate", "coordinate_weight", "visibility_weight"),
        *("epsilon", "divisor", "from_logits"),
    )

    def __init__(
        self,
        num_landmarks: int = 3,
        coordinate: str = "mape",
        coordinate_weight: float = 1.0,
        visibility_weight: float = 1.0,
        epsilon: float = 1.0,
        divisor: str = "batch",
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "landmark_loss",
        dtype: Any = None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.num_landmarks = _inputs.whole("num_landmarks", num_landmarks, 1)
        self.coordinate = _inputs.one_of("coordinate", coordinate, ("mape", "mae", "mse", "huber"))
        self.coordinate_weight = _inputs.number("coordinate_weight", coordinate_weight)
        self.visibility_weight = _inputs.number("visibility_weight", visibility_weight)
        self.epsilon = _inputs.number("epsilon", epsilon, above=True)
        self.divisor = _inputs.one_of("divisor", divisor, ("batch", "sample"))
        self.from_logits = _inputs.one_of("from_logits", from_logits, (True, False))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        channels = _inputs.same_shape(y_true, y_pred, "(batch, 3 * num_landmarks)", 2)
        if channels != 3 * self.num_landmarks or len(y_pred.shape) != 2:
            raise ValueError(
                f"y_true and y_pred have shape {tuple(y_pred.shape)}; num_landmarks={self.num_landmarks} needs (batch, "
                f"{3 * self.num_landmarks}): x, y, visible for every landmark."
            )
        target, prediction = (ops.reshape(_inputs.wide(y), (-1, self.num_landmarks, 3)) for y in (y_true, y_pred))
        flag = target[..., 2]
        _inputs.unit_interval("the visible flags of y_true", flag, "the order is x, y, visible.")
        visibility = _binary_crossentropy(flag, *_log_likelihoods(prediction[..., 2], self.from_logits))

        visible = target[..., 2:] > 0.5
        error = self._error(*(ops.where(visible, y[..., :2], 0.0) for y in (target, prediction)))
        numbers = 2.0 * ops.sum(ops.cast(visible, error.dtype), axis=(1, 2))
        if self.divisor == "batch":
            scale = _quotient(ops.cast(ops.shape(error)[0], error.dtype), ops.sum(numbers))
        else:
            scale = _quotient(1.0, numbers)
        coordinates = scale * ops.sum(error, axis=(1, 2))
        return self.visibility_weight * ops.mean(visibility, axis=-1) + self.coordinate_weight * coordinates

    def _error(self, target: Any, prediction: Any) -> Any:
        difference = target - prediction
        distance = difference * ops.sign(difference)  # that of ops.abs has a slope of 1 at 0 on JAX
        if self.coordinate == "mape":
            return 100.0 * distance / ops.maximum(ops.abs(target), self.epsilon)
        if self.coordinate == "mse":
            return ops.square(distance)
        if self.coordinate == "huber":
            return ops.where(distance <= 1.0, 0.5 * ops.square(distance), distance - 0.5)
        return distance


class _SegmentationLoss(_ConfiguredLoss):
    """Targets and predictions of shape (batch, ..., classes), a weight for every class, classes not to be missed."""

    def __init__(self, class_weights, ignore_false_negatives, from_logits, reduction, name, dtype):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.class_weights = _inputs.class_weights(class_weights)
        self.ignore_false_negatives = _inputs.class_indices("ignore_false_negatives", ignore_false_negatives)
        self.from_logits = _inputs.one_of("from_logits", from_logits, (True, False))

    def _read(self, y_true: Any, y_pred: Any, rank: int, fewest: int = 1) -> tuple[Any, Any, Any]:
        """Checked targets and predictions, and where predictions are not to be looked at: (batch, ..., 1) or None.

        Predictions there are replaced by 1, so that no NaN comes from them, whatever is computed afterwards.
        """
        layout = "(batch, ..., classes)" if rank > 2 else "(..., classes)"
        classes = _inputs.same_shape(y_true, y_pred, layout, rank)
        shape = tuple(y_pred.shape)
        if classes < fewest:
            raise ValueError(
                f"y_pred has shape {shape}: with one channel every probability is 1 and the loss 0. Use two "
                "channels, or BinaryCrossentropyDice."
            )
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ValueError(
                f"class_weights has {len(self.class_weights)} numbers, the last axis of y_pred, shape {shape}, has "
                f"{classes} classes. Give one number a class."
            )
        highest = max(self.ignore_false_negatives, default=0)  # no :=, which AutoGraph cannot read
        if highest >= classes:
            raise ValueError(
                f"ignore_false_negatives={self.ignore_false_negatives} names class {highest}; the last axis of y_pred, "
                f"shape {shape}, has the classes 0 to {classes - 1}."
            )
        y_true, y_pred = _inputs.wide(y_true), _inputs.wide(y_pred)
        _inputs.unit_interval("y_true", y_true, "targets are one-hot or 0 and 1, one channel a class.")
        ignored = None
        if self.ignore_false_negatives:
            chosen = [y_true[..., c : c + 1] > 0.5 for c in self.ignore_false_negatives]
            ignored = functools.reduce(ops.logical_or, chosen)
            y_pred = ops.where(ignored, 1.0, y_pred)
        if not self.from_logits:
            why = "from_logits=False announces probabilities. For raw scores pass from_logits=True."
            _inputs.unit_interval("y_pred", y_pred, why)
        return y_true, y_pred, ignored

    def _weighted(self, values: Any) -> Any:
        """Values (..., classes), each times the weight of its class."""
        if self.class_weights is None:
            return values
        return values * ops.convert_to_tensor(self.class_weights, dtype=values.dtype)


@_registered
class SegmentationCrossentropy(_SegmentationLoss):
    """Categorical crossentropy per pixel: plain, weighted by class, focal, or deaf to the misses of some classes.

    With one-hot targets y and probabilities p, the value of a pixel is the sum over classes

        sum_c  class_weights_c * y_c * (1 - p_c)**gamma * -log(p_c)

    and exactly 0, with a gradient of exactly 0, at a pixel whose true class is in `ignore_false_negatives`: there the
    prediction is replaced by the truth. False positives of such a class, at pixels of other classes, cost what they
    cost without it.

    Args:
        class_weights: one number a class, at least 0, in the order of the channels. None: all 1. They multiply the
            value of a pixel and do not enter a divisor.
        gamma: focusing exponent, at least 0. 0 is crossentropy; 2 is the focal loss as published (its alpha is
            `class_weights`). Gradients are finite for every gamma, also between 0 and 1: below 1 - p_c = 1e-7 the
            factor goes to 0 linearly.
        ignore_false_negatives: class indices; () is the plain loss, bit for bit. The true class of a pixel is c
            where its target for c is above 0.5.
        divisor: what the mean of Keras's default reduction divides by.
            "all"       the number of pixels N. Pixels that are not ignored keep their value and gradient.
            "counted"   the number of pixels that are not ignored, K: the values carry the factor N / K. It is that
                        of the batch, and knows neither sample weights nor a mask. 0 if all are ignored.
        from_logits: whether `y_pred` holds logits, of which the softmax over the last axis is taken. Probabilities
            are divided by their sum over the classes, as in Keras.
        reduction, name, dtype: as for every Keras loss.

    Call:
        y_true, y_pred: `(..., classes)`, such as `(batch, rows, columns, classes)`, with 2 classes or more. Values
        before reduction: `(...)`, one a pixel, at least 0.

    Raises:
        ValueError: an argument or a shape is wrong; on concrete values also targets, or announced probabilities,
            outside [0, 1].

    Source: Lin et al., "Focal loss for dense object detection" (2017); the question how to ignore the false
    negatives of one class, asked for crossentropy, focal, Tversky and Jaccard. A weight of 0 for the class gives the
    same value with divisor="all"; for the ratios it does not.
    """

    options = ("class_weights", "gamma", "ignore_false_negatives", "divisor", "from_logits")

    def __init__(
        self,
        class_weights: Any = None,
        gamma: float = 0.0,
        ignore_false_negatives: tuple[int, ...] = (),
        divisor: str = "all",
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "segmentation_crossentropy",
        dtype: Any = None,
    ):
        super().__init__(class_weights, ignore_false_negatives, from_logits, reduction, name, dtype)
        self.gamma = _inputs.number("gamma", gamma)
        self.divisor = _inputs.one_of("divisor", divisor, ("all", "counted"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred, ignored = self._read(y_true, y_pred, rank=2, fewest=2)
        if self.from_logits:
            log_p = ops.log_softmax(y_pred, axis=-1)
        else:
            total = ops.sum(y_pred, axis=-1, keepdims=True)
            log_p = _log(y_pred / ops.maximum(total, keras.config.epsilon()))
        values = y_true * -log_p
        if self.gamma:
            values = values * _power(-ops.expm1(log_p), self.gamma)
        values = ops.sum(self._weighted(values), axis=-1)
        if ignored is None:
            return values
        values = ops.where(ignored[..., 0], 0.0, values)
        if self.divisor == "counted":
            counted = ops.sum(ops.cast(ops.logical_not(ignored), "int32"))
            values = values * _quotient(ops.cast(ops.size(values), values.dtype), ops.cast(counted, values.dtype))
        return values


@_registered
class SegmentationTversky(_SegmentationLoss):
    """Dice, Jaccard, Tversky and focal Tversky: overlap of prediction and truth, per sample and class.

    With sums over the pixels of one sample, for one class,

        TP = sum y * p,   FP = sum (1 - y) * p,   FN = sum y * (1 - p)
        index = (TP + smooth) / (TP + fp * FP + fn * FN + smooth)

    the value of a sample is the mean over its classes, of which there are C,

        1/C * sum_c  class_weights_c * (1 - index_c)**gamma

        Dice           fp=0.5, fn=0.5     the default
        Jaccard, IoU   fp=1, fn=1
        Tversky        any; fn above fp punishes misses more than false alarms
        focal Tversky  gamma other than 1

    A ratio of sums has no share per pixel. A class that is neither there nor predicted has index 1 and costs
    nothing; one that is not there still pays for its false positives.

    Args:
        fp, fn: factors of false positives and false negatives, at least 0 and not both 0. They are named because
            papers call them alpha and beta in both orders.
        gamma: exponent of each class before the mean over classes, above 0. The published focal Tversky is
            `(1 - index)**(1 / gamma)` with gamma = 4/3: pass 0.75. For gamma below 1 the gradient of a power is
            infinite at a perfect score; below 1 - index = 1e-7 the power goes to 0 linearly instead, so the
            gradient stays finite and the perfect value 0.
        smooth: added to numerator and denominator, in pixels, above 0. It decides the value of an empty class: one
            with `smooth` falsely predicted pixels has index 1/2 (for fp=1). The default, a thousandth of a pixel,
            changes the index of a mask of one pixel by less than 0.001 and keeps every gradient below 1000 * fp.
        class_weights: one number a class, at least 0, in the order of the channels. None: all 1. The mean divides
            by the number of classes, not by the sum of the weights.
        ignore_false_negatives: class indices; () is the plain loss, bit for bit. At a pixel whose true class is one
            of these (its target above 0.5) the prediction is replaced by the truth in all channels: TP, FP and FN
            see a correct pixel there, and its gradient is exactly 0. That is not fn=0 for the class, which would
            leave the pixel's other channels in the sums.
        from_logits: whether `y_pred` holds logits, of which the softmax over the last axis is taken (the sigmoid if
            there is one class only). For several sigmoid channels pass probabilities.
        reduction, name, dtype: as for every Keras loss.

    Call:
        y_true, y_pred: `(batch, ..., classes)` with at least one axis of pixels. Values before reduction:
        `(batch,)`, in [0, 1] for weights of 1. Keras's default reduction divides by the batch size.

    Raises:
        ValueError: an argument or a shape is wrong; on concrete values also targets, or announced probabilities,
            outside [0, 1].

    Source: Salehi et al., "Tversky loss function for image segmentation" (2017); Abraham and Khan, "A novel focal
    Tversky loss function" (2018). Sums per sample and class as in MONAI's `TverskyLoss`. `keras.losses.Tversky` sums
    over the whole batch and returns a scalar, which
    sample weights cannot weight; and in Keras 3.15 its `alpha` is the factor of the false negatives, `beta` that of the
    false positives, the other way round than its documentation says.
    """

    options = ("fp", "fn", "gamma", "smooth", "class_weights", "ignore_false_negatives", "from_logits")

    def __init__(
        self,
        fp: float = 0.5,
        fn: float = 0.5,
        gamma: float = 1.0,
        smooth: float = 1e-3,
        class_weights: Any = None,
        ignore_false_negatives: tuple[int, ...] = (),
        from_logits: bool = False,
        reduction: str | None = "sum_over_batch_size",
        name: str = "segmentation_tversky",
        dtype: Any = None,
    ):
        super().__init__(class_weights, ignore_false_negatives, from_logits, reduction, name, dtype)
        self.fp = _inputs.number("fp", fp)
        self.fn = _inputs.number("fn", fn)
        if not self.fp and not self.fn:
            raise ValueError("fp and fn are both 0: the index is then 1 and the loss 0, whatever is predicted.")
        self.gamma = _inputs.number("gamma", gamma, above=True)
        self.smooth = _inputs.number("smooth", smooth, above=True)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, p, ignored = self._read(y_true, y_pred, rank=3)
        if self.from_logits:
            p = ops.softmax(p, axis=-1) if p.shape[-1] > 1 else ops.sigmoid(p)
        if ignored is not None:
            p = ops.where(ignored, y_true, p)
        values = _tversky(y_true, p, self.fp, self.fn, self.smooth)
        if self.gamma != 1.0:
            values = _power(values, self.gamma)
        return ops.mean(self._weighted(values), axis=-1)


@_registered
class BinaryCrossentropyDice(_SegmentationLoss):
    """Binary crossentropy of every pixel and channel, plus Dice per sample and class: for independent masks.

    The value of a sample with C classes, with TP, FP and FN as in `SegmentationTversky`, is

        mean over pixels and classes of  class_weights_c * BCE
            + dice_weight * 1/C * sum_c  class_weights_c * (1 - dice_c)

        dice_c = (TP + smooth) / (TP + FP/2 + FN/2 + smooth)

    so that it is at least 0, and 0 for a perfect prediction. The second term is `SegmentationTversky()`.

    Args:
        class_weights: one number a class, at least 0, in the order of the channels. None: all 1. They multiply both
            terms class by class and do not enter a divisor.
        dice_weight: factor of the Dice term, at least 0.
        from_logits: whether `y_pred` holds logits, of which the sigmoid is taken.
        smooth: added to numerator and denominator of Dice, in pixels, above 0, as in `SegmentationTversky`.
        reduction, name, dtype: as for every Keras loss.

    Call:
        y_true, y_pred: `(batch, ..., classes)` with at least one axis of pixels. Values before reduction:
        `(batch,)`. Keras's default reduction divides by the batch size.

    Raises:
        ValueError: an argument or a shape is wrong; on concrete values also targets, or announced probabilities,
            outside [0, 1].

    Source: the question how the loss of several classes is computed, whose loss was `BCE - (1 + dice)` per pixel:
    below 0 whenever Dice is good, with one Dice of the whole batch added to every pixel, and with weights applied
    after the mean over classes. MONAI's `DiceCELoss` is the same sum with a softmax.
    """

    options = ("class_weights", "dice_weight", "from_logits", "smooth")

    def __init__(
        self,
        class_weights: Any = None,
        dice_weight: float = 1.0,
        from_logits: bool = False,
        smooth: float = 1e-3,
        reduction: str | None = "sum_over_batch_size",
        name: str = "binary_crossentropy_dice",
        dtype: Any = None,
    ):
        super().__init__(class_weights, (), from_logits, reduction, name, dtype)
        self.dice_weight = _inputs.number("dice_weight", dice_weight)
        self.smooth = _inputs.number("smooth", smooth, above=True)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred, _ = self._read(y_true, y_pred, rank=3)
        bce = self._weighted(_binary_crossentropy(y_true, *_log_likelihoods(y_pred, self.from_logits)))
        p = ops.sigmoid(y_pred) if self.from_logits else y_pred
        dice = self._weighted(_tversky(y_true, p, 0.5, 0.5, self.smooth))
        every_axis = tuple(range(1, len(bce.shape)))
        return ops.mean(bce, axis=every_axis) + self.dice_weight * ops.mean(dice, axis=-1)


def _log(p: Any) -> Any:
    return ops.log(ops.maximum(p, keras.config.epsilon()))


def _log_likelihoods(y_pred: Any, from_logits: bool) -> tuple[Any, Any]:
    """log p and log(1 - p), without cancellation for logits."""
    if from_logits:
        return -ops.softplus(-y_pred), -ops.softplus(y_pred)
    why = "from_logits=False announces probabilities. For raw scores pass from_logits=True."
    _inputs.unit_interval("y_pred", y_pred, why)
    return _log(y_pred), _log(1.0 - y_pred)


def _binary_crossentropy(y_true: Any, log_p: Any, log_not_p: Any) -> Any:
    return -(y_true * log_p + (1.0 - y_true) * log_not_p)


def _quotient(numerator: Any, count: Any) -> Any:
    """`numerator / count`, and 0 where the count is 0."""
    return ops.where(count > 0, numerator / ops.maximum(count, 1.0), 0.0)


def _power(base: Any, exponent: float) -> Any:
    """`base**exponent` for `base >= 0`; below 1e-7 linear, so that the gradient is finite for exponents below 1."""
    return base * ops.power(ops.maximum(base, 1e-7), exponent - 1.0)


def _tversky(y_true: Any, p: Any, fp: float, fn: float, smooth: float) -> Any:
    """1 - index per sample and class, (batch, classes), written as one quotient: exactly 0 for p = y."""
    pixels = tuple(range(1, len(p.shape) - 1))
    hits = ops.sum(y_true * p, axis=pixels)
    misses = fp * ops.sum((1.0 - y_true) * p, axis=pixels) + fn * ops.sum(y_true * (1.0 - p), axis=pixels)
    return misses / (hits + misses + smooth)
