"""The same numbers on every backend that is installed: one process for each, since Keras takes one a process."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from loss_values import CASES, CENTERS_AFTER, measure

pytestmark = pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
TESTS = Path(__file__).parent


def run(backend: str, *arguments: str) -> str:
    """What a Python with this backend prints."""
    path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"}
    result = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=300, env=environment, cwd=TESTS
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def tensorflow_numbers():
    return measure()


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_another_backend_gives_the_same_values_gradients_and_centers(backend, tensorflow_numbers):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    found = json.loads(run(backend, "loss_values.py").splitlines()[-1])
    assert found.keys() == tensorflow_numbers.keys() and len(found) == 2 * len(CASES) + 2 * len(CENTERS_AFTER) + 1
    for case in CASES:
        np.testing.assert_allclose(found[case.name], case.expected, rtol=case.rtol, atol=1e-7, err_msg=case.name)
    for name, expected in tensorflow_numbers.items():
        np.testing.assert_allclose(found[name], expected, rtol=2e-5, atol=1e-6, err_msg=name)


def test_centers_move_in_place_on_jax_too():
    """A compiled step that donates its state, as that of `fit`, needs no memory in proportion to the centers."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed")
    code = """
import jax, keras, numpy as np
from lossviz.layers import CenterLoss
layer = CenterLoss(100_000)
layer.build((None, 16), (None,))
def step(state, x, y):
    _, state = layer.stateless_call([], state, x, y, training=True)
    return state
state = [v.value for v in layer.non_trainable_variables]
x, y = np.ones((8, 16), "float32"), np.arange(8)
memory = jax.jit(step, donate_argnums=0).lower(state, x, y).compile().memory_analysis()
print(memory.temp_size_in_bytes, memory.alias_size_in_bytes)
"""
    temporary, reused = map(int, run("jax", "-c", code).split())
    assert temporary < 100_000 < reused == 100_000 * 16 * 4


def test_losses_and_layers_import_keras_and_nothing_else_of_lossviz():
    if importlib.util.find_spec("jax") is None:
        pytest.skip("jax is not installed, and Keras on TensorFlow imports TensorFlow itself")
    names = run("jax", "-c", "import sys, lossviz.losses, lossviz.layers\nprint(*sys.modules)").split()
    assert "tensorflow" not in names
    ours = {name for name in names if name.startswith("lossviz")}
    assert ours == {"lossviz", "lossviz._inputs", "lossviz.layers", "lossviz.losses"}
