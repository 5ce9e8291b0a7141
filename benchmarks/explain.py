"""`explain` against `model.test_on_batch`: time and peak memory of a second call and time of a first on the full U-Net;
how much longer a second call takes on small batches of large graphs; and a model with a layer that it never calls.

A first call and a peak of memory are those of a process of its own; the two kinds of processes take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.timing import alternately, compare, side_by_side, stopwatch

BACKENDS = ("tensorflow", "jax")
AT_MOST = {"again": 2.0, "memory": 1.7, "first": 2.0, "beyond": 1.0, "spare": 1.1}
#: Milliseconds that a second call on a small batch may take beyond `test_on_batch`.
BEYOND = 10.0
BATCH, SIZE = 4, 256


def measure(tiny: bool = False) -> list[dict[str, Any]]:
    batch, size = (2, 16) if tiny else (BATCH, SIZE)
    pairs, processes = (2, 1) if tiny else (30, 5)
    shape = f"U-Net, {batch} × {size} × {size} × 5"
    calls = _calls(batch, size)
    again = side_by_side(
        f"explain, second call, {shape}", calls["explain"], "second test_on_batch", calls["test_on_batch"],
        AT_MOST["again"], pairs=pairs,
    )  # fmt: skip
    order = ("explain", "test_on_batch")
    runs = [{name: _process(name, batch, size) for name in order[:: 1 if k % 2 else -1]} for k in range(processes)]
    first = compare(
        f"explain, first call, {shape}", "first test_on_batch",
        *([1000 * run[name]["first"] for run in runs] for name in order), unit="ms", target=AT_MOST["first"],
        note="whole processes; the first test_on_batch that explain asks for is part of its first call",
    )  # fmt: skip
    if runs[0]["explain"]["megabytes"] is None:
        return [again, first, *_large_graphs(tiny), _spare_layer(tiny)]
    memory = compare(
        f"explain, peak memory of the second call, {shape}", "second test_on_batch",
        *([run[name]["megabytes"] for run in runs] for name in order), unit="MB", target=AT_MOST["memory"],
        note="above what the process held before its first call, with model and data",
    )  # fmt: skip
    return [again, memory, first, *_large_graphs(tiny), _spare_layer(tiny)]


def _large_graphs(tiny: bool) -> list[dict[str, Any]]:
    from benchmarks import graphs

    small = {"depth": 1, "steps": 4, "width": 8} if tiny else {}
    models = {
        "GPT, 6 layers, 2 × 32": lambda: graphs.gpt(**small),
        "masked LSTM, 4 × 20": lambda: graphs.masked_lstm(**({"steps": 4} if tiny else {})),
        "TCN, 8 blocks, 4 × 64": lambda: graphs.tcn(**({"blocks": 1, "steps": 8} if tiny else {})),
    }
    return [_beyond(name, *make(), pairs=2 if tiny else 30) for name, make in models.items()]


def _beyond(name: str, model: Any, x: Any, y: Any, pairs: int) -> dict[str, Any]:
    calls = _side_by_side(model, x, y)
    ours, keras = alternately(calls["explain"], calls["test_on_batch"], pairs=pairs)
    return compare(
        f"explain, second call beyond test_on_batch, {name}", f"{BEYOND:g} ms", ours - keras, np.full(pairs, BEYOND),
        unit="ms", target=AT_MOST["beyond"], note=f"test_on_batch itself takes {np.median(keras):.3g} ms",
    )  # fmt: skip


def _spare_layer(tiny: bool) -> dict[str, Any]:
    from benchmarks import graphs

    spare, plain = (_side_by_side(*graphs.with_spare(spare))["explain"] for spare in (True, False))
    return side_by_side(
        "explain, second call, a model with a layer that it never calls", spare, "without that layer", plain,
        AT_MOST["spare"], pairs=2 if tiny else 30,
    )  # fmt: skip


def _calls(batch: int, size: int) -> dict[str, Any]:
    from lossviz import examples

    x, y = examples.scenes(batch, size)
    model = examples.unet(size)
    model.compile("adam", "binary_crossentropy")
    return _side_by_side(model, x, y)


def _side_by_side(model: Any, x: Any, y: Any) -> dict[str, Any]:
    import lossviz

    lossviz.explain  # noqa: B018  # loads TensorFlow's part of the package
    return {"explain": lambda: lossviz.explain(model, x, y), "test_on_batch": lambda: model.test_on_batch(x, y)}


def _process(name: str, batch: int, size: int) -> dict[str, float | None]:
    command = [sys.executable, "-m", "benchmarks.explain", name, str(batch), str(size)]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return json.loads(found.stdout)


def _alone(name: str, batch: int, size: int) -> dict[str, float | None]:
    """In a process of its own: seconds of the first call, and the peak of the second in megabytes (Linux only)."""
    call = _calls(batch, size)[name]
    before = _status("VmRSS")
    first = stopwatch(call)
    if before is None:
        return {"first": first, "megabytes": None}
    Path("/proc/self/clear_refs").write_text("5")  # begins the count of the peak anew
    call()
    return {"first": first, "megabytes": (_status("VmHWM") - before) / 1e3}


def _status(field: str) -> float | None:
    """A line of /proc/self/status, in kB."""
    file = Path("/proc/self/status")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((float(line.split()[1]) for line in lines if line.startswith(field)), None)


if __name__ == "__main__":
    print(json.dumps(_alone(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
