"""`find_nonfinite` on planted faults: step, term, layer, operation, index and cause. On sound models: nothing.

With KERAS_BACKEND=jax these are the tests of that backend. Operations are called here as TensorFlow calls them.
"""

from __future__ import annotations

import json

import keras
import numpy as np
import pytest
from keras import layers, ops
from models import compiled, dense, inputs, onehot, pixels, targets, two_outputs, weights

from lossviz.nonfinite import NonFinite, find_nonfinite

ON_JAX = keras.backend.backend() == "jax"
#: JAX's names of the operations that others name otherwise.
CALLED_ON_JAX = {
    "Log": "log", "Sqrt": "sqrt", "RealDiv": "div", "Exp": "exp", "Acos": "acos", "Pow": "pow", "Square": "square",
    "Cast": "convert_element_type", "MatMul": "dot_general", "Softmax": "softmax", "PyFunc": "pure_callback",
    "Rsqrt": "rsqrt", "While": "scan", "Mul": "mul", "StatelessIf": "cond", "IdentityN": "custom_vjp_call",
    "StatelessWhile": "scan", "Const": "constant",
}  # fmt: skip

X, Y = inputs(6, 4), targets(6, 3)
SCENE, MASKS = inputs(2, 4, 4, 3), onehot(2, 4, 4, classes=5)
#: Six samples of four numbers, all between 1 and 2.
PLAIN = 1.0 + weights(6, 4)


class Do(layers.Layer):
    """Applies a function of the layer and its input; a weight "scale" of 1 stands before it."""

    def __init__(self, function, **more):
        super().__init__(**more)
        self.function = function

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), initializer="ones", name="scale")

    def call(self, x):
        return self.function(self, x * self.scale)


def doing(function, loss="mse", take=(4,), **more):
    """A model of one layer "mine" that does `function`, and then "o", which adds up."""
    x = keras.Input(take)
    y = layers.Dense(3, kernel_initializer="ones", name="o")(Do(function, name="mine")(x))
    return compiled(keras.Model(x, y), loss, **more)


def losing(loss, take=(3,)):
    """A model that returns its input times a weight of 1, under a custom loss."""
    x = keras.Input(take)
    return compiled(keras.Model(x, Do(lambda layer, x: x, name="mine")(x)), loss)


def finding(**fields):
    """What must be found."""
    return fields


def called(words):
    """The name of an operation, alone or before its numbers, as this backend has it."""
    name, bracket, rest = words.partition("(")
    return (CALLED_ON_JAX.get(name, name) if ON_JAX else name) + bracket + rest


def changed(array, index, value):
    """A copy with one value replaced."""
    array = np.array(array, copy=True)
    array[index] = value
    return array


def with_weight(model, layer, index, value):
    """The model with one number of the first weight of a layer replaced."""
    weight = model.get_layer(layer).weights[0]
    weight.assign(changed(weight.numpy(), index, value))
    return model


# -- what enters in the data ------------------------------------------------------------------------------


def nan_in_x():
    return (compiled(dense(), "mse"), changed(X, (3, 2), np.nan), Y), finding(
        step="input", what="x", at={"batch": 3, "unit": 2}, terms=("o",), cause="in the data", value=np.nan, count=1
    )


def inf_in_a_pixel():
    x = changed(SCENE, (1, 2, 3, 0), np.inf)
    return (compiled(pixels(5, "softmax"), "categorical_crossentropy"), x, MASKS), finding(
        step="input", what="x", at={"batch": 1, "row": 2, "col": 3, "channel": 0}, value=np.inf
    )


def nan_in_the_second_input():
    a, b = keras.Input((4,), name="a"), keras.Input((2,), name="b")
    model = keras.Model({"a": a, "b": b}, layers.Dense(3, name="o")(layers.Concatenate()([a, b])))
    x = {"b": changed(inputs(6, 2), (5, 1), np.nan), "a": X}
    return (compiled(model, "mse"), x, Y), finding(step="input", what="x['b']", at={"batch": 5, "unit": 1})


def inf_in_y_of_the_second_output():
    y = [targets(6, 3), changed(onehot(6, classes=2), (4, 1), np.inf)]
    return (compiled(two_outputs(), ["mse", "categorical_crossentropy"]), X, y), finding(
        step="input", what="y_true[1]", at={"batch": 4, "class": 1}, terms=("b",)
    )


def nan_in_sample_weight():
    return (compiled(dense(), "mse"), X, Y, changed(np.ones(6), 2, np.nan)), finding(
        step="input", what="sample_weight", at={"batch": 2}
    )


