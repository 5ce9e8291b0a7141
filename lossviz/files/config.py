"""The configuration of a model, checked before Keras sees it.

Keras turns each dictionary with a "class_name" into an object while a file loads, wherever it stands: layers, what a
layer holds, the arguments of a call, losses, metrics and optimizers. So the check asks of every one of them, in
whatever place, whether its name is on the list. The old form without a "module", in which Keras looks names up in
another way and calls plain functions too, is refused altogether: `model.save("model.keras")` has never written it.
"""

from __future__ import annotations

from typing import Any

from lossviz.files.limits import Refused
from lossviz.files.names import Names

#: The forms in which Keras writes data. They name no code.
_DATA = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__slice__", "__ellipsis__")
_CODE = {"__lambda__": "a Python lambda", "__typespec__": "a TensorFlow type by its module"}
#: Where Keras looks a function of the module "builtins" up.
_BUILTIN = ("activations", "constraints", "initializers", "losses", "metrics", "optimizers", "regularizers")
_DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "complex64", "complex128"),
    *("float16", "float32", "float64", "bfloat16", "float8_e4m3fn", "float8_e5m2", "string"),
}
#: A layer in a model in a model takes some five levels each.
_DEPTH = 200
#: Arguments that Keras opens as a file if they are a text.
_PATHS = ("vocabulary", "idf_weights", "filepath", "filename", "file", "path", "url", "weights")


def check(config: Any, names: Names) -> None:
    """Raise `Refused`, with the layer and the reason, unless all that `config` names is in `names`."""
    if not isinstance(config, dict) or "class_name" not in config:
        raise Refused("config.json describes no model")
    if _deeper_than(_DEPTH, config):
        raise Refused(f"config.json is nested more than {_DEPTH} levels deep")
    _Check(names).anything(config, "the model")


class _Check:
    def __init__(self, names: Names):
        self.names = names

    def anything(self, value: Any, where: str) -> None:
        if isinstance(value, list):
            for item in value:
                self.anything(item, where)
        elif isinstance(value, dict):
            if "class_name" in value:
                self.object(value, where)
            else:
                for item in value.values():
                    self.anything(item, where)

    def object(self, value: dict, where: str) -> None:
        name = value["class_name"]
        if name in _DATA:
            return self.data(value, where)
        where = _place(value, where)
        if isinstance(name, str) and name in _CODE:
            raise Refused(f"{where} holds code ({_CODE[name]}), which is not run{_WAY_OUT}")
        of_keras = self.name(value, where)
        if of_keras and (argument := _path_argument(value["config"])):
            raise Refused(
                f"{where} would open the file {value['config'][argument]!r} (argument {argument!r} of "
                f"{value['class_name']}); a model file must hold what it needs"
            )
        for key, item in value.items():
            if key == "inbound_nodes":
                self.nodes(item, where)
            elif key == "build_config":
                self.plain(item, where)
            elif key == "compile_config":
                self.anything(item, "the compile configuration")
            else:
                self.anything(item, where)

    def name(self, value: dict, where: str) -> bool:
        """Raise `Refused` unless what Keras would resolve this to is on the list; is it Keras's own?"""
        class_name, module, registered = value["class_name"], value.get("module"), value.get("registered_name")
        is_function = class_name == "function"
        name = value.get("config") if is_function else class_name
        if not isinstance(name, str) or not isinstance(module, str | None) or not isinstance(registered, str | None):
            raise Refused(f"{where} names its class in no form that Keras writes")
        complete = "module" in value and "config" in value
        if not complete or not isinstance(value["config"], str if is_function else dict | None):
            raise Refused(f"{where} is written in an old form ({name!r} without its module or configuration)")
        own = name if is_function else registered
        if own in self.names.registered:
            return False
        of_keras = (module or "").split(".")[0] in ("keras", "builtins")
        if not of_keras or registered not in (None, name, class_name):
            kind = "function" if is_function else "class"
            raise Refused(
                f"{where} needs {kind} {name!r}, which is no part of Keras; name the module that registers it with "
                "--import, if you know its author"
            )
        if not is_function:
            listed, candidates = self.names.classes, [f"{module}.{name}"]
        elif module == "builtins":
            listed, candidates = self.names.functions, [f"keras.{family}.{name}" for family in _BUILTIN]
        else:
            listed, candidates = self.names.functions, [f"{module}.{name}"]
        if any(candidate in listed for candidate in candidates):
            return True
        reason = next((self.names.refused[c] for c in candidates if c in self.names.refused), None)
        why = f"which {reason}" if reason else "which is not on the list of what a model file may name"
        raise Refused(f"{where} names {candidates[0] if module != 'builtins' else name}, {why}{_WAY_OUT}")

    def nodes(self, nodes: Any, where: str) -> None:
        """The calls of a layer: data and tensors of the model, and at least one of these in each call.

        Keras runs an operation on numbers while the file loads; on tensors of the model it only notes it down.
        """
        self.plain(nodes, where, data=True)
        for node in nodes if isinstance(nodes, list) else [nodes]:
            if isinstance(node, dict) and any(node.values()) and not _has_tensor(node):
                raise Refused(f"{where} is called without a tensor of the model, so it would run while the file loads")

    def plain(self, value: Any, where: str, data: bool = False) -> None:
        """Numbers, texts, lists and dictionaries, and with `data` Keras's forms of data, but no name of any code."""
        if isinstance(value, list):
            for item in value:
                self.plain(item, where, data)
        elif isinstance(value, dict):
            if "class_name" in value:
                if not data or value["class_name"] not in _DATA:
                    raise Refused(f"{where} holds {_short(value['class_name'])} where only numbers and tensors belong")
                return self.data(value, where)
            for item in value.values():
                self.plain(item, where, data)

    def data(self, value: dict, where: str) -> None:
        """One of `_DATA`: its dtype is one of numbers, and it holds nothing that names code."""
        config = value.get("config")
        if not isinstance(config, dict):
            raise Refused(f"{where} holds a {value['class_name']} without its value")
        if "dtype" in config and not (isinstance(config["dtype"], str) and config["dtype"] in _DTYPES):
            raise Refused(f"{where} holds an array of dtype {_short(config['dtype'])}")
        self.plain(config, where, data=value["class_name"] == "__slice__")


_WAY_OUT = "; write it as a registered layer, and name its module with --import"


def _place(value: dict, where: str) -> str:
    """The layer or the model that `value` is, or else `where`."""
    config = value.get("config")
    name = value.get("name") or (config.get("name") if isinstance(config, dict) else None)
    if not isinstance(name, str):
        return where
    if isinstance(config, dict) and "layers" in config:
        return f"model {name!r}"
    is_layer = "inbound_nodes" in value or "build_config" in value or value.get("module") == "keras.layers"
    return f"layer {name!r}" if is_layer else where


def _path_argument(config: Any) -> str | None:
    arguments = config if isinstance(config, dict) else {}
    return next((key for key in _PATHS if isinstance(arguments.get(key), str)), None)


def _deeper_than(limit: int, value: Any) -> bool:
    """Without recursion, which is what a deep file exhausts."""
    level = [value]
    for _ in range(limit):
        inside = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level = [item for items in inside for item in items]
    return bool(level)


def _has_tensor(value: Any) -> bool:
    if isinstance(value, dict):
        return value.get("class_name") == "__keras_tensor__" or any(map(_has_tensor, value.values()))
    return isinstance(value, list) and any(map(_has_tensor, value))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:59]}…"
