"""Runs the cases of make_regime_goldens.py in one environment: `python regime_runner.py KIND CASES RESULTS`.

KIND is "keras" (Keras 2.1 to 2.3 on TensorFlow 1), "tf.keras" (TensorFlow 2 with its own Keras 2), "tf_keras" or
"keras-3". CASES and RESULTS are JSON files. Needs what is installed there and nothing else; runs on Python 3.6.
"""

import contextlib
import io
import json
import logging
import os
import platform
import re
import sys
import warnings

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"
os.environ["KERAS_BACKEND"] = "tensorflow"
warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

import numpy as np  # noqa: E402

KIND = sys.argv[1]

with contextlib.redirect_stderr(io.StringIO()):
    import tensorflow as tf

    if KIND == "tf.keras":
        keras = tf.keras
        KERAS = __import__("keras")  # the package behind tf.keras: its private modules are needed
        VERSION = KERAS.__version__
    elif KIND == "tf_keras":
        import tf_keras as keras

        KERAS, VERSION = keras, keras.__version__
    else:
        import keras

        KERAS, VERSION = keras, keras.__version__

if KIND == "keras":
    K = keras.backend
    if not hasattr(K, "is_tensor"):
        K.is_tensor = tf.is_tensor if hasattr(tf, "is_tensor") else (lambda x: isinstance(x, tf.Tensor))

LEGACY = KIND == "keras" and not VERSION.startswith("2.3")


# --- the loss functions of the cases: what they return is the score array


def ops_mean(x, axis=None):
    if KIND == "keras-3":
        return keras.ops.mean(x, axis=axis)
    return K.mean(x, axis=axis) if KIND == "keras" else tf.reduce_mean(x, axis=axis)


def square(x):
    return x * x


LOSSES = {
    "mse": lambda y_true, y_pred: ops_mean(square(y_pred - y_true), axis=-1),
    "elements": lambda y_true, y_pred: square(y_pred - y_true),
    "scalar": lambda y_true, y_pred: ops_mean(square(y_pred - y_true)),
}
for name, function in LOSSES.items():
    function.__name__ = name


# --- direct calls of the wrapper


def direct(case):
    y_true, y_pred = array(case, "y_true"), array(case, "y_pred")
    weight, mask = array(case, "sample_weight"), array(case, "mask", bool)
    function, reduction = LOSSES[case["loss"]], case["reduction"]
    if LEGACY:
        if reduction != "sum_over_batch_size":
            return {"skipped": "this version has no reductions"}
        if VERSION.startswith("2.1"):
            from keras.engine.training import _weighted_masked_objective as wrapper
        else:
            from keras.engine.training_utils import weighted_masked_objective as wrapper
        constants = [None if x is None else K.constant(x) for x in (weight, mask)]
        return K.eval(wrapper(function)(K.constant(y_true), K.constant(y_pred), *constants))
    if KIND == "keras":  # 2.3: the model merges mask and weights (engine/training.py, _prepare_total_loss)
        from keras.utils import losses_utils

        y_true, y_pred = K.constant(y_true), K.constant(y_pred)
        weight = None if weight is None else K.constant(weight)
        if mask is not None:
            mask = K.cast(K.constant(mask), y_pred.dtype)
            if weight is None:
                weight = mask
            else:
                mask, _, weight = losses_utils.squeeze_or_expand_dimensions(mask, None, weight)
                weight *= mask
        loss = keras.losses.LossFunctionWrapper(function, reduction=reduction)
        return K.eval(loss(y_true, y_pred, sample_weight=weight))
    if KIND in ("tf.keras", "tf_keras"):
        home = KERAS if hasattr(KERAS, "engine") and not hasattr(KERAS, "src") else KERAS.src
        wrapper = home.losses.LossFunctionWrapper
        y_true, y_pred = tf.constant(y_true), tf.constant(y_pred)
        weight = None if weight is None else tf.constant(weight)
        if mask is not None:
            mask = tf.constant(mask)
            if hasattr(home.utils.losses_utils, "apply_valid_mask"):  # since 2.10 inside Loss.__call__
                y_pred._keras_mask = mask
            else:
                from keras.engine import compile_utils

                weight = compile_utils.apply_mask(y_pred, weight, mask)
        return wrapper(function, reduction=reduction)(y_true, y_pred, sample_weight=weight).numpy()
    from keras.src import backend
    from keras.src.losses.losses import LossFunctionWrapper

    y_pred = keras.ops.convert_to_tensor(y_pred)
    if mask is not None:
        backend.set_keras_mask(y_pred, keras.ops.convert_to_tensor(mask))
    return keras.ops.convert_to_numpy(LossFunctionWrapper(function, reduction=reduction)(y_true, y_pred, weight))