def nan_in_class_weight():
    y = np.array([0, 1, 2, 0, 1, 2])
    model = compiled(dense(3, "softmax"), "sparse_categorical_crossentropy")
    return (model, X, y, None, {"class_weight": {0: 1.0, 1: np.nan, 2: 1.0}}), finding(
        step="input", what="class_weight", at={"batch": 1}, count=2
    )


def nan_under_weight_0():
    return (compiled(dense(), "mse"), X, changed(Y, (3, 2), np.nan), np.array([1, 1, 1, 0, 1, 1.0])), finding(
        step="input", what="y_true", at={"batch": 3, "class": 2}, cause="a weight is not a mask"
    )


# -- what is in the weights -------------------------------------------------------------------------------


def nan_in_a_kernel():
    return (with_weight(compiled(dense(), "mse"), "o", (1, 2), np.nan), X, Y), finding(
        step="weight", layer="o", what="weight o/kernel", index=(1, 2), weights=("o/kernel",), cause="1 of 2 weights"
    )


def inf_in_an_embedding():
    x = keras.Input((5,), dtype="int32")
    model = keras.Model(x, layers.Dense(3, name="o")(layers.Flatten()(layers.Embedding(10, 2, name="words")(x))))
    model = with_weight(compiled(model, "mse"), "words", (7, 1), np.inf)
    return (model, np.arange(30).reshape(6, 5) % 10, Y), finding(
        step="weight", layer="words", what="weight words/embeddings", index=(7, 1), value=np.inf
    )


def too_large_a_learning_rate():
    """The second step of such a training sees weights that the first has made infinite."""
    model = compiled(dense(), "mse", optimizer=keras.optimizers.SGD(1e38))
    model.fit(1e3 * X, Y, epochs=2, verbose=0)
    return (model, X, Y), finding(step="weight", layer="o", cause="too large a step")


def nan_in_a_nested_model():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="deep")], name="inner")
    x = keras.Input((4,))
    model = compiled(keras.Model(x, layers.Dense(3, name="o")(inner(x))), "mse")
    weight = inner.get_layer("deep").bias
    weight.assign([0.0, np.nan])
    return (model, X, Y), finding(step="weight", layer="deep", what="weight inner/deep/bias", index=(1,))


# -- what arises in the forward pass ----------------------------------------------------------------------


def log_of_0():
    return (doing(lambda layer, x: ops.log(x)), changed(PLAIN, (2, 1), 0), Y), finding(
        step="forward pass", layer="mine", operation="Log", what="Log(0) = -inf", at={"batch": 2, "unit": 1},
        terms=("o",), cause="log(0) is -inf", way_out="ops.maximum", line="ops.log(x)", value=-np.inf,
    )  # fmt: skip


def root_of_a_negative_number():
    return (doing(lambda layer, x: ops.sqrt(x)), changed(PLAIN, (5, 3), -4), Y), finding(
        step="forward pass", layer="mine", operation="Sqrt", what="Sqrt(-4) = NaN", at={"batch": 5, "unit": 3}
    )


def vector_of_zeros_over_its_norm():
    return (doing(lambda layer, x: x / ops.norm(x, axis=-1, keepdims=True)), changed(PLAIN, 3, 0), Y), finding(
        step="forward pass", layer="mine", operation="RealDiv", what="0 / 0 = NaN", at={"batch": 3, "unit": 0},
        cause="norm", way_out="divide_no_nan",
    )  # fmt: skip


def overflow_of_exp():
    return (doing(lambda layer, x: ops.exp(x)), changed(PLAIN, (0, 2), 100), Y), finding(
        step="forward pass", operation="Exp", what="Exp(100) = inf", at={"batch": 0, "unit": 2}, cause="88.7"
    )


def custom_activation():
    x = keras.Input((3,))
    model = keras.Model(x, layers.Dense(3, ops.arccos, kernel_initializer="identity", name="angle")(x))
    return (compiled(model, "mse"), changed(weights(6, 3), (4, 1), 1.5), Y), finding(
        step="forward pass", layer="angle", operation="Acos", at={"batch": 4, "class": 1}, cause="between -1 and 1"
    )


def negative_power():
    return (doing(lambda layer, x: ops.power(x, -1.0)), changed(PLAIN, (1, 1), 0), Y), finding(
        operation="Pow", what="0 ** -1 = inf", at={"batch": 1, "unit": 1}, cause="divides by 0"
    )


def too_large_for_float16():
    def half(layer, x):
        return ops.cast(ops.cast(x, "float16"), "float32")

    return (doing(half), changed(PLAIN, (1, 0), 1e6), Y), finding(
        operation="Cast", layer="mine", at={"batch": 1, "unit": 0}, cause="does not fit into float16"
    )


