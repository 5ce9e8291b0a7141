"""The command line: `python -m lossviz explain model.keras data.npz`, `lint model.keras data.npz`, and `run train.py`.

Models and data may come from anyone: `lossviz.files` looks at what they hold before Keras or NumPy do. Only `--import`
and `run` run code besides Keras's and ours. SECURITY.md says what is guaranteed, and what is not.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__" and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]  # `python -m` puts the current folder there: no file that lies in it may stand in for a module

import argparse
import contextlib
import difflib
import importlib.metadata
import json
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lossviz import __version__, files
from lossviz.backend.quiet import import_tensorflow
from lossviz.files import Refused, streams
from lossviz.report.escape import clean
from lossviz.report.findings import Finding

_EPILOG = """\
model.keras   a compiled model, as model.save("model.keras") writes it. All names in it are checked before Keras loads
              it: those of Keras's own layers, losses, metrics, optimizers and operations that do nothing but compute,
              and those of lossviz. Lambda layers and other code are refused. Layers and losses of your own must be
              registered (keras.saving.register_keras_serializable) in a module that --import names; that module is
              run. Time and memory that a model needs are not limited: run a stranger's in a container.
data.npz      arrays, as np.savez("data.npz", x=x, y=y, sample_weight=weights) writes them; y and sample_weight may
              be missing. Several inputs or outputs: x_0, x_1, ... in their order, or x.NAME for each name, and
              likewise y_0, y.NAME, sample_weight_0, sample_weight.NAME. Pickled arrays are refused.

--json        prints one object. Of explain: "schema" ("lossviz.report.v1") and what Report.to_dict() holds: "total",
              "reported", "residual", "tolerance", "source", "batch_size", "batches" (pairs [samples, loss]),
              "versions", "notes", "findings", and "terms", each with "name", "kind", "value", "loss_weight",
              "contribution", "exactness", "note" and "parts", in which "by" maps an axis to pairs [label, share].
              Of lint: "schema" ("lossviz.findings.v1") and "findings", each with "rule", "where", "sentence", "fix",
              "page", "since", "until", "severity", and with --try-fixes "tried", where a fix was tried. Later
              versions may add keys. Where JSON has no number for a value, it is one of the strings "NaN", "Infinity",
              "-Infinity".

--sarif FILE  writes the findings as SARIF 2.1.0, each at the model's file: code hosts show them in a pull request.

exit code     0: all is well. 1: explain found parts that do not add up, or lint found an error or a warning. 2: a
              file, an argument or stdout cannot be used, or lossviz itself is at fault; one line on stderr says why.
              With LOSSVIZ_DEBUG=1 in the environment, Python's traceback stands before it.
"""


_RUN = """\
Runs the script as python would: its arguments, its exit code and what it prints are its own. The first batch of every
fit, train_on_batch and evaluate is looked at, and what is wrong is printed on stderr, each fault of a model once.
Options of lossviz stand before the script; whatever follows the script goes to the script. The script is code: run only
one that you would run without lossviz.

--json FILE   writes one object: "schema" ("lossviz.run.v1"), "script" and "findings", each with the keys of
              "lint --json" and "call", "model", "file" and "line": where the script called Keras.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line on `argv` (default: that of the process) and return its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    if words[:1] == ["run"]:
        return _script(words)
    has_stdout = streams.open_missing()
    with contextlib.suppress(AttributeError):  # a terminal without box characters shows ? instead of failing
        sys.stdout.reconfigure(errors="replace")
    try:
        if not has_stdout:
            raise Refused("stdout is closed, so nothing can be printed (>/dev/null drops the text)")
        code, text = _run(argv)
        streams.write(text)
        return code
    except Refused as refused:
        _trace()
        streams.say(f"lossviz: {_one_line(refused)}")
    except KeyboardInterrupt:
        streams.say("lossviz: interrupted")
        return 130
    except Exception as error:
        _trace()
        what = _one_line(f"{type(error).__name__}: {error}")
        streams.say(f"lossviz: this is a fault of lossviz, please report it (LOSSVIZ_DEBUG=1 shows where): {what}")
    return 2


