"""Files that attack whoever loads them, made from a sound one; none is stored.

`models` and `DATA` map what is wrong with a file to its bytes, and to words of the refusal.
"""

from __future__ import annotations

import copy
import io
import json
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

#: A pipe that nobody writes to: whoever opens it waits for ever, and the test fails.
PIPE = "pipe"


def function(module: str, name: str, **more: Any) -> dict:
    return {"class_name": "function", "module": module, "config": name, "registered_name": name, **more}


def thing(module: str | None, name: str, config: Any = None, **more: Any) -> dict:
    config = {} if config is None else config
    return {"class_name": name, "module": module, "config": config, "registered_name": None, **more}


def tensor(layer: str = "input_layer") -> dict:
    return {
        "class_name": "__keras_tensor__",
        "config": {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, 0, 0]},
    }


def calls(*arguments: Any, **keywords: Any) -> list:
    return [{"args": list(arguments), "kwargs": keywords}]


def with_layer(layer: dict) -> Callable[[dict], None]:
    """A further layer "evil", called on the input unless it says otherwise."""

    def change(model: dict) -> None:
        model["config"]["layers"].append({"name": "evil", "inbound_nodes": calls(tensor()), **copy.deepcopy(layer)})

    return change


def with_argument(name: str, value: Any) -> Callable[[dict], None]:
    """An argument of the dense layer."""

    def change(model: dict) -> None:
        model["config"]["layers"][1]["config"][name] = copy.deepcopy(value)

    return change


def compiled_with(name: str, value: Any) -> Callable[[dict], None]:
    def change(model: dict) -> None:
        if model["compile_config"]:  # the uncompiled copies have none
            model["compile_config"][name] = copy.deepcopy(value)

    return change


def in_model(name: str, value: Any) -> Callable[[dict], None]:
    def change(model: dict) -> None:
        model[name] = copy.deepcopy(value)

    return change


LOAD, EDIT = function("keras.saving", "load_model"), function("keras.saving", "KerasFileEditor")
GET = function("keras.utils", "get_file")
LAMBDA = thing(
    "keras.layers", "Lambda", {"name": "evil", "function": GET, "arguments": {"origin": "http://127.0.0.1:1/"}}
)
PYTHON = {"class_name": "__lambda__", "config": {"value": ["4wAAAAA=", None, None]}}
SWITCH = thing("keras.src.ops.core", "Switch", {"name": "evil"})
OPENS, FILES, CALLS = "reads, writes, downloads or opens files", "keras.saving", "takes a function, which it would call"
CODE, LISTED, NEEDS = "runs Python code", "not on the list", "which is no part of Keras"

