"""The command line, on files from anyone: what it prints, what it refuses, and in how many lines."""

import email.message
import importlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from models import ON_TENSORFLOW, compiled, dense, inputs, labels, onehot, targets, two_outputs
from test_html import Page
from test_run import valid

import lossviz
from lossviz.__main__ import main
from lossviz.rules import RULES

ROOT = Path(__file__).parent.parent
SCRIPT = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models and data: one output "o"; two outputs "a" and "b"; and what does not work."""
    folder = tmp_path_factory.mktemp("cli")
    x, y = inputs(10, 4), targets(10, 3)
    compiled(dense(), "mse").save(folder / "one.keras")
    np.savez(folder / "one.npz", x=x, y=y)
    np.savez(folder / "weighted.npz", x=x, y=y, sample_weight=np.arange(10.0))
    compiled(two_outputs(), ["mse", "categorical_crossentropy"]).save(folder / "two.keras")
    np.savez(folder / "numbered.npz", x=x, y_0=y, y_1=onehot(10, classes=2))
    dense(3).save(folder / "uncompiled.keras")
    entry = keras.Input((4,))
    with_lambda = keras.Model(entry, layers.Dense(3)(layers.Lambda(lambda v: 2 * v)(entry)))
    compiled(with_lambda, "mse").save(folder / "lambda.keras")
    whole = (folder / "one.keras").read_bytes()
    (folder / "cut.keras").write_bytes(whole[: len(whole) // 2])
    (folder / "text.keras").write_text("not a zip")
    with zipfile.ZipFile(folder / "empty.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    (folder / "cut.npz").write_bytes((folder / "one.npz").read_bytes()[:200])
    damaged = bytearray((folder / "one.npz").read_bytes())
    damaged[150:200] = bytes(50)
    (folder / "damaged.npz").write_bytes(damaged)
    np.savez(folder / "pickled.npz", x=np.array([{}], dtype=object))
    np.save(folder / "alone.npy", x)
    (folder / "alone.npz").write_bytes((folder / "alone.npy").read_bytes())
    np.savez(folder / "no_x.npz", y=y)
    np.savez(folder / "gap.npz", x=x, y_0=y, y_2=y)
    np.savez(folder / "twice.npz", x=x, y=y, y_0=y)
    np.savez(folder / "typo.npz", x=x, y=y, sample_weights=y)
    np.savez(folder / "short.npz", x=x, y=y[:9])
    return folder


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Runs the command line in the folder: (exit code, stdout, stderr)."""
    monkeypatch.chdir(folder)

    def run(*argv):
        code = main([str(word) for word in argv])
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def test_explain_prints_the_report_of_what_keras_reports(run, folder):
    code, out, err = run("explain", "one.keras", "weighted.npz")
    model = keras.saving.load_model(folder / "one.keras")
    x, y = inputs(10, 4), targets(10, 3)
    report = lossviz.explain(model, x, y, np.arange(10.0))
    assert (code, err) == (0, "")
    assert out == f"{report}\n"
    assert "× sample_weight" in out


def test_json_is_a_whole_report(run, folder):
    names = "red,green,<b>"
    code, out, err = run("explain", "one.keras", "one.npz", "--json", "--batch-size", 4, "--class-names", names)
    found = json.loads(out)
    loss = keras.saving.load_model(folder / "one.keras").evaluate(
        inputs(10, 4), targets(10, 3), batch_size=4, verbose=0
    )
    assert (code, err) == (0, "")
    assert (found["schema"], found["reported"], found["source"]) == ("lossviz.report.v1", loss, "evaluate")
    assert [samples for samples, _ in found["batches"]] == [4, 4, 2]
    shares = dict(found["terms"][0]["parts"][0]["by"]["class"])
    assert list(shares) == ["red", "green", "<b>"]
    assert sum(shares.values()) == pytest.approx(loss, rel=1e-6)
    documented = {"total", "reported", "residual", "tolerance", "source", "batch_size", "batches", "versions", "notes"}
    assert set(found) == {"schema", "findings", "terms", *documented}
    assert {"name", "kind", "value", "loss_weight", "contribution", "exactness", "note", "parts"} == set(
        found["terms"][0]
    )


