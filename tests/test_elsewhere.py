"""The record of other libraries: its calls are those of the script, and Keras 3 gives its values here as well."""

import json
from pathlib import Path

import make_elsewhere
import pytest

ROOT = Path(__file__).parent.parent
RECORD = json.loads(make_elsewhere.RECORD.read_text(encoding="utf-8"))


def test_record_has_the_calls_of_the_script():
    calls = {case: {name: one["call"] for name, one in found.items()} for case, found in RECORD["cases"].items()}
    assert calls == make_elsewhere.CALLS
    assert list(RECORD["versions"]) == list(make_elsewhere.LIBRARIES)


def test_record_is_of_the_versions_that_the_script_installs():
    for library, (packages, _) in make_elsewhere.LIBRARIES.items():
        asked = packages[0].split("==")[1]
        assert RECORD["versions"][library].split("+")[0] == asked


def test_keras_3_gives_the_recorded_values():
    here = make_elsewhere.evaluate("Keras 3")["values"]
    recorded = {case: found["Keras 3"]["value"] for case, found in RECORD["cases"].items()}
    assert here == pytest.approx(recorded, rel=1e-5)


def test_every_case_has_another_library_to_compare_with():
    assert all(len(found) > 1 for found in RECORD["cases"].values())


def test_readme_of_the_data_names_every_file():
    text = Path(ROOT, "lossviz", "data", "README.md").read_text(encoding="utf-8")
    files = [path for path in Path(ROOT, "lossviz", "data").iterdir() if path.name != "README.md"]
    assert [path.name for path in files if f"`{path.name}" not in text] == []
