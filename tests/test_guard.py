"""`lossviz.guard`: what it sees in scripts of different style, and that nothing else is different with it."""

import contextlib
import gc
import random
import threading
import weakref
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from guarded_scripts import LARGE, SCRIPTS, X, Y, net
from models import on_another_backend

import lossviz
from lossviz.ask import guard as guard_module


@pytest.fixture(scope="module", autouse=True)
def deterministic():
    from tensorflow.python.framework import config

    before = config.is_op_determinism_enabled()
    tf.config.experimental.enable_op_determinism()
    yield
    if not before:
        config.disable_op_determinism()


@pytest.fixture(autouse=True)
def seeded():
    keras.utils.set_random_seed(7)


def state_of(name: str, guarded: bool):
    """All that a script leaves behind: results, variables, their names, and what is drawn and named next."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(7)
    with lossviz.guard() if guarded else contextlib.nullcontext() as watch:
        model, *results = SCRIPTS[name][0]()
    variables = [*model.variables, *(model.optimizer.variables if model.compiled and model.optimizer else ())]
    left = {
        "results": results,
        "values": [np.asarray(variable).tolist() for variable in variables],
        "paths": [variable.path for variable in variables],
        "names": [keras.layers.Dense(1).name, keras.Sequential().name, keras.optimizers.SGD().name],
        "next": [random.random(), np.random.random(), float(keras.random.uniform(())), float(tf.random.uniform(()))],
        "attributes": sorted(vars(model)),
    }
    return left, watch


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_the_same_with_a_guard_and_its_faults_are_seen(name, capsys):
    _, rules, says = SCRIPTS[name]
    without, _ = state_of(name, False)
    capsys.readouterr()
    left, watch = state_of(name, True)
    for part, value in without.items():
        assert repr(left[part]) == repr(value), part
    printed = capsys.readouterr()
    assert {finding.rule for finding in watch.findings if finding.severity != "hint"} == rules
    assert printed.out == ""
    assert printed.err.count("error: out-of-reach") == len([f for f in watch.findings if f.rule == "out-of-reach"])
    assert says in printed.err if says else "does not see" not in printed.err


def faulty(loss: str = "mse", **options) -> keras.Model:
    model = net()
    model.compile("sgd", loss, **options)
    return model


def untouched() -> bool:
    """Are Keras's own functions where they were?"""
    return not {"make_train_function", "make_test_function"} & set(vars(keras.Model)) and not guard_module._active


def test_nothing_is_left_in_keras_or_in_a_model():
    model, other = faulty(), faulty()
    with lossviz.guard():
        assert not untouched()
        model.fit(X, LARGE, verbose=0)
        other.make_train_function()  # and never called
    assert untouched()
    for one in (model, other):
        assert not getattr(one.train_function, "of_guard", False) and "_lossviz_kept" not in vars(one)
    assert len(other.fit(X, LARGE, verbose=0).history["loss"]) == 1


def test_the_line_that_called_keras_is_named(capsys):
    with lossviz.guard() as watch:
        faulty().evaluate(X, LARGE, verbose=0)
    ((place, finding),) = watch.found
    source = Path(__file__).read_text(encoding="utf-8").splitlines()
    assert "faulty().evaluate(X, LARGE" in source[place.line - 1] and place.file == __file__
    assert capsys.readouterr().err.splitlines() == [f"lossviz: {place}", *str(finding).splitlines()]
    assert place.call == "evaluate"


def test_error_stops_before_the_first_step_and_hints_stop_nothing(capsys):
    model = faulty()
    before = [np.asarray(variable) for variable in model.variables]
    batches = []
    callback = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: batches.append(batch))
    stopped = pytest.raises(lossviz.GuardError, match="before its first step: out-of-reach")
    with stopped as caught, lossviz.guard(error=True):
        model.fit(X, LARGE, verbose=0, callbacks=[callback])
    assert [finding.rule for finding in caught.value.findings] == ["out-of-reach"]
    assert batches == [] and untouched()
    assert all(np.array_equal(a, b) for a, b in zip(before, model.variables, strict=True))
    with lossviz.guard(error=True) as watch:
        faulty("binary_crossentropy").fit(X, Y, verbose=0)
    assert watch.findings == ()


def test_a_fault_is_printed_once_whatever_sees_it(capsys):
    model = faulty()
    with lossviz.guard() as outer, lossviz.guard() as inner:
        model.fit(X, LARGE, validation_data=(X, LARGE), epochs=2, verbose=0)
        model.fit(X, LARGE, verbose=0)
        model.evaluate(X, LARGE, verbose=0)
    assert capsys.readouterr().err.count("out-of-reach") == 1
    assert len(outer.findings) == len(inner.findings) == 1


def test_an_outer_guard_may_stop_what_an_inner_one_lets_pass(capsys):
    with pytest.raises(lossviz.GuardError), lossviz.guard(error=True), lossviz.guard():
        faulty().train_on_batch(X, LARGE)
    assert untouched()


def test_batches_of_another_dtype_are_looked_at_again(capsys):
    model = faulty()
    with lossviz.guard() as watch:
        model.fit(X, Y, verbose=0)
        assert watch.findings == ()
        model.fit(X, LARGE.astype("int32"), verbose=0)
    assert [finding.rule for finding in watch.findings] == ["out-of-reach"]