def test_nan_is_valid_json(run, folder):
    x = inputs(10, 4)
    x[3, 1] = np.nan
    np.savez(folder / "nan.npz", x=x, y=targets(10, 3))
    code, out, _ = run("explain", "one.keras", "nan.npz", "--json")
    assert code == 0

    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    assert json.loads(out, parse_constant=refuse)["reported"] == "NaN"


def test_several_outputs_by_number_and_by_name(run, folder):
    x, a, b = inputs(10, 4), targets(10, 3), onehot(10, classes=2)
    np.savez(folder / "named.npz", **{"x": x, "y.a": a, "y.b": b})
    compiled(two_outputs(as_dict=True), {"a": "mse", "b": "categorical_crossentropy"}).save(folder / "named.keras")
    for model, data in (("two.keras", "numbered.npz"), ("named.keras", "named.npz")):
        code, out, err = run("explain", model, data, "--json")
        assert (code, err) == (0, "")
        assert [term["name"] for term in json.loads(out)["terms"]] == ["a", "b"]


def test_the_page_is_whole_and_what_names_hold_is_text_in_it(run, folder):
    names = f"red,{SCRIPT},</style><img src=x>"
    code, out, err = run("explain", "one.keras", "one.npz", "--html", "page.html", "--class-names", names)
    assert (code, err) == (0, "") and out.endswith("written to page.html\n")
    source = (folder / "page.html").read_text(encoding="utf-8")
    assert source.startswith("<!doctype html>") and "default-src 'none'" in source
    assert "<script" not in source and "<img" not in source
    page = Page(source.split("<body>")[1].split("</body>")[0])
    assert SCRIPT in page.text and "</style><img src=x>" in page.text
    assert not list(folder.glob(".page*"))


def test_names_in_the_model_file_are_escaped(run, folder):
    """TensorFlow runs no model with a `<` in a name: such a name gets no further than one line."""
    for name, scope in (("o>i", "m>n"), ("o", "<b>\x1b[31m")):
        entry = keras.Input((4,))
        model = keras.Model(entry, layers.Dense(3, name=name, kernel_regularizer="l2")(entry), name=scope)
        compiled(model, "mse").save(folder / "evil.keras")
        code, _, err = run("explain", "evil.keras", "one.npz", "--html", "evil.html")
        if name == "o>i" or not ON_TENSORFLOW:
            assert (code, err) == (0, "")
        else:
            assert code == 2 and err.count("\n") == 1 and "\x1b" not in err and "<b>\\x1b[31m" in err
        source = (folder / "evil.html").read_text(encoding="utf-8")
        if name == "o>i":
            assert "o&gt;i" in source and "<title>m&gt;n: " in source and "o>i" not in source
    assert "<title><b>" not in source and "\x1b" not in source


