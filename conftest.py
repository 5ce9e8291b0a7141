"""For every test and notebook: the environment, and a comparison of pictures, which nbval alone never looks at.

And the fixture that several test files share.
"""

import base64
import io
import json
import os
import zlib
from pathlib import Path

import matplotlib
import notebook_environment
import numpy as np
import pytest
from nbval.plugin import IPyNbCell
from PIL import Image

notebook_environment.prepare()
matplotlib.use("agg")  # here; the kernels of notebooks draw inline

# Another CPU changes 0.01 % of a figure's pixels visibly, a line drawn 1 % too high changes 1 % of them.
FAR = 32  # of 255
PIXELS_OFF = 0.002
MEAN_OFF = 0.5


def picture_difference(stored: str, new: str) -> str:
    """What differs between two base64 PNGs, in words; an empty string where nothing that matters does."""
    a, b = (np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGBA"), float) for png in (stored, new))
    if a.shape != b.shape:
        return f"stored with {a.shape[1]}x{a.shape[0]} pixels, now {b.shape[1]}x{b.shape[0]}"
    distance = abs(a - b).max(axis=-1)
    off, mean = (distance > FAR).mean(), distance.mean()
    if off > PIXELS_OFF or mean > MEAN_OFF:
        return f"{off:.2%} of the pixels differ, on average by {mean:.2f} of 255"
    return ""


def pictures(outputs: list) -> list[str]:
    return [output["data"]["image/png"] for output in outputs if "image/png" in output.get("data", {})]


def without_drawings(outputs: list) -> list:
    """The SVG beside a PNG shows the same, and kernels of the tests do not draw it."""
    for output in outputs:
        output.get("data", {}).pop("image/svg+xml", None)
    return outputs


# -- a sample of the long sets -----------------------------------------------------------------------------------------

#: Sets that together take most of the time. Without --long and without a choice of your own (a file, -k), one test in
#: `SAMPLE` of each runs, always the same ones, and only the notebooks that were stored with at most `SECONDS`.
LONG = {
    *("certified_axes", "cli", "epoch", "examples", "explain_errors", "explain_leaves_no_trace", "explain_shares"),
    *("explain_matches_keras", "figures", "files_hostile", "files_sound", "findings", "findings_sound", "fixes"),
    *("graph", "guard", "kept", "keras_private", "layers", "loss_parts", "losses", "losses_backends", "museum"),
    *("nonfinite", "playground", "plots", "program", "reach", "run", "testing"),
}
SAMPLE = 6
SECONDS = 10


def pytest_addoption(parser):
    group = parser.getgroup("how much of what takes long runs (default: a sample)")
    group.addoption("--long", action="store_true", help="every case of the long sets, every notebook")
    group.addoption("--notebooks", action="store_true", help="every notebook")
    group.addoption("--sample", action="store_true", help="a sample of the files that are named, too")


def pytest_configure(config):
    if not hasattr(config, "workerinput"):  # the workers of pytest-xdist do as they find it here
        chosen = config.args_source is config.ArgsSource.ARGS or config.option.keyword
        whole = config.getoption("--long") or (chosen and not config.getoption("--sample"))
        os.environ["LOSSVIZ_LONG_TESTS"] = "1" if whole else ""
        os.environ["LOSSVIZ_LONG_NOTEBOOKS"] = "1" if whole or config.getoption("--notebooks") else ""


def pytest_collection_modifyitems(config, items):
    if os.environ["LOSSVIZ_LONG_TESTS"]:
        return
    left = [item for item in items if not _in_sample(item)]
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


def _in_sample(item) -> bool:
    if isinstance(item, IPyNbCell):
        return bool(os.environ["LOSSVIZ_LONG_NOTEBOOKS"]) or _seconds(item.path) <= SECONDS
    if item.path.stem.removeprefix("test_") not in LONG:
        return True
    return zlib.crc32(item.nodeid.encode()) % SAMPLE == 0


def _seconds(notebook: Path, known: dict = {}) -> float:  # noqa: B006  # read once
    if notebook not in known:
        known[notebook] = json.loads(notebook.read_text())["metadata"].get("lossviz", {}).get("seconds", 0)
    return known[notebook]


compare_text = IPyNbCell.compare_outputs


def compare_outputs(self, test, ref, skip_compare=None):
    if not compare_text(self, test, without_drawings(ref), skip_compare):
        return False
    stored, new = pictures(ref), pictures(test)
    if len(stored) != len(new):
        differences = [f"{len(stored)} pictures stored, {len(new)} drawn now"]
    else:
        found = [picture_difference(a, b) for a, b in zip(stored, new, strict=True)]
        differences = [f"picture {k}: {words}" for k, words in enumerate(found) if words]
    self.comparison_traceback.extend(differences)
    return not differences


IPyNbCell.compare_outputs = compare_outputs


@pytest.fixture(params=["mixed_float16", "mixed_bfloat16"])
def mixed(request):
    """Each mixed precision policy in turn; the one before is put back."""
    if "ONEDNN_MAX_CPU_ISA" in os.environ:
        pytest.skip("half precision products of a capped oneDNN end in a segmentation fault")
    import keras  # here: most test files do without

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)