def overflow_of_a_square():
    return (doing(lambda layer, x: ops.square(x)), changed(PLAIN, (1, 0), 1e30), Y), finding(
        operation="Square", at={"batch": 1, "unit": 0}, cause="overflow"
    )


def overflow_of_a_product_of_matrices():
    model = with_weight(compiled(dense(), "mse"), "o", slice(None), 3e38)
    return (model, changed(PLAIN, 1, 0), Y), finding(
        step="forward pass", layer="o", operation="MatMul", at={"batch": 0, "unit": 0}, cause="overflow"
    )


def row_that_is_masked_altogether():
    def attend(layer, x):
        return ops.softmax(ops.where(x > 0, x, -np.inf))

    return (doing(attend), changed(PLAIN, 4, -1), Y), finding(
        operation="Softmax", layer="mine", at={"batch": 4, "unit": 0}, cause="masked away", way_out="-1e9"
    )


def mean_of_nothing():
    import tensorflow as tf

    def kept(layer, x):
        return x + tf.reduce_mean(tf.boolean_mask(x, x[:, 0] > 100))

    return (doing(kept), PLAIN, Y), finding(operation="Mean", layer="mine", index=(), cause="is empty")


def python_in_the_graph():
    def outside(layer, x):
        if isinstance(x, keras.KerasTensor):
            return x
        if ON_JAX:
            import jax

            return x + jax.pure_callback(lambda x: np.full_like(x, np.nan), x, x)
        import tensorflow as tf

        return x + tf.ensure_shape(tf.numpy_function(lambda x: np.full_like(x, np.nan), [x], tf.float32), x.shape)

    return (doing(outside), PLAIN, Y), finding(operation="PyFunc", layer="mine", cause="Python code")


def variance_of_one_sample():
    """Batch normalisation of one sample has variance 0; the epsilon of the layer is there for that."""
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, name="o")(layers.BatchNormalization(epsilon=0.0, name="norm")(x)))
    return (compiled(model, "mse"), PLAIN[:1], Y[:1]), finding(
        step="forward pass", layer="norm", operation="Rsqrt", training=True, cause="divides by 0", way_out="epsilon"
    )


def recurrent_layer_that_explodes():
    x = keras.Input((200, 4))
    rnn = layers.SimpleRNN(3, activation=None, recurrent_initializer=keras.initializers.Identity(5.0), name="memory")
    model = compiled(keras.Model(x, layers.Dense(1, name="o")(rnn(x))), "mse")
    return (model, np.ones((2, 200, 4), "float32"), targets(2, 1)), finding(
        step="forward pass", layer="memory", operation="While", cause="inside a loop"
    )


def subclassed_model():
    class Two(keras.Model):
        def __init__(self):
            super().__init__(name="two")
            self.first, self.second = layers.Dense(4, name="first"), Do(lambda layer, x: ops.log(x - x), name="second")

        def call(self, x):
            return self.second(self.first(x))

    return (compiled(Two(), "mse"), X, targets(6, 4)), finding(step="forward pass", layer="second", operation="Log")


def operation_between_the_layers():
    x = keras.Input((3,))
    return (
        compiled(keras.Model(x, ops.log(x - 1.0), name="between"), "mse"),
        changed(2 + weights(6, 3), (2, 2), 1),
        Y,
    ), finding(step="forward pass", layer="between", operation="Log", at={"batch": 2, "class": 2})


# -- what arises in the loss ------------------------------------------------------------------------------


def empty_mask():
    def masked(y, p):
        counted = ops.cast(y > 0, p.dtype)
        return ops.sum(counted * ops.square(y - p), -1) / ops.sum(counted, -1)

    return (losing(masked), PLAIN[:, :3], changed(np.abs(Y), 4, -1)), finding(
        step="reduction", terms=("mine",), layer="", operation="RealDiv", what="0 / 0 = NaN", at={"batch": 4},
        cause="a sum that is 0", line="ops.sum(counted, -1)",
    )  # fmt: skip


def log_of_0_at_a_pixel():
    def entropy(y, p):
        return -ops.mean(y * ops.log(p), -1)

    x = changed(0.1 + weights(2, 4, 4, 5), (1, 2, 3, 4), 0)
    return (losing(entropy, (4, 4, 5)), x, MASKS), finding(
        step="element loss", operation="Log", at={"batch": 1, "row": 2, "col": 3, "class": 4}, cause="log(0)"
    )


