"""The list of what a model file may name: nothing that Keras exports is forgotten, and nothing on it opens or calls."""

import inspect

import keras
from keras.src import api_export
from keras.src.saving.keras_saveable import KerasSaveable

import lossviz
from lossviz.files import names

NAMES = names.known()
ALLOWED = NAMES.classes | NAMES.functions
EXPORTED = dict(api_export.REGISTERED_NAMES_TO_OBJS)


def saveable(cls=KerasSaveable):
    for sub in cls.__subclasses__():
        yield sub
        yield from saveable(sub)


def of_keras():
    """What Keras's deserialisation can reach: what is exported, and its classes that can be saved."""
    private = {f"{c.__module__}.{c.__name__}" for c in saveable() if c.__module__.startswith("keras.src.")}
    exported = {f"{c.__module__}.{c.__name__}" for c in EXPORTED.values() if inspect.isclass(c)}
    return set(EXPORTED) | (private - exported)


def test_each_name_of_keras_is_allowed_or_refused_with_a_reason():
    """A new Keras fails here: its new names then go on one of the lists. Until that they are refused."""
    found = of_keras()
    assert len(found) > 1000
    assert sorted(found - ALLOWED - set(NAMES.refused)) == []
    assert sorted(ALLOWED & set(NAMES.refused)) == []
    assert all(reason and not reason.endswith(".") for reason in NAMES.refused.values())


def public(module, seen):
    """The modules of Keras that people import from, each once."""
    seen[module.__name__] = module
    for thing in list(vars(module).values()):
        if inspect.ismodule(thing) and thing.__name__.startswith("keras.") and thing.__name__ not in seen:
            if not thing.__name__.startswith("keras.src"):
                public(thing, seen)
    return seen


def test_each_public_name_too():
    """The names that people write: each is one of those that Keras exports, or another name of it."""
    known, missing, seen = {id(thing) for thing in EXPORTED.values()}, [], 0
    for module in public(keras, {}).values():
        for name, thing in vars(module).items():
            if not name.startswith("_") and (inspect.isclass(thing) or inspect.isfunction(thing)):
                seen += 1
                if id(thing) not in known:
                    missing.append(f"{module.__name__}.{name}")
    assert missing == [] and seen > 1000


def test_each_allowed_name_is_what_its_section_says():
    for full in NAMES.classes | NAMES.functions:
        thing = EXPORTED.get(full)
        if thing is not None:
            assert inspect.isclass(thing) == (full in NAMES.classes), full


def test_ours_are_those_that_register():
    assert lossviz.losses and lossviz.layers  # they register themselves
    registered = {name for name in keras.saving.get_custom_objects() if name.startswith("lossviz>")}
    assert registered == NAMES.registered


def test_no_allowed_function_takes_a_function_a_path_or_an_address():
    words = {"f", "fn", "fun", "func", "function", "cond", "body", "callable", "url", "directory"}
    for full in NAMES.functions:
        assert full.rpartition(".")[2] not in ("get", "deserialize", "serialize")
        if (function := EXPORTED.get(full)) is not None:
            arguments = set(inspect.signature(function).parameters) - {"top_paths"}  # of ctc_decode: a number
            assert not [a for a in arguments if a in words or "path" in a or "file" in a], full


def test_arguments_that_keras_opens_are_known():
    """Of the allowed classes: each argument that may be the name of a file is one that the check refuses."""
    from lossviz.files import config

    words = ("path", "file", "dir", "url", "vocab")
    fine = {"dirac", "directions", "bidirectional"}
    found = set()
    for full in NAMES.classes:
        cls = EXPORTED.get(full)
        if cls is not None and not full.startswith("keras.src"):
            found |= {p for p in inspect.signature(cls.__init__).parameters if any(w in p for w in words)}
    found -= fine | {"vocabulary_size", "vocabulary_dtype"}
    assert "vocabulary" in found and found <= set(config._PATHS)


def test_what_a_bare_text_can_stand_for_is_allowed_too():
    """A loss, metric or activation may be named by a text alone: Keras looks it up in these tables."""
    from keras.src import activations, constraints, initializers, losses, metrics, optimizers, quantizers, regularizers

    families = (activations, constraints, initializers, losses, metrics, optimizers, quantizers, regularizers)
    reached = {thing for family in families for thing in family.ALL_OBJECTS_DICT.values()}
    full = {api_export.get_name_from_symbol(t) or f"{t.__module__}.{t.__name__}" for t in reached}
    # The rest is made with no argument at all, so nothing of the file reaches it.
    harmless = {name for name, reason in NAMES.refused.items() if reason.startswith("is a base class")}
    assert full - ALLOWED <= harmless | {"keras.quantizers.AWQConfig", "keras.quantizers.GPTQConfig"}
