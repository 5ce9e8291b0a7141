"""Makes tests/golden/regimes.json: what the real Keras versions give for the cases of this file.

    python scripts/make_regime_goldens.py [--cache FOLDER] [NAME ...]

For each version it makes an environment with the real packages from PyPI (some 8 GB in all, under `--cache`, by
default ~/.cache/lossviz-regimes; kept for the next run) and runs regime_runner.py in it. With names (see
`ENVIRONMENTS`) only those versions run anew, and the others stay as they are in the file; that works while the
cases are the same. Each Python is searched for as $PYTHON37 (for 3.7), python3.7 on the path, and under pyenv.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent.parent / "tests" / "golden" / "regimes.json"
RUNNER = Path(__file__).with_name("regime_runner.py")
OLD = ("h5py<3", "protobuf<3.21", "numpy<1.20")

#: name: (kind for the runner, Pythons that do, packages)
ENVIRONMENTS = {
    "keras-2.1.5": ("keras", ("3.7", "3.6"), ("keras==2.1.5", "tensorflow==1.13.2", *OLD)),
    "keras-2.2.4": ("keras", ("3.7",), ("keras==2.2.4", "tensorflow==1.15.5", *OLD)),
    "keras-2.3.1": ("keras", ("3.7",), ("keras==2.3.1", "tensorflow==1.15.5", *OLD)),
    "tf.keras-2.9": ("tf.keras", ("3.10", "3.9", "3.8"), ("tensorflow-cpu==2.9.3", "numpy<1.24", "protobuf<3.20")),
    "tf.keras-2.15": ("tf.keras", ("3.11", "3.10", "3.9"), ("tensorflow-cpu==2.15.1",)),
    "tf_keras": ("tf_keras", ("3.11", "3.12", "3.13"), ("tf_keras==2.21.0", "tensorflow==2.21.0")),
    "keras-3": ("keras-3", ("3.11", "3.12", "3.13"), ("keras==3.15.1", "tensorflow-cpu==2.21.0")),
}

#: The shape of the target, what the loss function returns of it, and along which weights and masks are tried.
TARGETS = [
    ((4,), "mse"),  # the mean over the last axis eats the batch
    ((4, 1), "mse"),
    ((4, 3), "mse"),
    ((4, 5, 3), "mse"),
    ((4, 3, 2, 2), "mse"),
    ((3, 3, 2), "mse"),  # as many steps as samples
    ((3, 2, 3, 2), "mse"),  # as many columns as samples
    ((3, 3, 3, 2), "mse"),  # as many rows and columns as samples
    ((2, 2, 3, 2, 2), "mse"),
    ((4, 1, 3), "mse"),  # a single step
    ((1, 3), "mse"),  # a single sample
    ((1, 3, 2), "mse"),
    ((4, 3), "elements"),  # a loss function that leaves the mean over the last axis to Keras
    ((3, 3), "elements"),
    ((4, 3), "scalar"),  # a loss function that returns one number
]
REDUCTIONS = ("sum", "none", "mean", "mean_with_sample_weight", "auto")


class Cases:
    """Collects the cases; equal arrays are stored once."""

    def __init__(self):
        self.arrays: dict[str, list] = {}
        self.names: dict[tuple, str] = {}
        self.cases: list[dict] = []

    def array(self, kind: str, values: np.ndarray | None) -> str | None:
        if values is None:
            return None
        key = (kind, values.shape, values.tobytes())
        if key not in self.names:
            self.names[key] = f"{kind}{len(self.names)}"
            self.arrays[self.names[key]] = values.tolist()
        return self.names[key]

    def add(self, target, loss, weight=None, mask=None, reduction="sum_over_batch_size", compiled=False) -> None:
        y_true, y_pred = numbers(target, 1), numbers(target, 2)
        case = {
            "loss": loss,
            "y_true": self.array("y", y_true),
            "y_pred": self.array("y", y_pred),
            "sample_weight": self.array("w", weight),
            "mask": self.array("m", mask),
            "reduction": reduction,
            "compiled": compiled,
        }
        if case not in self.cases:
            self.cases.append(case)


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Multiples of 0.5 from -3 to 3, always the same ones, without a visible pattern."""
    count = int(np.prod(shape))
    return (
        np.array([(7 * k * k * seed + 5 * k + 3 * seed) % 13 - 6 for k in range(count)], "float32").reshape(shape) / 2
    )