#: What changes the configuration, and words of the refusal.
CONFIGURATIONS: dict[str, tuple[Callable[[dict], None], str]] = {
    "Lambda with a named function": (
        with_layer(LAMBDA),
        "layer 'evil' names keras.layers.Lambda, which runs Python code",
    ),
    "Lambda with code": (with_layer(thing("keras.layers", "Lambda", {"function": PYTHON})), CODE),
    "Lambda by its private name": (with_layer(thing("keras.src.layers.core.lambda_layer", "Lambda", {})), LISTED),
    "Lambda in a wrapper": (with_layer(thing("keras.layers", "TimeDistributed", {"layer": LAMBDA})), CODE),
    "Lambda in a pipeline": (with_layer(thing("keras.layers", "Pipeline", {"layers": [LAMBDA]})), CODE),
    "Lambda as a cell": (with_layer(thing("keras.layers", "RNN", {"cell": {"x": [LAMBDA]}})), CODE),
    "Lambda in a model in the model": (
        with_layer(thing("keras", "Sequential", {"name": "in", "layers": [LAMBDA]})),
        "keras.layers.Lambda",
    ),
    "a Python lambda as an activation": (with_argument("activation", PYTHON), "holds code (a Python lambda)"),
    "a type by its module": (
        with_argument(
            "dtype",
            {
                "class_name": "__typespec__",
                "spec_name": "X",
                "module": "evil_module",
                "registered_name": None,
                "config": [],
            },
        ),
        "holds code (a TensorFlow type by its module)",
    ),
    "a switch over a class that opens a file": (
        with_layer({**SWITCH, "inbound_nodes": calls(0, [EDIT], PIPE)}),
        f"keras.src.ops.core.Switch, which {CALLS}",
    ),
    "a map": (with_layer(thing("keras.src.ops.core", "Map", {}, inbound_nodes=calls(LOAD, PIPE))), CALLS),
    "a loop": (with_layer(thing("keras.src.ops.core", "WhileLoop", {"cond": LOAD, "body": LOAD})), CALLS),
    "a function among the arguments of a call": (
        with_layer(thing("keras.src.ops.numpy", "Add", {}, inbound_nodes=calls(tensor(), LOAD))),
        "holds 'function' where only numbers and tensors belong",
    ),
    "a class among the arguments of a call": (
        with_layer(thing("keras.layers", "Dense", {"units": 1}, inbound_nodes=calls(tensor(), training=LAMBDA))),
        "holds 'Lambda' where only numbers and tensors belong",
    ),
    "an operation on numbers": (
        with_layer(thing("keras.src.ops.numpy", "Repeat", {"repeats": 2}, inbound_nodes=calls([1.0] * 9))),
        "called without a tensor of the model, so it would run while the file loads",
    ),
    "an array of Python objects": (
        with_layer(
            thing(
                "keras.layers",
                "Add",
                {},
                inbound_nodes=calls(tensor(), {"class_name": "__numpy__", "config": {"value": [1], "dtype": "object"}}),
            )
        ),
        "holds an array of dtype 'object'",
    ),
    "an object in an array": (
        with_argument(
            "kernel_initializer", {"class_name": "__numpy__", "config": {"value": [LAMBDA], "dtype": "float32"}}
        ),
        "where only numbers and tensors belong",
    ),
    "load_model as an activation": (with_argument("activation", LOAD), OPENS),
    "a class as an activation": (with_argument("activation", EDIT), OPENS),
    "deserialize as an activation": (
        with_argument("activation", function("keras.layers", "deserialize")),
        "turns names or files into objects",
    ),
    "get as an initializer": (
        with_argument("kernel_initializer", function("keras.initializers", "get")),
        "turns names",
    ),
    "a setting as an activation": (
        with_argument("activation", function("keras.config", "enable_unsafe_deserialization")),
        "changes settings",
    ),
    "a callback as a regulariser": (
        with_argument("kernel_regularizer", thing("keras.callbacks", "CSVLogger", {"filename": "written"})),
        "steers training",
    ),
    "a function of the builtins": (with_argument("activation", function("builtins", "open")), LISTED),
    "get of the builtins": (with_argument("activation", function("builtins", "get")), "turns names or files"),
    "another name in registered_name": (
        with_argument("activation", function("keras.activations", "relu", registered_name="load_model")),
        NEEDS,
    ),
    "a class with another registered name": (
        with_layer(thing("keras.layers", "Dense", {"units": 1}, registered_name="evil_module>Evil")),
        NEEDS,
    ),
    "a private function": (with_argument("activation", function("keras.src.utils.file_utils", "get_file")), LISTED),
    "a private class": (with_layer(thing("keras.src.saving.file_editor", "KerasFileEditor", {})), LISTED),
    "a name with dots": (with_layer(thing("keras", "layers.Lambda", LAMBDA["config"])), CODE),
    "a module of the current folder": (with_layer(thing("evil_module", "Evil")), NEEDS),
    "a module in the place of Keras's": (with_layer(thing("keras.evil_module", "Evil")), LISTED),
    "a package that Keras imports": (with_layer(thing("keras_hub.models", "Evil")), NEEDS),
    "a module that is empty": (with_layer(thing(None, "Evil", registered_name="evil>Evil")), NEEDS),
    "a program of TensorFlow": (
        with_layer(thing("keras.layers", "TFSMLayer", {"filepath": PIPE})),
        "holds a program of another framework",
    ),
    "a program of PyTorch": (
        with_layer(thing("keras.layers", "TorchModuleWrapper", {"module": "AAAA"})),
        "program of another",
    ),
    "a program of JAX": (with_layer(thing("keras.layers", "JaxLayer", {"call_fn": LOAD})), "program of another"),
    "a program of Flax": (with_layer(thing("keras.layers", "FlaxLayer", {"module": LOAD})), "program of another"),
    "a vocabulary in a file": (
        with_layer(thing("keras.layers", "StringLookup", {"vocabulary": PIPE})),
        "would open the file 'pipe' (argument 'vocabulary' of StringLookup)",
    ),
    "words in a file": (
        with_layer(thing("keras.layers", "TextVectorization", {"vocabulary": PIPE})),
        "would open the file",
    ),
    "numbers in a file": (
        with_layer(thing("keras.layers", "IntegerLookup", {"vocabulary": "gs://b/v"})),
        "would open the file",
    ),
    "a standardisation that calls": (
        with_layer(thing("keras.layers", "TextVectorization", {"standardize": GET})),
        OPENS,
    ),
    "an application, with its download": (
        with_argument("activation", function("keras.applications.vgg16", "VGG16")),
        "may download weights",
    ),
    "the old form of a layer": (
        with_layer({"class_name": "Dense", "config": {"units": 1}}),
        "written in an old form ('Dense' without its module",
    ),
    "the old form of a function": (
        with_layer({"class_name": "deserialize", "config": {"config": LAMBDA}}),
        "written in an old form",
    ),
    "the old form of a Lambda": (
        with_layer(
            {"class_name": "Lambda", "config": {"function": ["4wAAAAA=", None, None], "function_type": "lambda"}}
        ),
        "written in an old form",
    ),
    "the old form, deep in a layer": (
        with_argument("kernel_regularizer", {"any": [{"class_name": "Lambda", "config": {}}]}),
        "written in an old form",
    ),
    "a build configuration": (
        with_layer(thing("keras.layers", "Dense", {"units": 1}, build_config={"input_shape": LAMBDA})),
        "only numbers",
    ),
    "a policy of policies": (
        with_argument(
            "dtype", thing("keras", "DTypePolicyMap", {"policy_map": {"a": thing("keras.callbacks", "CSVLogger")}})
        ),
        "keras.DTypePolicyMap",
    ),
    "a quantisation": (
        with_argument("quantization_config", thing("keras.quantizers", "GPTQConfig", {"dataset": LOAD})),
        "holds a data set",
    ),
    "a compiled loss": (
        compiled_with("loss", LOAD),
        f"the compile configuration names keras.saving.load_model, which {OPENS}",
    ),
    "a compiled metric": (
        compiled_with(
            "metrics", [[thing("keras.metrics", "MeanMetricWrapper", {"fn": GET, "origin": "http://127.0.0.1:1/"})]]
        ),
        OPENS,
    ),
    "a schedule": (
        compiled_with(
            "optimizer",
            thing(
                "keras.optimizers", "SGD", {"learning_rate": thing("keras.src.saving.file_editor", "KerasFileEditor")}
            ),
        ),
        LISTED,
    ),
    "a class that is a list": (with_layer({**SWITCH, "class_name": ["Switch"]}), "in no form that Keras writes"),
    "a module that is a number": (with_layer({**SWITCH, "module": 3}), "in no form that Keras writes"),
    "a class without a configuration": (
        with_layer({"class_name": "Dense", "module": "keras.layers"}),
        "written in an old form",
    ),
    "a model that is a Lambda": (lambda model: model.update(LAMBDA), CODE),
    "a model of nowhere": (in_model("module", "evil_module"), NEEDS),
    "no model": (lambda model: model.pop("class_name"), "config.json describes no model"),
}