def overflow_behind_a_mean():
    def late(y, p):
        return ops.exp(ops.mean(p, -1))

    return (losing(late), changed(PLAIN[:, :3], 2, 1000), Y), finding(
        step="reduction", operation="Exp", at={"batch": 2}
    )


def added_loss():
    def adding(layer, x):
        layer.add_loss(ops.mean(ops.log(x)))
        return x

    return (doing(adding), changed(PLAIN, (3, 3), 0), Y), finding(
        step="forward pass", terms=("mine",), layer="mine", operation="Log", at={"batch": 3, "unit": 3}
    )


def regulariser():
    class Bounded(keras.regularizers.Regularizer):
        def __call__(self, weight):
            return ops.sqrt(1.0 - ops.sum(weight))

    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, kernel_initializer="ones", kernel_regularizer=Bounded(), name="o")(x))
    return (compiled(model, "mse"), X, Y), finding(
        step="reduction", terms=("o/kernel",), operation="Sqrt", what="Sqrt(-11) = NaN", index=()
    )


def own_compute_loss():
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return ops.mean(ops.log(y_pred - y_pred))

    return (compiled(dense(kind=Own), "mse"), X, Y), finding(
        step="element loss", terms=("compute_loss",), operation="Log", at={"batch": 0, "class": 0}
    )


def loss_weight():
    model = compiled(two_outputs(), ["mse", "mse"], loss_weights=[1.0, np.nan])
    return (model, X, [Y, targets(6, 2)]), finding(terms=("sum of the terms",), cause="a loss weight", index=())


def infinity_in_the_code():
    return (doing(lambda layer, x: ops.where(x > 1.5, x, np.nan)), changed(PLAIN, (4, 0), 1), Y), finding(
        step="forward pass", layer="mine", operation="Const", cause="as a constant", line="np.nan"
    )


def loop_over_samples():
    def each(layer, x):
        return ops.map(ops.log, x)

    return (doing(each), changed(PLAIN, (2, 1), 0), Y), finding(
        step="forward pass", layer="mine", operation="StatelessWhile", cause="inside a loop"
    )


def condition_in_the_graph():
    def either(y, p):
        return ops.cond(ops.sum(p) > 0, lambda: ops.log(p - p), lambda: p)

    return (losing(either), PLAIN[:, :3], Y), finding(
        operation="StatelessIf", what="StatelessIf", at={"batch": 0, "class": 0}, cause="inside a condition"
    )


# -- what arises in the gradient --------------------------------------------------------------------------


def gradient_of_a_root_at_0():
    def rmse(y, p):
        return ops.sqrt(ops.mean(ops.square(y - p), -1))

    return (losing(rmse), PLAIN[:, :3], changed(Y, 3, PLAIN[3, :3])), finding(
        step="gradient", terms=("mine",), operation="Sqrt", at={"batch": 3}, weights=("mine/scale",),
        cause="1 / (2 sqrt(x))", line="ops.sqrt(ops.mean(ops.square(y - p), -1))", training=True,
    )  # fmt: skip


def gradient_of_a_norm_at_0():
    def distance(y, p):
        return ops.norm(y - p, axis=-1)

    return (losing(distance), PLAIN[:, :3], changed(Y, 1, PLAIN[1, :3])), finding(
        step="gradient", operation="Sqrt", at={"batch": 1}
    )


def log_of_0_behind_where():
    def guarded(y, p):
        return ops.mean(ops.where(p > 0, ops.log(p), 0.0), -1)

    return (losing(guarded), changed(PLAIN[:, :3], (2, 1), 0), Y), finding(
        step="gradient", operation="Log", at={"batch": 2, "class": 1}, cause="0 × inf is NaN", way_out="ops.where(ok,"
    )


def hidden_infinity():
    """The product is -inf where it is not used; backwards, its other factor gets 0 × -inf."""

    def guarded(layer, x):
        return ops.where(x > 0, x * ops.stop_gradient(ops.log(x)), 0.0)

    return (doing(guarded), changed(PLAIN, (2, 1), 0), Y), finding(
        step="gradient", layer="mine", operation="Mul", at={"batch": 2, "unit": 1}, cause="in layer 'mine' gave it"
    )


def power_below_1():
    def rooted(layer, x):
        return ops.power(x, 0.5)

    return (doing(rooted), changed(PLAIN, (4, 0), 0), Y), finding(
        step="gradient", layer="mine", operation="Pow", at={"batch": 4, "unit": 0}, cause="infinite at x = 0"
    )


