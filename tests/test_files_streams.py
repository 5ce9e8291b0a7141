"""Exit codes and what is printed, where streams are closed or full, names long, folders shut, and links in the way."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models import compiled, dense, inputs, targets

import lossviz
from lossviz import __main__ as command_line
from lossviz.report.findings import Finding

ROOT = Path(__file__).parent.parent
LONG = "a" * 300


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("streams")
    compiled(dense(), "mse").save(folder / "good.keras")
    np.savez(folder / "good.npz", x=inputs(10, 4), y=targets(10, 3))
    np.savez(folder / "text.npz", x=inputs(10, 4), y=np.array(["cat"] * 10))
    (folder / "prints.py").write_text("import os\nprint('imported')\nos.write(1, b'by the system\\n')\n")
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)

    def run(*argv):
        code = command_line.main([str(word) for word in argv])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.mark.parametrize(
    "streams, code, words",
    [
        (">&-", 2, "lossviz: stdout is closed, so nothing can be printed (>/dev/null drops the text)"),
        (">/dev/full", 2, "lossviz: stdout: No space left on device"),
        ("2>&- >out", 0, ""),
        ("2>/dev/full >out", 0, ""),
        ("<&- >out", 0, ""),
        ("| head -c 1", 0, ""),
    ],
)
def test_streams(streams, code, words, folder):
    """In a process of its own, since it is about its first three files."""
    (folder / "out").unlink(missing_ok=True)
    line = f"{sys.executable} -m lossviz explain good.keras good.npz {streams}; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["bash", "-c", line]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr.strip()) == (code, words)
    if streams.endswith(">out"):
        assert (folder / "out").read_text().startswith("loss ")


def test_what_is_printed_while_loading_does_not_reach_the_json(folder):
    """Neither what Python prints nor what is written past it."""
    command = [sys.executable, "-m", "lossviz", "explain", "good.keras", "good.npz", "--json", "--import", "prints"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and json.loads(done.stdout)["schema"] == "lossviz.report.v1"
    assert {"imported", "by the system"} <= set(done.stderr.splitlines())


@pytest.mark.parametrize(
    "argv, words",
    [
        ((f"{LONG}.keras", "good.npz"), "File name too long"),
        (("good.keras", f"{LONG}.npz"), "File name too long"),
        (("good.keras", "good.npz", "--html", f"{LONG}.html"), "File name too long"),
        (("good.keras", "good.npz", "--html", "/dev/null"), "--html /dev/null: is no regular file"),
        (("good.keras", "good.npz", "--html", "circle.html"), "--html circle.html: "),
        (
            ("good.keras", "good.npz", "--html", "to_data.html"),
            "--html to_data.html: would overwrite what is to be read",
        ),
        (("circle.html", "good.npz"), "circle.html: Too many levels of symbolic links"),
        (("nul\0.keras", "good.npz"), "embedded null byte"),
        (("good.keras", "text.npz"), "y holds text, such as 'cat', and a loss takes numbers"),
        (("good.keras", "good.npz", "--max-gb", "0.0000001"), "more than the limit of 107 bytes; --max-gb raises"),
    ],
)
def test_a_path_that_cannot_be_used_is_one_line(argv, words, run, folder):
    for link, target in (("circle.html", "circle.html"), ("to_data.html", "good.npz")):
        if not (folder / link).is_symlink():
            (folder / link).symlink_to(target)
    code, out, err = run("explain", *argv)
    assert (code, out) == (2, "") and err.startswith("lossviz: ") and err.count("\n") == 1
    assert words in err and "fault of lossviz" not in err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter every folder")
def test_a_folder_that_may_not_be_entered(run, folder):
    shut = folder / "shut"
    shut.mkdir(mode=0)
    try:
        assert run("explain", "good.keras", "shut/d.npz") == (2, "", "lossviz: shut/d.npz: Permission denied\n")
    finally:
        shut.chmod(0o700)


def test_the_page_follows_a_link_and_keeps_the_mode(run, folder):
    target = folder / "target.html"
    target.write_text("old")
    target.chmod(0o640)
    (folder / "link.html").symlink_to("target.html")
    assert run("explain", "good.keras", "good.npz", "--html", "link.html")[0] == 0
    assert target.read_text().startswith("<!doctype html>") and (folder / "link.html").is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    (folder / "dangling.html").symlink_to("new.html")
    assert run("explain", "good.keras", "good.npz", "--html", "dangling.html")[0] == 0
    assert (folder / "new.html").read_text().startswith("<!doctype html>")
    assert run("explain", "good.keras", "good.npz", "--html", f"{'b' * 250}.html")[0] == 0
    assert not list(folder.glob(".lossviz-*"))


@pytest.mark.parametrize("error", [KeyError("x"), ZeroDivisionError("a\nb"), AssertionError(), RecursionError("deep")])
def test_a_fault_of_ours_says_so_and_shows_its_traceback_on_request(error, run, monkeypatch):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr(lossviz, "lint", fails)
    code, out, err = run("lint", "good.keras", "good.npz")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("lossviz: this is a fault of lossviz, please report it (LOSSVIZ_DEBUG=1 shows where): ")
    monkeypatch.setenv("LOSSVIZ_DEBUG", "1")
    code, _, err = run("lint", "good.keras", "good.npz")
    assert code == 2 and err.startswith("Traceback (most recent call last):")


def test_a_value_error_of_what_we_call_is_a_fault_too(run, monkeypatch):
    monkeypatch.setattr(lossviz, "lint", lambda *_, **__: np.zeros(3).reshape(2, 2))
    assert "this is a fault of lossviz" in run("lint", "good.keras", "good.npz")[2]


def test_no_control_character_of_a_finding_is_printed():
    finding = Finding("rule", "out\x1b[31m\u202e", "a\rb", "fix\n\x07")
    assert str(finding).endswith("rule: out\\x1b[31m\\u202e: a\\rb\nFix: fix\\n\\x07")