def archive(members: dict[str, bytes], *more: tuple[str, bytes], packed: bool = False) -> bytes:
    """A zip of these members, and of `more`, whose names may be there twice."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as file:
        for name, value in [*members.items(), *more]:
            file.writestr(name, value)
    return content.getvalue()


def hdf5(write: Callable[[h5py.File], None]) -> bytes:
    content = io.BytesIO()
    with h5py.File(content, "w") as file:
        write(file)
    return content.getvalue()


def weights_that(write: Callable[[h5py.File], None]) -> Callable[[dict], bytes]:
    return lambda members: archive({**members, "model.weights.h5": hdf5(write)})


def _external(file: h5py.File) -> None:
    file.create_dataset("vars/0", (4,), "float32", external=[(PIPE, 0, 16)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout(shape=(4,), dtype="float32")
    layout[:] = h5py.VirtualSource(PIPE, "a", shape=(4,))
    file.create_virtual_dataset("vars", layout)


def _link(file: h5py.File) -> None:
    file["vars"] = h5py.ExternalLink(PIPE, "/a")


def _soft(file: h5py.File) -> None:
    file["layers/dense/vars"] = h5py.SoftLink("/a")


def _circle(file: h5py.File) -> None:
    group = file.create_group("a")
    group["b"] = group


def _shape_bomb(file: h5py.File) -> None:
    file.create_dataset("vars/0", (2**20, 2**10), "float32", chunks=(2**10, 2**10), compression="gzip")


def _total(file: h5py.File) -> None:
    for k in range(3):
        file.create_dataset(f"vars/{k}", data=np.ones(100_000, "float32"))


#: What makes the bytes of an archive from its sound members, and words of the refusal.
ARCHIVES: dict[str, tuple[Callable[[dict], bytes], str]] = {
    "a member outside": (
        lambda m: archive(m, ("../outside", b"x")),
        "holds '../outside', which is no part of a .keras",
    ),
    "a member at the root": (lambda m: archive(m, ("/tmp/outside", b"x")), "which is no part of a .keras file"),
    "assets outside": (lambda m: archive(m, ("assets/../../vocabulary.txt", b"x")), "no part of a .keras file"),
    "assets that are no vocabulary": (lambda m: archive(m, ("assets/a/evil.so", b"x")), "no part of a .keras file"),
    "weights as pickles": (lambda m: archive(m, ("model.weights.npz", b"x")), "no part of a .keras file"),
    "a member twice": (lambda m: archive(m, ("config.json", b"{}")), "holds the member 'config.json' twice"),
    "many members": (lambda m: archive(m, *((f"assets/{k}/", b"") for k in range(20_000))), "20003 members, more than"),
    "a large configuration": (
        lambda m: archive({**m, "config.json": b" " * (17 * 2**20)}, packed=True),
        "config.json declares 17.0 MiB, more",
    ),
    "a deep configuration": (lambda m: archive({**m, "config.json": b"[" * 100_000}), "config.json cannot be read"),
    "a configuration nested deeply": (
        lambda m: archive({**m, "config.json": _nested(300)}),
        "nested more than 200 levels deep",
    ),
    "no configuration": (lambda m: archive({"model.weights.h5": b""}), "it holds no config.json"),
    "no weights": (lambda m: archive({"config.json": m["config.json"]}), "it holds no model.weights.h5"),
    "a bomb": (lambda m: _declares(archive(m), 2**32 - 2), "the whole archive declares 12.0 GiB, more"),
    "a link to a file in another": (weights_that(_link), "hold a ExternalLink at '/vars'; links are not followed"),
    "a soft link": (weights_that(_soft), "hold a SoftLink at '/layers/dense/vars'"),
    "a circle": (weights_that(_circle), "under two names"),
    "numbers in another file": (weights_that(_external), "keep '/vars/0' in another file"),
    "a virtual array": (weights_that(_virtual), "keep '/vars' in another file"),
    "an array of nothing": (weights_that(_shape_bomb), "declare 4.0 GiB at '/vars/0' and store 0 bytes"),
    "a filter of a plug-in": (
        weights_that(lambda file: file.create_dataset("a", data=np.ones(99), chunks=(9,), compression="lzf")),
        "with filter 32000 of HDF5",
    ),
    "texts": (weights_that(lambda file: file.create_dataset("a", data=["text"])), "which is no array of numbers"),
    "an HDF5 file": (
        lambda m: hdf5(lambda file: file.attrs.update({"model_config": json.dumps(LAMBDA)})),
        "not a .keras",
    ),
    "a zip cut off": (lambda m: archive(m)[:-30], "not a .keras file (which is a zip archive)"),
    "weights cut off": (lambda m: archive({**m, "model.weights.h5": m["model.weights.h5"][:900]}), "not a whole HDF5"),
}


def _nested(depth: int) -> bytes:
    return (
        b'{"class_name":"Sequential","module":"keras","registered_name":null,"config":{"a":' * depth
        + b"1"
        + b"}}" * depth
    )


def _declares(content: bytes, size: int) -> bytes:
    """The zip, whose directory says of each member that it is so large."""
    entry = b"PK\x01\x02"
    first, *entries = content.split(entry)
    return entry.join([first, *(e[:20] + struct.pack("<I", size) + e[24:] for e in entries)])


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    text = header.encode().ljust(117) + b"\n"
    return b"\x93NUMPY" + version + struct.pack("<H", len(text)) + text + content


def describes(shape: str, dtype: str = "'<f4'") -> str:
    return f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape}, }}"


def arrays(**members: bytes) -> bytes:
    sound = npy(describes("(2, 4)"), bytes(32))
    return archive({f"{name}.npy": value for name, value in {"x": sound, **members}.items()})


#: The bytes of an .npz file, and words of the refusal.
DATA: dict[str, tuple[bytes, str]] = {
    "a huge array": (arrays(y=npy(describes("(99999999, 99999)"))), "array 'y' declares 36.4 TiB, more than the limit"),
    "a large array": (arrays(y=npy(describes("(9999, 9999)"))), "declares 399920004 bytes and has 0"),
    "a negative size": (arrays(y=npy(describes("(-1, -8)"), bytes(32))), "not a whole .npz file"),
    "objects": (
        arrays(y=npy(describes("(1,)", "'|O'"), b"cos\nsystem\n(S'id'\ntR.")),
        "y holds Python objects (pickled)",
    ),
    "objects in a record": (arrays(y=npy(describes("(1,)", "[('a', '|O')]"), bytes(8))), "y holds Python objects"),
    "a pickle": (b"cos\nsystem\n(S'id'\ntR.", "not a whole .npz file"),
    "a pickle in the archive": (arrays(y=b"cos\nsystem\n(S'id'\ntR."), "not a whole .npz file"),
    "a header that is code": (arrays(y=npy("__import__('os').system('id')")), "not a whole .npz file"),
    "another name": (archive({"../x.npy": npy(describes("()"))}), "unknown array '../x'"),
    "no array": (archive({"x": b"x"}), "unknown array 'x'"),
    "a name twice": (archive({"x.npy": npy(describes("()"))}, ("x.npy", b"")), "holds the member 'x.npy' twice"),
    "many arrays": (archive({f"x_{k}.npy": b"" for k in range(10_001)}), "holds 10001 members"),
    "a bomb": (_declares(arrays(y=b""), 2**32 - 2), "the whole archive declares 8.0 GiB, more than the limit"),
}


def models(sound: Path) -> dict[str, tuple[bytes, str]]:
    """The bytes of every hostile model file, compiled and not, and words of the refusal."""
    with zipfile.ZipFile(sound) as file:
        members = {name: file.read(name) for name in file.namelist()}
    found = {kind: (make(members), words) for kind, (make, words) in ARCHIVES.items()}
    for kind, (change, words) in CONFIGURATIONS.items():
        for compiled in (True, False):
            model = json.loads(members["config.json"])
            if not compiled:
                model["compile_config"] = None
                if "compile" in words or kind in ("a compiled metric", "a schedule"):
                    continue
            change(model)
            content = archive({**members, "config.json": json.dumps(model).encode()})
            found[kind if compiled else f"{kind}, uncompiled"] = (content, words)
    return found
