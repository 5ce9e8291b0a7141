"""The program: every kind that TensorFlow is lowered to has its row, and a row says what NumPy and the numbers say.

No list of the package makes a case here: each operation is one line of TensorFlow, its linearity is tried with
numbers, and where its elements go is tried by moving one of them.
"""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from lossviz.backend import graph
from lossviz.backend import tensorflow_program as lowering
from lossviz.backend.program import ancestors
from lossviz.engine import axes, ops

SHAPE = (3, 4)
W = tf.constant(np.random.default_rng(1).uniform(0.5, 2.0, SHAPE).astype("float32"))

#: One operation each, of a 3 x 4 array.
OPERATIONS = {
    "identity": tf.identity,
    "add": lambda t: t + W,
    "sub": lambda t: W - t,
    "add_n": lambda t: tf.add_n([t, W]),
    "bias": lambda t: tf.nn.bias_add(t, W[0]),
    "neg": tf.negative,
    "mul": lambda t: W * t,
    "mul_no_nan": lambda t: tf.math.multiply_no_nan(t, W),
    "div": lambda t: t / W,
    "div_no_nan": lambda t: tf.math.divide_no_nan(t, W),
    "divided": lambda t: W / t,
    "square": tf.square,
    "abs": tf.abs,
    "exp": tf.exp,
    "log": tf.math.log,
    "maximum": lambda t: tf.maximum(t, W),
    "relu": tf.nn.relu,
    "power": lambda t: t**3.0,
    "sigmoid": tf.sigmoid,
    "softmax": tf.nn.softmax,
    "log_softmax": tf.nn.log_softmax,
    "select": lambda t: tf.where(W > 1.0, t, W),
    "cast": lambda t: tf.cast(t, tf.float64),
    "reshape": lambda t: tf.reshape(t, [2, 6]),
    "expand": lambda t: t[:, None],
    "squeeze": lambda t: tf.squeeze(tf.reshape(t, [3, 1, 4]), 1),
    "transpose": tf.transpose,
    "broadcast": lambda t: tf.broadcast_to(t, [2, 3, 4]),
    "tile": lambda t: tf.tile(t, [2, 1]),
    "slice": lambda t: t[1:, ::2],
    "strided back": lambda t: t[::-1, 1],
    "tf.slice": lambda t: tf.slice(t, [0, 1], [2, 3]),
    "split": lambda t: tf.split(t, 2, axis=1)[1],
    "split by sizes": lambda t: tf.split(t, [1, 3], axis=1)[1],
    "unstack": lambda t: tf.unstack(t, axis=1)[2],
    "stack": lambda t: tf.stack([t, W], axis=1),
    "concat": lambda t: tf.concat([t, W], axis=0),
    "gather": lambda t: tf.gather(t, [2, 0], axis=1),
    "gather_nd": lambda t: tf.gather_nd(t, [[0, 1], [2, 3]]),
    "pad": lambda t: tf.pad(t, [[1, 0], [0, 1]]),
    "pad with 1": lambda t: tf.pad(t, [[1, 0], [0, 1]], constant_values=1.0),
    "reverse": lambda t: tf.reverse(t, [1]),
    "roll": lambda t: tf.roll(t, 1, axis=0),
    "sum": lambda t: tf.reduce_sum(t, 1),
    "mean": lambda t: tf.reduce_mean(t, 0, keepdims=True),
    "max": lambda t: tf.reduce_max(t, 1),
    "prod": lambda t: tf.reduce_prod(t, 1),
    "norm": lambda t: tf.norm(t, axis=1),
    "matmul": lambda t: tf.matmul(t, W, transpose_b=True),
    "einsum": lambda t: tf.einsum("ij,ij->i", t, W),
    "einsum with dots": lambda t: tf.einsum("...j,j->...", t, W[0]),
    "einsum with other dots": lambda t: tf.einsum("i...,...->...i", t, W[0]),
    "cumsum": lambda t: tf.cumsum(t, axis=1),
    "sort": lambda t: tf.sort(t, axis=1),
    "scatter": lambda t: tf.scatter_nd([[2], [0]], t[:2], [4, 4]),
    "scatter into": lambda t: tf.tensor_scatter_nd_add(t, [[0, 0]], [1.0]),
    "segments": lambda t: tf.math.segment_sum(t, [0, 0, 1]),
    "unsorted segments": lambda t: tf.math.unsorted_segment_sum(t, [1, 0, 1], 2),
    "convolution": lambda t: tf.nn.conv1d(t[None], tf.ones((2, 4, 3)), 1, "SAME"),
    "convolution of each channel": lambda t: tf.nn.depthwise_conv2d(
        t[None, None], tf.ones((1, 2, 4, 1)), (1, 1, 1, 1), "SAME"
    ),
    "average of a window": lambda t: tf.nn.avg_pool1d(t[None], 2, 1, "VALID"),
    "largest of a window": lambda t: tf.nn.max_pool1d(t[None], 2, 1, "VALID"),
    "diagonal": lambda t: tf.linalg.diag_part(tf.matmul(t, W, transpose_b=True)),
    "stop": lambda t: tf.stop_gradient(t),
}


def lowered(operation):
    """The program of one operation, its result and its input, and the function itself."""
    traced = graph.trace(lambda t: tf.identity(operation(t)), [tf.TensorSpec(SHAPE)])
    program = lowering.TensorFlowProgram(traced)
    root, feed = program.value(traced.function.outputs[0]), program.feeds[0]
    run = program.runner([root], [feed])
    return root, feed, lambda array: run([array])[0].astype(float)