# --- the same through compile and evaluate


class WithMask(keras.layers.Layer):
    """Returns its first input, with the second one, if there is one, as its mask."""

    def __init__(self, ranks, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True
        self.ranks = ranks

    def call(self, inputs, mask=None):
        return self.cut(inputs, 0) * 1.0

    def compute_mask(self, inputs, mask=None):
        if len(self.ranks) == 1:
            return None
        if KIND == "keras-3":
            return keras.ops.cast(self.cut(inputs, 1), "bool")
        return K.cast(self.cut(inputs, 1), "bool") if KIND == "keras" else tf.cast(self.cut(inputs, 1), tf.bool)

    def compute_output_shape(self, input_shape):
        shape = input_shape[0] if isinstance(input_shape, list) else input_shape
        return shape[:1] if self.ranks[0] == 1 else shape

    def cut(self, inputs, k):
        """Input number `k`; what has one axis comes in as a column, because Keras 2 has no inputs without a second."""
        x = inputs[k] if isinstance(inputs, (list, tuple)) else inputs
        return x[:, 0] if self.ranks[k] == 1 else x


def compiled(case, mode=None):
    y_true, y_pred = array(case, "y_true"), array(case, "y_pred")
    weight, mask = array(case, "sample_weight"), array(case, "mask")
    arrays = [y_pred] if mask is None else [y_pred, mask]
    x = [a[:, None] if a.ndim == 1 else a for a in arrays]
    inputs = [keras.layers.Input(shape=a.shape[1:]) for a in x]
    inputs, x = (inputs, x) if len(x) > 1 else (inputs[0], x[0])
    output = WithMask([a.ndim for a in arrays])(inputs)
    model = keras.models.Model(inputs, output)
    options = {"sample_weight_mode": mode} if mode else {}
    loss = "mse" if case["loss"] == "mse" else LOSSES[case["loss"]]
    model.compile(optimizer="sgd", loss=loss, **options)
    return model.evaluate(x, y_true, sample_weight=weight, batch_size=len(y_true), verbose=0)


# --- epochs: what History, callbacks, the progress bar and evaluate say


def epoch(case):
    x = np.asarray(case["x"], "float32")[:, None]
    y = np.asarray(case["y"], "float32")[:, None]
    weight = None if case["sample_weight"] is None else np.asarray(case["sample_weight"], "float32")
    size = case["batch_size"]
    slices = [slice(k, k + size) for k in range(0, len(x), size)]

    def new_model():
        inputs = keras.layers.Input(shape=(1,))
        dense = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
        model = keras.models.Model(inputs, dense(inputs))
        model.compile(optimizer=keras.optimizers.SGD(0.0), loss="mse")
        return model

    def batches():
        while True:
            for rows in slices:
                yield (x[rows], y[rows]) if weight is None else (x[rows], y[rows], weight[rows])

    class Logs(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.seen = []

        def on_batch_end(self, batch, logs=None):
            self.seen.append(float((logs or {}).get("loss", float("nan"))))

    def run(train):
        logs, printed = Logs(), io.StringIO()
        with contextlib.redirect_stdout(printed):
            history = train(logs)
        bar = re.findall(r"loss: *(nan|inf|[-+.0-9e]+)", printed.getvalue())
        return {"history": history.history["loss"][0], "callback": logs.seen, "bar": float(bar[-1])}

    same = {"verbose": 1, "epochs": 1}
    model, result = new_model(), {}
    result["batch_losses"] = [
        model.train_on_batch(x[rows], y[rows], sample_weight=None if weight is None else weight[rows])
        for rows in slices
    ]
    result["evaluate"] = new_model().evaluate(x, y, sample_weight=weight, batch_size=size, verbose=0)
    result["fit"] = run(
        lambda logs: new_model().fit(
            x, y, sample_weight=weight, batch_size=size, shuffle=False, callbacks=[logs], **same
        )
    )
    if KIND == "keras":
        result["generator"] = run(
            lambda logs: new_model().fit_generator(batches(), len(slices), workers=0, callbacks=[logs], **same)
        )
    else:
        result["generator"] = run(
            lambda logs: new_model().fit(batches(), steps_per_epoch=len(slices), callbacks=[logs], **same)
        )
    return result


# --- plumbing


def array(case, key, dtype="float32"):
    name = case[key]
    return None if name is None else np.asarray(ARRAYS[name], dtype)


def plain(value):
    """A result as JSON; numbers to nine digits, which is all that float32 has."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, str):
        return value
    value = np.asarray(value, "float64")
    if value.ndim:
        return [plain(item) for item in value]
    number = float(value)
    if number != number:
        return "NaN"
    return ("Infinity" if number > 0 else "-Infinity") if abs(number) == np.inf else float(f"{number:.9g}")


def first_line(error):
    """The words of an error: the first line that says something, without places on this machine."""
    lines = [line.strip() for line in str(error).splitlines()]
    lines = [line for line in lines if line and not line.startswith(("File ", "Traceback", "at block"))]
    telling = r"[Ii]ncompatible|[Cc]an not|[Cc]annot|must|Found|[Dd]imension|[Rr]ank|expected|broadcast"
    chosen = [line for line in lines if re.search(telling, line)] or lines or [""]
    if lines and lines[0].startswith("in user code"):  # then code follows, and the message is last
        chosen.reverse()
    line = chosen[0]
    for noise, instead in (
        (r"\{\{[^}]*\}\}|\[Op:[^]]*\]|<[^>]* at 0x[0-9a-f]+>|\(defined at [^)]*\)|^\([0-9]\) | name: *$", ""),
        (r" for '.*' \(op: '\w+'\) with input shapes| for '.* = .*' with input shapes", " for shapes"),
        (r"'\S*/(site-packages/)?\S*'|/\S+/\S+\.py\S*", "..."),
        (r"\b(input|with_mask)_[0-9]+", r"\1"),
        (r"^(ValueError|TypeError|IndexError): ", ""),
        (r"\s+", " "),
    ):
        line = re.sub(noise, instead, line.strip())
    return (type(error).__name__ + ": " + line.strip())[:400]


def attempt(function, *arguments):
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return plain(function(*arguments))
    except Exception as error:
        return {"error": first_line(error)}


def main():
    with open(sys.argv[2]) as file:
        todo = json.load(file)
    global ARRAYS
    ARRAYS = todo["arrays"]
    results = {"direct": [], "compiled": [], "epochs": []}
    legacy_modes = KIND == "keras"
    if legacy_modes:
        results["temporal"] = []
    for k, case in enumerate(todo["cases"]):
        results["direct"].append(attempt(direct, case))
        if case["compiled"]:
            results["compiled"].append(attempt(compiled, case))
            if legacy_modes:
                results["temporal"].append(attempt(compiled, case, "temporal"))
        if k % 10 == 9:
            keras.backend.clear_session()
    for case in todo["epochs"]:
        results["epochs"].append(attempt(epoch, case))
    results["versions"] = {
        "keras": VERSION,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    with open(sys.argv[3], "w") as file:
        json.dump(results, file)


if __name__ == "__main__":
    main()
