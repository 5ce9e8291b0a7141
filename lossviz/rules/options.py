"""Options of losses and of compile that do nothing, something else, or nothing sensible."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from lossviz.backend import keras_private as _keras
from lossviz.rules.evidence import Case, loss_name
from lossviz.rules.rule import Faults, rule
from lossviz.rules.words import counted, n

#: Option of a loss of Keras -> the range of its formula.
_RANGES = {
    "label_smoothing": (0.0, 1.0),
    "gamma": (0.0, math.inf),
    "delta": (0.0, math.inf),
    "alpha": (0.0, math.inf),
    "beta": (0.0, math.inf),
}


@rule("unused-option", "symptoms", severity="warning", since="3.0")
def unused_option(case: Case) -> Faults:
    """An option of a loss that is set and does nothing: alpha of the binary focal crossentropy without balancing.

    Way out: set the option that switches it on, or leave it out.
    """
    for out in case.outputs:
        options = _keras.options_of(out.loss)
        alpha = options.get("alpha")
        if loss_name(out) != "binary_focal_crossentropy" or alpha in (None, 0.25) or out.tensor is None:
            continue
        if not options.get("apply_class_balancing"):
            config = {**out.loss.get_config(), "apply_class_balancing": True}
            balanced = case.call_again(dataclasses.replace(out, loss=type(out.loss).from_config(config)))
            yield (
                out.name,
                f"alpha={n(alpha)} is set and not used: without apply_class_balancing=True the loss is "
                f"{n(case.number(out))} for every alpha.",
                f"BinaryFocalCrossentropy(alpha={n(alpha)}, apply_class_balancing=True), which makes the loss "
                f"{n(balanced)}, or no alpha.",
            )


@rule("option-range", "symptoms")
def option_range(case: Case) -> Faults:
    """An option outside the range of the formula.

    Way out: a value in the range of the formula.
    """
    for out in case.outputs:
        if out.is_custom:
            continue
        for name, value in _keras.options_of(out.loss).items():
            low, high = _RANGES.get(name, (-math.inf, math.inf))
            if name == "alpha" and loss_name(out) == "binary_focal_crossentropy":
                high = 1.0
                if not _keras.options_of(out.loss).get("apply_class_balancing"):
                    continue  # see "unused-option"
            if not isinstance(value, (int, float)) or isinstance(value, bool) or low <= value <= high:
                continue
            span = f"{n(low)} to {n(high)}" if math.isfinite(high) else f"{n(low)} on"
            yield (
                out.name,
                f"{name}={n(value)}, and the formula of {type(out.loss).__name__} is meant for {name} from {span}.",
                f"Choose {name} in that range.",
            )


@rule("tversky-swapped", "ratios", severity="warning", since="3.0")
def tversky_swapped(case: Case) -> Faults:
    """Keras's Tversky: alpha is the price of misses and beta that of false alarms, against its documentation.

    Way out: exchange alpha and beta.
    """
    for out in case.outputs:
        options = _keras.options_of(out.loss)
        alpha, beta = options.get("alpha"), options.get("beta")
        if loss_name(out) != "tversky" or alpha == beta or out.tensor is None:
            continue
        config = {**out.loss.get_config(), "alpha": beta, "beta": alpha}
        exchanged = case.call_again(dataclasses.replace(out, loss=type(out.loss).from_config(config)))
        yield (
            out.name,
            f"alpha={n(alpha)} is the price of misses here and beta={n(beta)} that of false alarms, the other way "
            f"round than Keras documents them: the loss is {n(case.number(out))}. As documented it is {n(exchanged)}.",
            f"Exchange them: Tversky(alpha={n(beta)}, beta={n(alpha)}), or use "
            "lossviz.losses.SegmentationTversky, whose fp and fn are what they say.",
        )


@rule("loss-weights-order", "many_outputs", since="3.0")
def loss_weights_order(case: Case) -> Faults:
    """Loss weights that reach another output than the one they were written for.

    Way out: `loss_weights` as a dictionary by the names of the outputs.
    """
    if case.model is None or len(case.outputs) < 2:
        return
    losses, weights = _keras.declared_losses(case.model)
    taken = {str(entry.name): entry.loss_weights for entry in _keras.flat_losses(case.model)}
    taken = {name: float(weight) for name, weight in taken.items() if isinstance(weight, (int, float))}
    if isinstance(weights, dict):
        unknown = [name for name in weights if name not in taken]
        if unknown and taken:
            yield (
                "loss_weights",
                f"loss_weights names {', '.join(map(repr, weights))}, and the outputs are "
                f"{', '.join(map(repr, taken))}. Keras does not refuse that and gives the "
                f"weights by position: {_pairs(taken)}.",
                "Give loss_weights the names of the outputs.",
            )
    elif isinstance(weights, (list, tuple)) and isinstance(losses, dict) and len(weights) == len(losses):
        meant = {str(name): float(weight) for name, weight in zip(losses, weights)}
        if set(meant) == set(taken) and meant != taken:
            yield (
                "loss_weights",
                f"loss_weights={list(weights)} stand in the order of the losses, {', '.join(map(repr, meant))}, but "
                f"Keras gives them by the alphabet: {_pairs(taken)}.{_total(case, taken, meant)}",
                f"Give loss_weights by name: {meant}.",
            )


def _total(case: Case, taken: dict[str, float], meant: dict[str, float]) -> str:
    """What the loss would be, where each output's is known."""
    outputs = {name: case.output(name) for name in meant}
    if case.report is None or any(out is None or out.tensor is None for out in outputs.values()):
        return ""
    moved = sum((meant[name] - taken[name]) * case.number(out) for name, out in outputs.items())
    return f" The loss is {n(case.report.reported)}; with the weights by name it is {n(case.report.reported + moved)}."


