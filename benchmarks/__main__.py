"""Run the benchmarks, print one table, and write it down: `python -m benchmarks`; see README.md in this folder."""

from __future__ import annotations

import argparse
import ast
import datetime
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "lossviz" / "data" / "benchmarks"  # in the package, so that a notebook on Colab has them
BACKENDS = ("tensorflow", "jax")
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "jax", "numpy")


def main() -> int:
    names = sorted(path.stem for path in FOLDER.glob("*.py") if "\ndef measure(" in path.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"only these, not recorded: {', '.join(names)}")
    parser.add_argument("--backend", choices=BACKENDS, help="only this backend; default: every one that is installed")
    parser.add_argument("--tiny", action="store_true", help="the smallest sizes, to see that all runs; not recorded")
    parser.add_argument("--output", type=Path, help="record in this folder, also what is not all or tiny")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(names):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    whole = not (arguments.names or arguments.backend or arguments.tiny)
    output = arguments.output or (RESULTS if whole else None)

    started, load = time.time(), os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    backends = [name for name in BACKENDS if installed(name) and arguments.backend in (None, name)]
    if not backends:
        parser.error(f"{arguments.backend or ' or '.join(BACKENDS)} must be installed")
    results: dict[str, dict[str, Any]] = {}  # by the name of the device, one for each backend at most
    skipped = [f"{name} is not installed" for name in BACKENDS if not installed(name)]
    failed = []
    for name in arguments.names or names:
        for backend in [backend for backend in backends if backend in backends_of(name)]:
            print(f"{name} on {backend} ...", end=" ", file=sys.stderr, flush=True)
            start = time.time()
            found = run(name, backend, arguments.tiny)
            print(f"{time.time() - start:.0f} s", file=sys.stderr, flush=True)
            if isinstance(found, str):
                failed.append(f"{name} on {backend}: {found}")
                continue
            result = results.setdefault(found["device"], {"kind": found["kind"], "records": [], "growth": []})
            for record in found["records"]:
                place = "growth" if "slope" in record else "records"
                result[place].append({"benchmark": name, "backend": backend, **record})
    if "gpu" not in {result["kind"] for result in results.values()}:
        skipped.append("no GPU here: bandwidth and the U-Net step are of the CPU, and have no target")
    for device, result in results.items():
        head = {
            "device": device,
            "date": datetime.date.today().isoformat(),
            "versions": {"python": platform.python_version(), **versions()},
            "load": None if load is None else round(load, 1),  # of other processes, before the first benchmark
            "minutes": round((time.time() - started) / 60, 1),
        }
        result = {**head, **result, "skipped": skipped, "failed": failed}
        print(table(result))
        if output:
            output.mkdir(parents=True, exist_ok=True)
            slug = re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") if result["kind"] == "gpu" else "cpu"
            path = output / f"{slug}.json"
            path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            print(f"written to {path}", file=sys.stderr)
    print(*failed, sep="\n", file=sys.stderr)
    return 1 if failed else 0


def installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ImportError:
        return False


def backends_of(name: str) -> tuple[str, ...]:
    """What the module says in BACKENDS, read and not imported: it may need the backend for that."""
    for node in ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "BACKENDS":
            return ast.literal_eval(node.value)
    return BACKENDS


def run(name: str, backend: str, tiny: bool) -> dict[str, Any] | str:
    """The records of one benchmark in its own process, or the last line of its error."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "records.json")
        command = [sys.executable, "-m", "benchmarks.run_one", name, str(file), *["--tiny"] * tiny]
        paths = [str(FOLDER.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "KERAS_BACKEND": backend}
        environment["PYTHONPATH"] = os.pathsep.join(paths)
        process = subprocess.run(command, env=environment, stdout=sys.stderr, stderr=subprocess.PIPE, text=True)
        if process.returncode:
            return (process.stderr.strip() or f"ended with {process.returncode}").splitlines()[-1]
        return json.loads(file.read_text(encoding="utf-8"))


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def table(result: dict[str, Any]) -> str:
    """One device's records, two lines each, and what was not measured."""
    about = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    lines = [f"{result['device']}, {result['date']}; {about}", ""]
    lines.append(f"{'':12}{'':76}{'median':>12}{'against':>12}{'ratio':>8}  {'quartiles':16}target")
    for record in result["records"]:
        numbers = f"{quantity(record, 'median')}{quantity(record, 'against_median')}{record['ratio']:8.3g}"
        quartiles = " to ".join(f"{value:.3g}" for value in record["ratio_quartiles"])
        lines.append(f"{record['backend']:12}{record['what']:76}{numbers}  {quartiles:16}{target(record)}")
        note = f"; {record['note']}" if record["note"] else ""
        lines.append(f"{'':12}  against {record['against']}{note}")
    if result["growth"]:
        lines += ["", "How cost grows: the exponent of size"]
    for record in result["growth"]:
        sizes, (first, *_, last) = record["sizes"], record["median"]
        what = f"{record['what']}, {record['along']} {sizes[0]} to {sizes[-1]}"
        lines.append(f"{record['backend']:12}{what:76}{first:9.2f} ms{last:9.2f} ms{record['slope']:8.2f}")
    return "\n".join([*lines, "", *result["skipped"], *[f"FAILED {line}" for line in result["failed"]]])


def quantity(record: dict[str, Any], key: str) -> str:
    return f"{f'{record[key]:.3g} ' + record['unit']:>12}"


def target(record: dict[str, Any]) -> str:
    if record["target"] is None:
        return ""
    verdict = "met" if record["met"] else f"missed by {record['missed_by']:.3g}"
    return f"{'≥' if record['at_least'] else '≤'} {record['target']:g}  {verdict}"


if __name__ == "__main__":
    sys.exit(main())