def weights(shape: tuple[int, ...], kind: str) -> np.ndarray:
    """Multiples of 0.25: "positive", some "zeros", all "zero", or "signed" (some negative, some zero)."""
    count = int(np.prod(shape))
    base = np.array([(3 * k * k + 2 * k) % 7 + 1 for k in range(count)], "float32") / 4
    if kind == "zeros":
        base[[k for k in range(count) if k % 3 == 1 or count == 1]] = 0
    if kind == "zero":
        base[:] = 0
    if kind == "signed":
        base = np.array([(5 * k * k + 3 * k) % 9 - 4 for k in range(count)], "float32") / 4
    return base.reshape(shape)


def masks(shape: tuple[int, ...], kind: str) -> np.ndarray:
    count = int(np.prod(shape))
    keep = {"some": [(k * k + k) % 5 != 2 for k in range(count)], "all": [True] * count, "none": [False] * count}
    return np.array(keep[kind], bool).reshape(shape)


def make_cases() -> Cases:
    cases = Cases()
    for target, loss in TARGETS:
        score = {"mse": target[:-1], "elements": target, "scalar": ()}[loss]
        batch = target[0]
        natural = dict.fromkeys([score, target, (batch,), (batch, 1), *(target[:k] for k in range(2, len(target)))])
        odd = dict.fromkeys([(), (batch, 1, 1), (*score, 1), score[1:], (batch + 1,), (1, *score[1:])])
        cases.add(target, loss, compiled=True)
        for shape in [*natural, *(shape for shape in odd if shape not in natural)]:
            own = shape in ((), (batch + 1,)) or shape[:1] == (batch,)  # what people pass to evaluate
            cases.add(target, loss, weights(shape, "positive"))
            cases.add(target, loss, weights(shape, "zeros"), compiled=own)
            if shape in natural:
                cases.add(target, loss, weights(shape, "signed"))
                cases.add(target, loss, weights(shape, "zero"), compiled=shape == (batch,) and len(target) < 4)
        for shape in dict.fromkeys([score, (batch,), (batch, 1), target[:2], target, (*score, 1), score[1:]]):
            own = shape[:1] == (batch,)
            cases.add(target, loss, None, masks(shape, "some"), compiled=own)
            cases.add(target, loss, None, masks(shape, "all"))
            cases.add(target, loss, None, masks(shape, "none"), compiled=own and shape == score)
        pairs = itertools.product(
            dict.fromkeys([score, (batch,), (batch, 1)]),
            dict.fromkeys([(batch,), (batch, 1), score, (*score, 1), target[:2]]),
        )
        for mask, weight in pairs:
            if batch == 1:
                continue
            own = mask == score != () and weight in ((batch,), (batch, 1), score)
            cases.add(target, loss, weights(weight, "zeros"), masks(mask, "some"), compiled=own)
            cases.add(target, loss, weights(weight, "positive"), masks(mask, "some"))
            if mask == score:
                cases.add(target, loss, weights(weight, "zeros"), masks(mask, "none"))
                cases.add(target, loss, weights(weight, "zero"), masks(mask, "some"))
        for reduction in REDUCTIONS:
            cases.add(target, loss, reduction=reduction)
            for shape in dict.fromkeys([(batch,), (batch, 1), score]):
                cases.add(target, loss, weights(shape, "zeros"), reduction=reduction)
            cases.add(target, loss, weights(score, "zero"), reduction=reduction)
            cases.add(target, loss, None, masks(score, "some"), reduction)
            cases.add(target, loss, None, masks(score, "none"), reduction)
            cases.add(target, loss, weights(score, "zeros"), masks(score, "some"), reduction)
    return cases


#: The model is y = x; each epoch has known losses of its batches.
EPOCHS = [
    {"x": [0, 0, 0, 0], "y": [0, 1, 2, 3], "batch_size": 1, "sample_weight": None},
    {"x": [0, 0, 0, 0, 0, 0], "y": [1, 0, 2, 3, 0.5, 1.5], "batch_size": 2, "sample_weight": None},
    {"x": [0, 0, 0, 0, 0], "y": [1, 0, 2, 1, 3], "batch_size": 2, "sample_weight": None},  # a short last batch
    {"x": [1, 0, 2, 0, 1, 0, 3], "y": [1, 2, 0, 0.5, 3, 1, 0], "batch_size": 3, "sample_weight": None},
    {"x": [0, 0, 0, 0, 0], "y": [1, 0, 2, 1, 3], "batch_size": 5, "sample_weight": None},
    {"x": [0, 0, 0, 0, 0], "y": [1, 0, 2, 1, 3], "batch_size": 2, "sample_weight": [1, 0, 0.5, 2, 0.25]},
    {"x": [0, 0, 0, 0, 0], "y": [1, 0, 2, 1, 3], "batch_size": 2, "sample_weight": [1, 0.5, 0, 0, 1]},  # an empty batch
]


