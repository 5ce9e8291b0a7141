"""The command line: `python -m lossviz explain model.keras data.npz` and `python -m lossviz lint model.keras data.npz`.

Both files may come from anyone. No pickle is read, no code that a model file holds is run, and names are escaped
wherever they are printed. Only `--import` runs code, and that is the code of the person who types it.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from lossviz import __version__
from lossviz.report import formatting as f

_EPILOG = """\
model.keras   a compiled model, as model.save("model.keras") writes it. It is loaded in Keras's safe mode: Lambda
              layers and other Python code in the file are refused. Layers and losses of your own must be registered
              (keras.saving.register_keras_serializable) in a module that --import names; that module is run.
data.npz      arrays, as np.savez("data.npz", x=x, y=y, sample_weight=weights) writes them; y and sample_weight may
              be missing. Several inputs or outputs: x_0, x_1, ... in their order, or x.NAME for each name, and
              likewise y_0, y.NAME, sample_weight_0, sample_weight.NAME. Pickled arrays are refused.

--json        prints one object. Of explain: "schema" ("lossviz.report.v1") and what Report.to_dict() holds: "total",
              "reported", "residual", "tolerance", "source", "batch_size", "batches" (pairs [samples, loss]),
              "versions", "notes", "findings", and "terms", each with "name", "kind", "value", "loss_weight",
              "contribution", "exactness", "note" and "parts", in which "by" maps an axis to pairs [label, share].
              Of lint: "schema" ("lossviz.findings.v1") and "findings", each with "rule", "where", "sentence", "fix",
              "page", "since", "until". Later versions may add keys. Where JSON has no number for a value, it is one
              of the strings "NaN", "Infinity", "-Infinity".

exit code     0: all is well. 1: explain found parts that do not add up, or lint found something. 2: a file or
              an argument cannot be used; one line on stderr says why.
