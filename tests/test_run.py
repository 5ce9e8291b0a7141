"""`python -m lossviz run`: a script is run as Python would run it, and what is found stands in files for others."""

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import jsonschema
import pytest

from lossviz.__main__ import main
from lossviz.ask.guard import GuardError
from lossviz.report.findings import Finding
from lossviz.report.sarif import sarif

ROOT = Path(__file__).parent.parent
SCHEMA = json.loads(Path(__file__).with_name("sarif").joinpath("sarif-schema-2.1.0.json").read_text(encoding="utf-8"))
TRAINS = """\
    import sys
    import keras
    import numpy as np

    keras.utils.set_random_seed(1)
    x = np.arange(20.0)[:, None] / 20
    model = keras.Sequential([keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse")
    history = model.fit(x, 20 + x, verbose=0)
    print(sys.argv, __name__, history.history, keras.layers.Dense(1).name)
    sys.exit(3)
"""


def valid(found: dict) -> dict:
    """This object, which must follow the schema of SARIF 2.1.0."""
    jsonschema.Draft4Validator(SCHEMA).validate(found)
    return found


def python(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def write(folder: Path, code: str, name: str = "train.py") -> None:
    (folder / name).write_text(textwrap.dedent(code), encoding="utf-8")


def both(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess, subprocess.CompletedProcess]:
    """A script alone, and under `run`."""
    return python(folder, "train.py", *words), python(folder, "-m", "lossviz", "run", "train.py", *words)


def test_a_training_script_prints_and_ends_as_without(tmp_path):
    write(tmp_path, TRAINS)
    alone = python(tmp_path, "train.py", "--json", "a b")
    options = ["--json", "found.json", "--sarif", "found.sarif"]
    ours = python(tmp_path, "-m", "lossviz", "run", *options, "train.py", "--json", "a b")
    assert (ours.returncode, ours.stdout) == (alone.returncode, alone.stdout) == (3, alone.stdout)
    assert "['train.py', '--json', 'a b'] __main__" in alone.stdout
    assert ours.stderr.count("error: out-of-reach") == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["schema"], found["script"]) == ("lossviz.run.v1", "train.py")
    (finding,) = found["findings"]
    assert set(finding) == {
        *("rule", "where", "sentence", "fix", "page", "since", "until", "severity", "call", "model", "file", "line")
    }
    line = 1 + textwrap.dedent(TRAINS).splitlines().index("history = model.fit(x, 20 + x, verbose=0)")
    assert (finding["call"], finding["file"], finding["line"]) == ("fit", str(tmp_path / "train.py"), line)
    (run,) = valid(json.loads((tmp_path / "found.sarif").read_text()))["runs"]
    (result,) = run["results"]
    place = result["locations"][0]["physicalLocation"]
    assert place == {"artifactLocation": {"uri": "train.py"}, "region": {"startLine": line}}
    assert (result["ruleId"], result["level"]) == ("out-of-reach", "error")


@pytest.mark.parametrize(
    "code",
    [
        "print('done')",
        "import sys\nprint(sys.argv, sys.path[0] == __file__.rpartition('/')[0], __spec__)\nsys.exit(3)",
        "import sys\nsys.exit('words')",
        "def f():\n    raise ValueError\ntry:\n    f()\nexcept ValueError as error:\n    raise OSError from error",
        "raise KeyboardInterrupt",
        "print(1)\nthis is no Python",
        "import sys\nsys.excepthook = lambda *_: print('own hook')\n1 / 0",
        "import atexit\natexit.register(print, 'the end')\nimport helper",
        "import os\nos._exit(7)",
        "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A, sorted(vars()))",
    ],
)
def test_a_script_without_keras_is_left_alone(tmp_path, code):
    write(tmp_path, code)
    write(tmp_path, "print('helper', __name__)\nraise LookupError('in helper')", "helper.py")
    alone, ours = both(tmp_path, "x")
    assert (ours.returncode, ours.stdout, ours.stderr) == (alone.returncode, alone.stdout, alone.stderr)
    if "KeyboardInterrupt" in code:
        assert ours.returncode == -signal.SIGINT


