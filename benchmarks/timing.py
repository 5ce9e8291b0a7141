"""Two things measured side by side, and the record of it.

A benchmark is a module of this folder with a function

    measure(tiny: bool = False) -> list of records

that measures on the Keras backend and the device that this process has. `tiny` asks for the smallest case that still
runs everything, in seconds: its figures mean nothing. A module may name the backends it is made for,
`BACKENDS = ("tensorflow",)`. `python -m benchmarks` finds every module that has `measure` and runs each in its own
process.

A record is a dictionary:

    what, against             what was measured, and what it is compared with, in words
    unit                      "ms", "s", "MB", "GB/s"
    median, quartiles         of `what`
    against_median, against_quartiles
    ratio, ratio_quartiles    median and quartiles of what / against, taken pair by pair
    pairs                     how many pairs
    target                    the ratio aimed at, or None where the ratio is reported only
    at_least                  whether the target is a lower bound (bandwidth) instead of an upper one (time)
    met                       whether the median ratio reaches the target; None without one
    missed_by                 how far the median ratio is from the target where it is not met, else None
    note                      why, or under what conditions; "" for nothing
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def side_by_side(
    what: str,
    run: Callable[[], Any],
    against: str,
    run_against: Callable[[], Any],
    target: float | None = None,
    *,
    pairs: int = 30,
    warm_up: int = 3,
    calls: int = 1,
    note: str = "",
) -> dict[str, Any]:
    """The record of two functions that take turns.

    Both run `warm_up` times first, which compiles them. Then each pair times one after the other, and the next pair
    the other way round, so that a machine that grows slower meanwhile slows both. What a function returns is waited
    for. Functions that need well below a millisecond are timed `calls` calls at a time.
    """
    milliseconds = alternately(run, run_against, pairs=pairs, warm_up=warm_up, calls=calls)
    return compare(what, against, *milliseconds, unit="ms", target=target, note=note)


def alternately(
    run: Callable[[], Any], run_against: Callable[[], Any], *, pairs: int = 30, warm_up: int = 3, calls: int = 1
) -> np.ndarray:
    """Milliseconds, shape (2, pairs), of two functions that take turns as `side_by_side` says."""
    for _ in range(warm_up):
        wait(run())
        wait(run_against())
    milliseconds = np.empty((2, pairs))
    for pair in range(pairs):
        for side in (0, 1) if pair % 2 == 0 else (1, 0):
            milliseconds[side, pair] = 1000 * stopwatch((run, run_against)[side], calls)
    return milliseconds


def compare(
    what: str,
    against: str,
    values: Sequence[float],
    values_against: Sequence[float],
    *,
    unit: str,
    target: float | None = None,
    at_least: bool = False,
    note: str = "",
) -> dict[str, Any]:
    """The record of two lists of the same length, measured pair by pair: seconds, megabytes, whatever the unit."""
    mine, theirs = np.asarray(values, float), np.asarray(values_against, float)
    if mine.shape != theirs.shape or mine.ndim != 1 or not mine.size:
        raise ValueError(f"a comparison needs pairs, got shapes {mine.shape} and {theirs.shape}")
    ratio, *ratio_quartiles = _summary(mine / theirs)
    median, *quartiles = _summary(mine)
    against_median, *against_quartiles = _summary(theirs)
    met = missed_by = None
    if target is not None:
        missed = target - ratio if at_least else ratio - target
        met, missed_by = missed <= 0, _digits(missed) if missed > 0 else None
    return {
        "what": what,
        "against": against,
        "unit": unit,
        "median": median,
        "quartiles": quartiles,
        "against_median": against_median,
        "against_quartiles": against_quartiles,
        "ratio": ratio,
        "ratio_quartiles": ratio_quartiles,
        "pairs": mine.size,
        "target": target,
        "at_least": at_least,
        "met": met,
        "missed_by": missed_by,
        "note": note,
    }


def stopwatch(function: Callable[[], Any], calls: int = 1) -> float:
    """Seconds of one call, the mean over `calls` of them, until what it returns is there."""
    start = time.perf_counter()
    for _ in range(calls):
        result = function()
    wait(result)
    return (time.perf_counter() - start) / calls


def wait(result: Any) -> None:
    """Wait until a device has finished what this function began: JAX and every GPU return before they have."""
    import keras

    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        jax.block_until_ready(result)
    elif backend == "tensorflow":
        import tensorflow as tf

        tf.test.experimental.sync_devices()
    elif backend == "torch":
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()


def _summary(values: np.ndarray) -> list[float]:
    """Median, lower and upper quartile."""
    return [_digits(q) for q in np.percentile(values, [50, 25, 75])]


def _digits(value: float) -> float:
    """Four significant digits: more would be noise."""
    return float(f"{value:.4g}")
