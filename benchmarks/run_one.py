"""One benchmark in this process: `python -m benchmarks.run_one NAME FILE [--tiny]`, as `python -m benchmarks` does."""

from __future__ import annotations

import importlib
import json
import os
import platform
import sys
from pathlib import Path

import keras


def device() -> tuple[str, str]:
    """("gpu" or "cpu", its name): what Keras computes on in this process."""
    if keras.backend.backend() == "jax":
        import jax

        first = jax.devices()[0]
        return (first.platform, cpu() if first.platform == "cpu" else first.device_kind)
    import tensorflow as tf

    for gpu in tf.config.list_physical_devices("GPU"):
        return "gpu", tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    return "cpu", cpu()


def cpu() -> str:
    """The processor's name and the number of cores that this process may use."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.processor())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name or platform.machine()}, {cores} cores"


def main(name: str, file: str, *options: str) -> None:
    records = importlib.import_module(f"benchmarks.{name}").measure(tiny="--tiny" in options)
    records = [records] if isinstance(records, dict) else records
    kind, device_name = device()
    Path(file).write_text(json.dumps({"kind": kind, "device": device_name, "records": records}), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
