"""What `import lossviz` adds to `import keras`, in whole processes that take turns."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.timing import compare, stopwatch

ALLOWED = 0.3  # seconds


def measure(tiny: bool = False) -> dict[str, Any]:
    pairs = 1 if tiny else 4
    seconds = np.array([[stopwatch(process(code)) for code in ("", "import lossviz")] for _ in range(pairs)])
    added = seconds[:, 1] - seconds[:, 0]
    note = f"{np.median(seconds[:, 0]):.1f} s for a process that imports keras alone"
    what = "seconds that `import lossviz` adds to `import keras`"
    return compare(what, "what is allowed", added, [ALLOWED] * pairs, unit="s", target=1.0, note=note)


def process(code: str):
    command = [sys.executable, "-c", f"import keras\n{code}"]
    return lambda: subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