def test_another_thread_is_another_matter(capsys):
    inside, done = threading.Event(), threading.Event()
    found = []

    def train():
        inside.wait()
        found.append(faulty().train_on_batch(X, LARGE))
        done.set()

    thread = threading.Thread(target=train)
    thread.start()
    with lossviz.guard(error=True) as watch:
        inside.set()
        assert done.wait(100)
    thread.join()
    assert len(found) == 1 and watch.findings == () and untouched()


def test_guards_of_two_threads_end_in_any_order(capsys):
    first, second = lossviz.guard(), lossviz.guard()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not untouched()
    faulty().train_on_batch(X, LARGE)
    second.__exit__(None, None, None)
    assert untouched()
    assert (len(first.findings), len(second.findings)) == (0, 1)


@pytest.mark.parametrize("error", [ValueError("broken\nin two lines"), MemoryError(), RuntimeError("x" * 5000)])
def test_a_failure_of_ours_is_one_line_and_training_goes_on(error, monkeypatch, capsys):
    def broken(*args, **kwargs):
        raise error

    monkeypatch.setattr("lossviz.ask.lint.lint", broken)
    with lossviz.guard(error=True):
        history = faulty().fit(X, LARGE, epochs=2, verbose=0).history
    assert len(history["loss"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("lossviz: guard does not see the loss of model 'functional") and len(line) < 400


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interruption_while_looking_ends_the_run(error, monkeypatch):
    def interrupted(*args, **kwargs):
        raise error

    monkeypatch.setattr("lossviz.ask.lint.lint", interrupted)
    model = faulty()
    with pytest.raises(error), lossviz.guard():
        model.fit(X, LARGE, verbose=0)
    assert untouched()


def test_an_interruption_of_training_passes(capsys):
    def stop(batch, logs):
        raise KeyboardInterrupt

    model = faulty()
    with pytest.raises(KeyboardInterrupt), lossviz.guard():
        model.fit(X, LARGE, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_batch_begin=stop)])
    assert untouched() and not getattr(model.train_function, "of_guard", False)


def test_what_data_or_keras_raise_is_raised_as_without_a_guard(capsys):
    def batches():
        yield X[:8], LARGE[:8]
        raise OSError("the disk is gone")

    def wrong_shape():
        faulty().fit(X, np.zeros((40, 3, 2)), verbose=0)

    def no_data():
        faulty().fit(tf.data.Dataset.from_tensor_slices((X, LARGE)).take(0), verbose=0)

    def in_the_middle():
        faulty(steps_per_execution=2).fit(batches(), verbose=0, steps_per_epoch=4)

    for act in (lambda: faulty().fit(batches(), verbose=0, steps_per_epoch=5), wrong_shape, no_data, in_the_middle):
        raised = []
        for context in (contextlib.nullcontext(), lossviz.guard()):
            with pytest.raises(Exception) as caught, context:
                act()
            raised.append(caught.value)
        assert type(raised[0]) is type(raised[1])
    assert untouched()


def test_what_keras_refuses_is_explained_where_a_rule_knows_it(capsys):
    model = net(None, 3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    with lossviz.guard() as watch, contextlib.suppress(Exception):
        model.fit(X, 7 * Y, verbose=0)
    assert "labels-range" in {finding.rule for finding in watch.findings}


def test_a_stderr_that_is_gone_stops_nothing(monkeypatch):
    for stream in (None, open("/dev/full", "w")):  # noqa: SIM115
        monkeypatch.setattr("sys.stderr", stream)
        with lossviz.guard() as watch:
            faulty().train_on_batch(X, LARGE)
        assert len(watch.findings) == 1


def test_what_the_model_prints_is_printed_as_often_as_without(capsys):
    class Talks(keras.layers.Layer):
        def call(self, x):
            print("called")
            return x

    counts = []
    for context in (contextlib.nullcontext(), lossviz.guard()):
        model = keras.Sequential([Talks(), keras.layers.Dense(1, activation="sigmoid")])
        model.compile("sgd", "mse")
        with context:
            model.fit(X, LARGE, verbose=0)
        counts.append(capsys.readouterr().out.count("called"))
    assert counts[0] == counts[1] > 0


def test_a_class_that_makes_its_own_function_is_left_alone(capsys):
    class Own(keras.Model):
        def make_train_function(self, force=False):
            self.train_function = lambda iterator: {"loss": tf.constant(float(len(next(iterator))))}

    entry = keras.Input((4,))
    model = Own(entry, keras.layers.Dense(1)(entry))
    model.compile("sgd", "mse")
    with lossviz.guard() as watch:
        assert model.train_on_batch(X, LARGE) == 3
    assert watch.findings == ()


def test_explain_inside_is_not_looked_at_and_models_can_go(capsys):
    model = faulty()
    with lossviz.guard() as watch:
        lossviz.explain(model, X, LARGE, fresh=True)
        assert watch.findings == ()
        model.train_on_batch(X, LARGE)
        gone = weakref.ref(model)
        del model
        keras.backend.clear_session()
        gc.collect()
        assert gone() is None


def test_another_backend_is_refused_in_one_sentence():
    code = """
        import lossviz
        try:
            with lossviz.guard(): pass
        except RuntimeError as error:
            print(error)
    """
    found = on_another_backend(code, "torch")
    assert found.startswith("lossviz.guard reads the graphs of TensorFlow and JAX, and Keras runs on 'torch' here.")
