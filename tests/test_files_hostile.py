"""Hostile files, through every command: refused in one line before anything of them has acted."""

import os
import subprocess
import sys
from pathlib import Path

import hostile
import keras
import numpy as np
import pytest
from models import compiled, dense, inputs, targets

from lossviz.__main__ import main

ROOT = Path(__file__).parent.parent
COMMANDS = {
    "explain": ("explain",),
    "lint": ("lint",),
    "json": ("explain", "--json"),
    "lint --json": ("lint", "--json"),
    "html": ("explain", "--html", "page.html"),
}
TRAP = "open('acted', 'w').close()\nraise SystemExit('imported')\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A sound model and its data, and traps: modules that leave a file when they are imported, a pipe that blocks."""
    folder = tmp_path_factory.mktemp("hostile")
    compiled(dense(), "mse").save(folder / "sound.keras")
    np.savez(folder / "sound.npz", x=inputs(10, 4), y=targets(10, 3))
    (folder / "evil_module.py").write_text(TRAP)
    (folder / "keras_hub").mkdir()
    (folder / "keras_hub" / "__init__.py").write_text(TRAP)
    os.mkfifo(folder / hostile.PIPE)
    return folder


class Canary:
    """Notes what the process does, from the outside: opened files, connections, processes, changed settings."""

    WATCHED = ("open", "socket.", "subprocess.", "os.", "shutil.", "import", "marshal.", "pickle.", "exec", "urllib.")

    def __init__(self):
        self.watching, self.events = False, []
        sys.addaudithook(self.hook)  # for the rest of the process: none can be taken away

    def hook(self, event, arguments):
        if self.watching and event.startswith(self.WATCHED):
            self.events.append((event, arguments))

    def acts(self, allowed: set[str]) -> list:
        """What is no reading of the files `allowed`, and no import of a module of Python's own."""
        own = tuple({os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, ROOT / "lossviz")})
        acts = []
        for event, arguments in self.events:
            if event == "open":
                path, mode = str(arguments[0]), arguments[1]
                reading = mode is None or set(mode) <= set("rb")
                if reading and (path in allowed or os.path.realpath(path).startswith(own)):
                    continue
                if arguments[0] == os.devnull or isinstance(arguments[0], int):
                    continue
            elif event in ("import", "exec", "marshal.loads", "os.listdir", "os.scandir"):
                if "evil" not in str(arguments) and "keras_hub" not in str(arguments):
                    continue
            acts.append((event, arguments))
        return acts


@pytest.fixture(scope="module")
def canary():
    return Canary()


def test_the_canary_sees(canary, tmp_path):
    canary.watching, canary.events = True, []
    (tmp_path / "written").write_text("x")
    subprocess.run([sys.executable, "-c", ""], check=True)
    canary.watching = False
    assert {event for event, _ in canary.acts(set())} >= {"open", "subprocess.Popen"}


def refused(argv, words, canary, capsys, monkeypatch, folder):
    """The command ends in one line with these words, and nothing has happened."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras has loaded it"))
    before, settings = sorted(os.listdir(folder)), (keras.config.floatx(), keras.config.backend())
    objects = dict(keras.saving.get_custom_objects())
    canary.events, canary.watching = [], True
    try:
        code = main(list(argv))
    finally:
        canary.watching = False
    out, err = capsys.readouterr()
    assert (code, out) == (2, "") and err.startswith("lossviz: ") and err.count("\n") == 1
    assert words in err, err
    assert "fault of lossviz" not in err
    assert canary.acts({argv[1], argv[2]}) == []
    assert sorted(os.listdir(folder)) == before
    assert (keras.config.floatx(), keras.config.backend()) == settings
    assert keras.saving.get_custom_objects() == objects


@pytest.mark.parametrize("command", COMMANDS)
def test_no_hostile_model_acts(command, folder, canary, capsys, monkeypatch):
    files = hostile.models(folder / "sound.keras")
    assert len(files) > 100
    name, *options = COMMANDS[command]
    for content, words in files.values():
        (folder / "hostile.keras").write_bytes(content)
        refused((name, "hostile.keras", "sound.npz", *options), words, canary, capsys, monkeypatch, folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_hostile_data_act(command, folder, canary, capsys, monkeypatch):
    name, *options = COMMANDS[command]
    for content, words in hostile.DATA.values():
        (folder / "hostile.npz").write_bytes(content)
        refused((name, "sound.keras", "hostile.npz", *options), words, canary, capsys, monkeypatch, folder)


def test_old_files_and_folders_are_refused(folder, canary, capsys, monkeypatch):
    for suffix in (".h5", ".hdf5", ""):
        (folder / f"old{suffix}").write_bytes(hostile.hdf5(lambda file: None))
        words = "not a .keras file; model.save"
        refused(("explain", f"old{suffix}", "sound.npz"), words, canary, capsys, monkeypatch, folder)
    (folder / "folder.keras").mkdir()
    (folder / "folder.keras" / "config.json").write_text("{}")
    refused(("lint", "folder.keras", "sound.npz"), "is a folder", canary, capsys, monkeypatch, folder)
    refused(("lint", hostile.PIPE, "sound.npz"), "pipe: is no regular file", canary, capsys, monkeypatch, folder)
    refused(("lint", "sound.keras", hostile.PIPE), "pipe: is no regular file", canary, capsys, monkeypatch, folder)


def test_the_current_folder_stands_in_for_no_module(folder, tmp_path):
    """`python -m` looks there first: `numpy.py` beside the model would be anyone's code."""
    for name in ("numpy", "keras", "tensorflow", "h5py", "evil_module", "lossviz_plugin", "pandas", "IPython"):
        (tmp_path / f"{name}.py").write_text(TRAP)
    for name in ("sound.keras", "sound.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    command = [sys.executable, "-m", "lossviz", "explain", "sound.keras", "sound.npz"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("loss ")
    assert not (tmp_path / "acted").exists()