def _pairs(weights: dict[str, float]) -> str:
    return ", ".join(f"{name!r} {n(weight)}" for name, weight in weights.items())


@rule("ctc", "symptoms")
def ctc(case: Case) -> Faults:
    """Labels that Keras's CTC reads otherwise: padding that is not 0, more labels than steps.

    Way out: pad the labels with 0 and let the classes begin at 1; keep at least as many steps as the labels need.
    """
    for out in case.outputs:
        if loss_name(out) != "ctc" or out.tensor is None:
            continue
        labels, steps = np.round(case.value(out.y_true)).astype(int), case.shape(out.y_pred)[1]
        if np.any(labels < 0):
            filled = np.where(labels < 0, 0, labels)
            right = case.call(out, filled.astype(case.value(out.y_true).dtype))
            yield (
                out.name,
                f"y holds {counted(int(np.sum(labels < 0)), 'label')} below 0, and CTC takes only 0 for padding: the "
                f"loss is {n(case.number(out))}, with 0 in their place {n(right)}.",
                "Fill labels up with 0, and let the classes begin at 1: y = np.where(y < 0, 0, y).",
            )
        needed = np.array([_needed(row[row > 0]) for row in labels])
        if np.any(needed > steps):
            worst = int(np.argmax(needed))
            yield (
                out.name,
                f"{counted(int(np.sum(needed > steps)), 'sample')} cannot be written in {counted(steps, 'step')}: "
                f"sample {worst} needs {needed[worst]}, one per label and one between equal neighbours. The loss is "
                f"{n(case.number(out))}, and means nothing there.",
                "Keep more steps (less pooling along time), or leave these samples out.",
            )


def _needed(row: np.ndarray) -> int:
    return len(row) + int(np.sum(row[1:] == row[:-1]))


@rule("metric-named-loss", "progress_bar", severity="warning")
def metric_named_loss(case: Case) -> Faults:
    """A metric of one's own named "loss", which evaluate prints in place of the loss.

    Way out: another name for the metric, or a `test_step` that updates it.
    """
    if case.model is None or type(case.model).test_step is not _keras.plain_test_step():
        return
    own = [metric for metric in _keras.other_metrics(case.model) if metric.name == "loss"]
    if own and case.report is not None:
        yield (
            type(own[0]).__name__,
            "a metric of yours is named 'loss', and nothing updates it in evaluate, so evaluate and val_loss print "
            f"{n(float(np.asarray(own[0].result())))} of it, where the loss is {n(case.report.total)}.",
            "Name the metric otherwise, or update it in a test_step of your own as well.",
        )
