"""`lossviz.testing.assert_sound`, as people's tests call it."""

import numpy as np
import pytest
from models import compiled, dense, inputs

from lossviz.testing import assert_sound

X, Y = inputs(12, 4), 20 + inputs(12, 3)


@pytest.fixture(scope="module")
def faulty():
    """Three sigmoids that should give 20."""
    return compiled(dense(activation="sigmoid"), "mse")


def test_a_sound_model_passes():
    assert_sound(compiled(dense(), "mse"), X, Y)


def test_findings_fail_with_their_way_out(faulty):
    with pytest.raises(AssertionError) as caught:
        assert_sound(faulty, X, Y)
    text = str(caught.value)
    assert text.startswith(f"the loss of model {faulty.name!r} has 1 finding:\n\nerror: out-of-reach: o: ")
    assert "\nFix: Leave the last activation out" in text


def test_what_is_allowed_passes(faulty):
    assert_sound(faulty, X, Y, allow={"out-of-reach"})
    assert_sound(faulty, X, Y, allow=["out-of-reach", "imbalance"], batch_size=None)


def test_severity_says_from_where_on_findings_fail():
    model = compiled(dense(1, kernel_regularizer="l2"), "mse")
    model.layers[-1].trainable = False
    y = np.zeros((12, 1), "float32")
    assert_sound(model, X, y)
    assert_sound(model, X, y, severity="error")
    with pytest.raises(AssertionError, match="hint: frozen-regulariser"):
        assert_sound(model, X, y, severity="hint")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"severity": "bad"}, "severity must be one of 'error', 'warning', 'hint', got 'bad'"),
        ({"allow": "broadcast"}, "allow='broadcast' is one string"),
        ({"allow": ["braodcast"]}, "allow names 'braodcast', which is no rule"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(faulty, options, message):
    with pytest.raises(ValueError, match=message):
        assert_sound(faulty, X, Y, **options)
