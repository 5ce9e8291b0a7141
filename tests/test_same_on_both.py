"""The same reports on TensorFlow and on JAX, of models that nobody wrote: KERAS_BACKEND=jax."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import random_models
from models import ON_TENSORFLOW

pytestmark = pytest.mark.skipif(ON_TENSORFLOW, reason="on JAX, beside a process with TensorFlow")

SEEDS = range(24)


@pytest.fixture(scope="module")
def on_tensorflow():
    """What is told there of each seed."""
    pytest.importorskip("tensorflow", exc_type=ImportError)
    root = Path(__file__).parent.parent
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": str(root)}
    command = [sys.executable, random_models.__file__, *map(str, SEEDS)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(zip(SEEDS, map(json.loads, found.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_model_has_the_same_report(seed, on_tensorflow):
    there, here = on_tensorflow[seed], random_models.of_seed(seed)
    near = 1e-5 * max(here["magnitude"], 1e-9)
    for one in (there, here):
        assert one["adds_up"] and one["total"] == pytest.approx(one["said"], rel=0, abs=near)
    assert here["said"] == pytest.approx(there["said"], rel=0, abs=near)
    assert list(here["terms"]) == list(there["terms"]) and here["findings"] == there["findings"]
    for name, term in here["terms"].items():
        other = there["terms"][name]
        shares, others = term.pop("shares"), other.pop("shares")
        assert term == other and shares.keys() == others.keys()
        for axis in shares:
            np.testing.assert_allclose(shares[axis], others[axis], rtol=1e-3, atol=near, err_msg=f"{name}, {axis}")


def test_there_are_models_of_every_kind(on_tensorflow):
    kinds = {term["exactness"] for one in on_tensorflow.values() for term in one["terms"].values()}
    assert kinds == {"exact", "ratio"}
    assert len({json.dumps(one["terms"]) for one in on_tensorflow.values()}) == len(SEEDS)