def linear_by_table(root, feed) -> bool:
    """Is every operation on the way from the feed linear, as the table says? (Independent inputs do not matter.)"""
    moving = {feed}
    for op in ancestors([root]):
        at = [k for k, value in enumerate(op.inputs) if value in moving]
        if not at or op.info.get("by_shape"):
            continue
        linear = ops.linear_in(op)
        first = at[-1] < op.info.get("linear", 1)
        if not {"all": True, "one": len(at) == 1, "choices": 0 not in at, "first": first}.get(linear, False):
            return False
        moving.update(op.outputs)
    return True


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_the_table_calls_linear_is_linear_in_numbers(name):
    """f(a) + f(b) - f(0) = f(a + b) for arrays of both signs; the table never calls linear what is not."""
    root, feed, run = lowered(OPERATIONS[name])
    rng = np.random.default_rng(0)
    a, b = (rng.uniform(0.2, 1.0, SHAPE) * sign for sign in (1, -1.5))
    with np.errstate(all="ignore"):
        both, apart = run(a + b), run(a) + run(b) - run(np.zeros(SHAPE))
    numbers = bool(np.allclose(both, apart, rtol=1e-4, atol=1e-5))
    table = linear_by_table(root, feed)
    if name == "stop":  # linear in numbers, and no derivative passes
        assert (table, numbers) == (False, True)
    else:
        assert table == numbers


@pytest.mark.parametrize("name", OPERATIONS)
def test_names_that_are_proposed_stand_where_elements_go(name):
    """If an axis of the result is named, moving one element of that position moves nothing at other positions."""
    root, feed, run = lowered(OPERATIONS[name])
    start = axes.named(SHAPE, ("batch", "class"))
    dims = ops.propagate(ancestors([root]), {feed: start})[root]
    rng = np.random.default_rng(2)
    base = np.sort(rng.uniform(0.5, 1.5, SHAPE), axis=1)  # so that sorting moves nothing here
    before = run(base)
    mixes = {"softmax", "log_softmax"}  # over the class axis, which counts as part of the prediction
    for axis, position in itertools.chain.from_iterable(((k, i) for i in range(SHAPE[k])) for k in range(2)):
        called = ("batch", "class")[axis]
        if name in mixes and called == "class":
            continue
        moved = base.copy()
        moved[(slice(None),) * axis + (position,)] += 1e-2
        changed = ~np.isclose(run(moved), before, rtol=1e-6)
        for d, dim in enumerate(dims):
            if [atom.name for atom in dim] == [called]:
                elsewhere = [k for k, label in enumerate(dim[0].labels) if label != position]
                assert not np.take(changed, elsewhere, axis=d).any(), (called, position)


def test_every_kind_that_tensorflow_is_lowered_to_has_a_row():
    named = {*lowering._KINDS.values(), "other", "mix", "reduce", "custom", "scatter", "window", "fresh"}
    for operation in OPERATIONS.values():
        root, _, _ = lowered(operation)
        named |= {op.kind for op in ancestors([root])}
    assert named == set(ops.KINDS)


def test_a_value_knows_its_numbers_only_where_no_batch_can_change_them():
    traced = graph.trace(lambda t: t * tf.constant([1.0, 2.0]), [tf.TensorSpec((2,))])
    program = lowering.TensorFlowProgram(traced)
    product = next(op for op in ancestors([program.value(traced.function.outputs[0])]) if op.kind == "mul")
    known = [value.known for value in product.inputs]
    assert [k for k in known if k is None] == [None] and [1.0, 2.0] in [k.tolist() for k in known if k is not None]


def test_operations_of_the_forward_pass_are_marked():
    traced = graph.trace(lambda t: tf.reduce_sum(tf.square(t)), [tf.TensorSpec((2,))])
    squared = next(op for op in traced.graph.get_operations() if op.type == "Square")
    traced.forward = {squared.name}
    program = lowering.TensorFlowProgram(traced)
    marked = {op.word: op.forward for op in ancestors([program.value(traced.function.outputs[0])])}
    assert marked["Square"] and not marked["Sum"]


def test_a_derivative_in_a_direction_is_that_of_the_jacobian():
    matrix = np.random.default_rng(3).normal(size=(4, 2)).astype("float32")
    traced = graph.trace(lambda t: tf.square(tf.matmul(t, matrix)), [tf.TensorSpec(SHAPE)])
    program = lowering.TensorFlowProgram(traced)
    root, feed = program.value(traced.function.outputs[0]), program.feeds[0]
    kept, (direction,), tangent = program.tangent(root, [feed])
    x, v = np.random.default_rng(4).normal(size=(2, *SHAPE))
    found = program.runner([tangent], [feed, direction])([x, v])[0]
    assert kept == [0]
    np.testing.assert_allclose(found, 2 * (x @ matrix) * (v @ matrix), rtol=1e-4)


def test_what_is_fed_can_be_fetched_and_need_not_be_read():
    traced = graph.trace(lambda a, b: (a + 1.0) * tf.ones_like(b), [tf.TensorSpec((2,))] * 2)
    run = traced.runner([traced.feeds[1], traced.function.outputs[0]], traced.feeds)
    fed, made = run([np.array([1.0, 2.0]), np.array([5.0, 6.0])])
    assert (fed.tolist(), made.tolist()) == ([5.0, 6.0], [2.0, 3.0])


def test_a_bound_of_rounding_knows_slopes_that_come_in_slices():
    traced = graph.trace(lambda t: tf.reduce_sum(tf.gather(t * 1.0, [0, 2])), [tf.TensorSpec((3,))])
    bounds = graph.rounding(traced, traced.function.outputs[0], [np.array([1.0, 2.0, 3.0], "float32")])
    bound = bounds["float32"]
    eps = np.finfo("float32").eps
    assert 4 * eps <= bound <= 40 * eps