def focal_loss_that_is_certain():  # T11
    loss = keras.losses.BinaryFocalCrossentropy(gamma=0.5)
    p = changed(np.full((6, 3), 0.5), (1, 2), 1.0)
    return (losing(loss), p, np.ones((6, 3))), finding(
        step="gradient", operation="Pow", at={"batch": 1, "class": 2}, cause="infinite at x = 0 for p = 0.5"
    )


def gradient_written_by_hand():
    @ops.custom_gradient
    def broken(x):
        return x, lambda gradient: gradient / 0.0

    return (doing(lambda layer, x: broken(x)), PLAIN, Y), finding(
        step="gradient", layer="mine", operation="IdentityN", at={"batch": 0, "unit": 0}, cause="custom_gradient"
    )


def gradient_that_explodes_in_a_loop():
    x = keras.Input((200, 1))
    grows = {"kernel_initializer": "zeros", "recurrent_initializer": keras.initializers.Constant(5.0)}
    rnn = layers.SimpleRNN(1, activation=None, use_bias=False, name="memory", **grows)
    model = compiled(keras.Model(x, layers.Dense(1, name="o", kernel_initializer="ones")(rnn(x))), "mse")
    return (model, np.ones((2, 200, 1), "float32"), np.ones((2, 1))), finding(
        step="gradient", layer="memory", operation="While", cause="loop"
    )


def loss_scale():
    """A gradient of 4 per sample is no trouble; 32768 times that is, in float16."""
    x = keras.Input((3,))
    middle = Do(lambda layer, x: x * 1.0, name="half", dtype="mixed_float16")
    out = layers.Activation("linear", dtype="float32", name="o")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), initial_scale=2.0**15)
    model = compiled(keras.Model(x, out(middle(x))), "mse", optimizer=optimizer)
    return (model, np.zeros((1, 3)), np.full((1, 3), -10.0)), finding(
        step="gradient", operation="Cast", cause="loss scale 32\N{NO-BREAK SPACE}768",
        way_out="LossScaleOptimizer leaves out such a step",
    )  # fmt: skip


# -- what is in the optimizer -----------------------------------------------------------------------------


def learning_rate():
    return (compiled(dense(), "mse", optimizer=keras.optimizers.SGD(np.nan)), X, Y), finding(
        step="optimizer", what="learning_rate"
    )


def moving_average_of_gradients():
    model = compiled(dense(), "mse", optimizer=keras.optimizers.SGD(0.0, momentum=0.9))
    model.train_on_batch(X, Y)
    moments = next(v for v in model.optimizer.variables if v.shape == (4, 3))
    moments.assign(changed(moments.numpy(), (2, 0), np.inf))
    return (model, X, Y), finding(step="optimizer", index=(2, 0), cause="state of the optimizer")


FAULTS = [
    nan_in_x, inf_in_a_pixel, nan_in_the_second_input, inf_in_y_of_the_second_output, nan_in_sample_weight,
    nan_in_class_weight, nan_under_weight_0,
    nan_in_a_kernel, inf_in_an_embedding, too_large_a_learning_rate, nan_in_a_nested_model,
    log_of_0, root_of_a_negative_number, vector_of_zeros_over_its_norm, overflow_of_exp, custom_activation,
    negative_power, too_large_for_float16, overflow_of_a_square, overflow_of_a_product_of_matrices,
    row_that_is_masked_altogether, mean_of_nothing, python_in_the_graph, variance_of_one_sample,
    recurrent_layer_that_explodes, subclassed_model, operation_between_the_layers,
    empty_mask, log_of_0_at_a_pixel, overflow_behind_a_mean, added_loss, regulariser, own_compute_loss,
    loss_weight, infinity_in_the_code, loop_over_samples, condition_in_the_graph, gradient_written_by_hand,
    gradient_of_a_root_at_0, gradient_of_a_norm_at_0, log_of_0_behind_where, hidden_infinity, power_below_1,
    focal_loss_that_is_certain, gradient_that_explodes_in_a_loop, loss_scale,
    learning_rate, moving_average_of_gradients,
]  # fmt: skip

if ON_JAX:
    FAULTS.remove(mean_of_nothing)  # no shape depends on data there


