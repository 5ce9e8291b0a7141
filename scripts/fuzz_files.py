"""Damage sound model and data files at random, and see what the command line's readers make of each.

    python scripts/fuzz_files.py 10000        how many were refused and loaded; exit code 1 if anything else happened

Each file is either read as it should be or refused with `Refused`; no other exception, no crash of the process, no
file opened for writing, no process, no connection. The same number gives the same files.
"""

from __future__ import annotations

import collections
import copy
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PART = 500  # files per process, so that a crash costs no more than that
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]


def sound(folder: Path) -> tuple[list[dict[str, bytes]], bytes]:
    """The members of sound models, and a sound .npz."""
    import keras
    import numpy as np
    from models import compiled, dense, sequence, two_outputs

    entry = keras.Input((4,))
    operations = keras.Model(entry, keras.ops.exp(entry * 2)[:, :2])
    found = []
    for model in (dense(), sequence(masked=True), two_outputs(), operations):
        compiled(model, "mse", optimizer="adam", metrics=["mae"]).save(folder / "sound.keras")
        with zipfile.ZipFile(folder / "sound.keras") as file:
            found.append({name: file.read(name) for name in file.namelist()})
    data = io.BytesIO()
    np.savez(data, x=np.ones((6, 4), "float32"), y=np.zeros((6, 3)), sample_weight=np.ones(6))
    return found, data.getvalue()


def damaged_bytes(content: bytes, chance: random.Random) -> bytes:
    """Some bytes changed, cut out, doubled or set to a number that lies."""
    changed = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        place, length = chance.randrange(len(changed)), chance.choice((1, 2, 4, 8, 60))
        kind = chance.randrange(4)
        if kind == 0:
            changed[place : place + length] = chance.randbytes(length)
        elif kind == 1 and len(changed) > 200:
            del changed[place : place + length]
        elif kind == 2:
            changed[place:place] = changed[place : place + length]
        else:
            changed[place : place + length] = chance.choice((b"\xff", b"\x00", b"\x80", b"/")) * length
    return bytes(changed)


def places(value: object, found: list) -> list:
    """Every (container, key) in a configuration."""
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        places(value[key], found)
    return found


def damaged_config(content: bytes, chance: random.Random) -> bytes:
    """Values of the configuration exchanged among themselves, with hostile ones and with nonsense."""
    import hostile

    config = json.loads(content)
    evil = [
        hostile.LAMBDA,
        hostile.LOAD,
        hostile.EDIT,
        hostile.PYTHON,
        hostile.SWITCH,
        hostile.tensor("o"),
        "/etc/passwd",
    ]
    plain = [None, 0, -1, 2**40, 1.5, "", "x", "__import__", [], {}, [[]], True, "keras.saving", "function"]
    for _ in range(chance.choice((1, 1, 2, 4))):
        where = places(config, [])
        container, key = chance.choice(where)
        other, its = chance.choice(where)
        kind = chance.randrange(4)
        if kind == 0 and isinstance(container, dict):
            del container[key]
        elif kind == 1:
            container[key] = copy.deepcopy(chance.choice(evil))
        elif kind == 2:
            container[key] = copy.deepcopy(other[its])
        else:
            container[key] = chance.choice(plain)
    return json.dumps(config).encode()


def packed(members: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for name, value in members.items():
            file.writestr(name, value)
    return content.getvalue()


def make(number: int, models: list[dict[str, bytes]], data: bytes) -> tuple[str, bytes]:
    """The damaged file of this number: its name and its bytes."""
    chance = random.Random(number)
    members = dict(chance.choice(models))
    kind = number % 5
    if kind == 0:
        return "damaged.npz", damaged_bytes(data, chance)
    if kind == 1:
        return "damaged.keras", damaged_bytes(packed(members), chance)
    if kind == 2:
        members["model.weights.h5"] = damaged_bytes(members["model.weights.h5"], chance)
    else:
        members["config.json"] = damaged_config(members["config.json"], chance)
    return "damaged.keras", packed(members)


def part(first: int, last: int) -> dict[str, int]:
    """Read the files of these numbers in this process; how many ended how, and one line on stderr for each fault."""
    import tensorflow  # noqa: F401

    from lossviz import files

    counts: collections.Counter[str] = collections.Counter()
    acts: list[tuple] = []
    watching = False

    def hook(event, arguments):
        written = event == "open" and set(str(arguments[1] or "r")) & set("wax+")
        if watching and (written or event.startswith(("subprocess.", "socket.", "os.system", "os.exec"))):
            acts.append((event, arguments))

    sys.addaudithook(hook)
    with tempfile.TemporaryDirectory() as folder:
        models, data = sound(Path(folder))
        read = {".npz": files.load_arrays, ".keras": files.load_model}
        for number in range(first, last):
            name, content = make(number, models, data)
            path = Path(folder, name)
            path.write_bytes(content)
            acts.clear()
            watching = True
            try:
                read[path.suffix](path, files.Limits(total=2**28))
                ending = "loaded"
            except files.Refused:
                ending = "refused"
            except Exception as error:
                ending = "fault"
                print(number, name, f"{type(error).__name__}: {error}"[:200], file=sys.stderr)
            watching = False
            own = os.path.join(tempfile.gettempdir(), "lossviz-")  # the copy that Keras loads
            if strange := [act for act in acts if not (act[0] == "open" and str(act[1][0]).startswith(own))]:
                ending = "acted"
                print(number, name, strange[:3], file=sys.stderr)
            counts[f"{path.suffix} {ending}"] += 1
            counts[ending] += 1
    return dict(counts)


def main() -> int:
    if sys.argv[1] == "--part":
        print(json.dumps(part(int(sys.argv[2]), int(sys.argv[3]))))
        return 0
    total: collections.Counter[str] = collections.Counter()
    number = int(sys.argv[1])
    for first in range(0, number, PART):
        command = [sys.executable, __file__, "--part", str(first), str(min(first + PART, number))]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            print(f"the process of {first} ended with {done.returncode}", file=sys.stderr)
            total["crashed"] += 1
        else:
            total.update(json.loads(done.stdout.splitlines()[-1]))
    print(", ".join(f"{count} {ending}" for ending, count in sorted(total.items())))
    return 1 if set(total) & {"fault", "acted", "crashed"} else 0


if __name__ == "__main__":
    sys.exit(main())