def test_a_page_that_cannot_be_written_leaves_the_old_one(run, folder, monkeypatch):
    page = folder / "old.html"
    page.write_text("old")

    def full(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    code, _, err = run("explain", "one.keras", "one.npz", "--html", "old.html")
    assert (code, err) == (2, "lossviz: --html old.html: No space left on device\n")
    assert page.read_text() == "old" and not list(folder.glob(".old*"))


@pytest.mark.parametrize(
    "model, data, words",
    [
        ("none.keras", "one.npz", "none.keras: no such file"),
        ("one.keras", "none.npz", "none.npz: no such file"),
        (".", "one.npz", ".: is a folder, not a file"),
        ("one.npz", "one.npz", 'one.npz: not a .keras file; model.save("model.keras") writes one'),
        ("text.keras", "one.npz", "text.keras: not a .keras file (which is a zip archive)"),
        ("cut.keras", "one.npz", "cut.keras: not a .keras file"),
        ("empty.keras", "one.npz", "empty.keras: cannot be loaded"),
        ("lambda.keras", "one.npz", "lambda.keras: layer 'lambda' names keras.layers.Lambda, which runs Python code"),
        ("uncompiled.keras", "one.npz", "is not compiled, so it has no loss yet"),
        ("one.keras", "cut.npz", "cut.npz: not a whole .npz file"),
        ("one.keras", "damaged.npz", "damaged.npz: not a whole .npz file"),
        ("one.keras", "text.keras", "text.keras: not a whole .npz file (File is not a zip file)"),
        ("one.keras", "pickled.npz", "pickled.npz: x holds Python objects (pickled), which are refused"),
        ("one.keras", "alone.npz", "alone.npz: one array without a name; write it with np.savez(path, x=x, y=y)"),
        ("one.keras", "no_x.npz", "no_x.npz: holds no array x"),
        ("one.keras", "gap.npz", "gap.npz: y_0, y_1, ... have a gap: ['y_0', 'y_2']"),
        ("one.keras", "twice.npz", "twice.npz: y is there in several forms, ['y', 'y_0']; use one"),
        ("one.keras", "typo.npz", "typo.npz: unknown array 'sample_weights'; known are x, y, sample_weight"),
        ("one.keras", "short.npz", "y has 9 samples (shape (9, 3)), x has 10"),
        ("two.keras", "one.npz", "y holds 1 target(s), model"),
    ],
)
@pytest.mark.parametrize("command", ["explain", "lint"])
def test_a_bad_file_is_one_line_and_exit_code_2(run, command, model, data, words):
    code, out, err = run(command, model, data)
    assert (code, out) == (2, "")
    assert err.startswith("lossviz: ") and err.count("\n") == 1
    assert words in err


@pytest.mark.parametrize(
    "options, words",
    [
        (("--html", "none/page.html"), "--html none/page.html: its folder does not exist"),
        (("--html", "."), "--html .: is a folder"),
        (("--html", "one.npz"), "--html one.npz: would overwrite what is to be read"),
        (("--batch-size", 0), "batch_size=0, but it must be a whole number"),
        (("--class-names", "a,b"), "class_names=('a', 'b') has 2 names and fits no output"),
        (("--axes", "batch"), "axes=('batch',) has 1 names and fits no output"),
        (("--import", "no_such_module"), "--import no_such_module: ModuleNotFoundError"),
    ],
)
def test_a_bad_option_too(run, folder, options, words):
    before = (folder / "one.npz").read_bytes()
    code, out, err = run("explain", "one.keras", "one.npz", *options)
    assert (code, out) == (2, "")
    assert err.startswith("lossviz: ") and err.count("\n") == 1 and words in err
    assert (folder / "one.npz").read_bytes() == before


def test_objects_of_ones_own_need_import_and_it_is_said(run, folder, monkeypatch, capsys):
    (folder / "my_layers.py").write_text(
        "import keras\nprint('imported')\n@keras.saving.register_keras_serializable('mine')\n"
        "class Twice(keras.layers.Layer):\n    def call(self, x):\n        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(folder)
    twice = importlib.import_module("my_layers").Twice
    entry = keras.Input((4,))
    compiled(keras.Model(entry, layers.Dense(3)(twice()(entry))), "mse").save(folder / "mine.keras")
    del sys.modules["my_layers"]
    keras.saving.get_custom_objects().pop("mine>Twice")
    capsys.readouterr()
    monkeypatch.undo()
    monkeypatch.chdir(folder)
    code, out, err = run("explain", "mine.keras", "one.npz")
    assert (code, out) == (2, "")
    assert err == (
        "lossviz: mine.keras: layer 'twice' needs class 'Twice', which is no part of Keras; "
        "name the module that registers it with --import, if you know its author\n"
    )
    before = list(sys.path)
    code, out, err = run("explain", "mine.keras", "one.npz", "--json", "--import", "my_layers")
    assert (code, err) == (0, "imported\n")
    assert json.loads(out)["schema"] == "lossviz.report.v1"
    assert sys.path == before


def test_losses_of_lossviz_need_no_import(run, folder):
    model = keras.Sequential([keras.Input((4, 4, 3)), layers.Conv2D(2, 1, activation="sigmoid")])
    compiled(model, lossviz.losses.SegmentationTversky()).save(folder / "tversky.keras")
    np.savez(folder / "pixels.npz", x=inputs(2, 4, 4, 3), y=onehot(2, 4, 4, classes=2))
    assert run("explain", "tversky.keras", "pixels.npz")[::2] == (0, "")


def test_lint(run, folder):
    assert run("lint", "one.keras", "one.npz") == (0, "no findings\n", "")
    assert json.loads(run("lint", "one.keras", "one.npz", "--json")[1]) == {
        "schema": "lossviz.findings.v1",
        "findings": [],
    }
    entry = keras.Input((4,))
    twice = layers.Dense(3, activation="softmax", name="o")(entry)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    compiled(keras.Model(entry, layers.Softmax(name="again")(twice)), loss).save(folder / "softmax.keras")
    np.savez(folder / "classes.npz", x=inputs(10, 4), y=labels(10, classes=3))
    code, out, err = run("lint", "softmax.keras", "classes.npz")
    assert code == 1 and "Fix: " in out
    said = err.startswith("lossviz: warning: ") and err.count("\n") == 1  # Keras's own word on it
    assert said if ON_TENSORFLOW else err == ""
    code, out, _ = run("lint", "softmax.keras", "classes.npz", "--json")
    finding = json.loads(out)["findings"][0]
    assert code == 1 and {"rule", "where", "sentence", "fix", "page", "since", "until"} <= set(finding)
    code, out, _ = run("lint", "softmax.keras", "classes.npz", "--sarif", "found.sarif")
    assert code == 1 and out.endswith("\nwritten to found.sarif\n")
    (found,) = valid(json.loads((folder / "found.sarif").read_text()))["runs"]
    assert found["results"][0]["ruleId"] == found["tool"]["driver"]["rules"][0]["id"] == "double-activation"
    place = found["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"] == {"uri": "softmax.keras"}
    assert run("lint", "one.keras", "one.npz", "--sarif", "one.keras") == (
        *(2, ""),
        "lossviz: --sarif one.keras: would overwrite what is to be read\n",
    )


def test_help_and_usage(run):
    code, out, err = run()
    assert (code, err) == (0, "") and "explain" in out and "lint" in out and "x.NAME" in out
    assert run("--version") == (0, f"lossviz {lossviz.__version__}\n", "")
    for words in ("--html", "--json", "--import", "--batch-size", "exit code"):
        assert words in run("explain", "--help")[1]
    code, out, err = run("explain", "one.keras")
    assert (code, out) == (2, "") and "required: data" in err


def test_as_a_process_nothing_else_is_printed(folder):
    def process(*argv, **more):
        command = [sys.executable, "-m", "lossviz", *argv]
        env = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"} | {"PYTHONPATH": str(ROOT)}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, **more)

    done = process("explain", "one.keras", "one.npz", "--batch-size", "4")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("loss ") and "from evaluate" in done.stdout
    bad = process("explain", "one.keras", "cut.npz")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_has_its_words_and_its_page(name):
    rule = RULES[name]
    assert rule.summary.endswith(".") and rule.way_out.endswith("."), "say `Way out: ...` in the rule's docstring"
    assert "\n" not in rule.summary + rule.way_out
    page, _, anchor = rule.page.partition("#")
    (file,) = [file for kind in ("ipynb", "md") if (file := ROOT / "book" / f"{page}.{kind}").exists()]
    assert f"({anchor})=" in file.read_text(encoding="utf-8") if anchor else page


def test_rules_explains_each(run):
    code, out, err = run("rules")
    assert (code, err) == (0, "")
    assert [entry.split(":")[0] for entry in out.rstrip("\n").split("\n\n")] == list(RULES)
    code, out, _ = run("rules", "dice-batch", "weights-divisor")
    assert out.splitlines()[0] == "dice-batch: warning" and "See the page ratios of the book" in out
    assert "weights-divisor: error (Keras 3.7 and newer)" in out
    assert run("rules", "dice-bath") == (2, "", "lossviz: no rule is called dice-bath; did you mean dice-batch?\n")


def test_rules_give_the_address_of_the_book_where_it_is_known(run, monkeypatch):
    about = email.message.EmailMessage()
    about["Project-URL"] = "Documentation, https://example.org/book/"
    monkeypatch.setattr("importlib.metadata.metadata", lambda name: about)
    assert run("rules", "dice-batch")[1].endswith("\nSee https://example.org/book/ratios.html\n")