def find(model, x, y, sample_weight=None, more=None) -> NonFinite:
    return find_nonfinite(model, x, y, sample_weight, **(more or {}))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_found(fault):
    keras.utils.set_random_seed(1)
    arguments, expected = fault()
    found = find(*arguments)
    assert found, found
    for name, wanted in expected.items():
        got = getattr(found, name)
        wanted = called(wanted) if name in ("operation", "what") else wanted
        if name in ("cause", "way_out", "line"):
            assert wanted in got, f"{name}: {got}"
        else:
            np.testing.assert_equal(got, wanted, err_msg=f"{name}\n{found}")
    if found.index is not None and found.step != "optimizer":
        assert len(found.index) == len(found.axes)
    assert 0 < found.count <= found.size or found.index is None
    assert found.cause and found.way_out
    text = str(found)
    assert max(map(len, text.splitlines())) <= 76
    assert json.dumps(found.to_dict(), allow_nan=False)
    assert "<script" not in found._repr_html_() and found.way_out[:20] in found._repr_html_()


# -- what is sound ----------------------------------------------------------------------------------------


def attention_with_a_mask():
    x = keras.Input((5, 4))
    seen = layers.MultiHeadAttention(1, 4, name="attention")(x, x, use_causal_mask=True)
    return compiled(keras.Model(x, layers.Dense(3, name="o")(seen)), "mse"), inputs(6, 5, 4), targets(6, 5, 3)


def infinite_mask_before_a_softmax():
    """-inf enters, the softmax makes 0 of it, and its gradient is 0 too: no harm."""
    return doing(lambda layer, x: ops.softmax(ops.where(x > 1.5, x, -np.inf))), changed(PLAIN, (..., 0), 1.9), Y


def log_of_0_behind_two_wheres():
    def guarded(y, p):
        return ops.mean(ops.where(p > 0, ops.log(ops.where(p > 0, p, 1.0)), 0.0), -1)

    return losing(guarded), changed(PLAIN[:, :3], (2, 1), 0), Y


def log_of_0_of_a_target():
    """No gradient goes into the targets, so what where leaves out stays out."""

    def guarded(y, p):
        return ops.mean(ops.where(y > 0, y * ops.log(y), 0.0) - y * p, -1)

    return losing(guarded), PLAIN[:, :3], changed(np.abs(Y), (2, 1), 0)


def nan_that_a_layer_takes_out():
    return doing(lambda layer, x: ops.where(ops.isnan(x), 0.0, 1.0) * layer.scale), changed(PLAIN, (1, 1), np.nan), Y


def nan_target_of_an_output_without_a_loss():
    return compiled(two_outputs(), ["mse", None]), X, [Y, np.full((6, 2), np.nan)]


def certain_probabilities():
    return losing("binary_crossentropy"), np.eye(3)[[0, 1, 2, 0, 1, 2]], np.eye(3)[[2, 0, 1, 0, 1, 2]]


def percentage_of_0():  # T12: huge, but finite
    return losing("mape"), PLAIN[:, :3], np.zeros((6, 3))


def cosine_of_zeros():
    return losing("cosine_similarity"), np.zeros((6, 3)), np.zeros((6, 3))


def all_weights_0():
    return compiled(dense(), "mse"), X, Y, np.zeros(6)


def one_sample_in_batch_normalisation():
    x = keras.Input((4,))
    return compiled(keras.Model(x, layers.Dense(3, name="o")(layers.BatchNormalization()(x))), "mse"), X[:1], Y[:1]


def nan_in_a_weight_that_is_not_used():
    x = keras.Input((4,))
    layers.Dense(2, name="unused")
    model = keras.Model(x, layers.Dense(3, name="o")(x))
    model.spare = layers.Dense(2)
    model.spare.build((None, 4))
    model.spare.kernel.assign(np.full((4, 2), np.nan))
    return compiled(model, "mse"), X, Y


def lstm_with_masked_steps():
    x = keras.Input((5, 4))
    model = keras.Model(x, layers.Dense(3, name="o")(layers.LSTM(3)(layers.Masking()(x))))
    return compiled(model, "mse"), changed(inputs(6, 5, 4), (slice(3), 2), 0), Y


def dropout():
    return doing(lambda layer, x: keras.random.dropout(x, 0.5, seed=1)), PLAIN, Y


def no_optimizer_and_no_weight():
    x = keras.Input((3,))
    return compiled(keras.Model(x, ops.tanh(x)), "mse", optimizer=None), X[:, :3], Y


def eager():
    return compiled(dense(), "mse", run_eagerly=True), X, Y


def with_xla():
    model = dense()
    model.compile("sgd", "mse", jit_compile=True)
    return model, X, Y


SOUND = [
    attention_with_a_mask, infinite_mask_before_a_softmax, log_of_0_behind_two_wheres, log_of_0_of_a_target,
    nan_that_a_layer_takes_out, nan_target_of_an_output_without_a_loss, certain_probabilities, percentage_of_0,
    cosine_of_zeros, all_weights_0, one_sample_in_batch_normalisation, nan_in_a_weight_that_is_not_used,
    lstm_with_masked_steps, dropout, no_optimizer_and_no_weight, eager, with_xla,
]  # fmt: skip


