"""Sphinx extension: the page book/api, written from the docstrings of lossviz.

The sources are parsed, never imported, since the book is built without TensorFlow. The order is that of the list in
the docstring of lossviz/__init__.py.
"""

import ast
import inspect
import re
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lossviz"
PAGE, PLACE = "book/api", "<!-- generated from the docstrings -->"
HEADING = re.compile(r"([A-Z][a-z]+(?: [a-z]+){0,2}):(?: (.+))?")  # "Args:", "Raises:", "Whole data sets: ..."
ENTRY = re.compile(r"((?:\*{0,2}\w+, )*\*{0,2}\w+): (.+)")  # "name: what it is"
CHOICE = re.compile(r" {4,}(\S+)  +(\S.*)")  # "    "all"   what that means", below an entry
NUMBERED = re.compile(r"\d+\. ")
CALLED_BY_KERAS = {"async_safe", "build", "call", "get_config", "from_config", "set_model", "set_params"}

Definition = ast.FunctionDef | ast.ClassDef


def code(module: str) -> str:
    """The source of a module, named without the package: `plots`, `report.records`."""
    path = PACKAGE / module.replace(".", "/")
    return (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8")


def parse(module: str) -> ast.Module:
    return ast.parse(code(module))


def assigned(tree: ast.Module, name: str) -> list[ast.expr]:
    """The values that `name` is given, and those added to it with +=."""
    found = []
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets) and node.value:
            found.append(node.value)
    return found


def public_names() -> list[str]:
    (names,) = assigned(parse("__init__"), "__all__")
    return ast.literal_eval(names)


def homes() -> dict[str, str]:
    """The module of each public name that is not itself a module: what the package imports for type checkers."""
    guard = next(node for node in parse("__init__").body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: node.module.removeprefix("lossviz.")
        for node in guard.body
        if isinstance(node, ast.ImportFrom) and node.module != "lossviz"
        for alias in node.names
    }


def definitions(tree: ast.Module) -> dict[str, Definition]:
    return {node.name: node for node in tree.body if isinstance(node, Definition)}


def members(module: str) -> list[Definition]:
    """The public functions and classes that a module defines: those in its `__all__`, or all without an underscore."""
    tree = parse(module)
    listed = [name for value in assigned(tree, "__all__") for name in ast.literal_eval(value)]
    found = definitions(tree)
    names = [name for name in found if name in listed] if listed else [n for n in found if not n.startswith("_")]
    return [found[name] for name in names]


def bases(node: ast.ClassDef, tree: ast.Module) -> list[tuple[ast.ClassDef, ast.Module]]:
    """The classes of this package that a class is made of, the outermost first, each with its module."""
    found = []
    for name in (base.id for base in node.bases if isinstance(base, ast.Name)):
        home = next((parse(one) for one in imported(tree) if name in definitions(parse(one))), tree)
        if isinstance(base := definitions(home).get(name), ast.ClassDef):
            found += bases(base, home)
    return [*found, (node, tree)]


def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
    """Public methods and properties; what Keras calls by itself is described with the class."""
    functions = [one for one in node.body if isinstance(one, ast.FunctionDef)]
    return [one for one in functions if not one.name.startswith(("_", "on_")) and one.name not in CALLED_BY_KERAS]


def is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(one, ast.Name) and one.id == "property" for one in node.decorator_list)


def data(module: str) -> list[tuple[str, str]]:
    """The public constants of a module and the comment `#:` above each, also where they come from another module."""
    tree = parse(module)
    listed = [name for value in assigned(tree, "__all__") for name in ast.literal_eval(value)]
    sources = [code(one) for one in (module, *imported(tree))]
    found = re.findall(
        r"^((?:#: .*\n)+)([A-Z]\w*) *[:=]", "\n".join(sources[: 1 if not listed else None]), re.MULTILINE
    )
    comments = {name: comment.replace("#: ", "").strip() for comment, name in reversed(found)}
    names = [name for name in listed if name.isupper()] if listed else list(reversed(comments))
    return [(name, comments.get(name, "")) for name in names]


def imported(tree: ast.Module) -> list[str]:
    """The modules of this package that a module takes names from."""
    froms = (node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom))
    return [name.removeprefix("lossviz.") for name in froms if name.startswith("lossviz.")]


def with_values(node: ast.FunctionDef, tree: ast.Module) -> None:
    """Defaults that are constants of the module become their values."""
    defaults = node.args.defaults, node.args.kw_defaults
    for values in defaults:
        for k, value in enumerate(values):
            if isinstance(value, ast.Name):
                constants = [one for one in assigned(tree, value.id) if isinstance(one, ast.Constant)]
                values[k] = constants[0] if constants else value


def signature(node: Definition, tree: ast.Module) -> str:
    """Arguments and defaults. Types are left out: docstrings say them with shapes and ranges."""
    if isinstance(node, ast.ClassDef):
        own = next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)
        if own is None:
            return ""
        node = own
    with_values(node, tree)
    arguments = node.args
    everything = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    for one in everything:
        if one is not None:
            one.annotation = None
    if arguments.args and arguments.args[0].arg in ("self", "cls"):
        del arguments.args[0]
    return f"({ast.unparse(arguments)})"