def _run(argv: Sequence[str] | None) -> tuple[int, str]:
    """The exit code, and what is to be printed."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as end:  # argparse has printed what there is to say
        return int(end.code or 0), ""
    if arguments.command is None:
        return 0, parser.format_help()
    return arguments.run(arguments)


def _trace() -> None:
    if os.environ.get("LOSSVIZ_DEBUG"):
        streams.say(traceback.format_exc())


def _one_line(error: Exception | str, limit: int = 600) -> str:
    text = clean(" ".join(str(error).split()))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


# -- arguments --------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    about = "Show how the loss of a Keras model came about, or what is wrong with it."
    kind = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("lossviz", description=about, epilog=_EPILOG, formatter_class=kind)
    parser.add_argument("--version", action="version", version=f"lossviz {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command")
    _explain_parser(_command(commands, "explain", _explain, "print how the loss became one number"))
    lint = _command(commands, "lint", _lint, "print what is wrong with the loss on this data, and the fix")
    lint.add_argument(
        "--try-fixes", action="store_true", help="try each fix that is one change on a copy of the model, which is "
        "trained for a few steps, and say what came of it",
    )  # fmt: skip
    lint.add_argument("--sarif", type=Path, metavar="FILE", help="also write the findings to this file, as SARIF 2.1.0")
    words = "explain the rules of lint: what each sees, the way out, and its page in the book"
    rules = commands.add_parser("rules", help=words, description=words)
    rules.set_defaults(run=_rules)
    rules.add_argument("names", nargs="*", metavar="NAME", help="only these rules; default: all")
    words = "run a training script and print what is wrong with its losses"
    script = commands.add_parser("run", help=words, description=words, epilog=_RUN, formatter_class=kind)
    script.add_argument("--error", action="store_true", help="stop before the first step of a model that has findings")
    script.add_argument("--json", type=Path, metavar="FILE", help="write the findings to this file, as JSON")
    script.add_argument("--sarif", type=Path, metavar="FILE", help="write the findings to this file, as SARIF 2.1.0")
    script.add_argument("script", help="a Python file")
    script.add_argument("arguments", nargs=argparse.REMAINDER, help="what the script gets as its arguments")
    return parser


def _command(commands: Any, name: str, run: Callable, words: str) -> argparse.ArgumentParser:
    """A command that reads a model and its data."""
    kind = argparse.RawDescriptionHelpFormatter
    command = commands.add_parser(name, help=words, description=words, epilog=_EPILOG, formatter_class=kind)
    command.set_defaults(run=run)
    command.add_argument("model", type=Path, help="a compiled model, a .keras file")
    command.add_argument("data", type=Path, help="arrays x, y and sample_weight, an .npz file")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    command.add_argument(
        "--import", dest="modules", action="append", default=[], metavar="MODULE",
        help="import this module first, and let the model use what it registers; this runs its code, so name only a "
        "module whose author you know",
    )  # fmt: skip
    command.add_argument("--training", action="store_true", help="run the forward pass in training mode")
    command.add_argument(
        "--max-gb", type=_gigabytes, default=files.Limits(), metavar="N", dest="limits",
        help="refuse a file that holds more than N GiB when unpacked, or a configuration of more than a 256th of that; "
        "default: 4",
    )  # fmt: skip
    return command


def _explain_parser(command: argparse.ArgumentParser) -> None:
    command.add_argument("--html", type=Path, metavar="FILE", help="write the report as a page to this file")
    command.add_argument(
        "--batch-size", type=int, metavar="N",
        help="explain what model.evaluate(x, y, batch_size=N) returns; default: all samples are one batch",
    )  # fmt: skip
    command.add_argument("--axes", type=_names, metavar="A,B,...", help="names of the axes of the predictions")
    command.add_argument("--class-names", type=_names, metavar="A,B,...", help="names along the last axis")


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _gigabytes(text: str) -> files.Limits:
    number = float(text)
    if not 0 < number < 2**20:
        raise argparse.ArgumentTypeError(f"{text}: give a number of GiB, such as 16")
    return files.Limits(total=int(number * files.GIB))


# -- commands: each returns its exit code and what it prints -------------------------------------------------


def _explain(arguments: argparse.Namespace) -> tuple[int, str]:
    page = arguments.html
    if page is not None:
        target = streams.place_of_page(page, (arguments.model, arguments.data))
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
    text = _json({"schema": "lossviz.report.v1", **report.to_dict()}) if arguments.json else f"{report}\n"
    if page is not None:
        streams.write_page(page, target, _page(f"{model.name}: {report.source}", report._repr_html_()))
        text += "" if arguments.json else f"written to {clean(page)}\n"
    return (0 if report.adds_up else 1), text


def _lint(arguments: argparse.Namespace) -> tuple[int, str]:
    page, written = arguments.sarif, ""
    if page is not None:
        target = streams.place_of_page(page, (arguments.model, arguments.data), "--sarif")
    model, data = _load(arguments)
    with _refusing():
        from lossviz import lint

        findings = lint(model, **data, training=arguments.training, try_fixes=arguments.try_fixes)
    code = 1 if any(finding.severity != "hint" for finding in findings) else 0
    if page is not None:
        text = _sarif([(finding, arguments.model, 1) for finding in findings], Path.cwd())
        streams.write_page(page, target, text, "--sarif")
        written = f"written to {clean(page)}\n"
    if arguments.json:
        return code, _json({"schema": "lossviz.findings.v1", "findings": [finding.to_dict() for finding in findings]})
    return code, ("\n\n".join(map(str, findings)) + "\n" if findings else "no findings\n") + written


def _rules(arguments: argparse.Namespace) -> tuple[int, str]:
    with _refusing():
        import_tensorflow()
        from lossviz.rules import RULES
    if unknown := [name for name in arguments.names if name not in RULES]:
        near = difflib.get_close_matches(unknown[0], RULES, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; python -m lossviz rules names them all"
        raise Refused(f"no rule is called {unknown[0]}{hint}")
    book = _book()
    return 0, "\n\n".join(_words_of(RULES[name], book) for name in arguments.names or RULES) + "\n"


def _words_of(rule: Any, book: str) -> str:
    finding = Finding(rule.name, "", "", "", since=rule.since, until=rule.until)
    where = f" ({finding.versions})" if finding.versions else ""
    page, _, anchor = rule.page.partition("#")
    address = f"{book}/{page}.html" if book else f"the page {page} of the book"
    address += f"#{anchor}" if anchor and book else ""
    way_out = rule.way_out[:1].upper() + rule.way_out[1:]
    return f"{rule.name}: {rule.severity}{where}\n{rule.summary}\nWay out: {way_out}\nSee {address}"


def _book() -> str:
    """The address of the book, where the installed package has it; else empty."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for entry in importlib.metadata.metadata("lossviz").get_all("Project-URL") or []:
            label, _, address = entry.partition(",")
            if label.strip().lower() in ("book", "documentation"):
                return address.strip().rstrip("/")
    return ""