def find_python(versions: tuple[str, ...]) -> str:
    """A working interpreter of one of `versions` ("3.7"), the first one preferred."""
    for version in versions:
        roots = [os.environ.get("PYENV_ROOT"), Path.home() / ".pyenv"]
        candidates = [os.environ.get("PYTHON" + version.replace(".", "")), shutil.which(f"python{version}")]
        for root in filter(None, roots):
            candidates += sorted(Path(root, "versions").glob(f"{version}.*/bin/python"), reverse=True)
        if sys.version.startswith(f"{version}."):
            candidates.append(getattr(sys, "_base_executable", sys.executable))
        for candidate in filter(None, candidates):
            test = f"import sys, venv; sys.exit('%d.%d' % sys.version_info[:2] != {version!r})"
            if not subprocess.run([candidate, "-c", test], capture_output=True).returncode:
                return str(candidate)
    raise SystemExit(f"No Python {' or '.join(versions)} found: name one with PYTHON{versions[0].replace('.', '')}=...")


def environment(folder: Path, pythons: tuple[str, ...], packages: tuple[str, ...]) -> Path:
    """The interpreter of the environment in `folder` with these packages, made where it is missing."""
    made = " ".join(packages)
    python = folder / "bin" / "python"
    marker = folder / ".made-from"
    if not (marker.exists() and marker.read_text() == made):
        print(f"{folder.name}: installing {made}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([find_python(pythons), "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, *packages], check=True)
        marker.write_text(made)
    return python


def tidy(results: dict, messages: dict[str, int]) -> dict:
    """`results` with each error message replaced by its place in the table `messages`."""

    def short(value):
        if isinstance(value, dict) and "error" in value:
            return {"error": messages.setdefault(value["error"], len(messages))}
        return value

    return {
        key: [short(value) for value in values] if isinstance(values, list) else values
        for key, values in results.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", choices=[*ENVIRONMENTS, []], metavar="NAME", help=", ".join(ENVIRONMENTS))
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "lossviz-regimes")
    arguments = parser.parse_args()
    arguments.cache.mkdir(parents=True, exist_ok=True)
    cases = make_cases()
    todo = {"arrays": cases.arrays, "cases": cases.cases, "epochs": EPOCHS}
    print(f"{len(cases.cases)} direct cases, {sum(case['compiled'] for case in cases.cases)} through compile")
    results: dict[str, dict] = {}
    if arguments.names and GOLDEN.exists():
        stored = json.loads(GOLDEN.read_text())
        if {key: stored[key] for key in todo} != todo:
            raise SystemExit(f"The cases are not those of {GOLDEN.name}: run all versions, without names.")
        words = stored["messages"]
        for name, result in stored["results"].items():
            results[name] = {
                key: [{"error": words[v["error"]]} if isinstance(v, dict) and "error" in v else v for v in values]
                if isinstance(values, list)
                else values
                for key, values in result.items()
            }
    file, out = arguments.cache / "cases.json", arguments.cache / "results.json"
    file.write_text(json.dumps(todo))
    for name in arguments.names or ENVIRONMENTS:
        kind, *needs = ENVIRONMENTS[name]
        python = environment(arguments.cache / name, *needs)
        print(f"{name}: running", flush=True)
        out.unlink(missing_ok=True)
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        clean["PYTHONHASHSEED"] = "0"  # sets in messages: always in one order
        run = [python, RUNNER, kind, file, out]
        subprocess.run(run, check=True, env=clean, cwd=arguments.cache)
        results[name] = json.loads(out.read_text())
    messages: dict[str, int] = {}
    ordered = {name: tidy(results[name], messages) for name in ENVIRONMENTS if name in results}
    golden = {**todo, "results": ordered, "messages": list(messages)}
    lines = [f"{json.dumps(key)}: {_lines(value)}" for key, value in golden.items()]
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size / 1000:.0f} kB")


def _lines(value) -> str:
    """Compact JSON with one case, array, message or group of results a line."""
    compact = {"separators": (",", ":")}
    if isinstance(value, list):
        return "[\n" + ",\n".join(json.dumps(item, **compact) for item in value) + "\n]"
    rows = []
    for key, item in value.items():
        body = json.dumps(item, **compact)
        if isinstance(item, dict):
            inner = (f"{json.dumps(k)}:{json.dumps(v, **compact)}" for k, v in item.items())
            body = "{\n" + ",\n".join(inner) + "\n}"
        rows.append(f"{json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(rows) + "\n}"


if __name__ == "__main__":
    main()
