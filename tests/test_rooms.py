"""The house: no module imports in a circle, and each room only from the rooms it may know.

Every import counts: at the top, inside a function, for type checkers. The sources are parsed, never imported.
"""

import ast
import importlib
import pickle
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "lossviz"

#: Which rooms each room may import from, besides itself. A module of the top level is a room of its own; "records"
#: are the frozen records that the engine fills, a part of the room `report` that knows no other.
MAY_IMPORT = {
    "records": set(),
    "backend": set(),
    "engine": {"backend", "records"},
    "report": {"records", "plots"},
    "rules": {"backend", "engine", "records", "report", "regimes"},
    "ask": {"backend", "engine", "records", "report", "rules"},
    "nonfinite": {"backend", "engine", "records", "report", "ask"},
    "callbacks": {"backend", "engine", "ask"},
    "testing": {"ask", "records", "rules"},
    "_inputs": set(),
    "losses": {"_inputs"},
    "layers": {"_inputs"},
    "plots": {"records", "report"},
    "regimes": {"records", "report"},
    "examples": {"backend"},
    "exercises": set(),
    "findings": {"records"},
    "comparison": {"records", "report"},
    "files": {"backend", "layers", "losses"},
    "__main__": {"__init__", "ask", "backend", "files", "records", "report", "rules"},
}
#: Rooms that never import TensorFlow or JAX.
NEUTRAL = {"records", "report", "engine", "nonfinite", "rules"}
RECORDS = {"report.records", "report.difference", "report.findings", "report.escape"}


def modules() -> dict[str, Path]:
    """Every module by its name without `lossviz.`; a package is named like its folder."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        names = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(names[:-1] if names[-1] == "__init__" and len(names) > 1 else names)] = path
    return found


def imports(path: Path, known: set[str]) -> set[str]:
    """The modules of this package that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            base = node.module.split(".")
            if base[0] == "lossviz":
                home = ".".join(base[1:])
                inner = {name: f"{home}.{name}".lstrip(".") for name in (alias.name for alias in node.names)}
                found |= {inner[name] if inner[name] in known else home or "__init__" for name in inner}
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
            found |= {".".join(parts[1:]) or "__init__" for parts in names if parts[0] == "lossviz"}
    return found


def graph() -> dict[str, set[str]]:
    """Module -> what it imports. The face of the package, which imports on demand, is left out as a source."""
    known = modules()
    return {name: imports(path, set(known)) for name, path in known.items() if name != "__init__"}


def room(module: str) -> str:
    if module in RECORDS:
        return "records"
    return module.split(".")[0]


def circle(arrows: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_circle():
    assert circle(graph()) == []


def test_a_circle_would_be_seen():
    assert circle({**graph(), "report.records": {"plots"}})


def test_each_room_imports_only_what_it_may():
    wrong = [
        f"{module} imports {other}"
        for module, others in graph().items()
        for other in others
        if room(other) not in MAY_IMPORT[room(module)] | {room(module)}
    ]
    assert wrong == []


def test_what_is_not_public_is_imported_in_the_backend_alone():
    private = [
        name
        for name, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("keras.src", "tensorflow.python"))
    ]
    assert {room(name) for name in private} == {"backend"}


def test_what_reads_the_neutral_program_imports_no_backend():
    found = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found |= {room(name) for other in imported if other.split(".")[0] in ("tensorflow", "jax")}
    assert found.isdisjoint(NEUTRAL) and "backend" in found


def test_every_kind_of_import_counts(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        "from lossviz import plots, explain\n"
        "if TYPE_CHECKING:\n    from lossviz.report.records import Part\n"
        "def f():\n    import lossviz.regimes\n    from lossviz.report import html as h\n"
    )
    found = imports(path, set(modules()))
    assert found == {"plots", "__init__", "report.records", "regimes", "report.html"}


@pytest.mark.parametrize(
    "name",
    [
        *("report.Part", "report.Report", "report.Step", "report.Term", "report.AdditivityError"),
        *("findings.Finding", "comparison.Comparison", "comparison.Change", "nonfinite.NonFinite"),
        *("nonfinite.find_nonfinite", "callbacks.LossParts"),
    ],
)
def test_earlier_names_lead_to_the_same_objects(name):
    """Pickles of earlier versions name them so."""
    module, attribute = name.split(".")
    value = getattr(importlib.import_module(f"lossviz.{module}"), attribute)
    assert pickle.loads(f"clossviz.{module}\n{attribute}\n.".encode()) is value
    assert pickle.loads(pickle.dumps(value)) is value
