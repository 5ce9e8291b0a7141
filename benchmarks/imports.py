"""What `import lossviz` adds to `import keras`, in whole processes that take turns.

In seconds of the processor, user and system: a process of seconds on a busy machine waits for longer than that.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

import numpy as np

from benchmarks.timing import compare

ALLOWED = 0.3  # seconds


def measure(tiny: bool = False) -> dict[str, Any]:
    pairs = 1 if tiny else 4
    seconds = np.array([[processor_seconds(code) for code in ("", "import lossviz")] for _ in range(pairs)])
    added = seconds[:, 1] - seconds[:, 0]
    note = f"{np.median(seconds[:, 0]):.1f} s for a process that imports keras alone"
    what = "seconds that `import lossviz` adds to `import keras`"
    return compare(what, "what is allowed", added, [ALLOWED] * pairs, unit="s", target=1.0, note=note)


def processor_seconds(code: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", f"import keras\n{code}"], check=True, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
