"""`explain` against `model.test_on_batch` on the full U-Net: time and peak memory of a second call, time of a first.

A first call and a peak of memory are those of a process of its own; the two kinds of processes take turns.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.timing import compare, side_by_side, stopwatch

BACKENDS = ("tensorflow",)
AT_MOST = {"again": 3.0, "memory": 3.0, "first": 2.0}
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
        return [again, first]
    memory = compare(
        f"explain, peak memory of the second call, {shape}", "second test_on_batch",
        *([run[name]["megabytes"] for run in runs] for name in order), unit="MB", target=AT_MOST["memory"],
        note="above what the process held before its first call, with model and data",
    )  # fmt: skip
    return [again, memory, first]


def _calls(batch: int, size: int) -> dict[str, Any]:
    import lossviz
    from lossviz import examples

    x, y = examples.scenes(batch, size)
    model = examples.unet(size)
    model.compile("adam", "binary_crossentropy")
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