def markdown(docstring: str) -> list[str]:
    """A docstring of this package as Markdown: its sections, its indented blocks, its tables."""
    out: list[str] = []
    lines = inspect.cleandoc(docstring).splitlines()
    at = 0
    while at < len(lines):
        line = lines[at]
        heading = HEADING.fullmatch(line)
        block, after = indented(lines, at + 1)
        if heading and not heading[2] and block:
            out += ["", f"**{heading[1]}:**", "", *entries(block), ""]
            at = after
        elif line.startswith("    "):
            block, after = indented(lines, at)
            at = after
            if NUMBERED.match(block[0]):
                out += ["", *block, ""]
                continue
            python = out and next((one for one in reversed(out) if one), "").endswith(":")
            out += ["```python" if python and is_python(block) else "```text", *block, "```", ""]
        else:
            line = re.sub(r"::$", ":", line)
            out.append(f"**{heading[1]}:** {heading[2]}" if heading and heading[2] else line)
            if block and not line.startswith("|"):
                out.append("")
            at += 1
    return out


def is_python(block: list[str]) -> bool:
    try:
        ast.parse("\n".join(block))
    except SyntaxError:
        return False
    return True


def indented(lines: list[str], at: int) -> tuple[list[str], int]:
    """The indented lines from `at` on, dedented, and the number of the line after them."""
    end = at
    while end < len(lines) and (lines[end].startswith("    ") or not lines[end].strip()):
        end += 1
    while end > at and not lines[end - 1].strip():
        end -= 1
    return [line[4:] for line in lines[at:end]], end


def entries(block: list[str]) -> list[str]:
    """The inside of a section: `name: text` lines become a list, the choices among values a list in it."""
    out: list[str] = []
    inside = ""  # how deep the text that goes on is
    for line in block:
        if entry := ENTRY.fullmatch(line):
            inside = "  "
            names = ", ".join(f"`{name}`" for name in entry[1].split(", "))
            out.append(f"- {names}: {entry[2]}")
        elif inside and (choice := CHOICE.fullmatch(line)):
            inside = "    "
            out.append(f"  - `{choice[1]}`: {choice[2]}")
        elif inside and line.startswith("    "):
            inside = inside if line.startswith("     ") else "  "
            out.append(inside + line.strip())
        else:
            inside = inside if not line else ""
            out.append(line)
    return out


class Writer:
    """Collects the page, and the names on it that have no docstring."""

    def __init__(self):
        self.lines: list[str] = []
        self.bare: list[str] = []
        home = homes()
        self.overview()
        for name in order(public_names()):
            if name in home:
                tree = parse(home[name])
                self.lines += [f"## {name}", ""]
                self.entry("lossviz", definitions(tree)[name], tree)
            else:
                self.module(name)

    def overview(self) -> None:
        """A table of the names, each with its line in the docstring of the package."""
        said = dict(re.findall(r"^(\w+)  +(\S.*)", ast.get_docstring(parse("__init__")) or "", re.MULTILINE))
        modules = set(public_names()) - set(homes())
        self.lines += ["| name | what it is |", "|---|---|"]
        for name in order(public_names()):
            anchor = f"lossviz-{name}" if name in modules else name.lower().replace("_", "-")
            self.lines.append(f'| <a href="#{anchor}"><code>{name}</code></a> | {said.get(name, "")} |')
        self.lines.append("")

    def module(self, name: str) -> None:
        tree = parse(name)
        self.lines += [f"## lossviz.{name}", "", *markdown(ast.get_docstring(tree) or ""), ""]
        for constant, comment in data(name):
            self.block("data", constant, comment, 4, module=f"lossviz.{name}")
        for node in members(name):
            self.entry(f"lossviz.{name}", node, tree)

    def entry(self, module: str, node: Definition, tree: ast.Module) -> None:
        kind = "class" if isinstance(node, ast.ClassDef) else "function"
        classes = bases(node, tree) if kind == "class" else []
        inner = [(one, home) for base, home in classes for one in methods(base)]
        title, text = f"{node.name}{signature(node, tree)}", ast.get_docstring(node)
        self.block(kind, title, text, 5, close=not inner, module=module)
        for one, home in inner:
            kind, arguments = ("property", "") if is_property(one) else ("method", signature(one, home))
            self.block(kind, f"{one.name}{arguments}", ast.get_docstring(one), 4)
        if inner:
            self.lines += ["`````", ""]

    def block(self, kind: str, title: str, text: str | None, fence: int, close: bool = True, module: str = "") -> None:
        if not text:
            self.bare.append(title)
        option = [f":module: {module}"] if module else []  # for the index: "explain() (in module lossviz)"
        self.lines += ["`" * fence + f"{{py:{kind}}} {title}", *option, "", *markdown(text or ""), ""]
        if close:
            self.lines += ["`" * fence, ""]


def order(names: list[str]) -> list[str]:
    """As listed in the docstring of the package; what is not listed comes last."""
    listed = re.findall(r"^(\w+)  +\S", ast.get_docstring(parse("__init__")) or "", re.MULTILINE)
    return sorted(names, key=lambda name: (listed.index(name) if name in listed else len(listed), name))


def fill(app, docname: str, source: list[str]) -> None:
    if docname != PAGE:
        return
    source[0] = source[0].replace(PLACE, "\n".join(Writer().lines))
    for file in PACKAGE.rglob("*.py"):
        app.env.note_dependency(str(file))


def setup(app) -> dict:
    app.connect("source-read", fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