def _script(words: Sequence[str]) -> int:
    """`run`: from here on, this process is the script's: nothing that it raises is caught."""
    arguments = _parser().parse_args(words)
    folder, script = Path.cwd(), Path(arguments.script)
    try:
        if not script.is_file():
            raise Refused(f"{script}: {'is a folder' if script.is_dir() else 'No such file or directory'}")
        options = [(option, getattr(arguments, option)) for option in ("json", "sarif")]
        pages = {o: (page, streams.place_of_page(page, [script], f"--{o}")) for o, page in options if page is not None}
    except Refused as refused:
        streams.say(f"lossviz: {_one_line(refused)}")
        return 2
    from lossviz.ask import guard
    from lossviz.ask import script as scripts

    watch = guard.Guard(error=arguments.error, threads=True)
    try:
        scripts.run(arguments.script, arguments.arguments, watch, streams.say)
    finally:
        for option, (page, target) in pages.items():
            try:
                text = _json_of_run(arguments.script, watch) if option == "json" else _sarif_of_run(watch, folder)
                streams.write_page(page, target, text, f"--{option}")
            except Exception as error:
                streams.say(f"lossviz: {_one_line(error)}")
    return 0


def _json_of_run(script: str, watch: Any) -> str:
    findings = [{**finding.to_dict(), **vars(place)} for place, finding in watch.found]
    return _json({"schema": "lossviz.run.v1", "script": script, "findings": findings})


def _sarif_of_run(watch: Any, folder: Path) -> str:
    return _sarif([(finding, Path(place.file), place.line) for place, finding in watch.found], folder)


def _sarif(found: list, folder: Path) -> str:
    from lossviz.report.sarif import sarif

    summaries = {}
    if found:  # whoever has findings has Keras
        from lossviz.rules import RULES

        summaries = {name: rule.summary for name, rule in RULES.items()}
    return _json(sarif(found, summaries, __version__, folder))


def _load(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any]]:
    """The model, and `x`, `y`, `sample_weight`; the data first, since that is quick."""
    data = files.load_arrays(arguments.data, arguments.limits)
    with _refusing():
        return files.load_model(arguments.model, arguments.limits, arguments.modules), data


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """What lossviz raises inside on purpose, and warnings, become one line each; all that is printed goes to stderr."""

    def show(message, *_) -> None:
        streams.say(f"lossviz: warning: {_one_line(message)}")

    try:
        with streams.stdout_to_stderr(), warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of Keras, for its own programmers
            warnings.showwarning = show
            yield
    except MemoryError as error:
        raise Refused("there is not enough memory for this model and this data") from error
    except ImportError as error:
        raise Refused(str(error)) from error
    except (ValueError, RuntimeError) as error:
        if not _raised_by_us(error):
            raise
        raise Refused(str(error)) from error


def _raised_by_us(error: Exception) -> bool:
    """Was it raised in lossviz, and not in what lossviz calls?"""
    place = error.__traceback__
    while place.tb_next is not None:
        place = place.tb_next
    return place.tb_frame.f_globals.get("__name__", "").split(".")[0] == "lossviz"


# -- writing ----------------------------------------------------------------------------------------------


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def _page(title: str, body: str) -> str:
    """A page that loads nothing and runs nothing, whatever it holds."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(clean(title))}</title>\n<body>\n{body}\n</body>\n</html>\n"
    )


if __name__ == "__main__":
    sys.exit(main())
