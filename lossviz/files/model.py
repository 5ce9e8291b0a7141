"""A model from a .keras file: the archive, its configuration and its weights are looked at before Keras loads them.

What Keras loads is not the file, but a copy in a folder of our own, which holds what was looked at and nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import re
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lossviz.backend.quiet import import_tensorflow
from lossviz.files import config, weights
from lossviz.files.limits import Limits, Refused, open_regular
from lossviz.files.names import Names, known

#: Keras before this version follows links and reads files that a model file names.
OLDEST = (3, 13, 2)
_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_MEMBERS = re.compile(
    r"metadata\.json|config\.json|model\.weights\.h5|assets/|(assets(/[\w .-]*\w)+/)(vocabulary\.txt)?"
)


def load_model(path: Path, limits: Limits, modules: Iterable[str] = ()) -> Any:
    """The compiled model in the .keras file `path`.

    Args:
        path: the file. Nothing in it is followed to any other file.
        limits: how much it may hold.
        modules: modules to import first; the file may then name what they register, besides `allowed.txt`.

    Raises:
        Refused: it is no such file, holds what it must not, or Keras cannot load it.
    """
    with open_regular(path) as file:
        members = _members(path, file, limits)
    try:
        configuration = json.loads(members[_CONFIG])
    except (ValueError, RecursionError) as error:
        raise Refused(f"{path}: its config.json cannot be read ({error})") from error
    names = known()
    for module in modules:
        names = names.with_registered(_registered_by(module))
    try:
        config.check(configuration, names)
        weights.check(members[_WEIGHTS], limits)
    except Refused as refused:
        raise Refused(f"{path}: {refused}") from refused
    if not configuration.get("compile_config") and configuration.get("registered_name") not in names.registered:
        raise Refused(f"{path}: the model is not compiled, so it has no loss yet; call model.compile(loss=...) first")
    import_tensorflow()
    import keras

    from lossviz import layers, losses  # noqa: F401  (they register themselves)

    _check_version(keras.__version__)
    members[_CONFIG] = json.dumps(configuration).encode()  # read by Keras as it was read here
    members["metadata.json"] = b"{}"  # version and date of saving, which Keras does not look at
    with tempfile.TemporaryDirectory(prefix="lossviz-") as folder:
        copy = Path(folder, "model.keras")
        with zipfile.ZipFile(copy, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        members.clear()
        with _only(names):
            model = _load(keras, path, copy)
    if not isinstance(model, keras.Model):
        raise Refused(f"{path}: holds a {type(model).__name__}, not a model")
    return model


def _members(path: Path, file, limits: Limits) -> dict[str, bytes]:
    """What the archive holds, by name, after a look at all names and sizes."""
    if path.suffix != ".keras":
        raise Refused(
            f'{path}: not a .keras file; model.save("model.keras") writes one (load an older file only if you know its '
            "author, or in a container)"
        )
    if not zipfile.is_zipfile(file):
        raise Refused(f"{path}: not a .keras file (which is a zip archive)")
    try:
        with zipfile.ZipFile(file) as archive:
            members = limits.check_members(path, archive)
            for member in members:
                if not _MEMBERS.fullmatch(member.filename):
                    raise Refused(f"{path}: holds {member.filename!r}, which is no part of a .keras file")
            for name in (_CONFIG, _WEIGHTS):
                if name not in archive.namelist():
                    raise Refused(f"{path}: cannot be loaded: it holds no {name}")
            limits.check(path, _CONFIG, archive.getinfo(_CONFIG).file_size, limits.config)
            return {m.filename: archive.read(m) for m in members if m.filename != "metadata.json" and not m.is_dir()}
    except Refused:
        raise
    except MemoryError as error:
        raise Refused(f"{path}: there is not enough memory to read it") from error
    except Exception as error:  # zipfile and zlib raise many kinds on a corrupt file
        raise Refused(f"{path}: not a whole .keras file ({error})") from error


def _check_version(version: str) -> None:
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise Refused(f"Keras {version} reads model files in an unsafe way; files need Keras {oldest} or newer")


def _registered_by(module: str) -> set[str]:
    """Import a module, also from the current folder; the names that it registers, now or when it was first imported."""
    import_tensorflow()
    import keras

    objects = keras.saving.get_custom_objects()
    before = set(objects)
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        importlib.import_module(module)
    except Exception as error:
        raise Refused(f"--import {module}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(here)
    return {n for n, thing in objects.items() if n not in before or getattr(thing, "__module__", None) == module}


@contextlib.contextmanager
def _only(names: Names) -> Iterator[None]:
    """While open, Keras knows of all registered objects only those that are in `names`."""
    import keras

    objects = keras.saving.get_custom_objects()
    before = dict(objects)
    try:
        for name in set(before) - names.registered:
            del objects[name]
        yield
    finally:
        objects.clear()
        objects.update(before)


def _load(keras, path: Path, copy: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return keras.saving.load_model(copy, safe_mode=True)
    except Exception as error:  # Keras and h5py raise many kinds on a file that is not what it should be
        raise Refused(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
