"""What lossviz uses and Keras or TensorFlow does not promise, one test a name, so that a new version fails by name."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from keras.src import backend
from keras.src.backend.common import global_state
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.trainers.data_adapters import data_adapter_utils
from keras.src.utils.naming import get_object_name
from models import compiled, dense, inputs, targets, two_outputs
from tensorflow.python.eager import context
from tensorflow.python.framework.auto_control_deps import AutomaticControlDependencies

from lossviz.backend import graph, tensorflow_backend
from lossviz.backend import keras_private as _keras
from lossviz.backend import quiet as _quiet
from lossviz.backend.current import BACKEND
from lossviz.backend.tensorflow_program import has_own_gradient


def built(model):
    _keras.build(model, inputs(6, 4), [targets(6, 3), targets(6, 2)], None)
    return model


def test_model_flatten_layers_lists_nested_layers_once():
    x = keras.Input((4,))
    inner = keras.Model(x, layers.Dense(3, name="deep")(x), name="inner")
    z = keras.Input((4,))
    names = [layer.name for layer in keras.Model(z, inner(z))._flatten_layers(include_self=False)]
    assert names.count("deep") == 1 and "inner" in names


def test_model_compile_loss_holds_flat_losses_with_these_fields():
    loss = built(compiled(two_outputs(), ["mse", "mae"], loss_weights=[1.0, 3.0]))._compile_loss
    assert loss.built is True
    assert [(entry.name, entry.loss_weights) for entry in loss._flat_losses] == [("a", 1.0), ("b", 3.0)]
    assert all(callable(entry.loss) for entry in loss._flat_losses)
    replaced = loss._flat_losses[0]._replace(loss=None)  # a named tuple
    assert replaced.loss is None and replaced.name == "a"


def test_model_compile_loss_is_none_without_a_loss():
    assert compiled(dense())._compile_loss is None


def test_compute_loss_uses_what_stands_in_flat_losses():
    model = built(compiled(two_outputs(), ["mse", "mae"], loss_weights=[1.0, 3.0]))
    loss = model._compile_loss
    calls = []

    def called(y_true, y_pred, sample_weight=None):
        calls.append(tuple(y_pred.shape))
        return tf.constant(2.0)

    loss._flat_losses = [entry._replace(loss=called) for entry in loss._flat_losses]
    y = [targets(6, 3), targets(6, 2)]
    assert float(model.compute_loss(inputs(6, 4), y, model(inputs(6, 4)))) == 2.0 * 1 + 2.0 * 3
    assert calls == [(6, 3), (6, 2)]


def test_model_losses_override_replaces_model_losses():
    model = compiled(dense(kernel_regularizer="l2"), "mse")
    assert model._losses_override == []  # so that Keras computes them
    model._losses_override = [tf.constant(5.0)]
    assert [float(loss) for loss in model.losses] == [5.0]
    data_loss = float(keras.losses.MeanSquaredError()(targets(6, 3), model(inputs(6, 4))))
    assert float(model.compute_loss(inputs(6, 4), targets(6, 3), model(inputs(6, 4)))) == pytest.approx(data_loss + 5.0)


def test_layer_get_own_losses_losses_and_loss_ids():
    class Adds(layers.Layer):
        def call(self, x):
            self.add_loss(keras.ops.mean(x))
            return x

    layer = Adds()
    layer(inputs(6, 4))
    assert [float(loss) for loss in layer._get_own_losses()] == [pytest.approx(inputs(6, 4).mean())]
    assert isinstance(layer._losses, list) and len(layer._losses) == 1
    assert isinstance(layer._loss_ids, set)


def test_model_get_regularization_losses_go_by_trainable_weights():
    model = dense(kernel_regularizer=keras.regularizers.L2(1.0), bias_regularizer=keras.regularizers.L2(1.0))
    model.layers[-1].set_weights([inputs(4, 3), np.ones(3)])
    owners = [variable.path for variable in model.trainable_weights if variable.regularizer is not None]
    assert owners == ["o/kernel", "o/bias"]
    found = [float(loss) for loss in model._get_regularization_losses()]
    assert found == pytest.approx([np.square(inputs(4, 3)).sum(), 3.0])


def test_layer_calls_its_activity_regularizer_attribute():
    layer, calls = layers.Dense(3, activity_regularizer="l2"), []
    layer.build((6, 4))

    def regulariser(output):
        calls.append(output.shape)
        return keras.ops.sum(output)

    layer.activity_regularizer = regulariser
    layer(inputs(6, 4))
    assert calls == [(6, 3)]


def test_layer_calls_its_own_add_loss_after_its_activity_regularizer():
    layer, calls = layers.Dense(3, activity_regularizer=lambda output: calls.append("regulariser") or tf.zeros(())), []
    layer.build((6, 4))
    vars(layer)["add_loss"] = lambda loss: calls.append(type(layer).add_loss(layer, loss) or "add_loss")
    layer(inputs(6, 4))
    assert calls == ["regulariser", "add_loss"]


def test_compiled_loss_is_built_by_its_build_with_the_first_call():
    model = compiled(dense(), "mse")
    loss, built = model._compile_loss, []
    assert loss._flat_losses is None
    loss.build = lambda y_true, y_pred: built.append(type(loss).build(loss, y_true, y_pred))
    model.compute_loss(inputs(6, 4), targets(6, 3), model(inputs(6, 4)))
    assert built == [None] and len(loss._flat_losses) == 1


def test_loss_reduces_what_its_own_call_returns():
    loss = keras.losses.MeanSquaredError()
    vars(loss)["call"] = lambda y_true, y_pred: tf.constant([1.0, 4.0])
    assert float(loss(targets(2, 3), targets(2, 3), np.array([1.0, 0.5]))) == (1.0 + 0.5 * 4.0) / 2


@pytest.mark.parametrize("kind", ["train", "test"])
def test_functions_are_made_around_the_step_and_looked_up_with_each_batch(kind):
    """And logs with other names than the metrics are those of the epoch."""
    model = compiled(dense(), "mse")
    original = getattr(model, f"{kind}_step")
    vars(model)[f"{kind}_step"] = lambda data: {**original(data), "more": tf.constant(7.0)}
    getattr(model, f"make_{kind}_function")(force=True)
    ours = getattr(model, f"{kind}_function")
    setattr(model, f"{kind}_function", None)
    del vars(model)[f"{kind}_step"]

    def begin(batch, logs):
        setattr(model, f"{kind}_function", ours)

    callback = keras.callbacks.LambdaCallback(**{f"on_{kind}_batch_begin": begin})
    x, y = inputs(6, 4), targets(6, 3)
    if kind == "train":
        logs = model.fit(x, y, batch_size=3, verbose=0, callbacks=[callback]).history
    else:
        logs = model.evaluate(x, y, batch_size=3, verbose=0, callbacks=[callback], return_dict=True)
    assert list(logs) == ["loss", "more"]


def test_layer_calls_the_call_that_stands_in_its_own_dictionary():
    """`recording_calls` puts one there, past `__setattr__`, and counts the operations before and after each call."""
    model = dense()
    with _keras.recording_calls(model) as calls:
        traced = graph.trace(lambda x: tf.reduce_sum(model(x)), [tf.TensorSpec((6, 4))]).graph
    assert not any("call" in vars(layer) for layer in _keras.layers_of(model))
    assert [call.layer.name for call in calls][-2:] == ["o", model.name]
    inner, outer = calls[-2:]
    assert all(call.graph is traced for call in calls)
    assert outer.start <= inner.start < inner.stop <= outer.stop
    made = [operation.type for operation in traced.get_operations()[inner.start : inner.stop]]
    assert "MatMul" in made and "BiasAdd" in made


def test_gradients_know_the_operation_they_belong_to():
    """`_original_op` of what tf.gradients makes: `find_nonfinite` says a gradient in terms of the forward pass."""
    with tf.Graph().as_default():
        x = tf.constant([1.0, 4.0])
        root = tf.sqrt(x)
        (gradient,) = tf.gradients(root, x, name="lossviz_gradient")
    assert gradient.op.name.startswith("lossviz_gradient/")
    assert gradient.op.type == "SqrtGrad" and gradient.op._original_op is root.op
    assert root.op._original_op is None


def test_an_operation_knows_the_line_that_made_it():
    with tf.Graph().as_default():
        root = tf.sqrt(4.0)
    assert any(frame.filename == __file__ and frame.name == "test_an_operation_knows_the_line_that_made_it"
               for frame in root.op.traceback)  # fmt: skip


def test_debug_numeric_summary_counts_what_is_not_finite():
    """Mode 3: a number for the tensor, its size, and how many are -inf, inf and NaN."""
    for dtype in ("float16", "bfloat16", "float32", "float64"):
        tensor = tf.cast([1.0, -np.inf, -np.inf, np.inf, np.nan, np.nan, np.nan], dtype)
        found = tf.raw_ops.DebugNumericSummaryV2(input=tensor, output_dtype=tf.float64, tensor_debug_mode=3)
        assert found.numpy()[1:].tolist() == [7, 2, 1, 3]


def test_loss_and_metrics_of_a_built_functional_model_need_no_pass_through_its_layers(monkeypatch):
    def model():
        made = two_outputs()
        metrics = {"a": ["mae", keras.metrics.AUC(name="auc")], "b": ["mse"]}
        made.compile(loss={"a": "mse", "b": "mae"}, metrics=metrics, jit_compile=False)
        return made

    plain, quick = model(), model()
    batch = inputs(6, 4), [targets(6, 3), targets(6, 2)], None
    plain._symbolic_build(data_batch=batch)
    monkeypatch.setattr(keras.Model, "_symbolic_build", lambda *args, **options: pytest.fail("layers were passed"))
    _keras.build(quick, *batch)
    assert _keras.is_built(quick) and _keras.compiled_metrics(quick).built
    shapes = [[v.shape for v in made.metrics_variables] for made in (plain, quick)]
    assert shapes[0] == shapes[1] and len(shapes[0]) > 5
    assert [entry.name for entry in _keras.flat_losses(quick)] == [entry.name for entry in _keras.flat_losses(plain)]
    unnamed = compiled(keras.Sequential([keras.Input((4,)), layers.Dense(3)]), "mse")
    _keras.build(unnamed, *batch[:1], targets(6, 3), None)  # its one loss has the name of the function, as in Keras
    assert [entry.name for entry in _keras.flat_losses(unnamed)] == ["mse"]
    wrong = model()
    with pytest.raises(pytest.fail.Exception):  # what is wrong is left to Keras to say
        _keras.build(wrong, inputs(6, 5), *batch[1:])


def test_model_symbolic_build_makes_the_variables_of_loss_and_metrics():
    model = compiled(keras.Sequential([layers.Dense(3)]), "mse", metrics=["mae"])
    model._symbolic_build(data_batch=(inputs(6, 4), targets(6, 3), None))
    assert model.built and model._compile_loss.built and model._compile_metrics.built


def test_optimizer_built_false_means_no_slots_and_can_be_set():
    model = compiled(dense(), "mse", optimizer="adam")
    assert model.optimizer.built is False
    with _keras._without_slots(model.optimizer):
        model._symbolic_build(data_batch=(inputs(6, 4), targets(6, 3), None))
    assert model.optimizer.built is False
    assert len(model.optimizer.variables) == 2  # iterations and learning rate


@pytest.mark.parametrize("name", ["train_function", "test_function", "predict_function"])
def test_model_keeps_its_traced_functions_by_these_names(name):
    model = compiled(dense(), "mse")
    assert getattr(model, name) is None
    {
        "train_function": lambda: model.train_on_batch(inputs(6, 4), targets(6, 3)),
        "test_function": lambda: model.test_on_batch(inputs(6, 4), targets(6, 3)),
        "predict_function": lambda: model.predict_on_batch(inputs(6, 4)),
    }[name]()
    function = getattr(model, name)
    assert callable(function)
    setattr(model, name, None)
    assert getattr(model, name) is None


def test_model_has_the_attributes_that_a_traced_function_depends_on():
    model = compiled(dense(), "mse", metrics=["mae"])
    assert model._compile_metrics is not None
    assert model.run_eagerly is False and model.jit_compile is False and model.steps_per_execution == 1
    assert model.distribute_strategy.num_replicas_in_sync == 1


def test_tensors_carry_keras_logits_or_come_from_sigmoid_and_softmax():
    found = []

    @tf.function
    def forward(x):
        for activation in ("sigmoid", "softmax"):
            output = layers.Activation(activation)(x)
            found.append(BACKEND.logits_of(output))
        found.append(BACKEND.logits_of(tf.nn.softmax(x)))
        found.append(BACKEND.logits_of(tf.nn.relu(x)))
        return x

    forward.get_concrete_function(tf.TensorSpec((6, 3)))
    assert [logits is not None for logits in found] == [True, True, True, False]


def test_an_output_of_an_activation_carries_keras_logits_and_others_do_not():
    x = tf.constant([[1.0, 2.0]])
    made = [layers.Activation(name)(x) for name in ("sigmoid", "softmax", "relu")]
    assert [BACKEND.takes_logits("categorical", output) for output in made] == [True, True, False]


def test_losses_of_keras_hold_their_arguments_in_fn_kwargs():
    assert _keras.options_of(keras.losses.BinaryCrossentropy(from_logits=True))["from_logits"] is True
    assert _keras.options_of(keras.losses.get("mse")) == {}


def test_a_wrapped_function_has_a_variable_holder_and_returns_what_stands_in_the_outputs_of_its_graph():
    variable = tf.Variable(2.0)
    trace = graph.trace(lambda x: tf.square(x * variable), [tf.TensorSpec(())])
    assert trace.function._variable_holder is not None
    root = trace.function.outputs[0]
    program = graph.Program(trace, [root.op.inputs[0], root])
    variable.assign(3.0)  # read anew
    values = program([np.float32(1.0)])
    assert [float(values[tensor.ref()]) for tensor in (root.op.inputs[0], root)] == [3.0, 9.0]
    assert [tensor is root for tensor in trace.graph.outputs] == [True]  # put back


def test_backend_set_keras_mask_is_what_losses_read():
    prediction = tf.identity(tf.constant([[1.0], [2.0]]))
    backend.set_keras_mask(prediction, tf.constant([True, False]))
    assert float(keras.losses.MeanSquaredError()(tf.zeros((2, 1)), prediction)) == 1.0


def test_global_seed_generator_has_this_name_and_a_state():
    keras.utils.set_random_seed(1)
    keras.random.normal((1,))
    generator = global_state.get_global_attribute("global_seed_generator")
    assert generator.state.shape == (2,)
    before = generator.state.numpy().tolist()
    keras.random.normal((1,))
    assert generator.state.numpy().tolist() != before


def test_class_weight_to_sample_weights():
    for y in (np.array([0, 2, 1]), np.array([[0], [2], [1]]), np.eye(3)[[0, 2, 1]]):
        made = data_adapter_utils.class_weight_to_sample_weights(y, {0: 0.5, 2: 9.0})
        np.testing.assert_array_equal(made, [0.5, 9.0, 1.0])


def test_loss_function_wrapper_and_get_object_name_do_what_compile_does():
    def some_loss(y_true, y_pred):
        return keras.ops.mean(keras.ops.square(y_true - y_pred), axis=-1)

    wrapped = LossFunctionWrapper(some_loss, name=get_object_name(some_loss))
    assert wrapped.name == "some_loss"
    assert float(wrapped(np.zeros((2, 2)), np.ones((2, 2)))) == 1.0


def test_variables_give_their_handles():
    variable = keras.Variable(3.0)
    assert variable.value.handle.dtype == tf.resource
    data = variable.value.handle._handle_data
    assert data.is_set and tf.as_dtype(data.shape_and_type[0].dtype) == tf.float32


# -- TensorFlow -----------------------------------------------------------------------------------------------------


def test_wrap_function_can_be_pruned_and_lists_its_captures():
    variable = tf.Variable(2.0)
    wrapped = tf.compat.v1.wrap_function(lambda x: variable * tf.square(x), [tf.TensorSpec(())])
    square = next(op for op in wrapped.graph.get_operations() if op.type == "Square").outputs[0]
    pruned = wrapped.prune([square], wrapped.outputs)
    assert [float(value) for value in pruned(tf.constant(5.0))] == [10.0]
    assert any(outer is variable.handle for outer, _ in wrapped.graph.captures)


def test_automatic_control_dependencies_order_a_read_after_a_write():
    variable = tf.Variable(1.0)

    def move(x):
        with AutomaticControlDependencies():
            variable.assign_add(1.0)
            return x * variable

    assert float(tf.compat.v1.wrap_function(move, [tf.TensorSpec(())])(tf.constant(1.0))) == 2.0
    [(handle, value)] = graph.variables(graph.moved(tf.compat.v1.wrap_function(move, [tf.TensorSpec(())]).graph))
    assert float(value) == 2.0
    variable.assign(9.0)
    graph.put_back([(handle, value)])
    assert float(variable) == 2.0


def test_tensorflow_counts_traces_by_code_and_we_put_the_count_back():
    def traced():
        return tf.function(lambda x: x + 1.0)(tf.constant(1.0))

    code = traced.__code__.co_consts[1]
    traced()
    count = _quiet._tracing_detectors()[code]._call_count
    with _quiet.retracing():
        traced()
        assert _quiet._tracing_detectors()[code]._call_count == count + 1
    assert _quiet._tracing_detectors()[code]._call_count == count


def test_functions_run_eagerly_inlines_functions_into_a_graph():
    inner = tf.function(lambda x: tf.square(x))
    trace = graph.trace(lambda x: inner(x) + 1.0, [tf.TensorSpec(())])
    types = {operation.type for operation in trace.graph.get_operations()}
    assert "Square" in types and not any("PartitionedCall" in kind for kind in types)
    assert not tf.config.functions_run_eagerly()


def test_operation_update_input_rewires_a_graph():
    with tf.Graph().as_default():
        x = tf.compat.v1.placeholder(tf.float32, ())
        y, z = tf.square(x), tf.abs(x)
        total = y + 1.0
        total.op._update_input(0, z)
        assert total.op.inputs[0] is z


def test_custom_gradients_show_in_the_attribute_of_their_identity():
    @tf.custom_gradient
    def doubled(x):
        return 2 * x, lambda gradient: gradient

    trace = graph.trace(lambda x: doubled(x), [tf.TensorSpec((3,))])
    marked = [operation for operation in trace.graph.get_operations() if has_own_gradient(operation)]
    assert [operation.type for operation in marked] == ["IdentityN"]


def test_a_test_function_goes_on_from_batch_to_batch_until_metrics_are_reset():
    """On which `_keras.evaluation` rests: `evaluate` is the test function, once a batch, after reset_metrics."""
    model = compiled(dense(), "mse")
    x, y = inputs(6, 4), targets(6, 3)
    before = model.test_function
    with _keras.evaluation(model, None) as evaluate:
        first, second = evaluate(x[:4], y[:4], None), evaluate(x[4:], y[4:], None)
    assert model.test_function is before
    assert first == model.evaluate(x[:4], y[:4], batch_size=4, verbose=0)
    assert second == model.evaluate(x, y, batch_size=4, verbose=0)


@pytest.mark.parametrize("kind", ["train", "test"])
def test_keras_functions_hold_the_functions_that_trace_a_batch_and_an_iterator(kind):
    model = compiled(dense(), "mse")
    getattr(model, f"make_{kind}_function")()
    held = tensorflow_backend._held(getattr(model, f"{kind}_function"))
    assert isinstance(held["multi_step_on_iterator"], tf.types.experimental.PolymorphicFunction)
    assert isinstance(held["one_step_on_data"].__wrapped__, tf.types.experimental.PolymorphicFunction)


def test_a_trace_made_ahead_is_the_one_that_fit_uses():
    traces = []

    class Counts(keras.Model):
        def train_step(self, data):
            traces.append(1)
            return super().train_step(data)

    model = compiled(dense(kind=Counts), "mse")
    batch = (inputs(6, 4), targets(6, 3))
    model.make_train_function()
    data = tf.data.Dataset.from_tensors(batch)
    assert BACKEND.trace_ahead(model.train_function, iter(data), None) is True
    count = len(traces)
    assert BACKEND.trace_ahead(model.train_function, iter(data), None) is False
    model.fit(data, verbose=0)
    assert len(traces) == count > 0
    assert BACKEND.trace_ahead(model.train_function, iter([(*batch, None)]), (*batch, None)) is True


def test_counts_of_automatic_names_are_one_dictionary():
    name = layers.Dense(1).name
    counts = global_state.get_global_attribute("object_name_uids")
    assert counts["dense"] >= 1 and layers.Dense(1).name == f"dense_{counts['dense'] - 1}" != name


def test_eager_random_numbers_come_from_the_rng_of_the_context():
    keras.utils.set_random_seed(3)
    with _keras.unnoticed():
        before = context.context()._rng.getstate()
        tf.random.uniform(())
        assert context.context()._rng.getstate() != before
    assert context.context()._rng.getstate() == before


def test_an_output_knows_the_layer_that_made_it():
    assert dense().outputs[0]._keras_history.operation.name == "o"
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.Softmax(name="last")])
    assert _keras.last_layer(model).name == "last"
    assert _keras.last_layer(two_outputs()) is None