if ON_JAX:
    SOUND.remove(cosine_of_zeros)  # see below


@pytest.mark.parametrize("sound", SOUND, ids=lambda sound: sound.__name__)
def test_nothing_is_found_in_what_is_sound(sound):
    keras.utils.set_random_seed(1)
    model, x, y, *weight = sound()
    found = find_nonfinite(model, x, y, *weight)
    assert not found, found
    assert found == NonFinite(loss=found.loss, training=True, looked_at=found.looked_at)
    assert str(found).startswith("All finite: the loss ")
    assert np.isfinite(found.loss)
    assert "All finite" in found._repr_html_()


@pytest.mark.skipif(not ON_JAX, reason="TensorFlow's derivative of rsqrt makes 0 of an incoming 0")
def test_what_keras_spoils_on_jax_alone_is_found():
    """The norm of zeros goes through rsqrt, and then through a minimum that hides the infinity."""
    model, x, y = cosine_of_zeros()
    found = find_nonfinite(model, x, y)
    assert (found.step, found.operation, found.weights) == ("gradient", "rsqrt", ("mine/scale",))
    assert "0 × inf is NaN" in found.cause
    model.fit(x, y, verbose=0)
    assert np.isnan(model.get_layer("mine").scale.numpy()).all()


@pytest.mark.skipif(not ON_JAX, reason="TensorFlow reads a variable wherever it was made")
def test_variables_that_each_call_makes_anew_are_refused_on_jax():
    model = doing(lambda layer, x: layers.BatchNormalization()(x))
    with pytest.raises(ValueError, match="each call makes new variables"):
        find_nonfinite(model, PLAIN, Y)


# -- what it is promised to do besides --------------------------------------------------------------------


def test_the_index_is_of_the_value_that_does_harm():
    """log(0) three times: in sample 0 and 1 `where` takes it out (and its gradient is cut), in sample 4 it does not."""
    used = ops.convert_to_tensor([False, False, True, True, True, True])[:, None]

    def half_guarded(y, p):
        return ops.mean(ops.where(used, ops.log(ops.stop_gradient(p)), 0.0) + p, -1)

    x = changed(changed(PLAIN[:, :3], slice(2), 0), (4, 2), 0)
    found = find_nonfinite(losing(half_guarded), x, Y)
    assert (found.operation, found.at) == (called("Log"), {"batch": 4, "class": 2})


def test_the_operation_is_the_one_that_does_harm():
    """Two logs of 0: the first is taken out again."""

    def two(y, p):
        gone = ops.where(y > 1e9, ops.log(p - p), 0.0)
        return ops.mean(gone + ops.log(ops.relu(p)), -1)

    found = find_nonfinite(losing(two), changed(PLAIN[:, :3], (1, 0), -1), np.abs(Y))
    assert (found.operation, found.at, found.also) == (called("Log"), {"batch": 1, "class": 0}, ())


def test_every_other_entry_is_named():
    x, y = changed(X, 0, np.nan), changed(Y, 1, np.nan)
    found = find_nonfinite(with_weight(compiled(dense(), "mse"), "o", (0, 0), np.nan), x, y)
    assert found.what == "x" and found.also == ("y_true", "weight o/kernel")


def test_a_weight_reaches_the_output_and_its_own_penalty():
    x = keras.Input((4,))
    model = compiled(keras.Model(x, layers.Dense(3, kernel_regularizer="l2", name="o")(x)), "mse")
    found = find_nonfinite(with_weight(model, "o", (0, 0), np.nan), X, Y)
    assert (found.terms, found.layer) == (("o", "o/kernel"), "o")


def test_training_chooses_the_forward_pass():
    model, x, y = variance_of_one_sample()[0]
    assert not find_nonfinite(model, x, y, training=False)
    assert find_nonfinite(model, x, y, training=True).training


def test_the_axes_have_names_of_the_predictions():
    found = find_nonfinite(*log_of_0_at_a_pixel()[0])
    assert found.sample == 1 and found.index == (1, 2, 3, 4) and found.axes == ("batch", "row", "col", "class")


