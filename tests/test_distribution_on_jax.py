"""A model whose batches JAX spreads over devices: the report is that of the whole batch. KERAS_BACKEND=jax.

Devices are forced on this computer, in a process of its own.
"""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from models import ON_TENSORFLOW

pytestmark = pytest.mark.skipif(ON_TENSORFLOW, reason="JAX's own; several replicas on TensorFlow are refused")

CODE = """
    import json, sys
    import jax, keras, numpy as np
    import lossviz
    if sys.argv[1] == "2":
        devices = keras.distribution.list_devices()
        assert len(devices) == 2
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=devices))
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 4)).astype("float32"), np.eye(3, dtype="float32")[rng.integers(0, 3, 8)]
    last = keras.layers.Dense(3, activation="softmax", name="o")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(8, kernel_regularizer="l2"), last])
    model.compile("sgd", loss="categorical_crossentropy")
    report = lossviz.explain(model, x, y, sample_weight=np.arange(8).astype("float32")).check()
    history = model.fit(x, y, verbose=0, callbacks=[lossviz.LossParts(per_class=True)]).history
    found = {"total": report.total, "samples": list(report.by("batch").values())}
    found |= {name: values[0] for name, values in history.items()}
    print(json.dumps(found))
"""


def told(devices: int) -> dict:
    flags = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    command = [sys.executable, "-c", textwrap.dedent(CODE), str(devices)]
    return json.loads(subprocess.run(command, env=flags, capture_output=True, text=True, check=True).stdout)


def test_shares_and_parts_are_those_of_one_device():
    one, two = told(1), told(2)
    assert one.keys() == two.keys()
    for name in one:
        assert two[name] == pytest.approx(one[name], rel=1e-5, abs=1e-7), name