def test_another_backend_is_told_and_the_script_runs(tmp_path):
    write(tmp_path, "import keras\nprint(keras.fit())")
    (tmp_path / "keras").mkdir()
    stub = """
        import types
        backend = types.SimpleNamespace(backend=lambda: "torch")
        fit = lambda: "trained"
    """
    write(tmp_path / "keras", stub, "__init__.py")
    ours = python(tmp_path, "-m", "lossviz", "run", "--error", "train.py")
    assert (ours.returncode, ours.stdout) == (0, "trained\n")
    (line,) = ours.stderr.splitlines()
    assert line.startswith(
        "lossviz: the script runs, and nothing is looked at: lossviz run reads the graphs of TensorFlow"
    )


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """The command line in this process and in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [*sys.argv])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])

    def run(*words: str):
        code = main(list(words))
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_error_stops_the_script_at_its_own_line(run, tmp_path, capsys):
    write(tmp_path, TRAINS)
    with pytest.raises(GuardError) as caught:
        run("run", "--error", "--sarif", "f.sarif", "train.py")
    sys.excepthook(caught.type, caught.value, caught.value.__traceback__)  # as Python does at the end of a process
    printed = capsys.readouterr()
    assert printed.out == "" and "history = model.fit(x, 20 + x, verbose=0)" in printed.err
    assert "lossviz/ask" not in printed.err and "GuardError: lossviz.guard stops fit of model" in printed.err
    assert len(valid(json.loads((tmp_path / "f.sarif").read_text()))["runs"][0]["results"]) == 1


def test_what_cannot_be_run_is_one_line(run, tmp_path):
    (tmp_path / "folder").mkdir()
    write(tmp_path, "print('ran')")
    assert run("run", "none.py") == (2, "", "lossviz: none.py: No such file or directory\n")
    assert run("run", "folder") == (2, "", "lossviz: folder: is a folder\n")
    code, out, err = run("run", "--json", "no/f.json", "train.py")
    assert (code, out, err) == (2, "", "lossviz: --json no/f.json: its folder does not exist\n")
    assert run("run", "--sarif", "train.py", "train.py")[0] == 2
    assert (tmp_path / "train.py").read_text() == "print('ran')"


def test_a_script_without_findings_writes_empty_files(run, tmp_path):
    write(tmp_path, "print('ran')")
    assert run("run", "--json", "f.json", "--sarif", "f.sarif", "train.py") == (0, "ran\n", "")
    assert json.loads((tmp_path / "f.json").read_text())["findings"] == []
    assert valid(json.loads((tmp_path / "f.sarif").read_text()))["runs"][0]["results"] == []


def test_files_are_written_when_the_script_raises_and_stays_elsewhere(run, tmp_path):
    (tmp_path / "far").mkdir()
    write(tmp_path, "import os\nos.chdir('far')\nraise LookupError('gone')")
    with pytest.raises(LookupError):
        run("run", "--json", "f.json", "train.py")
    assert json.loads((tmp_path / "f.json").read_text())["findings"] == []


def test_sarif_of_findings_follows_the_schema_wherever_the_file_lies(tmp_path):
    finding = Finding("broadcast", "mse", "Wrong \x1b[31m words.", "Mend it.", "custom_loss", "3.0", "", "hint")
    found = [(finding, tmp_path / "a b" / "ä.py", 7), (finding, Path("/elsewhere/m.keras"), 0)]
    (run,) = valid(sarif(found, {"broadcast": "What it is."}, "1.2.3", tmp_path))["runs"]
    places = [result["locations"][0]["physicalLocation"] for result in run["results"]]
    assert [place["artifactLocation"]["uri"] for place in places] == ["a%20b/%C3%A4.py", "file:///elsewhere/m.keras"]
    assert [place["region"]["startLine"] for place in places] == [7, 1]
    assert {result["level"] for result in run["results"]} == {"note"}
    assert "\x1b" not in json.dumps(run, ensure_ascii=False) and "(Keras 3.0 and newer)" in json.dumps(run)


def test_the_schema_refuses_what_it_should(tmp_path):
    wrong = sarif([], {}, "1", tmp_path)
    wrong["runs"][0]["results"] = [{"level": "fatal", "message": {"text": "x"}}]
    with pytest.raises(jsonschema.ValidationError):
        valid(wrong)