@pytest.mark.skipif(ON_JAX, reason="there it is a class of its own that no prediction can reach")
def test_a_label_out_of_range_is_an_error():  # T10: NaN with XLA and on a GPU
    model = compiled(dense(3, "softmax"), "sparse_categorical_crossentropy")
    with pytest.raises(ValueError, match=r"labels from 0 to 7.*3 classes \(0 to 2\)"):
        find_nonfinite(model, X, np.array([0, 1, 2, 7, 1, 2]))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("model", X, Y), "model must be a keras.Model"),
        ((dense(), X, Y), "is not compiled"),
        ((compiled(dense(), "mse"), None, Y), "x is None"),
        ((compiled(dense(), "mse"), inputs(6, 5), Y), "x does not fit model"),
        ((compiled(dense(), "mse"), X), "y is missing"),
        ((compiled(dense(), "mse"), X, Y, weights(6, 2)), "Keras refuses sample_weight"),
    ],
)
def test_what_does_not_fit_is_refused_as_by_explain(arguments, words):
    with pytest.raises(ValueError, match=words):
        find_nonfinite(*arguments)


@pytest.mark.parametrize("fault", [log_of_0_behind_where, variance_of_one_sample, added_loss, nan_in_x])
def test_the_model_is_left_as_it_was(fault):
    model, x, y = fault()[0]
    model.compile(keras.optimizers.Adam(), model.loss, metrics=["mae"], jit_compile=False)
    before = [weight.numpy() for weight in model.weights]
    names = set(vars(model))
    find_nonfinite(model, x, y)
    assert not model.optimizer.built
    assert all("call" not in vars(layer) for layer in (model, *model.layers))
    assert set(vars(model)) == names
    for weight, array in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), array)
    assert all(len(layer.losses) == len(set(map(id, layer.losses))) for layer in model.layers)
    again = find_nonfinite(model, x, y)
    assert str(again) == str(find_nonfinite(model, x, y))


def test_half_precision_overflows_in_the_layer(mixed):
    """A square of 300 is 90000: too large for float16 (65504), fine in bfloat16."""
    model = doing(lambda layer, x: ops.square(x))
    found = find_nonfinite(model, changed(PLAIN, (2, 3), 300), Y)
    if mixed == "mixed_float16":
        assert (found.layer, found.operation, found.at) == ("mine", called("Square"), {"batch": 2, "unit": 3})
        assert "float16 ends at 6.55e+04" in found.cause
    else:
        assert found.operation != called("Square")


def test_the_text_of_a_finding():
    model, x, y = log_of_0()[0]
    text = str(find_nonfinite(model, x, y))
    assert text.splitlines()[0] == f"-inf enters at {called('Log')}, layer 'mine'"
    for row in (
        "  term       o",
        "  step       forward pass, as evaluate runs it",
        "  layer      mine",
        f"  operation  {called('Log(0) = -inf')}",
        "  where      batch 2, unit 1 (first of 1 of 24 values)",
        "  cause      log(0) is -inf",
    ):
        assert row in text.splitlines()


def test_names_are_escaped_in_html():
    x = keras.Input((4,))
    model = keras.Model(x, layers.Dense(3, name="o>p")(x))
    page = find_nonfinite(with_weight(compiled(model, "mse"), "o>p", (0, 0), np.nan), X, Y)._repr_html_()
    assert "o>p" not in page and "o&gt;p" in page


def per_weight(y_true, y_pred):
    """Divides by what the batch holds of class 1, and a batch may hold none."""
    return ops.sum(ops.square(y_true - y_pred) * y_true) / ops.sum(y_true)


@pytest.mark.parametrize("count, size, samples", [(70, 32, (64, 69)), (48, 16, (32, 47)), (40, 39, (39, 39))])
def test_a_batch_that_fit_makes_is_found(count, size, samples):
    model, x = compiled(dense(activation="sigmoid"), per_weight), inputs(count, 4)
    y = np.ones((count, 3), "float32")
    y[samples[0] :] = 0
    found = find_nonfinite(model, x, y, batch_size=size)
    assert (found.samples, found.step, found.operation) == (samples, "reduction", called("RealDiv"))
    assert f"samples {samples[0]} to {samples[1]} of the data" in str(found)
    assert not find_nonfinite(model, x, y, batch_size=None)
    assert not np.isfinite(model.evaluate(x, y, batch_size=size, verbose=0))


def test_sound_batches_of_a_sound_whole():
    model, x, y = compiled(dense(), "mse", optimizer="adam"), inputs(70, 4), targets(70, 3)
    before = [variable.numpy() for variable in model.variables]
    found = find_nonfinite(model, x, y)
    assert not found and found.samples is None
    assert "the same of its 3 batches of 32" in " ".join(str(found).split())
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    with pytest.raises(ValueError, match="batch_size must be"):
        find_nonfinite(model, x, y, batch_size=0)
