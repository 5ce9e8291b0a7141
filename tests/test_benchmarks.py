"""The benchmarks run, also where there is JAX and no TensorFlow. No time is compared: times differ by the minute."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import explain
from benchmarks.timing import compare, side_by_side

ROOT = Path(__file__).parent.parent
NO_TENSORFLOW = """
import sys


class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "tf_keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing())
"""
FIELDS = {
    *("what", "against", "unit", "median", "quartiles", "against_median", "against_quartiles"),
    *("ratio", "ratio_quartiles", "pairs", "target", "at_least", "met", "missed_by", "note"),
}

needs_jax = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")


@pytest.fixture(scope="module")
def without_tensorflow(tmp_path_factory):
    """The environment of a Python that finds JAX and no TensorFlow."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "sitecustomize.py").write_text(NO_TENSORFLOW, encoding="utf-8")
    path = os.pathsep.join([str(folder), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}


def python(environment, *arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=ROOT)


@needs_jax
def test_the_gpu_s_benchmarks_start_without_tensorflow(without_tensorflow, tmp_path):
    names = ("bandwidth", "unet_step")
    result = python(without_tensorflow, "-m", "benchmarks", *names, "--tiny", "--output", str(tmp_path))
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "cpu.json").read_text(encoding="utf-8"))
    assert found["device"] and found["date"] and found["versions"]["keras"] and found["failed"] == []
    assert "tensorflow is not installed" in found["skipped"]
    assert any(line.startswith("no GPU here") for line in found["skipped"])
    assert {record["benchmark"] for record in found["records"]} == set(names)
    for record in found["records"]:
        assert record["backend"] == "jax" and record.keys() >= FIELDS and record["target"] is None
        assert record["median"] > 0 and record["pairs"] == 2
        assert record["what"] in result.stdout
    assert "XLA moves" in found["records"][0]["note"]


@needs_jax
def test_the_other_benchmarks_losses_layers_and_the_unet_need_no_tensorflow(without_tensorflow):
    code = """
import json, sys
from benchmarks import center_loss, growth, losses
from lossviz import examples
from lossviz.layers import CenterLoss
from lossviz.losses import BinaryCrossentropyDice

records = [center_loss.measure(tiny=True), *growth.measure(tiny=True), *losses.measure(tiny=True)]
model = examples.unet(16, filters=(2,), bottleneck=2)
model.compile("sgd", BinaryCrossentropyDice())
loss = model.train_on_batch(*examples.scenes(2, 16))
print(json.dumps([records, float(loss), "tensorflow" in sys.modules]))
"""
    result = python(without_tensorflow, "-c", code)
    assert result.returncode == 0, result.stderr
    records, loss, loaded = json.loads(result.stdout.splitlines()[-1])
    assert 0 < loss < 5 and not loaded
    grown = [record for record in records if "slope" in record]
    assert [(record["along"], record["sizes"]) for record in grown] == [("batch", [1, 2])]
    assert len(records) - len(grown) == 6 and all(record.keys() == FIELDS for record in records if record not in grown)


def test_an_error_in_a_benchmark_is_reported_and_its_name_checked(without_tensorflow):
    result = python(without_tensorflow, "-m", "benchmarks", "speed")
    assert result.returncode == 2 and "no benchmark is called speed; there are" in result.stderr
    result = python(without_tensorflow, "-m", "benchmarks", "ways_to_a_mask", "--tiny", "--backend", "tensorflow")
    assert result.returncode == 2 and "tensorflow must be installed" in result.stderr


def test_a_record_says_whether_the_target_is_met_and_by_how_much_not():
    slower = compare("a", "b", [3, 4, 6], [2, 2, 2], unit="ms", target=1.5)
    assert slower["ratio"] == 2 and slower["ratio_quartiles"] == [1.75, 2.5]
    assert slower["met"] is False and slower["missed_by"] == 0.5
    assert compare("a", "b", [3], [2], unit="ms", target=1.5)["met"] is True
    assert compare("a", "b", [3], [2], unit="ms")["met"] is None
    bandwidth = compare("a", "b", [6], [10], unit="GB/s", target=0.8, at_least=True)
    assert bandwidth["met"] is False and bandwidth["missed_by"] == pytest.approx(0.2)
    with pytest.raises(ValueError, match="needs pairs"):
        compare("a", "b", [1, 2], [1], unit="ms")


def test_a_small_batch_of_a_large_graph_is_measured_by_the_difference():
    records = explain._large_graphs(tiny=True)
    assert [record["against"] for record in records] == ["10 ms"] * 3
    for record in records:
        assert record.keys() == FIELDS and record["against_median"] == 10 and record["pairs"] == 2
        assert record["met"] == (record["ratio"] <= 1)
    assert explain._spare_layer(tiny=True)["target"] == 1.1


def test_both_sides_take_turns_after_their_warm_up():
    turns = []
    record = side_by_side("a", lambda: turns.append("a"), "b", lambda: turns.append("b"), pairs=2, warm_up=1)
    assert "".join(turns) == "ab" + "ab" + "ba"
    assert record["pairs"] == 2 and record["unit"] == "ms"


@pytest.mark.parametrize(
    "path", sorted(Path(ROOT, "lossviz", "data", "benchmarks").glob("*.json")), ids=lambda path: path.stem
)
def test_what_is_recorded_is_whole_and_agrees_with_itself(path):
    found = json.loads(path.read_text(encoding="utf-8"))
    assert found["device"] and found["date"] and found["versions"]["keras"] and found["failed"] == []
    modules = {path.stem for path in Path(ROOT, "benchmarks").glob("*.py") if "def measure(" in path.read_text()}
    assert {record["benchmark"] for record in [*found["records"], *found["growth"]]} <= modules
    for record in found["records"]:
        assert record.keys() >= FIELDS, record["what"]
        if record["target"] is None:
            assert record["met"] is None and record["missed_by"] is None
        else:
            side = -1 if record["at_least"] else 1
            assert record["met"] == (side * record["ratio"] <= side * record["target"])
            assert (record["missed_by"] is None) == record["met"]