"""


class Refused(Exception):
    """A file or an argument cannot be used; the message is the line to print."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: that of the process) and return its exit code."""
    parser = _parser()
    with contextlib.suppress(AttributeError):  # a terminal without box characters shows ? instead of failing
        sys.stdout.reconfigure(errors="replace")
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed why
        return int(end.code or 0)
    if arguments.command is None:
        parser.print_help()
        return 0
    try:
        code = _explain(arguments) if arguments.command == "explain" else _lint(arguments)
        sys.stdout.flush()
        return code
    except Refused as refused:
        print(f"lossviz: {_one_line(refused)}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _parser() -> argparse.ArgumentParser:
    kind = argparse.RawDescriptionHelpFormatter
    about = "Show how the loss of a Keras model came about, or what is wrong with it."
    parser = argparse.ArgumentParser("lossviz", description=about, epilog=_EPILOG, formatter_class=kind)
    parser.add_argument("--version", action="version", version=f"lossviz {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    for name, words in (
        ("explain", "print how the loss became one number"),
        ("lint", "print what is wrong with the loss on this data, and the fix"),
    ):
        command = commands.add_parser(name, help=words, description=words, epilog=_EPILOG, formatter_class=kind)
        command.add_argument("model", type=Path, help="a compiled model, a .keras file")
        command.add_argument("data", type=Path, help="arrays x, y and sample_weight, an .npz file")
        command.add_argument("--json", action="store_true", help="print JSON instead of text")
        command.add_argument(
            "--import", dest="modules", action="append", default=[], metavar="MODULE",
            help="import this module first, so that it registers its layers and losses; this runs its code",
        )  # fmt: skip
        command.add_argument("--training", action="store_true", help="run the forward pass in training mode")
        if name == "explain":
            command.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page to this file")
            command.add_argument(
                "--batch-size", type=int, metavar="N",
                help="explain what model.evaluate(x, y, batch_size=N) returns; default: all samples are one batch",
            )  # fmt: skip
            command.add_argument("--axes", type=_names, metavar="A,B,...", help="names of the axes of the predictions")
            command.add_argument("--class-names", type=_names, metavar="A,B,...", help="names along the last axis")
    return parser


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _explain(arguments: argparse.Namespace) -> int:
    page = arguments.html
    if page is not None:
        if page.is_dir() or not page.parent.is_dir():
            raise Refused(f"--html {page}: {'is a folder' if page.is_dir() else 'its folder does not exist'}")
        if any(file.exists() and page.exists() and page.samefile(file) for file in (arguments.model, arguments.data)):
            raise Refused(f"--html {page}: would overwrite what is to be read")
    model, data = _load(arguments)
    with _refusing():
        from lossviz import explain

        report = explain(
            model,
            **data,
            training=arguments.training,
            axes=arguments.axes,
            class_names=arguments.class_names,
            batch_size=arguments.batch_size,
            verbose="auto" if sys.stderr.isatty() else 0,
        )
    if page is not None:
        _write(page, _page(f"{model.name}: {f.clean(report.source)}", report._repr_html_()))
    if arguments.json:
        _print_json({"schema": "lossviz.report.v1", **report.to_dict()})
    else:
        print(report)
        if page is not None:
            print(f"written to {f.clean(page)}")
    return 0 if report.adds_up else 1


def _lint(arguments: argparse.Namespace) -> int:
    model, data = _load(arguments)
    with _refusing():
        from lossviz import lint

        findings = lint(model, **data, training=arguments.training)
    if arguments.json:
        _print_json({"schema": "lossviz.findings.v1", "findings": [vars(finding) for finding in findings]})
    elif findings:
        print("\n\n".join("\n".join(map(f.clean, str(finding).splitlines())) for finding in findings))
    else:
        print("no findings")
    return 1 if findings else 0


# -- reading ----------------------------------------------------------------------------------------------


def _load(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The model, and `x`, `y`, `sample_weight`; the data first, since that is quick."""
    for file in (arguments.model, arguments.data):
        if not file.is_file():
            raise Refused(f"{file}: {'is a folder, not a file' if file.is_dir() else 'no such file'}")
    if arguments.model.suffix != ".keras":
        raise Refused(f'{arguments.model}: not a .keras file; load it with Keras and model.save("model.keras")')
    data = _arrays(arguments.data)
    return _model(arguments.model, arguments.modules), data


def _arrays(path: Path) -> dict[str, Any]:
    try:
        found = np.load(path, allow_pickle=False)
        if isinstance(found, np.ndarray):
            raise Refused(f"{path}: one array without a name; write it with np.savez(path, x=x, y=y)")
        with found:
            arrays = {key: found[key] for key in found.files}
    except Refused:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise a dozen kinds on a corrupt file
        pickled = "pickle" in str(error).lower()
        why = "holds Python objects (pickled), which are refused" if pickled else f"not a whole .npz file ({error})"
        raise Refused(f"{path}: {why}") from error
    data = {name: _structure(path, name, arrays) for name in ("x", "y", "sample_weight")}
    if arrays:
        raise Refused(f"{path}: unknown array {next(iter(arrays))!r}; known are x, y, sample_weight, x_0, x.NAME, ...")
    if data["x"] is None:
        raise Refused(f"{path}: holds no array x")
    return data


def _structure(path: Path, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """What the keys `name`, `name_0` or `name.key` hold, taken out of `arrays`; None where there are none."""
    numbered = {key: int(key[len(name) + 1 :]) for key in arrays if re.fullmatch(rf"{name}_\d+", key)}
    named = {key: key[len(name) + 1 :] for key in arrays if key.startswith(f"{name}.")}
    if (name in arrays) + bool(numbered) + bool(named) > 1:
        raise Refused(f"{path}: {name} is there in several forms, {[k for k in arrays if k.startswith(name)]}; use one")
    if name in arrays:
        return arrays.pop(name)
    if named:
        return {short: arrays.pop(key) for key, short in named.items()}
    if sorted(numbered.values()) != list(range(len(numbered))):
        raise Refused(f"{path}: {name}_0, {name}_1, ... have a gap: {sorted(numbered)}")
    return [arrays.pop(key) for key in sorted(numbered, key=numbered.get)] or None


def _model(path: Path, modules: Sequence[str]) -> Any:
    with _refusing():
        from lossviz.backend.quiet import import_tensorflow

        import_tensorflow()
        import keras

        from lossviz import layers, losses  # noqa: F401  (they register themselves)
    here = os.getcwd()
    for module in modules:
        sys.path.insert(0, here)
        try:
            with contextlib.redirect_stdout(sys.stderr):
                importlib.import_module(module)
        except Exception as error:
            raise Refused(f"--import {module}: {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(here)
    if not zipfile.is_zipfile(path):
        raise Refused(f"{path}: not a .keras file (which is a zip archive)")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras, h5py, json and zipfile raise many kinds on a file that is not what it should be
        text = f"{error} {error.__cause__ or error.__context__ or ''}"
        own = re.search(r"Could not locate (\w+ '[^']*')", text)
        if "safe_mode" in text or "unsafe_deserialization" in text:
            why = "holds code (such as a Lambda layer), which is not run; make it a registered layer and --import that"
        elif own:
            why = f"needs {own[1]}, which is no part of Keras; name the module that registers it with --import"
        else:
            why = f"cannot be loaded: {type(error).__name__}: {error}"
        raise Refused(f"{path}: {why}") from error
    if not isinstance(model, keras.Model):
        raise Refused(f"{path}: holds a {type(model).__name__}, not a model")
    return model


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Errors and warnings inside become one line each, and all that is printed goes to stderr."""

    def show(message, *_) -> None:
        print(f"lossviz: warning: {_one_line(message)}", file=sys.stderr)

    try:
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.showwarning = show
            yield
    except (ValueError, RuntimeError, ImportError, MemoryError) as error:
        raise Refused(str(error) or type(error).__name__) from error


def _one_line(error: Exception | str, limit: int = 600) -> str:
    text = f.clean(" ".join(str(error).split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# -- writing ----------------------------------------------------------------------------------------------


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=2, allow_nan=False))


def _page(title: str, body: str) -> str:
    """A page that loads nothing and runs nothing, whatever it holds."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(f.clean(title))}</title>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _write(path: Path, text: str) -> None:
    """The whole file or none: written beside its place, then moved there."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise Refused(f"--html {path}: {error.strerror}") from error


if __name__ == "__main__":
    sys.exit(main())
