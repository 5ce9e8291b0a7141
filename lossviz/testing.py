"""For your own tests: fail where `lint` finds something."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from lossviz.ask.lint import lint
from lossviz.report.findings import SEVERITIES

if TYPE_CHECKING:
    import keras

__all__ = ["assert_sound"]


def assert_sound(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
    severity: str = "warning",
    allow: Collection[str] = (),
    **options: Any,
) -> None:
    """Fail unless the loss of this model on this data is sound.

        def test_the_loss_is_sound():
            lossviz.testing.assert_sound(make_model(), x[:64], y[:64], allow={"imbalance"})

    Args:
        model, x, y, sample_weight, options: as for `lossviz.lint`.
        severity: the least severity that fails: "error", "warning" (the default) or "hint".
        allow: names of rules whose findings do not fail.

    Raises:
        AssertionError: something was found; it lists the findings, each with its way out.
        ValueError: `severity` or a name in `allow` is none that there is; and as `lossviz.lint`.
        RuntimeError: Keras runs on another backend than TensorFlow or JAX.
    """
    if severity not in SEVERITIES:
        raise ValueError(f"severity must be one of {', '.join(map(repr, SEVERITIES))}, got {severity!r}.")
    if isinstance(allow, str):
        raise ValueError(f"allow={allow!r} is one string; give a collection of names, such as {{{allow!r}}}.")
    findings = lint(model, x, y, sample_weight, **options)
    from lossviz.rules import RULES

    if unknown := sorted(set(allow) - set(RULES)):
        raise ValueError(f"allow names {unknown[0]!r}, which is no rule; python -m lossviz rules names them all.")
    serious = SEVERITIES[: SEVERITIES.index(severity) + 1]
    found = [finding for finding in findings if finding.severity in serious and finding.rule not in allow]
    if found:
        head = f"the loss of model {model.name!r} has {len(found)} finding{'s' * (len(found) > 1)}:"
        raise AssertionError("\n\n".join([head, *map(str, found)]))
