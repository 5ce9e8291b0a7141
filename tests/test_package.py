"""lossviz as others get it: a light import, its names, and a wheel that needs nothing beside it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import lossviz

ROOT = Path(__file__).parent.parent


def python(code: str, **kwargs) -> str:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, **kwargs)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.mark.parametrize(
    "code",
    ["import lossviz", "import lossviz; dir(lossviz)", "from lossviz import Report, Term, Part, Step, AdditivityError"],
)
def test_import_is_light(code):
    heavy = "{'tensorflow', 'keras', 'matplotlib', 'pandas'}"
    assert python(f"{code}\nimport sys; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_every_public_name_is_there_listed_and_documented():
    for name in lossviz.__all__:
        value = getattr(lossviz, name)
        assert value.__doc__, name
        assert f"\n{name:<15}  " in lossviz.__doc__
    assert set(lossviz.__all__) <= set(dir(lossviz))
    with pytest.raises(AttributeError, match="module 'lossviz' has no attribute 'explian'"):
        _ = lossviz.explian


def test_no_module_has_the_name_of_a_public_function():
    """Else the import of `lossviz.explain` would put a module where the function `lossviz.explain` is."""
    modules = {path.stem for path in Path(ROOT, "lossviz").glob("*.py")}
    assert {name for name in lossviz.__all__ if name in modules} == {
        *("examples", "exercises", "layers", "losses", "plots", "regimes", "testing"),
    }


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built with the pinned backend and no network."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "-q"]
    subprocess.run([*pip, "wheel", *options, "-w", folder, ROOT], check=True, timeout=300)
    (path,) = folder.glob("*.whl")
    return path


def test_wheel_holds_the_whole_package_and_nothing_else(wheel):
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    sources = (path for path in Path(ROOT, "lossviz").rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert names == {path.relative_to(ROOT).as_posix() for path in sources}
    assert "lossviz/py.typed" in names
    assert any(name.startswith("lossviz/data/") for name in names)
    assert any(name.endswith(".mplstyle") for name in names)
    assert wheel.name == f"lossviz-{lossviz.__version__}-py3-none-any.whl"


def test_wheel_asks_for_floors_only_and_not_for_tensorflow(wheel):
    archive = zipfile.ZipFile(wheel)
    (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
    required = [line for line in archive.read(metadata).decode().splitlines() if line.startswith("Requires-Dist:")]
    plain = [line.split(": ")[1] for line in required if "extra ==" not in line]
    assert sorted(plain) == ["keras>=3.13.2", "matplotlib>=3.8", "numpy>=2.0"]
    assert not any("<" in line or "==" in line.split(";")[0] for line in required)


def test_wheel_alone_works_from_an_empty_folder(wheel, tmp_path):
    target, empty = tmp_path / "target", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q"]
    subprocess.run([*pip, "--no-index", "--no-deps", "--target", target, wheel], check=True, timeout=300)
    code = (
        "import numpy as np, lossviz\n"
        "from lossviz import examples, plots\n"
        "report = lossviz.explain_loss('mean_squared_error', np.zeros((2, 2)), np.array([[0.0, 1.0], [1.0, 2.0]]))\n"
        "print(lossviz.__file__, report.total)"
    )
    printed = python(code, cwd=empty, env={**os.environ, "PYTHONPATH": str(target), "TF_CPP_MIN_LOG_LEVEL": "2"})
    assert printed == f"{target / 'lossviz' / '__init__.py'} 1.5"
