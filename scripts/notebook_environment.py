"""The environment in which every notebook runs, for the tests (../conftest.py) and for run_notebooks.py."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def prepare() -> None:
    """Set variables that kernels inherit, so that the same notebook prints and draws the same everywhere."""
    scratch = ROOT / "_build" / "run"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("PYTHONHASHSEED", "0")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"
    # Not the reader's own Matplotlib style, IPython start-up files or kernels; and no need for a home folder.
    os.environ["MPLCONFIGDIR"] = str(scratch / "matplotlib")
    os.environ["IPYTHONDIR"] = str(scratch / "ipython")
    os.environ["JUPYTER_DATA_DIR"] = str(scratch / "jupyter")
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    # Kernels start in the folder of their notebook and import lossviz from this checkout.
    paths = [str(ROOT), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    # The first import looks through the machine's fonts, and if that is slow it says so on stderr: not in a notebook.
    import matplotlib.font_manager  # noqa: F401
